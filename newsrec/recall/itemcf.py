"""Item-to-item collaborative filtering on co-visitation: what people read right after and right before this article.

Pairs of clicks of one user become known at the later click. They are added up per half hour (the refresh grid), and a
request sees the sum over the last `window` before its refresh. Weights are whole numbers, so the sums are exact in any
order. Direction and distance weights: public write-ups of the Tianchi news competition (forward 1.0, backward 0.7,
0.9 per place); the cosine-like denominator: Deshpande & Karypis 2004, "Item-based top-N recommendation", section 4.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy.sparse import csr_matrix

from features.columns import HOUR
from features.events import EventStore
from features.windows import Ints, previous_in_sequence
from newsrec.recall.base import RecallSettings, clicks_per_bucket
from newsrec.recall.neighbours import NeighbourChannel
from newsrec.recall.windows import entries


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
STEPS = 24
"""So many refreshes further, what comes in and falls out is added up; later, the whole window."""


class ItemCF(NeighbourChannel[ItemCFParams]):
    """The `itemcf` channel."""

    def __init__(self, params: ItemCFParams = ItemCFParams()) -> None:
        super().__init__(params)

    @property
    def last_clicks(self) -> int:
        return max(self.params.places, self.params.history)

    def reach(self, settings: RecallSettings) -> int:
        return (self._buckets(settings) + 1) * settings.refresh_ms

    def _prepare(self, store: EventStore, settings: RecallSettings) -> None:
        self._store = store
        self._settings = settings
        self._window = self._buckets(settings)
        self._first_bucket = settings.first_bucket(self._window)
        self._pairs = self._count_pairs()
        self._kept: tuple[int, csr_matrix] | None = None
        self._clicks = clicks_per_bucket(store, settings, self._first_bucket)

    def _buckets(self, settings: RecallSettings) -> int:
        """Refreshes that a pair is remembered."""
        return max(1, round(self.params.window_hours * HOUR / settings.refresh_ms))

    def _count_pairs(self) -> pl.DataFrame:
        """Weights of all pairs, each by itself: `bucket, source, target, weight`, sorted by the refresh bucket."""
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
        return pl.concat(frames).sort("bucket")

    def _similar(self, grid: int, sources: Ints) -> pl.DataFrame:
        source, target, weight = entries(self._window_before(grid)[sources])
        source = sources[source]
        low, high = np.searchsorted(self._clicks["bucket"].to_numpy(), [grid - self._window, grid])
        clicks = self._clicks[int(low) : int(high)]
        n = np.zeros(self._store.n_items, np.int64)
        np.add.at(n, clicks["item"].to_numpy(), clicks["n"].to_numpy())
        # A neighbour may have been clicked before the window began only: count it as clicked once.
        n = np.maximum(n, 1).astype(np.float64)
        similarity = weight / WEIGHT_UNIT / np.sqrt(n)[source] / (n**self.params.popularity_power)[target]
        return pl.DataFrame({"source": source, "target": target, "similarity": similarity})

    def _window_before(self, grid: int) -> csr_matrix:
        """Weights of the pairs that a refresh remembers, whole numbers, (n_items, n_items); cheapest in order."""
        kept = self._kept
        if kept is None or not 0 <= grid - kept[0] <= STEPS:
            kept = (grid, self._summed(grid - self._window, grid))
        at, window = kept
        for step in range(at, grid):
            window = window + self._summed(step, step + 1) - self._summed(step - self._window, step - self._window + 1)
        self._kept = (grid, window)
        return window

    def _summed(self, first: int, until: int) -> csr_matrix:
        """Weights of the pairs of some buckets, shape (n_items, n_items)."""
        low, high = np.searchsorted(self._pairs["bucket"].to_numpy(), [first, until])
        source, target, weight = (self._pairs[name][int(low) : int(high)] for name in ("source", "target", "weight"))
        shape = (self._store.n_items, self._store.n_items)
        return csr_matrix((weight.to_numpy().astype(np.int64), (source.to_numpy(), target.to_numpy())), shape=shape)


def _pairs(bucket: Ints, source: Ints, target: Ints, weight: np.ndarray) -> pl.DataFrame:
    # A weight that is switched off makes no pair; a small one is not rounded away.
    whole = np.where(weight > 0, np.maximum(np.rint(weight), 1), 0).astype(np.int64)
    pairs = pl.DataFrame({"bucket": bucket, "source": source, "target": target, "weight": whole})
    # They are many, and of none of these does a number need more.
    return pairs.filter(pl.col("weight") > 0).cast(dict.fromkeys(("source", "target", "weight"), pl.Int32))
