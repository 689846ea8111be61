"""Popularity right now against loops, and its windows by hand."""

import polars as pl
import pytest

from features.events import EventStore
from newsrec.recall import RecallRequests, RecallSettings
from newsrec.recall.popular import Popular, PopularParams
from tests.factories import IDS, SHALLOW, clicks_of, log_of, ms, recalled, requests_for, requests_of, small_log
from tests.oracle import Truth, requests

ONE_WINDOW = PopularParams(windows_hours=(3.0,), weights=(1,))


@pytest.mark.parametrize("stale", [0, 200])
@pytest.mark.parametrize("ids", IDS)
@pytest.mark.parametrize("params", [PopularParams(), ONE_WINDOW])
@pytest.mark.parametrize("depth", [2, 8])
def test_lists_equal_a_loop(depth: int, params: PopularParams, ids: str, stale: float) -> None:
    log = small_log(depth, ids)
    asked = requests_for(log, stale_minutes=stale)
    store, truth, settings = EventStore(log.clicks, log.articles), Truth(log), RecallSettings(depth=depth)
    found = Popular(params).fit(store, settings).recall(RecallRequests.of(asked, store))
    lengths = []
    for row, request in enumerate(requests(asked)):
        own = found.filter(pl.col("row") == row)
        expected = truth.popular(request, settings, params)
        assert store.items.gather(own["item"]).to_list() == [item for item, _ in expected]
        assert own["score"].to_list() == [score for _, score in expected]
        lengths.append(len(expected))
    assert max(lengths) >= min(depth, 6)


def score_at(minutes: float) -> list[float]:
    """Score of an article clicked once, at minute 0, for a stranger at that minute."""
    log = log_of(clicks_of([(1, 7, 0.0)]))
    return recalled(log, "popular", requests_of([(2, minutes, minutes)]))["score"].to_list()


@pytest.mark.parametrize(
    ("hours", "expected"),
    [(0, []), (0.5, [11_011]), (1, [1_011]), (2, [1_011]), (2.5, [11]), (12, [11]), (12.5, [1]), (48, [1]), (48.5, [])],
)
def test_click_weighs_less_from_window_to_window(hours: float, expected: list[float]) -> None:
    assert score_at(hours * 60) == expected


def test_many_old_clicks_do_not_outrank_a_fresh_one() -> None:
    rows = [(user, 5, 0.0) for user in range(1, 90)] + [(1, 6, 24 * 60.0)]
    found = recalled(log_of(clicks_of(rows)), "popular", requests_of([(99, 24 * 60 + 31.0, 24 * 60 + 31.0)]))
    assert found["item_id"].to_list() == [6, 5]


def test_equal_scores_are_in_order_of_the_items() -> None:
    rows = [(1, 9, 0.0), (2, 4, 1.0), (3, 6, 2.0)]
    found = recalled(log_of(clicks_of(rows)), "popular", requests_of([(99, 31.0, 31.0)]))
    assert found["item_id"].to_list() == [4, 6, 9]


def test_reader_of_the_first_places_gets_the_next() -> None:
    rows = [(user, item, float(item)) for item in range(1, 8) for user in range(1, 12 - item)]
    rows += [(50, item, 20.0 + item) for item in (1, 2, 3)]
    found = recalled(log_of(clicks_of(rows)), "popular", requests_of([(50, 40.0, 40.0)]), RecallSettings(depth=3))
    assert found["item_id"].to_list() == [4, 5, 6]


def test_own_clicks_after_the_refresh_still_take_articles_off_the_list() -> None:
    log = log_of(clicks_of([(1, 7, 0.0), (1, 8, 1.0), (2, 7, 33.0)]))
    found = recalled(log, "popular", requests_of([(2, 33.0, 33.0), (2, 34.0, 34.0)]), SHALLOW)
    assert found.select("request_id", "item_id").rows() == [(100, 7), (100, 8), (101, 8)]


def test_table_is_the_list_of_the_refresh() -> None:
    store = EventStore(clicks_of([(1, 7, 0.0), (2, 7, 1.0), (1, 8, 2.0), (1, 9, 31.0)]), pl.DataFrame({"item_id": [1]}))
    table = Popular().fit(store, RecallSettings(depth=5)).table(ms(59))
    assert table.rows() == [(7, 22_022), (8, 11_011)]
