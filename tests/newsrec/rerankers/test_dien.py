"""DIEN by hand: its gates against torch's GRU, its next-click loss, and what the order of clicks is good for."""

import math

import pytest
import torch
from torch import Tensor, nn

from newsrec.errors import UsageError
from newsrec.neural import trainer
from newsrec.neural.model import Model
from newsrec.neural.trainer import TrainerConfig, fit
from newsrec.rerankers import make
from newsrec.rerankers.base import Shape
from newsrec.rerankers.dien import Augru, DienParams, next_click_loss
from tests.networks import SHAPE, drifts, random_lists, vocabulary_of


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_with_full_attention_it_is_a_gru_and_without_any_it_stands_still() -> None:
    augru, gru, states = Augru(4), nn.GRU(4, 4, batch_first=True), drawn(2, 5, 4)
    with torch.no_grad():
        # torch's z keeps the old state where the paper's u takes the new one: z = 1 - u, so all of its weights turn.
        for mine, theirs in (
            (augru.of_input.weight, gru.weight_ih_l0),
            (augru.of_state.weight, gru.weight_hh_l0),
            (augru.of_input.bias, gru.bias_ih_l0),
        ):
            update, reset, new = mine.chunk(3)
            theirs.copy_(torch.cat([reset, -update, new]))
        gru.bias_hh_l0.zero_()
    found = augru(states, torch.ones(2, 3, 5))
    torch.testing.assert_close(found, gru(states)[1][0][:, None].expand(2, 3, 4), rtol=1e-4, atol=1e-5)
    assert not augru(states, torch.zeros(2, 3, 5)).any()


def test_attention_weighs_the_update_gate() -> None:
    augru, states = Augru(4), drawn(1, 1, 4)
    whole, third = (augru(states, torch.full((1, 1, 1), weight)) for weight in (1.0, 1 / 3))
    torch.testing.assert_close(third, whole / 3)  # from a state of zero, one step


def test_next_click_loss_by_hand() -> None:
    states = torch.tensor([[[1.0, 0], [0, 2], [9, 9]]])
    clicks = torch.tensor([[[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]]])  # all alike, so that any drawn one is the same
    # <h1, e2> = 0.5 and <h2, e3> = 1: each must be told, and denied of the drawn one.
    terms = [math.log1p(math.exp(-x)) + math.log1p(math.exp(x)) for x in (0.5, 1.0)]
    assert next_click_loss(states, clicks, torch.ones(1, 3)).item() == pytest.approx(sum(terms) / 2, rel=1e-5)
    padded = torch.tensor([[1.0, 1, 0]])
    assert next_click_loss(states, clicks, padded).item() == pytest.approx(terms[0], rel=1e-5)
    assert next_click_loss(states, clicks, torch.zeros(1, 3)).item() == 0


def test_training_adds_its_loss_and_scoring_does_not_draw() -> None:
    lists = vocabulary_of().coded(random_lists(60))
    losses = {}
    for weight in (0.0, 2.0):
        torch.manual_seed(0)
        model = Model(make("dien", SHAPE, {"auxiliary": weight}), SHAPE.dense, SHAPE.numbers)
        config = TrainerConfig(epochs=1, batch=500, hidden_ids=0.0, learning_rate=1e-9)
        losses[weight] = fit(model, lists, lists, config).curves.loss[0]
        before = torch.get_rng_state()
        trainer.score(model, lists)
        assert torch.equal(before, torch.get_rng_state())
    assert losses[2.0] > losses[0.0] + 2 * 0.9 * 2 * math.log(2)  # new states know nothing yet


def test_weights_of_the_loss_out_of_range_are_refused() -> None:
    with pytest.raises(UsageError, match=r"auxiliary in 0\.\.100, found -1"):
        DienParams(auxiliary=-1.0)


def test_it_follows_an_interest_that_moves_where_only_the_order_tells() -> None:
    train, valid, shape = drifts(1_000), drifts(400, seed=1), Shape(1, (21,), 1)
    best = {}
    for name in ("dien", "din"):
        torch.manual_seed(0)
        model = Model(make(name, shape), 1, 1)
        config = TrainerConfig(epochs=8, batch=32, learning_rate=5e-3, hidden_ids=0.0, patience=8)
        best[name] = max(fit(model, train, valid, config).curves.valid)
    assert best["dien"] > best["din"] + 0.1
