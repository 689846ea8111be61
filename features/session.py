"""Where in a visit the user is: how far in, how fast, how much of the list was there before.

A visit ends with a pause of 30 minutes between requests (`features.windows.SESSION_PAUSE_MS`).
"""

import polars as pl

from features.arithmetic import minutes, ratio
from features.columns import MINUTE

LAST_REQUESTS = ("1", "2", "5", "10")


def session_requests() -> pl.Expr:
    """Lists that the user was shown in this visit before this one. >= 0. Deep in a visit the best is taken."""
    return pl.col("session_requests")


def session_minutes() -> pl.Expr:
    """How long the visit lasts already. Minutes, >= 0."""
    return (pl.col("requested_ms") - pl.col("session_start_ms")) / MINUTE


def session_item_exposures() -> pl.Expr:
    """How often the article was shown to the user in this visit. >= 0. Shown again and again, it is not wanted."""
    return pl.col("session_item_exposures")


def repeated(requests: str) -> pl.Expr:
    """How often the article was in the user's last {requests} lists. >= 0. Falls where lists are fresh.

    Lists of one instant have no order: they are among the last together.
    """
    return pl.col(f"repeated_{requests}")


def user_requests_24h() -> pl.Expr:
    """Lists that the user was shown in the last 24 hours. >= 0."""
    return pl.col("user_requests_24h")


def user_visits() -> pl.Expr:
    """Visits of the user with at least one list so far. >= 0."""
    return pl.col("session_opens")


def user_minutes_since_request() -> pl.Expr:
    """Pause since the user's last list. Minutes, >= 1 (floored), null for the first."""
    return minutes(pl.col("requested_ms") - pl.col("last_request_ms"))


def last_list_length() -> pl.Expr:
    """Length of the list that the user was shown before this one. >= 1, null for the first."""
    return pl.col("last_list_length")


def user_clicks_per_request() -> pl.Expr:
    """The user's clicks of all time per list shown. >= 0, null before the first list. Pickers and skimmers differ."""
    return ratio(pl.col("user_clicks"), pl.col("user_requests_all"))
