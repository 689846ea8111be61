"""Popular right now: clicks in the last half hour, two hours, half a day, among articles that exist.

The newest clicks count most. One list per refresh, the same for everybody, minus what the user has read; so a user
without any history is answered too. News lives hours: popularity over days ranks yesterday's stories first.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import polars as pl

from features.columns import HOUR
from features.events import EventStore
from features.windows import Ints, grid_before
from newsrec.recall.base import (
    RecallRequests,
    RecallSettings,
    by_score,
    clicks_per_bucket,
    proposable,
    top_rows,
    window_weights,
)
from newsrec.recall.dense import largest


@dataclass(frozen=True)
class PopularParams:
    """Which clicks count how much."""

    windows_hours: tuple[float, ...] = (0.5, 2.0, 12.0, 48.0)
    """Windows before the refresh, hours; the widest is also how long an unread article stays listed."""
    weights: tuple[int, ...] = (10_000, 1_000, 10, 1)
    """Weight of a click in each window (a click of the last minutes counts in all of them)."""


SPARE = 3
"""Lists are this many times longer than what is proposed, because readers have read parts of them."""


class Popular:
    """The `popular` channel."""

    def __init__(self, params: PopularParams = PopularParams()) -> None:
        self.params = params

    last_clicks = 0

    def reach(self, settings: RecallSettings) -> int:
        return (max(self._buckets(settings)) + 1) * settings.refresh_ms

    def lacks(self, store: EventStore) -> str | None:
        return None

    def fit(self, store: EventStore, settings: RecallSettings) -> Self:
        self._store = store
        self._settings = settings
        self._steps = self._buckets(settings)
        self._clicks = clicks_per_bucket(store, settings, settings.first_bucket(max(self._steps)))
        self._kept: tuple[tuple[int, ...], int, pl.DataFrame] | None = None
        return self

    def table(self, at: int) -> pl.DataFrame:
        best = self._lists(np.array([at // self._settings.refresh_ms]), self._settings.depth)
        return pl.DataFrame({"item_id": self._store.items.gather(best["item"]), "score": best["score"]})

    def recall(self, requests: RecallRequests) -> pl.DataFrame:
        grid = grid_before(requests.statistics_at, self._settings.refresh_ms)
        lists = self._lists(np.unique(grid), SPARE * self._settings.depth)
        rows = pl.DataFrame({"row": np.arange(len(grid), dtype=np.uint32), "grid": grid})
        scored = rows.join(lists, on="grid").drop("grid")
        may = proposable(scored["row"].to_numpy(), scored["item"].to_numpy(), requests)
        return top_rows(scored.filter(may), requests, self._settings.depth)

    def _buckets(self, settings: RecallSettings) -> list[int]:
        """Lengths of the windows in refreshes."""
        return [max(1, round(hours * HOUR / settings.refresh_ms)) for hours in self.params.windows_hours]

    def _lists(self, grids: Ints, length: int) -> pl.DataFrame:
        """The list of each refresh: `grid, item, score`; the last answer is kept, for requests one by one."""
        asked, kept = tuple(grids.tolist()), self._kept
        if kept is None or kept[:2] != (asked, length):
            kept = self._kept = (asked, length, self._computed(grids, length))
        return kept[2]

    def _computed(self, grids: Ints, length: int) -> pl.DataFrame:
        bucket, item, n = (self._clicks[name].to_numpy() for name in ("bucket", "item", "n"))
        tables = []
        for grid in grids.tolist():
            low, high = np.searchsorted(bucket, [grid - max(self._steps), grid])
            weight = window_weights(bucket[low:high], grid, self._steps, self.params.weights)
            # Whole numbers below 2 ** 53: exact in any order.
            counted = np.bincount(item[low:high], n[low:high] * weight, self._store.n_items)
            score = counted.astype(np.float64, copy=False)
            best = largest(score[None], length)[1]
            best = best[score[best] > 0]
            found = {"item": best, "score": score[best].astype(np.int64), "grid": np.full(len(best), grid)}
            tables.append(by_score(pl.DataFrame(found), self._store).head(length))
        return (
            pl.concat(tables)
            if tables
            else pl.DataFrame(schema={"item": pl.Int64, "score": pl.Int64, "grid": pl.Int64})
        )
