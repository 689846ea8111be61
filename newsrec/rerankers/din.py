"""Deep Interest Network: each candidate looks at the history with its own eyes (Zhou et al., KDD 2018)."""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from newsrec.rerankers.base import Shape, Traits
from newsrec.rerankers.layers import ACTIVATIONS, FAR, Embed, EmbeddedParams, Tower


@dataclass(frozen=True)
class DinParams(EmbeddedParams):
    """Parameters of DIN."""

    attention: int = 36
    """Units of the activation unit, >= 1."""
    softmax: bool = True
    """Weights of a history sum to 1. The paper leaves that out, to keep how strong an interest is; with it, the network
    learns more from few clicks (`python -m tests.bench reranking`)."""


class ActivationUnit(nn.Module):
    """The weight of each click for each candidate: a small network over `[h, t, h - t, h * t]` and the click's numbers.

    Its first layer is split: `W [h, t, h-t, h*t] = (W1 + W3) h + (W2 - W3) t + W4 (h * t)`. The first term is computed
    per click, the second per candidate, only the third per pair.
    """

    def __init__(self, width: int, numbers: int, params: DinParams) -> None:
        super().__init__()
        self.first = nn.Linear(4 * width, params.attention)
        self.numbers = nn.Linear(numbers, params.attention, bias=False)
        self.activation = ACTIVATIONS[params.activation](params.attention)
        self.second = nn.Linear(params.attention, 1)
        self.softmax = params.softmax

    def forward(self, history: Tensor, target: Tensor, numbers: Tensor, mask: Tensor) -> Tensor:
        """Weights (requests, candidates, history) of embedded clicks and candidates, 0 where padding is."""
        of_h, of_t, of_difference, of_product = self.first.weight.chunk(4, dim=1)  # each (units, width)
        per_click = F.linear(history, of_h + of_difference) + self.numbers(numbers)  # (requests, history, units)
        per_candidate = F.linear(target, of_t - of_difference, self.first.bias)  # (requests, candidates, units)
        pair = F.linear(history[:, None] * target[:, :, None], of_product)  # (requests, candidates, history, units)
        there = mask[:, None, :]  # (requests, 1, history)
        units = self.activation(pair + per_click[:, None] + per_candidate[:, :, None], there.expand(pair.shape[:-1]))
        weight: Tensor = self.second(units).squeeze(-1)  # (requests, candidates, history)
        if self.softmax:
            weight = torch.softmax(weight + FAR * (1 - there), dim=-1)
        return weight * there


class Din(nn.Module):
    """A `newsrec.rerankers.base.Network`."""

    def __init__(self, shape: Shape, params: DinParams = DinParams()) -> None:
        super().__init__()
        self.embed = Embed(shape.sizes, params.embedding)
        self.unit = ActivationUnit(self.embed.width, shape.numbers, params)
        self.tower = Tower(3 * self.embed.width + shape.dense, params.hidden, params.activation, params.dropout)

    def forward(self, dense: Tensor, target: Tensor, history: Tensor, numbers: Tensor, mask: Tensor) -> Tensor:
        """See `newsrec.rerankers.base.Network`."""
        candidate = self.embed(target)  # (requests, candidates, width)
        click = self.embed(history)  # (requests, history, width)
        interest = self.unit(click, candidate, numbers, mask) @ click  # (requests, candidates, width)
        logits: Tensor = self.tower(torch.cat([interest, candidate, interest * candidate, dense], dim=-1))
        return logits


PARAMS = DinParams
TRAITS: Final = Traits(sequence=False, target=True)


def network(shape: Shape, params: DinParams = DinParams()) -> nn.Module:
    """DIN with new weights."""
    return Din(shape, params)
