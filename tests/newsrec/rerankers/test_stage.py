"""Training with a network from end to end, and what a bundle with one does."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from newsrec.bundle import read_manifest
from newsrec.data import Log
from newsrec.earlier import config_of_run
from newsrec.errors import UsageError
from newsrec.evaluation.comparison import Difference
from newsrec.progress import Clock
from newsrec.rankers import RankingData
from newsrec.rankers.lgbm import LgbmRanker
from newsrec.rerank import MODEL_FILE, SIGNATURE_FILE, Blend, RerankSettings
from newsrec.rerankers import stage
from newsrec.rerankers.stage import _forward, _verdict, weighed
from newsrec.serve import Recommender
from newsrec.split import SplitConfig
from newsrec.tensors import Fields
from newsrec.train import TrainResult, train
from newsrec.train_config import TrainConfig
from tests.conftest import FEW_TREES
from tests.networks import random_lists

REQUESTS = pl.DataFrame({"request_id": range(90), "user_id": [i % 40 for i in range(90)]}).with_columns(
    pl.from_epoch(pl.Series(np.random.default_rng(0).permutation(90) * 60), "s")
    .dt.cast_time_unit("ms")
    .alias("requested_at")
)


class Noted:
    """A ranker that only remembers what it was fitted on."""

    def __init__(self, seen: frozenset[int] = frozenset()) -> None:
        self.seen = seen

    def refit(self, data: RankingData, **_: object) -> "Noted":
        return Noted(frozenset(data.request.tolist()))


@pytest.mark.parametrize(("wanted", "newest"), [(100, 60), (60, 60), (50, 50), (30, 30), (20, 20)])
def test_scores_of_training_lists_come_from_rankers_of_earlier_requests(
    wanted: int, newest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thirty requests in a stretch: a second ranker is fitted only where the newest stretch has too few; on 25 each."""
    monkeypatch.setattr(stage, "TRAIN_LISTS", wanted)
    monkeypatch.setattr(stage, "EARLIER_REQUESTS", 25)
    rows = RankingData(
        pl.DataFrame({"x": np.zeros(180, np.float32)}), np.tile([0, 1], 90), np.repeat(np.arange(90), 2), np.ones(180)
    )
    assembly = SimpleNamespace(features=(), categorical=(), clock=Clock())
    found = list(_forward(Noted(), rows, REQUESTS, assembly, 0))  # type: ignore[arg-type]
    time = dict(zip(REQUESTS["request_id"], REQUESTS["requested_at"], strict=True))
    assert [len(fold) for _, fold in found] == [min(newest, 30), newest - 30][: 1 + (newest > 30)]
    for ranker, fold in found:
        before = [request for request in time if time[request] < fold["requested_at"].min()]
        stretch = 30 if fold["requested_at"].max() < sorted(time.values())[60] else 60
        assert len(before) >= stretch
        assert ranker.seen == set(sorted(before, key=time.__getitem__)[:stretch][-25:])  # type: ignore[attr-defined]
    first = min(time[request] for _, fold in found for request in fold["request_id"])
    assert first >= sorted(time.values())[30 if newest > 30 else 60]
    assert len({request for _, fold in found for request in fold["request_id"]}) == newest


def test_lists_weigh_as_their_clicks_do_in_the_rows_of_the_ranker() -> None:
    lists = random_lists(4)
    rows = RankingData(
        pl.DataFrame({"x": np.zeros(4, np.float32)}),
        np.array([0, 1, 1, 0]),
        np.array([0, 0, 2, 2]),
        np.array([9.0, 2, 3, 9]),
    )
    found = weighed(lists, rows)
    assert found.weight is not None
    assert found.weight.tolist() == [2, 1, 3, 1]
    assert found.chosen(np.array([2, 0])).weight.tolist() == [3, 2]  # type: ignore[union-attr]


@pytest.mark.parametrize("on", [True, False])
def test_verdict_says_what_is_served(on: bool) -> None:
    settings = RerankSettings("din", on, 20, 50, Blend(1.0, 1.0, 1.0), Fields((), {}, ()))
    line = _verdict(settings, Difference(0.2, 0.21, 0.01, -0.01, 0.03))
    assert "0.2000 -> 0.2100, gain -0.0100 .. +0.0300" in line
    assert ("switched off, the final order is the ranker's" in line) is not on


def test_a_run_leaves_network_signature_figures_and_settings(reranked: TrainResult) -> None:
    manifest, metrics = read_manifest(reranked.run), json.loads((reranked.run / "metrics.json").read_text("utf-8"))
    assert {MODEL_FILE, SIGNATURE_FILE} <= set(manifest["files"])
    settings = RerankSettings.of(manifest["reranker"])
    assert (settings.name, settings.top) == ("din", 20)
    assert settings.fields.dense == (*manifest["features"], "ranker_score")
    assert {"mrr@5", "hit@5", "ndcg@5", "ndcg@10", "auc", "gauc"} <= set(metrics["rerank"]) & set(
        metrics["rerank_alone"]
    )
    assert metrics["seconds"]["rerank"] > 0
    told = metrics["reranker"]
    assert told["on"] == settings.on == (told["gain"]["low"] > 0)
    assert len(told["curves"]["valid"]) == len(told["curves"]["train"]) >= told["curves"]["best_epoch"]
    served = metrics["rerank_gain"]["mrr@5"]["second"] if settings.on else metrics["rank"]["mrr@5"]
    assert metrics["rerank"]["mrr@5"] == pytest.approx(served)
    assert metrics["rerank_alone"]["mrr@5"] > metrics["baselines"]["popularity"]["mrr@5"]


def test_the_ranker_is_that_of_a_run_without_a_network(reranked: TrainResult, log: Log, tmp_path: Path) -> None:
    manifest = read_manifest(reranked.run)
    split = SplitConfig(train_requests=1_500, valid_requests=1_000)
    assert manifest["validation"]["train_requests"] == 1_500
    alone = train(TrainConfig(out=tmp_path / "alone", params=FEW_TREES, refit=False, split=split), log=log)
    assert (alone.run / "lambdarank.txt").read_bytes() == (reranked.run / "lambdarank.txt").read_bytes()
    assert alone.metrics["rank"] == reranked.metrics["rank"]
    assert "rerank" not in alone.metrics


def test_on_and_off_override_what_training_found(reranked: TrainResult, log: Log) -> None:
    loaded = {switch: Recommender.load(reranked.run, reranker=switch) for switch in (True, False, None)}
    on = read_manifest(reranked.run)["reranker"]["on"]
    assert [loaded[switch].reranker is not None for switch in (True, False, None)] == [True, False, on]
    users = log.clicks["user_id"].unique().sort()[:50]
    asked = loaded[True].requests(users, loaded[True].known_until)
    found = {switch: each.recommend_many(asked, 20) for switch, each in loaded.items()}
    assert found[None].equals(found[on])
    assert not found[True]["item_id"].equals(found[False]["item_id"])
    key = ["request_id", "item_id"]
    assert found[True].select(key).sort(key).equals(found[False].select(key).sort(key))  # the top, in another order


def test_rank_and_recommend_agree_where_the_network_orders(reranked: TrainResult, log: Log) -> None:
    served = Recommender.load(reranked.run, reranker=True)
    user = log.clicks["user_id"][0]
    items = served.store.items[:40].to_list()
    scores = served.rank(user, items)
    again = served.with_log(log.clicks.clear(), log.articles).rank(user, items[::-1])
    np.testing.assert_allclose(scores, again[::-1], rtol=1e-4, atol=1e-5)
    assert not np.allclose(scores, Recommender.load(reranked.run, reranker=False).rank(user, items))


def test_a_bundle_without_a_network_cannot_switch_it_on(trained: TrainResult) -> None:
    with pytest.raises(UsageError, match="--reranker on: expected a bundle with a reranker, found none"):
        Recommender.load(trained.run, reranker=True)
    assert Recommender.load(trained.run, reranker=False).reranker is None


def test_recommending_with_a_network_loads_no_torch(
    reranked: TrainResult, python: Callable[..., CompletedProcess[str]]
) -> None:
    code = (
        "import sys; from newsrec.serve import Recommender;"
        f"served = Recommender.load({str(reranked.run)!r}, reranker=True);"
        "print(len(served.recommend(1, k=3)), sorted({'torch', 'onnx', 'optuna'} & set(sys.modules)))"
    )
    done = python("-W", "error", "-c", code)
    assert (done.returncode, done.stdout) == (0, "3 []\n"), done.stderr


def test_torch_absent_is_one_line_that_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UsageError, match=r"found no onnxscript.*pip install 'newsrec\[neural\]'"):
        train(TrainConfig(out=tmp_path / "run", reranker="din"))
    assert not list(tmp_path.iterdir())


def test_a_network_is_added_to_a_bundle_whose_ranker_stays(
    reranked: TrainResult, log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("newsrec.earlier.read", lambda config: log)
    asked = TrainConfig(out=tmp_path / "new", reranker="lr")
    config, again = config_of_run(reranked.run, asked)
    result = train(config, log=again)
    before, after = read_manifest(reranked.run), read_manifest(result.run)
    for name in ("lambdarank.txt", "params.json", "features.json"):
        assert after["files"][name]["sha256"] == before["files"][name]["sha256"]
    for name in ("validation", "recall", "sampling", "features", "candidates", "refit", "seed", "protocol"):
        assert after[name] == before[name]
    metrics = json.loads((reranked.run / "metrics.json").read_text("utf-8"))
    assert result.metrics["rank"] == metrics["rank"]
    assert result.metrics["curves"] == metrics["curves"]
    assert after["reranker"]["name"] == "lr"
    assert after["files"][MODEL_FILE]["sha256"] != before["files"][MODEL_FILE]["sha256"]


def test_the_ranker_of_a_refitted_bundle_is_measured_without_what_it_has_seen(
    trained: TrainResult, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("newsrec.earlier.read", lambda config: log)
    kept = config_of_run(trained.run, TrainConfig(reranker="lr"))[0].kept
    assert kept is not None
    rows = pl.DataFrame(np.random.default_rng(0).normal(size=(50, len(kept.features))), schema=list(kept.features))
    rows = rows.cast(pl.Float32)
    assert kept.ranker.fitting.best_iteration == trained.metrics["curves"]["best_iteration"]
    np.testing.assert_array_equal(kept.ranker.score(rows), LgbmRanker.load(trained.run).score(rows))


@pytest.mark.parametrize("other", [{"list_length": 50}, {"without": ("slate",)}, {"params": {"trees": 3}}])
def test_settings_of_another_ranker_are_refused_beside_a_bundles(measured: TrainResult, other: dict[str, Any]) -> None:
    with pytest.raises(
        UsageError, match=f"expected the bundle's ranker and its settings, .* {list(other)}".replace("[", r"\[")
    ):
        config_of_run(measured.run, TrainConfig(reranker="lr", **other))
