"""Who read what in the hours before a refresh, as a sparse matrix of readers and articles.

What makes a click drop out of a window (later clicks of the reader or on the article) is found once for the whole log,
so that the matrix of one refresh costs a slice and two comparisons per click.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from features.events import EventStore
from features.windows import Ints, previous_in_sequence, sequence_order
from newsrec.recall.base import RecallSettings

STAYS: Final = int(np.iinfo(np.int64).max)
"""Bucket in which a click drops out that does not."""


class ReadingWindows:
    """Distinct readings (user, article) before each refresh: the latest click of each, if it is among the user's last.

    Args:
        store: The log.
        settings: The grid; clicks that no window from `settings.since` on reaches are left out.
        hours: Length of the window, > 0.
        per_user: Last clicks of a user before the refresh that count, >= 1: bounds the pairs of heavy readers.
        per_item: Last clicks on an article before the refresh that make somebody one of its last readers, >= 1; None
            for all.
    """

    def __init__(
        self, store: EventStore, settings: RecallSettings, hours: float, per_user: int, per_item: int | None = None
    ) -> None:
        self._length = settings.buckets(hours)
        self.shape = (len(store.users), store.n_items)
        table = store.tables["clicks"]
        bucket = table["time"] // settings.refresh_ms
        recent = np.flatnonzero(bucket >= settings.first_bucket(self._length))
        recent = recent[np.argsort(bucket[recent], kind="stable")]
        user, item, time = (table[name][recent] for name in ("user", "item", "time"))
        self._bucket, self._time = bucket[recent], time
        self._until = _drop_out(self._bucket, user, sequence_order(user, time, store.item_order[item]), per_user)
        # A reading may be repeated: only the last time counts.
        pair = user * self.shape[1] + item
        self._until = np.minimum(self._until, _drop_out(self._bucket, pair, sequence_order(pair, time, item), 1))
        self._last_until = self._until
        if per_item is not None:
            order = sequence_order(item, time, store.user_order[user])
            self._last_until = np.minimum(self._until, _drop_out(self._bucket, item, order, per_item))
        self._user, self._item = user.astype(np.int32), item.astype(np.int32)

    def at(self, grid: int) -> "Readings":
        """What is known at a refresh."""
        low, high = np.searchsorted(self._bucket, [grid - self._length, grid])
        place = low + np.flatnonzero(self._until[low:high] >= grid)
        users, items = self._user[place], self._item[place]
        # Laid out once, with the places as values: they bring the times and the marks along.
        laid = csr_matrix((place, (users, items)), shape=self.shape)
        read = csr_matrix((np.ones(len(place), np.int64), laid.indices, laid.indptr), shape=self.shape)
        return Readings(read, self._time[laid.data], self._last_until[laid.data] >= grid)


@dataclass(frozen=True)
class Readings:
    """One refresh."""

    read: csr_matrix
    """Ones (Int64), shape (n_users, n_items)."""
    time: Ints
    """Of the last click of each reading, ms; in the order of `read.data`."""
    last: npt.NDArray[np.bool_]
    """Whether it makes the user one of the last readers of the article; in the same order."""

    def valued(self, values: Ints) -> csr_matrix:
        """The matrix with other values."""
        return csr_matrix((values, self.read.indices, self.read.indptr), shape=self.read.shape)

    def last_readers(self) -> csr_matrix:
        """Only the last readers, ones (Int64), shape (n_users, n_items)."""
        before = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.last)])
        indices = self.read.indices[self.last]
        return csr_matrix((np.ones(len(indices), np.int64), indices, before[self.read.indptr]), shape=self.read.shape)


def _drop_out(bucket: Ints, group: Ints, order: Ints, kept: int) -> Ints:
    """Bucket in which the `kept`-th later click of its group pushes each click out; `order` sorts by group and time."""
    until = np.full(len(bucket), STAYS, np.int64)
    earlier = previous_in_sequence(group[order], kept)
    later = np.flatnonzero(earlier >= 0)
    until[order[earlier[later]]] = bucket[order[later]]
    return until


def entries(matrix: csr_matrix) -> tuple[Ints, Ints, Ints]:
    """`(row, column, value)` of what is stored, each of shape (n_entries,)."""
    row = np.repeat(np.arange(matrix.shape[0], dtype=np.int64), np.diff(matrix.indptr))
    return row, matrix.indices.astype(np.int64), matrix.data


def row_counts(matrix: csr_matrix) -> Ints:
    """Entries of each row, shape (n_rows,)."""
    counts: Ints = np.diff(matrix.indptr).astype(np.int64)
    return counts


def column_counts(matrix: csr_matrix) -> Ints:
    """Entries of each column, shape (n_columns,)."""
    return np.bincount(matrix.indices, minlength=matrix.shape[1]).astype(np.int64)


def scaled_rows(matrix: csr_matrix, weight: Ints) -> csr_matrix:
    """Each row times a whole number; `weight` has shape (n_rows,)."""
    data = matrix.data * np.repeat(weight, np.diff(matrix.indptr))
    return csr_matrix((data, matrix.indices, matrix.indptr), shape=matrix.shape)
