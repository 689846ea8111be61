"""Projection of the network of readers and articles onto articles: attention flows to readers and back.

Each article spreads its attention evenly over its readers, and each reader spreads what arrived evenly over what they
read: w(i -> j) = 1 / k(i) * sum over common readers u of 1 / k(u), k = number of readings in the window (Zhou, Ren,
Medo & Zhang 2007, "Bipartite network projection and personal recommendation", equation 6). Busy readers say little.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from features.events import EventStore
from features.windows import Ints
from newsrec.recall.base import RecallSettings
from newsrec.recall.neighbours import NeighbourChannel
from newsrec.recall.windows import ReadingWindows, column_counts, entries, row_counts, scaled_rows


@dataclass(frozen=True)
class BiNetworkParams:
    """What is projected."""

    window_hours: float = 12.0
    """How long a reading is remembered, hours, > 0."""
    per_user: int = 30
    """Last clicks of a reader that count, >= 2."""
    popularity_power: float = 0.0
    """Exponent of the target's readings in a denominator: 0 is the paper's, 1 favours the niche."""
    history: int = 3
    """Last clicks of the user that propose articles, >= 1."""
    history_decay: float = 0.5
    """Weight of each click further back, 0..1."""
    neighbours: int = 200
    """Best neighbours kept per article and refresh, >= 1."""


UNIT = 1_000_000
"""Shares of attention are kept in millionths, so that sums are exact in any order."""


class BiNetwork(NeighbourChannel[BiNetworkParams]):
    """The `binetwork` channel."""

    def __init__(self, params: BiNetworkParams = BiNetworkParams()) -> None:
        super().__init__(params)

    def reach(self, settings: RecallSettings) -> int:
        return (settings.buckets(self.params.window_hours) + 1) * settings.refresh_ms

    def _prepare(self, store: EventStore, settings: RecallSettings) -> None:
        self._windows = ReadingWindows(store, settings, self.params.window_hours, self.params.per_user)

    def _similar(self, grid: int, sources: Ints) -> pl.DataFrame:
        read = self._windows.at(grid).read  # (users, items)
        share = UNIT // np.maximum(row_counts(read), 1)
        readings = column_counts(read)
        known = sources[readings[sources] > 0]
        flow = read.tocsc()[:, known].T.tocsr() @ scaled_rows(read, share)  # (known, items)
        row, target, attention = entries(flow)
        source = known[row]
        similarity = attention / UNIT / readings[source] / readings[target] ** self.params.popularity_power
        found = pl.DataFrame({"source": source, "target": target, "similarity": similarity})
        return found.filter(pl.col("source") != pl.col("target"))
