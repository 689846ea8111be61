"""What showing an article has brought: how often it was shown and what part of it was clicked.

In the public evidence (EB-NeRD without features from the future) this family gives the most.
"""

import polars as pl

from features.arithmetic import minutes, ratio
from features.indices import CHANCE_UNIT, DEPTH_UNIT

EXPOSURE_WINDOWS = ("5m", "15m", "1h", "6h", "24h", "all")
RATE_WINDOWS = ("1h", "6h", "24h", "all")
LENGTH_WINDOWS = ("15m", "1h", "6h")
DEPTH_WINDOWS = ("15m", "1h", "6h", "24h")
CLICKED_WINDOWS = ("1h", "6h", "24h")
DECAYS = ("30m", "2h", "12h")
VISIT_WINDOWS = ("1h", "24h")
OWN_WINDOWS = ("5m", "1h", "24h", "all")

CLICKS_AHEAD = 1.0
"""Clicks that every article is credited with ..."""
EXPOSURES_AHEAD = 10.0
"""... for so many exposures: a rate of few exposures stays near one in ten (Laplace's rule, with a prior)."""


def item_exposures_log(window: str) -> pl.Expr:
    """Log of 1 + how often the article was shown to anybody in the last {window}. >= 0. What the editors push now."""
    return pl.col(f"item_exposures_{window}").log1p()


def item_click_rate(window: str) -> pl.Expr:
    """Smoothed share of the article's exposures of the last {window} that were clicked. > 0.

    Above 1 where clicks come from elsewhere as well.
    """
    return (pl.col(f"item_clicks_{window}") + CLICKS_AHEAD) / (pl.col(f"item_exposures_{window}") + EXPOSURES_AHEAD)


def item_lift(window: str) -> pl.Expr:
    """Clicks of the last {window} against those of a blind choice from the same lists. > 0, 1 is chance.

    Unlike the rate it does not take an article for worse because it stood in long lists.
    """
    return (pl.col(f"item_clicks_{window}") + 1) / (pl.col(f"item_chance_{window}") / CHANCE_UNIT + 1)


def item_lift_decayed(half_life: str) -> pl.Expr:
    """Clicks against blind choice, each counting half after every {half_life}. > 0, 1 is chance."""
    clicks, chance = pl.col(f"item_clicks_decayed_{half_life}"), pl.col(f"item_chance_decayed_{half_life}")
    return (clicks + 0.5) / (chance + 0.5)


def item_exposure_trend_1h_24h() -> pl.Expr:
    """Exposures of the last hour against an hour of the last day. > 0, 1 is steady; a new or pushed story is above."""
    return (pl.col("item_exposures_1h") * 24 + 1) / (pl.col("item_exposures_24h") + 1)


def item_click_rate_trend_1h_24h() -> pl.Expr:
    """Click rate of the last hour against that of the last day. > 0, 1 is steady; a story that wears out is below."""
    return item_click_rate("1h") / item_click_rate("24h")


def item_minutes_since_exposure() -> pl.Expr:
    """How long ago anybody was shown the article. Minutes, >= 1 (floored), null for one never shown."""
    return minutes(pl.col("requested_ms") - pl.col("item_exposed_ms"))


def item_list_length(window: str) -> pl.Expr:
    """Mean length of the lists of the last {window} that held the article. >= 1, null without any.

    A list ends where its reader stopped: what stands far down the page is in long lists only. At the end of a list
    stands what stopped the reader, which often is what was clicked.
    """
    return ratio(pl.col(f"item_list_lengths_{window}"), pl.col(f"item_exposures_{window}"))


def item_depth(window: str) -> pl.Expr:
    """How far down the page the article stood in the last {window}. Articles, >= 1, null where it was not shown.

    The power mean of order -3 of the lengths of the lists that held it. A list is at least as long as the place of each
    of its articles, so the shortest ones tell it best; the mean leans towards them without hanging on a single one.
    """
    return (pl.col(f"item_exposures_{window}") * DEPTH_UNIT / _positive(f"item_depth_{window}")).cbrt()


def item_clicked_list_length(window: str) -> pl.Expr:
    """Mean length of the lists of the last {window} out of which the article was clicked. >= 1, null without a click.

    Where lists end with what was clicked, this is the place of the article.
    """
    return ratio(pl.col(f"item_clicked_list_lengths_{window}"), pl.col(f"item_clicked_lists_{window}"))


def item_visits(window: str) -> pl.Expr:
    """How often somebody was seen on the article's page in the last {window}, from wherever they came. >= 0."""
    return pl.col(f"item_visits_{window}")


def user_item_exposures(window: str) -> pl.Expr:
    """How often the user was shown the article in the last {window}. >= 0. Passed over is told apart from unseen."""
    return pl.col(f"user_item_exposures_{window}")


def user_item_minutes_since_exposure() -> pl.Expr:
    """How long ago the user was last shown the article. Minutes, >= 1 (floored), null for one never shown."""
    return minutes(pl.col("requested_ms") - pl.col("user_item_exposed_ms"))


def user_item_clicks() -> pl.Expr:
    """How often the user has read the article. >= 0. Read articles are rarely opened again."""
    return pl.col("user_item_clicks_all")


def user_item_passed_over() -> pl.Expr:
    """Exposures of the article to the user beyond the clicks on it. >= 0. What is passed over is not wanted."""
    return pl.max_horizontal(pl.col("user_item_exposures_all") - pl.col("user_item_clicks_all"), pl.lit(0))


def user_category_click_rate() -> pl.Expr:
    """Smoothed share of the exposures of this category to the user that were clicked. > 0."""
    return (pl.col("user_category_clicks") + CLICKS_AHEAD) / (pl.col("user_category_exposures_all") + EXPOSURES_AHEAD)


def _positive(fact: str) -> pl.Expr:
    return pl.when(pl.col(fact) > 0).then(pl.col(fact))
