"""What every item-to-item channel shares: the last clicks of a user propose their neighbours of the last refresh.

A channel says how alike articles are at a refresh; here the best neighbours are kept, looked up and added up:
score(u, j) = sum over the last clicks i of u of decay ** age(i) * similarity(i, j).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Generic, Protocol, Self, TypeVar

import numpy as np
import polars as pl
from scipy.sparse import csr_matrix

from features.events import EventStore, history
from features.windows import Ints, grid_before, places_in
from newsrec.recall.base import RecallRequests, RecallSettings, nothing
from newsrec.recall.dense import best_stored

FEW_SOURCES = 500
"""So few articles at one refresh are looked up in a table of all, which is kept until another refresh is asked for."""

CHUNK_EXPANSIONS = 8_000_000
"""Rows of (request, history item, neighbour) handled at once; bounds the memory."""

SIMILAR: dict[str, type[pl.DataType]] = {"source": pl.Int64, "target": pl.Int64, "similarity": pl.Float64}

Similar = Callable[[int, Ints], pl.DataFrame]
"""(refresh, article codes) -> `source, target, similarity` of all their neighbours in any order, columns `SIMILAR`. The
similarity (> 0) must not depend on which other articles are asked for, to the last bit."""


@dataclass(frozen=True)
class HistoryWeights:
    """How a user's clicks count."""

    history: int
    """Last clicks of the user that propose articles, >= 1."""
    decay: float
    """Weight of each click further back, 0..1."""
    neighbours: int
    """Best neighbours kept per article and refresh, >= 1."""


class ItemToItem:
    """Lists of an item-to-item channel over a log.

    Args:
        store: The log that the channel was fitted on.
        settings: Of the channel.
        weights: How a user's clicks count.
        similar: The channel's own: how alike articles are.
    """

    def __init__(self, store: EventStore, settings: RecallSettings, weights: HistoryWeights, similar: Similar) -> None:
        self._store, self._settings, self._weights, self._similar = store, settings, weights, similar
        self._whole: tuple[int, pl.DataFrame] | None = None

    def recall(self, requests: RecallRequests) -> pl.DataFrame:
        """Propose articles; see `newsrec.recall.base.Channel`."""
        row, place, age = history(requests.store, requests.user, requests.at, self._weights.history)
        source = requests.store.tables["clicks"]["item"][place]
        if requests.store.n_items > self._store.n_items:  # a running store that has met others since
            known = source < self._store.n_items
            row, source, age = row[known], source[known], age[known]
        asked = pl.DataFrame(
            {
                "row": row.astype(np.uint32),
                "grid": grid_before(requests.statistics_at, self._settings.refresh_ms)[row],
                "source": source,
                "weight": self._weights.decay ** age.astype(np.float64),
            }
        )
        neighbours = self._neighbours(asked.select("grid", "source").unique())
        parts = [self._score(part, neighbours, requests) for part in self._chunks(asked)]
        return pl.concat(parts) if parts else nothing()

    def table(self, at: int) -> pl.DataFrame:
        """All neighbours of the last refresh before `at` (ms): `item_id, neighbour_id, similarity`, best first."""
        best = self._of_grid(at // self._settings.refresh_ms, np.arange(self._store.n_items, dtype=np.int64))
        best = best.sort(["source", "similarity", "target"], descending=[False, True, False])
        return pl.DataFrame(
            {
                "item_id": self._store.items.gather(best["source"]),
                "neighbour_id": self._store.items.gather(best["target"]),
                "similarity": best["similarity"].cast(pl.Float32),
            }
        )

    def _neighbours(self, wanted: pl.DataFrame) -> pl.DataFrame:
        """Best neighbours `grid, source, target, similarity` of each wanted (grid, source), sorted by these."""
        grids = wanted["grid"].unique()
        if len(grids) == 1 and len(wanted) <= FEW_SOURCES:
            return self._looked_up(int(grids[0]), wanted["source"].sort().to_numpy())
        # In order of time: a channel that trains goes on from the model before.
        tables = [
            self._of_grid(int(grid), sources["source"].to_numpy())
            for (grid,), sources in wanted.sort("grid").partition_by("grid", as_dict=True).items()
        ]
        return pl.concat(tables) if tables else pl.DataFrame(schema={**SIMILAR, "grid": pl.Int64})

    def _looked_up(self, grid: int, sources: Ints) -> pl.DataFrame:
        kept = self._whole
        if kept is None or kept[0] != grid:
            table = self._of_grid(grid, np.arange(self._store.n_items, dtype=np.int64))
            kept = self._whole = (grid, table.sort("source", maintain_order=True))
        neighbours = kept[1]
        known = neighbours["source"].to_numpy()
        start, end = np.searchsorted(known, sources, side="left"), np.searchsorted(known, sources, side="right")
        length = end - start
        place = np.arange(length.sum()) + np.repeat(start - np.cumsum(length) + length, length)
        chosen: pl.DataFrame = neighbours[place]
        return chosen

    def _of_grid(self, grid: int, sources: Ints) -> pl.DataFrame:
        """Best neighbours of some articles at one refresh, ties by the article's id."""
        found = self._similar(grid, sources)
        tie = pl.Series("tie", self._store.item_order[found["target"].to_numpy()])
        return (
            found.with_columns(tie, pl.lit(grid, pl.Int64).alias("grid"))
            .sort(["source", "similarity", "tie"], descending=[False, True, False])
            .group_by("source", maintain_order=True)
            .head(self._weights.neighbours)
            .drop("tie")
        )

    def _chunks(self, asked: pl.DataFrame) -> list[pl.DataFrame]:
        """Cut between requests, so that no request is in two chunks; `asked` is in order of rows."""
        if asked.is_empty():
            return []
        rows_per_chunk = max(1, CHUNK_EXPANSIONS // (self._weights.neighbours * self._weights.history))
        chunk = asked["row"].to_numpy() // rows_per_chunk
        cuts = np.flatnonzero(np.diff(chunk)) + 1
        bounds = [0, *cuts.tolist(), len(asked)]
        return [asked[low:high] for low, high in pairwise(bounds)]

    def _score(self, asked: pl.DataFrame, neighbours: pl.DataFrame, requests: RecallRequests) -> pl.DataFrame:
        n_items = self._store.n_items
        # Neighbours stand by refresh and source, so each source's are a row of a matrix.
        source = neighbours["grid"].to_numpy() * n_items + neighbours["source"].to_numpy()
        borders = np.flatnonzero(np.diff(source, prepend=-1, append=-1)) if len(source) else np.zeros(1, np.int64)
        values = neighbours["similarity"].to_numpy(), neighbours["target"].to_numpy(), borders
        alike = csr_matrix(values, shape=(len(borders) - 1, n_items))
        place = places_in(source[borders[:-1]], asked["grid"].to_numpy() * n_items + asked["source"].to_numpy())
        told = asked.filter(place >= 0)
        votes = told["weight"].to_numpy(), (told["row"].to_numpy(), place[place >= 0])
        scores = csr_matrix(votes, shape=(len(requests.at), alike.shape[0])) @ alike
        # Rounded: a float sum must not show in which order its terms were added.
        scores.data = np.round(scores.data, 9)
        return best_stored(scores, np.arange(len(requests.at)), requests, self._settings.depth)


class NeighbourParams(Protocol):
    """What the parameters of every item-to-item channel tell; see `HistoryWeights`."""

    @property
    def history(self) -> int: ...

    @property
    def history_decay(self) -> float: ...

    @property
    def neighbours(self) -> int: ...


P = TypeVar("P", bound=NeighbourParams)


class NeighbourChannel(ABC, Generic[P]):
    """A `newsrec.recall.base.Channel` that is item-to-item: a subclass says how alike articles are, and its `reach`."""

    def __init__(self, params: P) -> None:
        self.params = params

    @property
    def last_clicks(self) -> int:
        return self.params.history

    def lacks(self, store: EventStore) -> str | None:
        return None

    def fit(self, store: EventStore, settings: RecallSettings) -> Self:
        """Take the log; see `newsrec.recall.base.Channel`."""
        p = self.params
        self._prepare(store, settings)
        weights = HistoryWeights(p.history, p.history_decay, p.neighbours)
        self._lists = ItemToItem(store, settings, weights, self._similar)
        return self

    def recall(self, requests: RecallRequests) -> pl.DataFrame:
        return self._lists.recall(requests)

    def table(self, at: int) -> pl.DataFrame:
        return self._lists.table(at)

    @abstractmethod
    def _prepare(self, store: EventStore, settings: RecallSettings) -> None:
        """What `_similar` needs of the log."""

    @abstractmethod
    def _similar(self, grid: int, sources: Ints) -> pl.DataFrame:
        """See `Similar`."""
