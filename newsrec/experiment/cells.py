"""One cell: negatives are drawn, a ranker is fitted, and everything is measured on the same whole lists."""

import time
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from newsrec.calibration import calibrate, calibration_figures, sigmoid, unsampled
from newsrec.candidates import SamplingConfig, whole_lists
from newsrec.experiment.config import Cell
from newsrec.experiment.material import Material
from newsrec.metrics import METRICS, per_request, summarise
from newsrec.rankers import RANKERS, Ranker
from newsrec.sampling import mark_negatives, parse

HARD_SHARE: Final = 0.2
"""Not clicked candidates among the first fifth of their list are hard, the others easy."""
WRONG_RATIO: Final = 4.0
"""Negatives per click of the sampled test lists, which show what measuring on them would have said."""


def run_cell(material: Material, cell: Cell) -> tuple[dict[str, Any], pl.DataFrame]:
    """Draw, fit, measure.

    Returns:
        Figures for JSON, and `newsrec.metrics.per_request` of the test lists.
    """
    train, test = material.train, material.test
    sampling = SamplingConfig(sampler=cell.sampler, ratio=cell.ratio or 1.0, seed=cell.seed)
    store, until = material.assembly.store, material.split.learn_until
    marked = mark_negatives(train.rows, train.requests, store, sampling, until)
    rows = train.data(marked, cell.weighted)
    categorical = material.assembly.categorical
    params = {**material.config.params, **cell.params}
    watched = material.valid.without_misses()
    began = time.perf_counter()
    ranker = RANKERS["lgbm"].of(params).fit(rows, watched, categorical=categorical, seed=cell.seed)
    seconds = time.perf_counter() - began
    scores = ranker.score(test.features)
    scored = test.rows.with_columns(pl.Series("score", scores))
    found = per_request(scored, test.requests, METRICS)
    clicked = int(rows.label.sum())
    whole = whole_lists(train.rows).filter("kept")
    others = len(whole) - int(whole["label"].sum())
    fitting = ranker.fitting
    return {
        **cell.facts(),
        "figures": summarise(found),
        "auc_hard": _auc(scored, test.requests, hard=True),
        "auc_easy": _auc(scored, test.requests, hard=False),
        "on_sampled_lists": _on_sampled_lists(material, scored),
        "calibration": _calibration(material, cell, ranker, scores, (len(rows) - clicked) / max(others, 1)),
        "rows": {"clicked": clicked, "others": len(rows) - clicked},
        "seconds": seconds,
        "iterations": len(fitting.valid),
        "best_iteration": fitting.best_iteration,
        "curves": {"metric": fitting.metric, "train": list(fitting.train), "valid": list(fitting.valid)},
        "importance": {row["feature"]: row["gain"] for row in fitting.importance},
    }, found


def _auc(scored: pl.DataFrame, requests: pl.DataFrame, *, hard: bool) -> float | None:
    """AUC of clicks against hard or easy negatives alone."""
    place = pl.col("recall_rank") <= HARD_SHARE * pl.len().over("request_id")
    rows = scored.filter((pl.col("label") == 1) | (place if hard else ~place))
    return summarise(per_request(rows, requests, METRICS)).get("auc")


def _on_sampled_lists(material: Material, scored: pl.DataFrame) -> dict[str, float]:
    """What one would have said by ranking each click among a few random negatives: higher, and wrong."""
    sampling = SamplingConfig(sampler="random", ratio=WRONG_RATIO)
    requests = material.test.requests
    marked = mark_negatives(scored, requests, material.assembly.store, sampling)
    figures = summarise(per_request(marked.filter("kept"), requests, METRICS))
    return {name: figures[name] for name in ("auc", "mrr@5", "ndcg@5") if name in figures}


def _calibration(
    material: Material, cell: Cell, ranker: Ranker, scores: npt.NDArray[Any], kept: float
) -> dict[str, Any]:
    """Before: the score, or its sigmoid where it is no probability. After: the calibrator of whole validation lists.

    `kept`: share of the negatives that trained, for the closed form.
    """
    valid = material.valid
    calibrator = calibrate(ranker.score(valid.features), valid.rows["label"])
    plain = scores if ranker.gives_probabilities else sigmoid(scores)
    ways = {"before": plain, "after": calibrator.probabilities(scores)}
    shares = parse(cell.sampler)
    if ranker.gives_probabilities and "random" in shares and len(shares) == 1 and not cell.weighted:
        ways["closed_form"] = unsampled(plain, min(kept, 1.0))
    clicked = material.test.rows["label"].to_numpy()
    told = {name: calibration_figures(p, clicked) for name, p in ways.items()}
    if material.truth is not None:
        true = {name: calibration_figures(p, material.truth)["ece_share"] for name, p in ways.items()}
        told = {name: {**figures, "true_ece_share": true[name]} for name, figures in told.items()}
    return {name: {key: value for key, value in figures.items() if key != "curve"} for name, figures in told.items()}


def first_reaching(curve: list[float], level: float) -> int | None:
    """The first iteration, from 1, whose validation reaches a level; None if none does."""
    reached = np.flatnonzero(np.asarray(curve) >= level)
    return int(reached[0]) + 1 if len(reached) else None
