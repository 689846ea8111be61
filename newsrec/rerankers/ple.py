"""Progressive Layered Extraction: some experts belong to a task, others to all (Tang et al., RecSys 2020)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from newsrec.rerankers.base import Shape, Traits
from newsrec.rerankers.experts import Experts, Gate, MultiTask, TaskParams


@dataclass(frozen=True)
class PleParams(TaskParams):
    """Parameters of PLE."""

    experts: int = 2
    """For each task and for all together, on each level; >= 1."""
    layers: int = 2
    """Levels of extraction, >= 1."""


class Level(nn.Module):
    """One extraction: a task's gate mixes its own and the shared experts, the shared gate all of them.

    `g_k(x) = w_k(x) S_k(x)`, `w_k(x) = softmax(W_k x)`, `S_k` the task's and the shared experts (section 4.1); on
    further levels the gates and experts read what the level below gave to the same task (section 4.2).
    """

    def __init__(self, width: int, tasks: int, params: PleParams, last: bool) -> None:
        super().__init__()
        sides = tasks + 1  # the shared side comes last
        self.experts = nn.ModuleList(
            Experts(width, params.experts, params.expert, params.activation) for _ in range(sides)
        )
        self.gates = nn.ModuleList(Gate(width, 2 * params.experts) for _ in range(tasks))
        self.of_all = nn.ModuleList([] if last else [Gate(width, sides * params.experts)])

    def forward(self, sides: list[Tensor]) -> list[Tensor]:
        """What each task reads, then what is shared, each (requests, candidates, units); the last level shares none."""
        made = [experts(x) for experts, x in zip(self.experts, sides, strict=True)]
        own = [
            gate(x, torch.cat([mine, made[-1]], dim=-2))
            for gate, x, mine in zip(self.gates, sides[:-1], made[:-1], strict=True)
        ]
        return own + [gate(sides[-1], torch.cat(made, dim=-2)) for gate in self.of_all]


class Ple(MultiTask):
    """A `newsrec.rerankers.base.Network` of several tasks."""

    def __init__(self, shape: Shape, params: PleParams = PleParams()) -> None:
        super().__init__(shape, params)
        widths = [self.width] + [params.expert] * (params.layers - 1)
        self.levels = nn.ModuleList(
            Level(width, shape.tasks, params, last=number == params.layers) for number, width in enumerate(widths, 1)
        )

    def mixed(self, x: Tensor) -> Iterator[Tensor]:
        """See `MultiTask`."""
        sides = [x] * (self.tasks + 1)
        for level in self.levels:
            sides = level(sides)
        return iter(sides)


PARAMS = PleParams
TRAITS: Final = Traits(sequence=False, target=True, tasks=True)


def network(shape: Shape, params: PleParams = PleParams()) -> nn.Module:
    """PLE with new weights."""
    return Ple(shape, params)
