"""What networks of several tasks have in common: a body that reads the inputs, experts, gates, and a tower per task."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from newsrec.errors import UsageError
from newsrec.rerankers import RERANKERS, learns_tasks, make, parameters_of
from newsrec.rerankers.base import Shape
from newsrec.rerankers.layers import ACTIVATIONS, EmbeddedParams, Tower, Wide

TRIAL: Final = Shape(dense=1, sizes=(2, 2), numbers=1)


@dataclass(frozen=True)
class TaskParams(EmbeddedParams):
    """Parameters that they share."""

    base: str = "din"
    """Name in `newsrec.rerankers.RERANKERS` of the network whose tower the experts replace."""
    embedding: str = "small"
    """Rule in `newsrec.neural.embedding_sizes.EMBEDDING_SIZES`."""
    experts: int = 4
    """Of `mmoe`; of `ple` for each task and for all together, on each level; >= 1."""
    expert: int = 64
    """Units of an expert, >= 1."""
    others: float = 0.0
    """Ranking score = logit of the click + `others` * the mean logit of what may follow it; 0..100."""
    given_shown: bool = False
    """Where `exposed` is a task: rank by the click of a candidate that is shown, in place of being shown and clicked.
    The first is what a new policy wants, the second what the log's own policy did."""
    hidden: tuple[int, ...] = (32,)
    """Units per layer of each task's tower, >= 1 each."""

    def __post_init__(self) -> None:
        """Refuse what is unknown or out of range, see `refuse_faults` of the layers, and a base that is none."""
        super().__post_init__()
        if self.base != TaskParams.base:
            body_of(TRIAL, self)


class Experts(nn.Module):
    """Some small networks side by side over the same input: (..., width) to (..., experts, units)."""

    def __init__(self, width: int, experts: int, units: int, activation: str) -> None:
        super().__init__()
        self.experts = experts
        self.first = nn.Linear(width, experts * units)
        self.activation = ACTIVATIONS[activation](experts * units)

    def forward(self, x: Tensor) -> Tensor:
        """As the class says."""
        units: Tensor = torch.unflatten(self.activation(self.first(x)), -1, (self.experts, -1))
        return units


class Gate(nn.Module):
    """How much an input takes of each expert: `softmax(W x)`, then their weighted sum, (..., units)."""

    def __init__(self, width: int, experts: int) -> None:
        super().__init__()
        self.weight = nn.Linear(width, experts, bias=False)

    def forward(self, x: Tensor, experts: Tensor) -> Tensor:
        """(..., width) and (..., experts, units)."""
        mixed: Tensor = (torch.softmax(self.weight(x), dim=-1)[..., None] * experts).sum(dim=-2)
        return mixed


class MultiTask(nn.Module):
    """A `newsrec.rerankers.base.Network` of several tasks, the click first; `mixed` is what each task's tower reads."""

    def __init__(self, shape: Shape, params: TaskParams) -> None:
        super().__init__()
        self.body, self.width = body_of(shape, params)
        self.tasks, self.exposed = shape.tasks, shape.exposed
        self.others, self.given_shown = params.others, params.given_shown
        self.reads_hours = getattr(self.body, "reads_hours", False)
        self.log_variance = nn.Parameter(torch.zeros(shape.tasks))
        self.towers = nn.ModuleList(
            Tower(params.expert, params.hidden, params.activation, params.dropout) for _ in range(shape.tasks)
        )

    def mixed(self, x: Tensor) -> Iterator[Tensor]:
        """One (requests, candidates, units) per task, of the body's (requests, candidates, width)."""
        raise NotImplementedError

    def forward(self, *inputs: Tensor) -> Tensor:
        """See `newsrec.rerankers.base.Network`; the ranking score that `TaskParams.others` tells."""
        logits = self._logits(self.body(*inputs))
        click = logits[0] if self.given_shown else self._click(logits)
        following = [logits[task] for task in range(1, self.tasks) if task != self.exposed]
        if not self.others or not following:
            return click
        return click + self.others * torch.stack(following).mean(dim=0)

    def of_tasks(self, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor | float]:
        """See `newsrec.rerankers.base.OfTasks`."""
        taught = getattr(self.body, "taught", None)
        shared, extra = taught(*inputs) if self.training and taught is not None else (self.body(*inputs), 0.0)
        logits = self._logits(shared)
        return torch.stack([self._click(logits), *logits[1:]], dim=-1), shared, extra

    def _logits(self, shared: Tensor) -> list[Tensor]:
        """(requests, candidates) of each tower."""
        return [tower(x) for tower, x in zip(self.towers, self.mixed(shared), strict=True)]

    def _click(self, logits: list[Tensor]) -> Tensor:
        """Of the click as the log has it: no candidate is clicked that was not shown."""
        return clicked_and_shown(logits[0], logits[self.exposed]) if self.exposed else logits[0]


def clicked_and_shown(click: Tensor, shown: Tensor) -> Tensor:
    """Logit of `p(shown) p(click | shown)`, from the logits of both factors; shape kept.

    As the entire-space model does for clicks and purchases (ESMM, Ma et al., SIGIR 2018, equation 1): both heads learn
    from all candidates, and what was never shown says nothing against being clicked. With `u = e^-click` and
    `v = e^-shown` the odds are `1 / (u + v + u v)`.
    """
    logit: Tensor = -torch.logsumexp(torch.stack([-click, -shown, -click - shown]), dim=0)
    return logit


def body_of(shape: Shape, params: TaskParams) -> tuple[nn.Module, int]:
    """The base network with nothing in place of its tower, and how wide what it gives is.

    Raises:
        UsageError: A base that is not there, or whose logits are more than its tower's.
    """
    bodies = [name for name in RERANKERS if not learns_tasks(name)]
    taken = parameters_of(params.base) if params.base in bodies else set()
    given: dict[str, Any] = {name: getattr(params, name) for name in taken & {"embedding", "activation", "dropout"}}
    body = make(params.base, shape, given) if taken else nn.Identity()
    tower = getattr(body, "tower", None)
    if not isinstance(tower, Tower) or isinstance(getattr(body, "wide", None), Wide):
        raise UsageError(
            f"reranker: expected a base of {bodies} whose inputs meet in a tower, found {params.base!r}. Take din."
        )
    first = next(layer for layer in tower.layers if isinstance(layer, nn.Linear))
    body.tower = nn.Identity()
    return body, first.in_features
