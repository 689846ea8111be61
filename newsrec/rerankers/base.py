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
    tasks: int = 1
    """What is learned, the click first, >= 1; networks of one task learn the click."""
    exposed: int = 0
    """Which of the tasks is whether the candidate was shown; 0 where that is not learned."""


@dataclass(frozen=True)
class Traits:
    """What a network is like, whatever its weights."""

    sequence: bool
    """Whether the order of the clicks, or the pauses between them, tells it anything."""
    target: bool
    """Whether each candidate weighs the clicks with its own eyes."""
    history: int = 50
    """Newest clicks that it reads at most, >= 1."""
    tasks: bool = False
    """Whether it learns further labels beside the click."""


class Network(Protocol):
    """Scores all candidates of each request; a request's history is read once.

    One with the attribute `reads_hours = True` is also given `hours`, the last argument: the hours from each click to
    the request as they are, (requests, history), NaN where unknown.
    """

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


class Taught(Protocol):
    """A network with a loss of its own, which training adds to the trainer's."""

    def taught(
        self, dense: Tensor, target: Tensor, history: Tensor, numbers: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What `forward` gives, and the further loss, a scalar >= 0; called in place of `forward` in training."""
        ...


class Pretrained(Protocol):
    """A network that learns from histories before it sees a label, where `pretraining` (epochs) is above 0."""

    pretraining: int

    def masked_loss(self, history: Tensor, numbers: Tensor, mask: Tensor) -> Tensor:
        """What guessing masked clicks costs, a scalar >= 0; arguments as in `Network.forward`, every history once."""
        ...


class OfTasks(Protocol):
    """A network that learns several labels; `log_variance` (tasks,) are weights for a balance that is learned."""

    log_variance: Tensor

    def of_tasks(
        self, dense: Tensor, target: Tensor, history: Tensor, numbers: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | float]:
        """Logits of every task, (requests, candidates, tasks), what all tasks share, and a further loss or 0."""
        ...
