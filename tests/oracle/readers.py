"""Channels that learn from who read what in the hours before a refresh, in loops."""

from collections import defaultdict
from collections.abc import Mapping
from itertools import combinations
from math import log, sqrt

from newsrec.recall import RecallSettings
from newsrec.recall.binetwork import BiNetworkParams
from newsrec.recall.swing import SwingParams
from newsrec.recall.usercf import UserCFParams
from tests.oracle.log import HOUR_MS, Click, Id, Request
from tests.oracle.recall import RecallTruth

Scored = list[tuple[Id, float]]


class ReaderTruth(RecallTruth):
    """What `binetwork`, `swing` and `usercf` propose."""

    def binetwork(self, request: Request, settings: RecallSettings, params: BiNetworkParams) -> Scored:
        """(item, score), best first."""
        read = self._read(request, settings, params.window_hours, params.per_user)
        readers = _turned(read)
        similar: dict[Id, dict[Id, float]] = defaultdict(lambda: defaultdict(float))
        for own in read.values():
            for a in own:
                for b in own:
                    if a != b:
                        flow = 1_000_000 // len(own)
                        similar[a][b] += flow / 1_000_000 / len(readers[a]) / len(readers[b]) ** params.popularity_power
        return self._item_to_item(request, settings, similar, params)

    def swing(self, request: Request, settings: RecallSettings, params: SwingParams) -> Scored:
        """(item, score), best first."""
        read = self._read(request, settings, params.window_hours, params.per_user)
        last = self._last_readers(request, settings, read, params.per_item)
        similar: dict[Id, dict[Id, float]] = defaultdict(lambda: defaultdict(float))
        for source, readers in last.items():
            for u, v in combinations(sorted(readers), 2):
                shared = set(read[u]) & set(read[v])
                for target in shared - {source}:
                    closed = 1 / sqrt(len(read[u]) * len(read[v])) / (params.alpha + len(shared))
                    similar[source][target] += round(1_000_000 * closed) / 1_000_000
        return self._item_to_item(request, settings, similar, params)

    def usercf(self, request: Request, settings: RecallSettings, params: UserCFParams) -> Scored:
        """(item, score), best first."""
        unit = 10_000
        read = self._read(request, settings, params.window_hours, params.per_user)
        last, readers = self._last_readers(request, settings, read, params.per_item), _turned(read)
        grid = request.statistics_at // settings.refresh_ms * settings.refresh_ms
        own = max(len(read.get(request.user, {})), 1)
        alike: dict[Id, float] = defaultdict(float)
        for age, click in enumerate(reversed(self.history(request.user, request.at)[-params.history :])):
            for v in last.get(click.item, set()) - {request.user}:
                rarity = round(unit / log(1 + len(readers[click.item])))
                alike[v] += round(unit * params.history_decay**age) * rarity
        scores: dict[Id, float] = defaultdict(float)
        for v, shared in alike.items():
            activity = (own + len(read[v])) / (2 * params.per_user)
            similarity = round(shared / unit * activity / sqrt(own * len(read[v])))
            for item, at in read[v].items():
                fresh = round(unit * 2 ** (-(grid - at) / (params.half_life_hours * HOUR_MS)))
                scores[item] += similarity * fresh / unit**2
        ranked = sorted(((i, s) for i, s in scores.items() if s > 0), key=lambda pair: (-pair[1], pair[0]))
        return self._allowed(request, ranked)[: settings.depth]

    def _read(self, request: Request, settings: RecallSettings, hours: float, per_user: int) -> dict[Id, dict[Id, int]]:
        """User -> article -> time of the last click, as the refresh knows it."""
        grid = request.statistics_at // settings.refresh_ms
        length = max(1, round(hours * HOUR_MS / settings.refresh_ms))
        read: dict[Id, dict[Id, int]] = {}
        for user, own in self.sequences.items():
            known = [c for c in own if c.at // settings.refresh_ms < grid][-per_user:]
            inside = {c.item: c.at for c in known if grid - c.at // settings.refresh_ms <= length}
            if inside:
                read[user] = inside
        return read

    def _last_readers(
        self, request: Request, settings: RecallSettings, read: Mapping[Id, Mapping[Id, int]], per_item: int
    ) -> dict[Id, set[Id]]:
        """Article -> users whose last click on it is among the last clicks on it."""
        grid = request.statistics_at // settings.refresh_ms
        clicks: dict[Id, list[Click]] = defaultdict(list)
        for click in self.clicks:
            if click.at // settings.refresh_ms < grid:
                clicks[click.item].append(click)
        last = {item: sorted(own, key=lambda c: (c.at, c.user))[-per_item:] for item, own in clicks.items()}
        return {item: {c.user for c in own if read.get(c.user, {}).get(item) == c.at} for item, own in last.items()}

    def _item_to_item(
        self,
        request: Request,
        settings: RecallSettings,
        similar: Mapping[Id, Mapping[Id, float]],
        params: BiNetworkParams | SwingParams,
    ) -> Scored:
        scores: dict[Id, float] = defaultdict(float)
        for age, click in enumerate(reversed(self.history(request.user, request.at)[-params.history :])):
            best = sorted(similar.get(click.item, {}).items(), key=lambda pair: (-pair[1], pair[0]))
            for target, similarity in best[: params.neighbours]:
                scores[target] += params.history_decay**age * similarity
        ranked = sorted(scores.items(), key=lambda pair: (-round(pair[1], 9), pair[0]))
        return self._allowed(request, ranked)[: settings.depth]


def _turned(read: Mapping[Id, Mapping[Id, int]]) -> dict[Id, set[Id]]:
    """Article -> its readers."""
    readers: dict[Id, set[Id]] = defaultdict(set)
    for user, own in read.items():
        for item in own:
            readers[item].add(user)
    return readers
