"""What stands beside an exported file: names, shapes and meanings, and a worked example. See DESIGN.md section 8."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from newsrec.tensors import Array

OPSET: Final = 20
ML: Final = "ai.onnx.ml"
ML_OPSET: Final = 4
RTOL: Final = 1e-4
ATOL: Final = 1e-5
"""Both sides compute in float32, or round to it; they only add up in another order."""
ENDING: Final = ".signature.json"
FIGURES: Final = ("parity", "quality")


def write_signature(
    path: Path,
    facts: Mapping[str, Any],
    inputs: Sequence[Mapping[str, Any]],
    outputs: Sequence[Mapping[str, Any]],
    example: Mapping[str, Any],
    scores: Any,
) -> None:
    """Write the signature as JSON.

    Args:
        path: Of the file.
        facts: What else to tell, above all `model`, the name of the ONNX file, and the `FIGURES`.
        inputs: `name, dtype, shape, meaning` of each.
        outputs: The same.
        example: Input name -> nested list.
        scores: What the original gives for it, nested alike; to be reproduced within `tolerance`.
    """
    told = {
        "opset": OPSET,
        "tolerance": {"rtol": RTOL, "atol": ATOL},
        **facts,
        "inputs": list(inputs),
        "outputs": list(outputs),
        "example": {"inputs": dict(example), "scores": scores},
    }
    path.write_text(as_text(told), encoding="utf-8")


def as_text(told: Mapping[str, Any]) -> str:
    """A signature as it is written."""
    return json.dumps(told, indent=1, allow_nan=False) + "\n"


def figures_of(folder: Path) -> dict[str, Any]:
    """Size of each exported file in a folder, and what its signature says of its parity and quality."""
    read = (json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob(f"*{ENDING}")))
    return {
        told["model"]: {"bytes": (folder / told["model"]).stat().st_size}
        | {name: told[name] for name in FIGURES if name in told}
        for told in read
    }


def nested(values: Array) -> Any:
    """As nested lists; null stands for NaN, which JSON lacks."""
    if values.dtype.kind != "f":
        return values.tolist()
    listed = values.astype(object)
    listed[np.isnan(values)] = None
    return listed.tolist()


def finite(values: Array) -> Array:
    """An example's numbers with the largest of their kind in place of what is infinite, which JSON lacks too."""
    return np.nan_to_num(values, nan=np.nan) if values.dtype.kind == "f" else values
