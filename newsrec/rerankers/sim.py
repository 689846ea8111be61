"""Search-based Interest Model: look a candidate up in a long history (Pi et al., CIKM 2020, arXiv:2006.05639).

The general search unit finds the clicks that may concern a candidate, the exact one weighs them; what was clicked last
is read as in DIN.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

import torch
from torch import Tensor, nn

from newsrec.errors import UsageError
from newsrec.rerankers.base import Shape, Traits
from newsrec.rerankers.din import ActivationUnit, DinParams
from newsrec.rerankers.layers import Embed, EmbeddedParams, Tower
from newsrec.rerankers.sequences import softmax_over, split, with_room

RECENT: Final = 50
"""Newest clicks that are read as in DIN."""
FOUND: Final = 50
"""Clicks that the soft search finds."""
SEARCHES: Final = ("auto", "hard", "soft")


@dataclass(frozen=True)
class SimParams(EmbeddedParams):
    """Parameters of SIM."""

    search: str = "auto"
    """`hard`: clicks of the candidate's category; `soft`: the `FOUND` clicks whose vectors are nearest to its own;
    `auto`: hard where articles have a category."""
    heads: int = 2
    """Of the exact search unit, >= 1."""
    attention: int = 36
    """Units of the activation unit for what was clicked last, >= 1."""
    NAMES: ClassVar[Mapping[str, Iterable[str]]] = {"search": SEARCHES}


def same_category(target: Tensor, history: Tensor, mask: Tensor) -> Tensor:
    """Hard search: `r_i = Sign(C_i = C_a)` (equation 1), (requests, candidates, history); the unknown finds none."""
    wanted = target[..., -1][:, :, None]  # the category is the last field
    return ((history[..., -1][:, None] == wanted) & (wanted > 0)).to(mask.dtype) * mask[:, None]


def nearest(candidate: Tensor, clicks: Tensor, mask: Tensor) -> Tensor:
    """Soft search: the clicks with the largest inner products; (requests, candidates, history), 1 or 0."""
    clicks, there = with_room(clicks, mask, FOUND)
    scores = (candidate @ clicks.transpose(1, 2)).masked_fill(there[:, None] == 0, -torch.inf)
    least = scores.topk(FOUND, dim=-1).values[..., -1:]  # the worst of those that are found
    return (scores >= least)[..., : mask.shape[1]].to(mask.dtype) * mask[:, None]


class Sim(nn.Module):
    """A `newsrec.rerankers.base.Network` for long histories."""

    def __init__(self, shape: Shape, params: SimParams = SimParams()) -> None:
        super().__init__()
        categories = len(shape.sizes) > 1
        if params.search == "hard" and not categories:
            raise UsageError(
                "reranker sim: expected articles with a category for the hard search, found none. Leave the network's "
                "parameter search at 'auto', or set it to 'soft'."
            )
        self.hard, self.heads = params.search != "soft" and categories, params.heads
        self.embed = Embed(shape.sizes, params.embedding)
        width, both = self.embed.width, self.embed.width + shape.numbers
        likeness = DinParams(attention=params.attention, activation=params.activation)
        self.unit = ActivationUnit(width, shape.numbers, likeness)
        self.of_click = nn.Linear(both, params.heads * width, bias=False)
        self.of_candidate = nn.Linear(width, params.heads * width, bias=False)
        self.scale = width**-0.5
        inputs = 3 * width + params.heads * both + shape.dense
        self.tower = Tower(inputs, params.hidden, params.activation, params.dropout)

    def forward(self, dense: Tensor, target: Tensor, history: Tensor, numbers: Tensor, mask: Tensor) -> Tensor:
        """See `newsrec.rerankers.base.Network`."""
        candidate, clicks = self.embed(target), self.embed(history)  # (requests, candidates or history, width)
        found = same_category(target, history, mask) if self.hard else nearest(candidate, clicks, mask)
        lasting = self._exact(candidate, torch.cat([clicks, numbers], dim=-1), found)
        recent, seen = clicks[:, :RECENT], mask[:, :RECENT]
        current = self.unit(recent, candidate, numbers[:, :RECENT], seen) @ recent  # (requests, candidates, width)
        parts = [current, lasting, candidate, current * candidate, dense]
        logits: Tensor = self.tower(torch.cat(parts, dim=-1))
        return logits

    def _exact(self, candidate: Tensor, clicks: Tensor, found: Tensor) -> Tensor:
        """Exact search unit: `head_i = Softmax(W_b z_b . W_a e_a) z_b` (equations 4 and 5), heads side by side.

        `z_b` is a click's vector and its numbers, age first (equation 3).
        """
        key, query = (split(each, self.heads) for each in (self.of_click(clicks), self.of_candidate(candidate)))
        scores = query @ key.transpose(-2, -1) * self.scale  # (requests, heads, candidates, history)
        weight = softmax_over(scores, found[:, None])
        heads: Tensor = weight @ clicks[:, None]  # (requests, heads, candidates, width + numbers)
        return heads.transpose(1, 2).flatten(2)


PARAMS = SimParams
TRAITS: Final = Traits(sequence=False, target=True, history=1_000)


def network(shape: Shape, params: SimParams = SimParams()) -> nn.Module:
    """SIM with new weights."""
    return Sim(shape, params)
