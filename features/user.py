"""What is known of the reader: how active, how regular, how broad."""

import polars as pl

from features.arithmetic import minutes, ratio
from features.columns import HOUR, MINUTE


def user_clicks() -> pl.Expr:
    """Articles the user has read so far. Clicks, >= 0."""
    return pl.col("user_clicks")


def user_clicks_24h() -> pl.Expr:
    """Articles the user read in the last 24 hours. Clicks, >= 0."""
    return pl.col("user_clicks_24h")


def user_sessions() -> pl.Expr:
    """Visits so far, a pause of 30 minutes ending one. >= 0. Regulars read other things than passers-by."""
    return pl.col("user_sessions")


def user_session_clicks() -> pl.Expr:
    """Articles read in the visit that the last click belongs to. >= 0. Deep in a visit one leaves the front page."""
    return pl.col("session_clicks")


def user_minutes_since_click() -> pl.Expr:
    """Pause since the user's last click. Minutes, >= 1 (floored), null for a user without one."""
    return minutes(pl.col("requested_ms") - pl.col("user_last_ms"))


def user_mean_gap_hours() -> pl.Expr:
    """Mean pause between the user's clicks. Hours, >= 1 minute, null with fewer than two clicks."""
    span = pl.col("user_last_ms") - pl.col("user_first_ms")
    mean = span / (pl.col("user_clicks") - 1)
    return pl.when(pl.col("user_clicks") >= 2).then(pl.max_horizontal(mean, pl.lit(float(MINUTE)))) / HOUR


def user_mean_words() -> pl.Expr:
    """Mean length of what the user has read. Words, null where none is known."""
    return ratio(pl.col("user_words"), pl.col("user_clicks_with_words"))


def user_category_variety() -> pl.Expr:
    """Different categories per click. 0..1, null for a user without clicks; near 0 reads one thing only."""
    return ratio(pl.col("user_categories"), pl.col("user_clicks"))


def user_is_new() -> pl.Expr:
    """Whether the user has read nothing yet. 0 or 1: only the public can say then what to show."""
    return pl.col("user_clicks") == 0
