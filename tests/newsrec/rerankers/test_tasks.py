"""Networks of several tasks: who shares what, what is ranked by, and what a second label is good for."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor, nn

from newsrec.data import Log
from newsrec.errors import UsageError
from newsrec.neural.balance import BALANCES
from newsrec.neural.export import export_network, probabilities
from newsrec.neural.model import Model
from newsrec.neural.parity import ATOL, RTOL, random_batch
from newsrec.neural.trainer import TrainerConfig, fit, score, score_tasks
from newsrec.rerankers import RERANKERS, learns_tasks, make
from newsrec.rerankers.base import Shape
from newsrec.rerankers.experts import Experts, Gate, TaskParams, clicked_and_shown
from newsrec.rerankers.mmoe import Mmoe
from newsrec.rerankers.ple import Ple, PleParams
from newsrec.rerankers.stage import auc_of_lists, task_figures, with_tasks
from newsrec.sessions import open_session
from newsrec.split import SplitConfig
from newsrec.tensors import batches, padded
from newsrec.train import train
from newsrec.train_config import TrainConfig
from tests.conftest import FEW_TREES
from tests.networks import SHAPE, fields_of, random_lists, rare, shown_and_liked, vocabulary_of

TWO = replace(SHAPE, tasks=2)
SEVERAL = [name for name in RERANKERS if learns_tasks(name)]


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_a_gate_without_weights_takes_the_mean_of_its_experts() -> None:
    experts, gate, x = Experts(4, 3, 5, "prelu"), Gate(4, 3), drawn(2, 6, 4)
    made = experts(x)
    assert made.shape == (2, 6, 3, 5)
    nn.init.zeros_(gate.weight.weight)
    torch.testing.assert_close(gate(x, made), made.mean(dim=-2))
    with torch.no_grad():
        gate.weight.weight[1] = 1e4
    torch.testing.assert_close(gate(x.abs(), made), made[..., 1, :])


def touched(net: nn.Module, part: nn.Module) -> list[bool]:
    """Which tasks' logits move when a part's weights do."""
    x = drawn(2, 3, net.width)
    before = torch.stack(net._logits(x), dim=-1)
    with torch.no_grad():
        for weight in part.parameters():
            weight.add_(drawn(*weight.shape))
    return [not torch.allclose(before[..., i], net._logits(x)[i], atol=1e-5) for i in range(before.shape[-1])]


def test_all_tasks_share_experts_and_each_has_its_gate() -> None:
    torch.manual_seed(0)
    net = Mmoe(TWO).eval()
    assert touched(net, net.experts) == [True, True]
    assert touched(net, net.gates[1]) == [False, True]


def test_experts_of_a_task_reach_the_other_only_through_what_is_shared() -> None:
    torch.manual_seed(0)
    net = Ple(TWO, PleParams(layers=1)).eval()
    assert touched(net, net.levels[0].experts[0]) == [True, False]
    assert touched(net, net.levels[0].experts[2]) == [True, True]
    deep = Ple(TWO, PleParams(layers=2)).eval()
    assert touched(deep, deep.levels[0].experts[0]) == [True, True]
    assert touched(deep, deep.levels[1].experts[0]) == [True, False]


@pytest.mark.parametrize("name", SEVERAL)
def test_the_ranking_score_is_the_clicks_logit_and_a_share_of_the_others(name: str) -> None:
    lists = vocabulary_of().coded(random_lists(20))
    lists = replace(lists, further={"shared": lists.label.astype(np.float32)})
    for others in (0.0, 0.5):
        torch.manual_seed(0)
        model = Model(make(name, TWO, {"others": others}), SHAPE.dense, SHAPE.numbers)
        logits = score_tasks(model, lists)
        np.testing.assert_allclose(score(model, lists), logits[:, 0] + others * logits[:, 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("base", ["din", "pooling", "youtube_dnn", "transformer", "dien", "dsin", "sim"])
def test_every_network_with_a_tower_is_a_base(base: str) -> None:
    lists = vocabulary_of().coded(random_lists(12))
    lists = replace(lists, further={"shared": lists.label.astype(np.float32)})
    model = Model(make("mmoe", TWO, {"base": base}), SHAPE.dense, SHAPE.numbers)
    assert np.isfinite(score_tasks(model, lists)).all()
    assert fit(model, lists, lists, TrainerConfig(epochs=1)).curves.loss[0] > 0


@pytest.mark.parametrize("base", ["lr", "wide_deep", "deepfm", "mmoe", "nothing", "own.py"])
def test_other_bases_are_refused(base: str) -> None:
    with pytest.raises(UsageError, match=rf"expected a base of .* whose inputs meet in a tower, found '{base}'"):
        make("ple", TWO, {"base": base})


def test_small_vocabularies_have_wide_embeddings() -> None:
    net = Mmoe(TWO, TaskParams())
    assert [table.embedding_dim for table in net.body.embed.tables] == [32, 32]


@pytest.mark.parametrize("name", SEVERAL)
def test_a_network_of_two_tasks_scores_as_in_torch(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, vocabulary, fields = Model(make(name, TWO, {"others": 0.3}), 3, 2), vocabulary_of(), fields_of()
    example = random_batch(vocabulary, fields, (1, 2, 2), np.random.default_rng(0))
    path = tmp_path / "network.onnx"
    export_network(model, vocabulary, fields, example, path, {})
    batch = random_batch(vocabulary, fields, (7, 9, 6), np.random.default_rng(1))
    found = open_session(path.read_bytes()).run(None, batch.named())[0]
    np.testing.assert_allclose(found, probabilities(model, vocabulary, batch), rtol=RTOL, atol=ATOL)


def test_labels_join_their_candidates() -> None:
    lists = random_lists(3)
    row = int(np.flatnonzero(lists.label)[1])
    clicked = [int(lists.ids["item_id"][i]) for i in np.flatnonzero(lists.label)]
    labels = pl.DataFrame({"request_id": [0, 1], "item_id": clicked[:2], "shared": [None, 1.0]})
    found = with_tasks(lists, labels).further["shared"]
    assert found[row] == 1
    assert np.isnan(found[np.flatnonzero(lists.label)[[0, 2]]]).all()  # unknown
    assert not found[lists.label == 0].any()


def test_what_was_not_shown_is_known() -> None:
    lists = random_lists(3)
    shown = pl.DataFrame({"request_id": [0], "item_id": [int(lists.ids["item_id"][0])], "exposed": [1.0]})
    found = with_tasks(lists, shown).further["exposed"]
    wanted = (lists.request_id[lists.row_request] == 0) & (lists.ids["item_id"] == lists.ids["item_id"][0])
    np.testing.assert_array_equal(found, wanted)


def test_a_click_needs_being_shown() -> None:
    click, shown = torch.tensor([0.3, -2.0, 60.0]), torch.tensor([-1.0, 3.0, 60.0])
    both = torch.sigmoid(click[:2]) * torch.sigmoid(shown[:2])
    torch.testing.assert_close(clicked_and_shown(click, shown)[:2], torch.logit(both))
    assert clicked_and_shown(click, shown)[2] == pytest.approx(60 - np.log(2))  # where 1 - p is no longer a number
    extreme = clicked_and_shown(torch.tensor([-1e4, 1e4]), torch.tensor([-1e4, -1e4]))
    assert extreme.tolist() == [-2e4, -1e4]


@pytest.mark.parametrize("name", SEVERAL)
def test_a_head_for_being_shown_finds_what_is_liked_and_not_what_is_shown(name: str) -> None:
    """Half of the articles are hardly ever shown, whatever they are worth; all are shown alike on the other day."""
    train, valid, even = shown_and_liked(1_000), *(shown_and_liked(500, seed, even=True) for seed in (1, 2))
    shown = even.further["exposed"] == 1
    found = {}
    for tasks, params in ((1, {}), (2, {"given_shown": True})):
        torch.manual_seed(0)
        shape = Shape(1, (41,), 1, tasks, exposed=tasks - 1)
        model = Model(make(name, shape, params), 1, 1)
        config = TrainerConfig("bce", 6, batch=32, learning_rate=1e-2, hidden_ids=0.0, patience=6, negatives=None)
        told = [lists if tasks == 2 else replace(lists, further={}) for lists in (train, valid)]
        fit(model, *told, config)
        found[tasks] = auc_of_lists(score(model, even)[shown], even.label[shown] == 1, even.row_request[shown])
    assert found[2] > found[1] + 0.05


def test_auc_of_lists_by_hand() -> None:
    """The first list has 3.5 of its 4 pairs right, the second its only one; the third has no pair."""
    scores, positive = np.array([3.0, 1, 2, 2, 9, 8, 7]), np.array([True, False, True, False, True, False, True])
    assert auc_of_lists(scores, positive, np.array([0, 0, 0, 0, 1, 1, 2])) == pytest.approx((3.5 / 4 + 1) / 2)
    assert np.isnan(auc_of_lists(np.ones(2), np.ones(2, bool), np.array([0, 0])))


@pytest.mark.parametrize("name", SEVERAL)
def test_a_rare_label_learns_from_the_click(name: str) -> None:
    """Beside its twin, the same network taught by the rare label alone."""
    learned, valid = rare(800, 0), rare(1_500, 1)
    shape = Shape(1, (81,), 1)
    config = TrainerConfig(loss="bce", epochs=6, batch=32, negatives=None, hidden_ids=0.0, learning_rate=3e-3)
    torch.manual_seed(0)
    both = Model(make(name, replace(shape, tasks=2)), 1, 1)
    fit(both, learned, valid, config)
    alone = Model(make(name, shape), 1, 1)
    of_second = (replace(each, label=each.further["second"].astype(np.uint8), further={}) for each in (learned, valid))
    fit(alone, *of_second, config)
    second = valid.further["second"] == 1
    assert (
        task_figures(both, valid)["second"]["auc"] > auc_of_lists(score(alone, valid), second, valid.row_request) + 0.05
    )
    assert task_figures(both, valid)["second"]["positives"] == second.sum()


@pytest.mark.parametrize("balance", BALANCES)
def test_every_balance_trains_with_unknown_labels(balance: str) -> None:
    lists = vocabulary_of().coded(random_lists(40))
    unknown = np.where(np.arange(len(lists.label)) % 2 == 0, np.nan, lists.label).astype(np.float32)
    lists = replace(lists, further={"some": unknown, "none": np.full_like(unknown, np.nan)})
    torch.manual_seed(0)
    model = Model(make("mmoe", replace(SHAPE, tasks=3)), SHAPE.dense, SHAPE.numbers)
    curves = fit(model, lists, lists, TrainerConfig(epochs=2, batch=8, balance=balance)).curves
    assert all(np.isfinite(curves.loss))
    assert np.isfinite(score_tasks(model, lists)).all()
    moved = model.network.log_variance.detach().abs().sum() > 0
    assert bool(moved) is (balance == "uncertainty")


def test_tasks_go_with_their_rows() -> None:
    lists = vocabulary_of().coded(random_lists(10))
    lists = replace(lists, further={"same": lists.label.astype(np.float32)})
    chosen = lists.chosen(np.array([3, 1]))
    np.testing.assert_array_equal(chosen.further["same"], chosen.label)
    only = lists.only(lists.dense[:, 0] > 0)
    np.testing.assert_array_equal(only.further["same"], only.label)
    assert len(padded(lists, batches(lists, 2)[0]).rows)


def test_a_run_with_several_tasks_tells_of_each(log: Log, tmp_path: Path) -> None:
    split = SplitConfig(train_requests=400, valid_requests=200, test_requests=100)
    config = TrainConfig(
        out=tmp_path / "run", params=FEW_TREES, refit=False, split=split, reranker="mmoe",
        tasks=("exposed", "shared"), rerank_params={"trainer": {"epochs": 1}},
    )  # fmt: skip
    tasks = train(config, log=log).metrics["reranker"]["tasks"]
    assert list(tasks) == ["click", "exposed", "shared"]
    assert 0 < tasks["shared"]["positives"] < tasks["click"]["positives"] < tasks["exposed"]["positives"]
    assert replace(config, tasks=()).settled(log).tasks == ("shared",)
    frozen = replace(config, split=replace(split, validation="last-click"))
    for contradiction in (replace(config, candidates="slate"), frozen):
        with pytest.raises(UsageError, match="--task exposed: expected candidates of recall"):
            contradiction.settled(log)
    ranked = replace(config, tasks=("shared",), rerank_params={"network": {"given_shown": True}})
    with pytest.raises(UsageError, match="--rerank-params: expected --task exposed with given_shown"):
        ranked.refuse_contradictions()
    bare = replace(log, impressions=None)
    with pytest.raises(UsageError, match="--reranker mmoe: expected a second label, found none"):
        train(replace(config, out=tmp_path / "bare", tasks=()), log=bare)
