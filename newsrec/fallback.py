"""Places that recall leaves empty (tiny logs, readers of everything): the most read articles that exist."""

from typing import Any

import numpy as np
import polars as pl

from features.events import EventStore, read_before
from newsrec.recall import RecallRequests


def fill(
    best: pl.DataFrame, requests: pl.DataFrame, coded: RecallRequests, k: int, refresh_ms: int, allowed: pl.Series
) -> pl.DataFrame:
    """Rows for the places up to `k` that `best` leaves empty.

    Reads are counted up to the recall refresh that the request sees: what comes later it cannot know.

    Args:
        best: `request_id, item_id, rank`, ranks from 1 without gaps.
        requests: The requests that were asked.
        coded: The same, coded.
        k: Places.
        refresh_ms: Step of the refresh grid.
        allowed: Whether an article may be given, by item code; shape (n_items,).

    Returns:
        `request_id, item_id, rank` (UInt32): unread, existing, allowed articles that are not in `best`.
    """
    have = requests.select("request_id").join(
        best.group_by("request_id").len("have"), on="request_id", how="left", maintain_order="left"
    )
    rows = pl.DataFrame({"row": np.arange(len(requests)), "have": have["have"].fill_null(0)})
    short = rows.filter(pl.col("have") < k)
    if short.is_empty():
        return best.clear().select("request_id", "item_id", "rank")
    store = coded.store
    row, item = read_before(store, coded.user, coded.at)
    seen = pl.DataFrame({"row": row, "item": item})
    few = short["row"].to_numpy()
    moment = pl.Series("moment", coded.statistics_at[few] // refresh_ms * refresh_ms)
    most = k + int(np.bincount(row, minlength=len(requests))[few].max()) + int(short["have"].max() or 0)  # type: ignore[arg-type]
    ready = [
        group.join(_most_read(store, until, coded.at[group["row"].to_numpy()], most, allowed), how="cross")
        for (until,), group in short.with_columns(moment).group_by("moment", maintain_order=True)
    ]
    offered = pl.concat(ready).join(seen, on=["row", "item"], how="anti", maintain_order="left")
    exists = store.exists_from[offered["item"].to_numpy()] < coded.at[offered["row"].to_numpy()]
    offered = offered.filter(pl.Series(exists))
    offered = offered.with_columns(
        requests["request_id"].gather(offered["row"]).alias("request_id"),
        store.items.gather(offered["item"]).alias("item_id"),
    )
    new = offered.join(best, on=["request_id", "item_id"], how="anti", maintain_order="left")
    return (
        new.with_columns((pl.col("have") + pl.int_range(1, pl.len() + 1).over("row")).cast(pl.UInt32).alias("rank"))
        .filter(pl.col("rank") <= k)
        .select("request_id", "item_id", "rank")
    )


def _most_read(store: EventStore, until: Any, at: np.ndarray, n: int, allowed: pl.Series) -> pl.DataFrame:
    """Articles by clicks before `until`, ms; at least `n` that exist at each moment of `at`, if there are."""
    every = np.arange(store.n_items, dtype=np.int64)
    read = store.index("item").counts(every, np.full(store.n_items, until), (None,))[0]
    there = np.flatnonzero((store.exists_from < at.max()) & allowed.to_numpy())
    order = there[np.lexsort((store.item_order[there], -read[there]))]
    young = int((store.exists_from[there] >= at.min()).sum())
    return pl.DataFrame({"item": order[: n + young]})
