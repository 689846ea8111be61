"""A network in its frame: raw numbers are scaled and filled before it, logits become probabilities after it."""

import numpy as np
import torch
from torch import Tensor, nn

from newsrec.calibration import platt
from newsrec.tensors import Array, Lists

LIMIT = 8.0
"""Scaled numbers are cut here, in standard deviations: no value, however extreme, outweighs all others."""


class Scale(nn.Module):
    """Signed logarithm, then mean 0 and deviation 1 over the training rows; unknown becomes 0, the mean.

    Counts of clicks have long tails: without the logarithm a few hot articles would set the scale.
    """

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(columns))
        self.register_buffer("deviation", torch.ones(columns))
        self.mean: Tensor
        self.deviation: Tensor

    def fit(self, values: Array) -> None:
        """Learn from (n_rows, columns), NaN where unknown; a column without two values stays as it is."""
        bent = np.sign(values) * np.log1p(np.abs(values.astype(np.float64)))
        there = np.isfinite(bent)
        count = np.maximum(there.sum(axis=0), 1)
        mean = np.where(there, bent, 0.0).sum(axis=0) / count
        deviation = np.sqrt((np.where(there, bent - mean, 0.0) ** 2).sum(axis=0) / count)
        self.mean.copy_(torch.from_numpy(mean))
        self.deviation.copy_(torch.from_numpy(np.where(deviation > 1e-6, deviation, 1.0)))

    def forward(self, values: Tensor) -> Tensor:
        """Any shape that ends in columns; kept."""
        bent = torch.sign(values) * torch.log1p(torch.abs(values))
        scaled = ((bent - self.mean) / self.deviation).clamp(-LIMIT, LIMIT)
        return torch.where(torch.isnan(values), torch.zeros_like(scaled), scaled)


class Model(nn.Module):
    """A network with the scaling of its inputs and the calibration of its output.

    Args:
        network: Takes `(dense, target, history, numbers, mask)`, see `newsrec.rerankers.base.Network`.
        dense: Dense columns.
        numbers: Numbers per click of a history.
    """

    def __init__(self, network: nn.Module, dense: int, numbers: int) -> None:
        super().__init__()
        self.network = network
        self.scale_dense, self.scale_numbers = Scale(dense), Scale(numbers)
        self.register_buffer("slope", torch.ones(()))
        self.register_buffer("shift", torch.zeros(()))
        self.slope: Tensor
        self.shift: Tensor

    def fit_scales(self, lists: Lists) -> None:
        """Learn the scales of training lists."""
        self.scale_dense.fit(lists.dense)
        self.scale_numbers.fit(np.stack(list(lists.history_numbers.values()), axis=-1))

    def forward(self, dense: Tensor, target: Tensor, history: Tensor, numbers: Tensor, mask: Tensor) -> Tensor:
        """Logits, shape (requests, candidates)."""
        logits: Tensor = self.network(*self._read(dense, target, history, numbers, mask))
        return logits

    def taught(
        self, dense: Tensor, target: Tensor, history: Tensor, numbers: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor | float]:
        """Logits, and the loss that the network itself adds, for training; 0 of most networks."""
        if not callable(taught := getattr(self.network, "taught", None)):
            return self(dense, target, history, numbers, mask), 0.0
        logits, extra = taught(*self._read(dense, target, history, numbers, mask))
        return logits, extra

    @property
    def pretraining(self) -> int:
        """Epochs of masked clicks that the network wants before its training."""
        return int(getattr(self.network, "pretraining", 0))

    def masked_loss(self, history: Tensor, numbers: Tensor, mask: Tensor) -> Tensor:
        """Of a network that wants some, see `newsrec.rerankers.base.Pretrained`."""
        loss: Tensor = self.network.masked_loss(history, self._scaled(numbers, mask), mask)  # type: ignore[operator]
        return loss

    def of_tasks(self, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor | float]:
        """Of a network of several tasks, see `newsrec.rerankers.base.OfTasks`."""
        found: tuple[Tensor, Tensor, Tensor | float] = self.network.of_tasks(*self._read(*inputs))  # type: ignore[operator]
        return found

    def _read(
        self, dense: Tensor, target: Tensor, history: Tensor, numbers: Tensor, mask: Tensor
    ) -> tuple[Tensor, ...]:
        """What the network is given: numbers scaled and filled, and the hours as they are where it reads them."""
        scaled = self._scaled(numbers, mask)
        hours = (numbers[..., 0],) if getattr(self.network, "reads_hours", False) else ()
        return self.scale_dense(dense), target, history, scaled, mask, *hours

    def _scaled(self, numbers: Tensor, mask: Tensor) -> Tensor:
        """Numbers of clicks, 0 where padding is, (requests, history, numbers)."""
        scaled: Tensor = self.scale_numbers(numbers) * mask[..., None]
        return scaled

    def probabilities(self, logits: Tensor) -> Tensor:
        """Of a click, by Platt's line through the logits; shape kept."""
        return torch.sigmoid(logits * self.slope + self.shift)

    def calibrate(self, logits: Array, label: Array) -> None:
        """Fit the line on lists that were not sampled: `P(click) = sigmoid(slope * logit + shift)` (Platt, 1999).

        Args:
            logits: Shape (n_rows,).
            label: 0 or 1, shape (n_rows,).
        """
        slope, shift = platt(logits.astype(np.float64), label.astype(np.float64))
        self.slope.fill_(slope)
        self.shift.fill_(shift)
