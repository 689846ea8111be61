"""What every recall channel is: a log goes in, and for each request a scored list of articles comes out.

Channels are refreshed on a grid, as a production system refreshes its tables: a request sees the table that the last
grid moment at or before its `statistics_at` would have built.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from features.columns import HOUR, MINUTE
from features.events import EventStore, milliseconds, read_before
from features.windows import NO_TIME, Ints, grid_before, places_in


@dataclass(frozen=True)
class RecallRequests:
    """Requests as arrays of shape (n_requests,), in the order of the frame they were made from."""

    frame: pl.DataFrame
    store: EventStore
    """What is known of users' histories and of articles; at least as much as the channels were fitted on."""
    user: Ints
    """User code in the store, -1 for a user without a single click."""
    at: Ints
    """`requested_at`, ms: the user's own clicks before it are known."""
    statistics_at: Ints
    """Border of everything learned from other clicks, ms; at most `at`."""

    @classmethod
    def of(cls, requests: pl.DataFrame, store: EventStore) -> Self:
        """Code the canonical requests frame (`features.columns.REQUEST`) against a store."""
        return cls(
            requests,
            store,
            store.user_codes(requests["user_id"]),
            milliseconds(requests["requested_at"]),
            milliseconds(requests["statistics_at"]),
        )

    @cached_property
    def read(self) -> Ints:
        """What may not be shown again, as the user clicked it before: `row * n_items + item`, ascending, distinct."""
        row, item = read_before(self.store, self.user, self.at)
        return np.unique(row * self.store.n_items + item)

    def rows(self, chosen: Ints) -> "RecallRequests":
        """Only the given rows, in the given order."""
        return RecallRequests(
            self.frame[chosen], self.store, self.user[chosen], self.at[chosen], self.statistics_at[chosen]
        )


@dataclass(frozen=True)
class RecallSettings:
    """What all channels share."""

    refresh_ms: int = 30 * MINUTE
    """Step of the refresh grid, ms, > 0."""
    depth: int = 100
    """Articles a channel proposes per request at most, >= 1."""
    training_ms: int = 3 * HOUR
    """Step of the grid on which channels that train a model train it, ms; at least `refresh_ms`, else that."""
    since: int | None = None
    """No request will stand before this moment, ms, so older clicks need not be prepared; None prepares all."""

    def buckets(self, hours: float) -> int:
        """Refreshes in so many hours, at least one."""
        return max(1, round(hours * HOUR / self.refresh_ms))

    def first_bucket(self, window: int) -> int:
        """The first refresh bucket that a window of so many buckets can reach from `since`."""
        return -(2**62) if self.since is None else self.since // self.refresh_ms - window


class Channel(Protocol):
    """One recall method."""

    @property
    def last_clicks(self) -> int:
        """So many last clicks before a request, or before another click, are looked at one by one."""
        ...

    def reach(self, settings: RecallSettings) -> int:
        """Clicks matter that lie at most so long before a request's `statistics_at`, ms; but for `last_clicks`, and
        that a user has read an article matters for ever."""
        ...

    def lacks(self, store: EventStore) -> str | None:
        """What the channel needs and this log (or this installation) does not have, in words; None if nothing."""
        ...

    def fit(self, store: EventStore, settings: RecallSettings) -> Self:
        """Take the log. May precompute over all of it if `recall` uses only what lies before the grid moment."""
        ...

    def table(self, at: int) -> pl.DataFrame:
        """What the last refresh before `at` (ms) knows, in raw ids: kept in the bundle for services without Python."""
        ...

    def recall(self, requests: RecallRequests) -> pl.DataFrame:
        """Propose articles.

        Returns:
            `row` (UInt32, the request's row), `item` (Int64 code), `score` (Float32, finite, higher is better), `rank`
            (UInt16, 1 is best, no gaps). At most `depth` rows per request, no item twice, none that the user clicked
            before, none that does not exist yet. Ties are broken by item, so that the order of the log does not matter.
        """
        ...


def nothing() -> pl.DataFrame:
    """No proposal at all."""
    return pl.DataFrame(schema={"row": pl.UInt32, "item": pl.Int64, "score": pl.Float32, "rank": pl.UInt16})


def clicks_per_bucket(store: EventStore, settings: RecallSettings, first: int) -> pl.DataFrame:
    """Clicks per refresh bucket and item from the bucket `first` on: `bucket, item, n`, sorted by bucket."""
    table = store.tables["clicks"]
    clicks = pl.DataFrame({"bucket": table["time"] // settings.refresh_ms, "item": table["item"]})
    counted = (
        clicks.filter(pl.col("bucket") >= first).group_by("bucket", "item").agg(pl.len().cast(pl.Int64).alias("n"))
    )
    return counted.sort("bucket")


def window_weights(bucket: Ints, grid: int, steps: Sequence[int], weights: Sequence[int]) -> Ints:
    """What clicks before the refresh `grid` count: the sum of the weights of the windows that hold them.

    Args:
        bucket: Refresh bucket of each click, below `grid`, shape (n_clicks,).
        grid: The refresh.
        steps: Length of each window, in buckets.
        weights: Of each window.
    """
    weight = np.zeros(len(bucket), np.int64)
    for step, each in zip(steps, weights, strict=True):
        weight += each * (bucket >= grid - step)
    return weight


def distinct(rows: npt.NDArray[np.integer], n_rows: int = 0) -> tuple[Ints, Ints]:
    """Rows without repetition, ascending, and the place of each among them, -1 for others: (at least n_rows,)."""
    there = np.zeros(max(n_rows, int(rows.max(initial=-1)) + 1), np.bool_)
    there[rows] = True
    found = np.flatnonzero(there)
    place = np.full(len(there), -1)
    place[found] = np.arange(len(found))
    return found, place


def proposable(row: Ints, item: Ints, requests: RecallRequests) -> npt.NDArray[np.bool_]:
    """Whether each article may be proposed to the request beside it: it exists, and the user has not read it."""
    again = places_in(requests.read, row.astype(np.int64) * requests.store.n_items + item) >= 0
    found: npt.NDArray[np.bool_] = (requests.store.exists_from[item] < requests.at[row]) & ~again
    return found


def young_articles(store: EventStore, known_at: int, until: int, max_age: int) -> Ints:
    """Codes of the articles that exist and are at most `max_age` old at `until` (ms).

    When an article was created is known from then on; of one without that, only events before `known_at` tell.
    """
    exists = store.exists_from
    border = np.where(store.created == NO_TIME, min(known_at, until), until)
    return np.flatnonzero((exists < border) & (exists >= until - max_age))


def moments(requests: RecallRequests, settings: RecallSettings) -> Iterator[tuple[int, int, Ints]]:
    """Requests by what they can know: `(refresh, end of the grid step of the request itself in ms, rows)`."""
    refresh = grid_before(requests.statistics_at, settings.refresh_ms)
    until = (grid_before(requests.at, settings.refresh_ms) + 1) * settings.refresh_ms
    groups = pl.DataFrame({"refresh": refresh, "until": until}).with_row_index("row")
    for (grid, end), own in groups.partition_by("refresh", "until", as_dict=True, maintain_order=True).items():
        yield int(grid), int(end), own["row"].cast(pl.Int64).to_numpy()


def by_score(scored: pl.DataFrame, store: EventStore, *groups: str) -> pl.DataFrame:
    """Rows (`item, score` and the groups) by group, best first, ties by the article's id."""
    tie = pl.Series("tie", store.item_order[scored["item"].to_numpy()])
    keys = [*groups, "score", "tie"]
    order = pl.DataFrame([*(scored[name] for name in keys[:-1]), tie]).select(
        pl.arg_sort_by(keys, descending=[name == "score" for name in keys])
    )
    return scored[order.to_series()]


def top_rows(scored: pl.DataFrame, requests: RecallRequests, depth: int) -> pl.DataFrame:
    """Keep the best `depth` rows (`row, item, score`) of each request and number them from 1, ties by id."""
    ordered = by_score(scored, requests.store, "row")
    row = ordered["row"].to_numpy()
    starts = np.flatnonzero(np.concatenate([[True], row[1:] != row[:-1]])) if len(row) else np.zeros(0, np.int64)
    rank = np.arange(len(row)) - np.repeat(starts, np.diff(np.append(starts, len(row)))) + 1
    best = ordered[np.flatnonzero(rank <= depth)]
    # Series by series: each expression on a frame costs a single request as much as all of this.
    return pl.DataFrame(
        [best["row"], best["item"], best["score"].cast(pl.Float32), pl.Series("rank", rank[rank <= depth], pl.UInt16)]
    )
