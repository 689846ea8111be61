"""User-to-user collaborative filtering: what those read lately who read what the user read.

sim(u, v) = (a(u) + a(v)) / 2 / sqrt(n(u) n(v)) * sum over common articles i of 1 / log(1 + n(i)); the most similar
readers propose what they read, the newer the more. n counts readings in the window and a, the activity weight, is a
reader's share of the most readings that count: busy readers are better guides. Similarity over common items with a
damping of popular ones: Breese, Heckerman & Kadie 1998, "Empirical analysis of predictive algorithms for collaborative
filtering", section 2.1; the activity weight: public write-ups of the Tianchi news competition.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import polars as pl
from scipy.sparse import csr_matrix

from features.columns import HOUR
from features.events import EventStore, history
from features.windows import Ints, grid_before
from newsrec.recall.base import RecallRequests, RecallSettings, by_score, nothing
from newsrec.recall.dense import best_stored, rows_at_once
from newsrec.recall.windows import ReadingWindows, column_counts, entries, row_counts


@dataclass(frozen=True)
class UserCFParams:
    """Who is alike, and what they propose."""

    window_hours: float = 24.0
    """How long a reading is remembered, hours, > 0."""
    per_user: int = 30
    """Last clicks of a reader that count, >= 2; also what the activity weight is a share of."""
    per_item: int = 300
    """Last readers of an article that propose, >= 1."""
    half_life_hours: float = 2.0
    """A reading so old at the refresh proposes half as strongly, hours, > 0."""
    history: int = 3
    """Last clicks of the user that find readers, >= 1."""
    history_decay: float = 0.5
    """Weight of each click further back, 0..1."""


UNIT = 10_000
"""Weights are kept in whole numbers of this part, so that sums are exact in any order."""


@dataclass(frozen=True)
class _Readings:
    """One refresh."""

    grid: int
    readers: csr_matrix
    """Last readers of each article, shape (n_items, n_users)."""
    n_read: int
    """Articles that were read: more than that nobody can be proposed."""
    proposals: csr_matrix
    """What each reader proposes, by age, shape (n_users, n_items)."""
    rarity: Ints
    """1 / log(1 + readings) per article."""
    n: Ints
    """Readings per user."""


class UserCF:
    """The `usercf` channel."""

    def __init__(self, params: UserCFParams = UserCFParams()) -> None:
        self.params = params

    @property
    def last_clicks(self) -> int:
        return self.params.history

    def reach(self, settings: RecallSettings) -> int:
        return (settings.buckets(self.params.window_hours) + 1) * settings.refresh_ms

    def lacks(self, store: EventStore) -> str | None:
        return None

    def fit(self, store: EventStore, settings: RecallSettings) -> Self:
        p = self.params
        self._store, self._settings = store, settings
        self._windows = ReadingWindows(store, settings, p.window_hours, p.per_user, p.per_item)
        self._kept: _Readings | None = None
        return self

    def table(self, at: int) -> pl.DataFrame:
        """What each reader proposes at the last refresh before `at` (ms): `user_id, item_id, score`, best first."""
        known = self._readings(at // self._settings.refresh_ms)
        user, item, score = entries(known.proposals)
        found = pl.DataFrame({"user": self._store.user_order[user], "code": user, "item": item, "score": score})
        best = by_score(found, self._store, "user")
        return pl.DataFrame(
            {
                "user_id": self._store.users.gather(best["code"]),
                "item_id": self._store.items.gather(best["item"]),
                "score": (best["score"] / UNIT).cast(pl.Float32),
            }
        )

    def recall(self, requests: RecallRequests) -> pl.DataFrame:
        grid = grid_before(requests.statistics_at, self._settings.refresh_ms)
        row, place, age = history(requests.store, requests.user, requests.at, self.params.history)
        asked = pl.DataFrame(
            {
                "row": row,
                "grid": grid[row],
                "item": requests.store.tables["clicks"]["item"][place],
                "weight": np.rint(UNIT * self.params.history_decay ** age.astype(np.float64)).astype(np.int64),
            }
        ).filter(pl.col("item") < self._windows.shape[1])
        parts = []
        for (refresh,), own in asked.partition_by("grid", as_dict=True).items():
            known = self._readings(int(refresh))
            row, per_block = own["row"].to_numpy(), rows_at_once(known.n_read)
            for start in range(0, len(rows := np.unique(row)), per_block):
                some = rows[start : start + per_block]
                low, high = np.searchsorted(row, [some[0], some[-1] + 1])  # in order of the rows, as `history` is
                scores = self._scores(known, some, own[int(low) : int(high)], requests)
                parts.append(best_stored(scores, some, requests, self._settings.depth))
        return pl.concat(parts).sort("row", "rank") if parts else nothing()

    def _readings(self, grid: int) -> _Readings:
        """What is known at a refresh; the last answer is kept, for requests one by one."""
        kept = self._kept
        if kept is None or kept.grid != grid:
            found = self._windows.at(grid)
            age = (grid * self._settings.refresh_ms - found.time) / (self.params.half_life_hours * HOUR)
            strength = found.valued(np.rint(UNIT * np.exp2(-age)).astype(np.int64))
            readings = column_counts(found.read)
            rarity = np.rint(UNIT / np.log1p(np.maximum(readings, 1))).astype(np.int64)
            readers, n = found.last_readers().T.tocsr(), np.maximum(row_counts(found.read), 1)
            kept = self._kept = _Readings(grid, readers, int(np.count_nonzero(readings)), strength, rarity, n)
        return kept

    def _scores(self, known: _Readings, rows: Ints, asked: pl.DataFrame, requests: RecallRequests) -> csr_matrix:
        """What similar readers propose to some requests of one refresh, shape (n_rows, n_items)."""
        item = asked["item"].to_numpy()
        value = asked["weight"].to_numpy() * known.rarity[item]
        place = np.searchsorted(rows, asked["row"].to_numpy())
        common = csr_matrix((value, (place, item)), shape=(len(rows), self._windows.shape[1])) @ known.readers
        row, reader, shared = entries(common)  # (requests, users)
        own = requests.user[rows]
        others = reader != own[row]
        row, reader, shared = row[others], reader[others], shared[others]
        n = np.where(own < len(known.n), known.n[np.minimum(own, len(known.n) - 1)], 1)
        activity = (n[row] + known.n[reader]) / (2 * self.params.per_user)
        similarity = np.rint(shared / UNIT * activity / np.sqrt(n[row] * known.n[reader])).astype(np.int64)
        alike = csr_matrix((similarity, (row, reader)), shape=common.shape)
        return (alike @ known.proposals) / float(UNIT**2)
