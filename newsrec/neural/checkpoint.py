"""Where training stands after an epoch, in one file, so that a killed run goes on from there. Arrays only, no pickle.

A file belongs to one training: the same inputs, settings, first weights and versions. Any other file, and a damaged
one, counts as none.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor, nn

from newsrec.tensors import Array, Floats, Lists

MODEL: Final = "model/"
BEST: Final = "best/"
ADAM: Final = "adam/"
CURVES: Final = ("loss", "train", "valid")


@dataclass(frozen=True)
class Standing:
    """What is known after some epochs; the model and the optimiser are changed in place."""

    curves: dict[str, list[float]]
    """`CURVES`, one value per epoch."""
    logits: list[Floats]
    """Of the validation rows, one array per epoch."""
    best: dict[str, Tensor]
    """Weights of the best epoch."""


class Checkpoint:
    """The file of one training.

    Args:
        path: Where; replaced after each epoch.
        of: What training depends on beside the arguments of `bind`, such as the network's name and source.
    """

    def __init__(self, path: Path, of: str = "") -> None:
        self.path, self.of, self.key = path, of, ""

    def bind(self, model: nn.Module, settings: Mapping[str, Any], lists: Iterable[Lists]) -> None:
        """Say which training this is, by its first weights, settings and data."""
        digest = hashlib.sha256(json.dumps([self.of, torch.__version__, settings], sort_keys=True).encode())
        for weight in model.state_dict().values():
            digest.update(weight.numpy().tobytes())
        for each in lists:
            for values in _arrays(asdict(each)):
                digest.update("\0".join(values).encode() if values.dtype.kind == "O" else values.tobytes())
        self.key = digest.hexdigest()

    def save(self, standing: Standing, model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        """Replace the file; a kill meanwhile leaves the old one."""
        state = optimiser.state_dict()["state"]
        arrays = {
            "key": np.array(self.key),
            "logits": np.stack(standing.logits),
            **{name: np.array(standing.curves[name]) for name in CURVES},
            **{MODEL + name: weight.cpu().numpy() for name, weight in model.state_dict().items()},
            **{BEST + name: weight.cpu().numpy() for name, weight in standing.best.items()},
            **{f"{ADAM}{i}/{name}": value.cpu().numpy() for i, kept in state.items() for name, value in kept.items()},
        }
        unfinished = self.path.with_name(f"{self.path.name}.unfinished")  # one name: a kill leaves no more than one
        try:
            with unfinished.open("wb") as file:
                np.savez(file, **arrays)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, self.path)
        finally:
            unfinished.unlink(missing_ok=True)

    def load(self, model: nn.Module, optimiser: torch.optim.Optimizer) -> Standing | None:
        """Where this training stood, its weights and moments put back; None without a file of it."""
        try:
            with self.path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                if str(file["key"]) != self.key:
                    return None
                arrays = dict(file)
        except (OSError, ValueError, KeyError, BadZipFile, EOFError):
            return None
        model.load_state_dict(_below(MODEL, arrays))
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _below(ADAM, arrays).items():
            place, kept = name.split("/")
            state.setdefault(int(place), {})[kept] = value
        optimiser.load_state_dict(optimiser.state_dict() | {"state": state})
        curves = {name: arrays[name].tolist() for name in CURVES}
        return Standing(curves, list(arrays["logits"]), _below(BEST, arrays))


def _below(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Tensor]:
    found = {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
    return {name: torch.from_numpy(value) for name, value in found.items()}


def _arrays(value: Any) -> Iterable[Array]:
    if isinstance(value, Mapping):
        for each in value.values():
            yield from _arrays(each)
    elif isinstance(value, np.ndarray):
        yield value
