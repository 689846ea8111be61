"""The time rule at its root: half-open windows, against loops and by hand."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.windows import (
    NO_KEY,
    NO_TIME,
    SESSION_PAUSE_MS,
    EventIndex,
    first_of_its_kind,
    grid_before,
    previous_in_sequence,
    sequence_order,
    session_position,
)
from tests.oracle import count

EVENTS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 30)), max_size=40)
QUESTIONS = st.lists(st.tuples(st.integers(-1, 6), st.integers(-5, 40)), min_size=1, max_size=20)
FAR = 1_700_000_000_000


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def index_of(events: list[tuple[int, int]], shift: int = 0) -> EventIndex:
    key = np.array([k for k, _ in events], dtype=np.int64)
    time = np.array([t for _, t in events], dtype=np.int64) + shift
    return EventIndex(key, time, {"worth": key * 10 + time - shift})


def test_event_at_the_instant_is_not_counted() -> None:
    index = index_of([(1, 100)])
    assert index.counts(ints(1, 1, 1), ints(99, 100, 101), (None,))[0].tolist() == [0, 0, 1]


def test_event_exactly_a_window_ago_is_counted() -> None:
    index = index_of([(1, 100)])
    assert index.counts(ints(1, 1, 1), ints(109, 110, 111), (10,))[0].tolist() == [1, 1, 0]


@given(events=EVENTS, questions=QUESTIONS, shift=st.sampled_from([0, -7, FAR]))
def test_counts_equal_a_loop(events: list[tuple[int, int]], questions: list[tuple[int, int]], shift: int) -> None:
    windows = (3, 10, None)
    keys, at = ints(*(k for k, _ in questions)), ints(*(t + shift for _, t in questions))
    found = index_of(events, shift).counts(keys, at, windows)
    for window, column in zip(windows, found, strict=True):
        expected = [
            count((t for k, t in events if k == key), None if window is None else moment - window, moment)
            for key, moment in questions
        ]
        assert column.tolist() == expected


@given(events=EVENTS, questions=QUESTIONS)
def test_latest_equals_a_loop(events: list[tuple[int, int]], questions: list[tuple[int, int]]) -> None:
    found = index_of(events, FAR).latest(ints(*(k for k, _ in questions)), ints(*(t + FAR for _, t in questions)))
    expected = [
        max((t + FAR for k, t in events if k == key and t < moment), default=NO_TIME) for key, moment in questions
    ]
    assert found.tolist() == expected


@given(events=EVENTS, questions=QUESTIONS, window=st.sampled_from([None, 1, 8]))
def test_sums_equal_a_loop(events: list[tuple[int, int]], questions: list[tuple[int, int]], window: int | None) -> None:
    index = index_of(events)
    found = index.sums("worth", ints(*(k for k, _ in questions)), ints(*(t for _, t in questions)), (window,))
    expected = [
        sum(k * 10 + t for k, t in events if k == key and t < at and (window is None or t >= at - window))
        for key, at in questions
    ]
    assert [column.tolist() for column in found] == [expected]


@given(events=EVENTS, seed=st.integers(0, 5))
@settings(max_examples=30)
def test_order_of_the_events_does_not_matter(events: list[tuple[int, int]], seed: int) -> None:
    shuffled = [events[i] for i in np.random.default_rng(seed).permutation(len(events))]
    keys, at = ints(*range(5)), ints(*[20] * 5)
    for one, other in zip(
        index_of(events).counts(keys, at, (5, None)), index_of(shuffled).counts(keys, at, (5, None)), strict=True
    ):
        assert one.tolist() == other.tolist()


@pytest.mark.parametrize("highest", [2**40, 2**55, 2**62])
def test_keys_of_pairs_may_be_huge(highest: int) -> None:
    """Key and time no longer fit one integer as they are: keys are made dense, and a key in between is unknown."""
    index = EventIndex(ints(5, highest, highest), ints(FAR, FAR + 10**9, FAR + 2 * 10**9))
    asked = ints(highest, highest, 5, highest - 1, highest // 2, 6)
    found = index.counts(asked, np.full(6, FAR + 2 * 10**9, np.int64), (None, 10**9))
    assert [c.tolist() for c in found] == [[1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0]]


@pytest.mark.parametrize("asked", [2**33, 2**34, 2**35, 2**40, 2**62])
def test_key_above_all_events_has_none_however_large(asked: int) -> None:
    month = 2**31  # a span that is a power of two, so that an overflow would wrap onto key 0
    index = EventIndex(ints(0, 0, 1), ints(FAR, FAR + month - 2, FAR + 5))
    at = ints(FAR + 2 * month, FAR + 6, FAR)
    assert index.counts(np.full(3, asked, np.int64), at, (None,))[0].tolist() == [0, 0, 0]
    assert index.latest(np.full(3, asked, np.int64), at).tolist() == [NO_TIME] * 3


def test_empty_index_knows_nothing() -> None:
    index = EventIndex(ints(), ints())
    assert len(index) == 0
    assert index.counts(ints(0, 3, NO_KEY), ints(5, 5, 5), (None, 2))[1].tolist() == [0, 0, 0]
    assert index.latest(ints(0), ints(9)).tolist() == [NO_TIME]


def test_no_questions_no_answers() -> None:
    assert index_of([(1, 1)]).counts(ints(), ints(), (3, None))[0].tolist() == []


def test_unknown_key_has_no_events() -> None:
    index = index_of([(0, 1), (1, 1)])
    assert index.counts(ints(NO_KEY), ints(50), (None,))[0].tolist() == [0]
    assert index.counts(ints(NO_KEY), ints(50), (100,))[0].tolist() == [0]


def test_sequence_is_by_user_then_time_then_item() -> None:
    user, time, item = ints(2, 1, 1, 1), ints(5, 9, 3, 3), ints(1, 1, 8, 7)
    assert sequence_order(user, time, item).tolist() == [3, 2, 1, 0]


def test_previous_stays_inside_the_user() -> None:
    user = ints(1, 1, 1, 2, 2)
    assert previous_in_sequence(user, 1).tolist() == [-1, 0, 1, -1, 3]
    assert previous_in_sequence(user, 2).tolist() == [-1, -1, 0, -1, -1]
    assert previous_in_sequence(ints(), 1).tolist() == []


def test_session_ends_only_after_more_than_the_pause() -> None:
    time = np.cumsum([0, SESSION_PAUSE_MS, SESSION_PAUSE_MS + 1, 5]).astype(np.int64)
    assert session_position(ints(1, 1, 1, 1), time).tolist() == [1, 2, 1, 2]
    assert session_position(ints(1, 2, 2, 3), ints(0, 0, 1, 1)).tolist() == [1, 1, 2, 1]


def test_first_of_its_kind_skips_the_unknown_kind() -> None:
    assert first_of_its_kind(ints(1, 1, 1, 1, 2), ints(4, 4, -1, 5, 4)).tolist() == [1, 0, 0, 1, 1]


def test_what_the_grid_moment_covers_lies_strictly_before() -> None:
    """An event in bucket `b` is known to grid `g` only where b < g, so only before the moment that was asked for."""
    at = np.arange(0, 4000, 7)
    event = np.arange(0, 4000, 7)[:, None]
    known = event // 1_800 < grid_before(at, 1_800)
    assert not (known & (event >= at)).any()
    assert known.any()


def test_times_before_1970_keep_their_order() -> None:
    assert grid_before(ints(-1, 0, 1), 10).tolist() == [-1, 0, 0]
    assert pl.Series(grid_before(ints(-25, -20), 10)).to_list() == [-3, -2]
