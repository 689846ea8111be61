"""DIN without its attention: every candidate sees the mean of the history. What DIN gains over it is attention's."""

from typing import Final

import torch
from torch import Tensor, nn

from newsrec.rerankers.base import Shape, Traits
from newsrec.rerankers.din import DinParams
from newsrec.rerankers.layers import Embed, Tower, mean_of_clicks

DEFAULT = DinParams()


class Pooling(nn.Module):
    """A `newsrec.rerankers.base.Network`; the same tower as DIN's, with DIN's parameters."""

    def __init__(self, shape: Shape, params: DinParams = DEFAULT) -> None:
        super().__init__()
        self.embed = Embed(shape.sizes, params.embedding)
        self.tower = Tower(3 * self.embed.width + shape.dense, params.hidden, params.activation, params.dropout)

    def forward(self, dense: Tensor, target: Tensor, history: Tensor, numbers: Tensor, mask: Tensor) -> Tensor:
        """See `newsrec.rerankers.base.Network`."""
        candidate = self.embed(target)  # (requests, candidates, width)
        interest = mean_of_clicks(self.embed(history), mask).expand_as(candidate)  # (requests, candidates, width)
        logits: Tensor = self.tower(torch.cat([interest, candidate, interest * candidate, dense], dim=-1))
        return logits


PARAMS = DinParams
TRAITS: Final = Traits(sequence=False, target=False)


def network(shape: Shape, params: DinParams = DEFAULT) -> nn.Module:
    """The control with new weights."""
    return Pooling(shape, params)
