"""Folding: events that no window reaches any more are added up, so that a state grows with users and pairs, not events.

A request from `answers_from` on is answered to the bit as if nothing had been folded. Kept whole are all events from
the border on, and before it what is looked at by its place: each user's last clicks, last requests with their lists,
and a session that is open at the border.
"""

from typing import Final

import numpy as np
import polars as pl

from features.articles import milliseconds
from features.events import NEVER, EventStore, Folded
from features.exposure_facts import LAST_REQUESTS
from features.facts import WINDOWS
from features.past import SUMMARIES, added, named
from features.similarity_facts import LAST_CLICKS
from features.windows import NO_TIME, SESSION_PAUSE_MS, Ints

LONGEST_WINDOW: Final = max(window for window in WINDOWS.values() if window is not None)
"""A request's windows begin at most so long before it, ms."""


def answers_from(store: EventStore) -> int | None:
    """The first moment of requests, and of their statistics, that features are right for, ms; None for every moment."""
    return None if store.border is None else store.border + LONGEST_WINDOW


def fold(store: EventStore, border: int, last_clicks: int = LAST_CLICKS) -> EventStore:
    """The store with earlier events added up; the store itself stays as it is.

    Args:
        store: May have been folded already.
        border: Events from this moment on are kept, ms; one before that of an earlier folding changes nothing.
        last_clicks: So many last clicks of each user before the border are kept too; at most those of an earlier
            folding can be.

    Returns:
        A new store with codes of its own.
    """
    if store.border is not None and border <= store.border:
        return store
    kept = max(last_clicks, LAST_CLICKS) if store.last_clicks is None else store.last_clicks
    read, shown = _clicks_since(store, border, kept), _lists_since(store, border)
    since = {"clicks": read, "shown": shown, "requests": shown}
    folded = {}
    for name, table in store.tables.items():
        rows = table.rows(0)
        old = rows["time"] < since[name][rows["user"]]
        folded[name] = {column: values[old] for column, values in rows.items()}
    summaries = {
        name: added(name, store.past.get(name), folded[made.table], border) for name, made in SUMMARIES.items()
    }
    told = Folded(border, kept, named(summaries, store.users, store.items))
    clicks = store.clicks.filter(_from(store, store.clicks, "clicked_at", read))
    lists = store.impressions
    lists = None if lists is None else lists.filter(_from(store, lists, "requested_at", shown))
    return EventStore(clicks, store.articles, lists, told)


def _from(store: EventStore, frame: pl.DataFrame, time: str, since: Ints) -> pl.Series:
    return pl.Series(milliseconds(frame[time]) >= since[store.user_codes(frame["user_id"])])


def _clicks_since(store: EventStore, border: int, last: int) -> Ints:
    """From when on each user's clicks are kept, ms, shape (n_users,)."""
    table = store.tables["clicks"]
    return np.minimum(border, _last_time(table["user"], table["time"], len(store.users), border, last))


def _lists_since(store: EventStore, border: int) -> Ints:
    """From when on each user's requests and what they showed are kept, ms, shape (n_users,)."""
    table = store.tables["requests"]
    user, time = table["user"], table["time"]
    since = _last_time(user, time, len(store.users), border, max(LAST_REQUESTS))
    # A session that may still go on: what was shown in it is counted from its start.
    open_at_border = np.full(len(store.users), NEVER)
    live = (time < border) & (time >= border - SESSION_PAUSE_MS)
    np.minimum.at(open_at_border, user[live], table["session_start"][live])
    kept: Ints = np.minimum(np.minimum(border, since), open_at_border)
    return kept


def _last_time(user: Ints, time: Ints, n_users: int, border: int, last: int) -> Ints:
    """Time of each user's `last`-th newest event before the border, ms, `NO_TIME` for fewer; shape (n_users,)."""
    before = time < border
    order = np.lexsort((time[before], user[before]))
    user, time = user[before][order], time[before][order]
    ends = np.searchsorted(user, np.arange(n_users), side="right")
    starts = np.searchsorted(user, np.arange(n_users), side="left")
    found = ends - starts >= last
    since = np.full(n_users, NO_TIME)
    since[found] = time[(ends - last)[found]]
    return since
