"""Where the candidate stands inside its own request, for the strongest signals.

A model that scores one candidate at a time cannot see the others; these columns show it. They are made from the whole
list, before any negative is left out.
"""

import polars as pl

from features.columns import HOUR

RANKED = ("item_clicks_15m", "item_clicks_1h", "transitions_3h", "transitions_36h")
SHARED = RANKED
REQUEST = "request_id"


def slate_rank(signal: str) -> pl.Expr:
    """Rank of the candidate by {signal} inside its request. 1 is the largest; equals share the better rank."""
    return pl.col(signal).rank("min", descending=True).over(REQUEST)


def slate_share(signal: str) -> pl.Expr:
    """Share of the request's sum of {signal}. 0..1, null where the sum is 0."""
    whole = pl.col(signal).sum().over(REQUEST)
    return pl.when(whole > 0).then(pl.col(signal) / whole)


def slate_freshness_rank() -> pl.Expr:
    """Rank by creation time inside the request. 1 is the newest, null where unknown."""
    return pl.col("created_ms").rank("min", descending=True).over(REQUEST)


def slate_hours_behind_newest() -> pl.Expr:
    """How much older the article is than the newest of the request. Hours, >= 0, null where unknown."""
    return (pl.col("created_ms").max().over(REQUEST) - pl.col("created_ms")) / HOUR
