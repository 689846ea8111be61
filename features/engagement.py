"""How long articles are read: what a click alone does not tell. A reading counts from its end on."""

import polars as pl

from features.arithmetic import ratio
from features.columns import SECOND

WINDOWS = ("24h", "all")


def item_seconds_per_reading(window: str) -> pl.Expr:
    """Mean reading time of the readings that ended in the last {window}. Seconds, >= 0, null without any."""
    return ratio(pl.col(f"item_read_ms_{window}") / SECOND, pl.col(f"item_readings_{window}"))


def item_seconds_per_exposure_24h() -> pl.Expr:
    """Seconds read in the last 24 hours per exposure. >= 0. Rewards what is clicked and then read to the end."""
    return pl.col("item_read_ms_24h") / SECOND / (pl.col("item_exposures_24h") + 1)


def user_seconds_per_reading() -> pl.Expr:
    """How long the user reads on average. Seconds, >= 0, null without a measured reading."""
    return ratio(pl.col("user_read_ms_all") / SECOND, pl.col("user_readings_all"))
