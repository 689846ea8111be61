"""Two towers (DSSM): articles whose vectors are the nearest to the reader's, both learned from who clicked what next.

What the towers are is in `newsrec.recall.towers`. Models stand on a grid of their own (`RecallSettings.training_ms`).
A chain of them begins anew every day on the day before, and each next model goes on from the one before with the clicks
since: what a model is depends on two days of the log, and on the few clicks that came before each of theirs.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import polars as pl

from features.articles import UNIT
from features.columns import HOUR
from features.events import EventStore, history
from features.windows import Ints, grid_before, previous_in_sequence, sequence_order
from newsrec.recall import towers
from newsrec.recall.base import RecallRequests, RecallSettings, nothing
from newsrec.recall.dense import Floats, best_of, read_matrix, rows_at_once
from newsrec.recall.item2vec import _grid
from newsrec.recall.content import Young
from newsrec.recall.towers import WEIGHT_UNIT, Batch, Known, UserTower, Vectors, Weights
from newsrec.recall.vectors import whole_units


@dataclass(frozen=True)
class TwoTowerParams:
    """How towers are built, learned and asked."""

    dim: int = 32
    """Length of a vector, >= 1."""
    hidden: int = 64
    """Units of the reader's layer, >= 1."""
    history: int = 5
    """Last clicks of the user that are read, >= 1."""
    history_decay: float = 0.6
    """Weight of each click further back, 0..1."""
    temperature: float = 0.1
    """Divides cosines in training, > 0."""
    logq: bool = True
    """Whether the loss corrects for how often frequent articles are negatives."""
    epochs: int = 3
    """Passes over the clicks of each step of the chain, >= 1."""
    batch: int = 512
    """Readers per step of the optimiser, >= 2: the others' clicks are the negatives of each."""
    rate: float = 0.1
    """Learning rate of AdaGrad, > 0."""
    min_clicks: int = 3
    """Articles clicked less often in the chain are not proposed, >= 1: their vectors are noise."""
    pool_hours: float = 24.0
    """Articles that nobody clicked for longer before the refresh are not proposed, hours, > 0."""
    seed: int = 0


SPARE = 2


@dataclass(frozen=True)
class _Examples:
    """Clicks with what their reader had clicked before, in order of the training step in which they are known."""

    step: Ints
    history: npt.NDArray[np.int32]
    """`item_order` of the last clicks before, newest first, -1 for none, (n_examples, history)."""
    target: npt.NDArray[np.int32]


@dataclass
class _Chain:
    """One growing model."""

    start: int
    until: int
    rank: Ints
    """`item_order` of each article that it knows."""
    category: Ints
    """Order of each category that it knows, after that of none, which is -1."""
    known: Known
    clicks: Ints
    weights: Weights
    squares: Weights


@dataclass(frozen=True)
class _Model:
    item: Ints
    """Codes, in the order of the ids."""
    vectors: npt.NDArray[np.int16]
    proposed: npt.NDArray[np.bool_]
    place: Ints
    """Row of each item code, -1 where unknown."""
    user: UserTower


class TwoTower:
    """The `two_tower` channel."""

    def __init__(self, params: TwoTowerParams = TwoTowerParams()) -> None:
        self.params = params
        self._click = np.rint(WEIGHT_UNIT * params.history_decay ** np.arange(params.history))

    @property
    def last_clicks(self) -> int:
        return self.params.history

    def reach(self, settings: RecallSettings) -> int:
        every, day = _grid(settings)
        return (2 * day + 1) * every * settings.refresh_ms

    def lacks(self, store: EventStore) -> str | None:
        return None

    def fit(self, store: EventStore, settings: RecallSettings) -> Self:
        self._store, self._settings = store, settings
        self._every, self._day = _grid(settings)
        self._step_ms = self._every * settings.refresh_ms
        self._code = np.argsort(store.item_order)
        articles = store.articles_by_code
        order = np.append(articles.categories.order(), -1)
        self._category = order[articles.category]
        self._examples = self._laid_out()
        self._models: dict[int, _Model] = {}
        self._chain: _Chain | None = None
        self._kept = None
        return self

    def table(self, at: int) -> pl.DataFrame:
        model = self._model(at // self._step_ms)
        vectors = (model.vectors / UNIT).astype(np.float32)
        return pl.DataFrame(
            {
                "item_id": self._store.items.gather(model.item),
                "embedding": pl.Series(vectors, dtype=pl.Array(pl.Float32, self.params.dim)),
            }
        )

    def recall(self, requests: RecallRequests) -> pl.DataFrame:
        p = self.params
        row, place, age = history(requests.store, requests.user, requests.at, p.history)
        clicked = np.full((len(requests.at), p.history), -1, np.int64)
        clicked[row, age] = requests.store.tables["clicks"]["item"][place]
        clicked[clicked >= self._store.n_items] = -1
        grid, read, parts = grid_before(requests.statistics_at, self._settings.refresh_ms), read_matrix(requests), []
        by_grid = np.argsort(grid, kind="stable")
        for rows in np.split(by_grid, np.flatnonzero(np.diff(grid[by_grid])) + 1):
            if not len(rows):
                continue
            model, pool = self._known(int(grid[rows[0]]))
            per_block = rows_at_once(len(pool.item))
            if not len(pool.item):
                continue
            for start in range(0, len(rows), per_block):
                some = rows[start : start + per_block]
                local = np.where(clicked[some] >= 0, model.place[clicked[some]], -1)
                has = (local >= 0).any(axis=1)
                some = some[has]
                queries = model.user.vectors(local[has])
                lifted = np.column_stack([queries, np.full(len(queries), float(UNIT))])
                scores = pool.products(lifted, SPARE * self._settings.depth)
                parts.append(best_of(scores, some, pool.item, requests, read, self._settings.depth))
        if not parts:
            return nothing()
        return pl.concat(parts).sort("row", "rank").with_columns((pl.col("score") / UNIT**2 - 1).cast(pl.Float32))

    def _known(self, grid: int):
        if self._kept is None or self._kept[0] != grid:
            model = self._model(grid // self._every)
            at = grid * self._settings.refresh_ms
            window = round(self.params.pool_hours * HOUR)
            item, store = model.item[model.proposed], self._store
            n = store.index("item").counts(item, np.full(len(item), at), (window,))[0]
            item = np.sort(item[n > 0])
            vectors = model.vectors[model.place[item]]
            lifted = np.column_stack([vectors, np.full(len(vectors), UNIT, np.int16)])
            self._kept = (grid, (model, Young(item, lifted, store.item_order[item])))
        return self._kept[1]

    def _laid_out(self) -> _Examples:
        store, p = self._store, self.params
        table, since = store.tables["clicks"], self._settings.since
        # The chain of the first request began a day ago at most, on the day before that.
        first = 0 if since is None else (since // self._step_ms // self._day - 1) * self._day
        user, item, time = store.user_order[table["user"]], table["item"], table["time"]
        rank = store.item_order[item]
        order = sequence_order(user, time, rank)
        user, rank, time = user[order], rank[order], time[order]
        clicked = np.full((len(user), p.history), -1, np.int32)
        for back in range(p.history):
            earlier = previous_in_sequence(user, back + 1)
            clicked[:, back] = np.where(earlier >= 0, rank[earlier], -1)
        step = time // self._step_ms
        # What was read before is not proposed either.
        taught = np.flatnonzero((step >= first) & (clicked[:, 0] >= 0) & ~(clicked == rank[:, None]).any(axis=1))
        taught = taught[np.argsort(step[taught], kind="stable")]
        return _Examples(step[taught], clicked[taught], rank[taught].astype(np.int32))

    def _model(self, step: int) -> _Model:
        if step not in self._models:
            self._models[step] = self._trained(step)
        return self._models[step]

    def _trained(self, step: int) -> _Model:
        start, chain = step // self._day * self._day, self._chain
        if chain is None or chain.start != start or chain.until > step:
            chain = self._begun(start)
            self._learn(chain, start)
        while chain.until < step:
            self._learn(chain, chain.until + 1)
        self._chain = chain
        ordered = np.argsort(chain.rank)
        f, v = towers.item_vectors(chain.weights, chain.known)
        item = self._code[chain.rank[ordered]]
        place = np.full(self._store.n_items, -1, np.int64)
        place[item] = np.arange(len(item))
        return _Model(
            item,
            whole_units(v[ordered]),
            chain.clicks[ordered] >= self.params.min_clicks,
            place,
            UserTower.of(chain.weights, f[ordered], self._click),
        )

    def _begun(self, start: int) -> _Chain:
        p, embedding = self.params, self._store.articles_by_code.embedding
        text_dim = 0 if embedding is None else embedding.shape[1]
        weights = towers.begun(p.dim, p.hidden, text_dim, [p.seed])
        squares = {name: np.full_like(each, towers.FIRST) for name, each in weights.items()}
        none = np.zeros(0, np.int64)
        known = Known(none, np.zeros((0, text_dim), np.float32))
        return _Chain(start, start - self._day, none, np.array([-1]), known, none, weights, squares)

    def _learn(self, chain: _Chain, until: int) -> None:
        p = self.params
        low, high = np.searchsorted(self._examples.step, [chain.until, until])
        rng = np.random.default_rng([p.seed, until - chain.start + self._day])
        chain.until = until
        if low == high:
            return
        clicked, target = self._examples.history[low:high], self._examples.target[low:high]
        met = np.unique(np.concatenate([target, clicked[clicked >= 0]]))
        self._grow(chain, np.setdiff1d(met, chain.rank), rng)
        ascending = np.argsort(chain.rank)
        clicked, target = (
            np.where(s >= 0, ascending[np.searchsorted(chain.rank, s, sorter=ascending) % len(ascending)], -1)
            for s in (clicked, target)
        )
        often = np.bincount(target, minlength=len(chain.rank))
        chain.clicks += often
        log_q = np.log(np.maximum(often, 1) / len(target)).astype(np.float32)
        if not p.logq:
            log_q[:] = 0
        weight = np.where(clicked >= 0, self._click, 0.0)
        weight = (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)
        for _ in range(p.epochs):
            shuffled = rng.permutation(len(target))
            for begin in range(0, len(target), p.batch):
                some = shuffled[begin : begin + p.batch]
                batch = Batch.of(clicked[some], weight[some], target[some])
                known = chain.known.rows(batch.met)
                _, slope = towers.objective(
                    chain.weights, known, batch, log_q[batch.met[batch.column]], p.temperature
                )
                towers.descend(chain.weights, chain.squares, slope, batch.met, p.rate)

    def _grow(self, chain: _Chain, new: Ints, rng: np.random.Generator) -> None:
        n, dim, code = len(new), self.params.dim, self._code[new]
        categories = np.setdiff1d(self._category[code], chain.category)
        chain.rank = np.concatenate([chain.rank, new])
        chain.category = np.concatenate([chain.category, categories])
        chain.clicks = np.concatenate([chain.clicks, np.zeros(n, np.int64)])
        ascending = np.argsort(chain.category)
        of_new = ascending[np.searchsorted(chain.category, self._category[code], sorter=ascending)]
        embedding = self._store.articles_by_code.embedding
        text = np.zeros((n, 0), np.float32) if embedding is None else (embedding[code] / UNIT).astype(np.float32)
        chain.known = Known(
            np.concatenate([chain.known.category, of_new]), np.concatenate([chain.known.text, text])
        )
        for name, more in (("article", n), ("category", len(categories))):
            begin = rng.normal(0, 1 / np.sqrt(dim), (more, dim)).astype(np.float32)
            chain.weights[name] = np.concatenate([chain.weights[name], begin])
            chain.squares[name] = np.concatenate([chain.squares[name], np.full_like(begin, towers.FIRST)])
