"""The ranking tower of YouTube: pooled ids, and numbers with their powers (Covington et al., RecSys 2016, section 4).

What the paper's watch time is to its loss, the trainer's loss is here.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from newsrec.rerankers.base import Shape, Traits
from newsrec.rerankers.layers import Embed, EmbeddedParams, Tower, mean_of_clicks

LOGISTIC: Final = 1.702
"""`sigmoid(1.702 x)` is the normal distribution function of x to within 0.01."""


@dataclass(frozen=True)
class YoutubeDnnParams(EmbeddedParams):
    """Parameters of the ranking tower."""


def with_powers(values: Tensor) -> Tensor:
    """Each standardised number, its quantile `x~` in 0..1, `x~^2` and `sqrt(x~)` (section 4.1); 4 times as wide."""
    quantile = torch.sigmoid(LOGISTIC * values)
    return torch.cat([values, quantile, quantile.square(), quantile.sqrt()], dim=-1)


class YoutubeDnn(nn.Module):
    """A `newsrec.rerankers.base.Network`: the candidate beside the mean of the clicks, their ids and their numbers."""

    def __init__(self, shape: Shape, params: YoutubeDnnParams = YoutubeDnnParams()) -> None:
        super().__init__()
        self.embed = Embed(shape.sizes, params.embedding)
        width = 2 * self.embed.width + 4 * (shape.dense + shape.numbers)
        self.tower = Tower(width, params.hidden, params.activation, params.dropout)

    def forward(self, dense: Tensor, target: Tensor, history: Tensor, numbers: Tensor, mask: Tensor) -> Tensor:
        """See `newsrec.rerankers.base.Network`."""
        candidate = self.embed(target)  # (requests, candidates, width)
        clicks = torch.cat([self.embed(history), with_powers(numbers)], dim=-1)
        watched = mean_of_clicks(clicks, mask).expand(-1, candidate.shape[1], -1)  # (requests, candidates, ...)
        logits: Tensor = self.tower(torch.cat([watched, candidate, with_powers(dense)], dim=-1))
        return logits


PARAMS = YoutubeDnnParams
TRAITS: Final = Traits(sequence=False, target=False)


def network(shape: Shape, params: YoutubeDnnParams = YoutubeDnnParams()) -> nn.Module:
    """The ranking tower with new weights."""
    return YoutubeDnn(shape, params)
