"""Deep Interest Evolution Network: interests grow from click to click (Zhou et al., AAAI 2019, arXiv:1809.03672)."""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from newsrec.rerankers.base import Shape, Traits
from newsrec.rerankers.layers import Embed, EmbeddedParams, Tower
from newsrec.rerankers.sequences import softmax_over, turned, with_room


@dataclass(frozen=True)
class DienParams(EmbeddedParams):
    """Parameters of DIEN."""

    auxiliary: float = 1.0
    """Weight of the next-click loss beside the trainer's, 0..100; the paper's alpha, 1 in its experiments."""


class Augru(nn.Module):
    """GRU whose update gate is weighed by attention: what does not concern a candidate leaves its state as it is."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.of_input, self.of_state = nn.Linear(width, 3 * width), nn.Linear(width, 3 * width, bias=False)

    def forward(self, states: Tensor, weight: Tensor) -> Tensor:
        """The last state of each candidate, (requests, candidates, width).

        Args:
            states: Interests, oldest first, (requests, history, width); what they give to the gates is shared.
            weight: Attention of each candidate, 0 where padding is, (requests, candidates, history).
        """
        steps = self.of_input(states).transpose(0, 1), weight.permute(2, 0, 1)
        state = states.new_zeros(*weight.shape[:2], states.shape[2])
        if torch.compiler.is_compiling():  # a loop would freeze the length of the history in the exported graph
            from torch._higher_order_ops.scan import scan

            last: Tensor = scan(self._scanned, state, steps, dim=0)[0]
            return last
        for step in zip(*steps, strict=True):
            state = self._step(state, step)
        return state

    def _step(self, state: Tensor, step: tuple[Tensor, Tensor]) -> Tensor:
        (update, reset, new), (of_update, of_reset, of_new) = (
            each.chunk(3, dim=-1) for each in (step[0][:, None], self.of_state(state))
        )  # equations 2 to 4
        new = torch.tanh(new + torch.sigmoid(reset + of_reset) * of_new)
        weighed = step[1][..., None] * torch.sigmoid(update + of_update)  # equation 11
        return torch.lerp(state, new, weighed)  # equation 12: (1 - u) h + u h~

    def _scanned(self, state: Tensor, step: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """`scan` also lays an output of each step down, and takes none that is the state itself."""
        state = self._step(state, step)
        return state, state[..., :1].clone()


class Dien(nn.Module):
    """A `newsrec.rerankers.base.Network` with a loss of its own."""

    def __init__(self, shape: Shape, params: DienParams = DienParams()) -> None:
        super().__init__()
        self.auxiliary = params.auxiliary
        self.embed = Embed(shape.sizes, params.embedding)
        width = self.embed.width
        # As wide as a click's vector: the next-click loss is their inner product.
        self.extractor = nn.GRU(width + shape.numbers, width, batch_first=True)
        self.attention = nn.Linear(width, width, bias=False)
        self.evolution = Augru(width)
        self.tower = Tower(3 * width + shape.dense, params.hidden, params.activation, params.dropout)

    def forward(self, dense: Tensor, target: Tensor, history: Tensor, numbers: Tensor, mask: Tensor) -> Tensor:
        """See `newsrec.rerankers.base.Network`."""
        _, states, mask = self._interests(history, numbers, mask)
        return self._logits(dense, target, states, mask)

    def taught(
        self, dense: Tensor, target: Tensor, history: Tensor, numbers: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `newsrec.rerankers.base.Taught`."""
        clicks, states, mask = self._interests(history, numbers, mask)
        extra = self.auxiliary * next_click_loss(states, clicks, mask) if self.auxiliary else clicks.new_zeros(())
        return self._logits(dense, target, states, mask), extra

    def _interests(self, history: Tensor, numbers: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Clicks, the states after each of them (section 4.2), oldest first, and their mask, one place longer."""
        width = self.embed.width
        both, mask = with_room(turned(torch.cat([self.embed(history), numbers], dim=-1), mask), mask)
        states, _ = self.extractor(both)  # (requests, history + 1, width), equations 2 to 5
        return both[..., :width], states, mask

    def _logits(self, dense: Tensor, target: Tensor, states: Tensor, mask: Tensor) -> Tensor:
        candidate = self.embed(target)  # (requests, candidates, width)
        scores = self.attention(candidate) @ states.transpose(1, 2)  # (requests, candidates, history), equation 8
        interest = self.evolution(states, softmax_over(scores, mask[:, None]))  # (requests, candidates, width)
        logits: Tensor = self.tower(torch.cat([interest, candidate, interest * candidate, dense], dim=-1))
        return logits


def next_click_loss(states: Tensor, clicks: Tensor, mask: Tensor) -> Tensor:
    """Each state must tell the click after it from one of another reader or moment (equation 6), mean over clicks.

    Args:
        states: Oldest first, (requests, history, width).
        clicks: The vectors that made them, alike; others are drawn among all of them.
        mask: (requests, history).
    """
    before, after, there = states[:, :-1], clicks[:, 1:], mask[:, 1:]
    known = clicks[mask > 0]  # (n_clicks, width)
    if not len(known):
        return clicks.new_zeros(())
    other = known[torch.randint(len(known), there.shape, device=clicks.device)]
    told, denied = ((before * each).sum(dim=-1) for each in (after, other))
    loss: Tensor = ((F.softplus(-told) + F.softplus(denied)) * there).sum() / there.sum().clamp_min(1.0)
    return loss


PARAMS = DienParams
TRAITS: Final = Traits(sequence=True, target=True)


def network(shape: Shape, params: DienParams = DienParams()) -> nn.Module:
    """DIEN with new weights."""
    return Dien(shape, params)
