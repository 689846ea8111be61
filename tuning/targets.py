"""What can be searched, by name: the one list that the command line, the workers and the tests derive from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from newsrec.data import Log
from newsrec.progress import Progress
from newsrec.train_config import TrainConfig
from tuning.frames import Frames, write_frames
from tuning.objective import LgbmObjective, Objective, Setting
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
    prunes: bool = True
    """Whether bad trials are given up before their last fold."""


TARGETS: Final[Mapping[str, Target]] = {
    "lgbm": Target(write_frames, LgbmObjective),
    SWITCHES: Target(write_frames, SwitchObjective, prunes=False),  # every trial is judged
}
"""A new one is one more line."""
