"""Deep Session Interest Network: interests inside sessions and across them (Feng et al., IJCAI 2019, 1905.06482)."""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from newsrec.rerankers.base import Shape, Traits
from newsrec.rerankers.layers import Embed, EmbeddedParams, Tower
from newsrec.rerankers.sequences import Block, softmax_over, turned

PAUSE_HOURS: Final = 0.5
"""A pause of more than 30 minutes between two clicks divides sessions (section 3.2)."""
FUTURE: Final = 1e9
"""Hours of what stands before the newest click, so that no pause begins there."""
PLACES: Final = 20
"""Places inside a session with a bias of their own, the newest click's first; all later ones share the last."""


@dataclass(frozen=True)
class DsinParams(EmbeddedParams):
    """Parameters of DSIN."""

    sessions: int = 6
    """Newest sessions that are read, >= 1."""
    heads: int = 2
    """Of the attention inside a session, >= 1."""
    attention: int = 8
    """Units of each head, >= 1."""


def sessions_of(hours: Tensor, mask: Tensor, sessions: int) -> Tensor:
    """Which clicks make which session, the newest session first: 1 or 0, (requests, sessions, history).

    Args:
        hours: From each click to the request, newest first, (requests, history); NaN makes no pause.
        mask: (requests, history).
        sessions: Earlier ones are left out.
    """
    pause = hours - F.pad(hours, (1, 0), value=FUTURE)[:, :-1]  # to the click before it, which is the newer one
    number = (pause > PAUSE_HOURS).long().cumsum(dim=1)  # (requests, history), 0 for the newest session
    each = torch.arange(sessions, device=hours.device)[:, None]
    return (number[:, None] == each).to(mask.dtype) * mask[:, None]


class Dsin(nn.Module):
    """A `newsrec.rerankers.base.Network` that is told the hours as they are."""

    reads_hours: Final = True

    def __init__(self, shape: Shape, params: DsinParams = DsinParams()) -> None:
        super().__init__()
        self.embed = Embed(shape.sizes, params.embedding)
        width, self.sessions = self.embed.width, params.sessions
        self.numbers = nn.Linear(shape.numbers, width, bias=False)
        # Bias encoding w_k + w_t + w_c of session, place and column (equation 2).
        self.of_session = nn.Parameter(torch.randn(params.sessions, 1) * 0.1)
        self.of_place = nn.Parameter(torch.randn(PLACES, 1) * 0.1)
        self.of_column = nn.Parameter(torch.randn(width) * 0.1)
        self.extractor = Block(width, params.heads, params.attention, params.dropout)
        self.forwards, self.backwards = (nn.LSTM(width, width, batch_first=True) for _ in range(2))
        self.of_interest = nn.Linear(width, width, bias=False)
        self.of_context = nn.Linear(width, 2 * width, bias=False)
        self.tower = Tower(5 * width + shape.dense, params.hidden, params.activation, params.dropout)

    def forward(
        self, dense: Tensor, target: Tensor, history: Tensor, numbers: Tensor, mask: Tensor, hours: Tensor
    ) -> Tensor:
        """See `newsrec.rerankers.base.Network`; `hours` (requests, history), not scaled."""
        candidate = self.embed(target)  # (requests, candidates, width)
        of = sessions_of(hours, mask, self.sessions)  # (requests, sessions, history)
        interests = self._interests(self.embed(history) + self.numbers(numbers), of)  # (requests, sessions, width)
        there = (of.sum(dim=2) > 0).to(of.dtype)  # (requests, sessions), those that are there come first
        # Interacting layer (section 3.4): both directions begin where a session is, so that missing ones say nothing.
        later = turned(self.forwards(turned(interests, there))[0], there)
        context = torch.cat([later, self.backwards(interests)[0]], dim=-1)  # (requests, sessions, 2 * width)
        # Activating layer (section 3.5): each candidate weighs interests, and interests in their context.
        interest = _activated(self.of_interest(candidate), interests, there)
        drift = _activated(self.of_context(candidate), context, there)
        logits: Tensor = self.tower(torch.cat([interest, drift, candidate, interest * candidate, dense], dim=-1))
        return logits

    def _interests(self, clicks: Tensor, of: Tensor) -> Tensor:
        """One vector per session (section 3.3): self-attention inside it, then the mean; 0 where there is none."""
        size = of.sum(dim=2, keepdim=True)  # (requests, sessions, 1)
        first = size.cumsum(dim=1) - size
        place = torch.arange(clicks.shape[1], device=clicks.device) - (of * first).sum(dim=1)  # (requests, history)
        bias = self.of_place[place.long().clamp(0, PLACES - 1)] + of.transpose(1, 2) @ self.of_session
        same = of.transpose(1, 2) @ of  # (requests, history, history), 1 where two clicks share a session
        encoded = clicks + bias + self.of_column
        interests: Tensor = (of / size.clamp_min(1.0)) @ self.extractor(encoded, encoded, same)
        return interests


def _activated(wanted: Tensor, sessions: Tensor, there: Tensor) -> Tensor:
    """Sessions weighed by a softmax over what a candidate wants, (requests, candidates, width)."""
    return softmax_over(wanted @ sessions.transpose(1, 2), there[:, None]) @ sessions


PARAMS = DsinParams
TRAITS: Final = Traits(sequence=True, target=True)


def network(shape: Shape, params: DsinParams = DsinParams()) -> nn.Module:
    """DSIN with new weights."""
    return Dsin(shape, params)
