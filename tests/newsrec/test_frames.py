"""Tables of either library come in; Polars without surprises goes out, and pyarrow is never asked."""

import builtins
import sys
from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from features.columns import TIME
from newsrec.errors import DataError
from newsrec.frames import to_polars


@pytest.fixture(autouse=True)
def no_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def guarded(name: str, *args: object, **kwargs: object) -> object:
        if name.split(".", maxsplit=1)[0] == "pyarrow" and sys._getframe(1).f_globals["__name__"].startswith("polars"):
            raise ModuleNotFoundError("pyarrow must not be needed")
        return real(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", guarded)


def column(values: object, dtype: object = None) -> pl.Series:
    return to_polars(pd.DataFrame({"x": pd.Series(values, dtype=dtype)}), "clicks")["x"]


def test_polars_frames_pass_and_lazy_ones_are_collected() -> None:
    frame = pl.DataFrame({"a": [2, 1], "b": ["x", None]})
    assert_frame_equal(to_polars(frame, "clicks"), frame)
    assert_frame_equal(to_polars(frame.lazy(), "clicks"), frame)


@pytest.mark.parametrize(
    ("values", "dtype", "expected", "kind"),
    [
        ([1, 2], "int64", [1, 2], pl.Int64),
        ([1, 2], "int32", [1, 2], pl.Int32),
        ([1, 2], "uint8", [1, 2], pl.UInt8),
        ([1.5, np.nan], "float64", [1.5, None], pl.Float64),
        ([1.5, np.nan], "float32", [1.5, None], pl.Float32),
        ([1.5, np.nan], "float16", [1.5, None], pl.Float32),
        ([True, False], "bool", [True, False], pl.Boolean),
        ([2**62 + 1, None], "Int64", [2**62 + 1, None], pl.Int64),
        ([1, None], "Int8", [1, None], pl.Int8),
        ([1.5, None], "Float64", [1.5, None], pl.Float64),
        ([True, None], "boolean", [True, None], pl.Boolean),
        (["a", None], "string", ["a", None], pl.String),
        (["a", None], "str", ["a", None], pl.String),
        (["a", None, np.nan], "object", ["a", None, None], pl.String),
        ([1, None], "object", [1, None], pl.Int64),
        ([np.int64(1), 2], "object", [1, 2], pl.Int64),
        ([1, 2.5, None], "object", [1.0, 2.5, None], pl.Float64),
        ([True, None], "object", [True, None], pl.Boolean),
        (["b", "a", None], "category", ["b", "a", None], pl.String),
        ([7, 3], "category", [7, 3], pl.Int64),
        ([None, None], "object", [None, None], pl.String),
        ([], "object", [], pl.String),
        ([], "Int64", [], pl.Int64),
        ([date(2024, 1, 2)], "object", [date(2024, 1, 2)], pl.Date),
        ([[1.0, 2.0], None], "object", [[1.0, 2.0], None], pl.List(pl.Float64)),
        ([np.array([1.0, 2.0])], "object", [[1.0, 2.0]], pl.List(pl.Float64)),
        ([(1, 2)], "object", [[1, 2]], pl.List(pl.Int64)),
    ],
)
def test_pandas_dtypes_keep_their_values(
    values: list[object], dtype: str, expected: list[object], kind: object
) -> None:
    result = column(values, dtype)
    assert result.dtype == kind
    assert result.to_list() == expected


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Copenhagen"])
def test_times_become_utc_milliseconds(unit: str, zone: str | None) -> None:
    stamps = pd.Series(pd.to_datetime(["2024-07-01 12:00:05", None])).astype(f"datetime64[{unit}]")
    result = column(stamps if zone is None else stamps.dt.tz_localize(zone))
    hour = 10 if zone == "Europe/Copenhagen" else 12
    assert result.dtype == TIME
    assert result.to_list() == [datetime(2024, 7, 1, hour, 0, 5, tzinfo=UTC), None]


def test_digits_below_the_millisecond_are_cut_off() -> None:
    assert column(pd.to_datetime(["2024-01-01 00:00:00.001999"]))[0].microsecond == 1000
    assert column([pd.Timestamp("2024-01-01 00:00:00.001999"), None], "object")[0].microsecond == 1000
    cut = to_polars(pl.DataFrame({"x": [datetime(2024, 1, 1, 0, 0, 0, 1999)]}), "clicks")["x"]
    assert cut.dtype == TIME
    assert cut[0].microsecond == 1000


def test_python_and_polars_times_become_utc_milliseconds() -> None:
    east = datetime(2024, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    assert column([east, None], "object").to_list() == [datetime(2024, 1, 1, 10, tzinfo=UTC), None]
    polars = pl.DataFrame({"x": [datetime(2024, 7, 1, 12)]}).with_columns(pl.all().dt.replace_time_zone("Asia/Tokyo"))
    assert to_polars(polars, "clicks")["x"].to_list() == [datetime(2024, 7, 1, 3, tzinfo=UTC)]


def test_row_order_is_kept_and_the_index_dropped() -> None:
    frame = pd.DataFrame({"a": [3, 1, 2], "b": list("zxy")}, index=[5, 5, 9])
    assert to_polars(frame, "clicks").rows() == [(3, "z"), (1, "x"), (2, "y")]


def test_all_faulty_columns_are_named_at_once() -> None:
    frame = pd.DataFrame({"good": [1, 2], "mixed": pd.Series([1, "a"], dtype=object), "span": pd.to_timedelta([1, 2])})
    with pytest.raises(DataError, match=r"clicks: .*'mixed' .*mixes int, str.*'span'.*Convert or drop") as raised:
        to_polars(frame, "clicks")
    assert "'good'" not in str(raised.value)


@pytest.mark.parametrize("labels", [["a", "a"], ["a", 1]])
def test_column_names_must_be_distinct_text(labels: list[object]) -> None:
    with pytest.raises(DataError, match="distinct text"):
        to_polars(pd.DataFrame([[1, 2]], columns=labels), "clicks")


@pytest.mark.parametrize("other", [None, [1], {"a": [1]}, pd.Series([1]), pl.Series([1]), np.zeros(2)])
def test_anything_else_is_refused_by_its_type(other: object) -> None:
    with pytest.raises(
        DataError, match=r"requests: expected a Polars or pandas DataFrame, found .*" + type(other).__name__
    ):
        to_polars(other, "requests")
