"""Losses by hand."""

import math

import pytest
import torch

from newsrec.errors import UsageError
from newsrec.neural import losses
from newsrec.neural.losses import LOSSES, bce, bpr, focal, lambdaloss, softmax
from newsrec.neural.trainer import TrainerConfig

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 1.0]])
LABELS = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
ALIKE = torch.ones(2)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_bce_by_hand() -> None:
    likelihoods = [sigmoid(2), sigmoid(0), sigmoid(1), sigmoid(0), sigmoid(-1), sigmoid(1)]
    assert bce(LOGITS, LABELS, ALIKE).item() == pytest.approx(-sum(map(math.log, likelihoods)) / 6, rel=1e-5)


def test_bpr_by_hand() -> None:
    differences = [2 - 0, 2 + 1, 1 - 0, 1 - 1]
    assert bpr(LOGITS, LABELS, ALIKE).item() == pytest.approx(
        -sum(math.log(sigmoid(d)) for d in differences) / 4, rel=1e-5
    )


def test_softmax_by_hand() -> None:
    first = math.exp(2) / (math.exp(2) + 1 + math.exp(-1))
    second = math.e / (1 + 2 * math.e)
    assert softmax(LOGITS, LABELS, ALIKE).item() == pytest.approx(-(math.log(first) + math.log(second)) / 2, rel=1e-5)


def test_softmax_shares_a_list_among_its_clicks() -> None:
    first, second, both = (
        softmax(LOGITS[:1], torch.tensor([labels]), ALIKE[:1]).item()
        for labels in ([1.0, 0, 0], [0.0, 1, 0], [1.0, 1, 0])
    )
    assert both == pytest.approx((first + second) / 2)


def test_focal_by_hand() -> None:
    right = [sigmoid(2), sigmoid(0), sigmoid(1), sigmoid(0), sigmoid(-1), sigmoid(1)]
    wanted = -sum((1 - p) ** 2 * math.log(p) for p in right) / 6
    assert focal(LOGITS, LABELS, ALIKE).item() == pytest.approx(wanted, rel=1e-5)


def test_focal_without_focus_is_bce(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "FOCUS", 0.0)
    torch.testing.assert_close(focal(LOGITS, LABELS, ALIKE), bce(LOGITS, LABELS, ALIKE))


def test_lambdaloss_by_hand() -> None:
    gain = [1 / math.log2(1 + place) for place in (1, 2, 3)]
    near = {1: gain[0] - gain[1], 2: gain[1] - gain[2]}

    def pair(clicked: int, other: int, difference: float) -> float:
        change = abs(gain[clicked - 1] - gain[other - 1]) + 10 * near[abs(clicked - other)]
        return change * math.log2(1 + math.exp(-difference))

    # The first list stands as its logits: the click first. In the second the click is second, behind its equal.
    wanted = pair(1, 2, 2) + pair(1, 3, 3) + pair(2, 3, 1) + pair(2, 1, 0)
    assert lambdaloss(LOGITS, LABELS, ALIKE).item() == pytest.approx(wanted / 2, rel=1e-5)


def test_lambdaloss_is_divided_by_the_best_that_a_list_can_have() -> None:
    both = torch.tensor([[1.0, 1.0, 0.0]])
    found = lambdaloss(LOGITS[:1], both, ALIKE[:1]).item()
    gain = [1 / math.log2(1 + place) for place in (1, 2, 3)]
    first = (gain[0] - gain[2] + 10 * (gain[1] - gain[2])) * math.log2(1 + math.exp(-3))
    second = (gain[1] - gain[2] + 10 * (gain[0] - gain[1])) * math.log2(1 + math.exp(-1))
    assert found == pytest.approx((first + second) / (gain[0] + gain[1]), rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_a_list_counts_as_it_weighs(name: str) -> None:
    loss = LOSSES[name]
    twice = torch.cat([LOGITS, LOGITS[:1]]), torch.cat([LABELS, LABELS[:1]])
    doubled = loss(LOGITS, LABELS, torch.tensor([2.0, 1.0])) * 2
    torch.testing.assert_close(loss(*twice, torch.ones(3)) * 3, doubled)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_finite_also_far_away(name: str) -> None:
    logits = torch.tensor([[80.0, -80.0, 0.0], [0.0, 0.0, -200.0]], requires_grad=True)
    loss = LOSSES[name](logits, LABELS, ALIKE)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
    assert logits.grad.abs().sum() > 0


@pytest.mark.parametrize("name", LOSSES)
def test_a_list_without_clicks_is_finite_and_the_right_order_is_cheaper(name: str) -> None:
    loss = LOSSES[name]
    assert math.isfinite(loss(LOGITS, 0 * LABELS, ALIKE).item())
    assert loss(LOGITS, LABELS, ALIKE) < loss(-LOGITS, LABELS, ALIKE)


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in ("bce", "focal")])
def test_losses_of_orders_ignore_what_a_list_has_in_common(name: str) -> None:
    torch.testing.assert_close(LOSSES[name](LOGITS + 7, LABELS, ALIKE), LOSSES[name](LOGITS, LABELS, ALIKE))


def test_unknown_losses_are_refused() -> None:
    with pytest.raises(UsageError, match=r"expected a loss of .*softmax.*found 'hinge'"):
        TrainerConfig(loss="hinge")
