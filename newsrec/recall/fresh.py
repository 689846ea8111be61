"""New articles that hardly anybody has read yet, by category, segment and embedding: cold articles and cold readers.

score(u, i) = (p(category of i | u) + max(0, cos(i, profile of u))) * 2 ** (-age(i) / half-life). The categories of a
user are those of the last clicks, smoothed by what the user's segments (context of the last click) read lately, or
everybody: p(c | u) = (sum over clicks of c of decay ** age + k * prior(c)) / (sum of weights + k), Dirichlet smoothing
(Zhai & Lafferty 2001, section 3). Where the log has no embeddings, no context or no categories, that part is left out;
a user without any history gets new articles by what everybody reads.
"""

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from features.articles import UNIT, Articles
from features.columns import HOUR
from features.events import EventStore, history
from features.windows import Ints
from newsrec.recall.base import (
    RecallRequests,
    RecallSettings,
    by_score,
    moments,
    nothing,
    young_articles,
)
from newsrec.recall.dense import Floats, best_of, read_matrix, rows_at_once


@dataclass(frozen=True)
class FreshParams:
    """What is new, and how a reader's taste is told."""

    max_age_hours: float = 24.0
    """Articles that exist for longer are not new, hours, > 0."""
    max_clicks: int = 50
    """Nor are those clicked more often in that time, >= 0: other channels know them."""
    half_life_hours: float = 6.0
    """An article so old scores half, hours, > 0."""
    prior_hours: float = 12.0
    """What segments read is counted over so many hours before the refresh, > 0."""
    prior_clicks: float = 2.0
    """The prior weighs as much as so many clicks, > 0."""
    history: int = 5
    """Last clicks of the user that tell the taste, >= 1."""
    history_decay: float = 0.7
    """Weight of each click further back, 0..1."""
    columns: tuple[str, ...] = ("region", "device", "referrer")
    """Context columns that make segments; those that a log lacks are left out."""


WEIGHT_UNIT: Final = 1_000
"""Weights of clicks in a profile of embeddings are kept in thousandths."""

DIGITS: Final = 9
"""Scores are rounded to so many digits: their terms are added up in another order for one request than for many."""


@dataclass(frozen=True)
class _New:
    """One refresh."""

    item: Ints
    category: Ints
    """Shape (n_new,), as the columns of `priors`."""
    newness: Floats
    """2 ** (-age / half-life), shape (n_new,)."""
    priors: Floats
    """Share of each category in the clicks of each segment, shape (n_segments, n_categories); the first is everybody.
    A segment that nobody of was seen has zeros."""


class Fresh:
    """The `fresh` channel."""

    def __init__(self, params: FreshParams = FreshParams()) -> None:
        self.params = params

    @property
    def last_clicks(self) -> int:
        return self.params.history

    def reach(self, settings: RecallSettings) -> int:
        hours = max(self.params.prior_hours, self.params.max_age_hours)
        return (settings.buckets(hours) + 1) * settings.refresh_ms

    def lacks(self, store: EventStore) -> str | None:
        return None

    def fit(self, store: EventStore, settings: RecallSettings) -> Self:
        self._store, self._settings = store, settings
        columns = [name for name in self.params.columns if name in store.context_ids]
        sizes = [len(store.context_ids[name].values) for name in columns]
        # One row for everybody, then one per value of each column.
        self._offset = dict(zip(columns, (1 + np.cumsum([0, *sizes])).tolist(), strict=False))
        self._size = dict(zip(columns, sizes, strict=True))
        self._segments = 1 + sum(sizes)
        table = store.tables["clicks"]
        bucket = table["time"] // settings.refresh_ms
        self._length = settings.buckets(self.params.prior_hours)
        recent = np.flatnonzero(bucket >= settings.first_bucket(self._length))
        recent = recent[np.argsort(bucket[recent], kind="stable")]
        self._bucket, self._item = bucket[recent], table["item"][recent]
        self._value = {name: table[name][recent] for name in columns}
        self._kept: tuple[tuple[int, int], Articles, _New] | None = None
        return self

    def table(self, at: int) -> pl.DataFrame:
        """New articles at the last refresh before `at` (ms) for a stranger: `item_id, score`, best first."""
        grid = at // self._settings.refresh_ms
        new = self._new(self._store, grid, grid * self._settings.refresh_ms)
        score = (new.priors[0][new.category] * new.newness).round(DIGITS)
        best = by_score(pl.DataFrame({"item": new.item, "score": score}), self._store)
        return pl.DataFrame(
            {"item_id": self._store.items.gather(best["item"]), "score": best["score"].cast(pl.Float32)}
        )

    def recall(self, requests: RecallRequests) -> pl.DataFrame:
        store, p = requests.store, self.params
        read, parts = read_matrix(requests), []
        clicks = history(store, requests.user, requests.at, p.history)
        for refresh, until, rows in moments(requests, self._settings):
            new = self._new(store, refresh, until)
            per_block = rows_at_once(max(len(new.item), new.priors.shape[1]))
            for start in range(0, len(rows), per_block):
                some = rows[start : start + per_block]
                scores = self._scores(new, some, clicks, store)
                parts.append(best_of(scores, some, new.item, requests, read, self._settings.depth))
        return pl.concat(parts).sort("row", "rank") if parts else nothing()

    def _scores(self, new: _New, rows: Ints, clicks: tuple[Ints, Ints, Ints], store: EventStore) -> Floats:
        """All new articles for some requests of one refresh, shape (n_rows, n_new)."""
        low, high = np.searchsorted(clicks[0], [rows[0], rows[-1] + 1])
        row, place, age = (part[low:high] for part in clicks)
        own = np.isin(row, rows)
        at, place, age = np.searchsorted(rows, row[own]), place[own], age[own]  # which of `rows`, which click
        weight: Floats = np.power(self.params.history_decay, age.astype(np.float64))
        taste = self._taste(new, len(rows), at, place, age, weight, store)
        score: Floats = taste[:, new.category]  # (rows, new)
        embedding = store.articles_by_code.embedding
        if embedding is not None:
            read = embedding[store.tables["clicks"]["item"][place]]
            score = score + _cosines(len(rows), at, weight, read, embedding[new.item])
        scores: Floats = (score * new.newness).round(DIGITS)
        return scores

    def _taste(self, new: _New, n: int, at: Ints, place: Ints, age: Ints, weight: Floats, store: EventStore) -> Floats:
        """p(category | user), shape (n, n_categories)."""
        table, k = store.tables["clicks"], self.params.prior_clicks
        taste = np.zeros((n, new.priors.shape[1]))
        # A category that was met since the refresh is not one of a new article: it counts as unknown.
        np.add.at(taste, (at, _column(store.category[table["item"][place]], new.priors.shape[1])), weight)
        whole = taste.sum(axis=1)
        newest, prior, told = age == 0, np.zeros_like(taste), np.zeros(n)
        for name, offset in self._offset.items():
            value, who = table[name][place[newest]], at[newest]
            inside = (value >= 0) & (value < self._size[name])
            shares = new.priors[offset + value[inside]]
            prior[who[inside]] += shares
            told[who[inside]] += shares.any(axis=1)
        prior = np.where(told[:, None] > 0, prior / np.maximum(told, 1)[:, None], new.priors[0])
        smoothed: Floats = (taste + k * prior) / (whole + k)[:, None]
        return smoothed

    def _new(self, store: EventStore, grid: int, until: int) -> _New:
        """New articles; the last answer is kept, for requests one by one."""
        kept = self._kept
        if kept is None or kept[0] != (grid, until) or kept[1] is not store.articles_by_code:
            kept = self._kept = ((grid, until), store.articles_by_code, self._found(store, grid, until))
        return kept[2]

    def _found(self, store: EventStore, grid: int, until: int) -> _New:
        at, longest = grid * self._settings.refresh_ms, round(self.params.max_age_hours * HOUR)
        item = young_articles(store, at, until, longest)
        clicks = store.index("item").counts(item, np.full(len(item), at), (longest,))[0]
        item = item[clicks <= self.params.max_clicks]
        n = len(store.articles_by_code.categories) + 1  # the last column is of articles without a category
        newness = np.exp2(-(until - store.exists_from[item]) / (self.params.half_life_hours * HOUR))
        return _New(item, _column(store.category[item], n), newness, self._priors(grid, n, store))

    def _priors(self, grid: int, n: int, store: EventStore) -> Floats:
        low, high = np.searchsorted(self._bucket, [grid - self._length, grid])
        category = _column(store.category[self._item[low:high]], n)
        counts = np.bincount(category, minlength=self._segments * n)
        for name, offset in self._offset.items():
            value = self._value[name][low:high]
            known = value >= 0
            counts += np.bincount((offset + value[known]) * n + category[known], minlength=self._segments * n)
        by_segment = counts.reshape(self._segments, n)
        shares: Floats = by_segment / np.maximum(by_segment.sum(axis=1, keepdims=True), 1)
        return shares


def _column(category: Ints, n: int) -> Ints:
    """Column of each category code; the last is that of the unknown."""
    return np.where((category >= 0) & (category < n - 1), category, n - 1)


def _cosines(n: int, at: Ints, weight: Floats, read: npt.NDArray[np.int16], new: npt.NDArray[np.int16]) -> Floats:
    """Weighted mean of the cosines of what was read with what is new, at least 0; shape (n, n_new)."""
    known = read.any(axis=1)
    whole = np.rint(WEIGHT_UNIT * weight[known])
    profile, total = np.zeros((n, read.shape[1])), np.zeros(n)
    # Whole numbers far below 2 ** 53: exact in any order.
    np.add.at(profile, at[known], whole[:, None] * read[known])
    np.add.at(total, at[known], whole)
    cosines: Floats = (profile @ new.T.astype(np.float64)) / (np.maximum(total, 1) * UNIT**2)[:, None]
    return np.maximum(cosines, 0.0)
