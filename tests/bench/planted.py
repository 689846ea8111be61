"""Planted truths: worlds in which one network can know what another cannot, three seeds each, with paired intervals."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import torch

from newsrec.neural.model import Model
from newsrec.neural.trainer import TrainerConfig, fit, score
from newsrec.rerankers import history_of, make
from newsrec.rerankers.base import Shape
from newsrec.rerankers.blending import reciprocal_ranks
from newsrec.rerankers.stage import auc_of_lists, task_figures
from newsrec.tensors import Lists
from tests.networks import drifts, interests, long_ago, rare, sessions

SEEDS: Final = 3
TRAIN, VALID = 3_000, 800
CONFIG: Final = TrainerConfig(epochs=16, batch=32, learning_rate=5e-3, hidden_ids=0.0, patience=16, device="cpu")
WORLDS: Final[dict[str, tuple[Callable[..., Lists], str, str, tuple[int, ...]]]] = {
    "an interest that moves": (drifts, "dien", "din", (21,)),
    "sessions": (sessions, "dsin", "din", (21,)),
    "an interest of long ago": (long_ago, "sim", "din", (2, 21)),
    "several interests": (interests, "din", "pooling", (41,)),
}
"""World -> its lists, the network that can know, the one that cannot, codes per field."""


def run(_: Path | None) -> Iterator[str]:
    """One line per world; the last is of a rare second label."""
    torch.set_num_threads(1)
    for name, (world, knows, other, sizes) in WORLDS.items():
        found = {network: [] for network in (knows, other)}
        for seed in range(SEEDS):
            train, valid = world(TRAIN, seed=seed), world(VALID, seed=100 + seed)
            for network, values in found.items():
                values.append(reciprocal_ranks(_scores(network, Shape(1, sizes, 1), train, valid, seed), valid))
        one, two = (np.concatenate(values) for values in (found[other], found[knows]))
        low, high = _interval(two - one)
        yield f"{name}: {knows} {two.mean():.3f}, {other} {one.mean():.3f} (mrr@5), gain {low:+.3f} .. {high:+.3f}"
    for name in ("mmoe", "ple"):
        gains = [_rare_label(name, seed) for seed in range(SEEDS)]
        told = ", ".join(f"{both:.3f} over {alone:.3f}" for both, alone in gains)
        yield f"a rare second label: {name} over its twin of that label alone (auc, one per seed): {told}"


def _scores(name: str, shape: Shape, train: Lists, valid: Lists, seed: int) -> np.ndarray:
    torch.manual_seed(seed)
    model = Model(make(name, shape), shape.dense, shape.numbers)
    read = [lists.newest(history_of(name)) for lists in (train, valid)]
    fit(model, *read, replace(CONFIG, seed=seed))
    return score(model, read[1])


def _interval(differences: np.ndarray) -> tuple[float, float]:
    """95 % of the mean, by bootstrap over lists."""
    rng = np.random.default_rng(0)
    means = [differences[rng.integers(0, len(differences), len(differences))].mean() for _ in range(1_000)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _rare_label(name: str, seed: int) -> tuple[float, float]:
    """AUC of the rare label: taught beside the click, and alone."""
    train, valid = rare(800, seed), rare(1_500, 100 + seed)
    shape = Shape(1, (81,), 1)
    config = replace(CONFIG, loss="bce", epochs=6, negatives=None, learning_rate=3e-3, seed=seed)
    torch.manual_seed(seed)
    both = Model(make(name, replace(shape, tasks=2)), 1, 1)
    fit(both, train, valid, config)
    alone = Model(make(name, shape), 1, 1)
    of_second = (replace(each, label=each.further["second"].astype(np.uint8), further={}) for each in (train, valid))
    fit(alone, *of_second, config)
    found = auc_of_lists(score(alone, valid), valid.further["second"] == 1, valid.row_request)
    return task_figures(both, valid)["second"]["auc"], found
