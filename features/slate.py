"""Where the candidate stands inside its own request, for the strongest signals.

A model that scores one candidate at a time cannot see the others; these columns show it. They are made from the whole
list, before any negative is left out.
"""

import polars as pl

from features.arithmetic import ratio
from features.columns import HOUR
from features.exposure import (
    CLICKED_WINDOWS,
    DEPTH_WINDOWS,
    LENGTH_WINDOWS,
    item_clicked_list_length,
    item_depth,
    item_lift,
    item_list_length,
)

SIGNALS = ("item_clicks_15m", "item_clicks_1h", "transitions_3h", "transitions_36h")
"""Facts of every log that are told as rank and share."""
EXPOSURE_SIGNALS = (
    "item_exposures_5m",
    "item_exposures_15m",
    "item_exposures_1h",
    "item_exposures_6h",
    "item_clicks_6h",
    "item_clicks_24h",
    "user_item_exposures_all",
)
"""The same for logs with impressions; there the distance to the best is told as well. All whole numbers: a sum of
floats would depend on the order of the candidates."""
LENGTHS = LENGTH_WINDOWS
DEPTHS = DEPTH_WINDOWS
CLICKED_LENGTHS = CLICKED_WINDOWS
REQUEST = "request_id"


def slate_rank(signal: str) -> pl.Expr:
    """Rank of the candidate by {signal} inside its request. 1 is the largest; equals share the better rank."""
    return pl.col(signal).rank("min", descending=True).over(REQUEST)


def slate_share(signal: str) -> pl.Expr:
    """Share of the request's sum of {signal}. 0..1, null where the sum is 0."""
    return ratio(pl.col(signal), pl.col(signal).sum().over(REQUEST))


def slate_distance(signal: str) -> pl.Expr:
    """How far {signal} is below the largest of the request. <= 0."""
    return pl.col(signal) - pl.col(signal).max().over(REQUEST)


def slate_lift_rank() -> pl.Expr:
    """Rank by clicks against blind choice within a day. 1 is the best of the request; equals share the better rank."""
    return _lift().rank("min", descending=True).over(REQUEST)


def slate_lift_share() -> pl.Expr:
    """Share of the request's sum of clicks against blind choice within a day. 0..1, null where the sum is 0."""
    # In whole thousandths: a sum of floats would depend on the order of the candidates.
    whole = (_lift() * 1_000).round().cast(pl.Int64)
    # An article shown some thousand times without a click rounds to 0, and so may all of a request.
    return ratio(whole, whole.sum().over(REQUEST))


def slate_lift_distance() -> pl.Expr:
    """How far clicks against blind choice within a day are below the best of the request. <= 0."""
    return _lift() - _lift().max().over(REQUEST)


def slate_first_seen_rank() -> pl.Expr:
    """Rank by first appearance. 1 is the newest of the request; equals share the better rank, null for the unseen."""
    return pl.col("first_seen_ms").rank("min", descending=True).over(REQUEST)


def slate_hours_behind_newest_seen() -> pl.Expr:
    """How much earlier the article was first seen than the newest of the request. Hours, >= 0, null for the unseen."""
    return (pl.col("first_seen_ms").max().over(REQUEST) - pl.col("first_seen_ms")) / HOUR


def slate_length_rank(window: str) -> pl.Expr:
    """Rank by how long the lists of the last {window} were that held the article. 1 stands furthest down the page."""
    return item_list_length(window).rank("min", descending=True).over(REQUEST)


def slate_length_distance(window: str) -> pl.Expr:
    """How much shorter the lists of the last {window} that held it were than those of the deepest. <= 0, or null."""
    return item_list_length(window) - item_list_length(window).max().over(REQUEST)


def slate_depth_rank(window: str) -> pl.Expr:
    """Rank by how far down the page the article stood in the last {window}. 1 is the deepest of the request."""
    return item_depth(window).rank("min", descending=True).over(REQUEST)


def slate_depth_ratio(window: str) -> pl.Expr:
    """Length of the request against how far down the page the article stood in the last {window}. > 0, or null."""
    return pl.len().over(REQUEST) / item_depth(window)


def slate_clicked_length_rank(window: str) -> pl.Expr:
    """Rank by the length of the lists of the last {window} out of which it was clicked. 1 is the longest, or null."""
    return item_clicked_list_length(window).rank("min", descending=True).over(REQUEST)


def slate_clicked_length_ratio(window: str) -> pl.Expr:
    """Length of the request against those of the last {window} out of which the article was clicked. > 0, or null."""
    return pl.len().over(REQUEST) / item_clicked_list_length(window)


def slate_longer_than_last() -> pl.Expr:
    """How much longer the list is than the user's last one. Articles, null for the first."""
    return pl.len().over(REQUEST) - pl.col("last_list_length")


def slate_unseen_by_user() -> pl.Expr:
    """How many of the request's articles the user was never shown. >= 0. Where all is old the new stands out."""
    return (pl.col("user_item_exposures_all") == 0).sum().over(REQUEST)


def slate_length() -> pl.Expr:
    """Candidates of the request. >= 1."""
    return pl.len().over(REQUEST)


def slate_freshness_rank() -> pl.Expr:
    """Rank by creation time inside the request. 1 is the newest, null where unknown."""
    return pl.col("created_ms").rank("min", descending=True).over(REQUEST)


def slate_hours_behind_newest() -> pl.Expr:
    """How much older the article is than the newest of the request. Hours, >= 0, null where unknown."""
    return (pl.col("created_ms").max().over(REQUEST) - pl.col("created_ms")) / HOUR


def _lift() -> pl.Expr:
    return item_lift("24h")
