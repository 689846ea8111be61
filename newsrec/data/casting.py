"""From one source column to its canonical dtype: integers, text, times of any unit, flags, vectors, lists.

Nothing becomes null in silence: beside the values comes a mask of those that were there and could not be read.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
import polars as pl

from features.columns import TIME
from newsrec.data.lists import integer_lists, misfit, number_lists, time_lists, written_items, written_slate
from newsrec.data.schema import Kind
from newsrec.errors import DataError

EARLIEST: Final = datetime(1990, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(2100, 1, 1, tzinfo=UTC)
UNITS: Final[dict[str, int]] = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
"""Ticks per second. From 1990 to 2100 their ranges of magnitude do not touch, so a number tells its unit."""

LARGEST_EXACT_FLOAT: Final = 2**53
FRACTION_OF_ZERO: Final = r"\.0+$"
PLAIN_INTEGER: Final = r"^(?:0|-?[1-9][0-9]*)$"
NUMERAL: Final = r"^[0-9]+(?:\.[0-9]+)?$"
WITH_OFFSET: Final = ("%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%d %H:%M%#z")
WITHOUT_OFFSET: Final = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%d")
AMERICAN: Final = "%m/%d/%Y %I:%M:%S %p"
FLAGS: Final = {"0": False, "1": True, "false": False, "true": True}


def cast(values: pl.Series, kind: Kind, latest: datetime) -> tuple[pl.Series, pl.Series]:
    """Turn one source column into its canonical dtype.

    Args:
        values: The column, shape (n_rows,), of any dtype. Empty text counts as null.
        kind: What it must become.
        latest: For `past`: the first moment that is too late.

    Returns:
        The canonical values and a mask of the values that were there and could not be read, both of shape (n_rows,).

    Raises:
        DataError: The column's dtype as a whole does not fit.

    >>> values, bad = cast(pl.Series("n", ["7", "7.0", "x", ""]), "integer", LATEST)
    >>> values.to_list(), bad.to_list()
    ([7, 7, None, None], [False, False, True, False])
    """
    if values.dtype in (pl.Categorical, pl.Enum):
        values = values.cast(pl.String)
    if values.dtype.is_float():
        values = values.fill_nan(None)  # pandas writes a missing number so
    if values.dtype == pl.String and values.has_nulls() | bool((values == "").any()):
        values = values.to_frame().select(pl.when(pl.first() != "").then(pl.first())).to_series()
    result = CASTS[kind](values)
    if kind in ("time", "past", "past_us"):
        result = _within(result, LATEST if kind == "time" else min(latest, LATEST))
    return result, values.is_not_null() & result.is_null()


def unit_of(numbers: pl.Series) -> pl.Series:
    """The unit of each epoch number by its magnitude: ticks per second, null outside 1990 to 2100. Shape kept.

    >>> unit_of(pl.Series([1_506_826_828, 1_506_826_828_020, 3])).to_list()
    [1, 1000, None]
    """
    units = pl.lit(None, pl.Int64)
    for ticks in UNITS.values():
        inside = pl.first().is_between(
            int(EARLIEST.timestamp()) * ticks, int(LATEST.timestamp()) * ticks, closed="left"
        )
        units = pl.when(inside).then(pl.lit(ticks, pl.Int64)).otherwise(units)
    return numbers.to_frame().select(units.alias(numbers.name)).to_series()


def _integers(values: pl.Series, dtype: pl.DataType) -> pl.Series:
    if values.dtype == pl.String:
        # Tools that hold missing integers as floats write 5 as 5.0: the same number. 1e5 and 5.5 are not.
        return values.str.strip_chars().str.replace(FRACTION_OF_ZERO, "").cast(dtype, strict=False)
    if values.dtype.is_float():
        exact = (values.abs() < LARGEST_EXACT_FLOAT) & (values.round() == values)
        return values.to_frame("n").select(pl.when(exact).then(pl.col("n"))).to_series().cast(dtype, strict=False)
    if values.dtype.is_numeric() or values.dtype in (pl.Null, pl.Boolean):
        return values.cast(dtype, strict=False)
    raise misfit(values, "a whole number")


def _text(values: pl.Series) -> pl.Series:
    if values.dtype.is_float():
        values = _integers(values, pl.Int64())
    if values.dtype.is_nested() or values.dtype.is_temporal() or values.dtype == pl.Binary:
        raise misfit(values, "text")
    return values.cast(pl.String, strict=False)


def _as_is(values: pl.Series, integer: pl.DataType) -> pl.Series:
    if values.dtype == pl.String:
        return values
    return _integers(values.cast(pl.Int8) if values.dtype == pl.Boolean else values, integer)


def _number(values: pl.Series) -> pl.Series:
    if values.dtype.is_nested() or values.dtype.is_temporal():
        raise misfit(values, "a number")
    numbers = values.cast(pl.Float64, strict=False)
    return numbers.to_frame("n").select(pl.when(pl.col("n").is_finite()).then(pl.col("n"))).to_series()


def _flag(values: pl.Series) -> pl.Series:
    if values.dtype == pl.Boolean:
        return values
    words = _text(values).str.to_lowercase()
    return words.replace_strict(list(FLAGS), list(FLAGS.values()), default=None, return_dtype=pl.Boolean)


def _vector(values: pl.Series) -> pl.Series:
    if not isinstance(values.dtype, pl.List | pl.Array):
        raise misfit(values, "a list of numbers")
    lists = values.cast(pl.List(pl.Float32))
    lengths = lists.list.len().drop_nulls().unique().to_list()
    if len(lengths) > 1:
        raise DataError(
            f"{values.name!r}: lists of one length expected, lengths {sorted(lengths)[:5]} found; mend them"
        )
    return lists.cast(pl.Array(pl.Float32, lengths[0] if lengths else 1))


def _american(values: pl.Series) -> pl.Series:
    text = _text(values).str.strip_chars()
    return text.str.to_datetime(AMERICAN, time_unit="ms", strict=False).dt.replace_time_zone("UTC")


def _time(values: pl.Series) -> pl.Series:
    dtype = values.dtype
    if isinstance(dtype, pl.Datetime):
        aware = values if dtype.time_zone else values.dt.replace_time_zone("UTC")
        return aware.dt.convert_time_zone("UTC").dt.cast_time_unit("ms")
    if dtype == pl.Date:
        return values.cast(pl.Datetime("ms")).dt.replace_time_zone("UTC")
    if dtype == pl.String:
        text = values.str.strip_chars()
        # 1.5e12 has lost its last digits: only plain numerals are epoch numbers.
        plain = text.str.contains(NUMERAL).fill_null(False)
        if not plain.any():
            return _iso(text)
        numbers = text.str.replace(FRACTION_OF_ZERO, "").set(~plain, None)
        exact = numbers.cast(pl.Int64, strict=False)
        fraction = _epoch(numbers.set(exact.is_not_null(), None).cast(pl.Float64, strict=False))
        return _first_known(_epoch(exact), fraction, _iso(text.set(plain, None)))
    if dtype.is_numeric() or dtype == pl.Null:
        return _epoch(values if dtype.is_float() else values.cast(pl.Int64, strict=False))
    raise misfit(values, "a time")


def _epoch(numbers: pl.Series) -> pl.Series:
    """Milliseconds of epoch numbers in the unit that most of them have; null where another unit fits or none."""
    if numbers.len() == numbers.null_count():
        return pl.Series(numbers.name, [None], TIME).new_from_index(0, numbers.len())
    units = unit_of(numbers)
    counts = units.drop_nulls().value_counts(sort=True)
    ticks = int(counts.item(0, 0)) if counts.height else 1000
    if counts.height > 1 or units.has_nulls():
        numbers = numbers.to_frame("n").select(pl.when(units == ticks).then(pl.col("n"))).to_series()
    if numbers.dtype.is_float():
        return (numbers * (1000 / ticks)).round().cast(pl.Int64).cast(TIME)
    ms = numbers * (1000 // ticks) if ticks <= 1000 else numbers // (ticks // 1000)
    return ms.cast(pl.Int64).cast(TIME)


def _iso(text: pl.Series) -> pl.Series:
    plain = text.str.replace("T", " ", literal=True).str.replace(r"[zZ]$", "+00:00").to_frame("t")
    with_offset = [pl.col("t").str.to_datetime(f, time_unit="ms", time_zone="UTC", strict=False) for f in WITH_OFFSET]
    naive = [
        pl.col("t").str.to_datetime(f, time_unit="ms", strict=False).dt.replace_time_zone("UTC")
        if "%H" in f
        else pl.col("t").str.to_date(f, strict=False).cast(pl.Datetime("ms")).dt.replace_time_zone("UTC")
        for f in WITHOUT_OFFSET
    ]
    return plain.select(pl.coalesce(*with_offset, *naive)).to_series()


def _first_known(*candidates: pl.Series) -> pl.Series:
    frame = pl.DataFrame([series.alias(str(place)) for place, series in enumerate(candidates)])
    return frame.select(pl.coalesce(pl.all())).to_series()


def _within(times: pl.Series, latest: datetime) -> pl.Series:
    inside = (times >= EARLIEST) & (times < latest)
    if inside.all():
        return times
    return times.to_frame("t").select(pl.when(inside).then(pl.col("t"))).to_series()


CASTS: Final[dict[Kind, Callable[[pl.Series], pl.Series]]] = {
    "integer": lambda values: _integers(values, pl.Int64()),
    "small": lambda values: _integers(values, pl.Int32()),
    "text": _text,
    "id": lambda values: _as_is(values, pl.Int64()),
    "value": lambda values: _as_is(values, pl.Int64()),
    "time": _time,
    "past": _time,
    "past_us": _american,
    "number": _number,
    "flag": _flag,
    "vector": _vector,
    "integers": integer_lists,
    "numbers": number_lists,
    "times": time_lists,
    "items": written_items,
    "slate": written_slate,
}


def limit(now: datetime | None) -> datetime:
    """The first moment that counts as the future: a day after the clock, for clocks and time zones that are off."""
    return (now or datetime.now(UTC)) + timedelta(days=1)


def as_integers_where_plain(texts: pl.Series) -> pl.Series:
    """CSV text as integers if every value is one as a program writes it ('7', not '007'); otherwise unchanged."""
    if texts.dtype != pl.String or texts.null_count() == texts.len() or not texts.str.contains(PLAIN_INTEGER).all():
        return texts
    numbers = texts.cast(pl.Int64, strict=False)
    return texts if numbers.null_count() > texts.null_count() else numbers


def smallest_integer(values: pl.Series) -> pl.Series:
    """Int64 as Int32 where every value fits: the dtype of context columns."""
    if values.dtype != pl.Int64:
        return values
    bounds = np.iinfo(np.int32)
    fits = values.is_between(int(bounds.min), int(bounds.max)).all()
    return values.cast(pl.Int32) if fits else values
