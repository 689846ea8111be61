"""Every feature, except those of recall, in loops: first what a request can know, then one dict per candidate."""

from collections.abc import Iterable, Sequence
from math import hypot, log
from typing import Any

from tests.oracle.log import (
    CONTEXT_COLUMNS,
    DAY_MS,
    HOUR_MS,
    MINUTE_MS,
    REQUEST_COLUMNS,
    SECOND_MS,
    SESSION_PAUSE_MS,
    Click,
    Id,
    LogTruth,
    Move,
    Request,
    count,
    visits,
)

Row = dict[str, float | None]
WINDOW_MS = (
    {"5m": 5 * MINUTE_MS, "15m": 15 * MINUTE_MS}
    | {f"{h}h": h * HOUR_MS for h in (1, 3, 6, 12, 24, 36, 48)}
    | {"all": 10**15}
)
HALF_LIFE_MS = {"30m": 30 * MINUTE_MS, "2h": 2 * HOUR_MS, "12h": 12 * HOUR_MS}
WEEK_MS = 7 * DAY_MS
SIGNALS = ("item_clicks_15m", "item_clicks_1h", "transitions_3h", "transitions_36h")
EXPOSURE_SIGNALS = (
    *(f"item_exposures_{w}" for w in ("5m", "15m", "1h", "6h")),
    *("item_clicks_6h", "item_clicks_24h", "user_item_exposures_all"),
)


class FeatureTruth(LogTruth):
    """Features as loops over a log."""

    def features(self, request: Request, items: Sequence[Id]) -> list[Row]:
        """Every feature of one request's whole list, except those of recall; one dict per item."""
        reader = self._reader(request) | self._visit(request)
        rows = [
            self._item(request, i)
            | self._exposure(request, i)
            | self._own_exposure(request, i)
            | self._page(request, i)
            | self._similarity(request, i)
            | self._cross(request, i)
            | reader
            for i in items
        ]
        for row in rows:
            traffic = _ratio(row["item_clicks_3h"], self._traffic(request, "3h"))
            row["transition_lift_36h"] = _ratio(row["transition_share_36h"], traffic)
        self._slate(rows, items)
        self._slate_of_exposures(rows, [self._seen(request, i) for i in items])
        return rows

    # item

    def _clicks_in(self, request: Request, window: str, keep: Any) -> int:
        end = request.statistics_at
        return count((c.at for c in self.clicks if keep(c.item)), end - WINDOW_MS[window], end)

    def _traffic(self, request: Request, window: str) -> int:
        return self._clicks_in(request, window, lambda i: True)

    def _item(self, request: Request, item: Id) -> Row:
        read = [c.at for c in self.clicks if c.item == item]
        end = request.statistics_at
        n = {w: count(read, end - length, end) for w, length in WINDOW_MS.items()}
        category = self.of(item, "category")
        of_category = {
            w: 0 if category is None else self._clicks_in(request, w, lambda i: self.of(i, "category") == category)
            for w in ("1h", "12h")
        }
        before = [at for at in read if at < end]
        return {
            **{f"item_clicks_{w}": value for w, value in n.items()},
            **{f"item_clicks_decayed_{w}": decayed([(t, 1) for t in read], end, h) for w, h in HALF_LIFE_MS.items()},
            "item_traffic_share_15m": _ratio(n["15m"], self._traffic(request, "15m")),
            "item_traffic_share_3h": _ratio(n["3h"], self._traffic(request, "3h")),
            "item_trend_15m_3h": (n["15m"] * 12 + 1) / (n["3h"] + 1),
            "item_trend_1h_12h": (n["1h"] * 12 + 1) / (n["12h"] + 1),
            "item_minutes_since_click": _minutes_since(request, before),
            "item_age_hours": _minus(request.at, self.of(item, "created_at"), HOUR_MS),
            "item_hours_since_first_seen": _minus(request.at, self._seen(request, item), HOUR_MS),
            "item_words": self.of(item, "words"),
            "item_is_new": float(not before),
            **{f"category_clicks_{w}": value for w, value in of_category.items()},
            "item_share_of_category_1h": _ratio(n["1h"], of_category["1h"]),
            **self._engagement(request, item),
        }

    def _seen(self, request: Request, item: Id) -> int | None:
        """When the article was first shown or read, if that is known."""
        first = self.first_seen.get(item)
        return first if first is not None and first < request.statistics_at else None

    def _engagement(self, request: Request, item: Id) -> Row:
        end = request.statistics_at
        readings = [(c.at + c.read, c.read) for c in self.clicks if c.item == item and c.read is not None]
        ended = [(at, length) for at, length in readings if at < end]
        today = sum(length for at, length in ended if at >= end - DAY_MS) / SECOND_MS
        shown = count((s.at for s in self.slates if item in s.items), end - DAY_MS, end)
        return {
            "item_seconds_per_reading_24h": _ratio(today, sum(1 for at, _ in ended if at >= end - DAY_MS)),
            "item_seconds_per_reading_all": _ratio(sum(length for _, length in ended) / SECOND_MS, len(ended)),
            "item_seconds_per_exposure_24h": today / (shown + 1),
        }

    # exposure

    def _clicked_list(self, item: Id, user: Id, at: int) -> list[int]:
        """Length of the last list until then that showed the user the article, if there was one."""
        lists = [s for s in self.shown_to(user, at + 1) if item in s.items]
        return [len(lists[-1].items)] if lists else []

    def _exposure(self, request: Request, item: Id) -> Row:
        end = request.statistics_at
        shown = [(s.at, len(s.items)) for s in self.slates if item in s.items]
        read_by = [(c.user, c.at) for c in self.clicks if c.item == item]
        read = [at for _, at in read_by]
        row: Row = {}
        for w, length in WINDOW_MS.items():
            clicked, exposed = count(read, end - length, end), count((t for t, _ in shown), end - length, end)
            # Chances are told in whole millionths.
            chance = sum(1_000_000 // n for t, n in shown if end - length <= t < end) / 1_000_000
            row[f"item_exposures_{w}"] = exposed
            row[f"item_exposures_log_{w}"] = log(1 + exposed)
            row[f"item_click_rate_{w}"] = (clicked + 1) / (exposed + 10)
            row[f"item_lift_{w}"] = (clicked + 1) / (chance + 1)
            lengths = [n for t, n in shown if end - length <= t < end]
            row[f"item_list_length_{w}"] = _ratio(sum(lengths), len(lengths))
            # Cubes are told in whole billionths.
            cubes = sum(1_000_000_000 // n**3 for n in lengths)
            row[f"item_depth_{w}"] = (exposed * 1_000_000_000 / cubes) ** (1 / 3) if cubes else None
            out_of = [n for at in read_by for n in self._clicked_list(item, *at) if end - length <= at[1] < end]
            row[f"item_clicked_list_length_{w}"] = _ratio(sum(out_of), len(out_of))
        for w, half_life in HALF_LIFE_MS.items():
            clicks = decayed([(t, 1) for t in read], end, half_life)
            row[f"item_lift_decayed_{w}"] = (clicks + 0.5) / (
                decayed([(t, 1 / n) for t, n in shown], end, half_life) + 0.5
            )
        hour, day = row["item_exposures_1h"], row["item_exposures_24h"]
        visited = [s.at for s in self.slates if s.page is not None and s.page == item]
        return row | {
            "item_exposure_trend_1h_24h": (hour * 24 + 1) / (day + 1),
            "item_click_rate_trend_1h_24h": row["item_click_rate_1h"] / row["item_click_rate_24h"],
            "item_minutes_since_exposure": _minutes_since(request, [t for t, _ in shown if t < end]),
            **{f"item_visits_{w}": count(visited, end - WINDOW_MS[w], end) for w in ("1h", "24h")},
        }

    def _own_exposure(self, request: Request, item: Id) -> Row:
        shown = [s.at for s in self.shown_to(request.user, request.at) if item in s.items]
        read = sum(1 for c in self.history(request.user, request.at) if c.item == item)
        category = self.of(item, "category")
        of_category = [
            i
            for s in self.shown_to(request.user, request.at)
            for i in s.items
            if category is not None and self.of(i, "category") == category
        ]
        own = self.history(request.user, request.at)
        clicked = sum(1 for c in own if category is not None and self.of(c.item, "category") == category)
        return {
            **{
                f"user_item_exposures_{w}": count(shown, request.at - WINDOW_MS[w], request.at)
                for w in ("5m", "1h", "24h", "all")
            },
            "user_item_minutes_since_exposure": _minutes_since(request, shown),
            "user_item_clicks": read,
            "user_item_passed_over": max(0, len(shown) - read),
            "user_category_click_rate": (clicked + 1) / (len(of_category) + 10),
            **self._repeats(request, item),
        }

    def _repeats(self, request: Request, item: Id) -> Row:
        lists = self.shown_to(request.user, request.at)
        start = self._visit_start(request)
        found: Row = {"session_item_exposures": sum(1 for s in lists if s.at >= start and item in s.items)}
        for n in (1, 2, 5, 10):
            # Lists of the same instant have no order: all of them are among the last.
            oldest = lists[-n].at if len(lists) >= n else 0
            found[f"repeated_{n}"] = sum(1 for s in lists if s.at >= oldest and item in s.items)
        return found

    # session

    def _visit_start(self, request: Request) -> int:
        before = visits([s.at for s in self.shown_to(request.user, request.at)])
        goes_on = bool(before) and request.at - before[-1][-1] <= SESSION_PAUSE_MS
        return before[-1][0] if goes_on else request.at

    def _visit(self, request: Request) -> Row:
        lists = self.shown_to(request.user, request.at)
        moments = [s.at for s in lists]
        start = self._visit_start(request)
        return {
            "last_list_length": len(lists[-1].items) if lists else None,
            "session_requests": sum(1 for at in moments if at >= start),
            "session_minutes": (request.at - start) / MINUTE_MS,
            "user_requests_24h": count(moments, request.at - DAY_MS, request.at),
            "user_visits": len(visits(moments)),
            "user_minutes_since_request": _minutes_since(request, moments),
            "user_clicks_per_request": _ratio(len(self.history(request.user, request.at)), len(moments)),
        }

    # user and context

    def _reader(self, request: Request) -> Row:
        own = self.history(request.user, request.at)
        of_clicks = visits([c.at for c in own])
        words = [w for w in (self.of(c.item, "words") for c in own) if w is not None]
        categories = {self.of(c.item, "category") for c in own} - {None}
        gap = (own[-1].at - own[0].at) / (len(own) - 1) if len(own) > 1 else None
        read = [c.read / SECOND_MS for c in own if c.read is not None and c.at + c.read < request.at]
        return {
            "user_clicks": len(own),
            "user_clicks_24h": count((c.at for c in own), request.at - DAY_MS, request.at),
            "user_sessions": len(of_clicks),
            "user_session_clicks": len(of_clicks[-1]) if of_clicks else 0,
            "user_minutes_since_click": _minutes_since(request, [c.at for c in own]),
            "user_mean_gap_hours": None if gap is None else max(gap, MINUTE_MS) / HOUR_MS,
            "user_mean_words": sum(words) / len(words) if words else None,
            "user_category_variety": len(categories) / len(own) if own else None,
            "user_is_new": float(not own),
            "user_seconds_per_reading": _ratio(sum(read), len(read)),
            "hour": request.at % DAY_MS / HOUR_MS,
            "weekday": (request.at // DAY_MS - 4) % 7,  # the fifth day of 1970 was a Monday
            **{f"last_{name}": self._code(name, own[-1].context if own else {}) for name in CONTEXT_COLUMNS},
            **{f"now_{name}": self._code(name, request.context) for name in REQUEST_COLUMNS},
        }

    def _code(self, name: str, context: Any) -> int:
        value = context.get(name)
        return self.codes.get((name, str(value).lower() if isinstance(value, bool) else str(value)), 0)

    def _page(self, request: Request, item: Id) -> Row:
        page = request.page
        return {
            "on_page": float(page is not None),
            "is_page": None if page is None else float(item == page),
            "same_category_as_page": _equal(self.of(item, "category"), self.of(page, "category")),
            "page_transitions_36h": self._moves(request, "36h", page, item),
        }

    # cross

    def _cross(self, request: Request, item: Id) -> Row:
        own = self.history(request.user, request.at)
        last, second = (own[-n].item if len(own) >= n else None for n in (1, 2))
        category, words, created = (self.of(item, name) for name in ("category", "words", "created_at"))
        same = sum(1 for c in own if category is not None and self.of(c.item, "category") == category)
        taste = [w for w in (self.of(c.item, "words") for c in own) if w is not None]
        return {
            "user_category_clicks": same,
            "user_category_share": _ratio(same, len(own)),
            "user_category_taste": self._taste(request, own, item, "category"),
            "user_publisher_taste": self._taste(request, own, item, "publisher"),
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

    def _taste(self, request: Request, own: list[Click], item: Id, name: str) -> float:
        liked = self.of(item, name)
        return decayed(
            [(c.at, 1) for c in own if liked is not None and self.of(c.item, name) == liked], request.at, WEEK_MS
        )

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

    # similarity

    def _similarity(self, request: Request, item: Id) -> Row:
        own = self._unit(item)
        last = [self._unit(c.item) for c in self.history(request.user, request.at)[::-1][:5]]
        known = [v for v in last if v is not None]
        mean = _unit([sum(column) for column in zip(*known, strict=True)]) if known else None
        return {
            "cosine_last": _dot(own, last[0]) if last else None,
            "cosine_max": max((_dot(own, v) for v in known), default=None) if own else None,
            "cosine_mean": _dot(own, mean),
        }

    def _unit(self, item: Id) -> list[float] | None:
        vector = self.of(item, "embedding")
        return None if vector is None else _unit(list(vector))

    # slate

    def _slate(self, rows: list[Row], items: Sequence[Id]) -> None:
        created = [self.of(i, "created_at") for i in items]
        for signal in SIGNALS:
            self._among(rows, signal, [row[signal] or 0 for row in rows], distance=False)
        for row, own in zip(rows, created, strict=True):
            row["slate_freshness_rank"] = _rank(created, own)
            row["slate_hours_behind_newest"] = _minus(_newest(created), own, HOUR_MS)

    def _slate_of_exposures(self, rows: list[Row], seen: Sequence[int | None]) -> None:
        for signal in EXPOSURE_SIGNALS:
            self._among(rows, signal, [row[signal] or 0 for row in rows], distance=True)
        self._among(rows, "slate_lift", [row["item_lift_24h"] or 0 for row in rows], distance=True)
        for row, own in zip(rows, seen, strict=True):
            row |= {f"slate_lift_{what}": row[f"slate_lift_slate_{what}"] for what in ("rank", "share", "distance")}
            row["slate_first_seen_rank"] = _rank(seen, own)
            row["slate_hours_behind_newest_seen"] = _minus(_newest(seen), own, HOUR_MS)
            row["slate_unseen_by_user"] = sum(1 for other in rows if other["user_item_exposures_all"] == 0)
            row["slate_length"] = len(rows)
            row["slate_longer_than_last"] = _minus(len(rows), row["last_list_length"])
        for window in ("15m", "1h", "6h"):
            lengths = [row[f"item_list_length_{window}"] for row in rows]
            for row, length in zip(rows, lengths, strict=True):
                row[f"slate_length_rank_{window}"] = _rank(lengths, length)
                row[f"slate_length_distance_{window}"] = _minus(length, _newest(lengths))
        for window in ("15m", "1h", "6h", "24h"):
            for name, of in (("depth", "item_depth"), ("clicked_length", "item_clicked_list_length")):
                places = [row[f"{of}_{window}"] for row in rows]
                for row, place in zip(rows, places, strict=True):
                    row[f"slate_{name}_rank_{window}"] = _rank(places, place)
                    row[f"slate_{name}_ratio_{window}"] = _ratio(len(rows), place or 0)

    def _among(self, rows: list[Row], signal: str, values: Sequence[float], distance: bool) -> None:
        for row, own in zip(rows, values, strict=True):
            row[f"{signal}_slate_rank"] = _rank(values, own)
            row[f"{signal}_slate_share"] = _ratio(own, sum(values))
            if distance:
                row[f"{signal}_slate_distance"] = own - max(values)


def decayed(events: Iterable[tuple[int, float]], at: int, half_life: int) -> float:
    """Values of (time, value) before a moment, each counting half after every half-life."""
    return sum(value * 2 ** (-(at - t) / half_life) for t, value in events if t < at)


def _minutes_since(request: Request, moments: Sequence[int]) -> float | None:
    """From the last of the moments to the request, never below one."""
    return max(1.0, (request.at - max(moments)) / MINUTE_MS) if moments else None


def _newest(times: Sequence[int | None]) -> int | None:
    return max((t for t in times if t is not None), default=None)


def _rank(values: Sequence[float | None], own: float | None) -> float | None:
    return None if own is None else 1 + sum(1 for v in values if v is not None and v > own)


def _unit(vector: list[float]) -> list[float] | None:
    length = hypot(*vector)
    return [x / length for x in vector] if length else None


def _dot(a: list[float] | None, b: list[float] | None) -> float | None:
    return None if a is None or b is None else sum(x * y for x, y in zip(a, b, strict=True))


def _ratio(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def _minus(a: float | None, b: float | None, unit: int = 1) -> float | None:
    return None if a is None or b is None else (a - b) / unit


def _equal(a: Any, b: Any) -> float | None:
    return None if a is None or b is None else float(a == b)
