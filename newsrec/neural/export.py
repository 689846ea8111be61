"""A trained model as one ONNX file that takes raw ids: torch's graph, with the vocabulary in front of it.

`export_network` writes the file and its signature and always checks them; what fails the check is deleted.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch
from onnx import helper
from torch import Tensor, nn

from newsrec import __version__
from newsrec.neural.model import Model
from newsrec.neural.parity import check_parity, random_batch
from newsrec.neural.signature import ML, ML_OPSET, OPSET, finite, nested, write_signature
from newsrec.neural.vocabulary import IdVocabulary
from newsrec.rerank import OUTPUT, SIGNATURE_FILE
from newsrec.tensors import AGE, DENSE, DWELL, HISTORY, MASK, NO_INTEGER, Array, Batch, Fields

CODE: Final = "_code"
"""Ending of the inner name of an id input, after the look-up."""
AXES: Final = ("requests", "candidates", "history")
MEANINGS: Final = {
    DENSE: "Numbers of each candidate, in the order of `columns`; NaN where unknown. Scaled and filled inside.",
    "item_id": "Article of each candidate; any id, one that the vocabulary lacks counts as unknown.",
    "category": "Category of each candidate; any value.",
    HISTORY + "item_id": "Articles that the reader clicked before the request, newest first; any ids.",
    HISTORY + "category": "Categories of these articles.",
    HISTORY + AGE: "Hours from each click to the request; NaN where unknown.",
    HISTORY + DWELL: "Seconds that each article was read; NaN where unknown.",
    MASK: "1 where a click is, 0 where the history is padded.",
    OUTPUT: "Probability of a click on each candidate; higher is better.",
}


class _Probabilities(nn.Module):
    """The model behind its inputs one by one, in the order of `Batch.named`, ids as codes."""

    def __init__(self, model: Model, fields: Fields) -> None:
        super().__init__()
        self.model, self.ids, self.numbers = model, len(fields.ids), len(fields.numbers)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Shape (requests, candidates)."""
        dense, *rest, mask = inputs
        target = torch.stack(rest[: self.ids], dim=-1)
        history = torch.stack(rest[self.ids : 2 * self.ids], dim=-1)
        numbers = torch.stack(rest[2 * self.ids :], dim=-1)
        return self.model.probabilities(self.model(dense, target, history, numbers, mask))


def export_network(
    model: Model,
    vocabulary: IdVocabulary,
    fields: Fields,
    example: Batch,
    path: Path,
    facts: Mapping[str, str],
) -> None:
    """Write the ONNX file and, beside it, its signature.

    Args:
        model: Trained and calibrated.
        vocabulary: Of its ids.
        fields: Of its inputs.
        example: Raw ids; the signature shows it with its scores.
        path: Of the ONNX file.
        facts: Text that goes into the file's metadata, such as the network's name.

    Raises:
        ParityError: The file does not score as the model does; it is deleted.
    """
    graph = _torch_graph(model, vocabulary, fields)
    _look_up(graph, vocabulary)
    helper.set_model_props(graph, {"newsrec": __version__, "producer": "newsrec", **facts})
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, path)
    try:
        difference = check_parity(lambda batch: probabilities(model, vocabulary, batch), vocabulary, fields, path)
        _write_signature(model, vocabulary, fields, example, path, facts, difference)
    except Exception:
        path.unlink()
        raise


def probabilities(model: Model, vocabulary: IdVocabulary, batch: Batch) -> Array:
    """What torch gives for raw ids; shape (requests, candidates)."""
    fields = Fields((), dict.fromkeys(batch.ids, ""), tuple(batch.history_numbers))
    model.eval()
    with torch.no_grad():
        scored: Array = _Probabilities(model, fields)(*_coded_inputs(vocabulary, batch)).numpy()
    return scored


def _coded_inputs(vocabulary: IdVocabulary, batch: Batch) -> tuple[Tensor, ...]:
    return tuple(torch.from_numpy(_coded(vocabulary, name, values)) for name, values in batch.named().items())


def _coded(vocabulary: IdVocabulary, name: str, values: Array) -> Array:
    field = name.removeprefix(HISTORY)
    return vocabulary.codes(field, values) if field in vocabulary.known else values


def _torch_graph(model: Model, vocabulary: IdVocabulary, fields: Fields) -> onnx.ModelProto:
    # At least two of everything: torch freezes sizes of 0 and 1.
    example = random_batch(vocabulary, fields, (3, 5, 4), np.random.default_rng(0))
    requests, candidates, history = (torch.export.Dim(name) for name in AXES)
    names = list(example.named())
    axes = tuple(
        {0: requests, 1: history if name.startswith(HISTORY) else candidates} for name in names
    )  # one Dim per meaning
    model.eval()
    with _quiet(), _frozen(model):
        program = torch.onnx.export(
            _Probabilities(model, fields),
            _coded_inputs(vocabulary, example),
            input_names=[name + CODE if name.removeprefix(HISTORY) in vocabulary.known else name for name in names],
            output_names=[OUTPUT],
            dynamic_shapes={"inputs": axes},
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    graph = program.model_proto
    # Of a GRU's states torch tells the example's length, by which onnxruntime would share memory; it infers its own.
    del graph.graph.value_info[:]
    return graph


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of its own insides, which nobody who trains a network can change."""
    talkers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [talker.level for talker in talkers]
    for talker in talkers:
        talker.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for talker, level in zip(talkers, levels, strict=True):
            talker.setLevel(level)


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Without gradients: for a `scan` over steps torch would else export what a backward pass needs, which fails."""
    free = [weight for weight in model.parameters() if weight.requires_grad]
    model.requires_grad_(False)
    try:
        yield
    finally:
        for weight in free:
            weight.requires_grad_(True)


def _look_up(graph: onnx.ModelProto, vocabulary: IdVocabulary) -> None:
    """Put a look-up of raw ids before each input of codes."""
    nodes = []
    for value in graph.graph.input:
        if not value.name.endswith(CODE):
            continue
        raw_name = value.name.removesuffix(CODE)
        known = vocabulary.known[raw_name.removeprefix(HISTORY)]
        nodes.append(_label_encoder(raw_name, value.name, known))
        kind = onnx.TensorProto.INT64 if known.dtype.kind == "i" else onnx.TensorProto.STRING
        value.name = raw_name
        value.type.tensor_type.elem_type = kind
    for place, node in enumerate(nodes):
        graph.graph.node.insert(place, node)
    graph.opset_import.append(helper.make_opsetid(ML, ML_OPSET))


def _label_encoder(source: str, target: str, known: Array) -> onnx.NodeProto:
    integers = known.dtype.kind == "i"
    # Without a known id the table would be empty, which the operator refuses; the marker of a missing id is code 0 too.
    keys: Sequence[Any] = known.tolist() or ([NO_INTEGER] if integers else [""])
    codes = np.arange(1, len(known) + 1) if len(known) else np.zeros(1)
    return helper.make_node(
        "LabelEncoder",
        [source],
        [target],
        name=f"vocabulary_of_{source}",
        domain=ML,
        values_int64s=codes.astype(int).tolist(),
        default_int64=0,
        **{"keys_int64s" if integers else "keys_strings": keys},  # type: ignore[arg-type]
    )


def _write_signature(
    model: Model,
    vocabulary: IdVocabulary,
    fields: Fields,
    example: Batch,
    path: Path,
    facts: Mapping[str, str],
    difference: float,
) -> None:
    example = replace(example, dense=finite(example.dense))
    inputs = example.named()
    history = [name for name in inputs if name.startswith(HISTORY)]
    kinds = {name: "string" if values.dtype.kind == "O" else str(values.dtype) for name, values in inputs.items()}
    shapes: dict[str, list[str | int]] = {name: [AXES[0], AXES[2] if name in history else AXES[1]] for name in inputs}
    shapes[DENSE].append(len(fields.dense))
    write_signature(
        path.parent / SIGNATURE_FILE,
        {
            "model": path.name,
            **facts,
            "vocabulary": {name: len(known) for name, known in vocabulary.known.items()},
            "parity": {"largest_difference": difference},
        },
        [
            {"name": name, "dtype": kinds[name], "shape": shapes[name], "meaning": MEANINGS[name]}
            | ({"columns": list(fields.dense)} if name == DENSE else {})
            for name in inputs
        ],
        [{"name": OUTPUT, "dtype": "float32", "shape": list(AXES[:2]), "meaning": MEANINGS[OUTPUT]}],
        {name: nested(values) for name, values in inputs.items()},
        nested(probabilities(model, vocabulary, example)),
    )
