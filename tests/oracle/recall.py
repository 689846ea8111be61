"""Recall and fusion in loops."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from math import sqrt

from newsrec.recall import RecallSettings
from newsrec.recall.itemcf import ItemCFParams
from newsrec.recall.popular import SPARE, PopularParams
from tests.oracle.log import HOUR_MS, Id, LogTruth, Request

POPULAR, ITEMCF = PopularParams(), ItemCFParams()


class RecallTruth(LogTruth):
    """Recall channels as loops over a log."""

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
