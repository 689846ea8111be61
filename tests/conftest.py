"""One small simulated log and its bundles, trained once per session; every test that changes a bundle copies it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

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
    return train(TrainConfig(out=tmp_path_factory.mktemp("runs") / "refit", params=FEW_TREES), log=log)


@pytest.fixture(scope="session")
def measured(log: Log, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """The same with `refit=False`: it knows nothing of the test day. Do not change its folder."""
    out = tmp_path_factory.mktemp("runs") / "no-refit"
    return train(TrainConfig(out=out, params=FEW_TREES, refit=False), log=log)


@pytest.fixture(scope="session")
def on_slates(log: Log, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """A run over the shown lists, with `refit=False`. Do not change its folder."""
    out = tmp_path_factory.mktemp("runs") / "on-slates"
    return train(TrainConfig(out=out, params=FEW_TREES, refit=False, candidates="slate"), log=log)


@pytest.fixture(scope="session")
def reranked(log: Log, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """A run with a small DIN, with `refit=False`. Do not change its folder."""
    out, split = tmp_path_factory.mktemp("runs") / "reranked", SplitConfig(train_requests=1_500, valid_requests=1_000)
    return train(TrainConfig(out=out, params=FEW_TREES, refit=False, split=split, reranker="din", int8=True), log=log)


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
