"""A loaded bundle answers as training would have, for anybody, at any moment, and knows nothing of what comes later."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from subprocess import CompletedProcess

import numpy as np
import polars as pl
import pytest

from features.columns import DAY, TIME
from features.events import EventStore
from newsrec.assembly import Assembly, score_lists
from newsrec.bundle import read_manifest
from newsrec.data import Log
from newsrec.errors import DataError, UsageError
from newsrec.recall import RecallSettings
from newsrec.serve import Recommender
from newsrec.slates import SPLITS
from newsrec.split import SplitConfig
from newsrec.train import TrainResult
from tests.factories import START, bits, instant, ms

STRANGER = -5
AT = instant(3_000)


@pytest.fixture(scope="module")
def served(trained: TrainResult) -> Recommender:
    return Recommender.load(trained.run)


def read_before(log: Log, user: int, at: datetime) -> set[int]:
    return set(log.clicks.filter(pl.col("user_id") == user, pl.col("clicked_at") < at)["item_id"])


def requests_at_clicks(log: Log, n: int = 40) -> pl.DataFrame:
    """Requests of `n` clickers and two strangers, numbered backwards, so that order and number differ."""
    chosen = log.clicks.sample(n, seed=1)
    users = [*chosen["user_id"], STRANGER, STRANGER - 1]
    at = [*chosen["clicked_at"], *chosen["clicked_at"][:2]]
    frame = pl.DataFrame({"request_id": range(500, 500 - len(users), -1), "user_id": users, "requested_at": at})
    return frame.with_columns(pl.col("requested_at").cast(TIME), statistics_at=pl.col("requested_at").cast(TIME))


def test_known_user_gets_k_articles_best_first(served: Recommender, log: Log) -> None:
    user = log.clicks["user_id"].mode()[0]
    best = served.recommend(user, k=7)
    assert best.columns == ["item_id", "rank", "score"]
    assert best["rank"].to_list() == list(range(1, 8))
    assert best["item_id"].n_unique() == 7
    assert best["score"].to_list() == sorted(best["score"], reverse=True)


def test_stranger_gets_the_articles_that_are_popular(trained: TrainResult, served: Recommender) -> None:
    popular = pl.read_parquet(trained.run / "recall" / "popular.parquet")
    best = served.recommend(STRANGER)
    assert len(best) == 5
    assert set(best["item_id"]) <= set(popular["item_id"])
    assert bits(best) == bits(served.recommend(STRANGER - 1))


def test_moment_left_out_is_the_instant_after_the_last_event(served: Recommender, log: Log) -> None:
    last = log.clicks["clicked_at"].max()
    assert isinstance(last, datetime)
    assert served.known_until == round(last.timestamp() * 1000) + 1
    user = log.clicks["user_id"][-1]
    just_after = served.recommend(user, at=last + timedelta(milliseconds=1))
    assert bits(served.recommend(user)) == bits(just_after)
    assert log.clicks["item_id"][-1] not in served.recommend(user, k=100)["item_id"]


def test_nothing_that_was_read_and_nothing_that_does_not_exist_yet(served: Recommender, log: Log) -> None:
    created = dict(log.articles.select("item_id", "created_at").iter_rows())
    asked = requests_at_clicks(log)
    found = served.recommend_many(asked, k=50)
    assert len(found) > 1_500
    for request, user, at, _ in asked.iter_rows():
        items = found.filter(pl.col("request_id") == request)["item_id"].to_list()
        assert not set(items) & read_before(log, user, at)
        assert all(created[item] < at for item in items)


def test_what_happens_later_changes_nothing(served: Recommender, log: Log) -> None:
    """To the last bit, with k far beyond what recall finds, so that the filled places are looked at as well."""
    at = log.clicks["clicked_at"].quantile(0.6)
    past = served.with_log(log.clicks.filter(pl.col("clicked_at") < at), log.articles)
    whole = served.with_log(log.clicks, log.articles)
    moment = ms((at - START).total_seconds() / 60)
    users = pl.Series("user_id", [*log.clicks["user_id"].unique().sort().head(20), STRANGER])
    one, two = (r.recommend_many(r.requests(users, moment), k=300) for r in (past, whole))
    assert one["score"].null_count() > 0
    assert bits(one) == bits(two)


def test_more_articles_than_there_are_gives_all_there_are(served: Recommender, log: Log) -> None:
    user = log.clicks["user_id"][-1]
    at = datetime.fromtimestamp(served.known_until / 1000, UTC)
    exist = set(log.articles.filter(pl.col("created_at") < at)["item_id"]) | set(log.clicks["item_id"])
    best = served.recommend(user, k=10_000)
    assert best["rank"].to_list() == list(range(1, len(best) + 1))
    assert set(best["item_id"]) == exist - read_before(log, user, at)
    assert best["item_id"].n_unique() == len(best)


def test_single_request_gets_the_bits_of_the_batch(trained: TrainResult, served: Recommender, log: Log) -> None:
    asked = requests_at_clicks(log)
    batch = served.recommend_many(asked, k=20)
    fresh = Recommender.load(trained.run)
    for place in [*range(0, len(asked), 6), len(asked) - 1]:
        alone = fresh.recommend_many(asked[place], k=20)
        assert bits(alone) == bits(batch.filter(pl.col("request_id") == asked["request_id"][place]))


def test_order_of_the_requests_is_kept(served: Recommender, log: Log) -> None:
    asked = requests_at_clicks(log)
    turned = asked[np.random.default_rng(0).permutation(len(asked))]
    found = served.recommend_many(turned, k=3)
    assert found["request_id"].to_list() == [number for number in turned["request_id"] for _ in range(3)]
    assert found["rank"].to_list() == [1, 2, 3] * len(turned)
    users = found.unique("request_id", maintain_order=True)["user_id"]
    assert users.to_list() == turned["user_id"].to_list()
    assert bits(found.sort("request_id", "rank")) == bits(served.recommend_many(asked, k=3).sort("request_id", "rank"))


@pytest.mark.parametrize("many", [1, 10_000])
def test_requests_in_many_chunks_are_answered_as_in_one(
    served: Recommender, log: Log, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = requests_at_clicks(log)
    whole = served.recommend_many(asked)
    monkeypatch.setattr("newsrec.assembly.CHUNK_REQUESTS", 7)
    monkeypatch.setattr("newsrec.assembly.MANY_REQUESTS", many)
    assert bits(served.recommend_many(asked)) == bits(whole)


def test_pandas_requests_are_those_of_polars(served: Recommender, log: Log) -> None:
    asked = requests_at_clicks(log, 5)
    columns = {name: asked[name].to_numpy() for name in asked.columns}
    pandas = pytest.importorskip("pandas").DataFrame(columns)
    assert bits(served.recommend_many(pandas)) == bits(served.recommend_many(asked))


@pytest.mark.parametrize("explain", [False, True])
def test_no_requests_give_a_table_with_the_same_columns(served: Recommender, log: Log, explain: bool) -> None:
    asked = requests_at_clicks(log, 2)
    none = served.recommend_many(asked.clear(), explain=explain)
    assert none.is_empty()
    assert none.schema == served.recommend_many(asked, explain=explain).schema


def test_scores_are_those_of_training(trained: TrainResult, served: Recommender, log: Log) -> None:
    """Training's way, from the log alone: its own store, recall without a `since`, its own code for whole lists."""
    store = EventStore(log.clicks, log.articles, log.impressions)
    split = SPLITS["recall"](log, store, SplitConfig())
    manifest = served.manifest
    settings = RecallSettings(**manifest["recall"]["settings"])
    channels = manifest["recall"]["channels"]
    assembly = Assembly.of(store, channels, settings, served.vocabulary, manifest["features"])
    asked = split.part("test").sample(200, seed=0)
    rows = score_lists(assembly, assembly.described(asked, split.positives), served.ranker.score).rows
    best = rows.sort("request_id", "score", "item_id", descending=[False, True, False]).group_by(
        "request_id", maintain_order=True
    )
    expected = best.head(10).select("request_id", "item_id", "score")
    found = served.recommend_many(asked, k=10).filter(pl.col("score").is_not_null())
    assert len(found) > 1_500
    assert bits(found.sort("request_id", "rank").select(expected.columns)) == bits(expected)


def test_data_after_the_last_event_continues_the_state(measured: TrainResult, log: Log) -> None:
    bundle = Recommender.load(measured.run)
    known = len(bundle.store.clicks)
    later = log.clicks.filter(pl.col("clicked_at").to_physical() >= bundle.known_until)
    shown = log.impressions.filter(pl.col("requested_at").to_physical() >= bundle.known_until)
    continued = bundle.with_log(later, log.articles, shown)
    assert len(continued.store.impressions) == len(log.impressions)
    assert len(continued.store.clicks) == known + len(later) == len(log.clicks)
    assert len(bundle.store.clicks) == known
    user = later["user_id"].mode()[0]
    replayed = bundle.with_log(log.clicks, log.articles, log.impressions)
    assert bits(continued.recommend(user, k=20)) == bits(replayed.recommend(user, k=20))


def test_repeated_event_counts_once_where_data_continues(measured: TrainResult, log: Log) -> None:
    bundle = Recommender.load(measured.run)
    later = log.clicks.filter(pl.col("clicked_at").to_physical() >= bundle.known_until)
    once, twice = (bundle.with_log(clicks, log.articles) for clicks in (later, pl.concat([later, later])))
    assert bits(once.store.clicks) == bits(twice.store.clicks)


def test_data_that_overlaps_stands_alone(measured: TrainResult, log: Log) -> None:
    """One event of the data at the state's last instant is enough: an event known to both then counts once."""
    bundle = Recommender.load(measured.run)
    overlap = log.clicks.filter(pl.col("clicked_at").to_physical() >= bundle.known_until - 1)
    alone = bundle.with_log(overlap, log.articles)
    assert bits(alone.store.clicks) == bits(overlap)
    assert len(overlap) < len(log.clicks) - len(bundle.store.clicks) + 5


def test_no_clicks_leave_the_state_and_articles_of_the_data_come_first(served: Recommender, log: Log) -> None:
    new = log.articles[:1].with_columns(words=pl.lit(4_321, pl.Int32))
    changed = served.with_log(log.clicks.clear(), new)
    assert bits(changed.store.clicks) == bits(served.store.clicks)
    assert len(changed.store.articles) == len(served.store.articles)
    assert changed.store.articles.filter(item_id=new["item_id"][0])["words"].to_list() == [4_321]


@pytest.mark.parametrize("name", ["user_id", "item_id"])
def test_ids_of_another_kind_are_refused(served: Recommender, log: Log, name: str) -> None:
    text = log.clicks.with_columns(pl.col(name).cast(pl.String))
    with pytest.raises(DataError, match=f"found {name}: Int64 in the bundle, String in the data"):
        served.with_log(text, log.articles)
    articles = log.articles.with_columns(pl.col("item_id").cast(pl.String))
    with pytest.raises(DataError, match="found item_id: Int64 in the bundle, String in the data"):
        served.with_log(log.clicks, articles)


def test_later_request_after_an_earlier_one_and_the_other_way_round(trained: TrainResult, log: Log) -> None:
    """The channels are kept between calls and prepared anew for an earlier moment; the answers must not notice."""
    early, late = (round(log.clicks["clicked_at"].quantile(q).timestamp() * 1_000) for q in (0.5, 0.99))
    user = pl.Series("user_id", log.clicks["user_id"].mode())[:1]
    one, two = Recommender.load(trained.run), Recommender.load(trained.run)
    first = [bits(one.recommend_many(one.requests(user, at))) for at in (early, late)]
    second = [bits(two.recommend_many(two.requests(user, at))) for at in (late, early)]
    assert first == second[::-1]
    assert first[0] != first[1]


def test_frozen_statistics_end_at_the_border_and_own_clicks_do_not(served: Recommender, log: Log) -> None:
    user = log.clicks["user_id"].mode()[0]
    users = pl.Series("user_id", [user])
    border = served.known_until - DAY
    asked = served.requests(users, served.known_until, border)
    assert asked["statistics_at"].to_physical().to_list() == [border]
    assert served.requests(users, border - 5, border)["statistics_at"].to_physical().to_list() == [border - 5]
    frozen = served.recommend_many(asked, k=20)
    live = served.recommend_many(served.requests(users, served.known_until), k=20)
    assert frozen["item_id"].to_list() != live["item_id"].to_list()
    at = datetime.fromtimestamp(served.known_until / 1000, UTC)
    assert not set(frozen["item_id"]) & read_before(log, user, at)


def test_serving_loads_neither_networks_nor_studies_nor_charts(
    trained: TrainResult, python: Callable[..., "CompletedProcess[str]"]
) -> None:
    code = (
        "import sys; from newsrec.serve import Recommender; "
        f"print(len(Recommender.load({str(trained.run)!r}).recommend(1, k=5))); "
        "print([m for m in ('torch', 'optuna', 'matplotlib', 'plotly', 'tuning') if m in sys.modules])"
    )
    done = python("-c", code)
    assert done.stdout.split("\n")[:2] == ["5", "[]"], done.stderr


def test_probabilities_are_those_of_the_served_order(served: Recommender, log: Log) -> None:
    user, items = log.clicks["user_id"][0], served.store.items[:60].to_list()
    scores, chances = served.rank(user, items), served.probabilities(user, items)
    assert np.all((chances > 0) & (chances < 1))
    assert np.all(np.diff(chances[np.argsort(scores)]) >= 0)
    again = served.with_log(log.clicks.clear(), log.articles).probabilities(user, items)
    np.testing.assert_array_equal(chances, again)


def test_probabilities_of_an_order_that_was_not_calibrated_are_refused(reranked: TrainResult, log: Log) -> None:
    """The bundle's calibrator is of the order that training found best, not of the other."""
    on = read_manifest(reranked.run)["reranker"]["on"]
    best, other = (Recommender.load(reranked.run, reranker=switch) for switch in (on, not on))
    items = best.store.items[:5].to_list()
    assert len(best.probabilities(log.clicks["user_id"][0], items)) == 5
    with pytest.raises(UsageError, match="probabilities: expected a bundle whose served order was calibrated"):
        other.probabilities(log.clicks["user_id"][0], items)
