"""The mean of a network's weights over the last steps: steadier than any one of them, and no dearer to serve.

Polyak & Juditsky 1992, "Acceleration of stochastic approximation by averaging"; the decaying mean of Kingma & Ba 2015
("Adam", section 7.2).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class RunningMean:
    """Mean of a model's weights, each step counting `decay` times as much as the next.

    Args:
        model: Its weights begin the mean.
        decay: 0..1; 0 is the last weights themselves. The first steps count as much as each other.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self._weights = {name: weight.detach().clone() for name, weight in _numbers(model).items()}

    def add(self, model: nn.Module) -> None:
        """Take in the weights after a step."""
        self.steps += 1
        share = max(1.0 - self.decay, 1.0 / self.steps)
        new = [weight.detach() for weight in _numbers(model).values()]
        torch._foreach_lerp_(list(self._weights.values()), new, share)

    @contextmanager
    def inside(self, model: nn.Module) -> Iterator[None]:
        """The model has the mean's weights, and afterwards its own again."""
        own = {name: weight.detach().clone() for name, weight in _numbers(model).items()}
        _put(self._weights, model)
        try:
            yield
        finally:
            _put(own, model)

    def state(self) -> dict[str, Tensor]:
        """All of it, for a checkpoint."""
        return {"steps": torch.tensor(self.steps), **self._weights}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take what `state` gave."""
        self.steps = int(state["steps"])
        for name, weight in self._weights.items():
            weight.copy_(state[name])


def _numbers(model: nn.Module) -> dict[str, Tensor]:
    return {name: weight for name, weight in model.state_dict().items() if weight.is_floating_point()}


def _put(weights: Mapping[str, Tensor], model: nn.Module) -> None:
    for name, weight in _numbers(model).items():
        weight.copy_(weights[name])
