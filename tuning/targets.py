"""What can be searched, by name: the one list that the command line, the workers and the tests derive from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from newsrec.data import Log
from newsrec.progress import Progress
from newsrec.rerankers import RERANKERS
from newsrec.train_config import TrainConfig
from tuning.frames import Frames, write_frames
from tuning.objective import TUNED, LgbmObjective, Objective, Setting
from tuning.selection import SwitchObjective

SWITCHES: Final = "switches"
"""Of the ranker's features; its space follows from the log."""


@dataclass(frozen=True)
class Target:
    """One thing to search; its space stands in `tuning.spaces.SPACES` under the same name."""

    write: Callable[[TrainConfig, Log, int, Path, Progress], Frames]
    """Lays down what its trials learn from; see `tuning.frames.write_frames`."""
    objective: Callable[[Frames, Setting], Objective]
    """Makes its trials, in each worker."""
    metrics: tuple[str, ...] = TUNED
    """What a study may maximise, the default first."""
    prunes: bool = True
    """Whether bad trials are given up before their last fold."""


def _write_tops(config: TrainConfig, log: Log, folds: int, folder: Path, tell: Progress) -> Frames:
    from tuning.reranking import write_tops  # only where it is asked for, as it needs torch

    return write_tops(config, log, folds, folder, tell)


def _network(name: str, frames: Frames, setting: Setting) -> Objective:
    from tuning.reranking import RerankObjective

    return RerankObjective(name, frames, setting)


TARGETS: Final[Mapping[str, Target]] = {
    "lgbm": Target(write_frames, LgbmObjective),
    SWITCHES: Target(write_frames, SwitchObjective, prunes=False),  # every trial is judged
    **{name: Target(_write_tops, partial(_network, name), metrics=("mrr@5",)) for name in RERANKERS},
}
"""A new one is one more line."""
