"""Co-visitation against loops over plain lists, and each of its weights by hand."""

from math import sqrt

import polars as pl
import pytest

from features.columns import MINUTE
from features.events import EventStore
from newsrec.recall import RecallRequests, RecallSettings, neighbours
from newsrec.recall.itemcf import ItemCF, ItemCFParams
from tests.factories import (
    IDS,
    SHALLOW,
    clicks_of,
    log_of,
    ms,
    recalled,
    requests_for,
    requests_of,
    small_log,
)
from tests.oracle import Truth, requests

DEFAULT = ItemCFParams()
NARROW = ItemCFParams(window_hours=2, places=1, history=1, neighbours=2)


@pytest.mark.parametrize("stale", [0, 200])
@pytest.mark.parametrize("ids", IDS)
@pytest.mark.parametrize("params", [DEFAULT, NARROW, ItemCFParams(backward=0, popularity_power=1)])
@pytest.mark.parametrize("seed", [0, 1])
def test_lists_equal_a_loop(seed: int, params: ItemCFParams, ids: str, stale: float) -> None:
    log = small_log(seed, ids)
    asked = requests_for(log, seed=seed, stale_minutes=stale)
    store, truth = EventStore(log.clicks, log.articles), Truth(log)
    found = ItemCF(params).fit(store, SHALLOW).recall(RecallRequests.of(asked, store))
    lengths = []
    for row, request in enumerate(requests(asked)):
        own = found.filter(pl.col("row") == row)
        expected = truth.itemcf(request, SHALLOW, params)
        assert store.items.gather(own["item"]).to_list() == [item for item, _ in expected]
        assert own["score"].to_list() == pytest.approx([score for _, score in expected], rel=1e-6, abs=1e-9)
        lengths.append(len(expected))
    assert max(lengths) == (SHALLOW.depth if params == DEFAULT else max(lengths)) > 0


def scores(rows: list[tuple[int, int, float]], at: float, params: ItemCFParams = DEFAULT) -> dict[int, float]:
    """What user 9 is proposed at that minute, with its score."""
    log = log_of(clicks_of(rows))
    store = EventStore(log.clicks, log.articles)
    requests = RecallRequests.of(requests_of([(9, at, at)]), store)
    found = ItemCF(params).fit(store, SHALLOW).recall(requests)
    return dict(zip(store.items.gather(found["item"]).to_list(), found["score"].to_list(), strict=True))


def test_reading_on_counts_more_than_reading_back() -> None:
    """8 was read right after 7; 6 right before it, one minute each."""
    found = scores([(1, 6, 0.0), (1, 7, 1.0), (1, 8, 2.0), (9, 7, 3.0)], 60.0, ItemCFParams(places=1))
    near = 1 / (1 + 1 / 180)
    assert found[8] == pytest.approx(round(1_000 * near) / 1_000 / sqrt(2), rel=1e-6)
    assert found[6] == pytest.approx(round(700 * near) / 1_000 / sqrt(2), rel=1e-6)


def test_pair_further_apart_counts_less() -> None:
    found = scores([(1, 7, 0.0), (1, 8, 180.0), (2, 7, 0.0), (2, 6, 1.0), (9, 7, 200.0)], 240.0)
    assert found[8] == pytest.approx(0.5 / sqrt(3), rel=1e-6)  # three clicks on 7; three hours weigh half
    assert found[6] > 1.9 * found[8]


def test_pair_two_places_apart_weighs_the_decay() -> None:
    params = ItemCFParams(gap_hours=1e9)
    found = scores([(1, 7, 0.0), (1, 6, 1.0), (1, 8, 2.0), (9, 7, 3.0)], 60.0, params)
    assert found[8] == pytest.approx(0.8 * found[6], rel=1e-6)


def test_pair_beyond_the_places_is_none() -> None:
    rows = [(1, 7, 0.0), *((1, i, float(i)) for i in (1, 2, 3, 4)), (9, 7, 10.0)]
    assert set(scores(rows, 60.0, ItemCFParams(places=3))) == {1, 2, 3}


def test_popular_target_is_held_back() -> None:
    rows = [(1, 7, 0.0), (1, 8, 1.0), (2, 7, 0.0), (2, 6, 1.0), (9, 7, 3.0)]
    crowd = [(user, 8, 2.0) for user in range(20, 35)]
    assert scores([*rows, *crowd], 60.0)[8] == pytest.approx(scores(rows, 60.0)[8] / 16**0.4, rel=1e-6)


def test_last_click_weighs_most() -> None:
    rows = [(1, 7, 0.0), (1, 8, 1.0), (2, 5, 0.0), (2, 6, 1.0)]
    found = scores([*rows, (9, 7, 10.0), (9, 5, 12.0)], 60.0, ItemCFParams(places=1))
    assert found[8] == pytest.approx(0.5 * found[6], rel=2e-3)


def test_pair_is_forgotten_after_the_window() -> None:
    rows = [(1, 7, 0.0), (1, 8, 1.0), (9, 7, 3.0)]
    assert set(scores(rows, 120.0, NARROW)) == {8}
    assert scores(rows, 150.0, NARROW) == {}


def test_direction_that_weighs_nothing_proposes_nothing() -> None:
    assert set(scores([(1, 6, 0.0), (1, 7, 1.0), (1, 8, 2.0), (9, 7, 3.0)], 60.0, ItemCFParams(backward=0))) == {8}


def test_reading_the_same_article_again_is_no_pair() -> None:
    assert scores([(1, 7, 0.0), (1, 7, 1.0), (9, 7, 3.0)], 60.0) == {}


def test_user_without_history_is_proposed_nothing() -> None:
    assert recalled(small_log(), "itemcf", requests_of([(777, 2_000.0, 2_000.0)])).is_empty()


def test_chunks_do_not_change_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    log = small_log(6)
    asked = requests_for(log)
    whole = recalled(log, "itemcf", asked)
    monkeypatch.setattr(neighbours, "CHUNK_EXPANSIONS", 900)
    assert recalled(log, "itemcf", asked).equals(whole)


def test_refreshes_in_any_order_know_what_each_knows_alone() -> None:
    """Going on by a few refreshes adds and takes away pairs; far ahead, back and before the log all is summed anew."""
    log = small_log(6)
    store, settings = EventStore(log.clicks, log.articles), RecallSettings()
    params = ItemCFParams(window_hours=4.0)
    running = ItemCF(params).fit(store, settings)
    first = int(store.sequences.time.min()) // settings.refresh_ms
    steps = [first + steps for steps in (20, 21, 23, 40, 80, 24, -3, 104, 105, 300)]
    found = [running.table(step * settings.refresh_ms) for step in steps]
    alone = [ItemCF(params).fit(store, settings).table(step * settings.refresh_ms) for step in steps]
    assert sum(table.height > 0 for table in alone) >= 7
    assert all(one.equals(other) for one, other in zip(found, alone, strict=True))


def test_table_lists_the_neighbours_of_every_article() -> None:
    store = EventStore(
        clicks_of([(1, 7, 0.0), (1, 8, 1.0), (2, 5, 40.0), (2, 6, 41.0)]), pl.DataFrame({"item_id": [3]})
    )
    table = ItemCF().fit(store, RecallSettings()).table(ms(35))
    assert table.columns == ["item_id", "neighbour_id", "similarity"]
    assert table.select("item_id", "neighbour_id").rows() == [(7, 8), (8, 7)]
    assert ItemCF().fit(store, RecallSettings()).table(ms(35) + 30 * MINUTE).height == 4
