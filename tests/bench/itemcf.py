"""ItemCF against the plain-dictionary way that public solutions of the Tianchi competition share."""

import math
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from features.columns import MINUTE, TIME
from features.events import EventStore
from newsrec.data import Log, read_log
from newsrec.recall import CHANNELS, RecallRequests, RecallSettings
from newsrec.simulate import simulate

SAMPLE_USERS = 10_000
PLACES = 100


def run(data: Path | None) -> Iterator[str]:
    """Fit and recall for every held-out user, then both ways on the same sample of users."""
    log = simulate().log if data is None else read_log(data)
    asked = _last_moments(log)
    seconds, found = _vectorised(log, asked)
    yield f"fit and recall for {len(asked):,} users, {len(log.clicks):,} clicks: {seconds:.1f} s, {found:,} candidates"
    users = asked["user_id"].sample(min(SAMPLE_USERS, len(asked)), seed=0)
    some = Log(log.format, log.clicks.filter(pl.col("user_id").is_in(users.implode())), log.articles)
    few = asked.filter(pl.col("user_id").is_in(users.implode()))
    ours, _ = _vectorised(some, few)
    began = time.perf_counter()
    _dictionaries(some.clicks)
    plain = time.perf_counter() - began
    yield (
        f"sample of {len(few):,} users, {len(some.clicks):,} clicks: dictionaries {plain:.1f} s, "
        f"vectorised {ours:.1f} s, ratio {plain / ours:.1f}"
    )


def _last_moments(log: Log) -> pl.DataFrame:
    last = log.clicks.group_by("user_id").agg(pl.col("clicked_at").max()).sort("user_id")
    if log.held_out_users is not None:
        last = last.join(log.held_out_users, on="user_id", how="semi")
    at = (last["clicked_at"].dt.timestamp("ms") + 1).cast(TIME)
    ids = np.arange(len(last), dtype=np.int64)
    return last.select("user_id").with_columns(
        pl.Series("request_id", ids), at.alias("requested_at"), at.alias("statistics_at")
    )


def _vectorised(log: Log, asked: pl.DataFrame) -> tuple[float, int]:
    began = time.perf_counter()
    store = EventStore(log.clicks, log.articles)
    channel = CHANNELS["itemcf"]().fit(store, RecallSettings(refresh_ms=30 * MINUTE, depth=PLACES))
    candidates = channel.recall(RecallRequests.of(asked, store))
    return time.perf_counter() - began, len(candidates)


def _dictionaries(clicks: pl.DataFrame) -> dict[object, list[object]]:
    """Every pair of every history into nested dictionaries, normalised; then each user's best neighbours.

    Unlike ours it uses the whole log for everybody, the future of each request included.
    """
    histories: dict[object, list[object]] = defaultdict(list)
    for user, item in clicks.sort("user_id", "clicked_at").select("user_id", "item_id").iter_rows():
        histories[user].append(item)
    similarity: dict[object, dict[object, float]] = defaultdict(lambda: defaultdict(float))
    count: dict[object, int] = defaultdict(int)
    for items in histories.values():
        for i, one in enumerate(items):
            count[one] += 1
            for j, other in enumerate(items):
                if one != other:
                    weight = (1.0 if j > i else 0.7) * 0.9 ** (abs(i - j) - 1)
                    similarity[one][other] += weight / math.log(1 + len(items))
    for one, row in similarity.items():
        for other in row:
            row[other] /= math.sqrt(count[one] * count[other])
    answers = {}
    for user, items in histories.items():
        scores: dict[object, float] = defaultdict(float)
        for age, item in enumerate(reversed(items)):
            best = sorted(similarity[item].items(), key=lambda pair: -pair[1])[:PLACES]
            for other, value in best:
                if other not in items:
                    scores[other] += value * 0.7**age
        answers[user] = sorted(scores, key=lambda item: -scores[item])[:PLACES]
    return answers
