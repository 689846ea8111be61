"""A network in its frame: raw numbers are scaled and filled before it, logits become probabilities after it."""

import numpy as np
import torch
from torch import Tensor, nn

from newsrec.tensors import Array, Lists

LIMIT = 8.0
"""Scaled numbers are cut here, in standard deviations: no value, however extreme, outweighs all others."""
LEAST_SLOPE = 1e-3
"""Of the calibration: a network whose order is no better than chance still has one."""


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
        scaled = self.scale_numbers(numbers) * mask[..., None]  # (requests, history, numbers)
        logits: Tensor = self.network(self.scale_dense(dense), target, history, scaled, mask)
        return logits

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


def platt(logits: Array, label: Array) -> tuple[float, float]:
    """Slope and shift of a logistic regression on one variable by Newton's method; the slope is at least `LEAST_SLOPE`.

    A little L2 towards a slope of 1 keeps it finite where the classes separate.

    >>> slope, shift = platt(np.array([-1.0, 1.0] * 500), np.array([0, 0, 1, 1] * 250))
    >>> slope, round(shift, 3)
    (0.001, 0.0)
    """
    line = _newton(np.column_stack([logits, np.ones(len(logits))]), label, np.array([1.0, 0.0]))
    if line[0] > LEAST_SLOPE:
        return float(line[0]), float(line[1])
    # An order that tells nothing must still be an order, and the mean right.
    known = LEAST_SLOPE * logits
    return LEAST_SLOPE, float(_newton(np.ones((len(logits), 1)), label, np.zeros(1), known)[0])


def _newton(x: Array, label: Array, prior: Array, known: Array | float = 0.0) -> Array:
    """Weights (n_columns,) of a logistic regression beside a known part of the logits."""
    line = prior.copy()
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(x @ line + known, -500, 500)))
        gradient = x.T @ (p - label) + 1e-3 * (line - prior)
        curvature = (x * (p * (1 - p))[:, None]).T @ x + 1e-3 * np.eye(len(line))
        step = np.linalg.solve(curvature, gradient)
        line = line - step * min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-12))
    return line
