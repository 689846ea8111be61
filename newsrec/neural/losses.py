"""What training makes small, by name. In go logits and labels of whole lists, out comes one number."""

from collections.abc import Callable
from typing import Final

from torch import Tensor
from torch.nn import functional as F

Loss = Callable[[Tensor, Tensor], Tensor]
"""(logits, labels), both (lists, candidates), labels 0.0 or 1.0 -> scalar, >= 0."""


def bce(logits: Tensor, labels: Tensor) -> Tensor:
    """Pointwise: mean negative log-likelihood of each candidate's label."""
    return F.binary_cross_entropy_with_logits(logits, labels)


def bpr(logits: Tensor, labels: Tensor) -> Tensor:
    """Pairwise: mean of `-log sigmoid(s_clicked - s_other)` over the pairs of each list (Rendle et al. 2009)."""
    difference = logits[:, :, None] - logits[:, None, :]  # (lists, clicked, other)
    pairs = labels[:, :, None] * (1 - labels[:, None, :])
    return (F.softplus(-difference) * pairs).sum() / pairs.sum().clamp_min(1.0)


def softmax(logits: Tensor, labels: Tensor) -> Tensor:
    """Listwise: cross entropy of the clicked candidates under a softmax over the list (ListNet's top-one, Cao 2007)."""
    clicks = labels.sum(dim=1)  # (lists,)
    of_list = -(F.log_softmax(logits, dim=1) * labels).sum(dim=1) / clicks.clamp_min(1.0)
    return of_list.sum() / (clicks > 0).sum().clamp_min(1)


LOSSES: Final[dict[str, Loss]] = {"softmax": softmax, "bce": bce, "bpr": bpr}
"""Every loss by its name; the first is the default."""
