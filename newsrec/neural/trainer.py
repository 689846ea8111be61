"""The one trainer of all networks: coded lists in, the weights of the best epoch and the curves out."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from newsrec.errors import DataError, UsageError
from newsrec.neural.losses import LOSSES
from newsrec.neural.model import Model
from newsrec.tensors import Array, Batch, Floats, Lists, batches, padded

METRIC = "mrr@5"
CURVE_LISTS = 4_000
"""Training lists, at most, that the training curve is measured on."""
SCORING_BATCH = 512


@dataclass(frozen=True)
class TrainerConfig:
    """How a network is trained."""

    loss: str = "softmax"
    """Name in `newsrec.neural.losses.LOSSES`."""
    epochs: int = 20
    """At most, >= 1."""
    patience: int = 3
    """Stop after so many epochs without a better validation, >= 1."""
    batch: int = 128
    """Lists per step, >= 1."""
    learning_rate: float = 1e-3
    """Of Adam, > 0."""
    l2: float = 1e-5
    """Times the squared length of the embeddings that a batch holds, >= 0 (mini-batch-aware, DIN section 5.1)."""
    hidden_ids: float = 0.1
    """Share of ids that training shows as unknown, 0..1: most articles of tomorrow are."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse an unknown loss.

        Raises:
            UsageError: With the known ones.
        """
        if self.loss not in LOSSES:
            raise UsageError(f"reranker: expected a loss of {sorted(LOSSES)}, found {self.loss!r}.")


@dataclass(frozen=True)
class Curves:
    """What training told, one value per epoch."""

    loss: tuple[float, ...]
    train: tuple[float, ...]
    """MRR@5 on some of the training lists."""
    valid: tuple[float, ...]
    """MRR@5 on the validation lists; a click outside the list counts as 0."""
    best_epoch: int
    """From 1; its weights were kept."""


@dataclass(frozen=True)
class Fitted:
    """What training left, beside the model's weights."""

    curves: Curves
    logits: Floats
    """Of the validation rows after each epoch, before calibration, shape (epochs, n_rows)."""


def fit(
    model: Model, train: Lists, valid: Lists, config: TrainerConfig, on_epoch: Callable[[], None] = lambda: None
) -> Fitted:
    """Train until the validation no longer improves, and keep the best weights.

    Args:
        model: Left in evaluation mode, scaled, calibrated on the validation lists.
        train: Coded lists. Those without a click teach no order and are left out.
        valid: Coded lists, whole, never sampled.
        config: How. Same seed, same data, same machine: same weights.
        on_epoch: Called after each epoch.

    Raises:
        DataError: No training list holds a click and another candidate.
    """
    train = _teaching(train)
    model.fit_scales(train)
    optimiser = torch.optim.Adam(model.parameters(), config.learning_rate)
    rng = np.random.default_rng(config.seed)
    hide = torch.Generator().manual_seed(config.seed)
    watched = train.chosen(np.arange(0, len(train), max(1, len(train) // CURVE_LISTS)))
    losses, of_train, of_valid, logits = [], [], [], []
    best, best_weights = -1.0, copy.deepcopy(model.state_dict())
    for epoch in range(config.epochs):
        losses.append(_epoch(model, train, optimiser, config, rng, hide))
        of_train.append(mean_mrr(score(model, watched), watched))
        logits.append(score(model, valid))
        of_valid.append(mean_mrr(logits[-1], valid))
        on_epoch()
        if of_valid[-1] > best:
            best, best_weights = of_valid[-1], copy.deepcopy(model.state_dict())
        elif epoch + 1 - (int(np.argmax(of_valid)) + 1) >= config.patience:
            break
    model.load_state_dict(best_weights)
    model.eval()
    chosen = int(np.argmax(of_valid))
    model.calibrate(logits[chosen], valid.label)
    return Fitted(Curves(tuple(losses), tuple(of_train), tuple(of_valid), chosen + 1), np.stack(logits))


def score(model: Model, lists: Lists) -> Floats:
    """Logits of all candidates, shape (n_rows,), in the order of the rows."""
    model.eval()
    scores = np.zeros(len(lists.label), np.float32)
    with torch.no_grad():
        for chosen in batches(lists, SCORING_BATCH):
            batch = padded(lists, chosen)
            scores[batch.rows] = model(*tensors(batch)).numpy()
    return scores


def tensors(batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """`(dense, target, history, numbers, mask)` of coded arrays; fields and numbers are stacked along the last axis."""
    return (
        torch.from_numpy(batch.dense),
        torch.from_numpy(np.stack(list(batch.ids.values()), axis=-1)),
        torch.from_numpy(np.stack(list(batch.history_ids.values()), axis=-1)),
        torch.from_numpy(np.stack(list(batch.history_numbers.values()), axis=-1)),
        torch.from_numpy(batch.mask),
    )


def mean_mrr(scores: Array, lists: Lists, k: int = 5) -> float:
    """MRR@k of the lists' orders, a click outside a list counting as 0; ties count against the clicked one.

    Args:
        scores: Shape (n_rows,).
        lists: All requests that were asked, also those whose click is not among the candidates.
        k: Places that count.
    """
    row, clicked = lists.row_request, lists.label == 1
    best = np.full(len(lists), -np.inf)
    np.maximum.at(best, row[clicked], scores[clicked])
    # Others in front: all that score at least as much, clicked ones of the same list apart.
    rank = 1 + np.bincount(row, weights=~clicked & (scores >= best[row]), minlength=len(lists))
    counts = np.isfinite(best) & (rank <= k)
    return float(np.where(counts, 1.0 / rank, 0.0).sum() / max(len(lists), 1))


def _teaching(lists: Lists) -> Lists:
    clicked = np.bincount(lists.row_request, weights=lists.label, minlength=len(lists))
    teaching = lists.chosen(np.flatnonzero((clicked > 0) & (clicked < lists.length)))
    if not len(teaching):
        raise DataError(
            f"reranker: expected lists with a click among other candidates, found none in {len(lists)}. "
            "Raise --rerank-top, or train without --reranker."
        )
    return teaching


def _epoch(
    model: Model,
    lists: Lists,
    optimiser: torch.optim.Optimizer,
    config: TrainerConfig,
    rng: np.random.Generator,
    hide: torch.Generator,
) -> float:
    """One pass over all lists; the mean loss per list."""
    model.train()
    total = 0.0
    for chosen in batches(lists, config.batch, rng):
        batch = padded(lists, chosen)
        dense, target, history, numbers, mask = tensors(batch)
        target, history = _hidden(target, config.hidden_ids, hide), _hidden(history, config.hidden_ids, hide)
        logits = model(dense, target, history, numbers, mask)
        loss = LOSSES[config.loss](logits, torch.from_numpy(lists.label[batch.rows]).float())
        optimiser.zero_grad()
        (loss + config.l2 * _length_of_present(model.network, target, history)).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        total += float(loss.detach()) * len(chosen)
    return total / len(lists)


def _hidden(codes: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Some codes as unknown."""
    return codes * (torch.rand(codes.shape, generator=generator) >= share)


def _length_of_present(network: nn.Module, target: Tensor, history: Tensor) -> Tensor:
    """Squared length of the embeddings of one batch, each once; networks keep theirs in `embed.tables`, by field."""
    tables = getattr(getattr(network, "embed", None), "tables", ())
    present = [
        table.weight[torch.unique(torch.cat([target[..., i].flatten(), history[..., i].flatten()]))].square().sum()
        for i, table in enumerate(tables)
    ]
    return torch.stack(present).sum() if present else torch.zeros(())
