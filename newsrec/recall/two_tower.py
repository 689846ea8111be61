"""Two towers (DSSM): articles whose vectors are nearest to the reader's, both learned from who clicked what next.

What the towers are is in `newsrec.recall.towers`, how they are trained in `newsrec.recall.tower_chain`: a model goes on
learning every half hour, and every day a new one begins. The vectors of articles that are read these hours are
compared with the reader's.
"""

from typing import Final, Self

import numpy as np
import polars as pl

from features.articles import UNIT
from features.events import EventStore, history
from features.windows import Ints, grid_before
from newsrec.recall.base import RecallRequests, RecallSettings, nothing
from newsrec.recall.dense import best_of, read_matrix, rows_at_once
from newsrec.recall.tower_chain import Model, Training, TwoTowerParams, grid_of
from newsrec.recall.towers import UserTower
from newsrec.recall.vectors import Compared

DEFAULTS: Final = TwoTowerParams()
SPARE: Final = 2
"""An index is asked for so many times what is proposed: readers have read some, and it is not exact."""


class TwoTower:
    """The `two_tower` channel."""

    def __init__(self, params: TwoTowerParams = DEFAULTS) -> None:
        self.params = params

    @property
    def last_clicks(self) -> int:
        return self.params.history

    def reach(self, settings: RecallSettings) -> int:
        every, day = grid_of(self.params, settings)
        return (2 * day + 1) * every * settings.refresh_ms

    def lacks(self, store: EventStore) -> str | None:
        return None

    def fit(self, store: EventStore, settings: RecallSettings) -> Self:
        """Only lay out the clicks: models are trained when a request needs them, in order of time at best."""
        self._store, self._settings = store, settings
        self._training = Training(store, settings, self.params)
        self._kept: tuple[int, Compared] | None = None
        return self

    def reading(self, at: int) -> tuple[pl.Series, UserTower]:
        """Ids of the articles that the last model before `at` (ms) can read, and its reader's side, in their order."""
        model = self._model(at)
        return self._store.items.gather(model.known), model.user

    def table(self, at: int) -> pl.DataFrame:
        """Vectors of the articles that the last model before `at` (ms) proposes: `item_id, embedding`, by id."""
        model = self._model(at)
        order = np.argsort(self._store.item_order[model.proposed])
        vectors = (model.vectors[order] / UNIT).astype(np.float32)
        return pl.DataFrame(
            {
                "item_id": self._store.items.gather(model.proposed[order]),
                "embedding": pl.Series(vectors, dtype=pl.Array(pl.Float32, self.params.dim)),
            }
        )

    def recall(self, requests: RecallRequests) -> pl.DataFrame:
        clicked, read, parts = self._clicked(requests), read_matrix(requests), []
        # Every moment of the refresh grid belongs to one model.
        step = grid_before(requests.statistics_at // self._settings.refresh_ms, self._training.every)
        clickers = np.flatnonzero((clicked >= 0).any(axis=1))
        for one in np.unique(step[clickers]).tolist():
            model, rows = self._training.model(one), clickers[step[clickers] == one]
            places = model.places(clicked[rows])
            told = (places >= 0).any(axis=1)
            rows, queries = rows[told], _lifted(model.user.vectors(places[told]))
            pool = self._pool(one)
            per_block = rows_at_once(len(pool.item))
            for start in range(0, len(rows) if len(pool.item) else 0, per_block):
                block = slice(start, start + per_block)
                scores = pool.products(queries[block], SPARE * self._settings.depth)
                parts.append(best_of(scores, rows[block], pool.item, requests, read, self._settings.depth))
        if not parts:
            return nothing()
        found = pl.concat(parts).sort("row", "rank")
        # Multiples of 2 ** -22 below 2: exact.
        return found.with_columns((pl.col("score") / UNIT**2 - 1).cast(pl.Float32))

    def _model(self, at: int) -> Model:
        return self._training.model(at // self._training.step_ms)

    def _clicked(self, requests: RecallRequests) -> Ints:
        """Codes of the last clicks before each request, newest first, -1 where there is none: (n_requests, history)."""
        row, place, age = history(requests.store, requests.user, requests.at, self.params.history)
        item = requests.store.tables["clicks"]["item"][place]
        clicked = np.full((len(requests.at), self.params.history), -1, np.int64)
        # A running store may have met others since.
        clicked[row, age] = np.where(item < self._store.n_items, item, -1)
        return clicked

    def _pool(self, step: int) -> Compared:
        """What a model proposes; the last answer is kept, for requests one by one."""
        if self._kept is None or self._kept[0] != step:
            model = self._training.model(step)
            order = self._store.item_order[model.proposed]
            self._kept = (step, Compared(model.proposed, _lifted(model.vectors), order))
        return self._kept[1]


def _lifted(vectors: np.ndarray) -> np.ndarray:
    """With one more coordinate, so that products are 1 + cosine, above 0 but for the very opposite."""
    return np.column_stack([vectors, np.full(len(vectors), UNIT, vectors.dtype)])
