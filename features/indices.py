"""Which indices the store can keep: what of a row is the key, when it is known, and which values are added up.

Each is a plain function of rows, so that the same line makes an index of a whole log and grows it by one event.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from features.articles import NO_WORDS
from features.columns import HOUR, MINUTE
from features.windows import NO_KEY, Ints, decay_weights

if TYPE_CHECKING:
    from features.events import EventStore

Rows = Mapping[str, Ints]
Weight = float | npt.NDArray[np.float64]

HALF_LIVES: Final[dict[str, int]] = {"30m": 30 * MINUTE, "2h": 2 * HOUR, "12h": 12 * HOUR}
"""Half-lives of decayed counts of articles by the name that facts carry, ms."""

TASTE_HALF_LIFE: Final = 7 * 24 * HOUR
"""Half-life of a reader's taste for a category or publisher, ms."""

CHANCE_UNIT: Final = 1_000_000
"""An exposure in a list of n articles counts 1 / n chance of a click, in whole millionths (cut off)."""

DEPTH_UNIT: Final = 1_000_000_000
"""An exposure in a list of n articles counts 1 / n ** 3 of this, in whole numbers (cut off)."""


@dataclass(frozen=True)
class Index:
    """How one index is made."""

    table: str
    """`clicks`, `shown` (a row per exposure) or `requests` (a row per impression)."""
    key: Callable[["EventStore", Rows], Ints]
    """-1 leaves the row out."""
    values: Callable[["EventStore", Rows], Mapping[str, Ints]] = lambda store, rows: {}
    time: Callable[[Rows], Ints] = lambda rows: rows["time"]
    """When the row is known, ms."""


def _user_values(store: "EventStore", rows: Rows) -> Mapping[str, Ints]:
    words = store.words[rows["item"]]
    return {
        "row": rows["row"],
        "words": np.maximum(words, 0),
        "with_words": (words != NO_WORDS).astype(np.int64),
        "new_categories": rows["new_category"],
        "session_starts": rows["opens_session"],
    }


def _moved(rows: Rows) -> Ints:
    """The article that the reader came from, -1 where this is the first, or the same again."""
    return np.where(rows["previous"] == rows["item"], NO_KEY, rows["previous"])


def _of(store: "EventStore", attribute: str, item: Ints) -> Ints:
    values: Ints = getattr(store, attribute)
    return np.where(item >= 0, values[np.maximum(item, 0)], NO_KEY)


def _category_move(store: "EventStore", rows: Rows) -> tuple[Ints, Ints]:
    return _of(store, "category", _moved(rows)), store.category[rows["item"]]


def _category_departure(store: "EventStore", rows: Rows) -> Ints:
    source, target = _category_move(store, rows)
    return np.where(target >= 0, source, NO_KEY)


def _decays(weight: Callable[[Rows], Weight]) -> Callable[[Rows], Mapping[str, Ints]]:
    def values(rows: Rows) -> Mapping[str, Ints]:
        return {name: decay_weights(rows["time"], span, weight(rows)) for name, span in HALF_LIVES.items()}

    return values


decayed_clicks: Final = _decays(lambda rows: 1.0)
"""Weights of clicks by the name of the half-life, for `EventIndex.decayed`."""
decayed_chances: Final = _decays(lambda rows: rows["chance"] / CHANCE_UNIT)
"""The same of exposures, each by its chance of a click."""


def _taste(store: "EventStore", rows: Rows) -> Mapping[str, Ints]:
    return {"taste": decay_weights(rows["time"], TASTE_HALF_LIFE)}


def _clicked_list(store: "EventStore", rows: Rows) -> Mapping[str, Ints]:
    """The last list, up to each click, that showed the user the article: its length, and 1; zeros where none did."""
    pair = store.pair_key(rows["user"], rows["item"])
    length = store.index("user_exposure").nth_latest("length", pair, rows["time"] + 1, 0)
    return {"length": np.maximum(length, 0), "known": (length > 0).astype(np.int64)}


INDICES: Final[dict[str, Index]] = {
    # clicks: known at the click
    "user": Index("clicks", lambda s, r: r["user"], _user_values),
    "item": Index("clicks", lambda s, r: r["item"]),
    "item_decay": Index("clicks", lambda s, r: r["item"], lambda s, r: decayed_clicks(r)),
    "category": Index("clicks", lambda s, r: s.category[r["item"]]),
    "all": Index("clicks", lambda s, r: np.zeros_like(r["time"])),
    "user_item": Index("clicks", lambda s, r: s.pair_key(r["user"], r["item"])),
    "user_category": Index("clicks", lambda s, r: s.pair_key(r["user"], s.category[r["item"]]), _taste),
    "user_publisher": Index("clicks", lambda s, r: s.pair_key(r["user"], s.publisher[r["item"]]), _taste),
    # moves from a click to the next of the same user, to another article: known at the later click
    "transition": Index("clicks", lambda s, r: s.pair_key(_moved(r), r["item"])),
    "departure": Index("clicks", lambda s, r: _moved(r)),
    "category_transition": Index("clicks", lambda s, r: s.pair_key(*_category_move(s, r))),
    "category_departure": Index("clicks", _category_departure),
    # a click out of a shown list: known at the click
    "clicked_list": Index("clicks", lambda s, r: r["item"], _clicked_list),
    # a reading: known when it ends
    "reading": Index(
        "clicks",
        lambda s, r: np.where(r["dwell"] >= 0, r["item"], NO_KEY),
        lambda s, r: {"ms": np.maximum(r["dwell"], 0)},
        lambda r: r["time"] + np.maximum(r["dwell"], 0),
    ),
    "user_reading": Index(
        "clicks",
        lambda s, r: np.where(r["dwell"] >= 0, r["user"], NO_KEY),
        lambda s, r: {"ms": np.maximum(r["dwell"], 0)},
        lambda r: r["time"] + np.maximum(r["dwell"], 0),
    ),
    # exposures: known at the request
    "exposure": Index(
        "shown", lambda s, r: r["item"], lambda s, r: {name: r[name] for name in ("chance", "length", "depth")}
    ),
    "exposure_decay": Index("shown", lambda s, r: r["item"], lambda s, r: decayed_chances(r)),
    "user_exposure": Index(
        "shown", lambda s, r: s.pair_key(r["user"], r["item"]), lambda s, r: {"length": r["length"]}
    ),
    "user_category_exposure": Index("shown", lambda s, r: s.pair_key(r["user"], s.category[r["item"]])),
    # requests: known from the next instant on
    "request": Index(
        "requests",
        lambda s, r: r["user"],
        lambda s, r: {"row": r["row"], "session_starts": r["opens_session"]},
    ),
    "visit": Index("requests", lambda s, r: r["page"]),
}
"""Index name -> how it is made. Each is built when it is first asked for."""
