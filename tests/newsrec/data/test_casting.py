"""Single columns: times of every unit and dtype, whole numbers, flags, vectors."""

from datetime import UTC, date, datetime, timedelta, timezone

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.columns import TIME
from newsrec.data.casting import EARLIEST, LATEST, UNITS, as_integers_where_plain, cast, smallest_integer, unit_of
from newsrec.data.schema import Kind
from newsrec.errors import DataError

AT = datetime(2017, 10, 1, 3, 0, 28, 20_000, tzinfo=UTC)
MS = 1_506_826_828_020


def time(values: list[object] | pl.Series) -> list[datetime | None]:
    read, _ = cast(pl.Series("t", values), "time", LATEST)
    assert read.dtype == TIME
    return read.to_list()


@given(moment=st.datetimes(datetime(1990, 1, 1), datetime(2099, 12, 31)), unit=st.sampled_from(list(UNITS)))
def test_every_unit_is_told_by_magnitude(moment: datetime, unit: str) -> None:
    whole = moment.replace(microsecond=0, tzinfo=UTC)
    number = int(whole.timestamp()) * UNITS[unit]
    assert unit_of(pl.Series([number])).to_list() == [UNITS[unit]]
    assert time([number]) == time([str(number)]) == [whole]


@pytest.mark.parametrize(
    "values",
    [
        [MS],
        [str(MS)],
        [MS * 1000 + 999],
        [MS * 1_000_000],
        [MS / 1000],
        [f"{MS / 1000:.3f}"],
        [f"{MS}.0"],
        ["2017-10-01T03:00:28.020Z"],
        ["2017-10-01 03:00:28.020"],
        ["2017-10-01T05:00:28.02+02:00"],
        ["2017-09-30 23:00:28.020-0400"],
        [AT],
        [AT.replace(tzinfo=None)],
        [AT.astimezone(timezone(timedelta(hours=-3)))],
    ],
    ids=str,
)
def test_one_moment_in_many_forms(values: list[object]) -> None:
    assert time(values) == [AT]


def test_dates_are_midnight_in_utc() -> None:
    midnight = [datetime(2017, 10, 1, tzinfo=UTC)]
    assert time(["2017-10-01"]) == time([date(2017, 10, 1)]) == midnight


def test_border_of_the_plausible_is_half_open() -> None:
    first, last = (int(bound.timestamp()) for bound in (EARLIEST, LATEST))
    assert time([first]) == [EARLIEST]
    assert time([first - 1, last, MS // 1000])[:2] == [None, None]


def test_the_unit_of_most_values_wins_and_the_others_are_bad() -> None:
    values, bad = cast(pl.Series("t", [MS, MS + 1, MS // 1000, None]), "time", LATEST)
    assert values.null_count() == 2
    assert bad.to_list() == [False, False, True, False]


def test_rounded_and_made_up_times_are_bad() -> None:
    for value in ("1.506827e12", "yesterday", "2017-13-01", "nan", "-5"):
        values, bad = cast(pl.Series("t", [value]), "time", LATEST)
        assert (values.to_list(), bad.to_list()) == ([None], [True]), value


def test_only_past_columns_mind_the_clock() -> None:
    later = pl.Series("t", [MS + 1])
    assert cast(later, "past", AT)[1].to_list() == [True]
    assert cast(later, "time", AT)[1].to_list() == [False]


CASES: list[tuple[Kind, list[object], list[object], list[bool]]] = [
    (
        "integer",
        ["5", " 5", "+5", "5.0", "-5", "", "0x5", "1_0", "5.5"],
        [5, 5, 5, 5, -5, None, None, None, None],
        [False] * 6 + [True] * 3,
    ),
    ("integer", [5.0, float("nan"), 5.5, 2.0**53], [5, None, None, None], [False, False, True, True]),
    ("small", ["2147483647", "2147483648"], [2**31 - 1, None], [False, True]),
    ("text", [7, None], ["7", None], [False, False]),
    ("text", [7.0, 1e18], ["7", None], [False, True]),
    ("value", [True, False], [1, 0], [False, False]),
    (
        "flag",
        ["1", "TRUE", "0", "false", "yes", ""],
        [True, True, False, False, None, None],
        [False] * 4 + [True, False],
    ),
    ("flag", [1, 0, 2], [True, False, None], [False, False, True]),
    ("number", ["1.5", "inf", "x", ""], [1.5, None, None, None], [False, True, True, False]),
    ("vector", [[1, 2], None], [[1.0, 2.0], None], [False, False]),
]


@pytest.mark.parametrize(("kind", "source", "expected", "expected_bad"), CASES)
def test_values_and_mask(kind: Kind, source: list[object], expected: list[object], expected_bad: list[bool]) -> None:
    values, bad = cast(pl.Series("c", source), kind, LATEST)
    assert values.to_list() == expected
    assert bad.to_list() == expected_bad


def test_wide_integers_do_not_wrap() -> None:
    values, bad = cast(pl.Series("c", [2**70, 5], dtype=pl.Int128), "integer", LATEST)
    assert (values.to_list(), bad.to_list()) == ([None, 5], [True, False])
    assert cast(pl.Series("c", [2**63], dtype=pl.UInt64), "integer", LATEST)[1].to_list() == [True]


def test_columns_of_a_foreign_dtype_are_refused_by_name() -> None:
    for kind, values in (("integer", [AT]), ("text", [[1]]), ("time", [[1]]), ("vector", ["x"]), ("number", [AT])):
        with pytest.raises(DataError, match=r"column 'c': .* expected, dtype .* found; cast it"):
            cast(pl.Series("c", values), kind, LATEST)
    with pytest.raises(DataError, match=r"'c': lists of one length expected, lengths \[1, 2\] found"):
        cast(pl.Series("c", [[1.0], [1.0, 2.0]]), "vector", LATEST)


def test_categories_are_text() -> None:
    assert cast(pl.Series("c", ["a", "b"], dtype=pl.Categorical), "value", LATEST)[0].to_list() == ["a", "b"]


def test_text_becomes_integers_only_where_nothing_is_lost() -> None:
    for texts in (["7", "007"], ["7", "-0"], ["7", "9" * 30], ["7", "x"], [None]):
        column = pl.Series(texts, dtype=pl.String)
        assert as_integers_where_plain(column).equals(column), texts
    assert as_integers_where_plain(pl.Series(["7", None, "-3"])).to_list() == [7, None, -3]


def test_integers_are_narrowed_only_where_they_fit() -> None:
    assert smallest_integer(pl.Series([2**31 - 1, -(2**31)])).dtype == pl.Int32
    assert smallest_integer(pl.Series([2**31])).dtype == pl.Int64
