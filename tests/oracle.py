"""The slow truth: windows, features, recall and fusion in loops over plain lists, written from what the words mean.

Nothing here shares a line with the code it checks; constants of the channels are taken from their parameters.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from typing import Any

import polars as pl

from features.vocabulary import Vocabulary
from newsrec.data.log import Log
from newsrec.recall import RecallSettings
from newsrec.recall.itemcf import ItemCFParams
from newsrec.recall.popular import SPARE, PopularParams

Id = Any
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
WINDOW_MS = {"5m": 5 * MINUTE_MS, "15m": 15 * MINUTE_MS} | {f"{h}h": h * HOUR_MS for h in (1, 3, 12, 24, 36, 48)}
POPULAR, ITEMCF = PopularParams(), ItemCFParams()
CONTEXT_COLUMNS = ("environment", "device", "os", "country", "region", "referrer")


@dataclass(frozen=True)
class Click:
    user: Id
    item: Id
    at: int
    context: Mapping[str, Any]


@dataclass(frozen=True)
class Move:
    """From one click of a user to the next, on another article; known at the later one."""

    source: Id
    target: Id
    at: int


@dataclass(frozen=True)
class Request:
    id: int
    user: Id
    at: int
    statistics_at: int


def clicks(log: Log) -> list[Click]:
    names = [n for n in CONTEXT_COLUMNS if n in log.clicks.columns]
    return [
        Click(row["user_id"], row["item_id"], _ms(row["clicked_at"]), {n: row[n] for n in names})
        for row in log.clicks.iter_rows(named=True)
    ]


def requests(frame: pl.DataFrame) -> list[Request]:
    return [
        Request(r["request_id"], r["user_id"], _ms(r["requested_at"]), _ms(r["statistics_at"]))
        for r in frame.iter_rows(named=True)
    ]


def _ms(moment: Any) -> int:
    return round(moment.timestamp() * 1_000)


def count(times: Iterable[int], start: int | None, end: int) -> int:
    """Events in [start, end)."""
    return sum(1 for t in times if (start is None or t >= start) and t < end)


def sequences(events: Iterable[Click]) -> dict[Id, list[Click]]:
    """Every user's clicks by time, ties by item."""
    of: dict[Id, list[Click]] = defaultdict(list)
    for click in events:
        of[click.user].append(click)
    return {user: sorted(own, key=lambda c: (c.at, c.item)) for user, own in of.items()}


class Truth:
    """Slow answers about one log."""

    def __init__(self, log: Log, vocabulary: Vocabulary | None = None) -> None:
        self.clicks = clicks(log)
        self.sequences = sequences(self.clicks)
        self.articles = {row["item_id"]: row for row in log.articles.iter_rows(named=True)}
        self.codes = {(r["column"], r["value"]): r["code"] for r in vocabulary.table.to_dicts()} if vocabulary else {}
        self.moves = [
            Move(a.item, b.item, b.at) for own in self.sequences.values() for a, b in pairwise(own) if a.item != b.item
        ]

    def of(self, item: Id, name: str) -> Any:
        """An attribute of an article, None where unknown; `created_at` in ms."""
        value = self.articles.get(item, {}).get(name)
        return _ms(value) if name == "created_at" and value is not None else value

    def history(self, user: Id, at: int) -> list[Click]:
        """Oldest first."""
        return [c for c in self.sequences.get(user, []) if c.at < at]

    def exists_before(self, item: Id, at: int) -> bool:
        created = self.of(item, "created_at")
        return created < at if created is not None else any(c.item == item and c.at < at for c in self.clicks)

    # Features

    def features(self, request: Request, items: Sequence[Id]) -> list[dict[str, float | None]]:
        """Every feature of one request's whole list, except those of recall; one dict per item."""
        reader = self._reader(request)
        rows = [self._item(request, i) | reader | self._cross(request, i) for i in items]
        for row in rows:
            row["transition_lift_36h"] = _ratio(
                row["transition_share_36h"], _ratio(row["item_clicks_3h"], self._traffic(request, "3h"))
            )
        self._slate(rows, items)
        return rows

    def _clicks_in(self, request: Request, window: str, keep: Any) -> int:
        end = request.statistics_at
        return count((c.at for c in self.clicks if keep(c.item)), end - WINDOW_MS[window], end)

    def _traffic(self, request: Request, window: str) -> int:
        return self._clicks_in(request, window, lambda i: True)

    def _item(self, request: Request, item: Id) -> dict[str, float | None]:
        n = {w: self._clicks_in(request, w, lambda i: i == item) for w in ("5m", "15m", "1h", "3h", "12h", "48h")}
        category = self.of(item, "category")
        of_category = {
            w: 0 if category is None else self._clicks_in(request, w, lambda i: self.of(i, "category") == category)
            for w in ("1h", "12h")
        }
        read = [c.at for c in self.clicks if c.item == item and c.at < request.statistics_at]
        created = self.of(item, "created_at")
        return {
            **{f"item_clicks_{w}": value for w, value in n.items()},
            "item_traffic_share_15m": _ratio(n["15m"], self._traffic(request, "15m")),
            "item_traffic_share_3h": _ratio(n["3h"], self._traffic(request, "3h")),
            "item_trend_15m_3h": (n["15m"] * 12 + 1) / (n["3h"] + 1),
            "item_trend_1h_12h": (n["1h"] * 12 + 1) / (n["12h"] + 1),
            "item_minutes_since_click": max(1.0, (request.at - max(read)) / MINUTE_MS) if read else None,
            "item_age_hours": None if created is None else (request.at - created) / HOUR_MS,
            "item_words": self.of(item, "words"),
            **{f"category_clicks_{w}": value for w, value in of_category.items()},
            "item_share_of_category_1h": _ratio(n["1h"], of_category["1h"]),
        }

    def _reader(self, request: Request) -> dict[str, float | None]:
        own = self.history(request.user, request.at)
        visits: list[list[Click]] = []
        for click in own:
            if not visits or click.at - visits[-1][-1].at > 30 * MINUTE_MS:
                visits.append([])
            visits[-1].append(click)
        words = [w for w in (self.of(c.item, "words") for c in own) if w is not None]
        categories = {self.of(c.item, "category") for c in own} - {None}
        gap = (own[-1].at - own[0].at) / (len(own) - 1) if len(own) > 1 else None
        return {
            "user_clicks": len(own),
            "user_clicks_24h": count((c.at for c in own), request.at - DAY_MS, request.at),
            "user_sessions": len(visits),
            "user_session_clicks": len(visits[-1]) if visits else 0,
            "user_minutes_since_click": max(1.0, (request.at - own[-1].at) / MINUTE_MS) if own else None,
            "user_mean_gap_hours": None if gap is None else max(gap, MINUTE_MS) / HOUR_MS,
            "user_mean_words": sum(words) / len(words) if words else None,
            "user_category_variety": len(categories) / len(own) if own else None,
            "hour": request.at % DAY_MS / HOUR_MS,
            **{f"last_{name}": self._last_context(own, name) for name in CONTEXT_COLUMNS},
        }

    def _last_context(self, own: list[Click], name: str) -> int:
        return self.codes.get((name, str(own[-1].context.get(name))), 0) if own else 0

    def _cross(self, request: Request, item: Id) -> dict[str, float | None]:
        own = self.history(request.user, request.at)
        last, second = (own[-n].item if len(own) >= n else None for n in (1, 2))
        category, words, created = (self.of(item, name) for name in ("category", "words", "created_at"))
        same = sum(1 for c in own if category is not None and self.of(c.item, "category") == category)
        taste = [w for w in (self.of(c.item, "words") for c in own) if w is not None]
        return {
            "user_category_clicks": same,
            "user_category_share": _ratio(same, len(own)),
            "same_category_as_last": _equal(category, self.of(last, "category")),
            "same_category_as_second": _equal(category, self.of(second, "category")),
            "words_minus_last": _minus(words, self.of(last, "words")),
            "words_minus_user_mean": _minus(words, sum(taste) / len(taste) if taste else None),
            "hours_created_after_last": _minus(created, self.of(last, "created_at"), HOUR_MS),
            "hours_created_after_visit": _minus(created, own[-1].at if own else None, HOUR_MS),
            **{f"transitions_{w}": self._moves(request, w, last, item) for w in ("3h", "36h")},
            **{
                f"transition_share_{w}": _ratio(
                    self._moves(request, w, last, item), self._moves(request, w, last, None)
                )
                for w in ("3h", "36h")
            },
            "back_transitions_36h": 0 if last is None else self._moves(request, "36h", item, last),
            "second_transitions_3h": self._moves(request, "3h", second, item),
            "second_transition_share_36h": _ratio(
                self._moves(request, "36h", second, item), self._moves(request, "36h", second, None)
            ),
            "category_transition_share_24h": self._category_share(request, self.of(last, "category"), category),
        }

    def _recent(self, request: Request, window: str) -> list[Move]:
        end = request.statistics_at
        return [m for m in self.moves if end - WINDOW_MS[window] <= m.at < end]

    def _moves(self, request: Request, window: str, source: Id, target: Id) -> int:
        """Moves from source to target (None: to anything)."""
        recent = self._recent(request, window)
        return sum(1 for m in recent if source is not None and m.source == source and target in (None, m.target))

    def _category_share(self, request: Request, source: Any, target: Any) -> float | None:
        pairs = [(self.of(m.source, "category"), self.of(m.target, "category")) for m in self._recent(request, "24h")]
        leaving = [b for a, b in pairs if None not in (a, b, source) and a == source]
        return _ratio(sum(1 for b in leaving if b == target), len(leaving))

    def _slate(self, rows: list[dict[str, float | None]], items: Sequence[Id]) -> None:
        created = [self.of(i, "created_at") for i in items]
        newest = max((c for c in created if c is not None), default=None)
        signals = ("item_clicks_15m", "item_clicks_1h", "transitions_3h", "transitions_36h")
        columns = {s: [row[s] or 0 for row in rows] for s in signals}
        for place, row in enumerate(rows):
            for signal, values in columns.items():
                row[f"{signal}_slate_rank"] = 1 + sum(1 for v in values if v > values[place])
                row[f"{signal}_slate_share"] = _ratio(values[place], sum(values))
            own = created[place]
            newer = sum(1 for c in created if c is not None and own is not None and c > own)
            row["slate_freshness_rank"] = None if own is None else 1 + newer
            row["slate_hours_behind_newest"] = _minus(newest, own, HOUR_MS)

    # Recall

    def popular(
        self, request: Request, settings: RecallSettings, params: PopularParams = POPULAR
    ) -> list[tuple[Id, float]]:
        """(item, score), best first."""
        grid = request.statistics_at // settings.refresh_ms
        scores: Counter[Id] = Counter()
        for click in self.clicks:
            back = grid - click.at // settings.refresh_ms  # 1: in the last whole step before the refresh
            for hours, weight in zip(params.windows_hours, params.weights, strict=True):
                if 1 <= back <= _steps(hours, settings):
                    scores[click.item] += weight
        ranked = sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))[: SPARE * settings.depth]
        return self._allowed(request, ranked)[: settings.depth]

    def itemcf(
        self, request: Request, settings: RecallSettings, params: ItemCFParams = ITEMCF
    ) -> list[tuple[Id, float]]:
        """(item, score), best first."""
        similar = self._similar(request.statistics_at // settings.refresh_ms, settings, params)
        scores: dict[Id, float] = defaultdict(float)
        for age, click in enumerate(reversed(self.history(request.user, request.at)[-params.history :])):
            for target, similarity in similar.get(click.item, []):
                scores[target] += params.history_decay**age * similarity
        ranked = sorted(scores.items(), key=lambda pair: (-round(pair[1], 9), pair[0]))
        return self._allowed(request, ranked)[: settings.depth]

    def _similar(self, grid: int, settings: RecallSettings, params: ItemCFParams) -> dict[Id, list[tuple[Id, float]]]:
        window = _steps(params.window_hours, settings)

        def known(at: int) -> bool:
            return 1 <= grid - at // settings.refresh_ms <= window

        clicked = Counter(c.item for c in self.clicks if known(c.at))
        weights: dict[Id, Counter[Id]] = defaultdict(Counter)
        for own in self.sequences.values():
            for there, later in enumerate(own):
                for distance in range(1, min(params.places, there) + 1):
                    earlier = own[there - distance]
                    if earlier.item == later.item or not known(later.at):
                        continue
                    gap = (later.at - earlier.at) / (params.gap_hours * HOUR_MS)
                    weight = 1_000 * params.place_decay ** (distance - 1) / (1 + gap)
                    for a, b, worth in ((earlier, later, weight), (later, earlier, weight * params.backward)):
                        if worth > 0:
                            weights[a.item][b.item] += max(1, round(worth))
        similar = {}
        for source, targets in weights.items():
            scored = [
                (t, w / 1_000 / sqrt(clicked[source] or 1) / (clicked[t] or 1) ** params.popularity_power)
                for t, w in targets.items()
            ]
            similar[source] = sorted(scored, key=lambda pair: (-pair[1], pair[0]))[: params.neighbours]
        return similar

    def _allowed(self, request: Request, ranked: Sequence[tuple[Id, float]]) -> list[tuple[Id, float]]:
        read = {c.item for c in self.history(request.user, request.at)}
        return [(i, s) for i, s in ranked if i not in read and self.exists_before(i, request.at)]


def fuse(lists: Sequence[Sequence[Id]], offset: int) -> list[Id]:
    """Reciprocal rank fusion of ordered lists, best first, ties by id."""
    scores: dict[Id, float] = defaultdict(float)
    for ordered in lists:
        for place, item in enumerate(ordered):
            scores[item] += 1 / (offset + place + 1)
    return sorted(scores, key=lambda i: (-scores[i], i))


def _steps(hours: float, settings: RecallSettings) -> int:
    return max(1, round(hours * HOUR_MS / settings.refresh_ms))


def _ratio(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def _minus(a: float | None, b: float | None, unit: int = 1) -> float | None:
    return None if a is None or b is None else (a - b) / unit


def _equal(a: Any, b: Any) -> float | None:
    return None if a is None or b is None else float(a == b)
