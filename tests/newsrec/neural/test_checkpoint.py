"""A training that is killed goes on where it stood and ends as if nothing had happened; other trainings start anew."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from newsrec.neural.checkpoint import Checkpoint
from newsrec.neural.model import Model
from newsrec.neural.trainer import Fitted, TrainerConfig, fit
from newsrec.rerankers import make
from newsrec.tensors import Lists
from tests.conftest import ROOT
from tests.networks import SHAPE, random_lists, vocabulary_of

LISTS = vocabulary_of().coded(random_lists(120))
CONFIG = TrainerConfig(epochs=5, patience=5, batch=16, hidden_dense=0.1, decay=0.1)


class Killed(Exception):
    """Stands for a kill."""


def trained(
    path: Path | None, config: TrainerConfig = CONFIG, lists: Lists = LISTS, of: str = "pooling", stop: int = -1
) -> tuple[int, Fitted, Model]:
    """Epochs that this call made, and what it left."""
    torch.manual_seed(0)
    model, epochs = Model(make("pooling", SHAPE), SHAPE.dense, SHAPE.numbers), 0

    def count(_: float) -> None:
        nonlocal epochs
        epochs += 1
        if epochs == stop:
            raise Killed

    fitted = fit(model, lists, LISTS, config, count, None if path is None else Checkpoint(path, of))
    return epochs, fitted, model


def stopped(path: Path, after: int = 3) -> None:
    with pytest.raises(Killed):
        trained(path, stop=after)


def test_what_goes_on_ends_as_what_was_never_stopped(tmp_path: Path) -> None:
    _, whole, of_whole = trained(None)
    stopped(tmp_path / "kept.npz")
    assert os.listdir(tmp_path) == ["kept.npz"]
    _, again, of_again = trained(tmp_path / "kept.npz")
    assert again.curves == whole.curves
    np.testing.assert_array_equal(again.logits, whole.logits)
    for name, weight in of_whole.state_dict().items():
        torch.testing.assert_close(of_again.state_dict()[name], weight, rtol=0, atol=0)


def test_only_the_missing_epochs_are_made(tmp_path: Path) -> None:
    stopped(tmp_path / "kept.npz")
    assert trained(tmp_path / "kept.npz")[0] == 2
    assert trained(tmp_path / "kept.npz")[0] == 0
    assert trained(tmp_path / "kept.npz", replace(CONFIG, epochs=6, patience=9))[0] == 1


def test_other_settings_data_and_networks_start_anew(tmp_path: Path) -> None:
    other = replace(LISTS, dense=LISTS.dense + 1)
    for changed in ({"config": replace(CONFIG, l2=0.5)}, {"lists": other}, {"of": "mine.py:Mine 1a2b"}):
        stopped(tmp_path / "kept.npz")
        assert trained(tmp_path / "kept.npz", **changed)[0] == 5  # type: ignore[arg-type]


def test_damaged_files_count_as_none(tmp_path: Path) -> None:
    path = tmp_path / "kept.npz"
    stopped(path)
    whole = path.read_bytes()
    for content in (b"", b"PK", whole[: len(whole) // 2], np.random.default_rng(0).bytes(500)):
        path.write_bytes(content)
        assert trained(path)[0] == 5


def test_a_killed_process_leaves_a_whole_file_or_none(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.newsrec.neural.test_checkpoint import trained, CONFIG;"
        "from dataclasses import replace;"
        f"trained(Path({str(tmp_path / 'kept.npz')!r}), replace(CONFIG, epochs=100_000, patience=100_000))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    until = time.monotonic() + 90
    while not (tmp_path / "kept.npz").exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    with np.load(tmp_path / "kept.npz", allow_pickle=False) as file:
        made = len(file["valid"])
        assert len(file["logits"]) == len(file["train"]) == made >= 1
    assert trained(tmp_path / "kept.npz", replace(CONFIG, epochs=made + 2, patience=100_000))[0] == 2
