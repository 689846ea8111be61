"""Logistic regression, Wide & Deep and DeepFM by hand."""

import pytest
import torch
from torch import Tensor, nn

from newsrec.rerankers.base import Shape
from newsrec.rerankers.deepfm import DeepFm, DeepFmParams
from newsrec.rerankers.layers import Wide
from newsrec.rerankers.wide_deep import Crosses, WideDeep, WideDeepParams

SHAPE = Shape(dense=2, sizes=(3,), numbers=1)
DENSE, TARGET = torch.tensor([[[1.0, -1.0], [0.0, 2.0]]]), torch.tensor([[[1], [2]]])
HISTORY, NUMBERS = torch.tensor([[[2], [1], [1]]]), torch.tensor([[[0.5], [-3.0], [9.0]]])
MASK = torch.tensor([[1.0, 1, 0]])
INPUTS = (DENSE, TARGET, HISTORY, NUMBERS, MASK)


def fill(network: nn.Module, **values: list[list[float]] | list[float]) -> None:
    """All weights 0, but the named ones (a dot being two underscores)."""
    weights = dict(network.named_parameters())
    with torch.no_grad():
        for weight in weights.values():
            weight.zero_()
        for name, value in values.items():
            weights[name.replace("__", ".")].copy_(torch.tensor(value))


def lines(network: nn.Module) -> list[float]:
    found: Tensor = network.eval()(*INPUTS)
    return [float(value) for value in found[0].detach()]


WIDE = {
    "dense__weight": [[2.0, 3.0]],
    "dense__bias": [0.5],
    "target__tables__0__weight": [[0.0], [10.0], [20.0]],
    "history__tables__0__weight": [[0.0], [100.0], [200.0]],
    "numbers__weight": [[4.0]],
}


def test_logistic_regression_by_hand() -> None:
    # Dense 2 - 3 and 6; bias 0.5; candidates 10 and 20; the mean of 200 + 2 and 100 - 12 is 145, the third is padding.
    network = Wide(SHAPE)
    fill(network, **WIDE)
    assert lines(network) == [-1 + 0.5 + 10 + 145, 6 + 0.5 + 20 + 145]


def test_crosses_are_of_each_click_with_the_candidate() -> None:
    crosses = Crosses((3,), 100)
    assert crosses.buckets == [9]
    with torch.no_grad():
        crosses.weights.tables[0].weight.copy_(torch.arange(9.0)[:, None])
    # Candidate 1 with clicks 2 and 1: 3 * 1 + 2 and 3 * 1 + 1; candidate 2: 8 and 7. The mean of both.
    assert crosses(TARGET, HISTORY, MASK)[0].tolist() == [4.5, 7.5]
    assert crosses(TARGET, HISTORY, 0 * MASK)[0].tolist() == [0, 0]


def test_many_crosses_share_weights() -> None:
    crosses = Crosses((1000, 4), 50)
    assert crosses.buckets == [50, 16]
    target, history = torch.tensor([[[999, 3]]]), torch.tensor([[[998, 3]]])
    assert crosses(target, history, torch.ones(1, 1)).shape == (1, 1)


def test_wide_and_deep_is_the_sum_of_its_parts() -> None:
    torch.manual_seed(0)
    network = WideDeep(SHAPE, WideDeepParams(hidden=()))
    parts = {"wide__" + name: value for name, value in WIDE.items()}
    width = network.embed.width
    tower = [[0.0] * 2 * width + [1.0, 7.0]]
    fill(network, **parts, tower__layers__0__weight=tower, crosses__weights__tables__0__weight=[[1.0]] * 9)
    assert lines(network) == [154.5 + 1 + 1 - 7, 171.5 + 1 + 14]


def test_factorisation_machine_is_the_sum_over_all_pairs() -> None:
    torch.manual_seed(0)
    network = DeepFm(Shape(2, (3, 4), 1), DeepFmParams(width=3))
    history, target = torch.tensor([[[2, 1], [1, 3], [1, 1]]]), torch.tensor([[[1, 2], [2, 3]]])
    candidate, clicks = network.embed(target), network.embed(history)
    mean = clicks[:, :2].mean(dim=1, keepdim=True).expand_as(candidate)
    found = network._pairs(torch.cat([candidate, mean], dim=-1), DENSE)
    for row in range(2):
        vectors = [
            *candidate[0, row].split(3),
            *mean[0, row].split(3),
            *(DENSE[0, row, :, None] * network.dense).unbind(),
        ]
        wanted = torch.stack([vectors[i] @ vectors[j] for i in range(6) for j in range(i)]).sum()
        assert found[0, row].item() == pytest.approx(wanted.item(), abs=1e-6)


def test_deepfm_adds_pairs_line_and_depth() -> None:
    network = DeepFm(SHAPE, DeepFmParams(width=1, hidden=()))
    parts = {"wide__" + name: value for name, value in WIDE.items()}
    fill(network, **parts, embed__tables__0__weight=[[0.0], [1.0], [2.0]], tower__layers__0__weight=[[1.0, 10.0, 0, 0]])
    # Candidates 1 and 2, mean of the clicks 1.5: pair 1.5 and 3; deep 1 + 15 and 2 + 15.
    assert lines(network) == [154.5 + 1.5 + 16, 171.5 + 3 + 17]
