"""The ranking tower by hand."""

import pytest
import torch

from newsrec.rerankers.base import Shape
from newsrec.rerankers.youtube_dnn import YoutubeDnn, YoutubeDnnParams, with_powers


def test_powers_are_of_the_quantile() -> None:
    assert with_powers(torch.tensor([0.0])).tolist() == pytest.approx([0, 0.5, 0.25, 0.5**0.5])
    normal = torch.distributions.Normal(0.0, 1.0).cdf(torch.linspace(-4, 4, 81))
    torch.testing.assert_close(with_powers(torch.linspace(-4, 4, 81)[:, None])[:, 1], normal, atol=0.01, rtol=0)
    assert with_powers(torch.tensor([8.0, -8.0])).shape == (8,)


def test_the_tower_reads_the_mean_of_the_clicks_beside_the_candidate() -> None:
    net = YoutubeDnn(Shape(1, (3,), 1), YoutubeDnnParams(hidden=())).eval()
    with torch.no_grad():
        net.embed.tables[0].weight.copy_(torch.tensor([[0.0] * 4, [1.0, 0, 0, 0], [0, 2.0, 0, 0]]))
        net.tower.layers[0].weight.copy_(torch.arange(1.0, 17.0)[None])
        net.tower.layers[0].bias.zero_()
    history, mask = torch.tensor([[[2], [1], [1]]]), torch.tensor([[1.0, 1, 0]])
    found = net(torch.zeros(1, 1, 1), torch.tensor([[[1]]]), history, torch.zeros(1, 3, 1), mask)
    # Mean of the clicks (0.5, 1, 0, 0) by 1..4; their number by 5..8; the candidate by 9..12; the dense one by 13..16.
    powers = (0.5, 0.25, 0.5**0.5)
    wanted = 0.5 + 2 + sum(a * b for a, b in zip((6, 7, 8), powers, strict=True)) + 9
    assert found.item() == pytest.approx(wanted + sum(a * b for a, b in zip((14, 15, 16), powers, strict=True)))
