"""Several worker processes on one study: each maps the same frames, opens the storage for itself, and asks for trials.

Workers are spawned, never forked: a fork after LightGBM has used its threads hangs for ever.
"""

import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

import optuna

from newsrec.errors import NewsrecError
from newsrec.process import pool_memory
from tuning.frames import Frames
from tuning.objective import Setting
from tuning.pruning import FoldPruner
from tuning.recovery import Recovery
from tuning.samplers import SeededByTrial
from tuning.spaces import Space
from tuning.stopping import Asked, heeding_signals
from tuning.storage import open_storage, storage_faults
from tuning.targets import TARGETS
from tuning.trials import Plan, work

LOOK_SECONDS: Final = 1.0
LEAVE_SECONDS: Final = 30.0
"""A worker that was asked to stop gives its trial back within so long, or is killed."""


@dataclass(frozen=True)
class WorkerTask:
    """What a worker is told; plain values, as it is another process."""

    storage: str
    study: str
    frames: Path
    model: str
    """Name in `tuning.targets.TARGETS`."""
    space: Space
    setting: Setting
    plan: Plan
    sampler: str
    seed: int


def run_workers(
    task: WorkerTask, jobs: int, study: optuna.Study, look: Callable[[], None], stop: Asked = lambda: False
) -> list[int]:
    """Start workers, look on until the last has ended, and clear up behind those that died.

    Args:
        task: For each of them.
        jobs: Number of workers, >= 1.
        study: The same, opened here.
        look: Called every second.
        stop: Asked every second; the workers then give their trials back and end.

    Returns:
        Exit codes of the workers that ended badly; negative is the signal that killed one.
    """
    context = multiprocessing.get_context("spawn")
    workers: list[BaseProcess] = [context.Process(target=_worker, args=(task,), daemon=True) for _ in range(jobs)]
    for worker in workers:
        worker.start()
    try:
        while any(worker.is_alive() for worker in workers) and not stop():
            time.sleep(LOOK_SECONDS)
            look()
    finally:
        _stop(workers)
        Recovery().recover(study)
    return [worker.exitcode for worker in workers if worker.exitcode]


def _stop(workers: list[BaseProcess]) -> None:
    for worker in workers:
        worker.terminate()
    until = time.monotonic() + LEAVE_SECONDS
    for worker in workers:
        worker.join(max(0.0, until - time.monotonic()))
        worker.kill()
        worker.join()


def _worker(task: WorkerTask) -> None:
    """The body of a worker process."""
    pool_memory()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    parent = os.getppid()
    try:
        with storage_faults(task.storage), heeding_signals(insist=False) as asked:
            study = optuna.load_study(
                storage=open_storage(task.storage),
                study_name=task.study,
                sampler=SeededByTrial(task.sampler, task.seed),
                pruner=FoldPruner(),
            )
            objective = TARGETS[task.model].objective(Frames.open(task.frames), task.setting)
            # Whoever started this worker also clears up behind it; without that process there is nothing to do.
            work(study, objective, task.space, task.plan, stop=lambda: asked() or os.getppid() != parent)
    except NewsrecError as error:
        sys.stderr.write(f"worker {os.getpid()}: {error}\n")
        sys.exit(2)
