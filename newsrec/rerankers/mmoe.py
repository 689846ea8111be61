"""Multi-gate Mixture-of-Experts: all tasks share experts, each with a gate of its own (Ma et al., KDD 2018)."""

from collections.abc import Iterator
from typing import Final

from torch import Tensor, nn

from newsrec.rerankers.base import Shape, Traits
from newsrec.rerankers.experts import Experts, Gate, MultiTask, TaskParams

DEFAULT: Final = TaskParams()


class Mmoe(MultiTask):
    """`y_k = h_k(f_k(x))`, `f_k(x) = sum_i g_k(x)_i f_i(x)`, `g_k(x) = softmax(W_k x)` (section 4.2)."""

    def __init__(self, shape: Shape, params: TaskParams = DEFAULT) -> None:
        super().__init__(shape, params)
        self.experts = Experts(self.width, params.experts, params.expert, params.activation)
        self.gates = nn.ModuleList(Gate(self.width, params.experts) for _ in range(shape.tasks))

    def mixed(self, x: Tensor) -> Iterator[Tensor]:
        """See `MultiTask`."""
        experts = self.experts(x)  # (requests, candidates, experts, units)
        return (gate(x, experts) for gate in self.gates)


PARAMS = TaskParams
TRAITS: Final = Traits(sequence=False, target=True, tasks=True)


def network(shape: Shape, params: TaskParams = DEFAULT) -> nn.Module:
    """MMoE with new weights."""
    return Mmoe(shape, params)
