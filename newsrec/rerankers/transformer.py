"""Behaviour sequence transformer: the candidate is the last of the sequence (Chen et al., DLP-KDD 2019, 1905.06874).

Two things differ, so that a history is encoded once for all candidates of a request: clicks look at each other and not
at the candidate, which comes after them, while the candidate looks at all clicks and at itself; and the tower reads the
candidate's output with the mean of the clicks' outputs, where the paper lays twenty outputs side by side.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from newsrec.rerankers.base import Shape, Traits
from newsrec.rerankers.layers import Embed, EmbeddedParams, Tower, mean_of_clicks
from newsrec.rerankers.sequences import Block

PLACES: Final = 50
"""Places with a vector of their own, the newest click's first; all later ones share the last."""


@dataclass(frozen=True)
class TransformerParams(EmbeddedParams):
    """Parameters of the behaviour sequence transformer."""

    layers: int = 1
    """Transformer layers, >= 1; the paper found one to be best (table 3)."""
    heads: int = 2
    """Of each layer's attention, >= 1."""
    attention: int = 8
    """Units of each head, >= 1."""


class Transformer(nn.Module):
    """A `newsrec.rerankers.base.Network`."""

    def __init__(self, shape: Shape, params: TransformerParams = TransformerParams()) -> None:
        super().__init__()
        self.embed = Embed(shape.sizes, params.embedding)
        width = self.embed.width
        self.numbers = nn.Linear(shape.numbers, width, bias=False)
        self.places = nn.Parameter(torch.randn(PLACES, width) * 0.1)
        self.last = nn.Parameter(torch.randn(width) * 0.1)
        self.blocks = nn.ModuleList(
            Block(width, params.heads, params.attention, params.dropout) for _ in range(params.layers)
        )
        self.tower = Tower(4 * width + shape.dense, params.hidden, params.activation, params.dropout)

    def forward(self, dense: Tensor, target: Tensor, history: Tensor, numbers: Tensor, mask: Tensor) -> Tensor:
        """See `newsrec.rerankers.base.Network`."""
        candidate = self.embed(target)  # (requests, candidates, width)
        place = self.places[torch.arange(history.shape[1], device=history.device).clamp_max(PLACES - 1)]
        # Position: the time from click to request, pos(v_i) = t(v_t) - t(v_i) (section 2.1), and the place.
        clicks = self.embed(history) + self.numbers(numbers) + place  # (requests, history, width)
        seen, there = candidate + self.last, mask[:, None]
        for block in self.blocks:
            seen, clicks = block(seen, clicks, there, itself=True), block(clicks, clicks, there)
        read = mean_of_clicks(clicks, mask).expand_as(candidate)
        logits: Tensor = self.tower(torch.cat([seen, read, candidate, seen * candidate, dense], dim=-1))
        return logits


PARAMS = TransformerParams
TRAITS: Final = Traits(sequence=True, target=True)


def network(shape: Shape, params: TransformerParams = TransformerParams()) -> nn.Module:
    """The behaviour sequence transformer with new weights."""
    return Transformer(shape, params)
