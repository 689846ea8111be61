"""What a source column must become: its canonical name, its kind, whether a row can live without it.

A format is a few tuples of `Column`. `casting` turns each into its canonical dtype, `files` reads whole files by them
and `canonical` makes the log of the results.
"""

from dataclasses import dataclass
from typing import Final, Literal

import polars as pl

from features.columns import CLICK_KEY, CONTEXT

Kind = Literal[
    "integer",
    "small",
    "text",
    "id",
    "value",
    "time",
    "past",
    "past_us",
    "number",
    "flag",
    "vector",
    "integers",
    "numbers",
    "times",
    "items",
    "slate",
]
"""`id` and `value` keep integers or text as the source has them; `past` is a time that may not lie in the future,
`past_us` one in American notation. `integers`, `numbers` and `times` are lists in Parquet; `items` and `slate` are
lists written as text, and stay text."""

EXPECTED: Final[dict[Kind, str]] = {
    "integer": "a whole number of 64 bits",
    "small": "a whole number of 32 bits",
    "text": "text",
    "id": "text or a whole number of 64 bits",
    "value": "text or a whole number",
    "time": "a time from 1990 to 2100 (epoch in s, ms, us or ns, or ISO 8601)",
    "past": "a time from 1990 until now (epoch in s, ms, us or ns, or ISO 8601)",
    "past_us": "a time from 1990 until now such as 11/15/2019 2:14:46 PM",
    "number": "a finite number",
    "flag": "0, 1, true or false",
    "vector": "a list of numbers, all of one length",
    "integers": "a list of whole numbers of 64 bits, none missing",
    "numbers": "a list of numbers",
    "times": "a list of times, none missing",
    "items": "a list such as N123 N456",
    "slate": "a list such as N123-0 N456-1, or N123 N456 without labels",
}

FAST: Final[dict[Kind, pl.DataType]] = {
    "integer": pl.Int64(),
    "small": pl.Int32(),
    "text": pl.String(),
    "id": pl.String(),
    "value": pl.String(),
    "time": pl.Int64(),
    "past": pl.Int64(),
    "past_us": pl.String(),
    "number": pl.Float64(),
    "flag": pl.String(),
    "vector": pl.String(),
    "integers": pl.String(),
    "numbers": pl.String(),
    "times": pl.String(),
    "items": pl.String(),
    "slate": pl.String(),
}
"""Dtypes for the first attempt at a CSV, which nearly every file passes."""


@dataclass(frozen=True)
class Column:
    """One column of a source and what it becomes."""

    name: str
    """Canonical name."""
    source: str
    """Name in the file."""
    kind: Kind
    needed: bool = False
    """The file must have the column and every row a value."""
    lenient: bool = False
    """A value that cannot be read becomes null and is counted in a note, instead of costing the row."""


def click_columns(item: str, clicked_at: str, context: tuple[str, ...]) -> tuple[Column, ...]:
    """Columns of a click file with integer ids: its names for the item, the time and `features.columns.CONTEXT`."""
    keys = (
        Column("user_id", "user_id", "integer", needed=True),
        Column("item_id", item, "integer", needed=True),
        Column("clicked_at", clicked_at, "past", needed=True),
    )
    return keys + tuple(Column(name, source, "small") for name, source in zip(CONTEXT, context, strict=True))


TIANCHI_CLICKS: Final = click_columns(
    "click_article_id",
    "click_timestamp",
    (
        "click_environment",
        "click_deviceGroup",
        "click_os",
        "click_country",
        "click_region",
        "click_referrer_type",
    ),
)
"""Tianchi is drawn from the Globo log and shares its names."""

TIANCHI_ARTICLES: Final = (
    Column("item_id", "article_id", "integer", needed=True),
    Column("category", "category_id", "integer"),
    Column("created_at", "created_at_ts", "time", lenient=True),
    Column("words", "words_count", "small", lenient=True),
)

GLOBO_ARTICLES: Final = (*TIANCHI_ARTICLES, Column("publisher", "publisher_id", "integer"))

EBNERD_REQUESTS: Final = (
    Column("request_id", "impression_id", "integer", needed=True),
    Column("user_id", "user_id", "integer", needed=True),
    Column("requested_at", "impression_time", "past", needed=True),
    Column("session_id", "session_id", "integer"),
    Column("device", "device_type", "small"),
    # Flags of the user are 0 and 1: a Boolean column of impressions is a label.
    Column("is_sso_user", "is_sso_user", "small"),
    Column("is_subscriber", "is_subscriber", "small"),
    Column("gender", "gender", "small"),
    Column("age", "age", "small"),
    Column("postcode", "postcode", "small"),
    Column("page_item_id", "article_id", "integer"),
    Column("page_dwell_seconds", "read_time", "number", lenient=True),
)
"""What EB-NeRD says of a request; the lists beside it are `EBNERD_LISTS`."""

EBNERD_LISTS: Final = (
    Column("item_id", "article_ids_inview", "integers", needed=True),
    Column("chosen", "article_ids_clicked", "integers"),
    Column("dwell_seconds", "next_read_time", "number", lenient=True),
    Column("beyond_accuracy", "is_beyond_accuracy", "flag"),
)

EBNERD_HISTORY: Final = (
    Column("user_id", "user_id", "integer", needed=True),
    Column("item_id", "article_id_fixed", "integers", needed=True),
    Column("clicked_at", "impression_time_fixed", "times", needed=True),
    Column("dwell_seconds", "read_time_fixed", "numbers"),
)

EBNERD_ARTICLES: Final = (
    Column("item_id", "article_id", "integer", needed=True),
    Column("category", "category", "integer"),
    Column("created_at", "published_time", "time", lenient=True),
    Column("title", "title", "text"),
    Column("premium", "premium", "flag"),
    Column("article_type", "article_type", "text"),
    Column("sentiment_score", "sentiment_score", "number", lenient=True),
)

EBNERD_TEXTS: Final = (Column("subtitle", "subtitle", "text"), Column("body", "body", "text"))
"""Read to count their words."""

MIND_REQUESTS: Final = (
    Column("request_id", "impression_id", "integer", needed=True),
    Column("user_id", "user_id", "text", needed=True),
    Column("requested_at", "time", "past_us", needed=True),
    Column("history", "history", "items"),
    Column("slate", "impressions", "slate"),
)

MIND_ARTICLES: Final = (
    Column("item_id", "news_id", "text", needed=True),
    Column("category", "category", "text"),
    Column("title", "title", "text"),
    Column("subcategory", "subcategory", "text"),
)

OWN_KINDS: Final[dict[str, Kind]] = {
    "request_id": "id",
    "user_id": "id",
    "item_id": "id",
    "clicked_at": "past",
    "requested_at": "past",
    "created_at": "time",
    "clicked": "flag",
    "position": "small",
    "slate_order": "small",
    "words": "small",
    "dwell_seconds": "number",
    "category": "value",
    "publisher": "value",
    "title": "text",
    "embedding": "vector",
    **dict.fromkeys(CONTEXT, "value"),
}
"""Kinds of the columns that are known under their canonical names."""

SLATE_ORDER: Final = ("position", "slate_order")
"""Columns that say which place an item has in its slate: on the screen, or merely in the file, from 1."""

LENIENT: Final = ("created_at", "words")
"""What an article can lose and still be an article."""

NEEDED: Final[dict[str, tuple[str, ...]]] = {
    "clicks": CLICK_KEY,
    "impressions": ("request_id", "user_id", "requested_at", "item_id", "clicked"),
    "articles": ("item_id",),
}
KNOWN: Final[dict[str, tuple[str, ...]]] = {
    "clicks": (*CLICK_KEY, *CONTEXT, "dwell_seconds"),
    "impressions": (*NEEDED["impressions"], *SLATE_ORDER, *CONTEXT, "dwell_seconds"),
    "articles": ("item_id", "category", "created_at", "words", "publisher", "title", "embedding"),
}
"""Columns of each canonical frame in their order; sources may add others through a mapping."""
