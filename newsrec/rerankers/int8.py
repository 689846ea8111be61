"""The network with weights of eight bits beside the exact one: a smaller file, and how much quality that costs.

onnxruntime's dynamic quantisation: weights and embeddings once, activations as they come. Weights are unsigned, as on
processors without VNNI instructions products of signed ones overflow and would score otherwise there.
"""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from newsrec.neural.signature import as_text, nested
from newsrec.neural.trainer import METRIC, mean_mrr
from newsrec.rerank import MODEL_FILE, SIGNATURE_FILE, Reranker, log_odds
from newsrec.sessions import open_session
from newsrec.tensors import Array, Lists, batches, padded

INT8_MODEL: Final = "reranker.int8.onnx"
INT8_SIGNATURE: Final = "reranker.int8.signature.json"
TOLERANCE: Final = {"rtol": 0.0, "atol": 0.02}
"""Of the example: an activation that another processor rounds to the next of 256 steps moves a probability so far."""


def int8_files(reranker: Reranker, files: Mapping[str, bytes], lists: Lists) -> dict[str, bytes]:
    """The small network and its signature, which says what it lost.

    Args:
        reranker: The exact network with its blend.
        files: Its ONNX file and signature by name.
        lists: That the loss is measured on: raw ids, labelled, never trained on.
    """
    model = quantised(files[MODEL_FILE])
    small = Reranker(reranker.settings, model)
    told = json.loads(files[SIGNATURE_FILE])
    inputs = {row["name"]: _array(told["example"]["inputs"][row["name"]], row["dtype"]) for row in told["inputs"]}
    told["example"]["scores"] = nested(open_session(model, INT8_MODEL).run(None, inputs)[0])
    told |= {"model": INT8_MODEL, "tolerance": TOLERANCE, "quality": loss_of_quality(reranker, small, lists)}
    del told["parity"]
    return {INT8_MODEL: model, INT8_SIGNATURE: as_text(told).encode()}


def quantised(model: bytes) -> bytes:
    """The same graph with weights of eight bits."""
    graph = onnx.load_from_string(model)
    # Without this mark it asks for a pass that would bring operators of onnxruntime's own domain.
    graph.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / INT8_MODEL
        quantize_dynamic(graph, path, weight_type=QuantType.QUInt8)
        return path.read_bytes()


def loss_of_quality(exact: Reranker, small: Reranker, lists: Lists) -> dict[str, Any]:
    """What the small network does worse on the same lists.

    Returns:
        `lists`; MRR@5 of both, of the network `alone` and in the `blend`, a click outside the list counting as 0;
        `largest_difference` of probabilities; `same_first`, the share of lists with the same first candidate.
    """
    probabilities = [each.probabilities(lists) for each in (exact, small)]
    ranker, blend = lists.dense[:, -1].astype(np.float64), exact.settings.blend
    alone, blended = (
        [mean_mrr(scores, lists) for scores in pair]
        for pair in (probabilities, [blend.scores(ranker, log_odds(each)) for each in probabilities])
    )
    return {
        "lists": len(lists),
        "metric": METRIC,
        "alone": dict(zip(("float", "int8"), alone, strict=True)),
        "blend": dict(zip(("float", "int8"), blended, strict=True)),
        "largest_difference": float(np.abs(probabilities[0] - probabilities[1]).max(initial=0.0)),
        "same_first": _same_first(probabilities[0], probabilities[1], lists),
    }


def _same_first(one: Array, other: Array, lists: Lists) -> float:
    groups = [padded(lists, chosen).rows for chosen in batches(lists, len(lists))]
    same = [one[rows].argmax(axis=1) == other[rows].argmax(axis=1) for rows in groups]
    return float(np.concatenate(same).mean()) if same else 1.0


def _array(values: Any, dtype: str) -> Array:
    return np.array(values, object if dtype == "string" else dtype)
