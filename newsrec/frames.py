"""The border between pandas and Polars: tables come in as either, inside there is only Polars.

Called by every public function that takes a table. Needs neither pyarrow nor, for Polars input, pandas.
"""

from datetime import date, datetime
from typing import Any

import numpy as np
import polars as pl

from features.columns import TIME
from newsrec.errors import DataError

_READABLE = frozenset({str, bool, int, float, date, datetime, list})


def to_polars(frame: object, name: str) -> pl.DataFrame:
    """Take a Polars or pandas table and give back a Polars one.

    Row order is kept. A pandas index is dropped, and its NaN, NaT, None and NA become null. Times of either library
    become `Datetime("ms", "UTC")`: times without a zone are taken as UTC, digits below the millisecond are cut off.

    Args:
        frame: A Polars DataFrame or LazyFrame (which is collected), or a pandas DataFrame.
        name: What the table is called in an error message, such as "clicks".

    Raises:
        DataError: If it is no such table, a column's name is no text or occurs twice, or a pandas column holds values
            that have no Polars dtype (mixed kinds, durations, other objects). All faulty columns are named at once.
    """
    if isinstance(frame, pl.LazyFrame):
        frame = frame.collect()
    if isinstance(frame, pl.DataFrame):
        return frame.with_columns(_as_time(column) for column in frame if isinstance(column.dtype, pl.Datetime))
    kind = type(frame)
    if kind.__module__.split(".")[0] == "pandas" and kind.__name__ == "DataFrame":
        return _from_pandas(frame, name)
    raise DataError(f"{name}: expected a Polars or pandas DataFrame, found {kind.__module__}.{kind.__qualname__}")


def _from_pandas(frame: Any, name: str) -> pl.DataFrame:
    labels = list(frame.columns)
    faults = sorted({f"{label!r} is no text" for label in labels if not isinstance(label, str)})
    faults += sorted(
        {f"'{label}' occurs twice" for label in labels if isinstance(label, str) and labels.count(label) > 1}
    )
    if faults:
        raise DataError(f"{name}: column names must be distinct text; found: {', '.join(faults)}. Rename the columns.")
    columns = []
    for place, label in enumerate(labels):
        try:
            columns.append(_column(frame.iloc[:, place]).alias(label))
        except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError) as error:
            faults.append(f"'{label}' ({error})")
    if faults:
        raise DataError(f"{name}: cannot read pandas columns {', '.join(sorted(faults))}. Convert or drop them.")
    return pl.DataFrame(columns)


# pandas objects are Any below: neither pandas nor its stubs are needed to run or check this module.
def _column(series: Any) -> pl.Series:
    """One pandas column by its dtype; categories and Arrow-backed columns go through their Python values."""
    dtype = series.dtype
    if getattr(dtype, "kind", "") == "M" and not hasattr(dtype, "pyarrow_dtype"):
        return _times(series)
    if isinstance(dtype, np.dtype) and dtype.kind in "biuf":
        values = series.to_numpy()
        values = values.astype(np.float32) if values.dtype == np.float16 else values
        return pl.Series(np.ascontiguousarray(values), nan_to_null=dtype.kind == "f")
    numeric = getattr(dtype, "numpy_dtype", None)  # the nullable Int64, Float64 and boolean
    if type(dtype).__module__.startswith("pandas") and isinstance(numeric, np.dtype) and numeric.kind in "biuf":
        known = ~series.isna().to_numpy()
        values = series.to_numpy(dtype=numeric, na_value=numeric.type(0))
        return _masked(pl.Series(values, nan_to_null=numeric.kind == "f"), known)
    return _objects(series.astype(object), str(dtype))


def _times(series: Any) -> pl.Series:
    """Datetimes to whole milliseconds; pandas keeps those with a zone in UTC inside."""
    zoneless = series if getattr(series.dtype, "tz", None) is None else series.dt.tz_convert("UTC").dt.tz_localize(None)
    stamps = zoneless.to_numpy()
    return _masked(pl.Series(stamps.astype("datetime64[ms]").view(np.int64)), ~np.isnat(stamps)).cast(TIME)


def _objects(series: Any, dtype: str) -> pl.Series:
    """A column of Python values: all of one kind, or null."""
    missing = series.isna().to_numpy()
    values = [None if gone else _python(value) for value, gone in zip(series, missing, strict=True)]
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float}:
        column = pl.Series(values, dtype=pl.Float64 if float in kinds else None, strict=float not in kinds)
    elif len(kinds) == 1:
        column = pl.Series(values, strict=True)
    else:
        raise TypeError(f"dtype {dtype} mixes {', '.join(sorted(kind.__name__ for kind in kinds))}")
    if isinstance(column.dtype, pl.Datetime):
        return _as_time(column)
    if column.dtype == pl.Object or not kinds <= _READABLE:
        raise TypeError(f"dtype {dtype} holds {', '.join(sorted(kind.__name__ for kind in kinds))}")
    return column.cast(pl.String) if not kinds else column


def _python(value: object) -> object:
    """NumPy scalars and arrays, pandas timestamps and str subclasses as plain Python."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if hasattr(value, "to_pydatetime"):
        return value.floor("ms").to_pydatetime() if hasattr(value, "floor") else value.to_pydatetime()
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, str) else value


def _as_time(column: pl.Series) -> pl.Series:
    zone = getattr(column.dtype, "time_zone", None)
    aware = column.dt.replace_time_zone("UTC") if zone is None else column.dt.convert_time_zone("UTC")
    return aware.dt.cast_time_unit("ms")


def _masked(column: pl.Series, known: "np.ndarray[Any, np.dtype[np.bool_]]") -> pl.Series:
    """The column with null where it is not known."""
    return pl.DataFrame({"value": column, "known": known}).select(pl.when("known").then("value")).to_series()
