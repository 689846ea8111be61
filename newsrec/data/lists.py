"""Columns whose values are lists: real ones in Parquet, or ids with spaces between them in text.

Like all of `casting`, which calls these: a list that cannot be read whole becomes null, and is told from one that was
null before by whoever asks.
"""

from typing import Final

import polars as pl

from features.columns import TIME
from newsrec.errors import DataError

ITEM: Final = "[A-Za-z0-9_]+"
"""An id in a list that is written as text. No dash, so that 'N123-2' is never an id."""
ITEMS: Final = rf"^{ITEM}(?: {ITEM})*$"
LABELLED: Final = rf"^{ITEM}-[01](?: {ITEM}-[01])*$"


def integer_lists(values: pl.Series) -> pl.Series:
    """Lists of Int64, shape kept; null where an element is missing or too large."""
    inner = _inner(values, "a list of whole numbers")
    if not (inner.is_integer() or inner == pl.Null):
        raise misfit(values, "a list of whole numbers")
    return _whole(values.cast(pl.List(pl.Int64), strict=False))


def number_lists(values: pl.Series) -> pl.Series:
    """Lists of Float64, shape kept; elements that are missing or not finite become null, the list stays."""
    inner = _inner(values, "a list of numbers")
    if not (inner.is_numeric() or inner == pl.Null):
        raise misfit(values, "a list of numbers")
    finite = pl.when(pl.element().is_finite()).then(pl.element())
    return values.cast(pl.List(pl.Float64)).list.eval(finite)


def time_lists(values: pl.Series) -> pl.Series:
    """Lists of times in UTC, naive ones taken as UTC; null where an element is missing."""
    inner = _inner(values, "a list of times")
    if inner == pl.Null:
        return values.cast(pl.List(TIME))
    if not isinstance(inner, pl.Datetime):
        raise misfit(values, "a list of times")
    utc = (
        pl.element().dt.convert_time_zone("UTC") if inner.time_zone else pl.element().dt.replace_time_zone("UTC")
    ).dt.cast_time_unit("ms")
    return _whole(values.cast(pl.List(inner)).list.eval(utc))


def written_items(values: pl.Series) -> pl.Series:
    """'N1 N2' with one space between ids; null where it is anything else. Shape kept."""
    return _written(values, ITEMS)


def written_slate(values: pl.Series) -> pl.Series:
    """'N1-0 N2-1', or 'N1 N2' without labels; null where it is anything else. Shape kept."""
    return _written(values, f"{ITEMS}|{LABELLED}")


def misfit(values: pl.Series, expected: str) -> DataError:
    """What to raise for a column whose dtype as a whole does not fit."""
    return DataError(
        f"column {values.name!r}: {expected} expected, dtype {values.dtype} found; cast it or map another column"
    )


def _inner(values: pl.Series, expected: str) -> pl.DataType:
    dtype = values.dtype
    if dtype == pl.Null:
        return pl.Null()
    if not isinstance(dtype, pl.List | pl.Array):
        raise misfit(values, expected)
    return dtype.inner if isinstance(dtype.inner, pl.DataType) else dtype.inner()


def _whole(lists: pl.Series) -> pl.Series:
    """Null for a list with a missing element."""
    torn = pl.first().list.eval(pl.element().is_null()).list.any()
    return lists.to_frame().select(pl.when(~torn).then(pl.first())).to_series()


def _written(values: pl.Series, pattern: str) -> pl.Series:
    if values.dtype not in (pl.String, pl.Null):
        raise misfit(values, "text")
    text = pl.first().cast(pl.String).str.strip_chars().str.replace_all(" {2,}", " ")
    return values.to_frame().select(pl.when(text.str.contains(pattern)).then(text)).to_series()
