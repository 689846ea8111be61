"""Wide & Deep: what is remembered of pairs beside what is generalised (Cheng et al., DLRS 2016, arXiv:1606.07792)."""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from newsrec.rerankers.base import Shape, Traits
from newsrec.rerankers.layers import Embed, EmbeddedParams, Tower, Wide, mean_of_clicks


@dataclass(frozen=True)
class WideDeepParams(EmbeddedParams):
    """Parameters of Wide & Deep."""

    crosses: int = 2**16
    """Weights per field for (clicked, candidate) pairs, >= 1; where there are more pairs, some share a weight."""


class Crosses(nn.Module):
    """One weight for each pair of a clicked and a candidate's code of the same field, averaged over the history.

    The paper's cross-product transformation `AND(installed app, shown app)`; large tables are hashed.
    """

    def __init__(self, sizes: tuple[int, ...], most: int) -> None:
        super().__init__()
        self.sizes, self.buckets = sizes, [min(size * size, most) for size in sizes]
        self.weights = Embed(self.buckets, width=1, spread=0.0)

    def forward(self, target: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        """(requests, candidates, fields) and (requests, history, fields) to (requests, candidates)."""
        fields = [
            (target[:, :, None, i] * size + history[:, None, :, i]) % buckets
            for i, (size, buckets) in enumerate(zip(self.sizes, self.buckets, strict=True))
        ]
        weight = self.weights(torch.stack(fields, dim=-1)).sum(dim=-1)  # (requests, candidates, history)
        total: Tensor = (weight * mask[:, None]).sum(dim=-1)
        return total / mask.sum(dim=1, keepdim=True).clamp_min(1.0)


class WideDeep(nn.Module):
    """A `newsrec.rerankers.base.Network`."""

    def __init__(self, shape: Shape, params: WideDeepParams = WideDeepParams()) -> None:
        super().__init__()
        self.wide, self.crosses = Wide(shape), Crosses(shape.sizes, params.crosses)
        self.embed = Embed(shape.sizes, params.embedding)
        self.tower = Tower(2 * self.embed.width + shape.dense, params.hidden, params.activation, params.dropout)

    def forward(self, dense: Tensor, target: Tensor, history: Tensor, numbers: Tensor, mask: Tensor) -> Tensor:
        """See `newsrec.rerankers.base.Network`."""
        candidate = self.embed(target)  # (requests, candidates, width)
        interest = mean_of_clicks(self.embed(history), mask).expand_as(candidate)
        deep: Tensor = self.tower(torch.cat([interest, candidate, dense], dim=-1))  # (requests, candidates)
        wide: Tensor = self.wide(dense, target, history, numbers, mask)
        pairs: Tensor = self.crosses(target, history, mask)
        return wide + pairs + deep


PARAMS = WideDeepParams
TRAITS: Final = Traits(sequence=False, target=True)


def network(shape: Shape, params: WideDeepParams = WideDeepParams()) -> nn.Module:
    """Wide & Deep with new weights."""
    return WideDeep(shape, params)
