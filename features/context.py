"""What is known of the moment: the hour, and where the reader came from last."""

import polars as pl

from features.columns import CONTEXT, DAY, HOUR

COLUMNS = CONTEXT


def hour() -> pl.Expr:
    """Hour of the day, UTC. 0..24, with fractions. Breakfast, lunch and night readers differ."""
    return (pl.col("requested_ms") % DAY) / HOUR


def last(column: str) -> pl.Expr:
    """The {column} of the user's last click, as its vocabulary code. Category, 0 where unknown or without a click."""
    return pl.col(f"last_{column}_code")
