"""A log of more than 20,000 events, observed in pieces, has every feature of the catalogue as the batch has it."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, cast

import numpy as np
import polars as pl
import pytest

from features.catalog import features_for
from features.columns import CLICK_KEY, HOUR, REQUEST_CONTEXT
from features.events import EventStore
from features.vocabulary import Vocabulary
from newsrec.assembly import Assembly
from newsrec.data import Log
from newsrec.rankers import Ranker
from newsrec.recall import RecallSettings
from newsrec.serve import Recommender
from newsrec.simulate import SimulationConfig, simulate
from newsrec.slates import OF_REQUEST, canonical_requests, requests_of, slates_of
from tests.factories import unequal

REPLAYED = ("itemcf", "popular", "usercf", "fresh", "content")
"""Some that learn of clicks and some of articles; `test_contract.py` has every channel on a store that grew."""
ASKED = 240
EVENTS = 20_000


@dataclass
class Sees:
    """A model that only keeps what it is given to score."""

    described: list[pl.DataFrame] = field(default_factory=list)

    def score(self, features: pl.DataFrame) -> np.ndarray:
        self.described.append(features)
        return np.zeros(len(features), np.float32)


@pytest.fixture(scope="module")
def long_log() -> Log:
    """The simulated log with what it lacks: lists with context, below an article, left after a while, some of it null;
    and users who are shown again what they have read."""
    log, rng = simulate(SimulationConfig(users=1_200, days=4)).log, np.random.default_rng(0)
    shown = log.impressions
    lists = shown.select("request_id").unique(maintain_order=True)
    items = log.articles["item_id"]

    def some(values: np.ndarray, null: float) -> pl.Series:
        return pl.Series(values).set(pl.Series(rng.random(len(values)) < null), None)

    context = {name: some(rng.integers(0, 4, len(lists)), 0.2) for name in REQUEST_CONTEXT}
    pages = some(items.to_numpy()[rng.zipf(1.3, len(lists)) % len(items)], 0.5)
    left = some(rng.exponential(40.0, len(lists)).round(1), 0.3)
    lists = lists.with_columns(**context, page_item_id=pages, page_dwell_seconds=left)
    unread = pl.Series(rng.random(len(log.clicks)) < 0.2)
    clicks = log.clicks.with_columns(pl.when(~unread).then("dwell_seconds"))
    again = shown.filter(~pl.col("clicked")).sample(2_000, seed=0)
    again = again.select("user_id", "item_id", clicked_at=pl.col("requested_at") - pl.duration(hours=3))
    clicks = pl.concat([clicks, again], how="diagonal").unique(CLICK_KEY, maintain_order=True).sort(CLICK_KEY[::-1])
    return replace(log, clicks=clicks, impressions=shown.join(lists, on="request_id", maintain_order="left"))


def between(frame: pl.DataFrame, name: str, start: int, end: int) -> pl.DataFrame:
    """Rows of `[start, end)`, ms."""
    return frame.filter(pl.col(name).to_physical().is_between(start, end, closed="left"))


def with_told(log: Log) -> pl.DataFrame:
    """The articles with `told`: when they are made, or where that is earlier first met, ms."""
    met = pl.concat(
        frame.select(pl.col(item).alias("item_id"), pl.col(time).to_physical().alias("met"))
        for frame, item, time in (
            (log.clicks, "item_id", "clicked_at"),
            (log.impressions, "item_id", "requested_at"),
            (log.impressions, "page_item_id", "requested_at"),
        )
    )
    known = log.articles.join(met.group_by("item_id").agg(pl.col("met").min()), on="item_id", how="left")
    return known.with_columns(pl.min_horizontal(pl.col("created_at").to_physical(), "met").alias("told")).drop("met")


def feed(live: Recommender, log: Log, articles: pl.DataFrame, start: int, end: int, rng: np.random.Generator) -> int:
    """All of `[start, end)`, in one or two steps, each in another mixture of calls; the number of clicks and lists."""
    borders = np.sort(rng.integers(start, end + 1, int(rng.integers(0, 2)))).tolist()
    told = 0
    for low, high in pairwise([start, *borders, end]):
        clicks, shown = (
            between(log.clicks, "clicked_at", low, high),
            between(log.impressions, "requested_at", low, high),
        )
        new = between(articles, "told", low + 1, high + 1).drop("told")
        # Lists after their clicks, and articles after they were met, make a new state: right, and dear.
        match int(rng.choice(4, p=(0.4, 0.4, 0.1, 0.1))):
            case 0:
                live.observe(clicks, shown, new)
            case 1:
                live.observe(articles=new)
                live.observe(impressions=shown)
                live.observe(clicks=clicks)
            case 2:
                live.observe(clicks=clicks, articles=new)
                live.observe(impressions=shown)
            case _:
                half = len(clicks) // 2
                live.observe(clicks=clicks[:half])
                live.observe(impressions=shown)
                live.observe(clicks=clicks[half:], articles=new)
        told += len(clicks) + shown["request_id"].n_unique()
    return told


def test_replay_of_20_000_events_has_every_feature_of_the_catalogue_to_the_last_bit(long_log: Log) -> None:
    log, features, rng = long_log, features_for(REPLAYED), np.random.default_rng(1)
    names, settings = [f.name for f in features], RecallSettings(refresh_ms=2 * HOUR, depth=100)
    recall = {"channels": list(REPLAYED), "settings": {"refresh_ms": settings.refresh_ms, "depth": 100}}
    manifest: dict[str, Any] = {"candidates": "slate", "features": names, "recall": {**recall, "list_length": 100}}
    vocabulary = Vocabulary.of(log.clicks, impressions=log.impressions)

    # the batch: training's own way over the whole log
    store = EventStore(log.clicks, log.articles, log.impressions)
    since = int(log.impressions["requested_at"].to_physical()[0]) + HOUR
    rows = requests_of(log.impressions).filter(pl.col("time") >= since)
    asked = canonical_requests(rows.sort("time").gather_every(len(rows) // ASKED), store)
    slates = slates_of(log.impressions, asked)
    assembly = Assembly.of(store, REPLAYED, settings, vocabulary, names, slates=slates)
    batch = assembly.describe(assembly.lists(asked)[0], asked)

    # the replay: what was known after an hour, then everything as it comes
    articles, sees = with_told(log), Sees()
    known = EventStore(
        between(log.clicks, "clicked_at", 0, since),
        articles.filter(pl.col("told") <= since).drop("told"),
        between(log.impressions, "requested_at", 0, since),
    )
    live = Recommender(manifest, cast(Ranker, sees), vocabulary, known)
    events, moment = 0, since
    of_list = slates.group_by("request_id", maintain_order=True).agg("item_id")["item_id"].to_list()
    for request, items in zip(asked.iter_rows(named=True), of_list, strict=True):
        at = round(request["requested_at"].timestamp() * 1_000)
        events += feed(live, log, articles, moment, at, rng)
        moment, context = at, {name: request[name] for name in OF_REQUEST}
        live.rank(request["user_id"], items, datetime.fromtimestamp(at / 1_000, UTC), context)
    found = pl.concat(sees.described)

    assert events >= EVENTS
    assert len(live.store.articles) > len(known.articles) + 100
    assert len(asked) >= ASKED
    assert found.columns == batch.columns == names
    assert unequal(found, batch) == []
    # A column that is all null or all the same would compare nothing.
    assert [name for name in names if batch[name].n_unique() < 2] == []
