"""`EXPERIMENTS`: an experiment is a name, its cells, and which of them the others are compared with."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from newsrec.experiment.config import RANKER, AnyCell, Cell, ExperimentConfig, NetworkCell, RecallCell
from newsrec.recall import CHANNELS, DEFAULT_CHANNELS
from newsrec.rerankers import learns_tasks

QUOTAS: Final = (10, 20, 50, 100)
"""Articles of each channel at most."""


def negatives(config: ExperimentConfig) -> list[Cell]:
    """Samplers x ratios x importance weights, whole lists, and the default."""
    drawn = [
        Cell(sampler, ratio, weighted)
        for sampler in config.samplers
        for ratio in config.ratios
        for weighted in (True, False)
    ]
    return [*drawn, Cell("all"), Cell("list"), Cell("list", weighted=False)]


def objective(config: ExperimentConfig) -> list[Cell]:
    """What the ranker makes small; LambdaRank comes first."""
    from newsrec.rankers.lgbm import OBJECTIVES

    return [Cell("list", params={"objective": name}) for name in OBJECTIVES]


def overfit(config: ExperimentConfig) -> list[Cell]:
    """Early stopping, depth and width of the trees, regularisation, and negatives, against the gap of the curves."""
    changes: tuple[dict[str, Any], ...] = (
        {},
        {"patience": 10_000},
        {"num_leaves": 7},
        {"num_leaves": 255, "min_data_in_leaf": 20},
        {"lambda_l2": 100.0, "min_data_in_leaf": 1_000},
    )
    return [*(Cell("list", params=change) for change in changes), *(Cell(name, 4.0) for name in ("random", "hard"))]


def rerankers(config: ExperimentConfig) -> list[NetworkCell]:
    """Networks x losses, the ranker's own order, and for networks of several tasks the same tasks each alone."""
    tasks = {name: config.tasks if learns_tasks(name) else () for name in config.networks}
    several = [name for name in config.networks if learns_tasks(name)]
    return [
        NetworkCell(RANKER),
        *(NetworkCell(name, loss, tasks=tasks[name]) for loss in config.losses for name in config.networks),
        *(NetworkCell(name, loss, alone=True, tasks=config.tasks) for loss in config.losses for name in several),
    ]


def recall(config: ExperimentConfig) -> list[RecallCell]:
    """The default channels, each channel alone, all of them, all but each, and all with quotas."""
    return [
        RecallCell("default", DEFAULT_CHANNELS),
        *(RecallCell(name, (name,)) for name in CHANNELS),
        RecallCell("all"),
        *(RecallCell(f"all but {name}", without=(name,)) for name in CHANNELS),
        *(RecallCell("all", quota=quota) for quota in QUOTAS),
    ]


@dataclass(frozen=True)
class Experiment:
    """One question."""

    cells: Callable[[ExperimentConfig], Sequence[AnyCell]]
    baseline: Callable[[Any], bool]
    """Whether the others are compared with this cell; the first such, or the first of all."""
    meaning: str


EXPERIMENTS: Final[Mapping[str, Experiment]] = {
    "negatives": Experiment(
        negatives, lambda cell: cell.sampler == "random" and cell.weighted, "which negatives, how many, weighed or not"
    ),
    "objective": Experiment(objective, lambda cell: True, "what the ranker makes small"),
    "overfit": Experiment(overfit, lambda cell: True, "what each does to the gap of the curves"),
    "recall": Experiment(recall, lambda cell: True, "which channels, and how much of each"),
    "rerankers": Experiment(
        rerankers, lambda cell: cell.network == "pooling", "which network orders the top again, and by which loss"
    ),
}
"""Every experiment by its name."""
