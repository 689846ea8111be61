"""Facts: what was known strictly before each request, as plain numbers. Feature expressions see nothing else.

A fact group computes one or several columns at once from the log's indices. Facts of a request are computed once per
request and repeated for its candidates. Statistics about articles stand at `statistics_at`, the user's own events at
`requested_at` (see `features.columns.REQUEST`). The groups themselves stand in `features.click_facts`,
`features.exposure_facts` and `features.similarity_facts`.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from features.articles import milliseconds
from features.columns import DAY, HOUR, MINUTE
from features.events import EventStore, codes_of, take
from features.indices import HALF_LIVES
from features.vocabulary import Vocabulary
from features.windows import NO_KEY, NO_TIME, SESSION_PAUSE_MS, EventIndex, Ints

WINDOWS: Final[dict[str, int | None]] = {
    "5m": 5 * MINUTE,
    "15m": 15 * MINUTE,
    "1h": HOUR,
    "3h": 3 * HOUR,
    "6h": 6 * HOUR,
    "12h": 12 * HOUR,
    "24h": DAY,
    "36h": 36 * HOUR,
    "48h": 2 * DAY,
    "all": None,
}
"""Lengths of the windows by the name that facts and features carry, ms; None reaches back to the first event."""

MANY: Final = 50_000
"""Rows from which on the groups are computed by several threads."""


@dataclass(frozen=True)
class Rows:
    """Candidates and their requests as arrays, coded against one store."""

    store: EventStore
    vocabulary: Vocabulary
    requests: pl.DataFrame
    """The canonical requests, with the context columns that are known of them."""
    user: Ints
    """User code per request, shape (n_requests,); -1 for a user without an event."""
    at: Ints
    """`requested_at` per request, ms."""
    statistics_at: Ints
    """Border of article statistics per request, ms."""
    row: Ints
    """Request of each candidate, shape (n_candidates,)."""
    item: Ints
    """Article code of each candidate; -1 for one that the store does not know."""
    item_ids: pl.Series
    """Article id of each candidate, for what must not depend on whether the store knows it."""
    _answers: dict[tuple[str, int], Ints] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, candidates: pl.DataFrame, requests: pl.DataFrame, store: EventStore, vocabulary: Vocabulary) -> "Rows":
        """Code canonical frames; every candidate's `request_id` must be among the requests, which are unique."""
        return cls(
            store,
            vocabulary,
            requests,
            store.user_codes(requests["user_id"]),
            milliseconds(requests["requested_at"]),
            milliseconds(requests["statistics_at"]),
            codes_of(candidates["request_id"], requests["request_id"]),
            store.item_codes(candidates["item_id"]),
            candidates["item_id"],
        )

    def kept(self, keep: Ints) -> "Rows":
        """The same requests with only some of the candidates."""
        return replace(self, row=self.row[keep], item=self.item[keep], item_ids=self.item_ids[keep])

    def click(self, age: int) -> Ints:
        """Row in the clicks table of the user's last click (age 0), the one before (1), ... per request; -1 if none."""
        return self._once(("click", age), lambda: self.store.index("user").nth_latest("row", self.user, self.at, age))

    def clicked(self, age: int) -> Ints:
        """Article code of that click, per request; -1 where none."""
        return take(self.store.tables["clicks"]["item"], self.click(age), NO_KEY)

    def earlier_request(self, age: int) -> Ints:
        """Row in the requests table of the user's last request before this one (age 0), ...; -1 where none."""
        return self._once(
            ("request", age), lambda: self.store.index("request").nth_latest("row", self.user, self.at, age)
        )

    def _once(self, key: tuple[str, int], compute: Callable[[], Ints]) -> Ints:
        """Many facts ask the same of the user's history."""
        if key not in self._answers:
            self._answers[key] = compute()
        return self._answers[key]

    @cached_property
    def session_start(self) -> Ints:
        """When the session of the request began, ms, shape (n_requests,): the request itself where it opens one."""
        before, table = self.earlier_request(0), self.store.tables["requests"]
        time = take(table["time"], before, NO_TIME)
        pause = self.at - np.where(before < 0, 0, time)
        return np.where(
            (before < 0) | (pause > SESSION_PAUSE_MS), self.at, take(table["session_start"], before, NO_TIME)
        )

    @property
    def statistics_of_row(self) -> Ints:
        """`statistics_at` per candidate."""
        return self.statistics_at[self.row]

    @property
    def at_of_row(self) -> Ints:
        """`requested_at` per candidate."""
        return self.at[self.row]

    @property
    def user_item(self) -> Ints:
        """Key of (user, article) per candidate."""
        return self.store.pair_key(self.user[self.row], self.item)

    @property
    def category(self) -> Ints:
        """Category code per candidate, -1 where unknown."""
        return take(self.store.category, self.item, NO_KEY)


Floats = npt.NDArray[np.float64]
Facts = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class FactGroup:
    """Columns that one function computes together."""

    names: tuple[str, ...]
    compute: Callable[[Rows, tuple[str, ...]], Facts]
    """Gets the rows and those of `names` that are wanted; values of shape (n_requests,) or (n_candidates,), NaN where
    unknown."""
    per_request: bool = False
    needs: tuple[str, ...] = ()
    """Parts of the log without which the group is left out: `impressions`, `articles.words`, `clicks.referrer` ..."""


def counted(
    names: tuple[str, ...],
    index: str,
    key: Callable[[Rows], Ints],
    *,
    own: bool = False,
    value: str | None = None,
    per_request: bool = False,
    needs: tuple[str, ...] = (),
) -> FactGroup:
    """Counts, or sums of a value, in one window per name (its ending), by an index of the store.

    Args:
        names: Of the facts.
        index: Name in `features.indices.INDICES`.
        key: Of each candidate, or of each request with `per_request`.
        own: Events of the user, known up to the request; else statistics, known up to `statistics_at`.
        value: What is added up; None counts events.
        per_request: One key per request.
        needs: See `FactGroup`.
    """

    def compute(rows: Rows, wanted: tuple[str, ...]) -> Facts:
        at = rows.at if own else rows.statistics_at
        moments = at if per_request else at[rows.row]
        windows = tuple(WINDOWS[name.rsplit("_", 1)[1]] for name in wanted)
        found: EventIndex = rows.store.index(index)
        if value is None:
            columns = found.counts(key(rows), moments, windows)
        else:
            columns = found.sums(value, key(rows), moments, windows)
        return dict(zip(wanted, columns, strict=True))

    return FactGroup(names, compute, per_request, needs)


def decayed_of_item(names: tuple[str, ...], index: str, *, needs: tuple[str, ...] = ()) -> FactGroup:
    """Decayed sums over events of the article, one per half-life of `HALF_LIVES` (the name ends with it)."""

    def compute(rows: Rows, wanted: tuple[str, ...]) -> Facts:
        fact = {name.rsplit("_", 1)[1]: name for name in wanted}
        half_lives = {span: HALF_LIVES[span] for span in fact}
        sums = rows.store.index(index).decayed(half_lives, rows.item, rows.statistics_of_row)
        return {fact[span]: values for span, values in sums.items()}

    return FactGroup(names, compute, needs=needs)


def known_times(times: Ints) -> Floats:
    """Milliseconds, `NO_TIME` as NaN. Exact: a double holds whole numbers up to 2 ** 53."""
    return np.where(times == NO_TIME, np.nan, times)


def known_numbers(values: Ints) -> Floats:
    """Numbers, negative ones as NaN."""
    return np.where(values < 0, np.nan, values)


def attach_facts(groups: Sequence[FactGroup], rows: Rows, wanted: set[str]) -> pl.DataFrame:
    """Compute the wanted facts: one column each, one row per candidate, in the candidates' order."""
    asked = [(group, names) for group in groups if (names := tuple(n for n in group.names if n in wanted))]
    if len(rows.row) < MANY:
        found = [_columns(group, rows, names) for group, names in asked]
    else:
        # NumPy lets go of the interpreter while it sorts and searches, so threads share the work.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            found = list(pool.map(lambda pair: _columns(pair[0], rows, pair[1]), asked))
    return pl.DataFrame([column for columns in found for column in columns])


def _columns(group: FactGroup, rows: Rows, names: tuple[str, ...]) -> list[pl.Series]:
    values = group.compute(rows, names)
    columns = {name: values[name][rows.row] if group.per_request else values[name] for name in names}
    return [pl.Series(name, column, nan_to_null=column.dtype.kind == "f") for name, column in columns.items()]
