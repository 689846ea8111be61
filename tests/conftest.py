"""One small simulated log and its bundles, trained once per session; every test that changes a bundle copies it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

# Before anything counts cores: processes of pytest-xdist share them, and threads that wait for each other cost minutes.
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    share = str(max(1, (os.cpu_count() or 1) // int(workers)))
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"):
        os.environ.setdefault(variable, share)

import polars as pl
import pytest
from filelock import FileLock

from newsrec.data import Log, write_log
from newsrec.simulate import SimulationConfig, simulate
from newsrec.split import SplitConfig
from newsrec.train import TrainResult, train
from newsrec.train_config import TrainConfig

ROOT = Path(__file__).parents[1]
SMALL = SimulationConfig(users=600, days=4)
FEW_TREES = {"trees": 20, "min_data_in_leaf": 20, "models": 1, "threads": 1}
"""One thread: on a busy machine two threads that wait for each other take ten times as long for so little."""


@pytest.fixture(scope="module", autouse=True)
def one_thread_for_networks() -> None:
    """As in `FEW_TREES`; only where a module of tests has loaded torch."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def log() -> Log:
    """Four days of 600 readers, with every column a log can have."""
    return simulate(SMALL).log


@pytest.fixture(scope="session")
def trained(log: Log, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """A run as the command line makes it: fitted again on everything. Do not change its folder."""
    return _once(tmp_path_factory, log, TrainConfig(out=Path("refit"), params=FEW_TREES))


@pytest.fixture(scope="session")
def measured(log: Log, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """The same with `refit=False`: it knows nothing of the test day. Do not change its folder."""
    return _once(tmp_path_factory, log, TrainConfig(out=Path("no-refit"), params=FEW_TREES, refit=False))


@pytest.fixture(scope="session")
def on_slates(log: Log, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """A run over the shown lists, with `refit=False`. Do not change its folder."""
    config = TrainConfig(out=Path("on-slates"), params=FEW_TREES, refit=False, candidates="slate")
    return _once(tmp_path_factory, log, config)


@pytest.fixture(scope="session")
def reranked(log: Log, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """A run with a small DIN, with `refit=False`. Do not change its folder."""
    config = TrainConfig(out=Path("reranked"), params=FEW_TREES, refit=False, reranker="din", int8=True)
    split = SplitConfig(train_requests=1_500, valid_requests=1_000)
    return _once(tmp_path_factory, log, replace(config, split=split))


def _once(factory: pytest.TempPathFactory, log: Log, config: TrainConfig) -> TrainResult:
    """A run that one process of pytest-xdist trains and all of them read."""
    own = factory.getbasetemp()
    run = (own.parent if workers else own) / "runs" / str(config.out)
    run.parent.mkdir(exist_ok=True)
    with FileLock(f"{run}.lock"):
        if not run.exists():
            train(replace(config, out=run), log=log)
    return TrainResult(run, json.loads((run / "metrics.json").read_text(encoding="utf-8")))


@pytest.fixture
def bundle(trained: TrainResult, tmp_path: Path) -> Path:
    """A copy of the refitted bundle, to be damaged."""
    return Path(shutil.copytree(trained.run, tmp_path / "bundle"))


@pytest.fixture(scope="session")
def tables(log: Log, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log as files of the format `table` with integer ids, as the log itself has them."""
    return write_log(log, tmp_path_factory.mktemp("tables"), "table")


@pytest.fixture(scope="session")
def day_before_last(log: Log) -> object:
    """Midnight before the last day."""
    return log.clicks.select(pl.col("clicked_at").max().dt.truncate("1d")).item()


@pytest.fixture(scope="session")
def python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a Python command line in a process of its own: `python("-m", "newsrec.train", "--help", TZ="Asia/Tokyo")`."""

    def run(
        *arguments: str | Path, cwd: Path = ROOT, timeout: float = 120, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        variables = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"} | environment
        command = [sys.executable, *(str(word) for word in arguments)]
        return subprocess.run(
            command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=timeout, check=False
        )

    return run
