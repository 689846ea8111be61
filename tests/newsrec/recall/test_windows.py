"""Who read what before a refresh, by hand: the border of the window, repeats, and the last clicks that count."""

import pytest

from features.columns import HOUR
from features.events import EventStore
from newsrec.recall import RecallSettings
from newsrec.recall.windows import ReadingWindows, column_counts, entries, row_counts, scaled_rows
from tests.factories import articles_of, clicks_of, ms

SETTINGS = RecallSettings(refresh_ms=HOUR)
ROWS = [(1, 7, 10.0), (1, 8, 70.0), (1, 7, 80.0), (2, 7, 130.0), (3, 7, 130.0), (1, 9, 130.0), (1, 5, 185.0)]


def windows(hours: float = 2, per_user: int = 9, per_item: int | None = None) -> ReadingWindows:
    return ReadingWindows(EventStore(clicks_of(ROWS), articles_of([5])), SETTINGS, hours, per_user, per_item)


def pairs(at: float, made: ReadingWindows, last: bool = False) -> set[tuple[int, int]]:
    """(user, article) at the refresh of that minute."""
    store, readings = EventStore(clicks_of(ROWS), articles_of([5])), made.at(ms(at) // HOUR)
    row, column, value = entries(readings.last_readers() if last else readings.read)
    assert value.tolist() == [1] * len(row)
    return set(zip(store.users.gather(row), store.items.gather(column), strict=True))


@pytest.mark.parametrize(
    ("at", "found"),
    [
        (59, set()),
        (60, {(1, 7)}),
        (120, {(1, 7), (1, 8)}),
        (180, {(1, 7), (1, 8), (1, 9), (2, 7), (3, 7)}),  # the hours from 60 on: not the click at 10
        (240, {(1, 5), (1, 9), (2, 7), (3, 7)}),
        (400, set()),
    ],
)
def test_window_is_half_open_and_counts_a_reading_once(at: float, found: set[tuple[int, int]]) -> None:
    assert pairs(at, windows()) == found


def test_only_the_last_clicks_of_a_user_count() -> None:
    assert pairs(120, windows(per_user=1)) == {(1, 7)}
    assert pairs(180, windows(per_user=2)) == {(1, 7), (1, 9), (2, 7), (3, 7)}


def test_last_readers_of_an_article_are_the_latest_and_ties_go_by_the_user() -> None:
    assert pairs(180, windows(per_item=2), last=True) == {(1, 8), (1, 9), (2, 7), (3, 7)}
    assert pairs(180, windows(per_item=1), last=True) == {(1, 8), (1, 9), (3, 7)}
    assert pairs(180, windows(per_item=1)) == pairs(180, windows())


def test_times_are_those_of_the_last_click() -> None:
    readings = windows().at(ms(120) // HOUR)
    _, column, value = entries(readings.valued(readings.time))
    assert dict(zip(column.tolist(), value.tolist(), strict=True)) == {1: ms(80), 2: ms(70)}


def test_counts_and_scaling() -> None:
    matrix = windows().at(ms(180) // HOUR).read
    assert row_counts(matrix).tolist() == [3, 1, 1]
    assert column_counts(matrix).tolist() == [0, 3, 1, 1]
    assert scaled_rows(matrix, row_counts(matrix)).sum(axis=0).tolist() == [[0, 5, 3, 3]]
