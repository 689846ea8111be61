"""What a caller hands to a running recommender, checked before anything is done with it: ids, moments, tables."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Final

import polars as pl

from features.columns import CLICK_KEY, TIME
from features.events import EventStore
from newsrec.errors import DataError, UsageError
from newsrec.frames import to_polars

Id = int | str
Moment = datetime | None
"""Of a live request: time zone aware; None is the instant after the last known event."""
Context = Mapping[str, object] | None
"""What is known of a request: any of `features.columns.REQUEST_CONTEXT` and `page_item_id`."""

IMPRESSION_KEY: Final = ("request_id", "user_id", "requested_at", "item_id")
"""What every row of impressions has."""


def clicks_of_impressions(impressions: pl.DataFrame) -> pl.DataFrame:
    """The clicked rows as clicks at the time of their request."""
    kept = [name for name in impressions.columns if name not in ("request_id", "requested_at", "clicked", "position")]
    return (
        impressions.filter("clicked")
        .select(*kept, pl.col("requested_at").alias("clicked_at"))
        .unique(CLICK_KEY, maintain_order=True)
    )


def way_of_telling(clicks: pl.DataFrame | None, clicked_rows: bool) -> str | None:
    """By which argument a call of `observe` tells of clicks; None where it tells of none.

    Raises:
        UsageError: By both.
    """
    told = "clicks" if clicks is not None and len(clicks) else None
    return one_way(told, "clicked_rows" if clicked_rows else None)


def one_way(before: str | None, now: str | None) -> str | None:
    """The one of two ways that is not None.

    Raises:
        UsageError: They differ.
    """
    if before is not None and now is not None and before != now:
        raise UsageError(
            f"observe: expected clicks in one way, as they would count twice in two, found '{now}' after '{before}'. "
            "Give 'clicks' with a time for each, or 'clicked_rows' alone."
        )
    return now if before is None else before


def live_moment(at: datetime | None, store: EventStore) -> int:
    """Milliseconds of a live request."""
    last = store.last_event
    if at is None:
        return 0 if last is None else last + 1
    asked = _ms(at)
    if last is not None and asked < last:
        known = pl.Series([last]).cast(TIME)[0].isoformat()
        raise UsageError(
            f"at: expected a moment not before the last known event ({known}), found '{at.isoformat()}'. A live state "
            "answers for now; replay a log with with_log and recommend_many or rank_many to ask for the past."
        )
    return asked


def typed_ids(values: Collection[Id], dtype: pl.DataType, name: str) -> pl.Series:
    """Ids as a column of the bundle's kind.

    Raises:
        UsageError: An id of another kind, or None.
    """
    try:
        typed = pl.Series("user_id" if name == "user_id" else "item_id", list(values), dtype=dtype)
    except (TypeError, OverflowError) as error:
        raise UsageError(f"{name}: expected {dtype}, found {list(values)[:3]!r}.") from error
    if typed.null_count():
        raise UsageError(f"{name}: expected {dtype}, found None.")
    return typed


def checked_events(frame: object, name: str, key: Sequence[str], store: EventStore) -> pl.DataFrame:
    """Events or articles that can be taken in: distinct, whole, of the store's kinds."""
    table = to_polars(frame, name)
    missing = sorted(set(key) - set(table.columns))
    if missing:
        raise DataError(f"{name}: expected columns {list(key)}, found {table.columns}; {missing} are missing.")
    empty = [column for column in key if table[column].null_count()]
    if empty:
        raise DataError(f"{name}: expected a value in every row of {list(key)}, found nulls in {empty}. Drop the rows.")
    wrong = [c for c in key if c.endswith("_at") and table.schema[c] != TIME]
    if wrong:
        raise DataError(
            f"{name}: expected times in {wrong}, found {[str(table.schema[c]) for c in wrong]}. Convert them."
        )
    kinds = {"user_id": store.users.dtype, "item_id": store.items.dtype}
    try:
        table = table.with_columns(pl.col(c).cast(kinds[c]) for c in key if c in kinds and len(table))
    except pl.exceptions.InvalidOperationError as error:
        told = {c: str(table.schema[c]) for c in key if c in kinds}
        raise DataError(f"{name}: expected ids of the kinds {kinds}, found {told}. Convert them.") from error
    distinct = ("request_id", "item_id") if name == "impressions" else key
    return table.unique(distinct, keep="last" if name == "articles" else "first", maintain_order=True)


def refuse_requests(asked: pl.DataFrame) -> None:
    missing = sorted({"request_id", "user_id", "requested_at", "statistics_at"} - set(asked.columns))
    if missing:
        raise DataError(f"requests: expected columns {missing}, found {sorted(asked.columns)}. Name the columns so.")
    repeated = asked["request_id"].filter(asked["request_id"].is_duplicated())
    if len(repeated):
        raise DataError(
            f"requests: expected each 'request_id' once, found {len(repeated)} rows that share one "
            f"{repeated.unique().sort().head(3).to_list()}. Number the requests."
        )


def refuse_other_ids(new: pl.DataFrame, known: pl.DataFrame, names: Sequence[str]) -> None:
    wrong = [
        f"{name}: {known[name].dtype} in the bundle, {new[name].dtype} in the data"
        for name in names
        if new[name].dtype != known[name].dtype
    ]
    if wrong:
        raise DataError(
            f"--data: expected ids of the bundle's kind, found {'; '.join(wrong)}. Read it in the same format."
        )


def _ms(at: datetime) -> int:
    if at.tzinfo is None:
        raise UsageError(f"--at: expected a moment with a time zone, found '{at}'. Write it as 2024-01-31T08:00:00Z.")
    return round(at.timestamp() * 1000)
