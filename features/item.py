"""What is known of the article: how much it is read right now, how old it is, how long it is."""

import polars as pl

from features.arithmetic import minutes, ratio
from features.columns import HOUR

CLICK_WINDOWS = ("5m", "15m", "1h", "3h", "12h", "24h", "48h", "all")
DECAYS = ("30m", "2h", "12h")
CATEGORY_WINDOWS = ("1h", "12h")


def item_clicks(window: str) -> pl.Expr:
    """Readers of the article in the last {window}. Clicks, >= 0. The strongest single sign of what is read next."""
    return pl.col(f"item_clicks_{window}")


def item_clicks_decayed(half_life: str) -> pl.Expr:
    """Readers of the article, each counting half after every {half_life}. >= 0. A window without an edge."""
    return pl.col(f"item_clicks_decayed_{half_life}")


def item_traffic_share_15m() -> pl.Expr:
    """Share of all clicks of the last 15 minutes that went to the article. 0..1, null where nobody clicked anything.

    Unlike the count it does not rise and fall with the hour of the day.
    """
    return ratio(pl.col("item_clicks_15m"), pl.col("all_clicks_15m"))


def item_traffic_share_3h() -> pl.Expr:
    """Share of all clicks of the last 3 hours that went to the article. 0..1, null where nobody clicked anything."""
    return ratio(pl.col("item_clicks_3h"), pl.col("all_clicks_3h"))


def item_trend_15m_3h() -> pl.Expr:
    """Click rate of the last 15 minutes against that of 3 hours. > 0, 1 is steady; a rising story is above."""
    return (pl.col("item_clicks_15m") * 12 + 1) / (pl.col("item_clicks_3h") + 1)


def item_trend_1h_12h() -> pl.Expr:
    """Click rate of the last hour against that of 12 hours. > 0, 1 is steady; a dying story is below."""
    return (pl.col("item_clicks_1h") * 12 + 1) / (pl.col("item_clicks_12h") + 1)


def item_minutes_since_click() -> pl.Expr:
    """How long ago anybody read the article. Minutes, >= 1 (floored), null for one never read."""
    return minutes(pl.col("requested_ms") - pl.col("item_clicked_ms"))


def item_age_hours() -> pl.Expr:
    """Age of the article at the request. Hours, null where its creation is unknown. News is read young."""
    return (pl.col("requested_ms") - pl.col("created_ms")) / HOUR


def item_hours_since_first_seen() -> pl.Expr:
    """How long ago anybody first met the article. Hours, > 0, null for one that nobody has met. Like its age."""
    return (pl.col("requested_ms") - pl.col("first_seen_ms")) / HOUR


def item_words() -> pl.Expr:
    """Length of the article. Words, null where unknown."""
    return pl.col("words")


def category_clicks(window: str) -> pl.Expr:
    """Clicks on the article's category in the last {window}. >= 0. What the public turns to now."""
    return pl.col(f"category_clicks_{window}")


def item_share_of_category_1h() -> pl.Expr:
    """Share of its category's clicks of the last hour that the article took. 0..1, null without such clicks."""
    return ratio(pl.col("item_clicks_1h"), pl.col("category_clicks_1h"))


def item_is_new() -> pl.Expr:
    """Whether nobody has read the article yet. 0 or 1: what counts say of it is then silence, not rejection."""
    return pl.col("item_clicks_all") == 0
