"""A network that somebody writes in a Python file of their own: read, tried out, and trained as ours are.

`--reranker FILE.py` takes the file's `network(shape)`, as our own files have it; `--reranker FILE.py:NAME` another
function or class that is called with a `newsrec.rerankers.base.Shape`. The file is executed, in training only: a bundle
keeps its name and hash, and serves the exported graph.
"""

import hashlib
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from newsrec.errors import BundleError, UsageError
from newsrec.neural.export import export_network
from newsrec.neural.model import Model
from newsrec.neural.parity import random_batch
from newsrec.neural.vocabulary import IdVocabulary
from newsrec.rerankers.base import Shape
from newsrec.tensors import AGE, RANKER_SCORE, Fields

DEFAULT_NAME: Final = "network"
TRIAL: Final = Shape(dense=3, sizes=(13, 5), numbers=1)
RTOL: Final = 1e-4
ATOL: Final = 1e-5


@dataclass(frozen=True)
class OwnNetwork:
    """What makes a network, from a file."""

    path: Path
    name: str
    sha256: str
    """Of the file."""
    factory: Callable[..., nn.Module]
    params: Mapping[str, Any]
    """Given to it as keywords, after the shape."""

    def make(self, shape: Shape) -> nn.Module:
        """A network with new weights that keeps what `newsrec.rerankers.base.Network` promises, for this shape.

        Raises:
            UsageError: What it does not keep, or its own error.
        """
        try:
            made = self.factory(shape, **self.params)
        except Exception as error:
            raise self._refused(f"a network for {shape}", _told(error)) from error
        if not isinstance(made, nn.Module):
            raise self._refused("a torch.nn.Module", type(made).__name__)
        if not any(True for _ in made.parameters()):
            raise self._refused("weights to train", "none")
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            kept = {name: value.clone() for name, value in made.state_dict().items()}
            self._refuse_faults(made.eval(), shape)
            made.load_state_dict(kept)
        return made.train()

    def refuse_unfit(self) -> None:
        """Find out before the work whether it keeps its promises and can be exported.

        Raises:
            UsageError: What it does not keep, or why it cannot be exported.
        """
        with torch.random.fork_rng(devices=[]):
            network = self.make(TRIAL)
        fields = Fields(("a", "b", RANKER_SCORE), {"item_id": "int64", "category": "int64"}, (AGE,))
        names = dict(zip(fields.ids, TRIAL.sizes, strict=True))
        vocabulary = IdVocabulary({name: np.arange(1, size) for name, size in names.items()})
        example = random_batch(vocabulary, fields, (2, 3, 4), np.random.default_rng(0))
        model = Model(network, TRIAL.dense, TRIAL.numbers)
        with tempfile.TemporaryDirectory() as folder:
            try:
                export_network(model, vocabulary, fields, example, Path(folder) / "trial.onnx", {})
            except BundleError as error:
                raise self._refused("the same scores from torch and ONNX", _told(error)) from error
            except Exception as error:
                raise self._refused("what torch can export to ONNX", _told(error)) from error

    def _refuse_faults(self, network: nn.Module, shape: Shape) -> None:
        dense, target, history, numbers, mask = _trial(shape)
        for weight in network.parameters():  # away from zero, so that every input has a say
            weight.add_(torch.randn(weight.shape) * 0.1)

        def scored(*inputs: Tensor) -> Tensor:
            try:
                found = network(*inputs)
            except Exception as error:
                sizes = [tuple(each.shape) for each in inputs]
                raise self._refused(f"logits for dense, target, history, numbers, mask of {sizes}", _told(error)) from (
                    error
                )
            wanted = tuple(inputs[1].shape[:2])
            if not isinstance(found, Tensor) or tuple(found.shape) != wanted:
                told = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
                raise self._refused(f"logits of shape (requests, candidates) = {wanted}", str(told))
            if not torch.isfinite(found).all():
                raise self._refused("finite logits, also for empty histories", "some that are not")
            return found

        whole = scored(dense, target, history, numbers, mask)
        longer = torch.cat([history, torch.ones_like(history)], 1), torch.cat([numbers, numbers + 9], 1)
        none = (history[:, :0], numbers[:, :0], mask[:, :0])
        same = {
            "a candidate's logit that depends on no other candidate": (
                scored(dense[:, 1:2], target[:, 1:2], history, numbers, mask),
                whole[:, 1:2],
            ),
            "a request's logits that depend on no other request": (
                scored(*(each[1:2] for each in (dense, target, history, numbers, mask))),
                whole[1:2],
            ),
            "logits that padding of the history does not change": (
                scored(dense, target, *longer, torch.cat([mask, torch.zeros_like(mask)], 1)),
                whole,
            ),
            "an empty history to be as one of padding only": (
                scored(dense, target, history, numbers, 0 * mask),
                scored(dense, target, *none),
            ),
        }
        for wanted, (one, other) in same.items():
            if not torch.allclose(one, other, RTOL, ATOL):
                raise self._refused(wanted, f"a difference of {(one - other).abs().max():.2g}")

    def _refused(self, expected: str, found: str) -> UsageError:
        return UsageError(f"--reranker: {self.name} in '{self.path.name}': expected {expected}, found {found}.")


def read_network(named: str, params: Mapping[str, Any]) -> OwnNetwork:
    """Execute a file and take the function or class that makes a network.

    Args:
        named: `FILE.py` or `FILE.py:NAME`.
        params: Keywords for it.

    Raises:
        UsageError: No such file, no Python, or nothing of that name that can be called.
    """
    place, _, name = named.partition(".py:")
    path = Path(named if not name else place + ".py")
    name = name or DEFAULT_NAME
    module = ModuleType(f"newsrec_own_network_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses and torch look a class's module up
    try:
        source = path.read_bytes()
        exec(compile(source, str(path), "exec"), module.__dict__)  # the user's own code, named on the command line
    except Exception as error:
        raise UsageError(f"--reranker: expected a Python file, found '{path}' ({_told(error)}).") from error
    factory = getattr(module, name, None)
    if not callable(factory):
        known = sorted(each for each, value in vars(module).items() if callable(value) and _is_of(value, module))
        raise UsageError(f"--reranker: expected a function or class '{name}' in '{path}', found {known}. Add :NAME.")
    return OwnNetwork(path, name, hashlib.sha256(source).hexdigest(), factory, params)


def _is_of(value: object, module: ModuleType) -> bool:
    """Whether the module itself defines it."""
    return getattr(value, "__module__", None) == module.__name__


def _trial(shape: Shape) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Three requests, four candidates, up to five clicks, one history empty."""
    draw = torch.Generator().manual_seed(0)
    mask = torch.tensor([[1.0] * 5, [1.0] * 2 + [0.0] * 3, [0.0] * 5])

    def codes(*size: int) -> Tensor:
        return torch.stack([torch.randint(0, most, size, generator=draw) for most in shape.sizes], dim=-1)

    return (
        torch.randn(3, 4, shape.dense, generator=draw),
        codes(3, 4),
        codes(3, 5) * mask[..., None].long(),
        torch.randn(3, 5, shape.numbers, generator=draw) * mask[..., None],
        mask,
    )


def _told(error: Exception) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}".rstrip(".")
