"""Balances by hand."""

import math

import pytest
import torch

from newsrec.errors import UsageError
from newsrec.neural.balance import fixed, gradient, known_bce, uncertainty
from newsrec.neural.trainer import TrainerConfig


def losses_of(shared: torch.Tensor) -> torch.Tensor:
    """The second pulls nine times as hard as the first, the third nowhere."""
    return torch.stack([shared.sum(), 9 * shared.sum(), 0 * shared.sum()])


def test_fixed_is_the_sum() -> None:
    shared = torch.ones(2, 2, requires_grad=True)
    assert fixed(losses_of(shared), shared, torch.zeros(3)).item() == 40


def test_uncertainty_by_hand_and_learned() -> None:
    spread = torch.tensor([0.0, 1.0], requires_grad=True)
    found = uncertainty(torch.tensor([2.0, 5.0]), torch.ones(1), spread)
    assert found.item() == pytest.approx(2 + 5 * math.exp(-1) + 0.5)
    found.backward()
    assert spread.grad is not None
    assert spread.grad[0] < 0 < 0.5 - 5 * math.exp(-1) + 2  # a loss above a half asks for more spread
    assert spread.grad[1].item() == pytest.approx(0.5 - 5 * math.exp(-1))


def test_gradient_lets_all_pull_alike_and_leaves_out_what_does_not_pull() -> None:
    shared = torch.ones(2, 2, requires_grad=True)
    # Weights 0.9 and 0.1 times two: 2 * (0.9 * 4 + 0.1 * 36).
    assert gradient(losses_of(shared), shared, torch.zeros(3)).item() == pytest.approx(14.4)


def test_unknown_labels_teach_nothing() -> None:
    logits = torch.zeros(2, 2, requires_grad=True)
    labels = torch.tensor([[1.0, torch.nan], [torch.nan, torch.nan]])
    loss = known_bce(logits, labels, torch.tensor([3.0, 1.0]))
    assert loss.item() == pytest.approx(3 * math.log(2))
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.flatten().tolist() == pytest.approx([-1.5, 0, 0, 0])
    assert known_bce(logits, labels * torch.nan, torch.ones(2)).item() == 0


def test_unknown_balances_are_refused() -> None:
    with pytest.raises(UsageError, match=r"expected a balance of .*uncertainty.*found 'luck'"):
        TrainerConfig(balance="luck")
