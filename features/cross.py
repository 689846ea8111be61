"""How the article fits the reader: taste, and what readers of the last article went on to."""

import polars as pl

from features.arithmetic import ratio
from features.columns import HOUR
from features.user import user_mean_words

TRANSITION_WINDOWS = ("3h", "36h")


def user_category_clicks() -> pl.Expr:
    """Articles of this category that the user has read. Clicks, >= 0."""
    return pl.col("user_category_clicks")


def user_category_share() -> pl.Expr:
    """Share of the user's clicks on this category. 0..1, null for a user without clicks."""
    return ratio(pl.col("user_category_clicks"), pl.col("user_clicks"))


def user_category_taste() -> pl.Expr:
    """The user's clicks on this category, each counting half after a week. >= 0. Taste that can change."""
    return pl.col("user_category_taste")


def user_publisher_taste() -> pl.Expr:
    """The user's clicks on this publisher, each counting half after a week. >= 0."""
    return pl.col("user_publisher_taste")


def same_category_as_last() -> pl.Expr:
    """Whether the user's last click was on this category. 0 or 1, null where either is unknown."""
    return pl.col("category_code") == pl.col("last_category_code")


def same_category_as_second() -> pl.Expr:
    """Whether the user's last click but one was on this category. 0 or 1, null where either is unknown."""
    return pl.col("category_code") == pl.col("second_category_code")


def words_minus_last() -> pl.Expr:
    """Length against the last article read. Words, null where either is unknown."""
    return pl.col("words") - pl.col("last_words")


def words_minus_user_mean() -> pl.Expr:
    """Length against what the user usually reads. Words, null where either is unknown."""
    return pl.col("words") - user_mean_words()


def hours_created_after_last() -> pl.Expr:
    """How much newer the article is than the last one read. Hours, negative for older, null where unknown."""
    return (pl.col("created_ms") - pl.col("last_created_ms")) / HOUR


def hours_created_after_visit() -> pl.Expr:
    """How long after the user's last click the article appeared. Hours, < 0 if it was there already, null unknown."""
    return (pl.col("created_ms") - pl.col("user_last_ms")) / HOUR


def transitions(window: str) -> pl.Expr:
    """Readers of the last {window} who went from the user's last article straight to this one. >= 0."""
    return pl.col(f"transitions_{window}")


def transition_share(window: str) -> pl.Expr:
    """Share of those who left the user's last article in the last {window} and came here. 0..1, null without any."""
    return ratio(pl.col(f"transitions_{window}"), pl.col(f"departures_{window}"))


def back_transitions_36h() -> pl.Expr:
    """Readers of the last 36 hours who went from this article straight to the user's last one. >= 0."""
    return pl.col("back_transitions_36h")


def second_transitions_3h() -> pl.Expr:
    """Readers of the last 3 hours who went from the user's last article but one straight to this one. >= 0."""
    return pl.col("second_transitions_3h")


def second_transition_share_36h() -> pl.Expr:
    """The transition share over 36 hours from the user's last article but one. 0..1, null without any."""
    return ratio(pl.col("second_transitions_36h"), pl.col("second_departures_36h"))


def transition_lift_36h() -> pl.Expr:
    """Transition share from the last article against the article's share of all clicks. >= 0, null without either.

    Above 1: read by this article's readers more than by the public.
    """
    # The inner ratio is null in a silent night; 0 / 0 would be NaN, which Polars holds to be above 0.
    return ratio(transition_share("36h"), ratio(pl.col("item_clicks_3h"), pl.col("all_clicks_3h")))


def category_transition_share_24h() -> pl.Expr:
    """Share of readers leaving the last article's category within 24 hours who went to this category. 0..1, or null."""
    return ratio(pl.col("category_transitions_24h"), pl.col("category_departures_24h"))
