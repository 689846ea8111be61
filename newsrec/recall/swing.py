"""Swing: two articles are alike if pairs of readers who share little else read both.

s(i, j) = sum over pairs of common readers u, v of w(u) w(v) / (alpha + |I(u) & I(v)|), w(u) = 1 / sqrt(|I(u)|), I(u)
what u read in the window (Yang, Zhu, Cai, Zhu, Peng, Wang & Hu 2020, "Large scale product graph construction for
recommendation in e-commerce", arXiv:2010.05525, section 3.1). A pair of readers closes a "swing" that one noisy reader
cannot. Pairs grow with the square of an article's readers: only the last readers of the article i make pairs.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy.sparse import csr_matrix, triu

from features.events import EventStore
from features.windows import Ints
from newsrec.recall.base import RecallSettings
from newsrec.recall.neighbours import NeighbourChannel
from newsrec.recall.windows import ReadingWindows, entries, row_counts, scaled_rows


@dataclass(frozen=True)
class SwingParams:
    """Which pairs of readers count how much."""

    window_hours: float = 24.0
    """How long a reading is remembered, hours, > 0."""
    alpha: float = 1.0
    """Smoothing of what a pair of readers shares, >= 0."""
    per_user: int = 20
    """Last clicks of a reader that count, >= 2."""
    per_item: int = 40
    """Last readers of an article that make pairs, >= 2: the cost is its square."""
    history: int = 3
    """Last clicks of the user that propose articles, >= 1."""
    history_decay: float = 0.5
    """Weight of each click further back, 0..1."""
    neighbours: int = 200
    """Best neighbours kept per article and refresh, >= 1."""


UNIT = 1_000_000
"""Weights of pairs of readers are kept in millionths, so that sums are exact in any order."""

PAIRS_AT_ONCE = 400_000
"""Pairs of readers whose common articles are laid out at once; bounds the memory."""


class Swing(NeighbourChannel[SwingParams]):
    """The `swing` channel."""

    def __init__(self, params: SwingParams = SwingParams()) -> None:
        super().__init__(params)

    def reach(self, settings: RecallSettings) -> int:
        return (settings.buckets(self.params.window_hours) + 1) * settings.refresh_ms

    def _prepare(self, store: EventStore, settings: RecallSettings) -> None:
        p = self.params
        self._windows = ReadingWindows(store, settings, p.window_hours, p.per_user, p.per_item)

    def _similar(self, grid: int, sources: Ints) -> pl.DataFrame:
        readings = self._windows.at(grid)
        read, last = readings.read, readings.last_readers()
        busy = np.flatnonzero(row_counts(read) >= 2)  # who read a single article closes no swing
        read, last = read[busy], last[busy][:, sources]  # (readers, articles), (readers, sources)
        # Pairs of readers that share one of the sources, each once.
        first, second, _ = entries(triu(last @ last.T, 1, format="csr"))
        swings = csr_matrix((len(sources), read.shape[1]), dtype=np.int64)
        for start in range(0, len(first), PAIRS_AT_ONCE):
            pair = first[start : start + PAIRS_AT_ONCE], second[start : start + PAIRS_AT_ONCE]
            swings += self._swings(read, last, *pair)
        row, target, weight = entries(swings)
        found = pl.DataFrame({"source": sources[row], "target": target, "similarity": weight / UNIT})
        return found.filter(pl.col("source") != pl.col("target"))

    def _swings(self, read: csr_matrix, last: csr_matrix, first: Ints, second: Ints) -> csr_matrix:
        """Weights that some pairs of readers give to (source, article), shape (n_sources, n_items)."""
        shared = read[first].multiply(read[second]).tocsr()  # (pairs, articles)
        common, readings = row_counts(shared), row_counts(read)
        closed = np.flatnonzero(common >= 2)
        first, second, shared = first[closed], second[closed], shared[closed]
        weight = UNIT / np.sqrt(readings[first] * readings[second]) / (self.params.alpha + common[closed])
        sources = last[first].multiply(last[second]).tocsr()  # (pairs, sources)
        return sources.T @ scaled_rows(shared, np.rint(weight).astype(np.int64))
