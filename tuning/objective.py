"""What a trial is worth: a ranker per fold on the frames that all trials share, scored as `evaluate` scores.

Binned data is made once per worker and kept, so a trial costs no more than `lgb.train` itself; `max_bin` is therefore
not searched. A trial fits one model a fold: averaging five costs five times as much and hardly changes which wins.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, Protocol

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
import polars as pl

from newsrec.metrics import METRICS, per_request, summarise
from newsrec.rankers.lgbm import METRIC, LgbmParams
from tuning.frames import Frames

LATENCY_LISTS: Final = 300
"""Requests that latency is measured on."""

LOOK_EVERY: Final = 10
"""Iterations between two looks at the validation's scores: a look costs as much as some trees of a prediction."""

Array = npt.NDArray[Any]
Report = Callable[[int, int, float], None]
"""(fold, iteration, the best validation metric so far), after each iteration; may raise to end the trial."""
FoldDone = Callable[[int, float], None]
"""(fold, mean of the metric over the folds so far); may raise to end the trial."""


@dataclass(frozen=True)
class Measured:
    """What a trial found."""

    scores: tuple[float, ...]
    """The metric per fold."""
    values: Array
    """Float32, the metric per validation request, fold after fold; NaN where a request has none."""
    facts: Mapping[str, Any]
    """For the trial's attributes."""
    latency_ms: float | None = None
    """99th percentile of the time to score one request's list on one thread, where it was asked for."""

    @property
    def score(self) -> float:
        """Mean over the folds."""
        return float(np.mean(self.scores))

    @property
    def spread(self) -> float:
        """Standard deviation over the folds."""
        return float(np.std(self.scores))


class Objective(Protocol):
    """One model's trials, over frames that it was made with."""

    def __call__(self, params: Mapping[str, Any], report: Report, fold_done: FoldDone) -> Measured:
        """Fit and score every fold."""
        ...


@dataclass(frozen=True)
class Setting:
    """What a worker tells its objective."""

    metric: str
    """Name in `newsrec.metrics.METRICS`."""
    seed: int = 0
    """Of every trial alike, so that trials differ by their parameters only."""
    threads: int = 0
    """Of LightGBM, >= 0; 0 uses all cores."""
    latency: bool = False
    """Whether to measure it."""
    switches: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Of a selection: each switch and the features behind it."""


@dataclass
class Best:
    """The best iteration so far, and validation scores that lie a few trees before it at most."""

    value: float = -np.inf
    iteration: int = 0
    scores: Array = field(default_factory=lambda: np.zeros(0))
    """As LightGBM gives them to a metric: chances for the objective `binary`, else raw."""
    seen: int = 0
    """Iterations that `scores` are of."""

    def keep(self, env: Any) -> None:
        """A LightGBM callback, to run before early stopping."""
        value = next(row[2] for row in env.evaluation_result_list if row[1] == METRIC)
        if value > self.value:
            self.value, self.iteration = value, env.iteration + 1
            if not self.seen or self.iteration - self.seen >= LOOK_EVERY:
                env.model.eval_valid(self._look)

    def _look(self, scores: Array, _: lgb.Dataset) -> tuple[str, float, bool]:
        """A LightGBM metric that measures nothing and remembers the scores."""
        self.scores, self.seen = scores.copy(), self.iteration
        return "seen", 0.0, True


@dataclass
class LgbmObjective:
    """The `lgbm` ranker on every fold."""

    frames: Frames
    setting: Setting

    def __post_init__(self) -> None:
        """Bin each fold when it is first asked for, and only then."""
        self._binned = cache(self._bin)

    def __call__(self, params: Mapping[str, Any], report: Report, fold_done: FoldDone) -> Measured:
        scores: list[float] = []
        values, trees = [], []
        latency = None
        for fold in range(len(self.frames.facts.folds)):
            fitted = self._params(params, fold)
            best, booster = self.fit(fitted, fold, report)
            told = self._scores(booster, fitted, best, fold).astype(np.float32)
            rows = self.frames.rows(fold).with_columns(pl.Series("score", told))
            found = per_request(rows, self.frames.requests(fold), {self.setting.metric: METRICS[self.setting.metric]})
            scores.append(summarise(found, {self.setting.metric: METRICS[self.setting.metric]})[self.setting.metric])
            values.append(found[self.setting.metric].cast(pl.Float32).to_numpy())
            trees.append(best.iteration)
            if self.setting.latency and fold == 0:
                latency = self._latency(booster, best.iteration, fitted.models or 1)
            fold_done(fold, float(np.mean(scores)))
        return Measured(tuple(scores), np.concatenate(values), {"trees": trees}, latency)

    def fit(self, params: LgbmParams, fold: int, report: Report) -> tuple[Best, lgb.Booster]:
        """Train on a fold as `LgbmRanker` does, watched by the same metric."""
        train, valid = self._binned(fold)
        best = Best()

        def tell(env: Any) -> None:
            report(fold, env.iteration + 1, best.value)

        stop = lgb.early_stopping(params.patience, first_metric_only=True, verbose=False)
        booster = lgb.train(
            self.settings(params),
            train,
            params.trees,
            valid_sets=[valid],
            valid_names=["valid"],
            callbacks=[best.keep, tell, stop],
        )
        return best, booster

    def _scores(self, booster: lgb.Booster, params: LgbmParams, best: Best, fold: int) -> Array:
        """Raw validation scores at the best iteration: those that were seen, and the few trees after them."""
        raw = np.log(best.scores) - np.log1p(-best.scores) if params.objective == "binary" else best.scores
        if (further := best.iteration - best.seen) > 0:
            rows, threads = self._valid(fold), self.setting.threads
            raw = raw + booster.predict(rows, best.seen, further, raw_score=True, num_threads=threads)
        return raw

    def settings(self, params: LgbmParams) -> dict[str, Any]:
        """What LightGBM is told in every trial; the binned data was made with the same."""
        # Filtering features by `min_data_in_leaf` would tie the binned data to one trial's value of it.
        own = {"num_threads": self.setting.threads, "feature_pre_filter": False}
        return params.settings(self.setting.seed) | own

    def _params(self, params: Mapping[str, Any], fold: int) -> LgbmParams:
        return LgbmParams(**params).for_rows(self.frames.facts.folds[fold].rows)

    def _columns(self) -> list[int] | None:
        """Columns of the frames that trials see; None is all."""
        return None

    def _array(self, name: str, rows: int | None = None) -> Array:
        """Mapped rows of the frames, the columns that trials see."""
        mapped, columns = self.frames.array(name)[:rows], self._columns()
        return mapped[:, columns] if columns else mapped

    def _valid(self, fold: int) -> Array:
        return self._array(f"valid-{fold}")

    def _bin(self, fold: int) -> tuple[lgb.Dataset, lgb.Dataset]:
        """Training and validation rows of a fold, binned by the training rows."""
        facts, frames, columns = self.frames.facts.folds[fold], self.frames, self._columns()
        names = [frames.facts.features[i] for i in columns] if columns else list(frames.facts.features)
        told: dict[str, Any] = {
            "feature_name": names,
            "categorical_feature": [name for name in frames.facts.categorical if name in names],
            "params": self.settings(LgbmParams().for_rows(facts.rows)),
        }

        train = lgb.Dataset(
            self._array("train", facts.rows),
            label=frames.array("label")[: facts.rows],
            weight=frames.array("weight")[: facts.rows],
            group=frames.array("group")[: facts.requests],
            **told,
        )
        rows = frames.rows(fold)
        lengths = rows["request_id"].rle().struct.field("len").to_numpy()
        label = rows["label"].cast(pl.Float32).to_numpy()
        valid = lgb.Dataset(self._valid(fold), label=label, group=lengths, reference=train, **told)
        return train.construct(), valid.construct()

    def _latency(self, booster: lgb.Booster, trees: int, models: int) -> float:
        """Milliseconds; noisy where other work shares the machine."""
        lengths = self.frames.rows(0)["request_id"].rle().struct.field("len").to_numpy()
        ends = np.cumsum(lengths)
        chosen = np.unique(np.linspace(0, len(ends) - 1, min(LATENCY_LISTS, len(ends))).astype(int))
        valid = self._valid(0)
        lists = [np.ascontiguousarray(valid[ends[i] - lengths[i] : ends[i]]) for i in chosen]
        spent = []
        for rows in [lists[0], *lists]:  # the first warms up
            start = time.perf_counter()
            booster.predict(rows, num_iteration=trees, num_threads=1)
            spent.append(time.perf_counter() - start)
        return float(np.quantile(spent[1:], 0.99)) * 1000 * models


DEFAULT_METRIC: Final = "ndcg@10"
TUNED: Final = (
    DEFAULT_METRIC,
    *(
        name
        for name, metric in METRICS.items()
        if metric.weight is None and name not in (DEFAULT_METRIC, "auc_share", "recall@50")
    ),
)
"""Metrics that a study may maximise, the default first: those that an order can change, requests weighing the same."""
