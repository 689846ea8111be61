"""A trial is worth what the ranker of the same parameters is worth, and costs nothing besides."""

import time
from pathlib import Path

import numpy as np
import optuna
import polars as pl
import pytest

from newsrec.metrics import METRICS, per_request, summarise
from newsrec.rankers import RankingData
from newsrec.rankers.lgbm import LgbmParams, LgbmRanker
from tuning.frames import Frames
from tuning.objective import TUNED, LgbmObjective, Setting

PARAMS = {"trees": 30, "patience": 30, "min_data_in_leaf": 20, "learning_rate": 0.1}
SETTING = Setting("ndcg@10", threads=1)


def nothing(*_: object) -> None:
    """Neither reports nor prunes."""


@pytest.fixture(scope="module")
def objective(frames: Frames) -> LgbmObjective:
    return LgbmObjective(frames, SETTING)


def as_ranking_data(frames: Frames, fold: int) -> tuple[RankingData, RankingData]:
    names, facts = list(frames.facts.features), frames.facts.folds[fold]
    group = frames.array("group")[: facts.requests]
    rows = frames.rows(fold)
    train = RankingData(
        pl.DataFrame(np.array(frames.array("train")[: facts.rows]), schema=names),
        frames.array("label")[: facts.rows],
        np.repeat(np.arange(len(group)), group),
        frames.array("weight")[: facts.rows],
    )
    valid = RankingData(
        pl.DataFrame(np.array(frames.array(f"valid-{fold}")), schema=names),
        rows["label"].to_numpy(),
        rows["request_id"].to_numpy(),
        np.ones(len(rows)),
    )
    return train, valid


@pytest.mark.parametrize("kind", ["lambdarank", "binary"])
def test_trial_scores_as_the_ranker_does(frames: Frames, objective: LgbmObjective, kind: str) -> None:
    measured = objective(PARAMS | {"objective": kind}, nothing, nothing)
    for fold in range(2):
        train, valid = as_ranking_data(frames, fold)
        ranker = LgbmRanker(LgbmParams(**PARAMS, objective=kind, models=1, threads=1))
        ranker.fit(train, valid, categorical=frames.facts.categorical)
        scored = frames.rows(fold).with_columns(pl.Series("score", ranker.score(valid.features)))
        found = per_request(scored, frames.requests(fold), {"ndcg@10": METRICS["ndcg@10"]})
        assert measured.facts["trees"][fold] == ranker.fitting.best_iteration
        assert measured.scores[fold] == pytest.approx(summarise(found, {"ndcg@10": METRICS["ndcg@10"]})["ndcg@10"])


def test_value_is_the_mean_over_folds_of_all_requests_missed_ones_included(
    frames: Frames, objective: LgbmObjective
) -> None:
    measured = objective(PARAMS, nothing, nothing)
    lengths = [fold.valid_requests for fold in frames.facts.folds]
    first, second = np.split(measured.values, [lengths[0]])
    assert len(second) == lengths[1]
    assert measured.scores == pytest.approx((first.mean(), second.mean()))
    assert measured.score == pytest.approx(np.mean(measured.scores))
    assert measured.spread == pytest.approx(np.std(measured.scores))
    missed = ~frames.requests(0)["request_id"].is_in(frames.rows(0)["request_id"].unique().implode()).to_numpy()
    assert missed.any()
    assert np.all(first[missed] == 0)


def test_trials_do_not_touch_each_other(frames: Frames, objective: LgbmObjective) -> None:
    before = objective(PARAMS, nothing, nothing)
    objective(PARAMS | {"min_data_in_leaf": 500, "objective": "rank_xendcg"}, nothing, nothing)
    again, fresh = objective(PARAMS, nothing, nothing), LgbmObjective(frames, SETTING)(PARAMS, nothing, nothing)
    assert before.scores == again.scores == fresh.scores


def test_data_is_binned_once(objective: LgbmObjective) -> None:
    objective(PARAMS, nothing, nothing)
    binned = objective._binned(0)
    objective(PARAMS, nothing, nothing)
    assert objective._binned(0) is binned


def test_reports_come_by_iteration_and_by_fold(objective: LgbmObjective) -> None:
    told: list[tuple[int, int, float]] = []
    ends: list[tuple[int, float]] = []
    measured = objective(PARAMS, lambda *each: told.append(each), lambda *each: ends.append(each))
    assert [each[:2] for each in told] == [(fold, i) for fold in (0, 1) for i in range(1, PARAMS["trees"] + 1)]
    assert [each[2] for each in told[:30]] == sorted(each[2] for each in told[:30])
    assert ends == [(0, pytest.approx(measured.scores[0])), (1, pytest.approx(measured.score))]

    def prune(*_: object) -> None:
        raise optuna.TrialPruned

    with pytest.raises(optuna.TrialPruned):
        objective(PARAMS, prune, nothing)
    with pytest.raises(optuna.TrialPruned):
        objective(PARAMS, nothing, prune)
    assert objective(PARAMS, nothing, nothing).scores == measured.scores


def test_latency_is_measured_where_it_is_asked_for(frames: Frames) -> None:
    found = LgbmObjective(frames, Setting("ndcg@10", threads=1, latency=True))(PARAMS | {"models": 1}, nothing, nothing)
    assert found.latency_ms is not None
    assert 0.01 < found.latency_ms < 1_000


@pytest.mark.parametrize("metric", TUNED)
def test_every_metric_can_be_the_aim(frames: Frames, metric: str) -> None:
    found = LgbmObjective(frames, Setting(metric, threads=1))(PARAMS | {"trees": 5}, nothing, nothing)
    assert 0 < found.score <= 1


def test_objective_opens_what_another_process_wrote(frames: Frames, objective: LgbmObjective) -> None:
    began = time.perf_counter()
    found = LgbmObjective(Frames.open(Path(frames.folder)), SETTING)
    assert time.perf_counter() - began < 1  # nothing is binned before the first trial
    assert found(PARAMS, nothing, nothing).scores == objective(PARAMS, nothing, nothing).scores
