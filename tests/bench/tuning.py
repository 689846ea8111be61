"""A study at work: what a trial costs beside the bare `lgb.train`, and what a second worker brings and takes."""

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import lightgbm as lgb
import optuna

from newsrec.data import Log, read_log
from newsrec.process import return_big_blocks
from newsrec.progress import Silent
from newsrec.rankers.lgbm import LgbmParams
from newsrec.simulate import simulate
from newsrec.split import SplitConfig
from newsrec.train_config import TrainConfig
from tuning.frames import Frames, write_frames
from tuning.objective import LgbmObjective, Setting
from tuning.run import TRAIN_REQUESTS, VALID_REQUESTS
from tuning.spaces import LGBM, Dimension, Space
from tuning.storage import open_storage
from tuning.study import open_study
from tuning.trials import Plan, finished, work
from tuning.workers import WorkerTask, run_workers

ROUNDS = 3
TREES = 100
"""Of a trial whose cost is measured; on Globo the defaults stop after 180."""
FEW_TREES = 40
"""Of the trials that workers share: how long one is matters less there."""
TRIALS = 4
PROTOCOL = {"metric": "ndcg@10"}


def fixed(trees: int) -> Space:
    """The defaults with a fixed number of trees: every trial is the same work."""
    return {name: Dimension(each.default, choices=(each.default,)) for name, each in LGBM.items()} | {
        "trees": Dimension(trees, choices=(trees,)),
        "patience": Dimension(trees, choices=(trees,)),
        "lambda_l2": Dimension(5.0, 4.9, 5.1),
    }


def cost(data: Path | None) -> Iterator[str]:
    """Ratio of a trial, reports, pruner and storage included, to bare training on the same binned rows."""
    with _frames(data, folds=2) as (frames, folder):
        yield _described(frames, TREES)
        yield _cost(frames, folder)


def workers(data: Path | None) -> Iterator[str]:
    """Trials a minute and memory of one worker with all cores, and of two with half of them each."""
    with _frames(data, folds=3) as (frames, folder):
        yield _described(frames, FEW_TREES)
        yield from _workers(frames, folder)


@contextmanager
def _frames(data: Path | None, folds: int) -> Iterator[tuple[Frames, Path]]:
    return_big_blocks()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        split = SplitConfig(train_requests=TRAIN_REQUESTS, valid_requests=VALID_REQUESTS)
        made = Path(folder) / "frames"
        made.mkdir()
        yield write_frames(TrainConfig(split=split), _log(data), folds, made, Silent()), Path(folder)


def _described(frames: Frames, trees: int) -> str:
    rows = ", ".join(f"{fold.rows:,}" for fold in frames.facts.folds)
    return f"{len(frames.facts.features)} features, {rows} training rows, {trees} trees a fold"


def _log(data: Path | None) -> Log:
    return simulate().log if data is None else read_log(data)


def _cost(frames: Frames, folder: Path) -> str:
    """Trials through a study on SQLite, reports and pruner included, in turn with bare training."""
    objective = LgbmObjective(frames, Setting("ndcg@10"))
    binned = [objective._binned(fold) for fold in range(len(frames.facts.folds))]
    space = fixed(TREES)
    study = open_study(open_storage(f"sqlite:///{folder}/cost.db"), "cost", PROTOCOL, space)

    def bare() -> None:
        for fold, (train, valid) in enumerate(binned):
            params = LgbmParams(trees=TREES, patience=TREES).for_rows(frames.facts.folds[fold].rows)
            stop = lgb.early_stopping(TREES, verbose=False)
            settings = objective.settings(params)
            lgb.train(settings, train, TREES, valid_sets=[valid], valid_names=["valid"], callbacks=[stop])

    def trial() -> None:
        work(study, objective, space, Plan(finished(study) + 1))

    bare()
    spent = [(_seconds(bare), _seconds(trial)) for _ in range(ROUNDS)]
    alone, ours = (median(each) for each in zip(*spent, strict=True))
    return f"a trial {ours:.2f} s, bare lgb.train {alone:.2f} s: {ours / alone:.3f} times (limit 1.05)"


def _workers(frames: Frames, folder: Path) -> Iterator[str]:
    """The same number of equal trials by one worker with all cores and by two with half of them each."""
    found, space = [], fixed(FEW_TREES)
    for jobs in (1, 2):
        url = f"sqlite:///{folder}/jobs-{jobs}.db"
        study = open_study(open_storage(url), "jobs", PROTOCOL, space, sampler="random")
        setting = Setting("ndcg@10", threads=max(1, (os.cpu_count() or 1) // jobs))
        task = WorkerTask(url, "jobs", frames.folder, "lgbm", space, setting, Plan(TRIALS), "random", 0)
        seen: list[float] = []

        def look(seen: list[float] = seen) -> None:
            seen.append(sum(_pss_mb(child.pid) for child in multiprocessing.active_children()))

        seconds = _seconds(lambda task=task, jobs=jobs, study=study, look=look: run_workers(task, jobs, study, look))
        times = [t.datetime_complete - t.datetime_start for t in study.trials if t.datetime_complete]
        rate = 60 * finished(study) / seconds
        found.append((rate, max(seen), median(seen)))
        each = median(time.total_seconds() for time in times)
        yield f"{jobs} workers: {rate:.2f} trials a minute ({each:.1f} s each), {_memory(seen)} MB of memory (PSS)"
    (one, alone, usual), (two, both, usually) = found
    yield (
        f"two against one: {two / one:.2f} times the trials, {both / alone:.2f} times the memory at its peak "
        f"(limit 1.8), {usually / usual:.2f} times at the median"
    )


def _memory(seen: list[float]) -> str:
    return f"at most {max(seen):,.0f}, at the median {median(seen):,.0f}"


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _pss_mb(pid: int | None) -> float:
    """Memory of a process, what it shares divided among those that share it."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1000
