"""The channel `two_tower`: what it learns of a planted world, what the correction is for, and how far models look."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from features.articles import UNIT
from features.columns import DAY, HOUR
from features.events import EventStore
from newsrec.recall import RecallRequests, RecallSettings
from newsrec.recall.tower_chain import NONE, Training, TwoTowerParams
from newsrec.recall.two_tower import TwoTower
from tests.factories import SHALLOW, articles_of, clicks_of, log_of, ms, requests_for, requests_of, small_log, store_of

SMALL = TwoTowerParams(dim=8, hidden=8, min_pairs=1, epochs=20, batch=32)
SETTINGS = RecallSettings(refresh_ms=HOUR // 2, depth=8)
HIT, THREADS = 500, [range(10 * n + 1, 10 * n + 6) for n in range(8)]
"""The article that readers of all threads go on to, and eight threads with readers of their own."""


def skewed(readers: int = 800) -> list[tuple[int, int, float]]:
    """Readers begin in a thread; then two of five read the hit, and the others the next article of the thread."""
    rng, rows = np.random.default_rng(0), []
    for user in range(readers):
        first, second = rng.permutation(THREADS[user % 8])[:2].tolist()
        rows += [(user, first, user / 2), (user, HIT if user % 5 < 2 else second, user / 2 + 0.3)]
    return rows


def places_of_the_hit(params: TwoTowerParams) -> list[int]:
    """Where new readers of one article of each thread find the hit, the best place first."""
    newcomers = [(1_000 + n, thread[0], 500.0) for n, thread in enumerate(THREADS)]
    store = store_of(log_of(clicks_of([*skewed(), *newcomers])))
    asked = RecallRequests.of(requests_of([(user, 600.0, 600.0) for user, _, _ in newcomers]), store)
    found = TwoTower(params).fit(store, replace(SETTINGS, depth=40)).recall(asked)
    return sorted(found.filter(pl.col("item") == store.item_codes(pl.Series([HIT]))[0])["rank"].to_list())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_correction_gives_what_everybody_reads_its_place(seed: int) -> None:
    """Two of five readers go on to the hit, and three to one of four: without it, what is frequent is held down."""
    params = replace(SMALL, seed=seed, epochs=5, batch=128)
    corrected, plain = (places_of_the_hit(replace(params, logq=logq)) for logq in (True, False))
    assert len(corrected) == len(plain) == len(THREADS)
    assert np.mean(corrected) < 2.5
    assert np.mean(plain) > 4


def test_model_is_as_new_as_its_step() -> None:
    store = store_of(log_of(clicks_of([(1, 7, 29.0), (1, 8, 29.9), (2, 5, 30.0), (2, 6, 31.0)])))
    channel = TwoTower(SMALL).fit(store, SETTINGS)
    known = {at: sorted(channel.table(ms(at))["item_id"]) for at in (29.9, 30.0, 59.9, 60.0)}
    assert known == {29.9: [], 30.0: [8], 59.9: [8], 60.0: [6, 8]}


def test_chain_forgets_what_was_read_before_yesterday_and_the_pool_what_nobody_reads() -> None:
    rows = [(1, 7, -100.0), (1, 8, -99.0), (2, 5, 100.0), (2, 6, 101.0), (3, 3, 3 * 1_440.0)]
    store = store_of(log_of(clicks_of(rows), articles_of([3])))
    channel = TwoTower(replace(SMALL, pool_hours=48.0)).fit(store, SETTINGS)
    brief = TwoTower(replace(SMALL, pool_hours=4.0)).fit(store, SETTINGS)
    for day, (read, proposed) in enumerate([([5, 6, 7, 8], [6, 8]), ([5, 6], [6]), ([], [])]):
        at = ms(day * 1_440 + 600)
        assert sorted(channel.reading(at)[0]) == read
        assert sorted(channel.table(at)["item_id"]) == proposed
        assert not len(brief.table(at))
    assert sorted(brief.table(ms(120))["item_id"]) == [6, 8]


@pytest.mark.parametrize(
    ("minutes", "decides", "idle"), [(1_440, "first_epochs", "epochs"), (300, "epochs", "first_epochs")]
)
def test_day_before_is_passed_over_by_itself(minutes: int, decides: str, idle: str) -> None:
    """At midnight all was learned from the day before; on the day itself nothing was."""
    store = store_of(log_of(clicks_of([(1, 7, 60.0), (1, 8, 61.0), (2, 5, 70.0), (2, 6, 71.0)])))
    base = replace(SMALL, epochs=1, first_epochs=1, pool_hours=48.0, rate=0.01)
    once, often, same = (
        TwoTower(params).fit(store, SETTINGS).table(ms(minutes))
        for params in (base, replace(base, **{decides: 9}), replace(base, **{idle: 9}))
    )
    assert len(once) == 2
    assert once.equals(same)
    assert not once.equals(often)


def test_article_in_few_pairs_is_unknown() -> None:
    rows = [(1, 7, 0.0), (1, 8, 1.0), (2, 7, 0.0), (2, 8, 1.0), (3, 7, 0.0), (3, 6, 1.0)]
    channel = TwoTower(replace(SMALL, min_pairs=2)).fit(store_of(log_of(clicks_of(rows))), SETTINGS)
    assert channel.reading(ms(60))[0].to_list() == [7, 8]
    assert channel.table(ms(60))["item_id"].to_list() == [8]


def test_reader_whom_the_model_does_not_know_gets_nothing() -> None:
    rows = [*skewed(60), (900, 77, 70.0)]
    store = store_of(log_of(clicks_of(rows)))
    asked = requests_of([(900, 90.0, 90.0), (901, 90.0, 90.0), (1, 90.0, 90.0)])
    found = TwoTower(SMALL).fit(store, SETTINGS).recall(RecallRequests.of(asked, store))
    assert found["row"].unique().to_list() == [2]


def test_score_is_the_cosine() -> None:
    rows = [*skewed(90), (900, 3, 110.0), (900, HIT, 111.0)]
    store = store_of(log_of(clicks_of(rows)))
    channel = TwoTower(SMALL).fit(store, SETTINGS)
    found = channel.recall(RecallRequests.of(requests_of([(900, 115.0, 115.0)]), store))
    ids, tower = channel.reading(ms(115))
    history = [ids.to_list().index(item) for item in (HIT, 3)]
    u = tower.vectors(np.array([[*history, NONE, NONE, NONE]]))[0] / UNIT
    table = dict(channel.table(ms(115)).iter_rows())
    assert HIT in table
    scores = dict(zip(store.items.gather(found["item"]), found["score"], strict=True))
    assert set(scores) <= set(table) - {HIT, 3}
    assert scores == pytest.approx({item: float(np.dot(u, table[item])) for item in scores}, abs=1e-6)
    assert len(scores) > 3


def test_examples_are_clicks_after_others_of_what_was_not_read_just_before() -> None:
    rows = [(1, item, float(minute)) for minute, item in enumerate((7, 7, 8, 6, 5))]
    store = store_of(log_of(clicks_of(rows)))
    examples = Training(store, SETTINGS, replace(SMALL, history=2))._examples
    five, six, seven, eight = range(4)
    assert examples.target.tolist() == [eight, six, five]
    assert examples.history.tolist() == [[seven, seven], [eight, seven], [six, eight]]


def test_order_in_which_models_are_asked_for_does_not_change_a_bit() -> None:
    log = small_log(2)
    store = store_of(log)
    asked = requests_for(log).sort("requested_at")
    forth = TwoTower(SMALL).fit(store, SHALLOW).recall(RecallRequests.of(asked, store))
    channel = TwoTower(SMALL).fit(store, SHALLOW)
    parts = []
    for row in reversed(range(0, len(asked), 7)):
        found = channel.recall(RecallRequests.of(asked[row], store))
        parts.append(found.with_columns(pl.lit(row, pl.UInt32).alias("row")))
    assert len(forth) > 0
    assert pl.concat(parts).sort("row", "rank").equals(forth.filter(pl.col("row") % 7 == 0).sort("row", "rank"))


def test_seed_decides_and_nothing_else() -> None:
    store = store_of(small_log())
    one, same, other = (TwoTower(replace(SMALL, seed=seed)).fit(store, SHALLOW).table(ms(2_000)) for seed in (0, 0, 1))
    assert one.equals(same)
    assert not one.equals(other)
    lengths = np.linalg.norm(one["embedding"].to_numpy(), axis=1)
    np.testing.assert_allclose(lengths, 1, atol=0.01)


def test_clicks_older_than_the_chain_are_not_laid_out() -> None:
    store, since = store_of(small_log()), ms(2 * 1_440 + 10)
    late = Training(store, RecallSettings(since=since), SMALL)._examples
    assert late.step.min() * HOUR / 2 >= since // DAY * DAY - DAY
    assert 0 < len(late.step) < len(Training(store, RecallSettings(), SMALL)._examples.step)


def test_embedding_and_category_tell_articles_apart_that_have_the_same_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors of their own switched off, readers of one kind of article are still proposed that kind."""
    rng = np.random.default_rng(0)
    kind = {item: item % 2 for item in range(1, 31)}
    rows = []
    for user in range(300):
        own = [item for item in kind if kind[item] == user % 2]
        rows += [(user, int(item), user + n / 4) for n, item in enumerate(rng.permutation(own)[:3])]
    articles = {
        "category": articles_of(list(kind), category=[f"c{kind[i]}" for i in kind]),
        "embedding": articles_of(list(kind)).with_columns(
            pl.Series("embedding", [[1.0, 0.2] if kind[i] else [0.2, 1.0] for i in kind], dtype=pl.Array(pl.Float32, 2))
        ),
    }
    step = "newsrec.recall.tower_chain.descend"

    def without_own(weights: dict, squares: dict, slope: dict, met: np.ndarray, rate: float) -> None:  # type: ignore[type-arg]
        weights["article"][:] = 0
        for name in set(slope) - {"article"}:
            squares[name] += slope[name] ** 2
            weights[name] -= np.float32(rate) * slope[name] / np.sqrt(squares[name])

    monkeypatch.setattr(step, without_own)
    for frame in articles.values():
        store = EventStore(clicks_of([*rows, (900, 1, 320.0), (901, 2, 320.0)]), frame)
        asked = RecallRequests.of(requests_of([(900, 400.0, 400.0), (901, 400.0, 400.0)]), store)
        found = TwoTower(SMALL).fit(store, SETTINGS).recall(asked)
        assert len(found) == 16
        item = store.items.gather(found["item"]).to_numpy()
        assert (item % 2 == 1 - found["row"].to_numpy()).all()
