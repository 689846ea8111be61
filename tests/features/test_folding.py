"""Folded events change no feature, to the last bit; what is held of them grows with users and pairs only."""

from functools import lru_cache
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.build import build
from features.columns import DAY, HOUR
from features.events import EventStore, history, read_before
from features.exposure_facts import LAST_REQUESTS
from features.folding import LONGEST_WINDOW, answers_from, fold
from features.indices import INDICES
from features.past import PAST, SUMMARIES
from features.similarity_facts import LAST_CLICKS
from features.vocabulary import Vocabulary
from features.windows import COUNT, EventIndex
from newsrec.data.log import Log
from tests.factories import (
    IDS,
    all_features,
    articles_of,
    candidates_for,
    clicks_of,
    impressions_of,
    long_log,
    ms,
    requests_for,
    requests_of,
    store_of,
    unequal,
)

EVER = np.full(1, 2**50)


@lru_cache(maxsize=8)
def made(seed: int, days: float, ids: str) -> Log:
    return long_log(seed, days, ids=ids)


def asked_of(log: Log, since: int, seed: int) -> pl.DataFrame:
    """Requests from `since` (ms) on: at events, and of every user at the first moment and after the last event."""
    some = requests_for(log, 40, seed).filter(pl.col("requested_at").to_physical() >= since)
    users = pl.concat([log.clicks["user_id"], log.impressions["user_id"]]).unique().sort()  # type: ignore[index]
    last = store_of(log).last_event
    assert last is not None
    moments = [(at - ms(0)) / 60_000 for at in (since, last + 1, last + 40 * HOUR)]
    rows = [(user, at, at) for user in users for at in moments]
    return pl.concat([some, requests_of(rows).with_columns(pl.col("request_id") + 10_000)], how="diagonal")


def differing(log: Log, folded: EventStore, since: int, seed: int = 0, whole: EventStore | None = None) -> list[str]:
    """Features that the folded store answers otherwise than the whole log."""
    asked = asked_of(log, since, seed)
    assert len(asked) > 40
    candidates, vocabulary = candidates_for(log, asked, 12, seed), Vocabulary.of(log.clicks, 2, log.impressions)
    one, other = (
        build(candidates, asked, store, vocabulary, all_features()) for store in (whole or store_of(log), folded)
    )
    return unequal(one, other)


def before(frame: pl.DataFrame, time: str, border: int) -> pl.Series:
    return frame[time].to_physical() < border


def rows_held(store: EventStore) -> dict[str, int]:
    return {name: len(table) for name, table in store.tables.items()}


class TestFeatures:
    @settings(max_examples=10, deadline=None)
    @given(
        st.integers(0, 3),
        st.sampled_from([2.6, 4.0, 60.0, 130.0]),
        st.integers(3, 6),
        st.integers(0, 23),
        st.sampled_from(IDS),
    )
    def test_are_those_of_the_whole_log_to_the_last_bit(
        self, seed: int, days: float, keep: int, hour: int, ids: str
    ) -> None:
        log = made(seed, days, ids)
        store = store_of(log)
        assert store.last_event is not None
        border = (store.last_event - keep * DAY) // DAY * DAY - hour * HOUR
        folded = fold(store, border)
        assert rows_held(folded)["clicks"] < 0.8 * rows_held(store)["clicks"]
        assert differing(log, folded, border + LONGEST_WINDOW, seed) == []

    @settings(max_examples=8, deadline=None)
    @given(st.integers(0, 3), st.sampled_from([2.6, 60.0, 130.0]), st.integers(0, 2**30), st.sampled_from(IDS))
    def test_are_so_after_several_foldings_and_with_later_events_in_pieces(
        self, seed: int, days: float, draw: int, ids: str
    ) -> None:
        """Events that come late, and articles that move to another category after they were folded, included."""
        log, rng = made(seed, days, ids), np.random.default_rng(draw)
        last = store_of(log).last_event
        assert last is not None
        assert log.impressions is not None
        steps = [0, *np.sort(rng.integers(ms(0) + DAY, last - 3 * DAY, 3)).tolist(), last + 1]
        wrong = {"category": pl.lit("politics"), "words": pl.lit(7, pl.Int32)}
        early = log.articles.with_columns(pl.when(pl.col(c).is_not_null()).then(v).alias(c) for c, v in wrong.items())
        store = EventStore(log.clicks.clear(), early, log.impressions.clear())
        for number, (low, high) in enumerate(pairwise(steps)):
            clicks, shown = (
                frame.filter(frame[time].to_physical().is_between(low, high, closed="left"))
                for frame, time in ((log.clicks, "clicked_at"), (log.impressions, "requested_at"))
            )
            late = pl.Series(rng.random(len(clicks)) < 0.05)
            told = log.articles.filter(pl.Series(rng.random(len(log.articles)) < 0.3))
            store = store.extended(clicks.filter(~late), told, shown)
            store = store.extended(clicks.filter(late), log.articles if number == 3 else None, shown)
            if number < 3 and store.last_event is not None:
                store = fold(store, min(high, last - 3 * DAY))
        border = store.border
        assert border is not None
        assert differing(log, store, border + LONGEST_WINDOW, seed) == []

    def test_of_earlier_moments_would_be_wrong(self) -> None:
        """So they are refused by who knows the border."""
        log = made(0, 2.6, "integer")
        border = store_of(log).last_event - 4 * DAY  # type: ignore[operator]
        assert differing(log, fold(store_of(log), border), border + LONGEST_WINDOW - 12 * HOUR) != []

    @pytest.mark.parametrize("name", sorted(PAST))
    def test_would_be_found_wrong_without_the_rows_of_any_index(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        log = made(0, 2.6, "integer")
        folded = fold(store_of(log), store_of(log).last_event - 4 * DAY)  # type: ignore[operator]
        monkeypatch.delitem(PAST, name)
        assert differing(log, folded, folded.border + LONGEST_WINDOW) != []  # type: ignore[operator]


class TestKept:
    def test_last_clicks_last_lists_and_an_open_session(self) -> None:
        log = made(1, 60.0, "integer")
        store = store_of(log)
        border = store.last_event - 4 * DAY  # type: ignore[operator]
        folded = fold(store, border)
        old = {
            name: frame.filter(before(frame, time, border))
            for name, frame, time in (
                ("clicks", folded.clicks, "clicked_at"),
                ("lists", folded.impressions.unique("request_id"), "requested_at"),  # type: ignore[union-attr]
            )
        }
        clicks, lists = (old[name].group_by("user_id").len() for name in ("clicks", "lists"))
        assert LAST_CLICKS <= clicks["len"].max() <= LAST_CLICKS + 1  # type: ignore[operator]  # a tie of one instant
        of_visitor = lists.filter(pl.col("user_id") == 15)["len"][0]
        assert of_visitor >= 90  # the session that began two days before the border
        assert lists.filter(pl.col("user_id") != 15)["len"].max() <= max(LAST_REQUESTS) + 2  # ties of one instant

    def test_everything_of_those_with_few_events(self) -> None:
        clicks = clicks_of([(1, 7, float(n)) for n in range(LAST_CLICKS)] + [(2, 7, float(n)) for n in range(6)])
        folded = fold(EventStore(clicks, articles_of([7])), ms(50_000))
        assert folded.clicks["user_id"].value_counts(sort=True).rows() == [(1, 5), (2, 5)]
        assert folded.past["readers"]["n"].to_list() == [1]

    def test_no_more_rows_however_long_the_log(self) -> None:
        held = []
        for eras in (3, 6):
            log = long_log(0, 30.0, eras)
            folded = fold(store_of(log), store_of(log).last_event - 4 * DAY)  # type: ignore[operator]
            held.append((rows_held(folded), {n: len(f) for n, f in folded.past.items() if "pairs" not in n}))
        (short, past), (long, more) = held
        assert max(abs(long[name] - short[name]) / short[name] for name in short) < 0.2
        assert max(more[name] - past[name] for name in past) < 40  # a few more articles and readings

    def test_history_is_not_asked_for_more(self) -> None:
        log = made(0, 2.6, "integer")
        folded = fold(store_of(log), store_of(log).last_event - 4 * DAY, 7)  # type: ignore[operator]
        assert len(history(folded, np.array([1]), EVER, 7)[0]) == 7
        with pytest.raises(ValueError, match="history: expected at most 7 clicks"):
            history(folded, np.array([1]), EVER)

    def test_who_read_what_is_known_for_ever(self) -> None:
        log = made(2, 60.0, "string")
        store = store_of(log)
        folded = fold(store, store.last_event - 3 * DAY)  # type: ignore[operator]

        def read(known: EventStore) -> set[tuple[object, object]]:
            user = np.arange(len(known.users))
            row, item = read_before(known, user, np.full(len(user), 2**50))
            return set(zip(known.users.gather(row), known.items.gather(item), strict=True))

        assert len(folded.clicks) < len(log.clicks) / 2
        assert read(folded) == set(log.clicks.select("user_id", "item_id").rows())


class TestFolding:
    def test_leaves_the_store_as_it_is_and_an_earlier_border_changes_nothing(self) -> None:
        log = made(0, 2.6, "integer")
        store = store_of(log)
        folded = fold(store, store.last_event - 4 * DAY)  # type: ignore[operator]
        assert len(store.clicks) == len(log.clicks)
        assert (store.border, answers_from(store), store.folded) == (None, None, None)
        assert answers_from(folded) == folded.border + LONGEST_WINDOW  # type: ignore[operator]
        assert fold(folded, folded.border - 1) is folded  # type: ignore[operator]

    def test_adds_up_by_user_article_and_pair(self) -> None:
        # User 1: seven clicks, of which the last five are kept; ten minutes apart, but for a pause after the first.
        rows = [(1, 7, 0.0), (1, 8, 40.0), *((1, 9, 50.0 + 10 * n) for n in range(5))]
        clicks = clicks_of(rows, dwell_seconds=[10.0, 100 * 3_600.0, *[None] * 5])
        articles = articles_of([7, 8, 9], category=["a", "b", "a"], words=[100, 50, 10])
        shown = impressions_of([(1, 5.0 * n, [7, 8] if n else [7, 8, 9]) for n in range(12)])
        folded = fold(EventStore(clicks, articles, shown), ms(1_440))
        told = folded.folded
        assert told is not None
        frames = {name: frame.rows() for name, frame in told.summaries.items()}
        assert set(frames) == set(SUMMARIES)
        at = [ms(minutes) for minutes in (0, 5, 40)]
        assert told.summaries["readers"].to_dicts() == [
            {"user_id": 1, "n": 2, "sessions": 2, "first": at[0], "time": at[2], "item_id": 8, "session_place": 1}
        ]
        assert frames["read_items"] == [(7, 1, at[0], at[0]), (8, 1, at[2], at[2])]
        assert [row[3] for row in frames["read_pairs"]] == [1, 1]
        assert frames["item_readings"] == [(7, 0, 1, 10_000), (8, at[2] + 360_000_000, 1, 360_000_000)]
        assert frames["shown_pairs"] == [(1, 7, 2, at[1], 2), (1, 8, 2, at[1], 2), (1, 9, 1, at[0], 3)]
        assert frames["visitors"][0][:2] == (1, 2)
        assert folded.index("user").sums("words", np.array([0]), EVER, (None,))[0].tolist() == [100 + 50 + 5 * 10]
        assert folded.index("user").sums("new_categories", np.array([0]), EVER, (None,))[0].tolist() == [2]

    def test_of_a_log_without_lists_and_of_an_empty_one(self) -> None:
        clicks = clicks_of([(1, n % 3, float(n)) for n in range(30)])
        store = EventStore(clicks, articles_of([0, 1, 2]))
        assert len(fold(store, ms(50)).clicks) == LAST_CLICKS
        empty = fold(EventStore(clicks.clear(), articles_of([0])), ms(50))
        assert len(empty.clicks) == 0
        assert empty.extended(clicks).clicks.equals(clicks)

    @pytest.mark.parametrize("name", INDICES)
    def test_rows_of_an_index_have_all_its_values(self, name: str) -> None:
        log = made(0, 2.6, "integer")
        store = fold(store_of(log), ms(4 * 1_440))
        if name not in PAST:
            return
        made_of = INDICES[name]
        values = made_of.values(store, store.tables[made_of.table].rows(0))
        told: dict[str, object] = dict(PAST[name](store))
        assert set(told) == {"key", "time", COUNT, *values}


BY_HAND = {
    "counts": [5, 2, 1],
    "sums": [8, 3],
    "since 20": [2],
    "since the end": [0],
    "latest before 20": [10],
    "last but one": [1],
}
"""What the index of `TestIndex` says of key 7."""


class TestIndex:
    @pytest.fixture
    def index(self) -> EventIndex:
        """Key 7: three events of value 5 in all until time 10, then events at 20 and 30."""
        past = EventIndex(np.array([7]), np.array([10]), {COUNT: np.array([3]), "v": np.array([5])})
        return EventIndex(np.array([7, 7]), np.array([20, 30]), {"v": np.array([1, 2])}).after(past)

    def answers(self, index: EventIndex) -> dict[str, list[int]]:
        """What the index says of key 7."""
        seven, late = np.array([7]), np.array([31])
        return {
            "counts": [int(c[0]) for c in index.counts(seven, late, (None, 15, 5))],
            "sums": [int(c[0]) for c in index.sums("v", seven, late, (None, 15))],
            "since 20": index.counts_since(seven, np.array([20]), late).tolist(),
            "since the end": index.counts_since(seven, late, np.array([0])).tolist(),
            "latest before 20": index.latest(seven, np.array([20])).tolist(),
            "last but one": index.nth_latest("v", seven, late, 1).tolist(),
        }

    def test_rows_count_the_events_they_stand_for(self, index: EventIndex) -> None:
        assert self.answers(index) == BY_HAND
        assert len(index) == 3

    def test_they_do_so_when_segments_are_merged(self, index: EventIndex) -> None:
        merged = index.extended(np.array([8] * 9), np.arange(9), {"v": np.ones(9, np.int64)})
        assert len(merged._segments) == 1
        assert self.answers(merged) == BY_HAND
        assert len(merged) == 3 + 9

    def test_without_rows_of_its_own(self) -> None:
        past = EventIndex(np.array([7]), np.array([10]), {COUNT: np.array([3])})
        none = EventIndex(np.zeros(0, np.int64), np.zeros(0, np.int64))
        assert none.after(past).counts(np.array([7]), EVER, (None,))[0].tolist() == [3]
        assert none.after(none).counts(np.array([7]), EVER, (None,))[0].tolist() == [0]
