"""Columns of a log that the catalogue does not know, for features that somebody adds: `article_...` and `request_...`.

They are what the frames say, at whatever moment: nothing here can tell whether a column was known at the request.
`newsrec.audit` looks for those that were not.
"""

from collections.abc import Iterable
from typing import Final

import polars as pl

from features.columns import CLICK_KEY, REQUEST
from features.facts import Rows
from features.windows import NO_KEY

OF_ARTICLE: Final = "article_"
"""Before the name of a column of the articles."""
OF_REQUEST: Final = "request_"
"""Before the name of a column of the impressions that is the same for every article of a list."""

RESERVED: Final = frozenset(
    {*CLICK_KEY, *REQUEST, "impression_id", "clicked", "dwell_seconds", "position", "label"}
    | {"split", "positives", "history_clicks", "positive_age_hours"}
)
"""Keys, outcomes, and what the split writes beside the requests: no own column is named after one of them."""


def is_own(name: str) -> bool:
    """Whether an expression's root is an own column.

    >>> is_own("article_mood"), is_own("request_weather"), is_own("request_id"), is_own("item_clicks_1h")
    (True, True, False, False)
    """
    return name.startswith((OF_ARTICLE, OF_REQUEST)) and name != "request_id"


def source_of(name: str) -> tuple[str, str]:
    """Frame and column behind an own column.

    >>> source_of("article_mood"), source_of("request_weather")
    (('articles', 'mood'), ('impressions', 'weather'))
    """
    if name.startswith(OF_ARTICLE):
        return "articles", name.removeprefix(OF_ARTICLE)
    return "impressions", name.removeprefix(OF_REQUEST)


def own_columns(rows: Rows, names: Iterable[str]) -> list[pl.Series]:
    """The named own columns, one row per candidate, in the candidates' order; null where nothing is known."""
    return [_column(rows, name) for name in names]


def _column(rows: Rows, name: str) -> pl.Series:
    frame, column = source_of(name)
    if frame == "articles":
        values = rows.store.article_column(column)
        place = pl.Series(rows.item).replace(NO_KEY, None)
    else:
        values = rows.requests[column] if column in rows.requests.columns else None
        dtype = rows.store.request_dtype(column)
        values = values.cast(dtype) if values is not None and dtype is not None else values
        if values is None and dtype is not None:
            values = pl.Series([None] * len(rows.requests), dtype=dtype)
        place = pl.Series(rows.row)
    return pl.Series(name, [None] * len(place)) if values is None else values.gather(place).alias(name)
