"""No value knows the future: whatever happens at or after a request changes nothing, for every feature and channel."""

import ast
import importlib
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Final, Self

import numpy as np
import polars as pl
import pytest

from features.build import build
from features.catalog import Feature
from features.columns import TIME
from features.events import EventStore
from features.vocabulary import Vocabulary
from newsrec.assembly import Assembly, score_lists, training_data
from newsrec.candidates import SamplingConfig
from newsrec.data import Log
from newsrec.metrics import METRICS, per_request, summarise
from newsrec.rankers import RANKERS
from newsrec.recall import CHANNELS, Channel, RecallRequests, RecallSettings
from newsrec.split import SplitConfig, split_log
from newsrec.train import TrainResult
from tests.conftest import FEW_TREES
from tests.factories import (
    IDS,
    SHALLOW,
    UNKNOWN_ITEM,
    all_features,
    bits,
    candidates_for,
    proposed,
    requests_for,
    rich_log,
    small_log,
    store_of,
)

ROOT = Path(__file__).parents[1]
View = Callable[[Log], pl.DataFrame]
"""What a request is shown of a log."""


def deleted(log: Log, at: pl.Expr) -> Log:
    """Nothing of the future: no click, no list, and no reading that lasts on."""
    clicks = log.clicks.filter(pl.col("clicked_at") < at)
    return replace(with_readings(log, clicks, at, pl.lit(None)), impressions=shown(log, pl.col("requested_at") < at))


def shown(log: Log, keep: pl.Expr) -> pl.DataFrame | None:
    return None if log.impressions is None else log.impressions.filter(keep)


def with_readings(log: Log, clicks: pl.DataFrame, at: pl.Expr, seconds: pl.Expr) -> Log:
    """The log with these clicks, and another length of those that are still being read at the instant."""
    if "dwell_seconds" not in clicks.columns:
        return replace(log, clicks=clicks)
    length = pl.col("dwell_seconds")
    ends = pl.col("clicked_at") + pl.duration(milliseconds=(length.cast(pl.Float64) * 1_000).round())
    return replace(log, clicks=clicks.with_columns(pl.when(ends < at).then(length).otherwise(seconds.cast(pl.Float32))))


def read_on(log: Log, at: pl.Expr) -> Log:
    """What is still being read is read for another while."""
    return with_readings(log, log.clicks, at, pl.col("dwell_seconds") * 2 + 3_600)


def appended(log: Log, at: pl.Expr) -> Log:
    """Every reader clicks and is shown every article at the very instant and a minute later, and so do strangers."""
    users = pl.concat([log.clicks["user_id"].unique().sort(), stranger(log.clicks["user_id"])])
    items = pl.concat([log.articles["item_id"], log.clicks["item_id"]]).unique().sort()
    unknown = pl.Series([UNKNOWN_ITEM if items.dtype.is_integer() else "nothing"], dtype=items.dtype)
    every = users.to_frame().join(pl.concat([items, stranger(items), unknown]).to_frame("item_id"), how="cross")
    late = [every.with_columns((at + pl.duration(minutes=m)).cast(TIME).alias("clicked_at")) for m in (0, 1)]
    context = pl.lit("never seen before").alias("device")
    clicks = pl.concat([log.clicks, *(f.with_columns(context) for f in late)], how="diagonal")
    if log.impressions is None:
        return replace(log, clicks=clicks)
    lists = (
        pl.concat(late)
        .rename({"clicked_at": "requested_at"})
        .with_columns(
            pl.struct("user_id", "requested_at").rank("dense").cast(pl.Int64).alias("request_id") + 10**6,
            pl.col("item_id").first().over("user_id", "requested_at").alias("page_item_id"),
            clicked=True,
            device=pl.lit("never seen before"),
        )
    )
    return replace(log, clicks=clicks, impressions=pl.concat([log.impressions, lists], how="diagonal"))


def stranger(ids: pl.Series) -> pl.Series:
    """Ids below and above all known ones, so that every code moves."""
    low, high = ("a", "zz") if ids.dtype == pl.String else (-7, 10**6)
    return pl.Series(ids.name, [low, high], dtype=ids.dtype)


def changed(log: Log, at: pl.Expr) -> Log:
    """Other readers click other articles on other devices, later."""
    past, future = (log.clicks.filter(side) for side in (pl.col("clicked_at") < at, pl.col("clicked_at") >= at))
    rng = np.random.default_rng(0)
    names = [name for name in log.clicks.columns if name != "clicked_at"]
    mixed = future.with_columns(log.clicks[name][rng.integers(0, len(log.clicks), len(future))] for name in names)
    later = mixed.with_columns(pl.col("clicked_at") + pl.duration(milliseconds=17))
    clicks = pl.concat([past, later])
    return replace(log, clicks=clicks, impressions=other_lists(log, at, rng))


def other_lists(log: Log, at: pl.Expr, rng: np.random.Generator) -> pl.DataFrame | None:
    """Later lists go to other readers, on other pages, with other articles."""
    if log.impressions is None:
        return None
    time = pl.col("requested_at")
    past, future = log.impressions.filter(time < at), log.impressions.filter(time >= at)
    of_request = future.unique("request_id", maintain_order=True).select("request_id", "requested_at")
    drawn = log.impressions[rng.integers(0, len(log.impressions), len(of_request))]
    context = drawn.select("user_id", "page_item_id", "device", "is_subscriber")
    requests = of_request.with_columns(time + pl.duration(milliseconds=17)).hstack(context)
    items = future.select("request_id", log.impressions["item_id"][rng.integers(0, len(log.impressions), len(future))])
    lists = items.unique(maintain_order=True).join(requests, on="request_id", maintain_order="left")
    return pl.concat([past, lists.with_columns(clicked=True).select(past.columns)])


def moved_to_the_instant(log: Log, at: pl.Expr) -> Log:
    def moved(frame: pl.DataFrame, name: str) -> pl.DataFrame:
        time = pl.col(name)
        return frame.with_columns(pl.when(time >= at).then(at).otherwise(time).cast(TIME).alias(name))

    lists = None if log.impressions is None else moved(log.impressions, "requested_at")
    return replace(log, clicks=moved(log.clicks, "clicked_at"), impressions=lists)


def published(log: Log, at: pl.Expr) -> Log:
    """New articles, of a new category too, from the instant on."""
    new = stranger(log.articles["item_id"]).to_frame()
    told = [at.cast(TIME).alias("created_at"), pl.lit("aaa").alias("category"), pl.lit(5, pl.Int32).alias("words")]
    return replace(log, articles=pl.concat([log.articles, new.with_columns(told)], how="diagonal"))


def unpublished(log: Log, at: pl.Expr) -> Log:
    """Articles that come later, and that nobody has clicked or was shown yet, do not come at all."""
    met = shown(log, pl.col("requested_at") < at)
    known = {*log.clicks.filter(pl.col("clicked_at") < at)["item_id"], *([] if met is None else met["item_id"])}
    kept = (pl.col("created_at") < at) | pl.col("created_at").is_null() | pl.col("item_id").is_in(list(known))
    return replace(log, articles=log.articles.filter(kept))


FUTURES: Final = (deleted, read_on, appended, changed, moved_to_the_instant, published, unpublished)


def seen(view: View, log: Log, at: pl.Expr) -> set[str]:
    """Changes of the future that reach the view, with the columns that they reach."""
    before = view(log)
    found = set()
    for change in FUTURES:
        after = view(change(log, at))
        same = [bits(before.select(name)) == bits(after.select(name)) for name in before.columns]
        found |= {f"{change.__name__}: {name}" for name, equal in zip(before.columns, same, strict=True) if not equal}
    return found


def feature_view(asked: pl.DataFrame, candidates: pl.DataFrame, vocabulary: Vocabulary) -> View:
    def view(log: Log) -> pl.DataFrame:
        return build(candidates, asked, store_of(log), vocabulary, all_features())

    return view


def recall_view(make: Callable[[], Channel], asked: pl.DataFrame) -> View:
    def view(log: Log) -> pl.DataFrame:
        store = store_of(log)
        found = make().fit(store, SHALLOW).recall(RecallRequests.of(asked, store))
        return found.with_columns(store.items.gather(found["item"]).alias("item"))

    return view


def each_request(log: Log, seed: int, stale: float = 0, n: int = 6) -> list[tuple[pl.DataFrame, pl.Expr]]:
    """Requests one by one with their own moment; most stand at the instant of a click or of a list."""
    asked = requests_for(log, n, seed, stale)
    return [(asked[i], pl.lit(asked["requested_at"][i]).cast(TIME)) for i in range(len(asked))]


def known_before(log: Log, asked: pl.DataFrame, at: pl.Expr, seed: int) -> pl.DataFrame:
    """Candidates that are out, or that nothing is known of."""
    candidates = candidates_for(log, asked, 15, seed)
    out = unpublished(log, at).articles["item_id"].to_list()
    coming = [item for item in log.articles["item_id"] if item not in set(out)]
    return candidates.filter(~pl.col("item_id").is_in(coming))


@pytest.mark.parametrize(("seed", "ids", "stale"), [(0, IDS[0], 0), (1, IDS[1], 0), (2, IDS[0], 150)])
class TestTheFuture:
    def test_changes_no_feature(self, seed: int, ids: str, stale: float) -> None:
        log = rich_log(seed, ids)
        vocabulary = Vocabulary.of(log.clicks, 2, log.impressions)
        for asked, at in each_request(log, seed, stale):
            assert not seen(feature_view(asked, known_before(log, asked, at, seed), vocabulary), log, at)

    @pytest.mark.parametrize("name", CHANNELS)
    def test_changes_no_recall(self, name: str, seed: int, ids: str, stale: float) -> None:
        log = rich_log(seed, ids)
        for asked, at in each_request(log, seed, stale):
            assert not seen(recall_view(CHANNELS[name], asked), log, at)

    def test_changes_no_merged_list_nor_its_description(self, seed: int, ids: str, stale: float) -> None:
        log = rich_log(seed, ids)
        vocabulary = Vocabulary.of(log.clicks, 2, log.impressions)
        for asked, at in each_request(log, seed, stale, n=3):

            def view(other: Log, asked: pl.DataFrame = asked) -> pl.DataFrame:
                lists = proposed(other, asked)
                return lists.hstack(feature_view(asked, lists, vocabulary)(other).select(pl.all().name.prefix("f_")))

            assert not seen(view, log, at)


def test_statistics_that_are_frozen_see_no_other_reader_after_their_border() -> None:
    """Between `statistics_at` and the request, only what the reader clicked and was shown is known."""
    log = rich_log(3)
    vocabulary = Vocabulary.of(log.clicks, 2, log.impressions)
    for asked, _ in each_request(log, 3, stale=600):
        reader = pl.col("user_id") == asked["user_id"][0]
        border = pl.lit(asked["statistics_at"][0]).cast(TIME)
        less = replace(
            log,
            clicks=log.clicks.filter(reader | (pl.col("clicked_at") < border)),
            impressions=shown(log, reader | (pl.col("requested_at") < border)),
        )
        views = [feature_view(asked, candidates_for(log, asked), vocabulary)]
        views += [recall_view(make, asked) for make in CHANNELS.values()]
        for view in views:
            assert bits(view(less)) == bits(view(log))


@pytest.mark.parametrize("ids", IDS)
def test_order_of_rows_and_of_ties_changes_nothing(ids: str) -> None:
    log = rich_log(4, ids)
    asked = requests_for(log)
    candidates = candidates_for(log, asked)
    vocabulary = Vocabulary.of(log.clicks, 2, log.impressions)
    assert log.impressions is not None
    assert log.clicks.select("user_id", "clicked_at").is_duplicated().any()
    for view in (
        feature_view(asked, candidates, vocabulary),
        *(recall_view(make, asked) for make in CHANNELS.values()),
    ):
        expected = bits(view(log))
        for seed in range(3):
            frames = {"clicks": log.clicks, "articles": log.articles, "impressions": log.impressions}
            shuffled = {name: f.sample(fraction=1, shuffle=True, seed=seed) for name, f in frames.items()}
            assert bits(view(replace(log, **shuffled))) == expected


def test_test_period_changes_no_row_that_is_trained_on() -> None:
    """The whole way to the ranker: what happens in the test period, all of it mixed up, is not in the training rows."""
    log = small_log(5)
    config = SplitConfig(test_days=0.5, valid_days=0.5, warmup_hours=2)

    def taught(other: Log) -> list[object]:
        store = EventStore(other.clicks, other.articles)
        split = split_log(other, store, config)
        assembly = Assembly.of(store, tuple(CHANNELS), SHALLOW, Vocabulary.of(log.clicks.head(150), 2))
        rows = [training_data(assembly, split.part(p), split.positives, SamplingConfig()) for p in ("train", "valid")]
        return [split.known_until, *(item for r in rows for item in (bits(r.features), r.label.tolist()))]

    border = split_log(log, EventStore(log.clicks, log.articles), config).known_until
    end = log.clicks["clicked_at"].max()
    mixed = changed(log, pl.lit(border).cast(TIME)).clicks.with_columns(pl.col("clicked_at").clip(upper_bound=end))
    assert set(mixed.rows()) != set(log.clicks.rows())
    assert taught(replace(log, clicks=mixed)) == taught(log)


class TestTheCheckItself:
    """What would be leaks are found by the very function that finds none above."""

    @pytest.mark.parametrize("change", FUTURES)
    def test_changes_are_changes_and_leave_the_past_alone(self, change: Callable[[Log, pl.Expr], Log]) -> None:
        log = rich_log(0)
        at = pl.lit(log.clicks["clicked_at"][40]).cast(TIME)
        other = change(log, at)
        for name in ("clicks", "impressions"):
            before, after = (getattr(deleted(one, at), name) for one in (log, other))
            assert after.select(before.columns).equals(before)
        same = [getattr(other, name).equals(getattr(log, name)) for name in ("clicks", "impressions", "articles")]
        assert not all(same)
        assert same[1] == (change in (read_on, published, unpublished))

    def test_finds_a_feature_that_looks_at_later_lists(self) -> None:
        log = rich_log(0)

        def view_of(asked: pl.DataFrame, candidates: pl.DataFrame) -> View:
            def view(other: Log) -> pl.DataFrame:
                assert other.impressions is not None
                counted = other.impressions.group_by("item_id").agg(pl.len().alias("ever"))
                return candidates.join(counted, on="item_id", how="left", maintain_order="left").select("ever")

            return view

        found = [seen(view_of(asked, known_before(log, asked, at, 0)), log, at) for asked, at in each_request(log, 0)]
        assert {f"{change.__name__}: ever" for change in (deleted, appended, changed)} <= set().union(*found)

    @pytest.mark.parametrize("reach", [timedelta(0), timedelta(days=9)], ids=["the instant itself", "everything"])
    def test_finds_a_feature_that_looks_ahead(self, reach: timedelta) -> None:
        log = small_log(0)
        leaky = Feature("item_clicks_ever", "item", pl.col("ever"), "Clicks that the article gets, later ones too.")

        def view_of(asked: pl.DataFrame, candidates: pl.DataFrame) -> View:
            def view(other: Log) -> pl.DataFrame:
                known = other.clicks.filter(pl.col("clicked_at") <= asked["requested_at"][0] + reach)
                counted = known.group_by("item_id").agg(pl.len().alias("ever"))
                rows = candidates.join(counted, on="item_id", how="left", maintain_order="left")
                store = EventStore(other.clicks, other.articles)
                return build(rows, asked, store, Vocabulary.of(log.clicks), (*all_features(), leaky))

            return view

        found = [seen(view_of(asked, known_before(log, asked, at, 0)), log, at) for asked, at in each_request(log, 0)]
        assert {"appended: item_clicks_ever", "changed: item_clicks_ever"} <= set().union(*found)
        assert {line.split(": ")[1] for lines in found for line in lines} == {"item_clicks_ever"}

    def test_finds_a_channel_that_looks_ahead(self) -> None:
        log = small_log(0)
        found = [seen(recall_view(Bestseller, asked), log, at) for asked, at in each_request(log, 0)]
        assert {f"{change.__name__}: score" for change in (deleted, appended, changed)} <= set().union(*found)


class Bestseller:
    """Proposes what is clicked most in the whole log."""

    def fit(self, store: EventStore, settings: RecallSettings) -> Self:
        self.store = store
        return self

    def table(self, at: int) -> pl.DataFrame:
        return pl.DataFrame()

    def recall(self, requests: RecallRequests) -> pl.DataFrame:
        n = np.bincount(self.store.tables["clicks"]["item"], minlength=self.store.n_items)
        best = np.argsort(-n, kind="stable")[:5]
        return pl.DataFrame({"item": best, "score": n[best]})


FORBIDDEN: Final = frozenset({"label", "clicked", "kept", "sampling_probability", "positives", "split"})
"""Columns that only the outcome, or the way the rows were chosen, could fill."""


class TestTheLabel:
    @pytest.mark.parametrize("feature", all_features(), ids=lambda feature: feature.name)
    def test_is_read_by_no_feature(self, feature: Feature) -> None:
        assert not FORBIDDEN & set(feature.expression.meta.root_names())

    def test_beside_the_candidates_changes_nothing(self) -> None:
        log = small_log(6)
        asked = requests_for(log)
        candidates = candidates_for(log, asked)
        view = [
            feature_view(asked, frame, Vocabulary.of(log.clicks))(log)
            for frame in (
                candidates,
                candidates.with_columns(pl.int_range(pl.len()).alias(n) for n in ("label", "clicked")),
            )
        ]
        assert bits(view[0]) == bits(view[1])

    def test_shuffled_teaches_nothing(self, log: Log, trained: TrainResult) -> None:
        """Clicks drawn at random from each list: the same path then ranks them no better than chance."""
        store = EventStore(log.clicks, log.articles)
        split = split_log(log, store, SplitConfig())
        assembly = Assembly.of(store, tuple(CHANNELS), RecallSettings())
        lists = assembly.cut(assembly.lists(split.requests)[0])
        drawn = (
            lists.sample(fraction=1, shuffle=True, seed=1)
            .group_by("request_id")
            .first()
            .select("request_id", "item_id")
        )
        rows = training_data(assembly, split.part("train"), drawn, SamplingConfig())
        ranker = RANKERS["lgbm"].of(FEW_TREES).fit(rows, None)
        test = split.part("test")
        found = summarise(per_request(score_lists(assembly, ranker.score, test, drawn).rows, test, METRICS))
        assert trained.metrics["rank"]["auc"] > 0.8
        assert found["auc"] == pytest.approx(0.5, abs=4 * np.sqrt(1 / 12 / len(test)))  # a rank drawn evenly from 0..1


TIME_RULES = "windows.py"
MODULES = sorted(p for folder in ("features", "newsrec/recall") for p in (ROOT / folder).rglob("*.py"))


def time_operations(source: str, names: dict[str, object]) -> list[str]:
    """Calls that look along time, and `.over` of anything but the request."""
    found = []
    for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        if name in {"join_asof", "shift", "group_by_dynamic", "upsample"} or name.startswith(
            ("rolling", "cum_", "ewm_")
        ):
            found.append(f"{call.lineno}: {name}")
        elif name == "over":
            keys = [names.get(a.id) if isinstance(a, ast.Name) else getattr(a, "value", None) for a in call.args]
            if keys != ["request_id"] or call.keywords:
                found.append(f"{call.lineno}: over {keys}")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_one_module_looks_along_time(path: Path) -> None:
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
    if path.name != TIME_RULES:
        assert not time_operations(path.read_text(encoding="utf-8"), vars(module))


@pytest.mark.parametrize(
    "call",
    [
        "a.join_asof(b)",
        "pl.col('a').shift(1)",
        "pl.col('a').rolling_sum_by('t', '1h')",
        "a.rolling('t')",
        "pl.cum_sum('a')",
        "pl.col('a').over('user_id')",
        "pl.col('a').over(USER)",
        "pl.col('a').over('request_id', 'item_id')",
        "pl.col('a').over('request_id', order_by='t')",
    ],
)
def test_call_that_looks_along_time_would_be_found(call: str) -> None:
    assert len(time_operations(call, {"USER": "user_id"})) == 1


def test_over_the_request_is_allowed() -> None:
    assert not time_operations("pl.col('a').sum().over('request_id'); b.over(R)", {"R": "request_id"})
