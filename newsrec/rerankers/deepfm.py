"""DeepFM: every pair of inputs meets in a factorisation machine (Guo et al., IJCAI 2017, arXiv:1703.04247)."""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from newsrec.rerankers.base import Shape, Traits
from newsrec.rerankers.layers import Embed, Tower, TowerParams, Wide, mean_of_clicks


@dataclass(frozen=True)
class DeepFmParams(TowerParams):
    """Parameters of DeepFM."""

    width: int = 8
    """Length of every field's vector, >= 1; a factorisation machine needs one for all."""


class DeepFm(nn.Module):
    """A `newsrec.rerankers.base.Network`.

    Fields are the candidate's ids, the mean of the history's ids, and each dense column times a vector of its own; the
    deep part shares the ids' vectors and takes dense columns as they are.
    """

    def __init__(self, shape: Shape, params: DeepFmParams = DeepFmParams()) -> None:
        super().__init__()
        self.wide = Wide(shape)
        self.embed = Embed(shape.sizes, width=params.width)
        self.dense = nn.Parameter(torch.randn(shape.dense, params.width) * 0.01)
        self.fields = len(shape.sizes)
        self.tower = Tower(2 * self.embed.width + shape.dense, params.hidden, params.activation, params.dropout)

    def forward(self, dense: Tensor, target: Tensor, history: Tensor, numbers: Tensor, mask: Tensor) -> Tensor:
        """See `newsrec.rerankers.base.Network`."""
        candidate = self.embed(target)  # (requests, candidates, fields * width)
        interest = mean_of_clicks(self.embed(history), mask).expand_as(candidate)
        ids = torch.cat([candidate, interest], dim=-1)
        deep: Tensor = self.tower(torch.cat([ids, dense], dim=-1))  # (requests, candidates)
        wide: Tensor = self.wide(dense, target, history, numbers, mask)
        return wide + self._pairs(ids, dense) + deep

    def _pairs(self, ids: Tensor, dense: Tensor) -> Tensor:
        """Sum of the products of all pairs of fields, `((sum v)^2 - sum v^2) / 2` (Rendle, 2010)."""
        vectors = torch.stack(ids.chunk(2 * self.fields, dim=-1), dim=-2)  # (requests, candidates, fields, width)
        total = vectors.sum(dim=-2) + dense @ self.dense  # (requests, candidates, width)
        squares = vectors.square().sum(dim=-2) + dense.square() @ self.dense.square()
        pairs: Tensor = (total.square() - squares).sum(dim=-1) / 2
        return pairs


PARAMS = DeepFmParams
TRAITS: Final = Traits(sequence=False, target=False)


def network(shape: Shape, params: DeepFmParams = DeepFmParams()) -> nn.Module:
    """DeepFM with new weights."""
    return DeepFm(shape, params)
