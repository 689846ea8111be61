"""Layers that several networks share."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar, Final

import numpy as np
import torch
from torch import Tensor, nn

from newsrec.errors import UsageError
from newsrec.neural.embedding_sizes import EMBEDDING_SIZES
from newsrec.rerankers.base import Shape

FAR: Final = -1e9
"""Added to the score of padding before a softmax; minus infinity would make an empty history NaN."""


class Embed(nn.Module):
    """Codes of several fields to one vector: each field's embedding, laid side by side.

    Args:
        sizes: Codes per field, the unknown one included.
        rule: Name in `EMBEDDING_SIZES`.
        width: Of every field; None goes by the rule.
        spread: Standard deviation of new weights.
    """

    def __init__(self, sizes: Sequence[int], rule: str = "log2", width: int | None = None, spread: float = 0.1) -> None:
        super().__init__()
        widths = [EMBEDDING_SIZES[rule](size) if width is None else width for size in sizes]
        self.tables = nn.ModuleList(nn.Embedding(size, width) for size, width in zip(sizes, widths, strict=True))
        for table in self.tables:
            nn.init.normal_(table.weight, std=spread)  # type: ignore[arg-type]
        self.width = sum(widths)

    def forward(self, codes: Tensor) -> Tensor:
        """(..., fields) to (..., width)."""
        return torch.cat([table(codes[..., i]) for i, table in enumerate(self.tables)], dim=-1)


def mean_of_clicks(values: Tensor, mask: Tensor) -> Tensor:
    """(requests, history, width) and (requests, history) to (requests, 1, width); 0 where a history is empty."""
    total = (values * mask[..., None]).sum(dim=1, keepdim=True)
    mean: Tensor = total / mask.sum(dim=1).clamp_min(1.0)[:, None, None]
    return mean


class Wide(nn.Module):
    """A straight line through everything: dense columns, the candidate's codes, the mean of the history."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.dense = nn.Linear(shape.dense, 1)
        self.target = Embed(shape.sizes, width=1, spread=0.0)
        self.history = Embed(shape.sizes, width=1, spread=0.0)
        self.numbers = nn.Linear(shape.numbers, 1, bias=False)

    def forward(self, dense: Tensor, target: Tensor, history: Tensor, numbers: Tensor, mask: Tensor) -> Tensor:
        """See `newsrec.rerankers.base.Network`."""
        click = self.history(history).sum(dim=-1, keepdim=True) + self.numbers(numbers)  # (requests, history, 1)
        candidate = self.dense(dense).squeeze(-1) + self.target(target).sum(dim=-1)  # (requests, candidates)
        logits: Tensor = candidate + mean_of_clicks(click, mask).squeeze(-1)
        return logits


class Dice(nn.Module):
    """`p(s) s + (1 - p(s)) a s` with `p` the sigmoid of the standardised input (DIN, section 5.2).

    Statistics are those of the batch in training, running ones in evaluation and in ONNX.
    """

    def __init__(self, width: int, momentum: float = 0.1, eps: float = 1e-6) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(width))
        self.momentum, self.eps = momentum, eps
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))
        self.mean: Tensor
        self.variance: Tensor

    def forward(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """(..., width), kept. `weight` (...), 0 where a value is padding and must not enter the statistics."""
        # Few passes over x: these are most of the time that a network with it takes to train.
        centred, variance = self._of_batch(x, weight) if self.training else (x - self.mean, self.variance)
        p = torch.sigmoid(centred * torch.rsqrt(variance + self.eps))
        return x * torch.addcmul(self.slope, p, 1 - self.slope)

    def _of_batch(self, x: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        """x less its mean, and its variance (width)."""
        rows = x.flatten(0, -2)
        of = rows.new_ones(len(rows)) if weight is None else weight.reshape(-1)
        share = of / of.sum().clamp_min(1.0)
        mean = share @ rows
        centred = x - mean
        variance = share @ centred.flatten(0, -2).square()
        with torch.no_grad():
            self.mean.lerp_(mean, self.momentum)
            self.variance.lerp_(variance, self.momentum)
        return centred, variance


class Prelu(nn.PReLU):
    """PReLU with one slope per column, along the last axis; takes and ignores a weight as `Dice` does."""

    def forward(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """(..., width), kept."""
        return torch.clamp_min(x, 0.0) + self.weight * torch.clamp_max(x, 0.0)


ACTIVATIONS: Final[dict[str, Callable[[int], nn.Module]]] = {"prelu": Prelu, "dice": Dice}
"""Name -> makes the activation of so many columns."""


LARGEST: Final = {
    "attention": 4_096,
    "width": 1_024,
    "crosses": 2**24,
    "hidden": 65_536,
    "heads": 64,
    "layers": 16,
    "sessions": 50,
    "experts": 64,
    "expert": 4_096,
}
"""Whole numbers among the parameters of networks, and their largest values; the least is 1."""
SHARES: Final = {"dropout": 1, "auxiliary": 100, "others": 100, "pretraining": 100, "masked": 1}
"""Numbers among them, and their largest values; the least is 0."""


@dataclass(frozen=True)
class TowerParams:
    """Parameters of every network that ends in a `Tower`."""

    hidden: tuple[int, ...] = (64, 32)
    """Units per layer, >= 1 each."""
    activation: str = "prelu"
    """Name in `ACTIVATIONS`."""
    dropout: float = 0.1
    """Share of units that training drops, 0..1."""
    NAMES: ClassVar[Mapping[str, Iterable[str]]] = {}
    """What further parameters of a network may be, where they are names."""

    def __post_init__(self) -> None:
        """Refuse what is unknown or out of range, see `refuse_faults`."""
        refuse_faults(self, **self.NAMES)


@dataclass(frozen=True)
class EmbeddedParams(TowerParams):
    """Of those that also embed ids."""

    embedding: str = "log2"
    """Rule in `newsrec.neural.embedding_sizes.EMBEDDING_SIZES`."""


def refuse_faults(params: object, **further: Iterable[str]) -> None:
    """Find out whether the parameters of a network are names that exist and numbers in range.

    Args:
        params: A dataclass.
        further: Names that a parameter of this network alone may have.

    Raises:
        UsageError: With every parameter that is not.
    """
    given = {field.name: getattr(params, field.name) for field in fields(params)}  # type: ignore[arg-type]
    names: dict[str, Iterable[str]] = {"embedding": EMBEDDING_SIZES, "activation": ACTIVATIONS, **further}
    faults = [
        *(
            f"{name} of {sorted(known)}, found {given[name]!r}"
            for name, known in names.items()
            if given.get(name, "") not in {*known, ""}
        ),
        *(
            f"{name} in 1..{largest}, found {given[name]!r}"
            for name, largest in LARGEST.items()
            if name in given and not all(1 <= each <= largest for each in np.atleast_1d(given[name]))
        ),
        *(
            f"{name} in 0..{largest}, found {given[name]}"
            for name, largest in SHARES.items()
            if name in given and not 0 <= given[name] <= largest
        ),
    ]
    if faults:
        raise UsageError(f"reranker: expected {'; '.join(faults)}.")


class Tower(nn.Module):
    """Fully connected layers with activations and dropout, then one number.

    Args:
        width: Columns of the input.
        hidden: Units per layer.
        activation: Name in `ACTIVATIONS`.
        dropout: Share of units that training drops.
    """

    def __init__(self, width: int, hidden: Sequence[int], activation: str = "prelu", dropout: float = 0.1) -> None:
        super().__init__()
        steps: list[nn.Module] = []
        for units in hidden:
            steps += [nn.Linear(width, units), ACTIVATIONS[activation](units), nn.Dropout(dropout)]
            width = units
        self.layers = nn.Sequential(*steps, nn.Linear(width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to (...)."""
        out: Tensor = self.layers(x)
        return out.squeeze(-1)
