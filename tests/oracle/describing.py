"""Channels that know readers and articles by what describes them, in loops."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from math import sqrt

from newsrec.recall import RecallSettings
from newsrec.recall.content import ContentParams
from newsrec.recall.fresh import FreshParams
from newsrec.recall.segment import SegmentParams
from tests.oracle.log import HOUR_MS, Click, Id, Request
from tests.oracle.readers import ReaderTruth, Scored

UNIT = 2**11


class DescribingTruth(ReaderTruth):
    """What `segment`, `content` and `fresh` propose."""

    def segment(self, request: Request, settings: RecallSettings, params: SegmentParams) -> Scored:
        """(item, score), best first."""
        grid = request.statistics_at // settings.refresh_ms
        own = self.history(request.user, request.at)
        scores: dict[Id, float] = defaultdict(float)
        for column in params.columns:
            value = own[-1].context.get(column) if own else None
            weights: Counter[Id] = Counter()
            for click in self.clicks if value is not None else ():
                back = grid - click.at // settings.refresh_ms
                for hours, weight in zip(params.windows_hours, params.weights, strict=True):
                    inside = 1 <= back <= max(1, round(hours * HOUR_MS / settings.refresh_ms))
                    weights[click.item] += weight * (inside and click.context.get(column) == value)
            for item, weight in weights.items():
                scores[item] += weight / (sum(weights.values()) or 1)
        ranked = sorted(((i, s) for i, s in scores.items() if s), key=lambda pair: (-pair[1], pair[0]))
        return self._allowed(request, ranked)[: settings.depth]

    def content(self, request: Request, settings: RecallSettings, params: ContentParams) -> Scored:
        """(item, score), best first."""
        own = list(enumerate(reversed(self.history(request.user, request.at)[-params.history :])))
        young = self._young(request, settings, params.max_age_hours)
        return self._best(request, settings, {item: self._cosine(own, item, params.history_decay) for item in young})

    def fresh(self, request: Request, settings: RecallSettings, params: FreshParams) -> Scored:
        """(item, score), best first."""
        category = {item: self.of(item, "category") for item in self._items()}
        grid = request.statistics_at // settings.refresh_ms
        until = (request.at // settings.refresh_ms + 1) * settings.refresh_ms
        length = round(params.prior_hours * HOUR_MS / settings.refresh_ms)
        lately = [c for c in self.clicks if 1 <= grid - c.at // settings.refresh_ms <= length]
        own = list(enumerate(reversed(self.history(request.user, request.at)[-params.history :])))
        groups = []
        for column in params.columns:
            value = own[0][1].context.get(column) if own else None
            group = [c for c in lately if value is not None and c.context.get(column) == value]
            groups += [group] if group else []
        groups = groups or [lately]
        weight = sum(params.history_decay**age for age, _ in own)
        scores: dict[Id, float] = {}
        for item in self._young(request, settings, params.max_age_hours):
            start = grid * settings.refresh_ms - round(params.max_age_hours * HOUR_MS)
            clicks = [c for c in self.clicks if c.item == item and start <= c.at < grid * settings.refresh_ms]
            if len(clicks) > params.max_clicks:
                continue
            kind = category.get(item)
            share = [sum(category.get(c.item) == kind for c in group) / max(len(group), 1) for group in groups]
            prior = sum(share) / len(share)
            taste = sum(params.history_decay**age for age, c in own if category.get(c.item) == kind)
            likely = (taste + params.prior_clicks * prior) / (weight + params.prior_clicks)
            close = max(self._cosine(own, item, params.history_decay), 0.0)
            age = (until - (self._exists_from(item) or 0)) / (params.half_life_hours * HOUR_MS)
            scores[item] = (likely + close) * 2**-age
        return self._best(request, settings, scores)

    def _best(self, request: Request, settings: RecallSettings, scores: dict[Id, float]) -> Scored:
        positive = [(i, round(s, 9)) for i, s in scores.items() if round(s, 9) > 0]
        return self._allowed(request, sorted(positive, key=lambda pair: (-pair[1], pair[0])))[: settings.depth]

    def _young(self, request: Request, settings: RecallSettings, hours: float) -> list[Id]:
        """Articles by what is known of their creation; of one without, by events before the refresh."""
        grid = request.statistics_at // settings.refresh_ms * settings.refresh_ms
        until = (request.at // settings.refresh_ms + 1) * settings.refresh_ms
        young = []
        for item in self._items():
            exists, border = self._exists_from(item), grid if self.of(item, "created_at") is None else until
            if exists is not None and until - round(hours * HOUR_MS) <= exists < border:
                young.append(item)
        return young

    def _items(self) -> set[Id]:
        return set(self.articles) | set(self.first_seen)

    def _exists_from(self, item: Id) -> int | None:
        created: int | None = self.of(item, "created_at")
        return self.first_seen.get(item) if created is None else created

    def _cosine(self, own: Sequence[tuple[int, Click]], item: Id, decay: float) -> float:
        """Weighted mean over the clicks with an embedding; 0 without any."""
        told = [(round(1_000 * decay**age), v) for age, c in own if any(v := self._vector(c.item))]
        whole = sum(weight for weight, _ in told)
        products = (w * sum(a * b for a, b in zip(v, self._vector(item), strict=False)) for w, v in told)
        return sum(products) / (whole * UNIT**2) if whole else 0.0

    def _vector(self, item: Id) -> list[int]:
        """In whole numbers, as the store keeps it; empty where unknown."""
        vector = self.of(item, "embedding")
        length = 0.0 if vector is None else sqrt(sum(x * x for x in vector))
        return [round(x / length * UNIT) for x in vector] if length else []
