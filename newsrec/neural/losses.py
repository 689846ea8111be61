"""What training makes small, by name. In go logits, labels and weights of whole lists, out comes one number.

Any network learns with any loss. Each says when to use it and what it does to calibration: whatever the loss, Platt's
line through the logits of whole validation lists makes probabilities of them (`newsrec.neural.model`), which mends what
a line can mend. Pointwise losses compare across requests; those of pairs and lists leave a constant per list free, so
that only the order inside a list is learned and probabilities of different requests compare less well.
"""

import math
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(logits, labels, weight) -> scalar, >= 0: (lists, candidates) twice, labels 0.0 or 1.0; what each list counts for,
(lists,), > 0, about 1 in the mean (by exposure, see `newsrec.exposure`)."""

FOCUS: Final = 2.0
"""The focal loss's gamma, >= 0; 2 in its paper, 0 is `bce`."""
MU: Final = 10.0
"""How much the neighbouring places count in `lambdaloss` beside the metric's difference; 10 in its paper."""


def softmax(logits: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Listwise: `-log(exp(s_clicked) / sum_j exp(s_j))`, the mean over a list's clicks (ListNet's top-one, Cao 2007).

    When: the default; the click competes with all that was shown beside it. Calibration: differences inside a list are
    log-odds of one candidate against another; sampled negatives change the free constant only.
    """
    clicks = labels.sum(dim=1)  # (lists,)
    of_list = -(F.log_softmax(logits, dim=1) * labels).sum(dim=1) / clicks.clamp_min(1.0)
    return (of_list * weight).sum() / (clicks > 0).sum().clamp_min(1)


def bce(logits: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Pointwise: `-y log p - (1 - y) log(1 - p)`, `p = sigmoid(s)`, mean over candidates.

    When: probabilities matter, or lists of one candidate. Calibration: the best; log-odds of a click among the
    candidates that trained. With a share w of the negatives they are too high by `-log w`, which Platt takes out.
    """
    return (F.binary_cross_entropy_with_logits(logits, labels, reduction="none") * weight[:, None]).mean()


def focal(logits: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Pointwise: `-(1 - p_t)^2 log p_t`, `p_t` the probability of the true label (Lin et al. 2017, equation 4).

    When: easy negatives are many, so that their sum would drown the few hard candidates. Calibration: what is nearly
    right no longer pulls, so logits stay nearer to 0 than log-odds; Platt's slope stretches them again.
    """
    missed = F.softplus(torch.where(labels > 0, -logits, logits))  # -log p_t
    return (-torch.expm1(-missed)).pow(FOCUS).mul(missed).mul(weight[:, None]).mean()


def bpr(logits: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Pairwise: mean of `-w log sigmoid(s_clicked - s_other)` over the pairs of each list (Rendle et al. 2009).

    When: every inversion of a click and another candidate costs alike (AUC inside the list); the weights make it the
    exposure-weighted one. Calibration: none of its own, the scale is that of differences.
    """
    return (F.softplus(-_differences(logits)) * _pairs(labels, weight)).sum() / _count(labels)


def lambdaloss(logits: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Pairwise by metric: NDCG-Loss2++ of LambdaLoss (Wang et al., CIKM 2018), mean over lists with a click.

    `sum_ij (|1/D_i - 1/D_j| + mu |1/D_|i-j| - 1/D_|i-j|+1|) / maxDCG log2(1 + exp(s_j - s_i))` over clicked i and
    others j, `D_i = log2(1 + i)` at the places that the logits give now. When: only the first places matter; with many
    negatives, as the places of a sampled list are not those of the whole one. Calibration: none of its own; the scale
    follows from the places.
    """
    order = logits.detach().argsort(dim=1, descending=True, stable=True)
    place = order.argsort(dim=1) + 1  # (lists, candidates), from 1
    gain = 1.0 / torch.log2(1.0 + place)
    apart = (place[:, :, None] - place[:, None, :]).abs().clamp_min(1)
    near = 1.0 / torch.log2(1.0 + apart) - 1.0 / torch.log2(2.0 + apart)
    change = (gain[:, :, None] - gain[:, None, :]).abs() + MU * near
    clicks = labels.sum(dim=1)
    places = torch.arange(1, labels.shape[1] + 1, device=labels.device)
    best = ((places <= clicks[:, None]) / torch.log2(1.0 + places)).sum(dim=1)  # (lists,), maxDCG
    cost = F.softplus(-_differences(logits)) / math.log(2) * _pairs(labels, weight) * change
    return (cost.sum(dim=(1, 2)) / best.clamp_min(1.0)).sum() / (clicks > 0).sum().clamp_min(1)


def _differences(logits: Tensor) -> Tensor:
    """(lists, candidates, candidates): each one's logit minus each other's."""
    return logits[:, :, None] - logits[:, None, :]


def _pairs(labels: Tensor, weight: Tensor) -> Tensor:
    """(lists, clicked, other): the list's weight where the first was clicked and the second was not, else 0."""
    return labels[:, :, None] * (1 - labels[:, None, :]) * weight[:, None, None]


def _count(labels: Tensor) -> Tensor:
    return _pairs(labels, torch.ones_like(labels[:, 0])).sum().clamp_min(1.0)


LOSSES: Final[dict[str, Loss]] = {
    "softmax": softmax,
    "bce": bce,
    "focal": focal,
    "bpr": bpr,
    "lambdaloss": lambdaloss,
}
"""Every loss by its name; the first is the default."""
