"""Facts: what was known strictly before each request, as plain numbers. Feature expressions see nothing else.

A fact group computes one or several columns at once from the log's indices. Facts of a request are computed once per
request and repeated for its candidates. Statistics about articles stand at `statistics_at`, the user's own clicks at
`requested_at` (see `features.columns.REQUEST`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import polars as pl

from features.columns import CONTEXT, DAY, HOUR, MINUTE
from features.events import EventStore, codes_of, milliseconds, take
from features.vocabulary import UNKNOWN, Vocabulary
from features.windows import NO_KEY, NO_TIME, EventIndex, Ints

WINDOWS: Final[dict[str, int]] = {
    "5m": 5 * MINUTE,
    "15m": 15 * MINUTE,
    "1h": HOUR,
    "3h": 3 * HOUR,
    "12h": 12 * HOUR,
    "24h": DAY,
    "36h": 36 * HOUR,
    "48h": 2 * DAY,
}
"""Lengths of the windows by the name that facts and features carry, ms."""


@dataclass(frozen=True)
class Rows:
    """Candidates and their requests as arrays, coded against one store."""

    store: EventStore
    vocabulary: Vocabulary
    user: Ints
    """User code per request, shape (n_requests,); -1 for a user without a click."""
    at: Ints
    """`requested_at` per request, ms."""
    statistics_at: Ints
    """Border of article statistics per request, ms."""
    row: Ints
    """Request of each candidate, shape (n_candidates,)."""
    item: Ints
    """Article code of each candidate; -1 for one that the store does not know."""

    @classmethod
    def of(cls, candidates: pl.DataFrame, requests: pl.DataFrame, store: EventStore, vocabulary: Vocabulary) -> "Rows":
        """Code canonical frames; every candidate's `request_id` must be among the requests, which are unique."""
        return cls(
            store,
            vocabulary,
            codes_of(requests["user_id"], store.users),
            milliseconds(requests["requested_at"]),
            milliseconds(requests["statistics_at"]),
            codes_of(candidates["request_id"], requests["request_id"]),
            codes_of(candidates["item_id"], store.items),
        )

    def kept(self, keep: np.ndarray) -> "Rows":
        """The same requests with only some of the candidates."""
        return Rows(
            self.store, self.vocabulary, self.user, self.at, self.statistics_at, self.row[keep], self.item[keep]
        )

    @cached_property
    def own(self) -> tuple[Ints, Ints]:
        """Where the user's clicks before the request begin and end in `store.sequences`; shape (n_requests,) each."""
        right, (left,) = self.store.of_user.edges(self.user, self.at, (None,))
        return left, right

    def place(self, age: int) -> Ints:
        """Place in `store.sequences` of the user's last click (age 0), the one before (1), ...; -1 where none."""
        left, right = self.own
        return np.where(right - 1 - age >= left, right - 1 - age, -1)

    def clicked(self, age: int) -> Ints:
        """Article code of that click, per request; -1 where none."""
        return take(self.store.sequences.item, self.place(age), NO_KEY)

    def clicked_at(self, age: int) -> Ints:
        """Time of that click, ms; `NO_TIME` where none."""
        return take(self.store.sequences.time, self.place(age), NO_TIME)

    @property
    def statistics_of_row(self) -> Ints:
        """`statistics_at` per candidate."""
        return self.statistics_at[self.row]


Facts = Mapping[str, "Ints | pl.Series"]


@dataclass(frozen=True)
class FactGroup:
    """Columns that one function computes together."""

    names: tuple[str, ...]
    compute: Callable[[Rows, tuple[str, ...]], Facts]
    """Gets the rows and those of `names` that are wanted; values of shape (n_requests,) or (n_candidates,)."""
    per_request: bool = False
    needs: tuple[str, ...] = ()
    """Optional columns of the log without which the group is left out: `articles.words`, `clicks.referrer` ..."""


def _window(name: str) -> int:
    return WINDOWS[name.rsplit("_", 1)[1]]


def _counts(index: EventIndex, key: Ints, at: Ints, wanted: tuple[str, ...]) -> Facts:
    return dict(zip(wanted, index.counts(key, at, tuple(_window(name) for name in wanted)), strict=True))


def counted(
    names: tuple[str, ...], of: Callable[[Rows], tuple[EventIndex, Ints]], needs: tuple[str, ...] = ()
) -> FactGroup:
    """Counts per candidate, one window per name (its ending), of the index and key that `of` chooses."""

    def compute(rows: Rows, wanted: tuple[str, ...]) -> Facts:
        index, key = of(rows)
        return _counts(index, key, rows.statistics_of_row, wanted)

    return FactGroup(names, compute, needs=needs)


def counted_per_request(
    names: tuple[str, ...], of: Callable[[Rows], tuple[EventIndex, Ints]], needs: tuple[str, ...] = ()
) -> FactGroup:
    """The same with one key per request."""

    def compute(rows: Rows, wanted: tuple[str, ...]) -> Facts:
        index, key = of(rows)
        return _counts(index, key, rows.statistics_at, wanted)

    return FactGroup(names, compute, per_request=True, needs=needs)


def _known(times: Ints) -> pl.Series:
    """Milliseconds as a column, `NO_TIME` as null."""
    return pl.Series(times).set(pl.Series(times == NO_TIME), None)


def _known_number(values: Ints) -> pl.Series:
    return pl.Series(values).set(pl.Series(values < 0), None)


def _moment(rows: Rows, wanted: tuple[str, ...]) -> Facts:
    return {"requested_ms": rows.at}


def _article(rows: Rows, wanted: tuple[str, ...]) -> Facts:
    return {"created_ms": _known(take(rows.store.created, rows.item, NO_TIME))}


def _words(rows: Rows, wanted: tuple[str, ...]) -> Facts:
    return {"words": _known_number(take(rows.store.words, rows.item, -1))}


def _last_item_click(rows: Rows, wanted: tuple[str, ...]) -> Facts:
    return {"item_clicked_ms": _known(rows.store.of_item.latest(rows.item, rows.statistics_of_row))}


def _user(rows: Rows, wanted: tuple[str, ...]) -> Facts:
    left, right = rows.own
    index = rows.store.of_user
    day_ago = index.counts(rows.user, rows.at, (DAY,))[0]
    return {
        "user_clicks": right - left,
        "user_clicks_24h": day_ago,
        "user_sessions": index.sums("session_starts", left, right),
        "user_first_ms": _known(take(rows.store.sequences.time, np.where(right > left, left, -1), NO_TIME)),
        "user_last_ms": _known(rows.clicked_at(0)),
        "session_clicks": take(rows.store.session_clicks, rows.place(0), 0),
    }


def _user_words(rows: Rows, wanted: tuple[str, ...]) -> Facts:
    left, right = rows.own
    index = rows.store.of_user
    return {
        "user_words": index.sums("words", left, right),
        "user_clicks_with_words": index.sums("with_words", left, right),
    }


def _user_categories(rows: Rows, wanted: tuple[str, ...]) -> Facts:
    left, right = rows.own
    return {"user_categories": rows.store.of_user.sums("new_categories", left, right)}


def _last_created(rows: Rows, wanted: tuple[str, ...]) -> Facts:
    return {"last_created_ms": _known(take(rows.store.created, rows.clicked(0), NO_TIME))}


def _last_words(rows: Rows, wanted: tuple[str, ...]) -> Facts:
    return {"last_words": _known_number(take(rows.store.words, rows.clicked(0), -1))}


def _category_of_row(rows: Rows) -> Ints:
    return take(rows.store.category, rows.item, NO_KEY)


def _last_category(rows: Rows, age: int = 0) -> Ints:
    return take(rows.store.category, rows.clicked(age), NO_KEY)


def _user_category(rows: Rows, wanted: tuple[str, ...]) -> Facts:
    category = _category_of_row(rows)
    key = rows.store.pair_key(rows.user[rows.row], category)
    return {
        "user_category_clicks": rows.store.of_user_category.counts(key, rows.at[rows.row], (None,))[0],
        "category_code": _known_number(category),
        "last_category_code": _known_number(_last_category(rows)[rows.row]),
        "second_category_code": _known_number(_last_category(rows, 1)[rows.row]),
    }


def _moves(age: int, back: bool = False) -> Callable[[Rows], tuple[EventIndex, Ints]]:
    """Transitions from the user's click of that age to the candidate, or back from the candidate to it."""

    def of(rows: Rows) -> tuple[EventIndex, Ints]:
        clicked = rows.clicked(age)[rows.row]
        key = rows.store.pair_key(rows.item, clicked) if back else rows.store.pair_key(clicked, rows.item)
        return rows.store.of_transition, key

    return of


def _category_moves(rows: Rows) -> tuple[EventIndex, Ints]:
    key = rows.store.pair_key(_last_category(rows)[rows.row], _category_of_row(rows))
    return rows.store.of_category_transition, key


def _context(name: str) -> FactGroup:
    def compute(rows: Rows, wanted: tuple[str, ...]) -> Facts:
        last = rows.store.context(name, rows.place(0))
        codes = np.full(len(rows.at), UNKNOWN, np.int64) if last is None else rows.vocabulary.codes(last)
        return {f"last_{name}_code": codes}

    return FactGroup((f"last_{name}_code",), compute, per_request=True, needs=(f"clicks.{name}",))


FACTS: Final[tuple[FactGroup, ...]] = (
    FactGroup(("requested_ms",), _moment, per_request=True),
    FactGroup(("created_ms",), _article, needs=("articles.created_at",)),
    FactGroup(("words",), _words, needs=("articles.words",)),
    counted(
        tuple(f"item_clicks_{w}" for w in ("5m", "15m", "1h", "3h", "12h", "48h")), lambda r: (r.store.of_item, r.item)
    ),
    FactGroup(("item_clicked_ms",), _last_item_click),
    counted(
        ("category_clicks_1h", "category_clicks_12h"),
        lambda r: (r.store.of_category, _category_of_row(r)),
        needs=("articles.category",),
    ),
    counted_per_request(
        ("all_clicks_15m", "all_clicks_3h"), lambda r: (r.store.of_all, np.zeros_like(r.statistics_at))
    ),
    FactGroup(
        ("user_clicks", "user_clicks_24h", "user_sessions", "user_first_ms", "user_last_ms", "session_clicks"),
        _user,
        per_request=True,
    ),
    FactGroup(("user_words", "user_clicks_with_words"), _user_words, per_request=True, needs=("articles.words",)),
    FactGroup(("user_categories",), _user_categories, per_request=True, needs=("articles.category",)),
    FactGroup(("last_created_ms",), _last_created, per_request=True, needs=("articles.created_at",)),
    FactGroup(("last_words",), _last_words, per_request=True, needs=("articles.words",)),
    FactGroup(
        ("user_category_clicks", "category_code", "last_category_code", "second_category_code"),
        _user_category,
        needs=("articles.category",),
    ),
    counted(("transitions_3h", "transitions_36h"), _moves(0)),
    counted(("back_transitions_36h",), _moves(0, back=True)),
    counted(("second_transitions_3h", "second_transitions_36h"), _moves(1)),
    counted_per_request(("departures_3h", "departures_36h"), lambda r: (r.store.of_departure, r.clicked(0))),
    counted_per_request(("second_departures_36h",), lambda r: (r.store.of_departure, r.clicked(1))),
    counted(("category_transitions_24h",), _category_moves, needs=("articles.category",)),
    counted_per_request(
        ("category_departures_24h",),
        lambda r: (r.store.of_category_departure, _last_category(r)),
        needs=("articles.category",),
    ),
    *(_context(name) for name in CONTEXT),
)
"""Every fact there is; a feature names the ones it needs by reading their columns."""


def attach_facts(rows: Rows, wanted: set[str]) -> pl.DataFrame:
    """Compute the wanted facts: one column each, one row per candidate, in the candidates' order."""
    columns: dict[str, Ints | pl.Series] = {}
    for group in FACTS:
        names = tuple(name for name in group.names if name in wanted)
        if not names:
            continue
        values = group.compute(rows, names)
        for name in names:
            column = values[name]
            columns[name] = _repeat(column, rows.row) if group.per_request else column
    return pl.DataFrame(columns)


def _repeat(column: "Ints | pl.Series", row: Ints) -> "Ints | pl.Series":
    return column.gather(row) if isinstance(column, pl.Series) else column[row]
