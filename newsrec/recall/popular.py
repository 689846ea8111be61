"""Popular right now: clicks in the last hour and the last six, the newest counting most, among articles that exist.

One list per refresh, the same for everybody, minus what the user has read; so a user without any history is answered
too. News lives hours: popularity over days ranks yesterday's stories first.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import polars as pl

from features.columns import HOUR
from features.events import EventStore
from features.windows import Ints, grid_before
from newsrec.recall.base import RecallRequests, RecallSettings, clicked_before, top_rows


@dataclass(frozen=True)
class PopularParams:
    """Which clicks count how much."""

    windows_hours: tuple[float, ...] = (1.0, 6.0, 48.0)
    """Windows before the refresh, hours; the widest is also how long an unread article stays listed."""
    weights: tuple[int, ...] = (1_000, 100, 1)
    """Weight of a click in each window (a click in the last hour counts in all of them)."""


class Popular:
    """The `popular` channel."""

    def __init__(self, params: PopularParams = PopularParams()) -> None:
        self.params = params

    def fit(self, store: EventStore, settings: RecallSettings) -> Self:
        self._store = store
        self._settings = settings
        clicks = pl.DataFrame({"bucket": store.time // settings.refresh_ms, "item": store.item})
        self._clicks = clicks.group_by("bucket", "item").agg(pl.len().cast(pl.Int64).alias("n")).sort("bucket")
        return self

    def recall(self, requests: RecallRequests) -> pl.DataFrame:
        grid = grid_before(requests.statistics_at, self._settings.refresh_ms)
        seen = clicked_before(self._store, requests)
        # A list is as much longer than `depth` as the longest history it meets could take away from it.
        longest = int(seen.group_by("row").len()["len"].max() or 0) if len(seen) else 0  # type: ignore[call-overload]
        spare = min(longest, self._settings.depth)
        lists = self._lists(np.unique(grid), self._settings.depth + spare)
        rows = pl.DataFrame({"row": np.arange(len(grid), dtype=np.uint32), "grid": grid})
        scored = rows.join(lists, on="grid").drop("grid").join(seen, on=["row", "item"], how="anti")
        exists = self._store.exists_from[scored["item"].to_numpy()] < requests.at[scored["row"].to_numpy()]
        return top_rows(scored.filter(pl.Series(exists)), self._settings.depth)

    def _lists(self, grids: Ints, length: int) -> pl.DataFrame:
        """The list of each refresh: `grid, item, score`."""
        buckets = self._clicks["bucket"].to_numpy()
        steps = [max(1, round(hours * HOUR / self._settings.refresh_ms)) for hours in self.params.windows_hours]
        tables = []
        for grid in grids.tolist():
            low, high = np.searchsorted(buckets, [grid - max(steps), grid])
            weight = sum(
                (pl.col("bucket") >= grid - step).cast(pl.Int64) * weight
                for step, weight in zip(steps, self.params.weights, strict=True)
            )
            tables.append(
                self._clicks[int(low) : int(high)]
                .group_by("item")
                .agg((pl.col("n") * weight).sum().alias("score"))
                .sort(["score", "item"], descending=[True, False])
                .head(length)
                .with_columns(pl.lit(grid, pl.Int64).alias("grid"))
            )
        return pl.concat(tables) if tables else pl.DataFrame(schema={"item": pl.Int64, "score": pl.Int64, "grid": pl.Int64})
