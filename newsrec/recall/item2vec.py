"""Item2vec: vectors of articles by skip-gram with negative sampling over reading sessions.

Articles of one session predict each other: for a pair (i, j), log sigmoid(v(i) u(j)) + the sum over k sampled articles
n of log sigmoid(-v(i) u(n)); negatives are drawn by pairs ** 0.75 (Barkan & Koenigstein 2016, "Item2Vec: neural item
embedding for collaborative filtering", arXiv:1603.04259; Mikolov et al. 2013). Batches share their negatives, which
makes matrix products of the sums (Ji, Satish, Li & Dubey 2016, arXiv:1604.04661), and steps are those of AdaGrad.

Models stand on a grid of their own (`RecallSettings.training_ms`). A chain of them begins anew every day on the day
before, and each next model goes on from the one before with the clicks since: what a model is depends on two days of
the log at most, and a whole log costs two passes over it.
"""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.sparse import csr_matrix

from features.articles import UNIT
from features.columns import DAY
from features.events import EventStore
from features.windows import SESSION_PAUSE_MS, Ints, previous_in_sequence, sequence_order
from newsrec.recall.base import RecallSettings
from newsrec.recall.neighbours import SIMILAR, NeighbourChannel
from newsrec.recall.vectors import nearest, whole_units

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Item2VecParams:
    """How vectors are learned and used."""

    dim: int = 32
    """Length of a vector, >= 1."""
    places: int = 3
    """Largest distance in a session that makes a pair, >= 1."""
    negatives: int = 5
    """Sampled articles per pair (k), >= 1."""
    epochs: int = 4
    """Passes over the pairs of each step of the chain, >= 1."""
    rate: float = 0.1
    """Learning rate of AdaGrad, > 0."""
    min_pairs: int = 3
    """Articles with fewer pairs in the chain are not proposed, >= 1: their vectors are noise."""
    history: int = 3
    """Last clicks of the user that propose articles, >= 1."""
    history_decay: float = 0.5
    """Weight of each click further back, 0..1."""
    neighbours: int = 200
    """Best neighbours kept per article, >= 1."""
    seed: int = 0


BATCH: Final = 8_192
"""Pairs per step of the optimiser."""
SHARED: Final = 64
"""Negatives that the pairs of a batch share."""
FIRST: Final = 0.1
"""AdaGrad's squares begin here, so that first steps are not the largest."""


@dataclass(frozen=True)
class _Pairs:
    """Ordered pairs of articles of one session, both ways, in order of the training step in which they are known."""

    step: Ints
    source: Ints
    target: Ints

    def known(self, low: int, high: int) -> tuple[Ints, Ints]:
        """`(source, target)` of the steps from `low` up to, not with, `high`."""
        first, last = np.searchsorted(self.step, [low, high])
        return self.source[first:last], self.target[first:last]


@dataclass
class _Chain:
    """One growing model; arrays of shape (n_known, ...)."""

    start: int
    """Step at which the chain began."""
    until: int
    """Step up to which it has learned."""
    rank: Ints
    """`item_order` of each article that it knows."""
    pairs: Ints
    tables: list[Vectors] = field(default_factory=list)
    """v, u, and AdaGrad's sums of squares for both."""


@dataclass(frozen=True)
class _Model:
    """What a training step leaves: article codes and whole-number unit vectors, in the order of the ids."""

    item: Ints
    vectors: npt.NDArray[np.int16]
    proposed: npt.NDArray[np.bool_]


class Item2Vec(NeighbourChannel[Item2VecParams]):
    """The `item2vec` channel."""

    def __init__(self, params: Item2VecParams = Item2VecParams()) -> None:
        super().__init__(params)

    @property
    def last_clicks(self) -> int:
        return max(self.params.places, self.params.history)

    def reach(self, settings: RecallSettings) -> int:
        every, day = _grid(settings)
        return (2 * day + 1) * every * settings.refresh_ms

    def _prepare(self, store: EventStore, settings: RecallSettings) -> None:
        """Only lay out the pairs: models are trained when a request needs them, in order of time at best."""
        self._store, self._settings = store, settings
        self._every, self._day = _grid(settings)
        self._step_ms = self._every * settings.refresh_ms
        self._code = np.argsort(store.item_order)  # code of each rank
        self._pairs = self._session_pairs()
        self._models: dict[int, _Model] = {}
        self._chain: _Chain | None = None

    def table(self, at: int) -> pl.DataFrame:
        """Vectors of the last model before `at` (ms): `item_id, embedding` (unit length), by id."""
        model = self._model(at // self._step_ms)
        vectors = (model.vectors / UNIT).astype(np.float32)
        return pl.DataFrame(
            {
                "item_id": self._store.items.gather(model.item),
                "embedding": pl.Series(vectors, dtype=pl.Array(pl.Float32, self.params.dim)),
            }
        )

    def _session_pairs(self) -> _Pairs:
        store = self._store
        table, since = store.tables["clicks"], self._settings.since
        # The chain of the first request began a day ago at most, on the day before that.
        first = 0 if since is None else (since // self._step_ms // self._day - 1) * self._day
        user, item, time = store.user_order[table["user"]], table["item"], table["time"]
        rank = store.item_order[item]
        order = sequence_order(user, time, rank)
        user, rank, time = user[order], rank[order], time[order]
        pause = np.diff(time, prepend=time[:1]) > SESSION_PAUSE_MS
        session = np.cumsum(pause | (np.diff(user, prepend=user[:1]) != 0))
        sources, targets, steps = [], [], []
        for distance in range(1, self.params.places + 1):
            earlier = previous_in_sequence(session, distance)
            recent = time // self._step_ms >= first
            later = np.flatnonzero(recent & (earlier >= 0) & (rank[earlier] != rank))
            one, other = rank[earlier[later]], rank[later]
            sources += [one, other]
            targets += [other, one]
            steps += [time[later] // self._step_ms] * 2
        step = np.concatenate(steps)
        by_step = np.argsort(step, kind="stable")
        return _Pairs(step[by_step], np.concatenate(sources)[by_step], np.concatenate(targets)[by_step])

    def _similar(self, grid: int, sources: Ints) -> pl.DataFrame:
        model = self._model(grid // self._every)
        place = np.full(self._store.n_items, -1, np.int64)
        place[model.item] = np.arange(len(model.item))
        known, proposed = sources[place[sources] >= 0], np.flatnonzero(model.proposed)
        if not len(known) or not len(proposed):
            return pl.DataFrame(schema=SIMILAR)
        vectors = model.vectors.astype(np.float64)
        # One more: an article is the nearest to itself.
        query, found, product = nearest(vectors[place[known]], vectors[proposed], self.params.neighbours + 1)
        table = {"source": known[query], "target": model.item[proposed][found], "similarity": product / UNIT**2}
        return pl.DataFrame(table).filter((pl.col("source") != pl.col("target")) & (pl.col("similarity") > 0))

    def _model(self, step: int) -> _Model:
        """The model that knows everything before a step's beginning."""
        if step not in self._models:
            self._models[step] = self._trained(step)
        return self._models[step]

    def _trained(self, step: int) -> _Model:
        start, chain = step // self._day * self._day, self._chain
        if chain is None or chain.start != start or chain.until > step:
            chain = _Chain(start, start - self._day, np.zeros(0, np.int64), np.zeros(0, np.int64))
            chain.tables = [np.zeros((0, self.params.dim), np.float32)] * 4
            self._learn(chain, start)
        while chain.until < step:
            self._learn(chain, chain.until + 1)
        self._chain = chain
        ordered = np.argsort(chain.rank)
        return _Model(
            self._code[chain.rank[ordered]],
            whole_units(chain.tables[0][ordered]),
            chain.pairs[ordered] >= self.params.min_pairs,
        )

    def _learn(self, chain: _Chain, until: int) -> None:
        """Take in the pairs of the steps up to, not with, `until`."""
        source, target = self._pairs.known(chain.until, until)
        # Ranks only say which id comes first; nothing here may depend on how large they are.
        rng = np.random.default_rng([self.params.seed, until - chain.start + self._day])
        chain.until = until
        if not len(source):
            return
        _grow(chain, np.setdiff1d(source, chain.rank), rng)
        ascending = np.argsort(chain.rank)
        local = [ascending[np.searchsorted(chain.rank, side, sorter=ascending)] for side in (source, target)]
        chain.pairs += np.bincount(local[0], minlength=len(chain.rank))
        share = chain.pairs**0.75
        for _ in range(self.params.epochs):
            shuffled = rng.permutation(len(source))
            for low in range(0, len(source), BATCH):
                some = shuffled[low : low + BATCH]
                drawn = rng.choice(len(share), SHARED, p=share / share.sum())
                _step(chain.tables, local[0][some], local[1][some], drawn, self.params)


def _grid(settings: RecallSettings) -> tuple[int, int]:
    """Refreshes in a training step, and training steps in a day."""
    every = max(1, settings.training_ms // settings.refresh_ms)
    return every, max(1, round(DAY / (every * settings.refresh_ms)))


def _grow(chain: _Chain, new: Ints, rng: np.random.Generator) -> None:
    """Make room for articles that the chain meets first; `new` in ascending order."""
    n, dim = len(new), chain.tables[0].shape[1]
    begin = (rng.random((n, dim), np.float32) - np.float32(0.5)) / np.float32(dim)
    more = [begin, np.zeros((n, dim), np.float32), *(np.full((n, dim), FIRST, np.float32),) * 2]
    chain.tables = [np.concatenate([old, added]) for old, added in zip(chain.tables, more, strict=True)]
    chain.rank = np.concatenate([chain.rank, new])
    chain.pairs = np.concatenate([chain.pairs, np.zeros(n, np.int64)])


def _step(tables: list[Vectors], source: Ints, target: Ints, drawn: Ints, params: Item2VecParams) -> None:
    """One step of AdaGrad on a batch of pairs and its shared negatives."""
    v, u, v_squares, u_squares = tables
    here, there, away = v[source], u[target], u[drawn]  # (batch, dim), (batch, dim), (shared, dim)
    pull = _sigmoid(np.einsum("ij,ij->i", here, there)) - np.float32(1)  # (batch,)
    push = _sigmoid(here @ away.T) * np.float32(params.negatives / len(drawn))  # (batch, shared)
    to_here = (pull[:, None] * there + push @ away).astype(np.float32, copy=False)
    _descend(v, v_squares, source, to_here, params.rate)
    ends = np.concatenate([target, drawn])
    to_ends = np.concatenate([pull[:, None] * here, push.T @ here]).astype(np.float32, copy=False)
    _descend(u, u_squares, ends, to_ends, params.rate)


def _descend(table: Vectors, squares: Vectors, row: Ints, gradient: Vectors, rate: float) -> None:
    """Add the gradients of each row up and take a step against them, in place."""
    n = len(row)
    ones = csr_matrix((np.ones(n, np.float32), (row, np.arange(n))), shape=(len(table), n))
    met = np.flatnonzero(np.diff(ones.indptr))
    summed = ones[met] @ gradient  # (met, dim)
    squares[met] += summed * summed
    table[met] -= np.float32(rate) * summed / np.sqrt(squares[met])


def _sigmoid(x: Vectors) -> Vectors:
    # tanh does not overflow.
    half = np.float32(0.5)
    result: Vectors = half + half * np.tanh(half * x)
    return result
