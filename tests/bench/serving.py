"""A bundle at work on one core: ranking a list, recommending, and observing, with the whole log as its state."""

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from features.columns import MINUTE, TIME
from newsrec.serve import Recommender
from newsrec.split import SplitConfig
from newsrec.train import train
from newsrec.train_config import TrainConfig

REQUESTS = 500
LIST = 200
BATCH = 1_000
BATCHES = 100


def run(data: Path | None) -> Iterator[str]:
    """Latency of single requests at the end of the log, beside the time per request of one large batch; then events."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = _bundle(data, Path(folder) / "run")
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {0})
        began = time.perf_counter()
        recommender = Recommender.load(bundle)
        users = recommender.store.users.sample(min(REQUESTS, len(recommender.store.users)), seed=0).to_list()
        lists = lists_of_late(recommender, len(users))
        recommender.rank(users[0], lists[0])
        yield f"load and first answer {time.perf_counter() - began:.1f} s; {len(recommender.store.clicks):,} clicks"
        ranking = [lambda u=u, items=items: recommender.rank(u, items) for u, items in zip(users, lists, strict=True)]
        yield f"rank {LIST} articles: {spread(ranking)}"
        single = [lambda u=u: recommender.recommend(u) for u in users]
        yield f"recommend: {spread(single)}"
        many = recommender.store.users.sample(min(5_000, len(recommender.store.users)), seed=1)
        start = time.perf_counter()
        recommender.recommend_many(recommender.requests(many, recommender.known_until))
        each = 1000 * (time.perf_counter() - start) / len(many)
        yield f"recommend in a batch of {len(many):,}: {each:.2f} ms a request"
        yield from _observing(recommender)


def _bundle(data: Path | None, out: Path) -> Path:
    """The folder itself where it is a bundle; what is trained here is small, and so averages five models."""
    if data is not None and (data / "manifest.json").is_file():
        return data
    split = SplitConfig(train_requests=15_000, valid_requests=2_000, test_requests=1_000)
    train(TrainConfig(data=data, out=out, params={"trees": 200, "patience": 200}, split=split))
    return out


def _observing(recommender: Recommender) -> Iterator[str]:
    """New clicks of known users within the next minutes, in batches and then one by one."""
    events = _events(recommender, BATCH * BATCHES + REQUESTS)
    recommender.observe(clicks=events[:1])  # moves the tables to a place with room to grow, once
    batches = [events[i : i + BATCH] for i in range(1, BATCH * BATCHES, BATCH)]
    start = time.perf_counter()
    for batch in batches:
        recommender.observe(clicks=batch)
    rate = BATCH * len(batches) / (time.perf_counter() - start)
    singles = [
        lambda i=i: recommender.observe(clicks=events[i : i + 1]) for i in range(len(events) - REQUESTS, len(events))
    ]
    yield f"observe in batches of {BATCH:,}: {rate:,.0f} events per second; one by one: {spread(singles)}"


def lists_of_late(recommender: Recommender, n: int) -> list[list[object]]:
    """Lists of articles that were read most of late."""
    recent = recommender.store.clicks.sort("clicked_at").tail(200_000)["item_id"]
    most = recent.value_counts(sort=True)["item_id"].head(2 * LIST).to_list()
    rng = np.random.default_rng(0)
    return [[most[i] for i in rng.choice(len(most), LIST, replace=len(most) < LIST)] for _ in range(n)]


def _events(recommender: Recommender, n: int) -> pl.DataFrame:
    clicks = recommender.store.clicks.sample(n, seed=3, with_replacement=True, shuffle=True)
    after = np.sort(np.random.default_rng(0).choice(20 * MINUTE, n, replace=False))
    return clicks.with_columns(clicked_at=pl.Series(recommender.known_until + after).cast(TIME))


def spread(calls: Sequence[Callable[[], object]]) -> str:
    """Median and 99th percentile of the time that calls take."""
    spent = []
    for call in calls:
        start = time.perf_counter()
        call()
        spent.append(1000 * (time.perf_counter() - start))
    median, p99 = np.quantile(spent, [0.5, 0.99])
    return f"p50 {median:.1f} ms, p99 {p99:.1f} ms"
