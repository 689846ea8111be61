"""Popular among readers like this one: those of the same region, on the same device, who came by the same way.

Readers are described by the context of their last click. A segment is one value of one context column; an article's
score is the sum over the columns of its share of the segment's clicks, the newest clicks counting most:
score(u, i) = sum over columns c of clicks(i, c = c(u)) / clicks(c = c(u)). Mixtures of popularity by group are what
demographic recommenders start from (Pazzani 1999, "A framework for collaborative, content-based and demographic
filtering", section 2.3).
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import polars as pl

from features.events import EventStore, history
from features.windows import Ints, grid_before
from newsrec.recall.base import RecallRequests, RecallSettings, by_score, distinct, nothing, window_weights
from newsrec.recall.dense import Floats, best_of, read_matrix, rows_at_once


@dataclass(frozen=True)
class SegmentParams:
    """Which segments there are, and which clicks count how much."""

    columns: tuple[str, ...] = ("region", "device", "referrer")
    """Names in `features.columns.CONTEXT`; those that a log lacks are left out."""
    windows_hours: tuple[float, ...] = (0.5, 2.0, 12.0)
    """Windows before the refresh, hours."""
    weights: tuple[int, ...] = (1_000, 100, 1)
    """Weight of a click in each window (a click of the last minutes counts in all of them)."""


@dataclass(frozen=True)
class _Shares:
    """One refresh."""

    item: Ints
    """What was clicked, ascending codes."""
    share: Floats
    """Of each article in the weighed clicks of each segment, shape (n_segments + 1, n_clicked); the last is of nobody:
    zeros."""


class Segment:
    """The `segment` channel."""

    def __init__(self, params: SegmentParams = SegmentParams()) -> None:
        self.params = params

    last_clicks = 1

    def reach(self, settings: RecallSettings) -> int:
        return (max(map(settings.buckets, self.params.windows_hours)) + 1) * settings.refresh_ms

    def lacks(self, store: EventStore) -> str | None:
        there = set(self.params.columns) & set(store.context_ids)
        return None if there else f"clicks with any of {list(self.params.columns)}"

    def fit(self, store: EventStore, settings: RecallSettings) -> Self:
        self._store, self._settings = store, settings
        self._steps = [settings.buckets(hours) for hours in self.params.windows_hours]
        self._columns = [name for name in self.params.columns if name in store.context_ids]
        self._sizes = [len(store.context_ids[name].values) for name in self._columns]
        *self._offset, self._segments = np.cumsum([0, *self._sizes]).tolist()
        table = store.tables["clicks"]
        bucket = table["time"] // settings.refresh_ms
        recent = np.flatnonzero(bucket >= settings.first_bucket(max(self._steps)))
        recent = recent[np.argsort(bucket[recent], kind="stable")]
        self._bucket, self._item = bucket[recent], table["item"][recent].astype(np.int32)
        self._segment = [
            self._of(column, table[name][recent]).astype(np.int32) for column, name in enumerate(self._columns)
        ]
        self._kept: tuple[int, _Shares] | None = None
        return self

    def table(self, at: int) -> pl.DataFrame:
        """Lists of the last refresh before `at` (ms): `column, value` (as text), `item_id, score`, best first."""
        found = self._shares(at // self._settings.refresh_ms)
        names = [name for name in self._columns for _ in self._store.context_ids[name].values]
        values = [v for name in self._columns for v in self._store.context_ids[name].values.cast(pl.String)]
        segment, column = np.nonzero(found.share)
        told = pl.DataFrame(
            {
                "column": pl.Series(names, dtype=pl.String).gather(segment),
                "value": pl.Series(values, dtype=pl.String).gather(segment),
                "item": found.item[column],
                "score": found.share[segment, column],
            }
        )
        best = by_score(told, self._store, "column", "value").group_by("column", "value", maintain_order=True)
        top = best.head(self._settings.depth)
        return top.select(
            "column",
            "value",
            self._store.items.gather(top["item"]).alias("item_id"),
            pl.col("score").cast(pl.Float32),
        )

    def recall(self, requests: RecallRequests) -> pl.DataFrame:
        grid, read = grid_before(requests.statistics_at, self._settings.refresh_ms), read_matrix(requests)
        row, place, _ = history(requests.store, requests.user, requests.at, 1)
        table, parts = requests.store.tables["clicks"], []
        segments = [self._of(column, table[name][place]) for column, name in enumerate(self._columns)]
        for refresh in np.unique(grid[row]).tolist():
            known, own = self._shares(refresh), np.flatnonzero(grid[row] == refresh)
            per_block = rows_at_once(len(known.item))
            for start in range(0, len(own), per_block):
                some = own[start : start + per_block]
                scores = np.zeros((len(some), len(known.item)))
                for segment in segments:
                    scores += known.share[segment[some]]
                parts.append(best_of(scores, row[some], known.item, requests, read, self._settings.depth))
        return pl.concat(parts).sort("row", "rank") if parts else nothing()

    def _of(self, column: int, value: Ints) -> Ints:
        """Number of the segment of each value of a column; that of nobody where it is unknown."""
        known = (value >= 0) & (value < self._sizes[column])
        segment: Ints = np.where(known, self._offset[column] + value, self._segments)
        return segment

    def _shares(self, grid: int) -> _Shares:
        """Of one refresh; the last answer is kept, for requests one by one."""
        kept = self._kept
        if kept is None or kept[0] != grid:
            kept = self._kept = (grid, self._computed(grid))
        return kept[1]

    def _computed(self, grid: int) -> _Shares:
        low, high = np.searchsorted(self._bucket, [grid - max(self._steps), grid])
        weight = window_weights(self._bucket[low:high], grid, self._steps, self.params.weights)
        item, place = distinct(self._item[low:high])
        place = place[self._item[low:high]]
        shape = (self._segments + 1, len(item))
        weighed = np.zeros(shape[0] * shape[1])
        for segment in self._segment:
            # Whole numbers below 2 ** 53: exact in any order.
            weighed += np.bincount(segment[low:high] * np.int64(shape[1]) + place, weight, len(weighed))
        weighed = weighed.reshape(shape)
        weighed[-1] = 0.0
        return _Shares(item, weighed / np.maximum(weighed.sum(axis=1, keepdims=True), 1.0))
