"""What each recall channel finds of the clicks that are held out, what it alone finds, and how long it takes.

On a Tianchi folder with its labels: all test users, each at the instant after the last known click. Else the test part
of the log's own `last-click` split. Channels are asked for 200 articles; the union is all of theirs together.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from features.columns import TIME
from features.events import EventStore
from newsrec.data import Log, read_log
from newsrec.recall import CHANNELS, RecallRequests, RecallSettings, working
from newsrec.simulate import simulate
from newsrec.slates import split_for_recall
from newsrec.split import SplitConfig

DEPTHS = (5, 20, 50, 100, 200)
LABELS = "testA_labels.csv"
MISSED = 10**6


def run(data: Path | None) -> Iterator[str]:
    """One line per channel and one for all together."""
    log = simulate().log if data is None else read_log(data)
    store = EventStore(log.clicks, log.articles, log.impressions)
    asked, clicked = held_out(log, store, data)
    requests = RecallRequests.of(asked, store)
    yield f"{len(clicked):,} clicks of {len(asked):,} requests, {len(log.clicks):,} clicks known"
    heads = [f"@{depth}" for depth in DEPTHS]
    yield " ".join(
        [f"{'channel':<10}", *(f"{head:>7}" for head in heads), "alone@50 alone@200   fit s  recall s  per request"]
    )
    ranks, lines = {}, {}
    for name in working(store, print):
        began = time.perf_counter()
        channel = CHANNELS[name]().fit(store, RecallSettings(depth=max(DEPTHS)))
        fitted = time.perf_counter()
        found = channel.recall(requests)
        done = time.perf_counter()
        ranks[name] = ranks_of(clicked, found)
        lines[name] = f"{fitted - began:7.1f} {done - fitted:9.1f} {len(found) / max(len(asked), 1):12.1f}"
    for name, rank in ranks.items():
        others = [other for key, other in ranks.items() if key != name]
        best = np.minimum.reduce(others) if others else np.full(len(rank), MISSED)
        alone = [f"{((rank <= depth) & (best > depth)).mean():8.4f}" for depth in (50, 200)]
        yield " ".join([f"{name:<10}", *_hits(rank), *alone, lines[name]])
    yield " ".join([f"{'union':<10}", *_hits(np.minimum.reduce(list(ranks.values())))])


def _hits(rank: np.ndarray) -> list[str]:
    return [f"{(rank <= depth).mean():7.4f}" for depth in DEPTHS]


def ranks_of(clicked: pl.DataFrame, found: pl.DataFrame) -> np.ndarray:
    """Rank of each clicked article in a channel's list, `MISSED` where it is not there."""
    joined = clicked.join(found, on=["row", "item"], how="left", maintain_order="left")
    return joined["rank"].cast(pl.Int64).fill_null(MISSED).to_numpy()


def held_out(log: Log, store: EventStore, data: Path | None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Requests, and `row, item` of what was clicked at them."""
    if data is None or not (data / LABELS).is_file():
        split = split_for_recall(log, store, SplitConfig(validation="last-click"))
        asked = split.part("test")
        rows = asked.select("request_id").with_row_index("row")
        clicked = split.positives.join(rows, on="request_id")
        return asked, clicked.select("row", pl.Series("item", store.item_codes(clicked["item_id"])))
    labels = pl.read_csv(data / LABELS).select("user_id", item_id="click_article_id")
    last = log.clicks.group_by("user_id").agg(pl.col("clicked_at").max())
    users = labels.join(last, on="user_id").sort("clicked_at", "user_id")
    at = (users["clicked_at"].dt.timestamp("ms") + 1).cast(TIME)
    asked = users.select("user_id").with_columns(
        pl.Series("request_id", np.arange(len(users))), at.alias("requested_at"), at.alias("statistics_at")
    )
    items = pl.Series("item", store.item_codes(users["item_id"]))
    return asked, pl.DataFrame({"row": pl.Series(np.arange(len(users)), dtype=pl.UInt32), "item": items})
