"""What is known of the moment: the hour, and where the reader came from last."""

import polars as pl

from features.columns import DAY, HOUR


def hour() -> pl.Expr:
    """Hour of the day, UTC. 0..24, with fractions. Breakfast, lunch and night readers differ."""
    return (pl.col("requested_ms") % DAY) / HOUR


def weekday() -> pl.Expr:
    """Day of the week, UTC. 0 (Monday) to 6. Weekends read other things."""
    # 1 January 1970 was a Thursday.
    return (pl.col("requested_ms") // DAY + 3) % 7


def now(column: str) -> pl.Expr:
    """The {column} of the request itself, as its vocabulary code. Category, 0 where unknown."""
    return pl.col(f"now_{column}_code")


def last(column: str) -> pl.Expr:
    """The {column} of the user's last click, as its vocabulary code. Category, 0 where unknown or without a click."""
    return pl.col(f"last_{column}_code")


def on_page() -> pl.Expr:
    """Whether the list stands below an article and not on a front page. 0 or 1."""
    return pl.col("on_page")


def is_page() -> pl.Expr:
    """Whether the candidate is the article that the user is on. 0 or 1, null on a front page. Nobody opens it again."""
    return pl.col("is_page")


def same_category_as_page() -> pl.Expr:
    """Whether the candidate shares the category of the article that the user is on. 0 or 1, null where unknown."""
    return pl.col("category_code") == pl.col("page_category_code")


def page_transitions_36h() -> pl.Expr:
    """Readers of the last 36 hours who went from the article that the user is on straight to this one. >= 0."""
    return pl.col("page_transitions_36h")
