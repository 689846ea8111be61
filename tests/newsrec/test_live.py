"""A running recommender that observes event after event knows, to the last bit, what a bundle over everything knows."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from features.columns import HOUR, MINUTE, REQUEST_CONTEXT, TIME
from features.events import EventStore, milliseconds
from newsrec.assembly import Assembly
from newsrec.data import Log
from newsrec.errors import DataError, UsageError
from newsrec.live import Live
from newsrec.progress import Silent, Step
from newsrec.recall import RecallSettings
from newsrec.serve import WITHDRAWN, Recommender
from newsrec.slates import OF_REQUEST, canonical_requests, requests_of, slates_of
from newsrec.split import SplitConfig
from newsrec.train import train
from newsrec.train_config import TrainConfig
from tests.conftest import FEW_TREES
from tests.factories import bits, rich_log

STRANGER, READER = -5, -70
NEWS, SECTION = 77_777, 4_321
"""An article and a category that no log has."""


def at_of(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1_000, UTC)


def between(frame: pl.DataFrame, name: str, start: int, end: int) -> pl.DataFrame:
    """Events of `[start, end)`, ms."""
    return frame.filter(pl.col(name).to_physical().is_between(start, end, closed="left"))


def clicks_at(ms: int, users: list[int], item: int) -> pl.DataFrame:
    moment = pl.Series([ms] * len(users)).cast(TIME)
    return pl.DataFrame({"user_id": users, "item_id": [item] * len(users), "clicked_at": moment})


def lists_at(ms: int, first: int, users: list[int], items: list[int]) -> pl.DataFrame:
    """A list of these items for each user; requests are numbered from `first`."""
    rows = [(first + n, user, ms, item) for n, user in enumerate(users) for item in items]
    frame = pl.DataFrame(rows, schema=["request_id", "user_id", "requested_at", "item_id"], orient="row")
    return frame.with_columns(pl.col("requested_at").cast(TIME))


@dataclass(frozen=True)
class Replay:
    """A bundle, the log it is asked about, and how much of the log it knows at first."""

    run: Path
    log: Log
    since: int
    """The first moment to be replayed, ms."""
    every: int
    """Asked at each so many-th list."""

    @property
    def asked(self) -> pl.DataFrame:
        rows = requests_of(self.log.impressions).filter(pl.col("time") >= self.since)
        return rows.gather_every(self.every)

    def begin(self) -> Recommender:
        """What was known before the replay; articles come as they are written."""
        bundle, log = Recommender.load(self.run), self.log
        store = EventStore(
            between(log.clicks, "clicked_at", 0, self.since),
            self.articles(-1, self.since),
            between(log.impressions, "requested_at", 0, self.since),
        )
        return Recommender(bundle.manifest, bundle.ranker, bundle.vocabulary, store)

    def articles(self, start: int, end: int) -> pl.DataFrame:
        """Articles that are told of in `(start, end]`: when they are made, or where that is earlier first met."""
        met = pl.concat(
            frame.select("item_id", pl.col(time).to_physical().alias("met"))
            for frame, time in ((self.log.clicks, "clicked_at"), (self.log.impressions, "requested_at"))
        )
        first = met.group_by("item_id").agg(pl.col("met").min())
        known = pl.min_horizontal(pl.col("created_at").to_physical().fill_null(0), "met")
        told = self.log.articles.join(first, on="item_id", how="left", maintain_order="left")
        return told.filter(known.is_between(start, end, closed="right")).drop("met")

    def feed(self, live: Recommender, start: int, end: int) -> None:
        """All of `[start, end)` in three steps of equal length, clicks and lists by turns in one call and in two."""
        steps = np.linspace(start, end, 4).astype(np.int64).tolist()
        for number, (low, high) in enumerate(pairwise(steps)):
            clicks = between(self.log.clicks, "clicked_at", low, high)
            shown = between(self.log.impressions, "requested_at", low, high)
            if number % 2:
                live.observe(clicks=clicks)
                live.observe(impressions=shown, articles=self.articles(low, high))
            else:
                live.observe(clicks, shown, self.articles(low, high))

    def whole(self) -> tuple[Recommender, Assembly, pl.DataFrame, pl.DataFrame]:
        """The bundle over the whole log, and training's own way to features: recall without a `since`."""
        log, bundle = self.log, Recommender.load(self.run)
        store = EventStore(log.clicks, log.articles, log.impressions)
        requests = canonical_requests(self.asked, store)
        slates = slates_of(log.impressions, requests)
        recall = bundle.manifest["recall"]
        assembly = Assembly.of(
            store,
            recall["channels"],
            RecallSettings(**recall["settings"]),
            bundle.vocabulary,
            bundle.manifest["features"],
            slates=slates,
        )
        over = Recommender(bundle.manifest, bundle.ranker, bundle.vocabulary, store)
        return over, assembly, requests, slates


@pytest.fixture(scope="module")
def replay(request: pytest.FixtureRequest, log: Log, tmp_path_factory: pytest.TempPathFactory) -> Replay:
    """`recall` and `slate` over the simulated log's last day; `rich` with context, ties, pages and both at once."""
    if request.param == "rich":
        rich = rich_log(2)
        out = tmp_path_factory.mktemp("live") / "rich"
        params = {**FEW_TREES, "trees": 5, "min_data_in_leaf": 2}
        split = SplitConfig(test_days=0.5, valid_days=0.5)
        config = TrainConfig(
            out=out, params=params, split=split, candidates="slate", recall=("popular", "itemcf"), refit=False
        )
        first = int(milliseconds(rich.impressions["requested_at"]).min())
        return Replay(train(config, log=rich).run, rich, first + 6 * HOUR, 1)
    run = request.getfixturevalue({"recall": "measured", "slate": "on_slates"}[request.param]).run
    return Replay(run, log, Recommender.load(run).known_until, 50)


@pytest.mark.parametrize("replay", ["recall", "slate", "rich"], indirect=True)
def test_replay_has_the_features_of_the_batch_to_the_last_bit(replay: Replay) -> None:
    live = replay.begin()
    over, assembly, requests, slates = replay.whole()
    candidates, _ = assembly.lists(requests)
    batch = assembly.describe(candidates, requests)
    assert batch.columns == live.manifest["features"]
    known, compared = replay.since, 0
    for request in requests.iter_rows(named=True):
        moment = round(request["requested_at"].timestamp() * 1_000)
        replay.feed(live, known, moment)
        known = max(known, moment)
        items = slates.filter(request_id=request["request_id"])["item_id"]
        context = {name: request[name] for name in OF_REQUEST if name in requests.columns}
        found = live.features(request["user_id"], items.to_list(), request["requested_at"], context)
        expected = batch.filter(candidates["request_id"] == request["request_id"])
        wrong = [name for name in batch.columns if bits(found.select(name)) != bits(expected.select(name))]
        assert not wrong, (request["impression_id"], wrong)
        asked = pl.DataFrame([request], schema=requests.schema)
        best = over.recommend_many(asked.drop("split", "positives", "history_clicks"), k=20)
        if not context:  # `recommend` takes none
            own = live.recommend(request["user_id"], request["requested_at"], k=20)
            assert bits(own) == bits(best.select(own.columns))
        compared += len(found)
    assert compared > 250
    # Columns that are all null or all the same would compare nothing.
    told = [name for name in batch.columns if batch[name].n_unique() > 1]
    assert len(told) > 0.7 * len(batch.columns), sorted(set(batch.columns) - set(told))


@pytest.mark.parametrize("replay", ["recall", "slate"], indirect=True)
def test_at_the_end_it_answers_as_a_bundle_over_the_whole_log(replay: Replay) -> None:
    live, log = replay.begin(), replay.log
    replay.feed(live, replay.since, 2**42)
    whole = Recommender.load(replay.run).with_log(log.clicks, log.articles, log.impressions)
    assert live.known_until == whole.known_until
    assert (len(live.store.clicks), len(live.store.impressions)) == (len(log.clicks), len(log.impressions))
    items = log.articles["item_id"].sample(30, seed=1).to_list()
    for user in [*log.clicks["user_id"].unique().sort().gather_every(100), STRANGER]:
        assert bits(live.recommend(user, k=30)) == bits(whole.recommend(user, k=30))
        assert live.rank(user, items).tobytes() == whole.rank(user, items).tobytes()
        assert live.explain(user, items).equals(whole.explain(user, items))


@pytest.fixture
def live(measured: object) -> Recommender:
    """Knows all but the last day."""
    return Recommender.load(measured.run)  # type: ignore[attr-defined]


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with each fit of the recall tables."""
    seen: list[int] = []
    fit = Live._fit

    def counted(self: Live, since: int, proposing: bool) -> Assembly:
        seen.append(since)
        return fit(self, since, proposing)

    monkeypatch.setattr(Live, "_fit", counted)
    return seen


class TestEvents:
    def test_that_repeat_count_once_and_make_nothing_stale(self, live: Recommender, log: Log, fits: list[int]) -> None:
        start, user = live.known_until, log.clicks["user_id"][-1]
        clicks = between(log.clicks, "clicked_at", start, start + 3 * HOUR)
        shown = between(log.impressions, "requested_at", start, start + 3 * HOUR)
        live.observe(clicks, shown)
        store, before = live.store, bits(live.recommend(user))
        asked = len(fits)
        live.observe(clicks.sample(fraction=1, shuffle=True, seed=0), shown)
        live.observe(clicks=clicks[:5])
        live.observe(impressions=shown[:40])
        assert live.store is store
        assert bits(live.recommend(user)) == before
        assert len(fits) == asked

    def test_that_come_late_count_as_if_they_had_come_in_time(self, live: Recommender, log: Log) -> None:
        start = live.known_until
        late, early = (
            (
                between(log.clicks, "clicked_at", low, low + 2 * HOUR),
                between(log.impressions, "requested_at", low, low + 2 * HOUR),
            )
            for low in (start + 2 * HOUR, start)
        )
        user, items = late[0]["user_id"][0], log.articles["item_id"].sample(25, seed=3).to_list()
        live.observe(*late)
        first = live.rank(user, items)
        live.observe(*early)
        whole = live.with_log(
            between(log.clicks, "clicked_at", 0, start + 4 * HOUR),
            log.articles,
            between(log.impressions, "requested_at", 0, start + 4 * HOUR),
        )
        assert live.rank(user, items).tobytes() == whole.rank(user, items).tobytes()
        assert live.rank(user, items).tobytes() != first.tobytes()
        assert bits(live.features(user, items)) == bits(whole.features(user, items))
        assert bits(live.recommend(user, k=50)) == bits(whole.recommend(user, k=50))

    def test_of_clicked_rows_are_clicks_only_where_asked(self, live: Recommender, log: Log) -> None:
        start = live.known_until
        shown = between(log.impressions, "requested_at", start, start + HOUR)
        known = len(live.store.clicks)
        live.observe(impressions=shown)
        assert len(live.store.clicks) == known
        live.observe(impressions=shown, clicked_rows=True)
        assert len(live.store.clicks) == known + shown["clicked"].sum() > known
        assert live.store.last_event == int(milliseconds(shown["requested_at"]).max())
        live.observe(impressions=shown, clicked_rows=True)
        assert len(live.store.clicks) == known + shown["clicked"].sum()

    def test_of_lists_and_of_clicks_in_other_calls_count_once(self, live: Recommender, log: Log) -> None:
        """Lists as a log has them, their clicks some seconds later: each click stands once, at its own time."""
        start = live.known_until
        shown = between(log.impressions, "requested_at", start, start + 3 * HOUR)
        clicks = between(log.clicks, "clicked_at", start, start + 4 * HOUR)
        both = shown.filter("clicked").join(clicks, on=["user_id", "item_id"])
        assert (both["clicked_at"] != both["requested_at"]).any()
        known = len(live.store.clicks)
        live.observe(impressions=shown)
        live.observe(clicks=clicks)
        live.observe(impressions=shown)
        assert len(live.store.clicks) == known + len(clicks)
        item = both["item_id"].mode()[0]
        times = clicks.filter(item_id=item)["clicked_at"].sort().to_list()
        assert (
            live.store.clicks.filter(pl.col("item_id") == item)
            .sort("clicked_at")["clicked_at"][-len(times) :]
            .to_list()
            == times
        )

    @pytest.mark.parametrize("first", ["clicks", "clicked_rows"])
    def test_told_in_one_way_are_not_taken_in_the_other(self, live: Recommender, log: Log, first: str) -> None:
        start = live.known_until
        shown = between(log.impressions, "requested_at", start, start + HOUR)
        clicks = between(log.clicks, "clicked_at", start, start + HOUR)
        ways: dict[str, Callable[[], None]] = {
            "clicks": lambda: live.observe(clicks=clicks, impressions=shown),
            "clicked_rows": lambda: live.observe(impressions=shown, clicked_rows=True),
        }
        second = next(name for name in ways if name != first)
        with pytest.raises(UsageError, match="expected clicks in one way, as they would count twice in two"):
            live.observe(clicks, shown, clicked_rows=True)
        ways[first]()
        store = live.store
        with pytest.raises(UsageError, match=f"found '{second}' after '{first}'"):
            ways[second]()
        assert live.store is store
        ways[first]()
        live.observe(clicks.clear(), shown)

    def test_of_clicked_rows_need_to_say_what_was_clicked(self, live: Recommender, log: Log) -> None:
        with pytest.raises(DataError, match=r"impressions: expected columns .* \['clicked'\] are missing"):
            live.observe(impressions=log.impressions.drop("clicked"), clicked_rows=True)

    def test_of_strangers_make_them_readers(self, live: Recommender, log: Log) -> None:
        item = log.clicks["item_id"].mode()[0]
        live.observe(clicks_at(live.known_until, [STRANGER], item))
        assert live.features(STRANGER, [item])["user_item_clicks"].to_list() == [1.0]
        assert item not in live.recommend(STRANGER, k=10_000)["item_id"]

    def test_that_are_none_change_nothing(self, live: Recommender, log: Log) -> None:
        store = live.store
        live.observe()
        live.observe(log.clicks.clear(), log.impressions.clear(), log.articles.clear())
        assert live.store is store


class TestRefreshes:
    def test_stale_tables_are_fitted_when_a_refresh_is_due_and_only_then(
        self, live: Recommender, log: Log, fits: list[int]
    ) -> None:
        grid = -(-live.known_until // (30 * MINUTE)) * 30 * MINUTE
        item = log.clicks["item_id"][-1]

        def ask(minutes: float) -> int:
            live.recommend(STRANGER, at=at_of(grid + round(minutes * MINUTE)))
            return len(fits)

        assert ask(1) == 1
        assert ask(40) == 1  # the next refresh brings nothing new
        live.observe(clicks_at(grid + 41 * MINUTE, [READER], item))
        assert ask(42) == 1
        assert ask(59.9) == 1
        assert ask(60) == 2  # the refresh at 60 knows the click of minute 41
        assert ask(95) == 2
        live.observe(clicks_at(grid + 96 * MINUTE, [READER - 1], item))
        live.observe(clicks_at(grid + 97 * MINUTE, [READER - 2], item))
        assert ask(119) == 2
        assert ask(121) == 3

    def test_click_at_a_refresh_is_not_in_it(self, live: Recommender, log: Log, fits: list[int]) -> None:
        grid = -(-live.known_until // (30 * MINUTE)) * 30 * MINUTE
        live.recommend(STRANGER, at=at_of(grid))
        live.observe(clicks_at(grid, [READER], log.clicks["item_id"][-1]))
        live.recommend(STRANGER, at=at_of(grid + MINUTE))
        assert len(fits) == 1
        live.recommend(STRANGER, at=at_of(grid + 30 * MINUTE))
        assert len(fits) == 2

    def test_replay_of_the_past_is_prepared_anew(self, live: Recommender, fits: list[int]) -> None:
        users = pl.Series("user_id", [STRANGER])
        live.recommend(STRANGER)
        early = live.recommend_many(live.requests(users, live.known_until - 24 * HOUR))
        assert len(fits) == 2
        assert bits(live.recommend_many(live.requests(users, live.known_until - 24 * HOUR))) == bits(early)
        live.recommend(STRANGER)
        assert len(fits) == 2

    def test_tables_are_dropped_where_a_late_event_gives_articles_other_codes(
        self, live: Recommender, log: Log, fits: list[int]
    ) -> None:
        grid = -(-live.known_until // (30 * MINUTE)) * 30 * MINUTE
        item, at = log.clicks["item_id"][-1], at_of(grid + 20 * MINUTE)
        articles = pl.DataFrame({"item_id": [-3]})
        live.observe(articles=articles)
        live.recommend(READER, at=at)
        codes = live.store.item_codes(pl.Series([item]))
        late = [clicks_at(grid + minute * MINUTE, [READER], item) for minute in (15, 10)]
        for clicks in late:
            live.observe(clicks)
        assert live.store.item_codes(pl.Series([item])) != codes
        whole = live.with_log(live.store.clicks, live.store.articles, live.store.impressions)
        assert bits(live.recommend(READER, at=at, k=60)) == bits(whole.recommend(READER, at=at, k=60))
        assert len(fits) == 3


class TestBreakingStory:
    @pytest.fixture
    def told(self, live: Recommender) -> Recommender:
        """An article of a minute ago in a section of its own, that three strangers have read."""
        now = live.known_until + 10 * MINUTE
        created = pl.Series([now - MINUTE]).cast(TIME)
        live.observe(
            clicks_at(now, [-1, -2, -3], NEWS),
            articles=pl.DataFrame({"item_id": [NEWS], "category": [SECTION], "created_at": created}),
        )
        return live

    def test_is_recommended_at_once_within_its_section_or_age(self, told: Recommender) -> None:
        assert told.recommend(STRANGER, categories=[SECTION])["item_id"].to_list() == [NEWS]
        assert told.recommend(STRANGER, max_age=timedelta(milliseconds=60_001))["item_id"].to_list() == [NEWS]
        assert NEWS in told.recommend(STRANGER, k=10_000)["item_id"]
        assert told.recommend(STRANGER, max_age=timedelta(milliseconds=60_000)).is_empty()
        assert told.recommend(-1, categories=[SECTION]).is_empty()  # has read it

    def test_is_ranked_by_what_is_known_of_it(self, told: Recommender) -> None:
        found = told.features(STRANGER, [NEWS]).row(0, named=True)
        assert found["item_clicks_5m"] == 3.0
        assert found["item_age_hours"] == pytest.approx((MINUTE + 1) / HOUR)

    def test_is_proposed_from_the_next_refresh_on(self, told: Recommender) -> None:
        early, late = (
            told.recommend(STRANGER, at=at_of(told.known_until + minutes * MINUTE), k=300) for minutes in (0, 30)
        )
        assert early.filter(item_id=NEWS)["score"].to_list() in ([None], [])
        assert late.filter(item_id=NEWS)["score"].null_count() == 0
        assert len(late.filter(item_id=NEWS)) == 1

    def test_whose_section_becomes_known_later_is_found_there(self, told: Recommender) -> None:
        told.observe(clicks_at(told.known_until, [-4, -6], NEWS + 1))
        assert NEWS + 1 not in told.recommend(STRANGER, categories=[SECTION])["item_id"]
        told.observe(articles=pl.DataFrame({"item_id": [NEWS + 1], "category": [SECTION]}))
        assert told.recommend(STRANGER, categories=[SECTION])["item_id"].sort().to_list() == [NEWS, NEWS + 1]


class TestFilters:
    def test_of_categories_hold_in_every_place(self, live: Recommender, log: Log) -> None:
        chosen = log.articles["category"].unique().sort()[1:3].to_list()
        best = live.recommend(STRANGER, k=60, categories=chosen)
        category = dict(log.articles.select("item_id", "category").rows())
        assert len(best) == 60
        assert best["score"].null_count() < 60
        assert {category[item] for item in best["item_id"]} == set(chosen)
        assert live.recommend(STRANGER, categories=[]).is_empty()
        assert live.recommend(STRANGER, categories=[SECTION]).is_empty()

    def test_of_age_hold_in_every_place(self, live: Recommender, log: Log) -> None:
        now = at_of(live.known_until)
        best = live.recommend(STRANGER, k=200, max_age=timedelta(hours=5))
        young = log.articles.filter(pl.col("created_at").is_between(now - timedelta(hours=5), now, closed="left"))
        assert 10 < len(best) == len(young) < 200
        assert set(best["item_id"]) == set(young["item_id"])

    def test_excluded_articles_leave_their_places_to_the_next(self, live: Recommender) -> None:
        """Also the places that recall leaves empty: every article but these is there."""
        whole = live.recommend(STRANGER, k=10_000)["item_id"].to_list()
        gone = [*whole[:4], whole[-1]]
        rest = live.recommend(STRANGER, k=10_000, exclude=[*gone, 10**9])
        assert set(rest["item_id"]) == set(whole) - set(gone)
        assert rest["rank"].to_list() == list(range(1, len(whole) - 4))
        assert len(live.recommend(STRANGER, k=8, exclude=gone)) == 8

    def test_hold_together(self, live: Recommender, log: Log) -> None:
        chosen = log.articles["category"].mode()[:1].to_list()
        first = live.recommend(STRANGER, k=50, categories=chosen, max_age=timedelta(hours=24))
        second = live.recommend(
            STRANGER, k=50, categories=chosen, max_age=timedelta(hours=24), exclude=first["item_id"][:3].to_list()
        )
        assert set(second["item_id"]) == set(first["item_id"][3:])


class TestWithdrawn:
    def test_articles_are_never_recommended_and_ranked_last(self, live: Recommender, log: Log) -> None:
        before = live.recommend(STRANGER, k=10)
        items = before["item_id"].to_list()
        scores = live.rank(STRANGER, items)
        live.withdraw([items[0], items[3], 10**9])
        assert not {items[0], items[3]} & set(live.recommend(STRANGER, k=10_000)["item_id"])
        again = live.rank(STRANGER, items)
        left = [n for n in range(10) if n not in (0, 3)]
        assert again[[0, 3]].tolist() == [WITHDRAWN, WITHDRAWN]
        assert again[left].tobytes() == scores[left].tobytes()
        assert len(live.recommend(STRANGER, k=8)) == 8

    def test_articles_stay_so_while_they_are_read_until_they_are_told_of_again(self, live: Recommender) -> None:
        best = live.recommend(STRANGER, k=3)["item_id"].to_list()
        live.withdraw([best[0]])
        live.withdraw(frozenset({best[1]}))
        live.observe(clicks_at(live.known_until, [READER], best[0]))
        assert not set(best[:2]) & set(live.recommend(STRANGER, k=10_000)["item_id"])
        live.observe(articles=pl.DataFrame({"item_id": [best[0]]}))
        found = live.recommend(STRANGER, k=10_000)["item_id"].to_list()
        assert best[0] in found
        assert best[1] not in found

    def test_articles_stay_so_over_another_log(self, live: Recommender, log: Log) -> None:
        """One that continues the state, one that stands alone, and one without an event; also where it knows them."""
        best = live.recommend(STRANGER, k=2)["item_id"].to_list()
        live.withdraw([best[0]])
        later = between(log.clicks, "clicked_at", live.known_until, 2**42)
        for clicks in (later, log.clicks, log.clicks.clear()):
            other = live.with_log(clicks, log.articles)
            assert best[0] not in other.recommend(STRANGER, k=10_000)["item_id"]
            assert other.rank(STRANGER, best)[0] == WITHDRAWN
            other.observe(articles=pl.DataFrame({"item_id": [best[0]]}))
            assert best[0] in other.recommend(STRANGER, k=10_000)["item_id"]
        assert best[0] not in live.recommend(STRANGER, k=10_000)["item_id"]


def test_bundle_of_lists_proposes_what_is_popular(on_slates: object) -> None:
    live = Recommender.load(on_slates.run)  # type: ignore[attr-defined]
    user = live.store.clicks["user_id"].mode()[0]
    best = live.recommend(user, k=9)
    assert best["score"].null_count() == 0
    assert best["score"].to_list() == sorted(best["score"], reverse=True)
    assert not set(best["item_id"]) & set(live.store.clicks.filter(user_id=user)["item_id"])
    start = live.known_until
    live.observe(clicks_at(start + MINUTE, list(range(-400, -100)), NEWS))
    late = live.recommend(STRANGER, at=at_of(start + HOUR), k=100)
    assert late.filter(item_id=NEWS)["score"].null_count() == 0
    assert len(late.filter(item_id=NEWS)) == 1


def test_known_context_of_a_request_reaches_the_features(replay_of_rich: Recommender) -> None:
    items = replay_of_rich.store.items.head(3).to_list()
    plain = replay_of_rich.features(1, items)
    on_phone = replay_of_rich.features(1, items, context={"device": "phone"})
    assert "device" in REQUEST_CONTEXT
    assert plain["now_device"].to_list() == [0.0] * 3
    assert on_phone["now_device"].min() > 0


@pytest.fixture
def replay_of_rich(request: pytest.FixtureRequest, tmp_path: Path) -> Recommender:
    params = {**FEW_TREES, "trees": 2, "min_data_in_leaf": 2}
    split = SplitConfig(test_days=0.5, valid_days=0.5)
    config = TrainConfig(out=tmp_path / "rich", params=params, split=split, candidates="slate")
    return Recommender.load(train(config, log=rich_log(2)).run)


class Threads:
    """Runs functions at once; what one of them raises is raised at the end."""

    def __init__(self) -> None:
        self.failures: list[BaseException] = []
        self.over = threading.Event()

    def run(self, writer: Callable[[], None], *readers: Callable[[], None]) -> None:
        def write() -> None:
            try:
                writer()
            finally:
                self.over.set()

        def again(reader: Callable[[], None]) -> Callable[[], None]:
            def loop() -> None:
                while not self.over.is_set():
                    reader()

            return loop

        threads = [threading.Thread(target=self._kept(each)) for each in (write, *map(again, readers))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        if self.failures:
            raise self.failures[0]

    def _kept(self, run: Callable[[], None]) -> Callable[[], None]:
        def kept() -> None:
            try:
                run()
            except BaseException as error:
                self.failures.append(error)
                self.over.set()

        return kept


def test_readers_never_fail_and_never_see_half_an_observation(live: Recommender) -> None:
    """Each observation reads two articles and shows a third equally often, with new users and an article of its own."""
    one, two, three = NEWS, NEWS + 1, NEWS + 2
    start = live.known_until
    seen: set[float] = set()
    answers: list[int] = []

    def write() -> None:
        for number in range(120):
            users = list(range(-1_000 - 3 * number, -1_000 - 3 * number + 3))
            at = start + number * MINUTE
            clicks = pl.concat([clicks_at(at, users, one), clicks_at(at, users, two)])
            shown = lists_at(at, 10**7 + 3 * number, users, [three])
            fresh = pl.DataFrame({"item_id": [NEWS + 10 + number], "category": [SECTION]})
            live.observe(clicks, shown, fresh)

    def look() -> None:
        found = live.features(STRANGER, [one, two, three])
        read, shown = found["item_clicks_all"], found["item_exposures_log_all"]
        assert read[0] == read[1]
        assert shown[2] == pytest.approx(np.log1p(read[0]), rel=1e-6)
        seen.add(read[0])

    def ask() -> None:
        best = live.recommend(STRANGER, k=5)
        assert len(best) == 5
        assert np.isfinite(live.rank(STRANGER, [one, *best["item_id"]])).all()
        answers.append(len(best))

    Threads().run(write, look, ask)
    assert len(seen) > 3
    assert len(answers) > 3
    assert live.features(STRANGER, [one])["item_clicks_all"].to_list() == [360.0]


def test_first_questions_and_first_observations_at_once(measured: object) -> None:
    """Indices are built when they are first asked for, while the store grows."""
    for _ in range(6):
        live = Recommender.load(measured.run)  # type: ignore[attr-defined]
        start = live.known_until

        def write(live: Recommender = live, start: int = start) -> None:
            for number in range(12):
                live.observe(clicks_at(start + number, [READER - number], NEWS))

        def ask(live: Recommender = live) -> None:
            live.recommend(STRANGER)

        Threads().run(write, ask)
        assert live.features(STRANGER, [NEWS])["item_clicks_all"].to_list() == [12.0]


@pytest.mark.parametrize("many", [1, 10_000])
@pytest.mark.parametrize("question", ["recommend_many", "rank_many"])
def test_long_answer_is_of_one_state(
    on_slates: object, monkeypatch: pytest.MonkeyPatch, question: str, many: int
) -> None:
    """What is observed between two chunks of one question is for the next question."""
    monkeypatch.setattr("newsrec.assembly.CHUNK_REQUESTS", 1)
    monkeypatch.setattr("newsrec.assembly.MANY_REQUESTS", many)
    live = Recommender.load(on_slates.run)  # type: ignore[attr-defined]
    now = live.known_until + HOUR
    items = live.recommend(STRANGER, at=at_of(now), k=8)["item_id"].to_list()
    asked = live.requests(pl.Series("user_id", [STRANGER] * 3), now)
    lists = pl.DataFrame({"request_id": np.repeat([0, 1, 2], 8), "item_id": items * 3})

    class Meddler(Silent):
        """Observes whenever it is told of progress."""

        @contextmanager
        def stage(self, title: str, total: int) -> Iterator[Step]:
            yield lambda _: live.observe(clicks_at(now - MINUTE, list(range(-900, -600)), items[-1]))

    def answer(progress: Silent) -> list[object]:
        if question == "rank_many":
            return bits(live.rank_many(asked, lists, progress))
        return bits(live.recommend_many(asked, progress=progress))

    quiet = answer(Silent())
    assert answer(Meddler()) == quiet
    assert answer(Silent()) != quiet
