"""What every network is: tensors in, tensor out. Loss, optimiser, labels and scaling are the trainer's."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Shape:
    """What a network reads."""

    dense: int
    """Dense columns per candidate."""
    sizes: tuple[int, ...]
    """Codes per id field, the unknown code 0 included; the first field is the article."""
    numbers: int
    """Numbers per click of a history; the first is its age."""


class Network(Protocol):
    """Scores all candidates of each request; a request's history is read once."""

    def forward(self, dense: Tensor, target: Tensor, history: Tensor, numbers: Tensor, mask: Tensor) -> Tensor:
        """Logits of clicks.

        Args:
            dense: (requests, candidates, dense), scaled, finite.
            target: (requests, candidates, fields), codes.
            history: (requests, history, fields), codes; 0 where padding is.
            numbers: (requests, history, numbers), scaled, finite; 0 where padding is.
            mask: (requests, history), 1 where a click is, 0 where padding is.

        Returns:
            (requests, candidates), finite, also where a history is empty. A candidate's logit depends on no other
            candidate, and padding of the history changes nothing.
        """
        ...
