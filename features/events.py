"""The log as arrays: every click with dense codes, its user's history in order, its article's attributes.

Made from clicks and articles by training and serving alike; recall channels and features read it. Codes live in memory
only: they are positions in `items` and `users`, and nothing that is kept refers to them.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

from features.columns import CONTEXT
from features.windows import (
    NO_KEY,
    NO_TIME,
    EventIndex,
    Ints,
    first_of_its_kind,
    previous_in_sequence,
    sequence_order,
    session_position,
)

FEW = 20
"""Ids are looked up one by one where there are so many times more known ones."""


def milliseconds(column: pl.Series) -> Ints:
    """Times as integers, null as `NO_TIME`; shape kept."""
    return column.to_physical().cast(pl.Int64).fill_null(NO_TIME).to_numpy()


def codes_of(ids: pl.Series, known: pl.Series) -> Ints:
    """Position of each id in `known` (unique), or -1 where it is not there; null is -1. Shape (n_ids,), order kept.

    >>> codes_of(pl.Series(["b", "x"]), pl.Series(["a", "b"])).tolist()
    [1, -1]
    """
    if ids.dtype != known.dtype:
        ids = ids.cast(known.dtype, strict=False)
    if known.flags["SORTED_ASC"] and len(ids) * FEW < len(known):
        return _codes_of_few(ids, known)
    table = pl.DataFrame({"id": known, "code": np.arange(len(known), dtype=np.int64)})
    joined = ids.to_frame("id").join(table, on="id", how="left", maintain_order="left")
    return joined["code"].fill_null(NO_KEY).to_numpy()


def _codes_of_few(ids: pl.Series, known: pl.Series) -> Ints:
    """The same by binary search: a single request must not pay for a table of all users."""
    place = known.search_sorted(ids.fill_null(known[0])).to_numpy().astype(np.int64)
    place = np.minimum(place, len(known) - 1)
    same = (known.gather(place) == ids).fill_null(False).to_numpy()
    return np.where(same, place, NO_KEY)


@dataclass(frozen=True)
class Sequences:
    """All clicks ordered by user, then time, then item: arrays of shape (n_clicks,)."""

    user: Ints
    item: Ints
    time: Ints
    order: Ints
    """Row in the clicks frame of each place in the sequence."""


class EventStore:
    """Clicks and articles, coded and indexed. Cheap to make; each index is built when it is first asked for.

    Args:
        clicks: Canonical clicks, any row order; an exact duplicate is the caller's to drop.
        articles: Canonical articles; clicked items may be missing there.
    """

    def __init__(self, clicks: pl.DataFrame, articles: pl.DataFrame) -> None:
        self.clicks = clicks
        self.articles = articles
        self.users = clicks["user_id"].unique().sort()
        known = pl.concat([articles["item_id"].cast(clicks["item_id"].dtype), clicks["item_id"]]).unique().sort()
        self.items = known
        self.attributes = known.to_frame("item_id").join(articles, on="item_id", how="left", maintain_order="left")
        self.user = codes_of(clicks["user_id"], self.users)
        self.item = codes_of(clicks["item_id"], self.items)
        self.time = milliseconds(clicks["clicked_at"])

    @property
    def n_items(self) -> int:
        """Number of known articles."""
        return len(self.items)

    @cached_property
    def created(self) -> Ints:
        """Creation time per item code in ms, `NO_TIME` where unknown; shape (n_items,)."""
        return self._attribute("created_at")

    @cached_property
    def words(self) -> Ints:
        """Words per item code, -1 where unknown; shape (n_items,)."""
        if "words" not in self.attributes.columns:
            return np.full(self.n_items, -1, np.int64)
        return self.attributes["words"].cast(pl.Int64).fill_null(-1).to_numpy()

    @cached_property
    def category(self) -> Ints:
        """Category code per item code, -1 where unknown; shape (n_items,)."""
        if "category" not in self.attributes.columns:
            return np.full(self.n_items, NO_KEY, np.int64)
        column = self.attributes["category"]
        return codes_of(column, column.drop_nulls().unique().sort())

    @cached_property
    def exists_from(self) -> Ints:
        """What must lie before a request for the item to be shown, ms: its creation, else its first click."""
        first = np.full(self.n_items, np.iinfo(np.int64).max, np.int64)
        np.minimum.at(first, self.item, self.time)
        return np.where(self.created == NO_TIME, first, self.created)

    @cached_property
    def sequences(self) -> Sequences:
        """Every user's clicks in order."""
        order = sequence_order(self.user, self.time, self.item)
        return Sequences(self.user[order], self.item[order], self.time[order], order)

    @cached_property
    def of_user(self) -> EventIndex:
        """Clicks of a user; its positions are places in `sequences`. Sums: words, clicks with words, new categories."""
        s = self.sequences
        words = self.words[s.item]
        return EventIndex(
            s.user,
            s.time,
            {
                "words": np.maximum(words, 0),
                "with_words": (words >= 0).astype(np.int64),
                "new_categories": first_of_its_kind(s.user, self.category[s.item]),
                "session_starts": (session_position(s.user, s.time) == 1).astype(np.int64),
            },
        )

    @cached_property
    def session_clicks(self) -> Ints:
        """Place of each click of `sequences` in its session, 1 for the first."""
        return session_position(self.sequences.user, self.sequences.time)

    @cached_property
    def of_item(self) -> EventIndex:
        """Clicks on an item."""
        return EventIndex(self.item, self.time)

    @cached_property
    def of_category(self) -> EventIndex:
        """Clicks on a category."""
        category = self.category[self.item]
        known = category >= 0
        return EventIndex(category[known], self.time[known])

    @cached_property
    def of_all(self) -> EventIndex:
        """All clicks, key 0."""
        return EventIndex(np.zeros_like(self.time), self.time)

    @cached_property
    def of_user_category(self) -> EventIndex:
        """Clicks of a user on a category, keyed by `user_category_key`."""
        category = self.category[self.item]
        known = category >= 0
        return EventIndex(self.pair_key(self.user, category)[known], self.time[known])

    @cached_property
    def of_transition(self) -> EventIndex:
        """Moves from a click to the next of the same user, keyed by `pair_key(from, to)`; known at the later click."""
        source, target, time = self._transitions
        return EventIndex(self.pair_key(source, target), time)

    @cached_property
    def of_departure(self) -> EventIndex:
        """Moves away from an item to any other, keyed by that item; known at the later click."""
        source, _, time = self._transitions
        return EventIndex(source, time)

    @cached_property
    def _transitions(self) -> tuple[Ints, Ints, Ints]:
        s = self.sequences
        before = previous_in_sequence(s.user, 1)
        moved = (before >= 0) & (s.item[before] != s.item)
        return s.item[before[moved]], s.item[moved], s.time[moved]

    @cached_property
    def of_category_transition(self) -> EventIndex:
        """Moves from one category to another or the same, keyed by `pair_key(from, to)`; known at the later click."""
        source, target, time = self._transitions
        key = self.pair_key(self.category[source], self.category[target])
        return EventIndex(key[key >= 0], time[key >= 0])

    @cached_property
    def of_category_departure(self) -> EventIndex:
        """Moves away from an article of a category, keyed by it; known at the later click."""
        source, target, time = self._transitions
        known = (self.category[source] >= 0) & (self.category[target] >= 0)
        return EventIndex(self.category[source][known], time[known])

    def pair_key(self, first: Ints, second: Ints) -> Ints:
        """One key for (user or item, item or category); -1 where either is unknown. Shape of the inputs."""
        key: Ints = first * (self.n_items + 1) + second
        return np.where((first < 0) | (second < 0), NO_KEY, key)

    def context(self, name: str, place: Ints) -> pl.Series | None:
        """A context column at places of `sequences`, null at negative ones; None where the log has no such column."""
        if name not in CONTEXT or name not in self.clicks.columns:
            return None
        row = pl.Series(take(self.sequences.order, place, NO_KEY), dtype=pl.Int64)
        return self.clicks[name].gather(row.set(row < 0, None))

    def _attribute(self, name: str) -> Ints:
        if name not in self.attributes.columns:
            return np.full(self.n_items, NO_TIME, np.int64)
        return milliseconds(self.attributes[name])


def take(values: Ints, place: Ints, missing: int) -> npt.NDArray[np.int64]:
    """`values[place]`, and `missing` where `place` is negative. Shape of `place`."""
    if not len(values):
        return np.full(len(place), missing, np.int64)
    return np.where(place >= 0, values[np.maximum(place, 0)], missing)


def history(store: EventStore, user: Ints, at: Ints, last: int | None = None) -> tuple[Ints, Ints, Ints]:
    """The clicks of each user strictly before each moment, newest first.

    Args:
        store: The log.
        user: User code per request, shape (n_requests,); -1 has no history.
        at: Moment per request in ms, shape (n_requests,).
        last: At most this many clicks per request; None for all.

    Returns:
        `(row, place, age)` of shape (n_clicks,): the request's row, the place in `store.sequences`, 0 for the newest.
    """
    right, (left,) = store.of_user.edges(user, at, (None,))
    length = right - left if last is None else np.minimum(right - left, last)
    row = np.repeat(np.arange(len(user), dtype=np.int64), length)
    age = np.arange(len(row), dtype=np.int64) - np.repeat(np.cumsum(length) - length, length)
    return row, right[row] - 1 - age, age
