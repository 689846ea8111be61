"""The trainer: its metric, when it stops, what it keeps, what it calibrates."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from newsrec.calibration import platt
from newsrec.errors import DataError
from newsrec.metrics import METRICS, per_request, summarise
from newsrec.neural import trainer
from newsrec.neural.losses import LOSSES
from newsrec.neural.model import Model, Scale
from newsrec.neural.trainer import TrainerConfig, fit, mean_mrr, sampled, score
from newsrec.rerankers import make
from newsrec.tensors import Lists, batches
from tests.networks import SHAPE, random_lists, vocabulary_of

LISTS = vocabulary_of().coded(random_lists(200))


def model() -> Model:
    torch.manual_seed(0)
    return Model(make("pooling", SHAPE), SHAPE.dense, SHAPE.numbers)


def test_mrr_is_that_of_the_metrics() -> None:
    scores = np.random.default_rng(0).normal(size=len(LISTS.label))
    rows = pl.DataFrame({"request_id": LISTS.request_id[LISTS.row_request], "score": scores, "label": LISTS.label})
    rows = rows.with_row_index("item_id")
    asked = pl.DataFrame({"request_id": LISTS.request_id, "user_id": LISTS.request_id, "positives": 1})
    metric = {"mrr@5": METRICS["mrr@5"]}
    assert mean_mrr(scores, LISTS) == pytest.approx(summarise(per_request(rows, asked, metric), metric)["mrr@5"])


def test_ties_count_against_the_click_and_clicks_outside_the_list_count_as_zero() -> None:
    lists = LISTS.chosen(np.flatnonzero(LISTS.length == 3)[:2])
    label = np.array([1, 0, 0, 0, 0, 0], np.uint8)
    assert mean_mrr(np.zeros(6), replace(lists, label=label)) == pytest.approx(1 / 3 / 2)


def test_best_weights_are_kept_and_training_stops_after_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    told = iter([0.5, 0.1, 0.5, 0.3, 0.5, 0.6, 0.5, 0.2, 0.5, 0.4, 0.5, 0.9])
    net, kept = model(), {}

    def valued(scores: object, lists: Lists) -> float:
        value = next(told)
        kept[value] = {name: weight.clone() for name, weight in net.state_dict().items()}
        return value

    monkeypatch.setattr(trainer, "mean_mrr", valued)
    curves = fit(net, LISTS, LISTS, TrainerConfig(epochs=20, patience=2)).curves
    assert curves.valid == (0.1, 0.3, 0.6, 0.2, 0.4)
    assert curves.best_epoch == 3
    for name, weight in net.network.state_dict().items():
        torch.testing.assert_close(weight, kept[0.6][f"network.{name}"])


def test_curves_have_a_value_per_epoch_and_epochs_are_told() -> None:
    told: list[float] = []
    curves = fit(model(), LISTS, LISTS, TrainerConfig(epochs=2, negatives=None), told.append).curves
    assert len(curves.loss) == len(curves.train) == len(curves.valid) == 2
    assert tuple(told) == curves.valid
    assert curves.loss[1] < curves.loss[0]


def test_lists_that_teach_no_order_are_refused_where_there_are_no_others() -> None:
    for label in (np.zeros_like(LISTS.label), np.ones_like(LISTS.label)):
        with pytest.raises(DataError, match="expected lists with a click among other candidates, found none in 200"):
            fit(model(), replace(LISTS, label=label), LISTS, TrainerConfig())


def test_scores_stand_in_the_order_of_the_rows() -> None:
    net, order = model(), np.random.default_rng(0).permutation(len(LISTS))
    shuffled = LISTS.chosen(order)
    wanted = np.concatenate([score(net, LISTS)[LISTS.start[i] : LISTS.start[i] + LISTS.length[i]] for i in order])
    np.testing.assert_allclose(score(net, shuffled), wanted, rtol=1e-4, atol=1e-6)


def test_probabilities_are_calibrated_on_whole_lists() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, 20_000)
    label = rng.random(20_000) < 1 / (1 + np.exp(-(0.5 * logits - 1)))
    assert platt(logits, label) == pytest.approx((0.5, -1), abs=0.06)
    net = model()
    fit(net, LISTS, LISTS, TrainerConfig(epochs=2))
    found = net.probabilities(torch.from_numpy(score(net, LISTS))).mean().item()
    assert found == pytest.approx(LISTS.label.mean(), abs=0.01)


@pytest.mark.parametrize("logits", [np.array([1.0, -1.0] * 50), np.zeros(100), np.array([1e6, -1e6] * 50)])
def test_calibration_keeps_the_order_whatever_the_labels(logits: np.ndarray) -> None:
    for label in (np.array([0, 1] * 50), np.array([1, 0] * 50), np.zeros(100)):
        slope, shift = platt(logits, label)
        assert slope > 0
        assert np.isfinite(shift)


def test_scale_by_hand() -> None:
    scale = Scale(3)
    values = np.array([[0.0, 5.0, np.nan], [np.e - 1, 5.0, np.nan], [1 - np.e, np.nan, np.inf]], np.float32)
    scale.fit(values)
    found = scale(torch.from_numpy(values)).numpy()
    spread = np.sqrt(2 / 3)
    np.testing.assert_allclose(found[:, 0], [0, 1 / spread, -1 / spread], atol=1e-6)
    np.testing.assert_allclose(found[:, 1], [0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(found[:, 2], [0, 0, 8], atol=1e-6)


def test_negatives_are_sampled_and_clicks_stay() -> None:
    several = replace(
        LISTS, label=np.where(LISTS.label == 0, np.random.default_rng(0).integers(0, 2, len(LISTS.label)), 1)
    )
    for lists in (LISTS, several):
        found = sampled(lists, 2, np.random.default_rng(1))
        clicks, asked = (np.bincount(each.row_request, each.label, minlength=len(each)) for each in (found, lists))
        assert clicks.tolist() == asked.tolist()
        assert found.length.tolist() == np.minimum(3 * asked, lists.length).tolist()
        rows = {tuple(row) for row in np.nan_to_num(lists.dense).tolist()}
        assert all(tuple(row) in rows for row in np.nan_to_num(found.dense).tolist())
    assert not np.array_equal(sampled(LISTS, 2, np.random.default_rng(2)).dense, sampled(LISTS, 2, rng()).dense)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_every_other_candidate_is_drawn_equally_often() -> None:
    lists = LISTS.chosen(np.flatnonzero(LISTS.length == 7)[:1])
    marked = replace(lists, dense=np.arange(7, dtype=np.float32)[:, None])
    draw = rng()
    drawn = np.concatenate([sampled(marked, 2, draw).dense[:, 0] for _ in range(600)]).astype(int)
    counts = np.bincount(drawn, minlength=7)
    assert counts[lists.label == 1] == 600
    assert np.abs(counts[lists.label == 0] - 200).max() < 50


def test_both_curves_are_of_whole_lists_and_count_what_recall_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Lists] = []
    monkeypatch.setattr(trainer, "mean_mrr", lambda scores, lists: seen.append(lists) or 0.5)
    missed = np.isin(LISTS.row_request, np.arange(0, 200, 2))
    train = replace(LISTS, label=np.where(missed, 0, LISTS.label))
    fit(model(), train, LISTS, TrainerConfig(epochs=1, negatives=1))
    assert seen[0].label.tolist() == train.label.tolist()
    assert seen[1].label.tolist() == LISTS.label.tolist()


def test_hidden_values_reach_the_network_as_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    net, seen = model(), []
    forward = net.forward
    monkeypatch.setattr(net, "forward", lambda *inputs: seen.append(inputs) or forward(*inputs))
    fit(net, LISTS, LISTS, TrainerConfig(epochs=1, hidden_ids=1.0, hidden_dense=1.0, negatives=None, batch=999))
    trained_on = seen[: len(batches(trainer._teaching(LISTS), 999))]
    for dense, target, history, numbers, _ in trained_on:
        assert torch.isnan(dense).all()
        assert not target.any()
        assert not history.any()
        assert torch.isfinite(numbers).any()
    assert torch.isfinite(seen[-1][0]).any()


def test_other_weights_decay_and_embeddings_do_not() -> None:
    lengths = []
    for decay in (0.0, 100.0):
        net = model()
        fit(net, LISTS, LISTS, TrainerConfig(epochs=1, decay=decay, l2=0.0, learning_rate=1e-4))
        weights = dict(net.network.named_parameters())
        lengths.append(
            [weights[name].detach().abs().sum() for name in ("tower.layers.0.weight", "embed.tables.0.weight")]
        )
    assert lengths[1][0] < 0.97 * lengths[0][0]
    assert lengths[1][1] > 0.99 * lengths[0][1]


@pytest.mark.parametrize("loss", LOSSES)
def test_lists_of_more_weight_are_learned_rather(loss: str) -> None:
    """Two kinds of lists want the opposite of the same dense column; the heavier kind has its way."""
    lists = replace(LISTS, dense=np.where(LISTS.label[:, None] == 1, 1.0, -1.0).repeat(3, axis=1).astype(np.float32))
    odd = np.arange(len(lists)) % 2 == 1
    lists = replace(lists, dense=np.where(odd[lists.row_request][:, None], -lists.dense, lists.dense))
    for heavy in (odd, ~odd):
        net = model()
        weight = np.where(heavy, 1.9, 0.1).astype(np.float32)
        fit(net, replace(lists, weight=weight), lists, TrainerConfig(loss=loss, epochs=3, batch=16, learning_rate=5e-3))
        of_list = lists.chosen(np.flatnonzero(heavy & (lists.length > 1)))
        assert mean_mrr(score(net, of_list), of_list) > 0.8
