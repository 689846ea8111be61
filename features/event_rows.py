"""Canonical frames as rows of the event tables: in each user's order, coded, with what the user's earlier rows decide.

The same functions make the rows of a whole log and those of one more event.
"""

from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from features.articles import milliseconds
from features.columns import SECOND
from features.ids import Ids
from features.indices import CHANCE_UNIT, DEPTH_UNIT
from features.past import past_index, past_of
from features.tables import NO_DWELL, follow
from features.windows import NO_KEY, NO_TIME, Ints

if TYPE_CHECKING:
    from features.events import EventStore

NEVER: Final = int(np.iinfo(np.int64).max)
"""A moment that does not come."""

SHOWN: Final = ("user", "item", "time", "chance", "length", "depth")
REQUESTS: Final = ("row", "user", "time", "page", "shown", "opens_session", "session_place", "session_start")


def take(values: Ints, place: Ints, missing: int) -> npt.NDArray[np.int64]:
    """`values[place]`, and `missing` where `place` is negative. Shape of `place`."""
    if not len(values):
        return np.full(len(place), missing, np.int64)
    return np.where(place >= 0, values[np.maximum(place, 0)], missing)


def click_rows(store: "EventStore", clicks: pl.DataFrame) -> dict[str, Ints]:
    """Rows of the clicks table: by user, then time, ties by the article's id."""
    ordered = clicks.sort("clicked_at", "item_id")
    user = store.user_codes(ordered["user_id"])
    order = np.argsort(user, kind="stable")
    ordered, user = ordered[order], user[order]
    item, time = store.item_codes(ordered["item_id"]), milliseconds(ordered["clicked_at"])
    category = store.category[item]
    before = _last_clicks(store, user, time, category)
    told = follow(user, time, category, before)
    previous = take(item, told["previous_row"], NO_KEY)
    start = len(store.tables["clicks"]) if "clicks" in store.tables else 0
    dwell = ordered["dwell_seconds"] if "dwell_seconds" in ordered.columns else None
    return {
        "row": np.arange(start, start + len(user), dtype=np.int64),
        "user": user,
        "item": item,
        "time": time,
        "previous": np.where(told["previous_row"] < 0, before["item"], previous),
        "opens_session": told["opens_session"],
        "session_place": told["session_place"],
        "new_category": told["new_kind"],
        "dwell": np.full(len(user), NO_DWELL) if dwell is None else _lengths(dwell),
        **{name: _codes(ids, ordered, name) for name, ids in store.context_ids.items()},
    }


def _last_clicks(store: "EventStore", user: Ints, time: Ints, category: Ints) -> dict[str, Ints]:
    """What `features.tables.follow` asks for."""
    if "clicks" not in store.tables or not len(store.tables["clicks"]):
        return _folded_clicks(store, user, category) if store.past else _nothing_before(len(user))
    table, now = store.tables["clicks"], np.full(len(user), NEVER // 2)
    row = store.index("user").nth_latest("row", user, now, 0)
    return {
        "item": take(table["item"], row, NO_KEY),
        "time": take(table["time"], row, NO_TIME),
        "session_place": take(table["session_place"], row, 0),
        "known": store.index("user_category").counts(store.pair_key(user, category), now, (None,))[0],
    }


def _folded_clicks(store: "EventStore", user: Ints, category: Ints) -> dict[str, Ints]:
    told, row = past_of(store.past["readers"], user)
    key = store.pair_key(user, category)
    return {
        "item": take(told["item"], row, NO_KEY),
        "time": take(told["time"], row, NO_TIME),
        "session_place": take(told["session_place"], row, 0),
        "known": past_index(store, "user_category").counts(key, np.full(len(user), NEVER // 2), (None,))[0],
    }


def shown_rows(store: "EventStore", impressions: pl.DataFrame | None) -> tuple[dict[str, Ints], dict[str, Ints]]:
    """Rows of the tables of exposures and of requests: by user, then time, then request."""
    if impressions is None:
        return {name: np.zeros(0, np.int64) for name in SHOWN}, {name: np.zeros(0, np.int64) for name in REQUESTS}
    ordered = impressions.sort("requested_at", "request_id", maintain_order=True)
    user = store.user_codes(ordered["user_id"])
    order = np.argsort(user, kind="stable")
    ordered, user = ordered[order], user[order]
    time = milliseconds(ordered["requested_at"])
    starts = _run_starts(ordered["request_id"])
    length = np.diff(np.append(starts, len(user)))
    chance = CHANCE_UNIT // np.repeat(length, length) if len(length) else np.zeros(0, np.int64)
    page = ordered["page_item_id"] if "page_item_id" in ordered.columns else None
    pages = np.full(len(user), NO_KEY) if page is None else store.item_codes(page)
    item = store.item_codes(ordered["item_id"])
    lengths = np.repeat(length, length)
    depth = DEPTH_UNIT // lengths**3
    shown = {"user": user, "item": item, "time": time, "chance": chance, "length": lengths, "depth": depth}
    return shown, _request_rows(store, user[starts], time[starts], length, pages[starts])


def _request_rows(store: "EventStore", user: Ints, time: Ints, length: Ints, page: Ints) -> dict[str, Ints]:
    before, start = _nothing_before(len(user)), 0
    session = np.full(len(user), NO_TIME)
    if "requests" in store.tables and len(store.tables["requests"]):
        table, start = store.tables["requests"], len(store.tables["requests"])
        row = store.index("request").nth_latest("row", user, np.full(len(user), NEVER // 2), 0)
        before["time"] = take(table["time"], row, NO_TIME)
        before["session_place"] = take(table["session_place"], row, 0)
        session = take(table["session_start"], row, NO_TIME)
    elif store.past:
        folded, row = past_of(store.past["visitors"], user)
        before["time"] = take(folded["time"], row, NO_TIME)
        before["session_place"] = take(folded["session_place"], row, 0)
        session = take(folded["session_start"], row, NO_TIME)
    told = follow(user, time, np.full(len(user), NO_KEY), before)
    # The session's first request is among these rows, or it is that of the user's last request before them.
    opened = np.arange(len(user)) - told["session_place"] + 1
    inside = (opened >= 0) & (user[np.maximum(opened, 0)] == user) if len(user) else opened
    return {
        "row": np.arange(start, start + len(user), dtype=np.int64),
        "user": user,
        "time": time,
        "page": page,
        "shown": length,
        "opens_session": told["opens_session"],
        "session_place": told["session_place"],
        "session_start": np.where(inside, time[np.maximum(opened, 0)], session) if len(user) else session,
    }


def _nothing_before(n: int) -> dict[str, Ints]:
    """For `features.tables.follow`: users without an earlier row."""
    nothing = np.full(n, NO_KEY)
    return {"item": nothing, "time": np.full(n, NO_TIME), "session_place": nothing, "known": np.zeros(n, np.int64)}


def _run_starts(column: pl.Series) -> Ints:
    """Places where another value begins than the one before."""
    same = column.slice(1) == column.slice(0, max(len(column) - 1, 0))
    return np.flatnonzero(np.concatenate([[True], ~same.to_numpy()])[: len(column)])


def _codes(ids: Ids, frame: pl.DataFrame, name: str) -> Ints:
    return ids.codes(frame[name]) if name in frame.columns else np.full(frame.height, NO_KEY)


def _lengths(seconds: pl.Series) -> Ints:
    """Whole milliseconds: rounded to seconds, a reading would be known before it ends."""
    return (seconds.cast(pl.Float64).fill_nan(None) * SECOND).round(0).cast(pl.Int64).fill_null(NO_DWELL).to_numpy()
