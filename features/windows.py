"""All time rules. Events go in, strictly-before counts, sums and positions come out; nothing else may look at time.

A fact counts if `event_at < at`: half-open everywhere. An index is one sorted array of (key, time); the count of a
window is the distance between two binary searches, so the same call serves ten million candidates or a single request
and gives the same integers.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

Ints = npt.NDArray[np.int64]

NO_KEY: Final = -1
"""Key of something unknown: it has no events."""

NO_TIME: Final = int(np.iinfo(np.int64).min)
"""A moment that is not known."""

SESSION_PAUSE_MS: Final = 30 * 60 * 1_000
"""A pause this long ends a session (the usual half hour of web analytics; DSIN, Feng et al. 2019, section 3.1)."""


class EventIndex:
    """Events sorted by (key, time), answering questions about what happened strictly before a moment.

    Args:
        key: Shape (n_events,), any integers >= 0.
        time: Shape (n_events,), milliseconds.
        values: Integer columns of shape (n_events,) whose sums over windows are wanted. Integers, so that a sum does
            not depend on the order of its terms.
    """

    def __init__(self, key: Ints, time: Ints, values: Mapping[str, Ints] | None = None) -> None:
        self._origin = int(time.min()) if len(time) else 0
        self._span = (int(time.max()) - self._origin + 2) if len(time) else 2
        highest = int(key.max()) if len(key) else 0
        # (key, time) must fit one signed 64-bit integer; sparse keys of pairs are made dense first where they do not.
        self._dense = np.unique(key) if highest >= (2**62) // self._span else None
        self._highest = highest
        packed = self._pack(key, time)
        order = np.argsort(packed, kind="stable")
        self._packed = packed[order]
        self._running = {
            name: np.concatenate([np.zeros(1, np.int64), np.cumsum(column[order])])
            for name, column in (values or {}).items()
        }

    def __len__(self) -> int:
        return len(self._packed)

    def _pack(self, key: Ints, time: Ints) -> Ints:
        if self._dense is not None:
            place = np.minimum(np.searchsorted(self._dense, key), max(len(self._dense) - 1, 0))
            key = np.where(self._dense[place] == key, place, NO_KEY) if len(self._dense) else np.full_like(key, NO_KEY)
        else:
            # A key above all events has none; times the span it could overflow onto a key that has some.
            key = np.where(key <= self._highest, key, NO_KEY)
        packed: Ints = key * self._span + np.clip(time - self._origin, 0, self._span - 1)
        return packed

    def edges(self, key: Ints, at: Ints, windows: tuple[int | None, ...]) -> tuple[Ints, list[Ints]]:
        """Positions that bound each window `[at - window, at)` in the sorted events.

        Args:
            key: Shape (n,); negative keys have no events.
            at: Shape (n,), milliseconds; the moment itself is not part of the window.
            windows: Milliseconds each; None reaches back to the first event of the key.

        Returns:
            The right edge of shape (n,) and one left edge of shape (n,) per window; left <= right.
        """
        right_query = self._pack(key, at)
        # Sorted queries walk through the index once instead of jumping: some eight times faster on millions of rows.
        order = np.argsort(right_query)
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        key, at = key[order], at[order]
        right = np.searchsorted(self._packed, right_query[order])
        lefts = []
        for window in windows:
            start = np.full_like(at, self._origin) if window is None else at - window
            left = np.searchsorted(self._packed, self._pack(key, start))
            lefts.append(np.where(key < 0, right, left)[back])
        return right[back], lefts

    def counts(self, key: Ints, at: Ints, windows: tuple[int | None, ...]) -> list[Ints]:
        """Number of events of `key` in `[at - window, at)`, one array of shape (n,) per window.

        >>> index = EventIndex(np.array([7, 7, 7]), np.array([10, 20, 30]))
        >>> [c.tolist() for c in index.counts(np.array([7, 7, 8]), np.array([30, 31, 31]), (10, None))]
        [[1, 1, 0], [2, 3, 0]]
        """
        right, lefts = self.edges(key, at, windows)
        return [right - left for left in lefts]

    def latest(self, key: Ints, at: Ints) -> Ints:
        """Time of the last event of `key` before `at`, ms; `NO_TIME` where there is none. Shape (n,).

        >>> index = EventIndex(np.array([7, 7]), np.array([10, 20]))
        >>> index.latest(np.array([7, 7]), np.array([21, 20])).tolist()
        [20, 10]
        """
        right, (left,) = self.edges(key, at, (None,))
        if not len(self):
            return np.full(len(key), NO_TIME, np.int64)
        packed = self._packed[np.maximum(right - 1, 0)]
        return np.where(right > left, packed % self._span + self._origin, NO_TIME)

    def sums(self, name: str, left: Ints, right: Ints) -> Ints:
        """Sum of the value `name` between two edges that `edges` returned, shape (n,)."""
        running = self._running[name]
        total: Ints = running[right] - running[left]
        return total


def sequence_order(user: Ints, time: Ints, item: Ints) -> Ints:
    """Order of clicks inside each user's history: by time, ties by item, so that the input's order does not matter."""
    return np.lexsort((item, time, user)).astype(np.int64)


def previous_in_sequence(user: Ints, distance: int) -> Ints:
    """Index of the click `distance` places earlier of the same user, or -1; shape (n,). Input in `sequence_order`."""
    index = np.arange(len(user), dtype=np.int64)
    earlier = index - distance
    same = (earlier >= 0) & (user[np.maximum(earlier, 0)] == user)
    return np.where(same, earlier, -1)


def session_position(user: Ints, time: Ints) -> Ints:
    """How many clicks of its session a click is, counting itself: 1 for the first. Inputs in `sequence_order`."""
    earlier = previous_in_sequence(user, 1)
    starts = (earlier < 0) | (time - time[np.maximum(earlier, 0)] > SESSION_PAUSE_MS)
    index = np.arange(len(user), dtype=np.int64)
    first: Ints = np.maximum.accumulate(np.where(starts, index, 0))
    return index - first + 1


def first_of_its_kind(user: Ints, kind: Ints) -> Ints:
    """1 where a user's click is the first of its `kind` (a category), else 0. Inputs in `sequence_order`."""
    pairs = pl.DataFrame({"user": user, "kind": kind})
    first = pairs.select(pl.struct("user", "kind").is_first_distinct()).to_series()
    return first.to_numpy().astype(np.int64) * (kind >= 0)


def grid_before(at: Ints, step: int) -> Ints:
    """Number of the last grid moment at or before `at`: what was known at `grid * step` was known before `at`.

    >>> grid_before(np.array([0, 1799, 1800, 1801]), 1800).tolist()
    [0, 0, 1, 1]
    """
    return at // step
