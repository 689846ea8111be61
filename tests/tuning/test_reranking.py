"""A network's trials: what is laid down once, what a trial is worth, and the file for `train --rerank-params`."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest

pytest.importorskip("torch")

from newsrec.data import Log
from newsrec.params import load_params
from newsrec.progress import Silent
from newsrec.rerankers.blending import judge
from newsrec.rerankers.stage import RerankConfig, fit_network
from tests.conftest import FEW_TREES
from tests.tuning.planted import CONFIG
from tuning.frames import Frames
from tuning.objective import Setting
from tuning.reranking import EPOCH_STEPS, RerankObjective, write_tops
from tuning.run import TuneConfig, tune

DIN = replace(CONFIG, reranker="din", params=FEW_TREES, rerank_top=10)
SETTING = Setting("mrr@5", threads=1)
SHORT = {"trainer.epochs": 2, "network.hidden": "16"}


@pytest.fixture(scope="module")
def tops(log: Log, tmp_path_factory: pytest.TempPathFactory) -> Frames:
    return write_tops(DIN, log, 2, tmp_path_factory.mktemp("tops"), Silent())


def test_tops_are_short_coded_and_before_their_validation(tops: Frames) -> None:
    for fold, facts in enumerate(tops.facts.folds):
        shape, train, valid = RerankObjective("din", tops, SETTING)._tops(fold)
        assert train.coded
        assert valid.coded
        assert max(train.length.max(), valid.length.max()) <= 10
        assert isinstance(train.dense, np.memmap)
        assert train.dense.shape[1] == shape.dense == len(tops.facts.features) + 1
        assert max(ids.max() for ids in train.ids.values()) < max(shape.sizes)
        assert len(train) == facts.requests > 0
        assert len(tops.requests(fold)) == facts.valid_requests
    assert tops.facts.folds[1].requests < tops.facts.folds[0].requests
    assert tops.facts.folds[1].valid_until == tops.facts.folds[0].valid_from


def test_trial_is_worth_what_the_stage_says_of_the_blend(tops: Frames) -> None:
    told: list[tuple[int, int]] = []
    objective = RerankObjective("din", tops, SETTING)
    measured = objective(SHORT, lambda fold, step, _: told.append((fold, step)), lambda *_: None)
    assert told == [(fold, epoch * EPOCH_STEPS) for fold in (0, 1) for epoch in (1, 2)]
    config = RerankConfig.of("din", 2, {"trainer": {"epochs": 2}, "network": {"hidden": [16]}}, 0)
    for fold in (0, 1):
        shape, train, valid = objective._tops(fold)
        _, fitted = fit_network(config, shape, train, valid, lambda _: None)
        gain = judge(valid, fitted.logits, tops.requests(fold), 0)
        assert measured.scores[fold] == pytest.approx(gain.second)
        assert gain.second > 0
    assert len(measured.values) == sum(fold.valid_requests for fold in tops.facts.folds)
    assert measured.score == pytest.approx(np.mean(measured.scores))


def test_training_ends_where_a_report_says_so(tops: Frames) -> None:
    def prune(*_: object) -> None:
        raise optuna.TrialPruned

    with pytest.raises(optuna.TrialPruned):
        RerankObjective("din", tops, SETTING)(SHORT, prune, lambda *_: None)


def test_study_writes_what_train_takes(log: Log, tmp_path: Path) -> None:
    space = tmp_path / "space.toml"
    space.write_text('["trainer.batch"]\nvalue = 64\n["network.hidden"]\nchoices = ["16"]\n', encoding="utf-8")
    out = tmp_path / "din.json"
    config = TuneConfig(out, 1, DIN, folds=1, space=space, storage=f"journal:///{tmp_path}/study.log")
    found = tune(config, log=log).params
    assert found["reranker"] == "din"
    assert "ranker" not in found
    assert found["metric"] == "mrr@5"
    file = load_params(out, "din", "reranker", "--rerank-params")
    assert file.tuned_on == log.fingerprint
    chosen = RerankConfig.of("din", 10, file.params, 0)
    assert (chosen.trainer.batch, chosen.network["hidden"]) == (64, [16])
    assert json.loads(out.read_text(encoding="utf-8")) == found
