"""The one trainer of all networks: coded lists in, the weights of the best epoch and the curves out.

Negatives are sampled for training only. Both curves are of whole lists, drawn evenly, those that recall missed
included, so that they can be compared.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from features.windows import Ints
from newsrec.errors import DataError, UsageError
from newsrec.neural.balance import BALANCES, known_bce
from newsrec.neural.checkpoint import CURVES, Checkpoint, Standing
from newsrec.neural.curves import Curves
from newsrec.neural.losses import LOSSES
from newsrec.neural.model import Model
from newsrec.tensors import Array, Batch, Floats, Lists, batches, padded

METRIC = "mrr@5"
CURVE_LISTS = 2_000
"""Training lists, at most, that the training curve is measured on."""
SCORING_BATCH = 128
"""Lists scored at once: what a layer makes of more does not fit a processor's cache, and takes twice as long."""


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
    decay: float = 0.0
    """Share of all other weights that goes per step and unit of learning rate, >= 0 (AdamW)."""
    hidden_ids: float = 0.1
    """Share of ids that training shows as unknown, 0..1: most articles of tomorrow are."""
    hidden_dense: float = 0.0
    """Share of dense values that training shows as unknown, 0..1."""
    balance: str = "fixed"
    """Of several tasks: name in `newsrec.neural.balance.BALANCES`."""
    negatives: int | None = 4
    """Other candidates per clicked one, drawn anew in each epoch, >= 1; None: all. Validation has always all."""
    device: str = "auto"
    """`auto` (a GPU where there is one), or what torch calls a device."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what is unknown or out of range.

        Raises:
            UsageError: With every such field.
        """
        good = {
            f"a loss of {sorted(LOSSES)}, found {self.loss!r}": self.loss in LOSSES,
            f"a balance of {sorted(BALANCES)}, found {self.balance!r}": self.balance in BALANCES,
            f"epochs >= 1, found {self.epochs}": self.epochs >= 1,
            f"patience >= 1, found {self.patience}": self.patience >= 1,
            f"batch >= 1, found {self.batch}": self.batch >= 1,
            f"learning_rate above 0, found {self.learning_rate}": 0 < self.learning_rate < np.inf,
            f"l2 >= 0, found {self.l2}": 0 <= self.l2 < np.inf,
            f"decay >= 0, found {self.decay}": 0 <= self.decay < np.inf,
            f"hidden_ids in 0..1, found {self.hidden_ids}": 0 <= self.hidden_ids <= 1,
            f"hidden_dense in 0..1, found {self.hidden_dense}": 0 <= self.hidden_dense <= 1,
            f"negatives >= 1 or null for all, found {self.negatives}": self.negatives is None or self.negatives >= 1,
        }
        faults = [wanted for wanted, holds in good.items() if not holds]
        if faults:
            raise UsageError(f"reranker: expected {'; '.join(faults)}.")


@dataclass(frozen=True)
class Fitted:
    """What training left, beside the model's weights."""

    curves: Curves
    logits: Floats
    """Of the validation rows after each epoch, before calibration, shape (epochs, n_rows)."""


def fit(
    model: Model,
    train: Lists,
    valid: Lists,
    config: TrainerConfig,
    on_epoch: Callable[[float], None] = lambda _: None,
    checkpoint: Checkpoint | None = None,
) -> Fitted:
    """Train until the validation no longer improves, and keep the best weights.

    Args:
        model: Left on the CPU in evaluation mode, scaled, calibrated on the validation lists.
        train: Coded lists, whole. Those without a click teach no order; they count in the curve only.
        valid: Coded lists, whole, never sampled.
        config: How. Same seed, same data, same machine: same weights.
        on_epoch: Called after each epoch with its validation metric; may raise to end the training.
        checkpoint: Kept after each epoch; where it is of this training, that goes on.

    Raises:
        DataError: No training list holds a click and another candidate.
    """
    teaching = _teaching(train)
    model.fit_scales(teaching)
    if checkpoint is not None:
        what_an_epoch_does = replace(config, epochs=1, patience=1)  # how many there are may change
        checkpoint.bind(model, asdict(what_an_epoch_does), (train, valid))
    model.to(_device(config.device))
    optimiser = _optimiser(model, config)
    standing = None if checkpoint is None else checkpoint.load(model, optimiser)
    standing = standing or Standing({name: [] for name in CURVES}, [], {})
    watched = train.chosen(np.arange(0, len(train), max(1, len(train) // CURVE_LISTS)))
    of_valid = standing.curves["valid"]
    if not of_valid:
        pretrain(model, train, config)
    while not _is_over(of_valid, config):
        standing.curves["loss"].append(_epoch(model, teaching, optimiser, config, len(of_valid)))
        standing.curves["train"].append(mean_mrr(score(model, watched), watched))
        standing.logits.append(score(model, valid))
        of_valid.append(mean_mrr(standing.logits[-1], valid))
        if int(np.argmax(of_valid)) == len(of_valid) - 1:
            standing.best.update({name: weight.cpu().clone() for name, weight in model.state_dict().items()})
        if checkpoint is not None:
            checkpoint.save(standing, model, optimiser)
        on_epoch(of_valid[-1])
    model.cpu().load_state_dict(standing.best)
    model.eval()
    chosen = int(np.argmax(of_valid))
    model.calibrate(standing.logits[chosen], valid.label)
    loss, of_train, of_valid = (standing.curves[name] for name in CURVES)
    return Fitted(Curves(tuple(loss), tuple(of_train), tuple(of_valid), chosen + 1), np.stack(standing.logits))


def score(model: Model, lists: Lists) -> Floats:
    """Logits of all candidates, shape (n_rows,), in the order of the rows."""
    model.eval()
    device = _device_of(model)
    scores = np.zeros(len(lists.label), np.float32)
    with torch.no_grad():
        for chosen in batches(lists, SCORING_BATCH):
            batch = padded(lists, chosen)
            scores[batch.rows] = model(*(each.to(device) for each in tensors(batch))).cpu().numpy()
    return scores


def score_tasks(model: Model, lists: Lists) -> Floats:
    """Logits of all candidates for every task, shape (n_rows, tasks), in the order of the rows."""
    model.eval()
    device = _device_of(model)
    found = np.zeros((len(lists.label), 1 + len(lists.further)), np.float32)
    with torch.no_grad():
        for chosen in batches(lists, SCORING_BATCH):
            batch = padded(lists, chosen)
            found[batch.rows] = model.of_tasks(*(each.to(device) for each in tensors(batch)))[0].cpu().numpy()
    return found


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


def sampled(lists: Lists, negatives: int, rng: np.random.Generator) -> Lists:
    """The clicked candidates of each list and, for each of them, at most so many others, evenly drawn; order kept."""
    row, clicked = lists.row_request, lists.label == 1
    order = np.lexsort((rng.random(len(row)), ~clicked, row))  # clicked ones first, then the others as drawn
    place = np.arange(len(row)) - lists.start[row]
    clicks = np.bincount(row, weights=lists.label, minlength=len(lists))
    kept = np.zeros(len(row), np.bool_)
    kept[order] = place < (clicks * (1 + negatives))[row]
    return lists.only(kept)


def _epoch(model: Model, lists: Lists, optimiser: torch.optim.Optimizer, config: TrainerConfig, epoch: int) -> float:
    """One pass over all lists; the mean loss per list. Chance depends on seed and epoch alone."""
    rng = np.random.default_rng([config.seed, epoch])
    device = _device_of(model)
    if config.negatives is not None:
        lists = sampled(lists, config.negatives, rng)
    of_list = np.ones(len(lists), np.float32) if lists.weight is None else lists.weight
    tables = [module.weight for module in model.modules() if isinstance(module, nn.Embedding)]
    model.train()
    total = torch.zeros((), device=device)
    with torch.random.fork_rng():
        torch.manual_seed(int(rng.integers(2**62)))
        for chosen in batches(lists, config.batch, rng):
            batch = padded(lists, chosen)
            dense, target, history, numbers, mask = (each.to(device) for each in tensors(batch))
            dense = torch.where(_drawn(dense, config.hidden_dense), torch.nan, dense)
            target, history = (codes.masked_fill(_drawn(codes, config.hidden_ids), 0) for codes in (target, history))
            inputs = (dense, target, history, numbers, mask)
            weight = torch.from_numpy(of_list[chosen]).to(device).float()
            loss = _loss(model, config, inputs, lists, batch.rows, weight)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            _shorten(tables, config.l2)
            optimiser.step()
            total += loss.detach() * len(chosen)
    return float(total) / len(lists)


def pretrain(model: Model, lists: Lists, config: TrainerConfig) -> list[float]:
    """Let the network guess masked clicks of all histories, labels unseen; the mean loss of each epoch it wants."""
    device, optimiser = _device_of(model), _optimiser(model, config)
    losses = []
    model.train()
    for epoch in range(model.pretraining):
        rng = np.random.default_rng([config.seed, epoch, 1])
        total, steps = torch.zeros((), device=device), 0
        with torch.random.fork_rng():
            torch.manual_seed(int(rng.integers(2**62)))
            for chosen in batches(lists, config.batch, rng):
                _, _, history, numbers, mask = (each.to(device) for each in tensors(padded(lists, chosen)))
                loss = model.masked_loss(history, numbers, mask)
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                total, steps = total + loss.detach(), steps + 1
        losses.append(float(total) / max(steps, 1))
    return losses


def _loss(
    model: Model, config: TrainerConfig, inputs: tuple[Tensor, ...], lists: Lists, rows: Ints, weight: Tensor
) -> Tensor:
    """Of a batch: the click's by its name, further tasks' pointwise, balanced, and what the network adds."""
    of_click = LOSSES[config.loss]
    labels = torch.from_numpy(lists.label[rows]).to(weight.device).float()  # (lists, candidates)
    if not lists.further:
        logits, extra = model.taught(*inputs)
        return of_click(logits, labels, weight) + extra
    logits, shared, extra = model.of_tasks(*inputs)
    further = [torch.from_numpy(values[rows]).to(weight.device) for values in lists.further.values()]
    losses = [of_click(logits[..., 0], labels, weight)]
    losses += [known_bce(logits[..., i], values, weight) for i, values in enumerate(further, 1)]
    return BALANCES[config.balance](torch.stack(losses), shared, model.network.log_variance) + extra  # type: ignore[arg-type]


def _drawn(values: Tensor, share: float) -> Tensor:
    """Some places, evenly drawn; shape kept."""
    return torch.rand(values.shape, device=values.device) < share


def _shorten(tables: list[Tensor], l2: float) -> None:
    """Add the gradient of `l2` times the squared length of each embedding that the batch held."""
    for table in tables:
        if table.grad is not None:
            present = (table.grad != 0).any(dim=1, keepdim=True)
            table.grad.add_(2 * l2 * table.detach() * present)


def _optimiser(model: Model, config: TrainerConfig) -> torch.optim.Optimizer:
    """AdamW; embeddings are shortened where they are present (`_shorten`), and do not decay."""
    tables = {module.weight for module in model.modules() if isinstance(module, nn.Embedding)}
    groups = [
        {"params": [p for p in model.parameters() if p not in tables], "weight_decay": config.decay},
        {"params": [p for p in model.parameters() if p in tables], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], config.learning_rate, fused=True)


def _is_over(valid: list[float], config: TrainerConfig) -> bool:
    since = len(valid) - 1 - int(np.argmax(valid)) if valid else 0
    return len(valid) >= config.epochs or since >= config.patience


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _device_of(model: nn.Module) -> torch.device:
    return next(iter(model.parameters())).device
