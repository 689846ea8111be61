"""Item2vec: the step of the optimiser against differences, what sessions teach, and that models depend on the past."""

import numpy as np
import polars as pl
import pytest

from features.columns import DAY, HOUR
from features.events import EventStore
from newsrec.recall import RecallRequests, RecallSettings, item2vec
from newsrec.recall.item2vec import FIRST, Item2Vec, Item2VecParams
from tests.factories import SHALLOW, articles_of, clicks_of, log_of, ms, requests_for, requests_of, small_log, store_of

SMALL = Item2VecParams(dim=8, min_pairs=1, epochs=30)
HOURLY = RecallSettings(refresh_ms=HOUR // 2, depth=8, training_ms=HOUR)


def two_threads(sessions: int = 40) -> list[tuple[int, int, float]]:
    """Readers of one thread read articles 1 to 4 within minutes, those of the other 5 to 8."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(sessions):
        first = 1 + 4 * (user % 2)
        chosen = rng.permutation(np.arange(first, first + 4))[:3]
        rows += [(user, int(item), user * 10.0 + place) for place, item in enumerate(chosen)]
    return rows


def neighbours(channel: Item2Vec, store: EventStore, at: float) -> dict[int, set[int]]:
    """The nearest two of each article, from a reader of that article alone."""
    users = {item: user for user, item in ((1_000 + i, i) for i in range(1, 9))}
    asked = RecallRequests.of(requests_of([(users[item], at, at) for item in users]), store)
    found = channel.recall(asked)
    return {
        item: set(store.items.gather(found.filter(pl.col("row") == row, pl.col("rank") <= 2)["item"]).to_list())
        for row, item in enumerate(users)
    }


def test_articles_of_one_thread_are_each_others_neighbours() -> None:
    rows = [*two_threads(), *((1_000 + i, i, 500.0) for i in range(1, 9))]
    store = store_of(log_of(clicks_of(rows)))
    found = neighbours(Item2Vec(SMALL).fit(store, HOURLY), store, 600.0)
    assert all(near <= (set(range(1, 5)) if item < 5 else set(range(5, 9))) for item, near in found.items())
    assert sum(len(near) for near in found.values()) == 16


def test_step_goes_down_the_gradient_of_the_objective() -> None:
    """Against differences: sum of -log sigmoid(v u) over pairs and of -log sigmoid(-v u) over shared negatives."""
    rng = np.random.default_rng(1)
    source, target, drawn = np.array([0, 1, 0, 3]), np.array([1, 2, 2, 0]), np.array([4, 2])
    v, u = (rng.normal(size=(5, 3)).astype(np.float32) for _ in range(2))
    params = Item2VecParams(dim=3, negatives=6, rate=1e-4)

    def objective(v: np.ndarray, u: np.ndarray) -> float:
        pairs = np.log1p(np.exp(-(v[source] * u[target]).sum(axis=1))).sum()
        return float(pairs + 6 / 2 * np.log1p(np.exp(v[source] @ u[drawn].T)).sum())

    tables = [v.copy(), u.copy(), np.full_like(v, FIRST), np.full_like(u, FIRST)]
    item2vec._step(tables, source, target, drawn, params)
    for side in (0, 1):
        for place in np.ndindex(5, 3):
            moved = [v.astype(np.float64), u.astype(np.float64)]
            moved[side][place] += 1e-5
            slope = (objective(*moved) - objective(v.astype(np.float64), u.astype(np.float64))) / 1e-5
            expected = -1e-4 * slope / np.sqrt(FIRST + slope**2)
            assert (tables[side] - (v, u)[side])[place] == pytest.approx(expected, abs=2e-6)


def test_pause_of_half_an_hour_ends_a_session() -> None:
    def known(minutes: float) -> int:
        store = store_of(log_of(clicks_of([(1, 7, 0.0), (1, 8, minutes)])))
        return len(Item2Vec(SMALL).fit(store, HOURLY).table(ms(200)))

    assert (known(30.0), known(30.1)) == (2, 0)


def test_pair_beyond_the_places_and_the_same_article_again_are_none() -> None:
    rows = [(1, item, float(minute)) for minute, item in enumerate((7, 7, 8, 6))]
    store = store_of(log_of(clicks_of(rows)))
    pairs = Item2Vec(Item2VecParams(places=2)).fit(store, HOURLY)._pairs
    six, seven, eight = 0, 1, 2
    one_way = [(seven, eight), (seven, eight), (seven, six), (eight, six)]
    found = sorted(zip(pairs.source.tolist(), pairs.target.tolist(), strict=True))
    assert found == sorted([*one_way, *((b, a) for a, b in one_way)])


def test_model_is_as_new_as_its_step() -> None:
    store = store_of(log_of(clicks_of([(1, 7, 59.0), (1, 8, 59.9), (2, 5, 60.0), (2, 6, 61.0)])))
    channel = Item2Vec(SMALL).fit(store, HOURLY)
    known = {at: sorted(channel.table(ms(at))["item_id"]) for at in (59.9, 60.0, 119.9, 120.0)}
    assert known == {59.9: [], 60.0: [7, 8], 119.9: [7, 8], 120.0: [5, 6, 7, 8]}


def test_chain_forgets_what_was_read_before_yesterday() -> None:
    rows = [(1, 7, -100.0), (1, 8, -99.0), (2, 5, 100.0), (2, 6, 101.0), (3, 3, 3 * 1_440.0)]
    channel = Item2Vec(SMALL).fit(store_of(log_of(clicks_of(rows), articles_of([3]))), HOURLY)
    assert sorted(channel.table(ms(600))["item_id"]) == [5, 6, 7, 8]
    assert sorted(channel.table(ms(1_440 + 600))["item_id"]) == [5, 6]
    assert sorted(channel.table(ms(2 * 1_440 + 600))["item_id"]) == []


def test_article_of_few_pairs_is_not_proposed() -> None:
    rows = [(1, 7, 0.0), (1, 8, 1.0), (2, 7, 0.0), (2, 8, 1.0), (3, 7, 0.0), (3, 6, 1.0), (9, 7, 2.0)]
    store = store_of(log_of(clicks_of(rows)))
    asked = RecallRequests.of(requests_of([(9, 120.0, 120.0)]), store)
    found = Item2Vec(Item2VecParams(min_pairs=2, epochs=200)).fit(store, HOURLY).recall(asked)
    assert store.items.gather(found["item"]).to_list() == [8]


def test_order_in_which_models_are_asked_for_does_not_change_a_bit() -> None:
    log = small_log(2)
    store, settings = store_of(log), RecallSettings(depth=8, training_ms=3 * HOUR)
    asked = requests_for(log).sort("requested_at")
    forth = Item2Vec(SMALL).fit(store, settings).recall(RecallRequests.of(asked, store))
    channel = Item2Vec(SMALL).fit(store, settings)
    parts = []
    for row in reversed(range(len(asked))):
        found = channel.recall(RecallRequests.of(asked[row], store))
        parts.append(found.with_columns(pl.lit(row, pl.UInt32).alias("row")))
    assert len(forth) > 0
    assert pl.concat(parts).sort("row", "rank").equals(forth.sort("row", "rank"))


def test_seed_decides_and_nothing_else() -> None:
    store = store_of(small_log())
    one, same, other = (Item2Vec(Item2VecParams(seed=seed)).fit(store, SHALLOW).table(ms(2_000)) for seed in (0, 0, 1))
    assert one.equals(same)
    assert not one.equals(other)
    assert one["embedding"].arr.to_list().list.eval(pl.element() ** 2).list.sum().to_list() == pytest.approx(
        [1.0] * len(one), abs=0.01
    )


def test_clicks_older_than_the_chain_are_not_laid_out() -> None:
    store = store_of(small_log())
    since = ms(2 * 1_440 + 10)
    pairs = Item2Vec().fit(store, RecallSettings(since=since))._pairs
    assert pairs.step.min() * 3 * HOUR >= since // DAY * DAY - DAY
    assert len(pairs.step) < len(Item2Vec().fit(store, RecallSettings())._pairs.step)
