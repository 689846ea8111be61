"""A log as plain lists: clicks, lists that were shown, moves from one click to the next."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import polars as pl

from features.vocabulary import Vocabulary
from newsrec.data.log import Log

Id = Any
SECOND_MS = 1_000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
SESSION_PAUSE_MS = 30 * MINUTE_MS
CONTEXT_COLUMNS = ("environment", "device", "os", "country", "region", "referrer")
REQUEST_COLUMNS = (*CONTEXT_COLUMNS, "is_sso_user", "is_subscriber", "gender", "age", "postcode")


@dataclass(frozen=True)
class Click:
    user: Id
    item: Id
    at: int
    context: Mapping[str, Any]
    read: int | None = None
    """How long it was read, ms; None where nobody measured."""


@dataclass(frozen=True)
class Move:
    """From one click of a user to the next, on another article; known at the later one."""

    source: Id
    target: Id
    at: int


@dataclass(frozen=True)
class Slate:
    """A list that was shown."""

    id: int
    user: Id
    at: int
    page: Id | None
    items: Sequence[Id]


@dataclass(frozen=True)
class Request:
    id: int
    user: Id
    at: int
    statistics_at: int
    page: Id | None
    context: Mapping[str, Any]


def clicks(log: Log) -> list[Click]:
    return [
        Click(row["user_id"], row["item_id"], _ms(row["clicked_at"]), row, _read(row.get("dwell_seconds")))
        for row in log.clicks.iter_rows(named=True)
    ]


def slates(log: Log) -> list[Slate]:
    shown: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in () if log.impressions is None else log.impressions.iter_rows(named=True):
        shown[row["request_id"]].append(row)
    return [
        Slate(
            number, r[0]["user_id"], _ms(r[0]["requested_at"]), r[0].get("page_item_id"), [row["item_id"] for row in r]
        )
        for number, r in shown.items()
    ]


def requests(frame: pl.DataFrame) -> list[Request]:
    return [
        Request(
            r["request_id"], r["user_id"], _ms(r["requested_at"]), _ms(r["statistics_at"]), r.get("page_item_id"), r
        )
        for r in frame.iter_rows(named=True)
    ]


def _ms(moment: Any) -> int:
    return round(moment.timestamp() * 1_000)


def _read(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1_000)


def count(times: Iterable[int], start: int | None, end: int) -> int:
    """Events in [start, end)."""
    return sum(1 for t in times if (start is None or t >= start) and t < end)


def sequences(events: Iterable[Click]) -> dict[Id, list[Click]]:
    """Every user's clicks by time, ties by item."""
    of: dict[Id, list[Click]] = defaultdict(list)
    for click in events:
        of[click.user].append(click)
    return {user: sorted(own, key=lambda c: (c.at, c.item)) for user, own in of.items()}


class LogTruth:
    """What happened before a moment."""

    def __init__(self, log: Log, vocabulary: Vocabulary | None = None) -> None:
        self.clicks, self.slates = clicks(log), slates(log)
        self.sequences = sequences(self.clicks)
        self.articles = {row["item_id"]: row for row in log.articles.iter_rows(named=True)}
        self.codes = {(r["column"], r["value"]): r["code"] for r in vocabulary.table.to_dicts()} if vocabulary else {}
        self.moves = [
            Move(a.item, b.item, b.at) for own in self.sequences.values() for a, b in pairwise(own) if a.item != b.item
        ]
        self.first_seen: dict[Id, int] = {}
        for item, at in [(c.item, c.at) for c in self.clicks] + [(i, s.at) for s in self.slates for i in s.items]:
            self.first_seen[item] = min(at, self.first_seen.get(item, at))

    def of(self, item: Id, name: str) -> Any:
        """An attribute of an article, None where unknown; `created_at` in ms."""
        value = self.articles.get(item, {}).get(name)
        return _ms(value) if name == "created_at" and value is not None else value

    def history(self, user: Id, at: int) -> list[Click]:
        """Oldest first."""
        return [c for c in self.sequences.get(user, []) if c.at < at]

    def shown_to(self, user: Id, at: int) -> list[Slate]:
        """Oldest first, lists of the same instant by their number."""
        return sorted((s for s in self.slates if s.user == user and s.at < at), key=lambda s: (s.at, s.id))

    def exists_before(self, item: Id, at: int) -> bool:
        created = self.of(item, "created_at")
        return created < at if created is not None else item in self.first_seen and self.first_seen[item] < at


def visits(moments: Sequence[int]) -> list[list[int]]:
    """Moments in order, cut where a pause is longer than half an hour."""
    cut: list[list[int]] = []
    for moment in moments:
        if not cut or moment - cut[-1][-1] > SESSION_PAUSE_MS:
            cut.append([])
        cut[-1].append(moment)
    return cut
