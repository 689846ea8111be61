"""Networks of DeepCTR-Torch on our lists, in an environment of their own: `DEEPCTR_PYTHON` names its Python."""

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from features.windows import Ints
from newsrec.tensors import Batch, Lists, padded

HISTORY: Final = 50
MODELS: Final = Path(__file__).with_name("deepctr_models.py")
ABSENT: Final = "DeepCTR-Torch: not measured; name a Python that has it in DEEPCTR_PYTHON"


@dataclass(frozen=True)
class Trained:
    """What a training gave."""

    rows_per_second: float
    auc: float
    """Over all rows of the validation."""


def python() -> str | None:
    """The Python that has DeepCTR-Torch, if one is named."""
    return os.environ.get("DEEPCTR_PYTHON")


def trained(model: str, train: Lists, valid: Lists, settings: Mapping[str, Any], oldest_first: bool = False) -> Trained:
    """Train a network of `deepctr_models`.

    Args:
        model: `din`, `dien` or `pooling`.
        train: Coded lists.
        valid: Likewise.
        settings: `fields`, `sizes`, `widths`, `hidden`, `attention`, `learning_rate`, `epochs`, `batch`, `threads`,
            `seed`.
        oldest_first: How the network wants the clicks.

    Raises:
        RuntimeError: With the last line of what it said.
    """
    given = {"model": model, "history": HISTORY, **settings}
    arrays = {name: np.array(value) for name, value in given.items()}
    arrays |= _arrays("train", train, oldest_first) | _arrays("valid", valid, oldest_first)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "arrays.npz"
        np.savez(path, **arrays)  # type: ignore[arg-type]
        alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        command = [python() or "", "-W", "ignore", str(MODELS), str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=alone)
        if done.returncode:
            raise RuntimeError(f"DeepCTR-Torch: failed ({done.stderr.strip().splitlines()[-1:]})")
        speed = json.loads(done.stdout.strip().splitlines()[-1])["rows_per_second"]
        return Trained(speed, auc(np.load(f"{path}.scores.npy"), valid.label))


def auc(scores: np.ndarray, label: np.ndarray) -> float:
    """Over all rows (Mann and Whitney)."""
    rank = pl.Series(scores).rank().to_numpy()
    clicked = label == 1
    n = int(clicked.sum())
    return float((rank[clicked].sum() - n * (n + 1) / 2) / (n * (len(label) - n)))


def padded_to_the_end(lists: Lists, chosen: Ints) -> Batch:
    """Histories as long as the longest can be."""
    batch = padded(lists, chosen)
    more = ((0, 0), (0, HISTORY - batch.mask.shape[1]))
    return replace(
        batch,
        history_ids={name: np.pad(ids, more) for name, ids in batch.history_ids.items()},
        history_numbers={name: np.pad(values, more) for name, values in batch.history_numbers.items()},
        mask=np.pad(batch.mask, more),
    )


def _arrays(part: str, lists: Lists, oldest_first: bool) -> dict[str, np.ndarray]:
    """Rows with their histories padded to the end, as DeepCTR-Torch reads them."""
    whole = padded_to_the_end(lists, np.arange(len(lists)))
    row, length = lists.row_request, np.maximum(lists.history_length, 1)
    place = np.broadcast_to(np.arange(HISTORY), whole.mask.shape)
    if oldest_first:
        place = np.where(place < length[:, None], length[:, None] - 1 - place, place)
    histories = {name: np.take_along_axis(codes, place, axis=1) for name, codes in whole.history_ids.items()}
    return {
        f"{part}_label": lists.label.astype(np.float32),
        f"{part}_length": length[row],
        **{f"{part}_{name}": codes for name, codes in lists.ids.items()},
        **{f"{part}_hist_{name}": codes[row] for name, codes in histories.items()},
    }
