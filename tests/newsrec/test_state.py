"""What a bundle remembers: folded once a day, written and read, right or refused, and told by train and update."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import pytest

from features.columns import CLICK_KEY, DAY, MINUTE, TIME
from features.events import EventStore
from features.folding import LONGEST_WINDOW, fold
from features.past import SUMMARIES
from features.similarity_facts import LAST_CLICKS
from features.vocabulary import Vocabulary
from newsrec.bundle import read_manifest
from newsrec.data import Log
from newsrec.errors import DataError, UsageError
from newsrec.evaluate import EvaluateConfig, evaluate
from newsrec.history import store_over
from newsrec.rankers import Ranker
from newsrec.recall import CHANNELS, RecallRequests, RecallSettings
from newsrec.serve import Recommender
from newsrec.state import Memory, known_keys, may_be_folded, read_state, refuse_folded, write_state
from newsrec.train import TrainResult
from newsrec.train_config import TrainConfig
from newsrec.update import UpdateConfig, update
from tests.factories import (
    IDS,
    SHALLOW,
    all_features,
    articles_of,
    bits,
    clicks_of,
    impressions_of,
    long_log,
    ms,
    requests_of,
    store_of,
)

HOURLY = RecallSettings(refresh_ms=60 * MINUTE, depth=8)


@dataclass
class Shows:
    """A model whose scores are one of its features."""

    def score(self, features: pl.DataFrame) -> np.ndarray:
        return features["item_clicks_all"].fill_null(0).to_numpy().astype(np.float32)


def recommender(log: Log, store: EventStore, keep_days: int | None) -> Recommender:
    manifest: dict[str, Any] = {
        "candidates": "recall",
        "features": [f.name for f in all_features()],
        "recall": {"channels": list(CHANNELS), "settings": {"refresh_ms": 30 * MINUTE, "depth": 30}, "list_length": 30},
        "state": {"keep_days": keep_days},
    }
    return Recommender(manifest, cast(Ranker, Shows()), Vocabulary.of(log.clicks, 2, log.impressions), store)


def until(log: Log, border: int) -> Log:
    """The log's events before a moment, ms."""
    early = {
        name: frame.filter(frame[time].to_physical() < border)
        for name, frame, time in (
            ("clicks", log.clicks, "clicked_at"),
            ("impressions", log.impressions, "requested_at"),
        )
        if frame is not None
    }
    return replace(log, **early)


@pytest.fixture(scope="module")
def long() -> Log:
    return long_log(5, 2.6)


@pytest.fixture(scope="module")
def folded(long: Log) -> EventStore:
    return Memory.of(4, SHALLOW).folded(store_of(long))


class TestMemory:
    def test_begins_at_midnight_and_is_folded_once_a_day(self, long: Log, folded: EventStore) -> None:
        memory, last = Memory.of(4, SHALLOW), store_of(long).last_event
        assert last is not None
        assert folded.border == (last - 4 * DAY) // DAY * DAY
        assert memory.folded(folded) is folded
        later = clicks_of([(1, 1, (last - ms(0)) / MINUTE + 24 * 60)])
        assert memory.folded(folded.extended(later)).border == folded.border + DAY

    def test_without_days_keeps_all(self, long: Log) -> None:
        store = store_of(long)
        assert Memory.of(None, SHALLOW).folded(store) is store
        assert Memory.of(None, SHALLOW).answers_from(store) is None

    def test_reaches_as_far_as_features_and_channels(self, folded: EventStore) -> None:
        memory = Memory.of(4, HOURLY, history=50)
        assert memory.reach == max(LONGEST_WINDOW, *(make().reach(HOURLY) for make in CHANNELS.values()))
        assert memory.reach >= LONGEST_WINDOW
        assert memory.answers_from(folded) == folded.border + memory.reach  # type: ignore[operator]
        assert (memory.last_clicks, Memory.of(4, HOURLY).last_clicks) == (50, LAST_CLICKS)

    @pytest.mark.parametrize("days", [1, 2])
    def test_too_short_is_refused(self, days: int) -> None:
        with pytest.raises(UsageError, match=rf"--keep-days: expected at least 3, .* found {days}\."):
            TrainConfig(keep_days=days).refuse_contradictions()
        TrainConfig(keep_days=3).refuse_contradictions()

    @pytest.mark.parametrize("ids", IDS)
    def test_is_written_and_read_to_the_last_bit(self, ids: str, tmp_path: Path) -> None:
        log = long_log(6, 2.6, ids=ids)
        store = Memory.of(4, SHALLOW).folded(store_of(log))
        write_state(tmp_path, store, {})
        read = read_state(tmp_path)
        assert (read.border, read.last_clicks) == (store.border, store.last_clicks)
        one, other = store.folded, read.folded
        assert one is not None
        assert other is not None
        assert [bits(one.summaries[name]) for name in SUMMARIES] == [bits(other.summaries[name]) for name in SUMMARIES]
        whole, back = recommender(log, store_of(log), None), recommender(log, read, 4)
        items = log.articles["item_id"].to_list()
        for user in log.clicks["user_id"].unique().sort():
            assert bits(whole.features(user, items)) == bits(back.features(user, items))

    def test_bytes_do_not_grow_with_the_length_of_the_log(self, tmp_path: Path) -> None:
        size = {}
        for eras in (3, 6):
            log = long_log(0, 30.0, eras)
            for name, store in (("whole", store_of(log)), ("folded", Memory.of(4, SHALLOW).folded(store_of(log)))):
                folder = tmp_path / f"{name}-{eras}"
                folder.mkdir()
                write_state(folder, store, {})
                size[name, eras] = sum(p.stat().st_size for p in folder.rglob("*") if p.name != "articles.parquet")
        grown = {name: size[name, 6] - size[name, 3] for name in ("whole", "folded")}
        assert grown["folded"] < 0.25 * grown["whole"]  # pairs of users and articles that met for the first time


def renewed(log: Log) -> Log:
    """Every third article is created in the last half day: some channels propose the young only."""
    born = pl.lit(log.clicks["clicked_at"].max()).cast(TIME) - pl.duration(hours=12)
    created = pl.when(pl.int_range(pl.len()) % 3 == 0).then(born).otherwise("created_at")
    return replace(log, articles=log.articles.with_columns(created.cast(TIME).alias("created_at")))


@pytest.mark.parametrize("name", CHANNELS)
@pytest.mark.parametrize("settings", [SHALLOW, HOURLY, RecallSettings(refresh_ms=7 * MINUTE, depth=40)])
class TestEveryChannel:
    def test_proposes_the_same_from_its_reach_on(self, name: str, settings: RecallSettings, long: Log) -> None:
        whole = store_of(renewed(long))
        last = whole.last_event
        assert last is not None
        channel = CHANNELS[name]()
        reach = channel.reach(settings)
        store = fold(whole, last // DAY * DAY - 3 * DAY, max(channel.last_clicks, 1))
        assert store.border is not None
        users = long.clicks["user_id"].unique().sort()
        moments = [(at - ms(0)) / MINUTE for at in (store.border + reach, store.border + reach + 90 * MINUTE, last + 1)]
        asked = requests_of((user, at, at) for at in moments for user in users)
        found = []
        for each in (whole, store):
            fitted = CHANNELS[name]().fit(each, replace(settings, since=store.border + reach))
            lists = fitted.recall(RecallRequests.of(asked, each))
            ids = lists.with_columns(item=each.items.gather(lists["item"])).sort("row", "rank")
            found.append((bits(ids), bits(fitted.table(last + 1))))
        assert len(found[0][0][0][2]) > 0  # type: ignore[index]
        assert found[0] == found[1]


class TestRecommender:
    def test_folds_as_it_observes_and_answers_as_one_that_keeps_all(self, long: Log) -> None:
        last = store_of(long).last_event
        assert last is not None
        begin = until(long, ms(3 * 24 * 60))
        lives = [recommender(long, store_of(begin), days) for days in (None, 3)]
        borders = []
        steps = np.arange(ms(3 * 24 * 60), last + DAY, 21 * 60 * MINUTE).tolist()
        for low, high in pairwise(steps):
            new = until(long, high)
            for live in lives:
                live.observe(
                    new.clicks.filter(new.clicks["clicked_at"].to_physical() >= low),
                    new.impressions.filter(new.impressions["requested_at"].to_physical() >= low),  # type: ignore[union-attr]
                )
            whole, folding = lives
            borders.append(folding.store.border)
            users = pl.Series([1, 5, 9, 15, -3])
            asked = whole.requests(users, whole.known_until)
            lists = asked.select("request_id").join(long.articles.select("item_id"), how="cross")
            assert bits(whole.recommend_many(asked, 20)) == bits(folding.recommend_many(asked, 20))
            assert bits(whole.rank_many(asked, lists)) == bits(folding.rank_many(asked, lists))
            user = int(users[len(borders) % len(users)])
            items = long.articles["item_id"].to_list()
            assert bits(whole.features(user, items)) == bits(folding.features(user, items))
        assert len(set(borders)) > 4
        assert len(lives[1].store.clicks) < 0.7 * len(lives[0].store.clicks) == 0.7 * len(long.clicks)

    def test_refuses_moments_that_look_behind_the_border(self, long: Log, folded: EventStore) -> None:
        live = recommender(long, folded, 4)
        first = live.answers_from
        assert first is not None
        users = long.clicks["user_id"][:3]
        answered = live.recommend_many(live.requests(users, first), k=3)
        assert len(answered) == 9
        whole = recommender(long, store_of(long), None)
        assert bits(answered) == bits(whole.recommend_many(whole.requests(users, first), k=3))
        for at, statistics in ((first - 1, None), (first, first - 1)):
            asked = live.requests(users, at, statistics)
            for ask in (
                lambda asked=asked: live.recommend_many(asked),
                lambda asked=asked: live.rank_many(asked, asked.select("request_id", item_id=pl.lit(1, pl.Int64))),
            ):
                with pytest.raises(UsageError, match=r"requests: expected moments.* folded away, found .*--keep-days"):
                    ask()

    def test_refuses_events_that_may_be_folded(self, long: Log, folded: EventStore) -> None:
        live = recommender(long, folded, 4)
        for events in ({"clicks": long.clicks[:1]}, {"impressions": long.impressions[:1]}):  # type: ignore[index]
            before = live.store
            with pytest.raises(DataError, match=r"expected events later than those .* folded away .*, found 1 that"):
                live.observe(**events)
            assert live.store is before

    def test_late_events_after_the_border_count(self, long: Log, folded: EventStore) -> None:
        live, whole = recommender(long, folded, 4), recommender(long, store_of(long), None)
        late = clicks_of([(3, 100, (folded.border - ms(0)) / MINUTE + 5.0)])  # type: ignore[operator]
        for each in (live, whole):
            each.observe(late)
        items = long.articles["item_id"].to_list()
        assert bits(whole.features(3, items)) == bits(live.features(3, items))
        assert live.store.last_event == folded.last_event

    def test_with_a_log_that_goes_on_counts_its_earlier_clicks_as_known(self, long: Log, folded: EventStore) -> None:
        """A history in the log repeats what is folded."""
        last = folded.last_event
        assert last is not None
        after = (last - ms(0)) / MINUTE + 60
        clicks = pl.concat([long.clicks, clicks_of([(3, 100, after)])], how="diagonal")
        shown = impressions_of([(3, after - 1, [100, 101])], first=10**6)
        one, other = (store_over(known, clicks, long.articles, shown) for known in (store_of(long), folded))
        live, whole = recommender(long, other, None), recommender(long, one, None)
        items = long.articles["item_id"].to_list()
        at = datetime.fromtimestamp((last + 3 * 60 * MINUTE) / 1000, UTC)
        for user in (1, 2, 3):
            assert bits(whole.features(user, items, at)) == bits(live.features(user, items, at))

    def test_with_a_log_of_its_own_knows_only_that(self, long: Log, folded: EventStore) -> None:
        store = store_over(folded, long.clicks, long.articles, long.impressions)
        assert store.border is None
        assert len(store.clicks) == len(long.clicks)


def test_events_that_may_be_folded_are_those_up_to_the_users_last_folded_one() -> None:
    clicks = clicks_of([(1, n, float(n)) for n in range(8)] + [(2, 1, 0.0)])
    store = fold(EventStore(clicks, articles_of([1])), ms(100))
    asked = clicks_of([(1, 50, 1.0), (1, 50, 2.0), (1, 2, 2.0), (1, 3, 3.0), (2, 1, 0.0), (3, 1, 0.0)])
    assert may_be_folded(asked, store).to_list() == [True, True, True, False, False, False]
    known = known_keys(asked, store.clicks, CLICK_KEY, store)
    assert known.height == 3 + 6
    refuse_folded(asked[3:], "clicks", store)
    with pytest.raises(DataError, match=r"clicks: .* found 3 that are not"):
        refuse_folded(asked, "clicks", store)
    assert not may_be_folded(asked, EventStore(clicks, articles_of([1]))).any()


@pytest.fixture(scope="module")
def rolled(measured: TrainResult, log: Log, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The bundle updated with the last day and, ten days later, the same again: whole, and folded."""
    clicks = [log.clicks.with_columns(pl.col("clicked_at") + pl.duration(days=10 * n)) for n in range(2)]
    shown = [
        log.impressions.with_columns(  # type: ignore[union-attr]
            pl.col("requested_at") + pl.duration(days=10 * n), pl.col("request_id") + 10**6 * n
        )
        for n in range(2)
    ]
    frames = (pl.concat(clicks).unique(CLICK_KEY, maintain_order=True), pl.concat(shown))
    longer = replace(log, clicks=frames[0], impressions=frames[1])
    folder = tmp_path_factory.mktemp("rolled")
    return [
        update(UpdateConfig(measured.run, Path("log"), folder / str(days), keep_days=days), log=longer).run
        for days in (None, 3)
    ]


class TestBundle:
    def test_of_an_update_answers_the_same_from_fewer_rows(self, rolled: list[Path]) -> None:
        whole, folded = (Recommender.load(run) for run in rolled)
        assert len(folded.store.clicks) < 0.9 * len(whole.store.clicks)
        for user in (1, 2, 17, 300, 10**7):
            assert bits(whole.recommend(user, k=30)) == bits(folded.recommend(user, k=30))
        held = [len(recommender.store.tables["shown"]) for recommender in (whole, folded)]
        assert held[1] < 0.9 * held[0]
        tables = [
            {name: f["sha256"] for name, f in read_manifest(run)["files"].items() if name.startswith("recall/")}
            for run in rolled
        ]
        assert tables[0] == tables[1]
        assert [read_manifest(run)["state"]["keep_days"] for run in rolled] == [None, 3]

    def test_is_updated_again_and_keeps_its_days(self, rolled: list[Path], log: Log, tmp_path: Path) -> None:
        last = Recommender.load(rolled[0]).known_until
        more = clicks_of([(1, 1, (last - ms(0)) / MINUTE + 60.0 * n) for n in range(30)])
        shown = impressions_of([(1, (last - ms(0)) / MINUTE + 60.0 * n, [1, 2]) for n in range(30)], first=10**8)
        newer = replace(log, clicks=more, impressions=shown)
        run = update(UpdateConfig(rolled[1], Path("log"), tmp_path / "again"), log=newer).run
        whole, folded = Recommender.load(rolled[0]), Recommender.load(run)
        whole.observe(more, shown)
        assert folded.store.border > Recommender.load(rolled[1]).store.border  # type: ignore[operator]
        assert read_manifest(run)["state"]["keep_days"] == 3
        assert read_manifest(run)["updated_from"]["new_events"] == 60
        for user in (1, 2, 300):
            assert bits(whole.recommend(user, k=30)) == bits(folded.recommend(user, k=30))

    def test_is_not_measured_on_what_is_folded(
        self, rolled: list[Path], log: Log, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The log's clicks are known to both, whether they are still there or folded."""
        monkeypatch.setattr("newsrec.train.read", lambda config: log)
        held = Recommender.load(rolled[1]).store.clicks
        assert len(log.clicks.join(held, on=CLICK_KEY, how="anti")) > 100
        with pytest.raises(DataError, match="found none"):
            evaluate(EvaluateConfig(rolled[1], Path("log")))
