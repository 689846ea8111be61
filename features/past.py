"""Events that were folded away: what is added up of them by user, article and pair, and how indices hold it.

A row of an index then stands for several events (`features.windows.COUNT`). All of them lie before every window that
begins at all, so windows without a beginning, last times and decayed sums are to the bit those of the events.
`features.folding` decides which events are folded.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from features.articles import NO_WORDS
from features.ids import Ids
from features.indices import HALF_LIVES, TASTE_HALF_LIFE, Rows, decayed_chances, decayed_clicks
from features.windows import COUNT, DECAY_BLOCK, NO_KEY, EventIndex, Ints, decay_block, decay_weights

if TYPE_CHECKING:
    from features.events import EventStore

Columns = dict[str, Ints]
Frames = Mapping[str, pl.DataFrame]

SETTLED: Final = 0
"""Moment of readings that ended before the border."""
CODES: Final = {"user": "user_id", "item": "item_id"}
"""Columns of codes, and of the ids that stand for them in files."""


@dataclass(frozen=True)
class Summary:
    """What is added up of the folded rows of one table, by some keys."""

    table: str
    """Of `features.events.EventStore.tables`."""
    keys: tuple[str, ...]
    columns: Callable[[Rows], Mapping[str, Ints]]
    """Keys and values of rows of the table."""
    how: Mapping[str, str]
    """Value -> how it is put together: `sum`, `min`, `max`, or `last` in the order of the user's events."""
    settled: Callable[[pl.DataFrame, int], pl.DataFrame] = lambda frame, border: frame
    """Rows that may become one because no window that is asked for begins before the border (ms)."""


def _read_pairs(rows: Rows) -> Mapping[str, Ints]:
    return {
        "user": rows["user"],
        "item": rows["item"],
        "block": decay_block(rows["time"], TASTE_HALF_LIFE),
        "n": np.ones_like(rows["time"]),
        "taste": decay_weights(rows["time"], TASTE_HALF_LIFE),
    }


def _old_taste_in_one(frame: pl.DataFrame, border: int) -> pl.DataFrame:
    # A request after the border reads its own block and the one before.
    length = DECAY_BLOCK * TASTE_HALF_LIFE
    lowest = border // length * length - 2 * length
    return frame.with_columns(pl.max_horizontal("block", pl.lit(lowest)))


def _decays(weights: Callable[[Rows], Mapping[str, Ints]]) -> Callable[[Rows], Mapping[str, Ints]]:
    """Weights of all half-lives, one below the other: each has blocks of its own."""

    def columns(rows: Rows) -> Mapping[str, Ints]:
        n, told = len(rows["time"]), weights(rows)
        return {
            "item": np.tile(rows["item"], len(HALF_LIVES)),
            "half_life": np.repeat(np.array(list(HALF_LIVES.values()), np.int64), n),
            "block": np.concatenate([decay_block(rows["time"], half_life) for half_life in HALF_LIVES.values()]),
            "weight": np.concatenate([told[name] for name in HALF_LIVES]),
        }

    return columns


def _living_blocks(frame: pl.DataFrame, border: int) -> pl.DataFrame:
    length = pl.col("half_life") * DECAY_BLOCK
    return frame.filter(pl.col("block") >= border // length * length - length)


def _readings(key: str) -> Callable[[Rows], Mapping[str, Ints]]:
    def columns(rows: Rows) -> Mapping[str, Ints]:
        measured = rows["dwell"] >= 0
        dwell = rows["dwell"][measured]
        ends = rows["time"][measured] + dwell
        return {key: rows[key][measured], "time": ends, "n": np.ones_like(dwell), "ms": dwell}

    return columns


def _ended_in_one(frame: pl.DataFrame, border: int) -> pl.DataFrame:
    return frame.with_columns(time=pl.when(pl.col("time") < border).then(SETTLED).otherwise("time"))


def _ones(rows: Rows) -> dict[str, Ints]:
    return {"n": np.ones_like(rows["time"])}


SUMMARIES: Final[dict[str, Summary]] = {
    "readers": Summary(
        "clicks",
        ("user",),
        lambda r: (
            {name: r[name] for name in ("user", "time", "item", "session_place")}
            | {"first": r["time"], "sessions": r["opens_session"]}
            | _ones(r)
        ),
        {"n": "sum", "sessions": "sum", "first": "min", "time": "last", "item": "last", "session_place": "last"},
    ),
    "read_items": Summary(
        "clicks",
        ("item",),
        lambda r: {"item": r["item"], "first": r["time"], "time": r["time"]} | _ones(r),
        {"n": "sum", "first": "min", "time": "max"},
    ),
    "read_pairs": Summary(
        "clicks", ("user", "item", "block"), _read_pairs, {"n": "sum", "taste": "sum"}, _old_taste_in_one
    ),
    "read_decays": Summary(
        "clicks", ("item", "half_life", "block"), _decays(decayed_clicks), {"weight": "sum"}, _living_blocks
    ),
    "item_readings": Summary("clicks", ("item", "time"), _readings("item"), {"n": "sum", "ms": "sum"}, _ended_in_one),
    "user_readings": Summary("clicks", ("user", "time"), _readings("user"), {"n": "sum", "ms": "sum"}, _ended_in_one),
    "shown_items": Summary(
        "shown",
        ("item",),
        lambda r: (
            {name: r[name] for name in ("item", "time", "chance", "length", "depth")} | {"first": r["time"]} | _ones(r)
        ),
        {"n": "sum", "chance": "sum", "length": "sum", "depth": "sum", "first": "min", "time": "max"},
    ),
    "shown_pairs": Summary(
        "shown",
        ("user", "item"),
        lambda r: {name: r[name] for name in ("user", "item", "time", "length")} | _ones(r),
        {"n": "sum", "time": "last", "length": "last"},
    ),
    "shown_decays": Summary(
        "shown", ("item", "half_life", "block"), _decays(decayed_chances), {"weight": "sum"}, _living_blocks
    ),
    "visitors": Summary(
        "requests",
        ("user",),
        lambda r: (
            {name: r[name] for name in ("user", "time", "session_place", "session_start")}
            | {"sessions": r["opens_session"]}
            | _ones(r)
        ),
        {"n": "sum", "sessions": "sum", "time": "last", "session_place": "last", "session_start": "last"},
    ),
}
"""Summary name -> how it is made. Files of a bundle's `state/folded/` are named so."""


def added(name: str, past: pl.DataFrame | None, rows: Rows, border: int) -> pl.DataFrame:
    """A summary with more folded rows, which are later ones of their users; one row per key, sorted by key.

    Args:
        name: In `SUMMARIES`.
        past: What was folded before, or None.
        rows: Of the summary's table.
        border: No request that is asked for looks at windows that begin before it, ms.
    """
    made = SUMMARIES[name]
    fresh = pl.DataFrame(made.columns(rows))
    both = fresh if past is None else pl.concat([past.cast(fresh.schema).select(fresh.columns), fresh])
    whole = made.settled(both, border).group_by(made.keys).agg(getattr(pl.col(c), how)() for c, how in made.how.items())
    compact = [pl.col(c).cast(pl.Int32) for c in ("user", "item", "n") if c in whole.columns]
    return whole.with_columns(compact).sort(made.keys)


def coded(summaries: Frames, users: Ids, items: Ids) -> dict[str, pl.DataFrame]:
    """Summaries with codes in place of ids."""
    ids = {"user": users, "item": items}
    return {
        name: frame.select(
            pl.Series(code, ids[code].codes(frame[column.name]), pl.Int32) if code in ids else column
            for column in frame
            for code in (column.name.removesuffix("_id"),)
        ).sort(SUMMARIES[name].keys)
        for name, frame in summaries.items()
    }


def named(past: Frames, users: pl.Series, items: pl.Series) -> dict[str, pl.DataFrame]:
    """Summaries with ids in place of codes."""
    ids = {"user": users, "item": items}
    return {
        name: frame.select(
            ids[column.name].gather(column).alias(CODES[column.name]) if column.name in ids else column
            for column in frame
        )
        for name, frame in past.items()
    }


def values_of(frame: pl.DataFrame) -> Columns:
    """Columns as arrays of shape (n_rows,)."""
    return {column.name: column.cast(pl.Int64).to_numpy() for column in frame}


def past_of(frame: pl.DataFrame, user: Ints) -> tuple[Columns, Ints]:
    """A summary of one row per user as arrays, and each user's row in it, -1 where there is none."""
    told = values_of(frame)
    if not len(frame):
        return told, np.full(len(user), NO_KEY)
    row = np.minimum(np.searchsorted(told["user"], user), len(frame) - 1)
    return told, np.where(told["user"][row] == user, row, NO_KEY)


def past_items(store: "EventStore", user: Ints) -> tuple[Ints, Ints]:
    """Articles of each user's folded clicks, as often as they are held: `(place in user, article code)`."""
    pairs = store.past["read_pairs"]
    known, item = pairs["user"].to_numpy(), pairs["item"].to_numpy()
    asked = user.astype(known.dtype)
    start, end = np.searchsorted(known, asked, side="left"), np.searchsorted(known, asked, side="right")
    length = end - start
    place = np.repeat(np.arange(len(user), dtype=np.int64), length)
    row = np.arange(len(place), dtype=np.int64) + np.repeat(start - np.cumsum(length) + length, length)
    return place, item[row].astype(np.int64)


def _user(store: "EventStore") -> Columns:
    readers, pairs = store.past["readers"], store.past["read_pairs"].select("user", "item", "n")
    item = pairs["item"].to_numpy()
    words, category = store.words[item], store.category[item]
    told = pairs.select("user", pl.col("n").cast(pl.Int64)).with_columns(
        words=np.maximum(words, 0), with_words=(words != NO_WORDS).astype(np.int64), category=category
    )
    of_user = told.group_by("user").agg(
        (pl.col("words") * pl.col("n")).sum(),
        (pl.col("with_words") * pl.col("n")).sum(),
        pl.col("category").filter(pl.col("category") >= 0).n_unique().cast(pl.Int64).alias("new_categories"),
    )
    whole = values_of(readers.join(of_user, on="user", how="left", maintain_order="left"))
    return {
        "key": whole["user"],
        "time": whole["time"],
        COUNT: whole["n"],
        # Of no single row: who looks for rows of the table finds those that were kept.
        "row": np.full(len(readers), NO_KEY),
        "words": whole["words"],
        "with_words": whole["with_words"],
        "new_categories": whole["new_categories"],
        "session_starts": whole["sessions"],
    }


def _pairs(summary: str, attribute: str, *values: str, time: str | None = None) -> Callable[["EventStore"], Columns]:
    """(User, article) pairs as pairs of the user and something of the article, or the article itself."""

    def rows(store: "EventStore") -> Columns:
        told = values_of(store.past[summary])
        second = told["item"] if attribute == "item" else getattr(store, attribute)[told["item"]]
        moment = _long_ago(store, len(second)) if time is None else told[time]
        key = store.pair_key(told["user"], second)
        return {"key": key, "time": moment, COUNT: told["n"]} | {name: told[name] for name in values}

    return rows


def _long_ago(store: "EventStore", n: int) -> Ints:
    """A moment before every event that is kept, n times: of rows whose time nobody asks for."""
    return np.full(n, store.first_seen.min() if n else 0)


def _of_items(summary: str, *values: str) -> Callable[["EventStore"], Columns]:
    def rows(store: "EventStore") -> Columns:
        told = values_of(store.past[summary])
        return {"key": told["item"], "time": told["time"], COUNT: told["n"]} | {name: told[name] for name in values}

    return rows


def _of_readings(summary: str, key: str) -> Callable[["EventStore"], Columns]:
    def rows(store: "EventStore") -> Columns:
        told = values_of(store.past[summary])
        time = np.where(told["time"] == SETTLED, _long_ago(store, len(told["time"])), told["time"])
        return {"key": told[key], "time": time, COUNT: told["n"], "ms": told["ms"]}

    return rows


def _of_decays(summary: str) -> Callable[["EventStore"], Columns]:
    def rows(store: "EventStore") -> Columns:
        told = values_of(store.past[summary])
        # Only sums are asked of it: rows of several half-lives stand for no number of events.
        return {"key": told["item"], "time": told["block"], COUNT: np.zeros_like(told["item"])} | {
            name: np.where(told["half_life"] == half_life, told["weight"], 0) for name, half_life in HALF_LIVES.items()
        }

    return rows


def _visits(store: "EventStore") -> Columns:
    told = values_of(store.past["visitors"])
    row = np.full(len(told["user"]), NO_KEY)
    return {"key": told["user"], "time": told["time"], COUNT: told["n"], "row": row, "session_starts": told["sessions"]}


PAST: Final[dict[str, Callable[["EventStore"], Columns]]] = {
    "user": _user,
    "item": _of_items("read_items"),
    "item_decay": _of_decays("read_decays"),
    "user_item": _pairs("read_pairs", "item"),
    "user_category": _pairs("read_pairs", "category", "taste", time="block"),
    "user_publisher": _pairs("read_pairs", "publisher", "taste", time="block"),
    "reading": _of_readings("item_readings", "item"),
    "user_reading": _of_readings("user_readings", "user"),
    "exposure": _of_items("shown_items", "chance", "length", "depth"),
    "exposure_decay": _of_decays("shown_decays"),
    "user_exposure": _pairs("shown_pairs", "item", "length", time="time"),
    "user_category_exposure": _pairs("shown_pairs", "category"),
    "request": _visits,
}
"""Index of `features.indices.INDICES` -> its rows for folded events: `key, time, count` and all its values, each of
shape (n_rows,). The other indices are only asked for windows that begin, which folded events cannot reach."""


def past_index(store: "EventStore", name: str) -> EventIndex:
    """The rows of one index for the folded events alone, one per key and time."""
    rows = pl.DataFrame(PAST[name](store)).group_by("key", "time").agg(pl.all().sum())
    values = values_of(rows)
    return EventIndex(values.pop("key"), values.pop("time"), values)
