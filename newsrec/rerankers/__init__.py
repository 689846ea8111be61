"""Stage 7: networks that order the top again. `RERANKERS` is their one list: its own file and a line here add one."""

from collections.abc import Mapping
from dataclasses import fields
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, cast

from newsrec.errors import UsageError
from newsrec.neural.settings import settings_of

if TYPE_CHECKING:
    from torch import nn

    from newsrec.rerankers.base import Shape, Traits
    from newsrec.rerankers.own import OwnNetwork

RERANKERS: Final[dict[str, str]] = {
    "din": "newsrec.rerankers.din",
    "pooling": "newsrec.rerankers.pooling",
    "lr": "newsrec.rerankers.lr",
    "wide_deep": "newsrec.rerankers.wide_deep",
    "deepfm": "newsrec.rerankers.deepfm",
    "youtube_dnn": "newsrec.rerankers.youtube_dnn",
    "transformer": "newsrec.rerankers.transformer",
    "dien": "newsrec.rerankers.dien",
    "dsin": "newsrec.rerankers.dsin",
    "sim": "newsrec.rerankers.sim",
    "mmoe": "newsrec.rerankers.mmoe",
    "ple": "newsrec.rerankers.ple",
}
"""Name -> module whose `network(shape, params)` makes it, whose `PARAMS` is the dataclass of its parameters and whose
`TRAITS` say what it is like.

Imported when it is trained, so naming them needs no torch.
"""
NONE: Final[Mapping[str, Any]] = {}


def make(name: str, shape: "Shape", params: Mapping[str, Any] = NONE) -> "nn.Module":
    """A network of `RERANKERS`, or of an own file (`newsrec.rerankers.own`), with new weights.

    Args:
        name: Which.
        shape: What it reads.
        params: Its parameters that differ from the defaults; an own network takes them as keywords.

    Raises:
        UsageError: An unknown name or parameter, torch is not installed, or a fault of an own network.
    """
    if is_own(name):
        return _own(name, params).make(shape)
    _refuse_unlisted(name)
    module = import_module(RERANKERS[name])
    return cast("nn.Module", module.network(shape, settings_of(module.PARAMS, params, f"--rerank-params {name}")))


def is_own(name: str) -> bool:
    """Whether a name means a Python file: `FILE.py` or `FILE.py:NAME`."""
    return name.endswith(".py") or ".py:" in name


def history_of(name: str) -> int:
    """Clicks that a network reads at most; what an own one is like nobody knows."""
    from newsrec.rerankers.base import Traits

    return Traits(sequence=True, target=True).history if is_own(name) else traits_of(name).history


def learns_tasks(name: str) -> bool:
    """Whether a network learns labels beside the click; an own one does not."""
    return not is_own(name) and traits_of(name).tasks


def parameters_of(name: str) -> set[str]:
    """Names of the parameters of a network of `RERANKERS`."""
    return {field.name for field in fields(import_module(RERANKERS[name]).PARAMS)}


def traits_of(name: str) -> "Traits":
    """What a network of `RERANKERS` is like."""
    return cast("Traits", import_module(RERANKERS[name]).TRAITS)


def source_of(name: str) -> tuple[str, str]:
    """What a manifest keeps: the name, without the folders of an own file, and that file's sha256 (else empty)."""
    if not is_own(name):
        return name, ""
    own = _own(name)
    return f"{own.path.name}:{own.name}", own.sha256


def refuse_unknown(name: str) -> None:
    """Find out before the work whether there is such a network, and what trains it.

    Raises:
        UsageError: An unknown name, or a package that is not installed.
    """
    if not is_own(name):
        _refuse_unlisted(name)
    try:
        for package in ("torch", "onnx", "onnxscript"):
            import_module(package)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"--reranker {name}: expected torch, onnx and onnxscript, found no {error.name}. "
            "Install them: pip install 'newsrec[neural]'."
        ) from error


def refuse_unfit(name: str, params: Mapping[str, Any] = NONE) -> None:
    """Find out before the work whether a network takes these parameters; an own one is tried out.

    Raises:
        UsageError: Unknown parameters or values out of range, or a fault of an own network.
    """
    if is_own(name):
        _own(name, params).refuse_unfit()
    else:
        settings_of(import_module(RERANKERS[name]).PARAMS, params, f"--rerank-params {name}")


def _refuse_unlisted(name: str) -> None:
    if name not in RERANKERS:
        raise UsageError(f"--reranker: expected one of {sorted(RERANKERS)} or FILE.py:NAME, found {name!r}.")


def _own(name: str, params: Mapping[str, Any] = NONE) -> "OwnNetwork":
    from newsrec.rerankers.own import read_network

    return read_network(name, params)
