"""How close the candidate's embedding is to what the user read last."""

import polars as pl


def cosine_last() -> pl.Expr:
    """Cosine with the last article read. -1..1, null where either has no embedding. The thread the reader is in."""
    return pl.col("cosine_last").fill_nan(None)


def cosine_max() -> pl.Expr:
    """Largest cosine with one of the last five articles read. -1..1, null without an embedding on either side."""
    return pl.col("cosine_max").fill_nan(None)


def cosine_mean() -> pl.Expr:
    """Cosine with the mean of the last five articles read. -1..1, null without an embedding on either side."""
    return pl.col("cosine_mean").fill_nan(None)
