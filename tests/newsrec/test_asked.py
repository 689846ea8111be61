"""What a caller may hand over; each refusal is one line that says what was expected and what was found."""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import polars as pl
import pytest

from features.columns import CLICK_KEY, TIME
from features.events import EventStore
from newsrec.asked import (
    IMPRESSION_KEY,
    checked_events,
    clicks_of_impressions,
    live_moment,
    refuse_other_ids,
    refuse_requests,
    typed_ids,
)
from newsrec.data import Log
from newsrec.errors import DataError, NewsrecError, UsageError
from newsrec.serve import Recommender
from newsrec.train import TrainResult
from tests.factories import articles_of, bits, clicks_of, impressions_of, instant, ms, requests_of

CLICKS = clicks_of([(1, 10, 0.0), (2, 11, 5.0)])
STORE = EventStore(CLICKS, articles_of([10, 11]))
TEXTS = EventStore(clicks_of([("u", "a", 0.0)]), articles_of(["a"]))
LISTS = impressions_of([(1, 7.0, [10, 11]), (2, 9.0, [11])])


def refusal(kind: type[NewsrecError], ask: Callable[[], object]) -> str:
    """The one line of a refusal; fails where nothing is refused, in another way, or in more than a line."""
    with pytest.raises(kind) as error:
        ask()
    (line,) = str(error.value).splitlines()
    return line


def refuse(*lines: str) -> None:
    if lines:
        raise DataError("\n".join(lines))


def test_check_of_refusals_can_fail() -> None:
    assert refusal(DataError, lambda: refuse("a reason")) == "a reason"
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        refusal(DataError, refuse)
    with pytest.raises(ValueError, match="too many values"):
        refusal(DataError, lambda: refuse("a reason", "and more"))


class TestMoments:
    def test_left_out_is_the_instant_after_the_last_event(self) -> None:
        assert live_moment(None, STORE) == ms(5) + 1
        assert live_moment(None, EventStore(CLICKS, articles_of([10]), LISTS)) == ms(9) + 1
        assert live_moment(None, EventStore(CLICKS.clear(), articles_of([10]))) == 0

    def test_that_of_the_last_event_and_later_ones_are_taken_in_any_zone(self) -> None:
        east = timezone(timedelta(hours=9))
        assert live_moment(instant(5), STORE) == live_moment(instant(5).astimezone(east), STORE) == ms(5)
        assert live_moment(instant(6.0001), STORE) == ms(6.0001)

    def test_earlier_one_is_refused_with_the_way_to_ask_for_it(self) -> None:
        assert re.search(
            r"at: expected a moment not before .*2024-01-08T00:05:00\+00:00\), found .*rank_many",
            refusal(UsageError, lambda: live_moment(instant(5) - timedelta(milliseconds=1), STORE)),
        )

    def test_one_without_a_zone_is_refused(self) -> None:
        assert re.search(
            "--at: expected a moment with a time zone, found '2025-03-06 00:00:00'",
            refusal(UsageError, lambda: live_moment(datetime(2025, 3, 6), STORE)),
        )


class TestIds:
    def test_are_columns_of_the_kind_of_the_bundle(self) -> None:
        assert typed_ids([3, 1], pl.Int64(), "item_ids").to_list() == [3, 1]
        assert typed_ids((), pl.String(), "item_ids").dtype == pl.String
        assert typed_ids(frozenset({4}), pl.Int32(), "item_ids").dtype == pl.Int32

    @pytest.mark.parametrize(
        ("values", "dtype", "found"),
        [
            (["abc"], pl.Int64(), r"expected Int64, found \['abc'\]"),
            ([1, 2, 3, "4"], pl.Int64(), r"expected Int64, found \[1, 2, 3\]"),
            ([7], pl.String(), r"expected String, found \[7\]"),
            ([2**70], pl.Int64(), r"expected Int64, found \[1180591620717411303424\]"),
            ([1.5], pl.Int64(), r"expected Int64, found \[1.5\]"),
            ([-1], pl.UInt32(), r"expected UInt32, found \[-1\]"),
            ([1, None], pl.Int64(), "expected Int64, found None"),
        ],
    )
    def test_of_another_kind_are_refused(self, values: Sequence[Any], dtype: pl.DataType, found: str) -> None:
        assert re.search(f"^item_ids: {found}", refusal(UsageError, lambda: typed_ids(values, dtype, "item_ids")))

    def test_of_data_must_be_those_of_the_bundle(self) -> None:
        other = CLICKS.with_columns(pl.col("user_id").cast(pl.String))
        assert re.search(
            "--data: .*found user_id: Int64 in the bundle, String in the data. Read it",
            refusal(DataError, lambda: refuse_other_ids(other, CLICKS, ("user_id", "item_id"))),
        )
        refuse_other_ids(CLICKS, CLICKS, ("user_id", "item_id"))


class TestEvents:
    def test_that_are_whole_come_back_distinct_in_their_order(self) -> None:
        twice = pl.concat([CLICKS.reverse(), CLICKS])
        assert checked_events(twice, "clicks", CLICK_KEY, STORE).equals(CLICKS.reverse())
        shown = pl.concat([LISTS, LISTS])
        assert checked_events(shown, "impressions", IMPRESSION_KEY, STORE).equals(LISTS)

    def test_of_articles_the_last_that_is_told_counts(self) -> None:
        told = articles_of([10, 10], words=[1, 2])
        assert checked_events(told, "articles", ("item_id",), STORE)["words"].to_list() == [2]

    def test_ids_of_another_width_become_those_of_the_store(self) -> None:
        narrow = CLICKS.with_columns(pl.col("user_id", "item_id").cast(pl.Int16))
        assert checked_events(narrow, "clicks", CLICK_KEY, STORE).equals(CLICKS)
        long = CLICKS.with_columns(item_id=pl.lit(2**40))
        assert checked_events(long, "clicks", CLICK_KEY, STORE).equals(long)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda f: f.drop("item_id", "user_id"), r"expected columns .*; \['item_id', 'user_id'\] are missing"),
            (lambda f: f.with_columns(user_id=None), r"expected a value in every row .*found nulls in \['user_id'\]"),
            (lambda f: f.with_columns(clicked_at=5), r"expected times in \['clicked_at'\], found \['Int32'\]"),
            (lambda f: f.with_columns(item_id=pl.lit("abc")), "expected ids of the kinds .*'item_id': 'String'"),
        ],
    )
    def test_that_are_not_are_refused(self, change: Callable[[pl.DataFrame], pl.DataFrame], message: str) -> None:
        assert re.search(
            f"^clicks: {message}",
            refusal(DataError, lambda: checked_events(change(CLICKS), "clicks", CLICK_KEY, STORE)),
        )

    def test_clicks_of_lists_are_the_clicked_rows_at_the_time_of_the_list(self) -> None:
        shown = LISTS.with_columns(clicked=pl.Series([False, True, True]), position=pl.Series([1, 2, 1]), device=3)
        clicks = clicks_of_impressions(pl.concat([shown, shown]))
        assert clicks.equals(clicks_of([(1, 11, 7.0), (2, 11, 9.0)], device=[3, 3]).select(clicks.columns))


class TestRequests:
    def test_missing_columns_and_repeats_are_refused(self) -> None:
        asked = requests_of([(1, 10.0, 10.0), (2, 11.0, 11.0)])
        refuse_requests(asked)
        assert re.search(
            r"^requests: expected columns \['requested_at', 'statistics_at'\], found \['req",
            refusal(DataError, lambda: refuse_requests(asked.select("request_id", "user_id"))),
        )
        assert re.search(
            r"expected each 'request_id' once, found 2 rows that share one \[100\]. Number",
            refusal(DataError, lambda: refuse_requests(pl.concat([asked, asked[:1]]))),
        )


class TestRecommender:
    @pytest.fixture
    def served(self, trained: TrainResult) -> Recommender:
        return Recommender.load(trained.run)

    WRONG: tuple[tuple[Callable[[Recommender], object], str], ...] = (
        (lambda r: r.recommend(1, at=datetime(2025, 3, 6)), "--at: expected a moment with a time zone, found '2025-03"),
        (lambda r: r.recommend(1, k=0), "--k: expected at least 1, found 0"),
        (lambda r: r.recommend(1, k=-1), "--k: expected at least 1, found -1"),
        (lambda r: r.recommend("abc"), r"user_id: expected Int64, found \['abc'\]"),
        (lambda r: r.recommend(None), "user_id: expected Int64, found None"),  # type: ignore[arg-type]
        (lambda r: r.recommend(1, at=datetime(2025, 3, 6, tzinfo=UTC)), "at: expected a moment not before the last"),
        (lambda r: r.recommend(1, exclude=["a"]), r"exclude: expected Int64, found \['a'\]"),
        (lambda r: r.recommend(1, categories=["a"]), r"categories: expected Int\d+, found \['a'\]"),
        (lambda r: r.rank("abc", [1]), r"user_id: expected Int64, found \['abc'\]"),
        (lambda r: r.rank(1, ["x"]), r"item_ids: expected Int64, found \['x'\]"),
        (lambda r: r.rank(1, [1], at=datetime(2025, 3, 6, tzinfo=UTC)), "at: expected a moment not before the last"),
        (lambda r: r.features(1, [5, 6, 5]), "item_ids: expected distinct articles, found 5 twice"),
        (lambda r: r.explain(1, [5, 6, 5]), "item_ids: expected distinct articles, found 5 twice"),
        (lambda r: r.withdraw(["x"]), r"item_ids: expected Int64, found \['x'\]"),
    )

    @pytest.mark.parametrize(("ask", "message"), WRONG)
    def test_misuse_is_told_in_one_line_and_changes_nothing(
        self, served: Recommender, ask: Callable[[Recommender], object], message: str
    ) -> None:
        assert re.search(message, refusal(UsageError, lambda: ask(served)))
        assert len(served.recommend(1, k=3)) == 3

    def test_nothing_of_a_refused_observation_is_taken_in(self, served: Recommender, log: Log) -> None:
        before = served.store
        at = pl.Series([log.clicks["clicked_at"].max()]).cast(TIME)
        good = pl.DataFrame({"user_id": [1], "item_id": [1], "clicked_at": at.dt.offset_by("1h")})
        assert re.search(
            "^articles: expected columns",
            refusal(DataError, lambda: served.observe(clicks=good, articles=pl.DataFrame({"words": [3]}))),
        )
        assert served.store is before

    def test_pandas_events_are_those_of_polars(self, served: Recommender, trained: TrainResult, log: Log) -> None:
        later = log.clicks[-3:].select(CLICK_KEY).with_columns(pl.col("clicked_at").dt.offset_by("1h"))
        pandas = pytest.importorskip("pandas").DataFrame({c: later[c].to_numpy() for c in later.columns})
        pandas["clicked_at"] = pandas["clicked_at"].dt.tz_localize("UTC")
        other = Recommender.load(trained.run)
        served.observe(pandas)
        other.observe(later)
        assert bits(served.store.clicks) == bits(other.store.clicks)
