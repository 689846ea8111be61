"""Several losses become one: how much each task counts. `BALANCES` is their list."""

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

Balance = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(losses (tasks,), what all tasks share, log-variances (tasks,) that are learned) -> scalar."""


def fixed(losses: Tensor, shared: Tensor, spread: Tensor) -> Tensor:
    """Their sum: every task counts as its loss is large."""
    return losses.sum()


def uncertainty(losses: Tensor, shared: Tensor, spread: Tensor) -> Tensor:
    """`sum_k exp(-s_k) L_k + s_k / 2`, `s_k = log sigma_k^2` learned (Kendall et al., CVPR 2018, equation 10).

    A task whose labels stay uncertain counts less.
    """
    return (torch.exp(-spread) * losses + spread / 2).sum()


def gradient(losses: Tensor, shared: Tensor, spread: Tensor) -> Tensor:
    """Losses divided by the length of their gradients in what is shared, which GradNorm evens out (Chen et al. 2018).

    The weights have a mean of one; each step sets them anew instead of learning them.
    """
    pulls = torch.stack([torch.autograd.grad(loss, shared, retain_graph=True)[0].norm() for loss in losses])
    weight = torch.where(pulls > 0, 1.0 / pulls.clamp_min(1e-8), 0.0)  # a task without a known label pulls nowhere
    return (losses * weight * (pulls > 0).sum() / weight.sum().clamp_min(1e-8)).sum()


BALANCES: Final[dict[str, Balance]] = {"fixed": fixed, "uncertainty": uncertainty, "gradient": gradient}
"""Every balance by its name; the first is the default."""


def known_bce(logits: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Pointwise loss of a further task over the candidates whose label is known, 0 where none is.

    Args:
        logits: (lists, candidates).
        labels: The same, NaN where nobody knows.
        weight: Of the lists, (lists,).
    """
    known = ~labels.isnan()
    each = F.binary_cross_entropy_with_logits(logits, labels.nan_to_num(), reduction="none") * weight[:, None]
    loss: Tensor = (each * known).sum() / known.sum().clamp_min(1)
    return loss
