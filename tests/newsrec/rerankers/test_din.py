"""DIN by hand: its activation unit, its pooling, its activations, and what attention is good for."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from newsrec.neural.model import Model
from newsrec.neural.trainer import TrainerConfig, fit
from newsrec.rerankers import make
from newsrec.rerankers.base import Shape
from newsrec.rerankers.din import ActivationUnit, Din, DinParams
from newsrec.rerankers.layers import Dice, Prelu
from tests.networks import interests


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_split_first_layer_is_the_layer_over_all_four_parts() -> None:
    unit = ActivationUnit(3, 2, DinParams(attention=5, softmax=False))
    history, target, numbers, mask = drawn(2, 4, 3), drawn(2, 6, 3), drawn(2, 4, 2), torch.ones(2, 4)
    h, t = history[:, None].expand(2, 6, 4, 3), target[:, :, None].expand(2, 6, 4, 3)
    whole = unit.first(torch.cat([h, t, h - t, h * t], -1)) + unit.numbers(numbers)[:, None]
    wanted = unit.second(unit.activation(whole)).squeeze(-1)
    torch.testing.assert_close(unit(history, target, numbers, mask), wanted, rtol=1e-4, atol=1e-5)


def tiny(softmax: bool = False) -> Din:
    """One field of three codes, two dense columns, one number; one unit, no hidden layer, weights of whole numbers."""
    din = Din(Shape(2, (3,), 1), DinParams(attention=1, hidden=(), softmax=softmax))
    with torch.no_grad():
        din.embed.tables[0].weight.copy_(torch.tensor([[0.0] * 4, [1.0, 0, 0, 0], [0, 2.0, 0, 0]]))
        din.unit.first.weight.fill_(1.0)
        din.unit.first.bias.fill_(0.5)
        din.unit.numbers.weight.fill_(2.0)
        din.unit.second.weight.fill_(3.0)
        din.unit.second.bias.fill_(-1.0)
        din.tower.layers[0].weight.copy_(torch.arange(1.0, 15.0)[None])
        din.tower.layers[0].bias.fill_(0.25)
    return din.eval()


DENSE, TARGET = torch.tensor([[[1.0, -1.0]]]), torch.tensor([[[1]]])
HISTORY, NUMBERS, MASK = (
    torch.tensor([[[2], [1], [1]]]),
    torch.tensor([[[0.5], [-3.0], [9.0]]]),
    torch.tensor([[1.0, 1, 0]]),
)


def test_forward_by_hand() -> None:
    # h = (0,2,0,0): [h, t, h-t, h*t] sums to 2 + 1 + 1 + 0 = 4; plus 0.5, plus 2 * 0.5 = 5.5; times 3 minus 1: 15.5.
    # h = t = (1,0,0,0): 1 + 1 + 0 + 1 = 3; 3 + 0.5 - 6 = -2.5, PReLU 0.25: -0.625; times 3 minus 1: -2.875.
    # Sum: 15.5 (0,2,0,0) - 2.875 (1,0,0,0) = (-2.875, 31, 0, 0); the third click is padding.
    # Tower: weights 1..4 on the interest, 5..8 on the candidate, 9..12 on their product, 13 and 14 on dense.
    wanted = (-2.875 + 2 * 31) + 5 + 9 * -2.875 + 13 - 14 + 0.25
    assert tiny()(DENSE, TARGET, HISTORY, NUMBERS, MASK).item() == pytest.approx(wanted)


def test_forward_by_hand_with_softmax() -> None:
    first, second = F.softmax(torch.tensor([15.5, -2.875]), 0).tolist()
    wanted = (second + 2 * 2 * first) + 5 + 9 * second + 13 - 14 + 0.25
    assert tiny(softmax=True)(DENSE, TARGET, HISTORY, NUMBERS, MASK).item() == pytest.approx(wanted)


def test_softmax_of_an_empty_history_gives_no_weight_to_padding() -> None:
    unit = tiny(softmax=True).unit
    weight = unit(drawn(1, 3, 4), drawn(1, 2, 4), drawn(1, 3, 1), torch.zeros(1, 3))
    assert weight.abs().sum() == 0


def test_dice_by_hand_in_training_and_in_evaluation() -> None:
    dice = Dice(1, momentum=0.5)
    with torch.no_grad():
        dice.slope.fill_(0.2)
    x = torch.tensor([[1.0], [3.0], [50.0]])
    weight = torch.tensor([1.0, 1.0, 0.0])  # the last is padding: mean 2, variance 1
    p = torch.sigmoid((x - 2.0) / np.sqrt(1.0 + 1e-6))
    torch.testing.assert_close(dice(x, weight), x * (p + (1 - p) * 0.2))
    assert (dice.mean.item(), dice.variance.item()) == (1.0, 1.0)  # half way from 0 to 2, and from 1 to 1
    p = torch.sigmoid((x - 1.0) / np.sqrt(1.0 + 1e-6))
    torch.testing.assert_close(dice.eval()(x), x * (p + (1 - p) * 0.2))


@pytest.mark.parametrize("padded", [False, True])
def test_gradient_of_dice_is_that_of_its_formula(padded: bool) -> None:
    """Through the mean and the variance too; padding has a gradient, and no say in the statistics."""
    dice = Dice(3).double()
    with torch.no_grad():
        dice.slope.copy_(torch.tensor([0.2, -0.4, 1.3]))
    x = drawn(4, 5, 3).double().requires_grad_()
    weight = (drawn(4, 5) > 0).double() if padded else torch.ones(4, 5, dtype=torch.float64)
    pull = drawn(3, 5, 4).double().permute(2, 1, 0)

    def formula(x: Tensor, slope: Tensor) -> Tensor:
        share = (weight / weight.sum())[..., None]
        mean = (share * x).sum(dim=(0, 1))
        variance = (share * (x - mean) ** 2).sum(dim=(0, 1))
        p = torch.sigmoid((x - mean) / torch.sqrt(variance + 1e-6))
        return x * (p + (1 - p) * slope)

    wanted = torch.autograd.grad((formula(x, dice.slope) * pull).sum(), (x, dice.slope))
    found = torch.autograd.grad((dice(x, weight) * pull).sum(), (x, dice.slope))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)
    nothing = dice(x, torch.zeros(4, 5, dtype=torch.float64)).sum()
    assert torch.isfinite(torch.autograd.grad(nothing, x)[0]).all()


def test_prelu_bends_each_column_by_its_own_slope() -> None:
    prelu = Prelu(2)
    with torch.no_grad():
        prelu.weight.copy_(torch.tensor([0.5, 0.1]))
    torch.testing.assert_close(
        prelu(torch.tensor([[-2.0, -2.0], [3.0, 3.0]])), torch.tensor([[-1.0, -0.2], [3.0, 3.0]])
    )


def test_attention_finds_an_interest_that_a_mean_hides() -> None:
    train, valid, shape = interests(3_000), interests(800, seed=1), Shape(1, (41,), 1)
    best = {}
    for name in ("din", "pooling"):
        torch.manual_seed(0)
        model = Model(make(name, shape), 1, 1)
        config = TrainerConfig(epochs=6, batch=32, learning_rate=3e-3, hidden_ids=0.0, patience=6)
        best[name] = max(fit(model, train, valid, config).curves.valid)
    assert best["din"] > best["pooling"] + 0.02
