"""LightGBM rankers: LambdaRank by default, rank_xendcg and binary by a switch.

Burges 2010, "From RankNet to LambdaRank to LambdaMART"; Bruch et al. 2019 for XE-NDCG. Frames go from Polars to
LightGBM directly. LightGBM aborts the process on some input, so everything is checked here first.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
import polars as pl

from newsrec.errors import BundleError, DataError, UsageError
from newsrec.rankers.base import Fitting, RankingData, Scores
from newsrec.rankers.trees import Trees, read_trees

OBJECTIVES = ("lambdarank", "rank_xendcg", "binary")
METRIC = "ndcg@5"
MAX_GROUP = 10_000
"""LightGBM refuses longer lists."""
CURVE_SET = "training"
"""Name of the set behind the training curve: the one name that LightGBM never stops early for."""
CURVE_ROWS = 200_000
"""Training rows, about, that the training curve is measured on."""


LARGE = 300_000
"""Rows from which on the luck of one seed no longer shows."""
MODELS = 5
"""Models that are averaged below."""
ROWS_PER_LEAF = 15_000
LEAVES = (31, 255)
SMALL_LEAVES = 7_000
"""Leaves of fewer than one of so many rows are not made, ..."""
LEAF_ROWS = (100, 500)
"""... the border being no lower and no higher than this."""


@dataclass(frozen=True)
class LgbmParams:
    """Parameters of the ranker. Those that are None follow from the number of rows, see `for_rows`."""

    objective: str = "lambdarank"
    """One of `OBJECTIVES`."""
    learning_rate: float = 0.07
    """Shrinkage, above 0, at most 1."""
    num_leaves: int | None = None
    """Leaves per tree, 2..131072."""
    min_data_in_leaf: int | None = None
    """Rows per leaf at least, >= 0."""
    leaves_scale: float = 1.0
    """Times as many leaves as follow from the rows, above 0, at most 100: what was tuned on a sample fits more rows."""
    leaf_rows_scale: float = 1.0
    """Times as many rows per leaf at least as follow from the rows, above 0, at most 100."""
    models: int | None = None
    """Models with a seed each whose scores are averaged, 1..100."""
    feature_fraction: float = 0.5
    """Share of the features tried per tree, above 0, at most 1."""
    bagging_fraction: float = 0.8
    """Share of the rows used per tree, above 0, at most 1."""
    lambda_l2: float = 5.0
    """L2 regularisation of the leaves, >= 0."""
    max_bin: int = 255
    """Histogram bins per feature, 2..255."""
    truncation: int = 10
    """LambdaRank looks at pairs with one of them among so many first, >= 1 (lambdarank_truncation_level)."""
    trees: int = 300
    """Iterations at most, >= 1."""
    patience: int = 40
    """Stop after so many iterations without a better validation, >= 1."""
    position_bias: bool = False
    """Learn what each place of the shown list adds, apart from the score (`lambdarank` only; Hu et al. 2019)."""
    threads: int = 0
    """Threads while fitting, >= 0; 0 uses all cores."""
    deterministic: bool = True
    """Same seed, same model, whatever the threads."""

    def __post_init__(self) -> None:
        """Refuse what LightGBM would refuse late, or with words of its own.

        Raises:
            UsageError: With every parameter that is of another kind or out of range.
        """
        faults = [fault for name, value in asdict(self).items() if (fault := _fault(name, value))]
        if self.position_bias and self.objective != "lambdarank":
            faults.append(f"position_bias: the objective lambdarank, found {self.objective!r}")
        if faults:
            raise UsageError(f"ranker lgbm: expected {'; '.join(sorted(faults))}.")

    def for_rows(self, rows: int) -> Self:
        """With what is None filled in for so many rows: trees grow with the data, and few rows want an average.

        >>> grown = LgbmParams().for_rows(3_000_000)
        >>> grown.num_leaves, grown.min_data_in_leaf, grown.models
        (200, 428, 1)
        """
        leaves = min(max(rows // ROWS_PER_LEAF, LEAVES[0]), LEAVES[1])
        leaf_rows = min(max(rows // SMALL_LEAVES, LEAF_ROWS[0]), LEAF_ROWS[1])
        fitting: dict[str, Any] = {
            "num_leaves": max(2, round(leaves * self.leaves_scale)),
            "min_data_in_leaf": max(1, round(leaf_rows * self.leaf_rows_scale)),
            "models": 1 if rows >= LARGE else MODELS,
        }
        return replace(self, **{name: value for name, value in fitting.items() if getattr(self, name) is None})

    def for_share(self, share: float) -> Self:
        """Of settled parameters, those for so large a share of the rows: smaller trees, but none below `for_rows`.

        >>> shrunk = LgbmParams().for_rows(3_000_000).for_share(0.3)
        >>> shrunk.num_leaves, shrunk.min_data_in_leaf
        (60, 128)
        """
        borders = {"num_leaves": LEAVES[0], "min_data_in_leaf": LEAF_ROWS[0]}
        settled = {name: getattr(self, name) for name in borders}
        return replace(
            self, **{name: min(value, max(round(value * share), borders[name])) for name, value in settled.items()}
        )

    def settings(self, seed: int) -> dict[str, Any]:
        """As LightGBM spells them; for parameters whose number of rows is settled (`for_rows`)."""
        return {
            "objective": self.objective,
            "metric": "ndcg",
            "eval_at": [5],
            "learning_rate": self.learning_rate,
            "num_leaves": self.num_leaves,
            "min_data_in_leaf": self.min_data_in_leaf,
            "feature_fraction": self.feature_fraction,
            "bagging_fraction": self.bagging_fraction,
            "bagging_freq": 1,
            "lambda_l2": self.lambda_l2,
            "max_bin": self.max_bin,
            "lambdarank_truncation_level": self.truncation,
            "num_threads": self.threads,
            "seed": seed,
            "deterministic": self.deterministic,
            "force_row_wise": self.deterministic,
            "verbose": -1,
        }


_WHOLE: Final[dict[str, tuple[int, int]]] = {
    "num_leaves": (2, 131_072),
    "min_data_in_leaf": (0, 2**31 - 1),
    "models": (1, 100),
    "max_bin": (2, 255),
    "truncation": (1, 2**31 - 1),
    "trees": (1, 2**31 - 1),
    "patience": (1, 2**31 - 1),
    "threads": (0, 2**31 - 1),
}
"""Parameters that are whole numbers, with their lowest and highest value."""
_BY_ROWS: Final = ("num_leaves", "min_data_in_leaf", "models")
"""Parameters that may be left to the number of rows."""
_SHARES: Final = ("learning_rate", "feature_fraction", "bagging_fraction")
_SCALES: Final = ("leaves_scale", "leaf_rows_scale")


def _fault(name: str, value: object) -> str | None:
    """What was expected and found, or None where the value is good."""
    if value is None and name in _BY_ROWS:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if name in _WHOLE:
        low, high = _WHOLE[name]
        good = number and isinstance(value, int) and low <= value <= high
        wanted = f"a whole number in {low}..{high}"
    elif name in _SHARES:
        good, wanted = number and 0 < value <= 1, "a number above 0, at most 1"  # type: ignore[operator]
    elif name in _SCALES:
        good, wanted = number and 0 < value <= 100, "a number above 0, at most 100"  # type: ignore[operator]
    elif name == "objective":
        good, wanted = value in OBJECTIVES, f"one of {list(OBJECTIVES)}"
    elif name == "lambda_l2":
        good, wanted = number and 0 <= value < float("inf"), "a number >= 0"  # type: ignore[operator]
    else:
        good, wanted = isinstance(value, bool), "true or false"
    return None if good else f"{name}: {wanted}, found {value!r}"


@dataclass
class LgbmRanker:
    """The `lgbm` ranker."""

    params: LgbmParams = LgbmParams()
    fitting: Fitting = field(default_factory=Fitting)
    _boosters: tuple[lgb.Booster, ...] = ()

    MODEL_FILE: ClassVar[str] = "lambdarank.txt"
    PARAMS_FILE: ClassVar[str] = "params.json"
    NAME: ClassVar[str] = "lgbm"

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Self:
        known = sorted(f.name for f in fields(LgbmParams))
        unknown = sorted(set(params) - set(known))
        if unknown:
            raise UsageError(f"ranker lgbm: expected parameters of {known}, found {unknown}.")
        return cls(LgbmParams(**params))

    def fit(
        self,
        train: RankingData,
        valid: RankingData | None,
        *,
        categorical: Sequence[str] = (),
        seed: int = 0,
        on_iteration: Callable[[], None] = lambda: None,
    ) -> Self:
        _check(train)
        if self.params.position_bias and train.place is None:
            raise DataError(
                "ranker: expected the place at which each row was shown, found none, as position_bias needs it. "
                "Train with --position-bias on a log whose impressions have positions."
            )
        self.params = self.params.for_rows(len(train))
        data = _dataset(train, categorical, place=train.place if self.params.position_bias else None)
        told: list[Callable[..., Any]] = [lambda _: on_iteration()]
        curves: dict[str, dict[str, list[float]]] = {}
        callbacks = [*told]
        valid_sets, names = [], []
        if valid is not None:
            _check(valid)
            sample = _first_rows(train)
            valid_sets = [_dataset(sample, categorical, data), _dataset(valid, categorical, data)]
            names = [CURVE_SET, "valid"]
            stop = lgb.early_stopping(self.params.patience, verbose=False)
            callbacks += [lgb.record_evaluation(curves), stop]
        first = lgb.train(
            self.params.settings(seed),
            data,
            self.params.trees,
            valid_sets=valid_sets,
            valid_names=names,
            callbacks=callbacks,
        )
        of_valid = curves.get("valid", {}).get(METRIC, [])
        best = int(np.argmax(of_valid)) + 1 if of_valid else first.num_trees()
        # Validation chooses the number of trees with the first model; the others only average out its luck.
        others = [
            lgb.train(self.params.settings(seed + i), data, best, callbacks=[*told])
            for i in range(1, self.params.models or 1)
        ]
        of_train = curves.get(CURVE_SET, {}).get(METRIC, [])
        boosters = (first, *others)
        self._keep(boosters, Fitting(METRIC, tuple(of_train), tuple(of_valid), best, _importance(boosters, best)))
        return self

    def refit(self, data: RankingData, *, categorical: Sequence[str] = (), seed: int = 0, share: float = 1.0) -> Self:
        other = type(self)(replace(self.params.for_share(share), trees=max(1, self.fitting.best_iteration)))
        other.fit(data, None, categorical=categorical, seed=seed)
        # Curves stay those that chose the number of trees; importance is of the model that serves.
        other.fitting = replace(self.fitting, importance=other.fitting.importance)
        return other

    def score(self, features: pl.DataFrame) -> Scores:
        boosters = self.boosters
        names = boosters[0].feature_name()
        if features.columns != names:
            missing, extra = sorted(set(names) - set(features.columns)), sorted(set(features.columns) - set(names))
            raise BundleError(
                f"ranker: expected its {len(names)} columns in order, found {features.width}; missing {missing}, "
                f"unknown {extra}{'' if missing or extra else ', another order'}."
            )
        if features.is_empty():
            return np.zeros(0, np.float32)
        # One thread for a request (ten times faster: no hand-over), all of them for a batch.
        threads = 1 if len(features) < 5_000 else 0
        best = self.fitting.best_iteration or -1
        scores = [np.asarray(b.predict(features, num_iteration=best, num_threads=threads)) for b in boosters]
        return np.asarray(np.mean(scores, axis=0), np.float32)

    def contributions(self, features: pl.DataFrame) -> npt.NDArray[np.float64]:
        best = self.fitting.best_iteration or -1
        moved = [b.predict(features, num_iteration=best, pred_contrib=True, num_threads=1) for b in self.boosters]
        return np.asarray(np.mean(moved, axis=0), np.float64)[:, :-1]

    @property
    def boosters(self) -> tuple[lgb.Booster, ...]:
        """The models whose scores are averaged.

        Raises:
            UsageError: Before `fit` or `load`.
        """
        if not self._boosters:
            raise UsageError("ranker: fit or load it before scoring.")
        return self._boosters

    @property
    def gives_probabilities(self) -> bool:
        return self.params.objective == "binary"

    @property
    def trees(self) -> tuple[Trees, ...]:
        best = self.fitting.best_iteration or -1
        return tuple(read_trees(booster.model_to_string(num_iteration=best)) for booster in self.boosters)

    def save(self, folder: Path) -> None:
        best = self.fitting.best_iteration or -1
        for name, booster in zip(self._files(len(self.boosters)), self.boosters, strict=True):
            (folder / name).write_text(booster.model_to_string(num_iteration=best), encoding="utf-8")
        params = {
            "ranker": self.NAME,
            "params": asdict(self.params) | {"models": len(self.boosters)},
            "trees": self.boosters[0].num_trees() if best < 0 else best,
        }
        (folder / self.PARAMS_FILE).write_text(json.dumps(params, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        stored = json.loads((folder / cls.PARAMS_FILE).read_text(encoding="utf-8"))
        ranker = cls.of(stored["params"])
        texts = [(folder / name).read_text(encoding="utf-8") for name in cls._files(ranker.params.models or 1)]
        ranker._boosters = tuple(lgb.Booster(model_str=text) for text in texts)
        ranker.fitting = Fitting(best_iteration=ranker._boosters[0].num_trees())  # for a refit
        return ranker

    @classmethod
    def _files(cls, models: int) -> list[str]:
        """`lambdarank.txt`, `lambdarank-2.txt`, ..."""
        stem, suffix = cls.MODEL_FILE.split(".")
        return [cls.MODEL_FILE, *(f"{stem}-{i}.{suffix}" for i in range(2, models + 1))]

    def _keep(self, boosters: tuple[lgb.Booster, ...], fitting: Fitting) -> None:
        if not any(row["splits"] for row in fitting.importance):
            raise DataError(
                "ranker: expected features that tell clicked from others, found none: every tree is a single leaf. "
                "The log may be too small, or its labels do not depend on the articles."
            )
        self._boosters, self.fitting = boosters, fitting


def _check(data: RankingData) -> None:
    """Refuse what LightGBM would abort on, take in silence, or explain badly."""
    if not len(data):
        raise DataError(
            "ranker: expected rows to learn from, found none: recall proposed none of the clicked articles."
        )
    wrong = sorted(f"{name}: {dtype}" for name, dtype in data.features.schema.items() if dtype != pl.Float32)
    if wrong:
        raise DataError(f"ranker: expected Float32 columns, found {wrong}. Cast or encode them first.")
    lengths = {len(data.features), len(data.label), len(data.request), len(data.weight)}
    if len(lengths) > 1:
        raise DataError(
            f"ranker: expected features, labels, requests and weights of one length, found {sorted(lengths)}."
        )
    labels = np.unique(data.label.astype(np.float64))
    if not np.all(np.isin(labels, (0.0, 1.0))):
        raise DataError(f"ranker: expected labels 0 and 1, found {labels[:5].tolist()}.")
    if len(labels) < 2:
        raise DataError(f"ranker: expected clicked and not clicked rows, found only label {labels[0]:g}.")
    groups = group_lengths(data.request)
    if len(groups) != len(np.unique(data.request)):
        raise DataError("ranker: expected the rows of a request to stand together, found one in several places.")
    if groups.max() > MAX_GROUP:
        raise DataError(f"ranker: expected lists of at most {MAX_GROUP} candidates, found {groups.max()}.")


def group_lengths(request: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Lengths of the runs of equal request ids."""
    starts = np.flatnonzero(np.concatenate([[True], request[1:] != request[:-1]]))
    return np.diff(np.append(starts, len(request)))


def _dataset(
    data: RankingData,
    categorical: Sequence[str],
    reference: lgb.Dataset | None = None,
    place: npt.NDArray[Any] | None = None,
) -> lgb.Dataset:
    return lgb.Dataset(
        data.features,
        label=data.label,
        group=group_lengths(data.request),
        weight=data.weight,
        categorical_feature=[name for name in categorical if name in data.features.columns],
        reference=reference,
        params={"verbose": -1},
        position=place,
    )


def _first_rows(data: RankingData) -> RankingData:
    """An even sample of whole requests of about `CURVE_ROWS` rows."""
    groups = group_lengths(data.request)
    step = max(1, len(data) // CURVE_ROWS)
    rows = np.flatnonzero(np.repeat(np.arange(len(groups)) % step == 0, groups))
    return data.take(rows)


def _importance(boosters: Sequence[lgb.Booster], trees: int) -> tuple[dict[str, Any], ...]:
    gain = np.sum([b.feature_importance("gain", iteration=trees) for b in boosters], axis=0)
    splits = np.sum([b.feature_importance("split", iteration=trees) for b in boosters], axis=0)
    total = max(float(gain.sum()), 1e-12)
    rows = [
        {"feature": name, "gain": float(g) / total, "splits": int(s)}
        for name, g, s in zip(boosters[0].feature_name(), gain, splits, strict=True)
    ]
    return tuple(sorted(rows, key=lambda row: (-row["gain"], row["feature"])))
