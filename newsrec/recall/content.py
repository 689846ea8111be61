"""Articles whose embeddings are close to what the user read last: what a reader of the thread would open next.

score(u, j) = sum over the last clicks i of decay ** age(i) * cos(i, j), over the sum of the weights: the cosine with a
profile of weighted unit vectors (content-based filtering with a Rocchio profile: Pazzani & Billsus 2007, section 5.2).
Only young articles are proposed, clicked or not. Few are compared one by one, exactly; of many,
usearch (HNSW, Malkov & Yashunin 2018) finds those whose exact cosines are then computed.
"""

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import polars as pl

from features.articles import UNIT, Articles
from features.columns import HOUR
from features.events import EventStore, history
from newsrec.recall.base import (
    RecallRequests,
    RecallSettings,
    moments,
    nothing,
    young_articles,
)
from newsrec.recall.dense import best_of, read_matrix, rows_at_once
from newsrec.recall.vectors import Compared


@dataclass(frozen=True)
class ContentParams:
    """What is compared."""

    max_age_hours: float = 48.0
    """Articles that exist for longer are not proposed, hours, > 0."""
    history: int = 5
    """Last clicks of the user that make the profile, >= 1."""
    history_decay: float = 0.7
    """Weight of each click further back, 0..1."""


WEIGHT_UNIT: Final = 1_000
"""Weights of clicks are kept in thousandths."""

SPARE: Final = 2
"""An index is asked for so many times what is proposed: readers have read some, and it is not exact."""


class Content:
    """The `content` channel."""

    def __init__(self, params: ContentParams = ContentParams()) -> None:
        self.params = params

    @property
    def last_clicks(self) -> int:
        return self.params.history

    def reach(self, settings: RecallSettings) -> int:
        return settings.refresh_ms

    def lacks(self, store: EventStore) -> str | None:
        return "articles with embeddings" if store.articles_by_code.embedding is None else None

    def fit(self, store: EventStore, settings: RecallSettings) -> Self:
        self._store, self._settings = store, settings
        self._kept: tuple[tuple[int, int], Articles, Compared] | None = None
        return self

    def table(self, at: int) -> pl.DataFrame:
        """The young articles at the last refresh before `at` (ms): `item_id, embedding` (unit length), by id."""
        moment = at // self._settings.refresh_ms * self._settings.refresh_ms
        young = self._young(self._store, moment, moment)
        order = np.argsort(self._store.item_order[young.item])
        vectors = (young.vectors[order] / UNIT).astype(np.float32)
        shape = pl.Array(pl.Float32, vectors.shape[1])
        return pl.DataFrame(
            {
                "item_id": self._store.items.gather(young.item[order]),
                "embedding": pl.Series(vectors, dtype=shape),
            }
        )

    def recall(self, requests: RecallRequests) -> pl.DataFrame:
        embedding = requests.store.articles_by_code.embedding
        row, place, age = history(requests.store, requests.user, requests.at, self.params.history)
        item = requests.store.tables["clicks"]["item"][place]
        if embedding is None or not len(row):
            return nothing()
        known = embedding[item].any(axis=1)
        row, item, age = row[known], item[known], age[known]
        weight = np.rint(WEIGHT_UNIT * self.params.history_decay**age)
        profile, whole = np.zeros((len(requests.at), embedding.shape[1])), np.zeros(len(requests.at))
        # Whole numbers far below 2 ** 53: exact in any order.
        np.add.at(profile, row, weight[:, None] * embedding[item])
        np.add.at(whole, row, weight)
        read, parts, depth = read_matrix(requests), [], self._settings.depth
        for refresh, until, all_rows in moments(requests, self._settings):
            rows = all_rows[whole[all_rows] > 0]
            young = self._young(requests.store, refresh * self._settings.refresh_ms, until)
            per_block = rows_at_once(len(young.item))
            for start in range(0, len(rows), per_block):
                some = rows[start : start + per_block]
                scores = young.products(profile[some], SPARE * depth) / (whole[some] * UNIT**2)[:, None]
                parts.append(best_of(scores, some, young.item, requests, read, depth))
        return pl.concat(parts).sort("row", "rank") if parts else nothing()

    def _young(self, store: EventStore, known_at: int, until: int) -> Compared:
        """Young articles with an embedding; the last answer is kept, for requests one by one."""
        kept, articles = self._kept, store.articles_by_code
        if kept is None or kept[0] != (known_at, until) or kept[1] is not articles:
            assert articles.embedding is not None
            young = young_articles(store, known_at, until, round(self.params.max_age_hours * HOUR))
            young = young[articles.embedding[young].any(axis=1)]
            made = Compared(young, articles.embedding[young], store.item_order[young])
            kept = self._kept = ((known_at, until), articles, made)
        return kept[2]
