"""How two towers are trained: chains of models, each going on from the one before.

Models stand on a grid of their own, of half an hour (the three hours of `RecallSettings.training_ms` lose a quarter of
the hits). A chain begins anew every day on the day before, and each next model goes on from the one before with the
clicks since: what a model is depends on two days of the log, and on the few clicks that came before each of theirs. A
whole log costs two passes over it, however fine the grid.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from features.articles import UNIT
from features.columns import DAY, HOUR, MINUTE
from features.events import EventStore
from features.windows import Ints, places_in, previous_in_sequence, sequence_order
from newsrec.recall.base import RecallSettings
from newsrec.recall.dense import Floats
from newsrec.recall.towers import (
    FIRST,
    Batch,
    Known,
    UserTower,
    Vectors,
    Weights,
    begun,
    descend,
    item_vectors,
    objective,
)
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
    epochs: int = 2
    """Passes over the clicks of each step of the chain, >= 1."""
    first_epochs: int = 1
    """Passes over the day before, with which a chain begins, >= 1."""
    batch: int = 512
    """Readers per step of the optimiser, >= 2: the others' clicks are the negatives of each."""
    rate: float = 0.1
    """Learning rate of AdaGrad, > 0."""
    min_pairs: int = 3
    """Articles in fewer pairs of a click and the one before are unknown to a model, >= 1: their vectors are noise."""
    step_minutes: float = 30.0
    """A model goes on learning every so many minutes, at least one refresh, > 0."""
    pool_hours: float = 6.0
    """Articles that nobody went on to for longer before the model are not proposed, hours, > 0."""
    seed: int = 0


WEIGHT_UNIT: Final = 1_000
"""Weights of clicks are kept in thousandths."""
NONE: Final = -1
"""In place of a rank: no click, no category."""


@dataclass(frozen=True)
class Model:
    """What a step leaves."""

    known: npt.NDArray[np.int32]
    """Ascending codes of the articles that it can read."""
    user: UserTower
    """Its articles are those known."""
    proposed: Ints
    """Ascending codes of the articles that it proposes."""
    vectors: npt.NDArray[np.int16]
    """Theirs, of length `features.articles.UNIT`, (n_proposed, dim)."""

    def places(self, item: Ints) -> Ints:
        """Row of each article among those known, -1 where it is not; shape kept."""
        return places_in(self.known, item)


@dataclass(frozen=True)
class _Examples:
    """Clicks and what their readers had clicked before, in order of the step in which they are known."""

    step: Ints
    history: npt.NDArray[np.int32]
    """`item_order` of the last clicks before, newest first, `NONE` where there is none, (n_examples, history)."""
    target: npt.NDArray[np.int32]
    """`item_order` of what was clicked, (n_examples,)."""


@dataclass
class _Chain:
    """One growing model; arrays of shape (n_known, ...)."""

    start: int
    """Step at which the chain began."""
    until: int
    """Step up to which it has learned."""
    rank: Ints
    """`item_order` of each article that it knows."""
    category: Ints
    """Order of each category that it knows; the first is `NONE`."""
    known: Known
    pairs: Ints
    """How often it was clicked next, or last before."""
    last: Ints
    """Step in which it was last clicked next."""
    weights: Weights
    squares: Weights


class Training:
    """Models over a log.

    Args:
        store: The log.
        settings: Of the channel.
        params: Of the towers.
    """

    def __init__(self, store: EventStore, settings: RecallSettings, params: TwoTowerParams) -> None:
        self._params, self._articles = params, store.articles_by_code
        self.every, self._day = grid_of(params, settings)
        self.step_ms = self.every * settings.refresh_ms
        self._code = np.argsort(store.item_order)  # code of each rank
        self._category = np.append(self._articles.categories.order(), NONE)[self._articles.category]
        self._click: Floats = np.rint(WEIGHT_UNIT * params.history_decay ** np.arange(params.history))
        since = settings.since
        # The chain of the first request began a day ago at most, on the day before that.
        first = None if since is None else (since // self.step_ms // self._day - 1) * self._day
        self._examples = _laid_out(store, self.step_ms, first, params.history)
        self._models: dict[int, Model] = {}
        self._chain: _Chain | None = None

    def model(self, step: int) -> Model:
        """The model that knows everything before a step's beginning; cheapest in order of time."""
        if step not in self._models:
            self._models[step] = self._trained(step)
        return self._models[step]

    def _trained(self, step: int) -> Model:
        start, chain = step // self._day * self._day, self._chain
        if chain is None or chain.start != start or chain.until > step:
            chain = self._begun(start)
            self._learn(chain, start)
        while chain.until < step:
            self._learn(chain, chain.until + 1)
        self._chain = chain
        code = self._code[chain.rank]
        known = np.flatnonzero(chain.pairs >= self._params.min_pairs)
        known = known[np.argsort(code[known])]
        f, v = item_vectors(chain.weights, chain.known, known)
        recent = chain.last[known] >= step - round(self._params.pool_hours * HOUR / self.step_ms)
        user = UserTower.of(chain.weights, f, self._click)
        return Model(code[known].astype(np.int32), user, code[known[recent]], whole_units(v[recent]))

    def _begun(self, start: int) -> _Chain:
        p, embedding = self._params, self._articles.embedding
        text_dim = 0 if embedding is None else embedding.shape[1]
        weights = begun(p.dim, p.hidden, text_dim, p.seed)
        squares = {name: np.full_like(each, FIRST) for name, each in weights.items()}
        none = np.zeros(0, np.int64)
        known = Known(none, np.zeros((0, text_dim), np.float32))
        return _Chain(start, start - self._day, none, np.array([NONE]), known, none, none, weights, squares)

    def _learn(self, chain: _Chain, until: int) -> None:
        """Take in the clicks of the steps up to, not with, `until`."""
        p, examples = self._params, self._examples
        low, high = np.searchsorted(examples.step, [chain.until, until])
        rng = np.random.default_rng([p.seed, until - chain.start + self._day])
        chain.until = until
        if low == high:
            return
        before, after = examples.history[low:high], examples.target[low:high]
        # Ranks only say which id comes first; nothing here may depend on how large they are.
        self._grow(chain, np.setdiff1d(np.append(after, before[before != NONE]), chain.rank), rng)
        history, target = _places(chain.rank, before), _places(chain.rank, after)
        often = np.bincount(target, minlength=len(chain.rank))
        chain.pairs += often + np.bincount(history[:, 0], minlength=len(often))
        np.maximum.at(chain.last, target, examples.step[low:high])
        log_q = np.log(np.maximum(often, 1) / len(target)).astype(np.float32) * np.float32(p.logq)
        weight = np.where(history >= 0, self._click, 0.0)
        weight = (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)
        for _ in range(p.first_epochs if until == chain.start else p.epochs):
            shuffled = rng.permutation(len(target))
            for begin in range(0, len(target), p.batch):
                some = shuffled[begin : begin + p.batch]
                batch = Batch.of(history[some], weight[some], target[some])
                known, of_columns = chain.known.rows(batch.met), log_q[batch.met[batch.column]]
                _, slope = objective(chain.weights, known, batch, of_columns, p.temperature)
                descend(chain.weights, chain.squares, slope, batch.met, p.rate)

    def _grow(self, chain: _Chain, new: Ints, rng: np.random.Generator) -> None:
        """Make room for articles that the chain meets first, and for their categories; `new` in ascending order."""
        code, n = self._code[new], len(new)
        categories = np.setdiff1d(self._category[code], chain.category)
        chain.rank, chain.category = np.append(chain.rank, new), np.append(chain.category, categories)
        chain.pairs, chain.last = np.append(chain.pairs, np.zeros(n, int)), np.append(chain.last, np.zeros(n, int))
        embedding = self._articles.embedding
        text: Vectors = (
            np.zeros((n, 0), np.float32) if embedding is None else embedding[code].astype(np.float32) / np.float32(UNIT)
        )
        chain.known = Known(
            np.append(chain.known.category, _places(chain.category, self._category[code])),
            np.concatenate([chain.known.text, text]),
        )
        dim = self._params.dim
        for name, more in (("article", n), ("category", len(categories))):
            begin = rng.normal(0, dim**-0.5, (more, dim)).astype(np.float32)
            chain.weights[name] = np.concatenate([chain.weights[name], begin])
            chain.squares[name] = np.concatenate([chain.squares[name], np.full_like(begin, FIRST)])


def grid_of(params: TwoTowerParams, settings: RecallSettings) -> tuple[int, int]:
    """Refreshes in a step of training, and steps in a day."""
    every = max(1, round(params.step_minutes * MINUTE / settings.refresh_ms))
    return every, max(1, round(DAY / (every * settings.refresh_ms)))


def _laid_out(store: EventStore, step_ms: int, first: int | None, last: int) -> _Examples:
    """Clicks of the steps from `first` on, of readers who had clicked before, with their `last` clicks before."""
    table = store.tables["clicks"]
    user, time, rank = store.user_order[table["user"]], table["time"], store.item_order[table["item"]]
    order = sequence_order(user, time, rank)
    user, time, rank = user[order], time[order], rank[order]
    step = time // step_ms
    history = np.full((len(user), last), NONE, np.int32)
    for age in range(last):
        earlier = previous_in_sequence(user, age + 1)
        history[:, age] = np.where(earlier >= 0, rank[earlier], NONE)
    # What was read a moment ago is not proposed either.
    taught = (history[:, 0] != NONE) & ~(history == rank[:, None]).any(axis=1)
    chosen = np.flatnonzero(taught if first is None else taught & (step >= first))
    chosen = chosen[np.argsort(step[chosen], kind="stable")]
    return _Examples(step[chosen], history[chosen], rank[chosen].astype(np.int32))


def _places(ordered: Ints, wanted: npt.NDArray[np.integer]) -> Ints:
    """Where each number stands among distinct ones in any order, all of which are there; `NONE` stays if it is not."""
    ascending = np.argsort(ordered)
    place = np.searchsorted(ordered, wanted, sorter=ascending)
    return np.where((wanted == NONE) & (ordered[0] != NONE), NONE, ascending[np.minimum(place, len(ordered) - 1)])
