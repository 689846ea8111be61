"""Item-to-item collaborative filtering on co-visitation: what people read right after and right before this article.

Pairs of clicks of one user become known at the later click. They are added up per half hour (the refresh grid), and a
request sees the sum over the last `window` before its refresh. Weights are whole numbers, so the sums are exact in any
order. Direction and distance weights: public write-ups of the Tianchi news competition (forward 1.0, backward 0.7,
0.9 per place); the cosine-like denominator: Deshpande & Karypis 2004, "Item-based top-N recommendation", section 4.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np
import polars as pl

from features.columns import HOUR
from features.events import EventStore, history
from features.windows import Ints, grid_before, previous_in_sequence
from newsrec.recall.base import (
    RecallRequests,
    RecallSettings,
    alive,
    clicked_before,
    clicks_per_bucket,
    top_rows,
)


@dataclass(frozen=True)
class ItemCFParams:
    """How pairs are weighed and remembered."""

    window_hours: float = 24.0
    """How long a pair of clicks is remembered, hours, > 0."""
    places: int = 3
    """Largest distance in the user's sequence that makes a pair, >= 1."""
    backward: float = 0.7
    """Weight of a pair against the direction of reading, 0..1."""
    place_decay: float = 0.8
    """Weight per place of distance, 0..1."""
    gap_hours: float = 3.0
    """A pair this far apart in time weighs half, hours, > 0."""
    popularity_power: float = 0.4
    """Exponent of the target's clicks in the denominator: 0 favours the popular, 1 the niche."""
    history: int = 3
    """Last clicks of the user that propose articles, >= 1."""
    history_decay: float = 0.5
    """Weight of each click further back, 0..1."""
    neighbours: int = 100
    """Best neighbours kept per article and refresh, >= 1."""


WEIGHT_UNIT = 1_000
"""Pair weights are kept in thousandths."""

FEW_SOURCES = 500
"""So few articles at one refresh are looked up in a table of all, which is kept until another refresh is asked for."""

CHUNK_EXPANSIONS = 8_000_000
"""Rows of (request, history item, neighbour) handled at once; bounds the memory."""


class ItemCF:
    """The `itemcf` channel."""

    def __init__(self, params: ItemCFParams = ItemCFParams()) -> None:
        self.params = params

    @property
    def last_clicks(self) -> int:
        return max(self.params.places, self.params.history)

    def reach(self, settings: RecallSettings) -> int:
        return (self._buckets(settings) + 1) * settings.refresh_ms

    def fit(self, store: EventStore, settings: RecallSettings) -> Self:
        self._store = store
        self._settings = settings
        self._window = self._buckets(settings)
        self._first_bucket = settings.first_bucket(self._window)
        self._pairs = self._count_pairs()
        self._clicks = clicks_per_bucket(store, settings, self._first_bucket)
        self._whole: tuple[int, pl.DataFrame] | None = None
        return self

    def recall(self, requests: RecallRequests) -> pl.DataFrame:
        row, place, age = history(requests.store, requests.user, requests.at, self.params.history)
        asked = pl.DataFrame(
            {
                "row": row.astype(np.uint32),
                "grid": grid_before(requests.statistics_at, self._settings.refresh_ms)[row],
                "source": requests.store.tables["clicks"]["item"][place],
                "weight": self.params.history_decay ** age.astype(np.float64),
            }
        )
        neighbours = self._neighbours(asked.select("grid", "source").unique())
        seen = clicked_before(requests)
        parts = [self._score(part, neighbours, seen, requests) for part in self._chunks(asked)]
        return pl.concat(parts) if parts else _nothing()

    def table(self, at: int) -> pl.DataFrame:
        sources = pl.DataFrame({"source": np.arange(self._store.n_items, dtype=np.int64)})
        grid = at // self._settings.refresh_ms
        best = self._neighbours(sources.with_columns(pl.lit(grid, pl.Int64).alias("grid")))
        best = best.sort(["source", "similarity", "target"], descending=[False, True, False])
        return pl.DataFrame(
            {
                "item_id": self._store.items.gather(best["source"]),
                "neighbour_id": self._store.items.gather(best["target"]),
                "similarity": best["similarity"].cast(pl.Float32),
            }
        )

    def _buckets(self, settings: RecallSettings) -> int:
        """Refreshes that a pair is remembered."""
        return max(1, round(self.params.window_hours * HOUR / settings.refresh_ms))

    def _count_pairs(self) -> pl.DataFrame:
        """Pair weights per refresh bucket: `bucket, source, target, weight`, sorted by bucket."""
        s, p = self._store.sequences, self.params
        frames = []
        for distance in range(1, p.places + 1):
            before = previous_in_sequence(s.user, distance)
            recent = s.time // self._settings.refresh_ms >= self._first_bucket
            later = np.flatnonzero(recent & (before >= 0) & (s.item[before] != s.item))
            earlier = before[later]
            gap = (s.time[later] - s.time[earlier]) / (p.gap_hours * HOUR)
            weight = WEIGHT_UNIT * p.place_decay ** (distance - 1) / (1.0 + gap)
            bucket = s.time[later] // self._settings.refresh_ms
            frames += [
                _pairs(bucket, s.item[earlier], s.item[later], weight),
                _pairs(bucket, s.item[later], s.item[earlier], weight * p.backward),
            ]
        return pl.concat(frames).group_by("bucket", "source", "target").agg(pl.col("weight").sum()).sort("bucket")

    def _neighbours(self, wanted: pl.DataFrame) -> pl.DataFrame:
        """Best neighbours `grid, source, target, similarity` of each wanted (grid, source)."""
        grids = wanted["grid"].unique()
        if len(grids) == 1 and len(wanted) <= FEW_SOURCES:
            return self._looked_up(int(grids[0]), wanted["source"].to_numpy())
        return self._computed(wanted)

    def _looked_up(self, grid: int, sources: Ints) -> pl.DataFrame:
        kept = self._whole
        if kept is None or kept[0] != grid:
            everything = pl.DataFrame({"source": np.arange(self._store.n_items, dtype=np.int64)})
            table = self._computed(everything.with_columns(pl.lit(grid, pl.Int64).alias("grid")))
            kept = self._whole = (grid, table.sort("source", maintain_order=True))
        neighbours = kept[1]
        known = neighbours["source"].to_numpy()
        start, end = np.searchsorted(known, sources, side="left"), np.searchsorted(known, sources, side="right")
        length = end - start
        place = np.arange(length.sum()) + np.repeat(start - np.cumsum(length) + length, length)
        chosen: pl.DataFrame = neighbours[place]
        return chosen

    def _computed(self, wanted: pl.DataFrame) -> pl.DataFrame:
        buckets, click_buckets = self._pairs["bucket"].to_numpy(), self._clicks["bucket"].to_numpy()
        tables = []
        for (grid,), sources in wanted.partition_by("grid", as_dict=True).items():
            low, high = np.searchsorted(buckets, [grid - self._window, grid])
            pairs = self._pairs[int(low) : int(high)].join(sources, on="source", how="semi")
            low, high = np.searchsorted(click_buckets, [grid - self._window, grid])
            clicks = self._clicks[int(low) : int(high)].group_by("item").agg(pl.col("n").sum())
            tables.append(self._rank_neighbours(pairs, clicks).with_columns(pl.lit(grid, pl.Int64).alias("grid")))
        return pl.concat(tables) if tables else wanted.clear().with_columns(target=pl.lit(0), similarity=pl.lit(0.0))

    def _rank_neighbours(self, pairs: pl.DataFrame, clicks: pl.DataFrame) -> pl.DataFrame:
        similarity = (
            pl.col("weight")
            / WEIGHT_UNIT
            / pl.col("n").sqrt()
            / pl.col("n_target").cast(pl.Float64).pow(self.params.popularity_power)
        )
        return (
            pairs.group_by("source", "target")
            .agg(pl.col("weight").sum())
            # A neighbour may have been clicked before the window began only: count it as clicked once.
            .join(clicks, left_on="source", right_on="item", how="left")
            .join(clicks.rename({"n": "n_target"}), left_on="target", right_on="item", how="left")
            .with_columns(pl.col("n", "n_target").fill_null(1))
            .select("source", "target", similarity.alias("similarity"), self._tie("target"))
            .sort(["source", "similarity", "tie"], descending=[False, True, False])
            .group_by("source", maintain_order=True)
            .head(self.params.neighbours)
            .drop("tie")
        )

    def _tie(self, name: str) -> pl.Expr:
        """Order of the articles' ids, which breaks ties."""
        order = pl.Series(self._store.item_order)
        return pl.col(name).map_batches(order.gather, return_dtype=pl.Int64).alias("tie")

    def _chunks(self, asked: pl.DataFrame) -> list[pl.DataFrame]:
        """Cut between requests, so that no request is in two chunks; `asked` is in order of rows."""
        if asked.is_empty():
            return []
        rows_per_chunk = max(1, CHUNK_EXPANSIONS // (self.params.neighbours * self.params.history))
        chunk = asked["row"].to_numpy() // rows_per_chunk
        cuts = np.flatnonzero(np.diff(chunk)) + 1
        bounds = [0, *cuts.tolist(), len(asked)]
        return [asked[low:high] for low, high in pairwise(bounds)]

    def _score(
        self, asked: pl.DataFrame, neighbours: pl.DataFrame, seen: pl.DataFrame, requests: RecallRequests
    ) -> pl.DataFrame:
        scored = (
            asked.join(neighbours, on=["grid", "source"])
            .group_by("row", pl.col("target").alias("item"))
            # Rounded: the terms arrive in any order, and their float sum must not show it.
            .agg((pl.col("weight") * pl.col("similarity")).sum().round(9).alias("score"))
            .join(seen, on=["row", "item"], how="anti")
        )
        return top_rows(alive(scored, requests), requests, self._settings.depth)


def _pairs(bucket: Ints, source: Ints, target: Ints, weight: np.ndarray) -> pl.DataFrame:
    # A weight that is switched off makes no pair; a small one is not rounded away.
    whole = np.where(weight > 0, np.maximum(np.rint(weight), 1), 0).astype(np.int64)
    pairs = pl.DataFrame({"bucket": bucket, "source": source, "target": target, "weight": whole})
    frame = pairs.filter(pl.col("weight") > 0)
    return frame.group_by("bucket", "source", "target").agg(pl.col("weight").sum())


def _nothing() -> pl.DataFrame:
    return pl.DataFrame(schema={"row": pl.UInt32, "item": pl.Int64, "score": pl.Float32, "rank": pl.UInt16})
