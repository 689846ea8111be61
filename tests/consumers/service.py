"""A service that scores with a bundle of newsrec and has numpy and onnxruntime only: nothing of ours, no LightGBM.

    python service.py BUNDLE

Every model with a signature in the folder is loaded and must first reproduce its worked example. Then each line of the
standard input is a request, and each line of the standard output its answer:

    {"model": "reranker.onnx", "inputs": {"item_id": [[1, 2]], ...}}  ->  {"scores": [[0.12, 0.03]]}
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort

DTYPES = {"float32": np.float32, "int64": np.int64, "string": object}


class Model:
    """One ONNX file with its signature."""

    def __init__(self, signature: Path) -> None:
        self.told = json.loads(signature.read_text(encoding="utf-8"))
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        path = signature.parent / self.told["model"]
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def scores(self, inputs: dict[str, list]) -> np.ndarray:
        """Score nested lists; null stands for a number that is not known."""
        arrays = {row["name"]: array(row, inputs[row["name"]]) for row in self.told["inputs"]}
        return self.session.run([self.told["outputs"][0]["name"]], arrays)[0]

    def check(self) -> float:
        """Largest difference from the worked example."""
        found, wanted = self.scores(self.told["example"]["inputs"]), np.array(self.told["example"]["scores"])
        np.testing.assert_allclose(found, wanted, **self.told["tolerance"])
        return float(np.abs(found - wanted).max())


def array(row: dict, nested: list) -> np.ndarray:
    """The input, also where a list is empty and does not tell the size of what it would hold."""
    sizes = [size if isinstance(size, int) else length(nested, axis) for axis, size in enumerate(row["shape"])]
    return np.array(nested, DTYPES[row["dtype"]]).reshape(sizes)


def length(nested: list, axis: int) -> int:
    """Of the lists so deep inside."""
    return len(nested) if axis == 0 else length(nested[0], axis - 1) if nested else 0


def main(bundle: Path) -> None:
    """Check every model, then answer."""
    models = {model.told["model"]: model for model in map(Model, sorted(bundle.glob("*.signature.json")))}
    for name, model in models.items():
        print(f"{name}: example reproduced, largest difference {model.check():.1e}", file=sys.stderr)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps({"scores": models[asked["model"]].scores(asked["inputs"]).tolist()}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
