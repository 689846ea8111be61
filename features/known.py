"""What of new events a store knows already, and whether it can take the others in without being made anew."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from features.articles import milliseconds
from features.columns import CONTEXT
from features.event_rows import NEVER

if TYPE_CHECKING:
    from features.events import EventStore


def unknown_clicks(store: "EventStore", clicks: pl.DataFrame) -> pl.DataFrame:
    """Only the clicks that the store does not have."""
    # Known clicks are no later than the user's last one: usual ones need no look at all that the user has read.
    if not _late(store, clicks, "user", "clicked_at"):
        return clicks
    return clicks.filter(~_has(store, clicks, "user_item", "clicked_at"))


def unknown_shown(store: "EventStore", shown: pl.DataFrame) -> pl.DataFrame:
    """Only the exposures that the store does not have."""
    if not _late(store, shown, "request", "requested_at"):
        return shown
    there = _has(store, shown, "user_exposure", "requested_at")
    if not there.any():
        return shown
    # Two lists of one user at one instant may show the same article; only their numbers tell them from a repeat.
    key = ["request_id", "item_id"]
    instants = shown.filter(there)["requested_at"].unique()
    assert store.impressions is not None, "an exposure is there, so there are impressions"
    known = store.impressions.filter(pl.col("requested_at").is_in(instants.implode())).select(key)
    return shown.join(known, on=key, how="anti", maintain_order="left")


def _has(store: "EventStore", events: pl.DataFrame, index: str, time: str) -> pl.Series:
    """Whether the user met the article at that very instant."""
    key = store.pair_key(store.user_codes(events["user_id"]), store.item_codes(events["item_id"]))
    at = milliseconds(events[time])
    return pl.Series(store.index(index).counts_since(key, at, at + 1) > 0)


def cannot_grow(store: "EventStore", more: Mapping[str, pl.DataFrame]) -> bool:
    """Whether some events come before known ones of their users, or tell what changes the meaning of known ones."""
    late = [
        _late(store, more[name], index, time)
        for name, index, time in (("clicks", "user", "clicked_at"), ("impressions", "request", "requested_at"))
        if name in more
    ]
    # A list that is told after a click out of it changes what the click says.
    clicked_already = "impressions" in more and _clicked_since(store, more["impressions"])
    new_columns = "clicks" in more and not set(store.context_ids) >= set(CONTEXT) & set(more["clicks"].columns)
    return any(late) or clicked_already or new_columns


def _clicked_since(store: "EventStore", shown: pl.DataFrame) -> bool:
    key = store.pair_key(store.user_codes(shown["user_id"]), store.item_codes(shown["item_id"]))
    at = milliseconds(shown["requested_at"])
    return bool((store.index("user_item").counts_since(key, at, np.full(len(at), NEVER // 2)) > 0).any())


def _late(store: "EventStore", events: pl.DataFrame, index: str, time: str) -> bool:
    user = store.user_codes(events["user_id"])
    return bool((store.index(index).latest(user, np.full(len(user), NEVER // 2)) >= milliseconds(events[time])).any())
