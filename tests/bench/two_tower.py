"""Two towers with the correction for frequent articles, without it, and item2vec beside them: three seeds of each.

Requests and held-out clicks are those of the `recall` benchmark, but at most 10,000 of the log's last five days.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from features.columns import DAY
from features.events import EventStore, milliseconds
from newsrec.data import read_log
from newsrec.recall import Channel, RecallRequests, RecallSettings
from newsrec.recall.item2vec import Item2Vec, Item2VecParams
from newsrec.recall.tower_chain import TwoTowerParams
from newsrec.recall.two_tower import TwoTower
from newsrec.simulate import simulate
from tests.bench.recall import held_out, ranks_of

DEPTHS: Final = (20, 50, 100)
DAYS: Final = 5
REQUESTS: Final = 10_000
SEEDS: Final = (0, 1, 2)
MADE: Final[dict[str, Callable[[int], Channel]]] = {
    "two_tower": lambda seed: TwoTower(TwoTowerParams(seed=seed)),
    "without logQ": lambda seed: TwoTower(TwoTowerParams(seed=seed, logq=False)),
    "item2vec": lambda seed: Item2Vec(Item2VecParams(seed=seed)),
}


@dataclass(frozen=True)
class _Tried:
    hits: list[float]
    fit: float
    recall: float


def run(data: Path | None) -> Iterator[str]:
    """One line per channel: shares of hits as mean (least to most of the seeds), and the seconds of the first seed."""
    log = simulate().log if data is None else read_log(data)
    store = EventStore(log.clicks, log.articles, log.impressions)
    asked, clicked = _sampled(*held_out(log, store, data), store)
    yield f"{len(asked):,} requests of the last {DAYS} days, {len(log.clicks):,} clicks known, seeds {SEEDS}"
    for name, make in MADE.items():
        tried = [_tried(make(seed), store, asked, clicked) for seed in SEEDS]
        shares = np.array([each.hits for each in tried])
        told = [
            f"hit@{depth} {own.mean():.4f} ({own.min():.4f} to {own.max():.4f})"
            for depth, own in zip(DEPTHS, shares.T, strict=True)
        ]
        yield f"{name:<13} {', '.join(told)}, fit {tried[0].fit:.1f} s, recall {tried[0].recall:.1f} s"


def _sampled(asked: pl.DataFrame, clicked: pl.DataFrame, store: EventStore) -> tuple[pl.DataFrame, pl.DataFrame]:
    at = milliseconds(asked["requested_at"])
    late = np.flatnonzero(at >= (store.last_event or 0) - DAYS * DAY)
    chosen = np.sort(np.random.default_rng(0).permutation(late)[:REQUESTS])
    row = pl.DataFrame({"old": chosen, "row": np.arange(len(chosen))}).cast(pl.UInt32)
    return asked[chosen], row.join(clicked, left_on="old", right_on="row").select("row", "item")


def _tried(channel: Channel, store: EventStore, asked: pl.DataFrame, clicked: pl.DataFrame) -> _Tried:
    since = int(milliseconds(asked["statistics_at"]).min())
    began = time.perf_counter()
    channel.fit(store, RecallSettings(depth=max(DEPTHS), since=since))
    fitted = time.perf_counter()
    found = channel.recall(RecallRequests.of(asked, store))
    done = time.perf_counter()
    rank = ranks_of(clicked, found)
    return _Tried([float((rank <= depth).mean()) for depth in DEPTHS], fitted - began, done - fitted)
