"""Stage 7: networks that order the top again. `RERANKERS` is their one list: its own file and a line here add one."""

from importlib import import_module
from typing import TYPE_CHECKING, Final, cast

from newsrec.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from newsrec.rerankers.base import Shape

RERANKERS: Final[dict[str, str]] = {
    "din": "newsrec.rerankers.din",
    "pooling": "newsrec.rerankers.pooling",
}
"""Name -> module whose `network(shape)` makes it; imported when it is trained, so naming them needs no torch."""


def make(name: str, shape: "Shape") -> "nn.Module":
    """A network of `RERANKERS` with new weights.

    Raises:
        UsageError: An unknown name, or torch is not installed.
    """
    refuse_unknown(name)
    return cast("nn.Module", import_module(RERANKERS[name]).network(shape))


def refuse_unknown(name: str) -> None:
    """Find out before the work whether a network could be trained.

    Raises:
        UsageError: An unknown name, or a package that is not installed.
    """
    if name not in RERANKERS:
        raise UsageError(f"--reranker: expected one of {sorted(RERANKERS)}, found {name!r}.")
    try:
        for package in ("torch", "onnx", "onnxscript"):
            import_module(package)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"--reranker {name}: expected torch, onnx and onnxscript, found no {error.name}. "
            "Install them: pip install 'newsrec[neural]'."
        ) from error
