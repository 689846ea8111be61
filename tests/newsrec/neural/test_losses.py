"""Losses by hand."""

import math

import pytest
import torch

from newsrec.errors import UsageError
from newsrec.neural.losses import LOSSES, bce, bpr, softmax
from newsrec.neural.trainer import TrainerConfig

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 1.0]])
LABELS = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_bce_by_hand() -> None:
    likelihoods = [sigmoid(2), sigmoid(0), sigmoid(1), sigmoid(0), sigmoid(-1), sigmoid(1)]
    assert bce(LOGITS, LABELS).item() == pytest.approx(-sum(map(math.log, likelihoods)) / 6, rel=1e-5)


def test_bpr_by_hand() -> None:
    differences = [2 - 0, 2 + 1, 1 - 0, 1 - 1]
    assert bpr(LOGITS, LABELS).item() == pytest.approx(-sum(math.log(sigmoid(d)) for d in differences) / 4, rel=1e-5)


def test_softmax_by_hand() -> None:
    first = math.exp(2) / (math.exp(2) + 1 + math.exp(-1))
    second = math.e / (1 + 2 * math.e)
    assert softmax(LOGITS, LABELS).item() == pytest.approx(-(math.log(first) + math.log(second)) / 2, rel=1e-5)


def test_softmax_shares_a_list_among_its_clicks() -> None:
    one = softmax(LOGITS[:1], torch.tensor([[1.0, 0.0, 0.0]])) + softmax(LOGITS[:1], torch.tensor([[0.0, 1.0, 0.0]]))
    assert softmax(LOGITS[:1], torch.tensor([[1.0, 1.0, 0.0]])).item() == pytest.approx(one.item() / 2)


@pytest.mark.parametrize("name", LOSSES)
def test_a_list_without_clicks_is_finite_and_the_right_order_is_cheaper(name: str) -> None:
    loss = LOSSES[name]
    assert math.isfinite(loss(LOGITS, 0 * LABELS).item())
    assert loss(LOGITS, LABELS) < loss(-LOGITS, LABELS)


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "bce"])
def test_losses_of_orders_ignore_what_a_list_has_in_common(name: str) -> None:
    torch.testing.assert_close(LOSSES[name](LOGITS + 7, LABELS), LOSSES[name](LOGITS, LABELS))


def test_unknown_losses_are_refused() -> None:
    with pytest.raises(UsageError, match=r"expected a loss of .*softmax.*found 'hinge'"):
        TrainerConfig(loss="hinge")
