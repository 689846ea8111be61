"""An objective with a known answer that costs nothing, for tests of the loop around it; and a worker of its own.

`python -m tests.tuning.planted URL STUDY TRIALS SECONDS` works on a study until it has so many finished trials.
"""

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from newsrec.data import Log
from newsrec.progress import Silent
from newsrec.split import SplitConfig
from newsrec.train_config import TrainConfig
from tuning.frames import Frames, write_frames
from tuning.objective import FoldDone, Measured, Report
from tuning.pruning import FoldPruner
from tuning.samplers import SeededByTrial
from tuning.spaces import Dimension, Space
from tuning.storage import open_storage
from tuning.study import open_study
from tuning.trials import Plan, work

SPACE: Space = {"x": Dimension(0.9, 0.0, 1.0), "y": Dimension(5, 1, 9)}
PROTOCOL = {"ranker": "lgbm", "metric": "ndcg@10", "seed": 0, "data": {"fingerprint": "f"}}


CONFIG = TrainConfig(split=SplitConfig(train_requests=500, valid_requests=120, valid_days=0.5))
"""Small, and nothing but that."""


def frames_of(log: Log, folder: Path, config: TrainConfig = CONFIG, folds: int = 2) -> Frames:
    """Described rows in a folder, which is made."""
    folder.mkdir(exist_ok=True)
    return write_frames(config, log, folds, folder, Silent())


def measured(score: float) -> Measured:
    """Two folds of three requests each."""
    return Measured((score, score), np.full(6, score, np.float32), {"trees": [1, 1]})


def planted(params: Mapping[str, Any], report: Report, fold_done: FoldDone) -> Measured:
    """Best at x = 0.3 and y = 5."""
    score = 1 - (params["x"] - 0.3) ** 2 - 0.01 * abs(params["y"] - 5)
    report(0, 75, score)
    fold_done(0, score)
    return measured(score)


def slow(seconds: float) -> Callable[[Mapping[str, Any], Report, FoldDone], Measured]:
    """The same, but each trial takes a while."""

    def objective(params: Mapping[str, Any], report: Report, fold_done: FoldDone) -> Measured:
        time.sleep(seconds)
        return planted(params, report, fold_done)

    return objective


def study_at(url: str, name: str = "s", protocol: Mapping[str, Any] = PROTOCOL, **more: Any) -> optuna.Study:
    """Made or continued."""
    return open_study(open_storage(url), name, protocol, SPACE, **more)


if __name__ == "__main__":
    url, name, trials, seconds = sys.argv[1:]
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    joined = optuna.load_study(
        storage=open_storage(url), study_name=name, sampler=SeededByTrial("tpe", 0), pruner=FoldPruner()
    )
    work(joined, slow(float(seconds)), SPACE, Plan(int(trials)))
