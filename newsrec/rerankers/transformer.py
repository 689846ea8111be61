"""Behaviour sequence transformer: the candidate is the last of the sequence (Chen et al., DLP-KDD 2019, 1905.06874).

Two things differ, so that a history is encoded once for all candidates of a request: clicks look at each other and not
at the candidate, which comes after them, while the candidate looks at all clicks and at itself; and the tower reads the
candidate's output with the mean of the clicks' outputs, where the paper lays twenty outputs side by side.

With `pretraining` the clicks' side first learns to guess clicks that were masked from those around them (BERT4Rec, Sun
et al., CIKM 2019, 1904.06690): ids are then known before the first label is seen.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from newsrec.rerankers.base import Shape, Traits
from newsrec.rerankers.layers import FAR, Embed, EmbeddedParams, Tower, mean_of_clicks
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
    pretraining: int = 0
    """Epochs of masked clicks before the training, 0..100."""
    masked: float = 0.2
    """Share of the clicks that are masked in them, 0..1; the newest one always is (BERT4Rec, sections 3.5 and 3.6)."""


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
        self.pretraining, self.share = params.pretraining, params.masked
        if params.pretraining:
            self.hidden = nn.Parameter(torch.randn(width) * 0.1)

    def forward(self, dense: Tensor, target: Tensor, history: Tensor, numbers: Tensor, mask: Tensor) -> Tensor:
        """See `newsrec.rerankers.base.Network`."""
        candidate = self.embed(target)  # (requests, candidates, width)
        clicks = self._placed(self.embed(history), numbers)  # (requests, history, width)
        seen, there = candidate + self.last, mask[:, None]
        for block in self.blocks:
            seen, clicks = block(seen, clicks, there, itself=True), block(clicks, clicks, there)
        read = mean_of_clicks(clicks, mask).expand_as(candidate)
        logits: Tensor = self.tower(torch.cat([seen, read, candidate, seen * candidate, dense], dim=-1))
        return logits

    def masked_loss(self, history: Tensor, numbers: Tensor, mask: Tensor) -> Tensor:
        """See `newsrec.rerankers.base.Pretrained`; equations 7 and 8 of BERT4Rec.

        The softmax is over the masked clicks of the batch, not over all articles, and an article counts once.
        """
        click, known = self.embed(history), (mask > 0) & (history[..., 0] > 0)  # nobody can guess an unknown article
        guessed = torch.rand(mask.shape, device=mask.device) < self.share
        guessed[:, :1] = True
        guessed &= known
        if not guessed.any():
            nothing: Tensor = 0 * click.sum()  # a constant would have no gradient
            return nothing
        clicks = self._placed(torch.where(guessed[..., None], self.hidden, click), numbers)
        for block in self.blocks:
            clicks = block(clicks, clicks, mask[:, None])
        true, article = click[guessed], history[..., 0][guessed]  # (guesses, width), (guesses,)
        same = article[:, None] == article
        first = same.int().argmax(dim=0) == torch.arange(len(article), device=article.device)
        scores = clicks[guessed] @ true.t() + FAR * ~first  # (guesses, guesses)
        right = torch.logsumexp(scores + FAR * ~same, dim=1)
        loss: Tensor = (torch.logsumexp(scores, dim=1) - right).mean()
        return loss

    def _placed(self, clicks: Tensor, numbers: Tensor) -> Tensor:
        """Position: the time from click to request, pos(v_i) = t(v_t) - t(v_i) (section 2.1), and the place."""
        place = self.places[torch.arange(clicks.shape[1], device=clicks.device).clamp_max(PLACES - 1)]
        placed: Tensor = clicks + self.numbers(numbers) + place
        return placed


PARAMS = TransformerParams
TRAITS: Final = Traits(sequence=True, target=True)


def network(shape: Shape, params: TransformerParams = TransformerParams()) -> nn.Module:
    """The behaviour sequence transformer with new weights."""
    return Transformer(shape, params)
