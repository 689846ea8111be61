"""What a model may know at the instant of a request: handcrafted, point-in-time features in Polars."""
