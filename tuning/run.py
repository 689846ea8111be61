"""A whole study in order: read, open, describe once, run trials, write what was found.

`python -m tuning` and the library function `tune` do the same.
"""

import glob
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import optuna
import polars as pl

from newsrec import __version__
from newsrec.bundle import refuse_unwritable_file
from newsrec.data import Log
from newsrec.errors import UsageError
from newsrec.process import pool_memory
from newsrec.progress import Progress, Silent
from newsrec.rerankers import RERANKERS, learns_tasks
from newsrec.split import SplitConfig
from newsrec.train import read
from newsrec.train_config import TrainConfig
from tuning.frames import Frames
from tuning.objective import Setting
from tuning.page import write_page
from tuning.product import USERS, best_trial, product, refuse_overwriting, write_product
from tuning.recovery import start_of
from tuning.samplers import refuse_unusable
from tuning.selection import one_off, selection, switch_space, switches_of
from tuning.spaces import SPACES, Space, described, with_file
from tuning.stopping import Asked, heeding_signals
from tuning.storage import DEFAULT, folder_beside, open_storage, storage_faults
from tuning.study import open_study, refuse_name
from tuning.targets import SWITCHES, TARGETS
from tuning.trials import Plan, finished, packed, work
from tuning.workers import WorkerTask, run_workers

TRAIN_REQUESTS: Final = 30_000
"""Of a trial: minutes on two cores; the scales of the space carry over to more."""
VALID_REQUESTS: Final = 4_000
"""Of a fold."""
PAGE: Final = "study.html"
"""Beside the parameters."""


@dataclass(frozen=True)
class TuneConfig:
    """One study. The defaults are those of the command line."""

    out: Path
    """The file that `train --params` reads."""
    trials: int
    """Finished trials that the study is to have in the end, >= 1."""
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            split=SplitConfig(train_requests=TRAIN_REQUESTS, valid_requests=VALID_REQUESTS)
        )
    )
    """Data, split, recall, features: what `train` would be told. With a `reranker`, that is searched, on the tops of a
    ranker with these `params`."""
    folds: int = 3
    """>= 1."""
    metric: str | None = None
    """What to maximise, of the target's metrics; None is the first of them."""
    storage: str = DEFAULT
    study: str | None = None
    """Name; None is one that follows from ranker and data."""
    sampler: str = "tpe"
    space: Path | None = None
    """TOML file that narrows or widens the space."""
    switches: str | None = None
    """Search which features can go instead: name in `tuning.selection.LEVELS`."""
    latency: bool = False
    """Whether to weigh quality against the 99th percentile of a request's scoring time."""
    jobs: int = 1
    """Worker processes, >= 1."""
    timeout: float | None = None
    """Seconds after which no trial begins, > 0."""
    overwrite: bool = False

    def refuse_contradictions(self) -> None:
        """Find out before the work what cannot be done.

        Raises:
            UsageError: With the setting that is unknown or out of range.
        """
        self.train.refuse_contradictions()
        if self.switches is not None and self.train.reranker is not None:
            raise UsageError("--switches: expected no --reranker with it, as they are the ranker's, found both.")
        if self.model not in TARGETS:
            raise UsageError(f"--reranker: expected one of {sorted(RERANKERS)} to tune, found {self.model!r}.")
        if self.train.reranker is not None and learns_tasks(self.train.reranker):
            raise UsageError(
                f"--reranker: expected a network of one task to tune, found {self.model!r}. Take its base."
            )
        known = TARGETS[self.model].metrics
        if self.aim not in known:
            raise UsageError(f"--metric: expected one of {list(known)} for {self.model}, found {self.metric!r}.")
        if self.train.reranker is None and self.train.params:
            raise UsageError("--params: expected --reranker with it, as the ranker's are searched, found none.")
        if self.train.reranker is not None and self.latency:
            raise UsageError("--latency: expected a study of the ranker, found --reranker with it.")
        low = {"--trials": self.trials, "--folds": self.folds, "--jobs": self.jobs}
        wrong = [f"{name} {value}" for name, value in low.items() if value < 1]
        if wrong:
            raise UsageError(f"tuning: expected at least 1, found {', '.join(wrong)}.")
        if self.timeout is not None and not self.timeout > 0:
            raise UsageError(f"--timeout: expected seconds above zero, found {self.timeout:g}.")
        refuse_unusable(self.sampler)
        refuse_unwritable_file(self.out)
        if self.study is not None:
            refuse_name(self.study)

    @property
    def model(self) -> str:
        """Name in `tuning.targets.TARGETS`."""
        return SWITCHES if self.switches is not None else self.train.reranker or self.train.ranker

    @property
    def aim(self) -> str:
        """The metric to maximise."""
        return self.metric or TARGETS[self.model].metrics[0]


@dataclass(frozen=True)
class TuneResult:
    """What a study has found so far."""

    params: dict[str, Any]
    """The content of `params.json`, or of the selection's file."""
    stopped: bool
    """Whether a pressed key ended it before its last trial."""

    def in_words(self, out: Path) -> str:
        """One line for the reader."""
        stopped = "stopped; the same command continues. " if self.stopped else ""
        return f"{stopped}{_told(self.params)}; written: {out}"


def _told(found: Mapping[str, Any]) -> str:
    if "without" in found:
        gone = ",".join(found["without"])
        return f"without loss: train --without {gone}" if gone else "nothing can go without loss"
    counts = ", ".join(f"{n} {name}" for name, n in found["trials"].items())
    line = f"{found['metric']} {found['score']:.5f} (trial {found['trial']}; {counts})"
    gain = found["gain_where_chosen"]
    if gain is None:
        return f"{line}; the defaults are the best so far"
    return f"{line}, {gain['difference']:+.5f} to the defaults ({gain['low']:+.5f} .. {gain['high']:+.5f}) where chosen"


def tune(config: TuneConfig, progress: Progress | None = None, *, log: Log | None = None) -> TuneResult:
    """Continue a study until it has the asked number of finished trials, and write its best.

    A run in one process is repeatable; runs of several workers are not, as a sampler proposes by what has finished.

    Args:
        config: What to search, and where.
        progress: Told of stages and trials; None is silent.
        log: A log that is already in memory; None reads `config.train.data`.

    Raises:
        NewsrecError: Bad data, contradicting settings, a storage that fails, another study of that name, or no
            complete trial. Finished trials are kept in any case.
    """
    tell = progress or Silent()
    pool_memory()
    config.refuse_contradictions()
    log = read(config.train) if log is None else log
    switches = {} if config.switches is None else switches_of(config.switches, config.train, log)
    space = with_file(switch_space(switches) if switches else SPACES[config.model], config.space)
    name = config.study or f"{config.model}-{log.fingerprint[:12]}"
    refuse_overwriting(config.out, name, config.overwrite)
    with storage_faults(config.storage):
        study = open_study(
            open_storage(config.storage, tell),
            name,
            protocol_of(config, log, space),
            space,
            sampler=config.sampler,
            seed=config.train.seed,
            latency=config.latency,
            also=one_off(switches),
        )
        done = finished(study)
        tell.say(f"study {name}: {done} of {config.trials} trials are finished")
        stopped = False
        if done < config.trials:
            with _frames_folder(config.storage) as folder:
                frames = TARGETS[config.model].write(config.train, log, config.folds, folder, tell)
                del log
                _keep_requests(study, frames)
                stopped = _run(config, study, frames, space, _setting(config, switches), tell)
        found = selection(study) if switches else product(study, space)
        write_product(config.out, found)
        write_page(study, config.out.with_name(PAGE))
    return TuneResult(found, stopped)


def protocol_of(config: TuneConfig, log: Log, space: Space) -> dict[str, Any]:
    """All that makes the scores of two trials comparable."""
    settled = config.train.settled(log)
    split = asdict(settled.split)
    return {
        "target": config.model,
        "ranker": settled.ranker,
        "params": dict(settled.params),
        "reranker": settled.reranker,
        "rerank_top": settled.rerank_top,
        "metric": config.aim,
        "folds": config.folds,
        "data": {"format": log.format, "fingerprint": log.fingerprint},
        "candidates": settled.candidates_in_words,
        "recall_refresh_ms": settled.recall_settings.refresh_ms,
        "without": sorted(settled.without),
        "split": {name: value for name, value in split.items() if name != "test_requests"},
        "sampling": asdict(settled.sampling),
        "space": described(space),
        "seed": settled.seed,
        "newsrec": __version__,
    }


def _run(
    config: TuneConfig, study: optuna.Study, frames: Frames, space: Space, setting: Setting, tell: Progress
) -> bool:
    """Run the trials; True where a pressed key ended them."""
    deadline = None if config.timeout is None else time.time() + config.timeout
    plan = Plan(config.trials, deadline, TARGETS[config.model].prunes)
    with tell.tally("trials", config.trials) as show, heeding_signals() as asked:

        def look() -> None:
            show(finished(study), in_words(study))

        look()
        try:
            if config.jobs == 1:
                objective = TARGETS[config.model].objective(frames, setting)
                work(study, objective, space, plan, on_trial=look, stop=asked)
            else:
                _run_workers(config, study, frames, space, setting, plan, look, asked, tell)
        finally:
            look()
        return asked() and finished(study) < config.trials


def _run_workers(
    config: TuneConfig,
    study: optuna.Study,
    frames: Frames,
    space: Space,
    setting: Setting,
    plan: Plan,
    look: Callable[[], None],
    asked: Asked,
    tell: Progress,
) -> None:
    threads = max(1, (os.cpu_count() or 1) // config.jobs)
    task = WorkerTask(
        config.storage,
        study.study_name,
        frames.folder,
        config.model,
        space,
        replace(setting, threads=threads),
        plan,
        config.sampler,
        config.train.seed,
    )
    bad = run_workers(task, config.jobs, study, look, asked)
    if bad:
        tell.say(f"note: {len(bad)} of {config.jobs} workers ended early (exit codes {bad})")
    if len(bad) == config.jobs:
        raise UsageError(
            f"tuning: expected {config.trials} finished trials, found {finished(study)} as every worker ended early "
            f"(exit codes {bad}). Finished trials are kept; the same command continues."
        )


def _setting(config: TuneConfig, switches: Mapping[str, tuple[str, ...]]) -> Setting:
    return Setting(config.aim, config.train.seed, latency=config.latency, switches=tuple(switches.items()))


def in_words(study: optuna.Study) -> str:
    """The best so far, for a progress bar."""
    best = best_trial(study)
    return "" if best is None else f"best {best.values[0]:.5f} (trial {best.number})"


def _keep_requests(study: optuna.Study, frames: Frames) -> None:
    """What a paired interval needs to know of the validation requests, and what the product tells of the folds."""
    if USERS in study.user_attrs:
        return
    users = pl.concat([frames.requests(fold)["user_id"] for fold in range(len(frames.facts.folds))])
    study.set_user_attr("folds", [asdict(fold) for fold in frames.facts.folds])
    study.set_user_attr(USERS, packed((users.rank("dense").to_numpy() - 1).astype(np.int32)))


@contextmanager
def _frames_folder(storage: str) -> Iterator[Path]:
    """A folder for the frames of this run, beside the storage; those of runs that were killed are removed first."""
    beside = folder_beside(storage)
    beside.mkdir(parents=True, exist_ok=True)
    prefix = f".frames-{platform.node()}-"
    for old in beside.glob(f"{glob.escape(prefix)}*"):
        pid, _, started = old.name.removeprefix(prefix).partition("-")
        if pid.isdigit() and str(start_of(int(pid))) != started:
            shutil.rmtree(old, ignore_errors=True)
    folder = beside / f"{prefix}{os.getpid()}-{start_of(os.getpid())}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
