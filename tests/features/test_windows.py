"""The time rule at its root: half-open windows, against loops and by hand."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.windows import (
    DECAY_BLOCK,
    FEW_QUERIES,
    NO_KEY,
    NO_TIME,
    SESSION_PAUSE_MS,
    EventIndex,
    decay_weights,
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


@given(events=EVENTS, questions=QUESTIONS, since=st.integers(-5, 40))
def test_counts_since_equal_a_loop(events: list[tuple[int, int]], questions: list[tuple[int, int]], since: int) -> None:
    keys, at = asked_of(questions)
    starts = since + np.arange(len(keys)) % 7
    found = index_of(events, FAR).counts_since(keys, starts + FAR, at + FAR)
    expected = [
        count((t for k, t in events if k == key), int(start), moment)
        for (key, moment), start in zip(questions, starts, strict=True)
    ]
    assert found.tolist() == expected


@given(events=EVENTS, questions=QUESTIONS, age=st.integers(0, 3))
def test_nth_latest_equals_a_loop(events: list[tuple[int, int]], questions: list[tuple[int, int]], age: int) -> None:
    found = index_of(events).nth_latest("worth", *asked_of(questions), age)
    expected = [newest_of(events, key, at)[age : age + 1] or [-1] for key, at in questions]
    assert [[value] for value in found.tolist()] == expected


@given(events=EVENTS, questions=QUESTIONS, last=st.sampled_from([None, 1, 3]))
def test_newest_first_equals_a_loop(
    events: list[tuple[int, int]], questions: list[tuple[int, int]], last: int | None
) -> None:
    row, value, age = index_of(events).newest_first("worth", *asked_of(questions), last)
    expected = [
        (number, worth, back)
        for number, (key, at) in enumerate(questions)
        for back, worth in enumerate(newest_of(events, key, at)[:last])
    ]
    assert list(zip(row.tolist(), value.tolist(), age.tolist(), strict=True)) == expected


def asked_of(questions: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    return ints(*(k for k, _ in questions)), ints(*(t for _, t in questions))


def newest_of(events: list[tuple[int, int]], key: int, at: int) -> list[int]:
    """Worth of a key's events before a moment, newest first."""
    return [k * 10 + t for k, t in sorted(events, key=lambda event: -event[1]) if k == key and t < at]


HALF_LIFE = 5


@given(events=EVENTS, at=st.lists(st.integers(-5, 400), min_size=1, max_size=9), shift=st.sampled_from([0, FAR]))
def test_decayed_sum_is_what_the_halves_add_up_to(events: list[tuple[int, int]], at: list[int], shift: int) -> None:
    """Also across the borders of blocks, every 80 here; far events may be left out."""
    found = decaying(events, shift).decayed({"weight": HALF_LIFE}, ints(*[2] * len(at)), ints(*at) + shift)["weight"]
    expected = [sum(2 ** (-(moment - t) / HALF_LIFE) for k, t in events if k == 2 and t < moment) for moment in at]
    assert found == pytest.approx(expected, rel=1e-5, abs=len(events) * 2.0**-DECAY_BLOCK)


def test_event_counts_half_after_a_half_life_and_nothing_at_its_instant() -> None:
    at = ints(100, 105, 110, 115) + FAR
    found = decaying([(2, 100)], FAR).decayed({"weight": HALF_LIFE}, ints(2, 2, 2, 2), at)["weight"]
    assert found.tolist() == pytest.approx([0, 0.5, 0.25, 0.125], rel=1e-5)


@pytest.mark.parametrize("after_border", [-1, 0, 1])
def test_border_between_two_blocks_is_not_seen(after_border: int) -> None:
    border = FAR // (DECAY_BLOCK * HALF_LIFE) * DECAY_BLOCK * HALF_LIFE
    time = border + after_border - FAR
    halves = np.arange(1, 8)
    found = decaying([(2, time)], FAR).decayed(
        {"weight": 5}, np.full(7, 2), border + after_border + halves * HALF_LIFE
    )["weight"]
    assert found == pytest.approx(0.5**halves, rel=1e-4)


def decaying(events: list[tuple[int, int]], shift: int) -> EventIndex:
    key, time = ints(*(k for k, _ in events)), ints(*(t + shift for _, t in events))
    return EventIndex(key, time, {"weight": decay_weights(time, HALF_LIFE)})


BATCHES = st.lists(st.lists(st.tuples(st.integers(-1, 4), st.integers(0, 200)), max_size=12), min_size=1, max_size=12)


@given(batches=BATCHES, questions=QUESTIONS, shift=st.sampled_from([0, FAR]), many=st.booleans(), huge=st.booleans())
def test_grown_index_answers_as_one_made_at_once(
    batches: list[list[tuple[int, int]]], questions: list[tuple[int, int]], shift: int, many: bool, huge: bool
) -> None:
    """At whatever times the batches lie, empty ones and unknown keys among them, few questions or many."""
    grown, whole = grown_and_whole(batches, shift, huge)
    key, at = (np.resize(column, FEW_QUERIES + 50) if many else column for column in asked_of(questions))
    key, at = keyed(key, huge), at * 5 + shift
    assert len(grown) == len(whole)
    for one, other in zip(grown.counts(key, at, (3, 40, None)), whole.counts(key, at, (3, 40, None)), strict=True):
        assert one.tolist() == other.tolist()
    for one, other in zip(grown.sums("row", key, at, (9, None)), whole.sums("row", key, at, (9, None)), strict=True):
        assert one.tolist() == other.tolist()
    assert grown.counts_since(key, at - 7, at).tolist() == whole.counts_since(key, at - 7, at).tolist()
    assert grown.latest(key, at).tolist() == whole.latest(key, at).tolist()
    one, other = (index.decayed({"weight": HALF_LIFE}, key, at)["weight"] for index in (grown, whole))
    assert one.tobytes() == other.tobytes()


@given(batches=BATCHES, questions=QUESTIONS, age=st.integers(0, 4), last=st.sampled_from([None, 1, 4]))
def test_index_that_grew_in_order_of_time_knows_the_same_newest(
    batches: list[list[tuple[int, int]]], questions: list[tuple[int, int]], age: int, last: int | None
) -> None:
    ordered = [[(k, t + 1_000 * number) for k, t in batch] for number, batch in enumerate(batches)]
    grown, whole = grown_and_whole(ordered, FAR)
    key, at = asked_of(questions)
    at = at * 300 + FAR
    assert grown.nth_latest("row", key, at, age).tolist() == whole.nth_latest("row", key, at, age).tolist()
    one, other = (index.newest_first("row", key, at, last) for index in (grown, whole))
    assert [c.tolist() for c in one] == [c.tolist() for c in other]


def grown_and_whole(
    batches: list[list[tuple[int, int]]], shift: int, huge: bool = False
) -> tuple[EventIndex, EventIndex]:
    rows = [(keyed(ints(*(k for k, _ in b)), huge), ints(*(t for _, t in b)) + shift) for b in batches]
    starts = np.cumsum([0, *(len(key) for key, _ in rows)])
    parts = [
        (key, time, {"row": start + np.arange(len(key)), "weight": decay_weights(time, HALF_LIFE)})
        for (key, time), start in zip(rows, starts[:-1], strict=True)
    ]
    grown = EventIndex(*parts[0])
    for part in parts[1:]:
        grown = grown.extended(*part)
    names = ("row", "weight")
    values = {name: np.concatenate([p[2][name] for p in parts]) for name in names}
    return grown, EventIndex(np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts]), values)


def keyed(key: np.ndarray, huge: bool) -> np.ndarray:
    """Keys of pairs may be so large that they are made dense."""
    return np.where(key > 0, key + 2**61, key) if huge else key


def test_index_that_grows_stays_as_it_was() -> None:
    index = index_of([(1, 10)])
    grown = index.extended(ints(1), ints(20), {"worth": ints(5)})
    assert index.counts(ints(1), ints(99), (None,))[0].tolist() == [1]
    assert grown.counts(ints(1), ints(99), (None,))[0].tolist() == [2]
    assert index.extended(ints(NO_KEY), ints(20), {"worth": ints(5)}) is index


def test_growing_costs_what_is_added() -> None:
    """Few segments, and a large one is left alone while small ones come."""
    index = EventIndex(np.arange(10_000), np.arange(10_000))
    first = index._segments[0]
    for moment in range(100):
        index = index.extended(ints(moment), ints(20_000 + moment))
    assert index._segments[0] is first
    assert len(index._segments) < 6
    assert len(index) == 10_100


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
