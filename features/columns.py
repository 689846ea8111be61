"""Names and dtypes of the canonical frames: the one place where they are written down.

clicks, impressions and articles come from `newsrec.data`; requests from `newsrec.split`; candidates from recall.
Ids are integers or strings as in the source. Times are milliseconds in UTC.
"""

from typing import Final

import polars as pl

TIME: Final = pl.Datetime("ms", "UTC")

CLICK_KEY: Final = ("user_id", "item_id", "clicked_at")
"""What makes two clicks the same click, and what every click has."""

CONTEXT: Final = ("environment", "device", "os", "country", "region", "referrer")
"""Optional context columns of a click, kept with the source's own values."""

REQUEST_CONTEXT: Final = (*CONTEXT, "is_sso_user", "is_subscriber", "gender", "age", "postcode")
"""Optional columns of an impression that are known at its request."""

ARTICLE: Final[dict[str, pl.DataType | type[pl.DataType] | None]] = {
    "item_id": None,  # integer or string, as in the source
    "category": None,  # integer or string, as in the source
    "created_at": TIME,
    "words": pl.Int32(),
    "publisher": None,
    "title": pl.String(),
    "embedding": None,  # Array(Float32, dim)
}
"""Columns an articles frame may have; only `item_id` is required. None: the source's own dtype."""

REQUEST: Final = ("request_id", "user_id", "requested_at", "statistics_at")
"""`statistics_at` <= `requested_at`: the border of item statistics and recall; earlier where counters are stale."""

SECOND: Final = 1_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
