"""The reader's side of `two_tower` as one ONNX file: the last clicks' ids in, the vector that articles are near to out.

It computes in whole numbers as the channel does, so it gives the channel's vectors to the last digit. The articles'
vectors stand beside it in `recall/two_tower.parquet`.
"""

from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import polars as pl
from onnx import helper, numpy_helper

from features.articles import UNIT
from newsrec import __version__
from newsrec.neural.parity import ParityError
from newsrec.neural.ranker_onnx import IR
from newsrec.neural.signature import ML, ML_OPSET, OPSET, nested, write_signature
from newsrec.recall.tower_chain import NONE
from newsrec.recall.towers import UserTower
from newsrec.recall.two_tower import TwoTower
from newsrec.sessions import open_session
from newsrec.tensors import HISTORY, MASK, NO_INTEGER, Array

CHANNEL: Final = "two_tower"
CLICKS: Final = HISTORY + "item_id"
OUTPUT: Final = "vector"
SIZES: Final = ((1, 1), (1, 5), (2, 3), (7, 9), (256, 5))
"""Readers and clicks of the parity cases."""
EXAMPLE: Final = (3, 4)


def export_user_tower(channel: TwoTower, at: int, folder: Path) -> None:
    """Write `two_tower.onnx` and its signature; nothing where the channel knows no article yet.

    Args:
        channel: Fitted.
        at: The model is the last one before this moment, ms.
        folder: `recall/` of a bundle.

    Raises:
        ParityError: The file does not give the channel's vectors; it is deleted.
    """
    ids, user = channel.reading(at)
    if not len(ids):
        return
    path = folder / f"{CHANNEL}.onnx"
    graph = _graph(user, ids)
    helper.set_model_props(graph, {"newsrec": __version__, "producer": "newsrec", "model": CHANNEL})
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, path)
    try:
        _check_parity(user, ids, path)
        _write_signature(user, ids, path)
    except Exception:
        path.unlink()
        raise


def _graph(user: UserTower, ids: pl.Series) -> onnx.ModelProto:
    integers = ids.dtype.is_integer()
    dim, last = user.article.shape[1], len(user.click)
    kind = onnx.TensorProto.INT64 if integers else onnx.TensorProto.STRING
    # Row 0 is of unknown articles, weight `last` of clicks beyond those that are read.
    constants: dict[str, Array] = {
        "article": np.vstack([np.zeros((1, dim)), user.article.astype(np.float64)]),
        "weight_of_age": np.append(user.click, 0.0),
        "last": np.array(last, np.int64),
        "axis": np.array([1], np.int64),
        "axis_of_age": np.array(1, np.int64),
        "zero": np.array(0.0),
        "one": np.array(1.0),
        "unit": np.array(float(UNIT)),
        "none": np.array(0, np.int64),
        **user.weights,
    }
    code = {"keys_int64s" if integers else "keys_strings": ids.to_list()}
    nodes = [
        helper.make_node(
            "LabelEncoder",
            [CLICKS],
            ["code"],
            domain=ML,
            values_int64s=list(range(1, len(ids) + 1)),
            default_int64=0,
            **code,  # type: ignore[arg-type]
        ),
        _node("Greater", "code none", "there"),
        _node("Cast", "there", "there_number", to=onnx.TensorProto.DOUBLE),
        helper.make_node("Cast", [MASK], ["mask_number"], to=onnx.TensorProto.DOUBLE),
        helper.make_node("Cast", [MASK], ["mask_whole"], to=onnx.TensorProto.INT64),
        _node("CumSum", "mask_whole axis_of_age", "age", exclusive=1),
        _node("Min", "age last", "age_read"),
        _node("Gather", "weight_of_age age_read", "weight_of_click"),
        _node("Mul", "weight_of_click there_number", "weight_if_known"),
        _node("Mul", "weight_if_known mask_number", "weight"),  # (readers, clicks)
        _node("ReduceSum", "weight axis", "whole", keepdims=1),  # (readers, 1)
        _node("Unsqueeze", "weight axis", "weight_row"),  # (readers, 1, clicks)
        _node("Gather", "article code", "clicked"),  # (readers, clicks, dim)
        _node("MatMul", "weight_row clicked", "summed_row"),
        _node("Squeeze", "summed_row axis", "summed"),  # (readers, dim)
        _node("Max", "whole one", "divisor"),
        _node("Div", "summed divisor", "mean"),
        _node("Round", "mean", "x"),
        *_layer("x", "user_in", "inner_sum"),
        _node("Max", "inner_sum zero", "inner_positive"),
        _node("Div", "inner_positive unit", "inner_scaled"),
        _node("Round", "inner_scaled", "inner"),
        *_layer("inner", "user_out", "outer_sum"),
        _node("Div", "outer_sum unit", "outer_scaled"),
        _node("Round", "outer_scaled", "outer"),
        _node("Add", "outer x", "z"),
        _node("Mul", "z z", "squares"),
        _node("ReduceSum", "squares axis", "square", keepdims=1),
        _node("Sqrt", "square", "length"),
        _node("Max", "length one", "length_divisor"),
        _node("Div", "z length_divisor", "direction"),
        _node("Mul", "direction unit", "long"),
        _node("Round", "long", "rounded"),
        _node("Greater", "whole zero", "told"),
        _node("Where", "told rounded zero", "whole_vector"),
        _node("Div", "whole_vector unit", "vector_number"),
        _node("Cast", "vector_number", OUTPUT, to=onnx.TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        nodes,
        CHANNEL,
        [
            helper.make_tensor_value_info(CLICKS, kind, ["readers", "clicks"]),
            helper.make_tensor_value_info(MASK, onnx.TensorProto.FLOAT, ["readers", "clicks"]),
        ],
        [helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.FLOAT, ["readers", dim])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(ML, ML_OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR)


def _node(kind: str, inputs: str, output: str, **attributes: int) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), [output], **attributes)  # type: ignore[arg-type]


def _layer(source: str, name: str, target: str) -> list[onnx.NodeProto]:
    product = f"{name}_product"
    return [_node("MatMul", f"{source} {name}", product), _node("Add", f"{product} {name}_bias", target)]


def _vectors(user: UserTower, ids: pl.Series, clicked: Array, mask: Array) -> Array:
    """What the channel gives for raw ids, unit vectors of shape (readers, dim)."""
    last = len(user.click)
    told = mask > 0
    age = np.cumsum(told, axis=1) - 1
    reader, place = np.nonzero(told & (age < last))
    known = dict(zip(ids.to_list(), range(len(ids)), strict=True))
    rows = np.array([known.get(each, NONE) for each in clicked[reader, place].tolist()], np.int64)
    history = np.full((len(clicked), last), NONE, np.int64)
    history[reader, age[reader, place]] = rows
    found: Array = (user.vectors(history) / UNIT).astype(np.float32)
    return found


def _case(ids: pl.Series, size: tuple[int, int], rng: np.random.Generator) -> dict[str, Array]:
    """Known ids, unknown ones, and padding anywhere."""
    strange = [-1, 2**62, NO_INTEGER] if ids.dtype.is_integer() else ["an id that nobody has", "", "ö\n"]
    every = np.array([*ids, *strange], np.int64 if ids.dtype.is_integer() else object)
    return {CLICKS: rng.choice(every, size), MASK: (rng.random(size) < 0.8).astype(np.float32)}


def _check_parity(user: UserTower, ids: pl.Series, path: Path) -> None:
    session, rng = open_session(path.read_bytes(), str(path)), np.random.default_rng(0)
    for size in SIZES:
        case = _case(ids, size, rng)
        wanted, found = _vectors(user, ids, case[CLICKS], case[MASK]), session.run([OUTPUT], case)[0]
        if found.shape != wanted.shape or not np.array_equal(found, wanted):
            raise ParityError(
                f"{path}: expected the vectors of {CHANNEL} for {size[0]} readers of {size[1]} clicks, found others "
                f"(shapes {found.shape} and {wanted.shape}). Report this as a bug."
            )


def _write_signature(user: UserTower, ids: pl.Series, path: Path) -> None:
    example = _case(ids, EXAMPLE, np.random.default_rng(1))
    kind = "int64" if ids.dtype.is_integer() else "string"
    clicks = "Articles that the reader clicked before, newest first; any ids, those that the model lacks are skipped."
    mask = f"1 where a click is, 0 where the history is padded. The first {len(user.click)} clicks are read."
    vector = (
        f"Of length 1, or zeros without a known click; the articles with the largest products are the nearest, of "
        f"those in {CHANNEL}.parquet."
    )
    shape: list[str | int] = ["readers", "clicks"]
    parity: dict[str, Any] = {"cases": len(SIZES), "largest_difference": 0.0}
    write_signature(
        path.with_name(f"{CHANNEL}.signature.json"),
        {"model": path.name, "vocabulary": {"item_id": len(ids)}, "parity": parity},
        [
            {"name": CLICKS, "dtype": kind, "shape": shape, "meaning": clicks},
            {"name": MASK, "dtype": "float32", "shape": shape, "meaning": mask},
        ],
        [{"name": OUTPUT, "dtype": "float32", "shape": ["readers", user.article.shape[1]], "meaning": vector}],
        {name: nested(values) for name, values in example.items()},
        nested(_vectors(user, ids, example[CLICKS], example[MASK])),
    )
