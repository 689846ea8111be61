"""The ranker as one ONNX file: the averaged LightGBM models in one graph, checked against LightGBM.

Numbers are compared and added up as doubles, as LightGBM does: float32 thresholds would send values at a border the
other way. The parity cases therefore stand on the borders themselves.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
import polars as pl
from onnx import helper, numpy_helper

from newsrec import __version__
from newsrec.neural.parity import ParityError, same_order
from newsrec.neural.signature import ATOL, ML, ML_OPSET, OPSET, RTOL, finite, nested, write_signature
from newsrec.rankers import Ranker
from newsrec.rankers.trees import Trees
from newsrec.sessions import open_session

RANKER_MODEL: Final = "lambdarank.onnx"
RANKER_SIGNATURE: Final = "lambdarank.signature.json"
INPUT: Final = "features"
OUTPUT: Final = "score"
EXAMPLE_ROWS: Final = 3
CHECKED_ROWS: Final = 20_000
"""Rows of a log, at most, that parity is checked on."""
BORDER_ROWS: Final = 4_000
IR: Final = 10
"""Of the opset above; a newer one would shut older versions of onnxruntime out."""


def export_ranker(ranker: Ranker, rows: pl.DataFrame, categorical: Sequence[str], folder: Path) -> None:
    """Write `lambdarank.onnx` and its signature.

    Args:
        ranker: Fitted.
        rows: Features of some candidates, of the log: parity is checked on them, the first are the
            worked example. At least one.
        categorical: Columns that hold codes.
        folder: Exists.

    Raises:
        ParityError: The file does not score or order as the ranker does; it is deleted.
    """
    path = folder / RANKER_MODEL
    graph = _graph(ranker.trees, rows.width, ranker.gives_probabilities)
    helper.set_model_props(graph, {"newsrec": __version__, "producer": "newsrec", "model": "LightGBM"})
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, path)
    step = max(1, len(rows) // CHECKED_ROWS)
    checked = pl.concat([rows.gather_every(step), border_rows(ranker.trees, rows.columns)])
    try:
        parity = {"rows": len(checked), "largest_difference": _check_parity(ranker, checked, path)}
        example = pl.DataFrame(finite(rows[:EXAMPLE_ROWS].to_numpy()), schema=rows.schema, orient="row")
        _write_signature(ranker, example, categorical, parity, folder)
    except Exception:
        path.unlink()
        raise


def border_rows(models: Sequence[Trees], names: Sequence[str], seed: int = 0) -> pl.DataFrame:
    """Rows of values at which models decide: the thresholds, the next float32 on either side, NaN, what is extreme.

    Args:
        models: Whose thresholds.
        names: Of the columns.
        seed: Of what is drawn.

    Returns:
        Float32, shape (`BORDER_ROWS`, n_features).
    """
    rng = np.random.default_rng(seed)
    feature = np.concatenate([trees.feature[~trees.leaf] for trees in models])
    threshold = np.concatenate([trees.threshold[~trees.leaf] for trees in models]).astype(np.float32)
    beside = [np.nextafter(threshold, np.float32(side)) for side in (-np.inf, np.inf)]
    always = np.array([np.nan, -1, 0, 0.5, 1e9, 3e38, -3e38, np.inf, -np.inf], np.float32)
    columns = {}
    for place, name in enumerate(names):
        here = feature == place
        values = np.concatenate([each[here] for each in (threshold, *beside)])
        # Half of the values stand at a threshold, where the feature has one.
        of_both = [rng.choice(values, BORDER_ROWS)] if len(values) else []
        columns[name] = rng.permutation(np.concatenate([rng.choice(always, BORDER_ROWS), *of_both]))[:BORDER_ROWS]
    return pl.DataFrame(columns)


def _graph(models: Sequence[Trees], width: int, probabilities: bool) -> onnx.ModelProto:
    codes = np.isin(np.arange(width), np.concatenate([trees.feature[trees.equals] for trees in models]))
    nodes = [helper.make_node("Cast", [INPUT], ["doubles"], to=onnx.TensorProto.DOUBLE), *_whole_codes()]
    outputs = []
    for i, trees in enumerate(models):
        nodes.append(_ensemble(trees, f"raw_{i}"))
        outputs.append(f"raw_{i}")
        if probabilities:
            nodes.append(helper.make_node("Sigmoid", [f"raw_{i}"], [f"probability_{i}"]))
            outputs[-1] = f"probability_{i}"
    nodes.append(helper.make_node("Mean", outputs, ["column"]))  # (candidates, 1)
    nodes.append(helper.make_node("Squeeze", ["column", "last"], [OUTPUT]))
    graph = helper.make_graph(
        nodes,
        "lambdarank",
        [helper.make_tensor_value_info(INPUT, onnx.TensorProto.FLOAT, ["candidates", width])],
        [helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.FLOAT, ["candidates"])],
        [numpy_helper.from_array(np.array([1], np.int64), "last"), numpy_helper.from_array(codes, "codes")],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(ML, ML_OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR)


def _whole_codes() -> list[onnx.NodeProto]:
    """LightGBM cuts the fraction of a code off, towards zero."""
    return [
        helper.make_node("Abs", ["doubles"], ["size"]),
        helper.make_node("Floor", ["size"], ["whole"]),
        helper.make_node("Sign", ["doubles"], ["sign"]),
        helper.make_node("Mul", ["whole", "sign"], ["cut"]),
        helper.make_node("Where", ["codes", "cut", "doubles"], ["values"]),
    ]


def _ensemble(trees: Trees, output: str) -> onnx.NodeProto:
    leaf = trees.leaf
    modes = np.where(leaf, "LEAF", np.where(trees.equals, "BRANCH_EQ", "BRANCH_LEQ"))
    return helper.make_node(
        "TreeEnsembleRegressor",
        ["values"],
        [output],
        domain=ML,
        n_targets=1,
        aggregate_function="SUM",
        post_transform="NONE",
        nodes_treeids=trees.tree.tolist(),
        nodes_nodeids=trees.node.tolist(),
        nodes_featureids=trees.feature.tolist(),
        nodes_modes=modes.tolist(),
        nodes_values_as_tensor=numpy_helper.from_array(trees.threshold, "thresholds"),
        nodes_missing_value_tracks_true=trees.missing_yes.astype(int).tolist(),
        nodes_truenodeids=np.maximum(trees.yes, 0).tolist(),
        nodes_falsenodeids=np.maximum(trees.no, 0).tolist(),
        target_treeids=trees.tree[leaf].tolist(),
        target_nodeids=trees.node[leaf].tolist(),
        target_ids=np.zeros(int(leaf.sum()), int).tolist(),
        target_weights_as_tensor=numpy_helper.from_array(trees.value[leaf], "leaves"),
    )


def _check_parity(ranker: Ranker, rows: pl.DataFrame, path: Path) -> float:
    wanted = ranker.score(rows)
    found = _scores(path, rows)
    difference = float(np.abs(found - wanted).max(initial=0.0))
    if not np.allclose(found, wanted, RTOL, ATOL) or not same_order(found[None], wanted[None]):
        raise ParityError(
            f"{path}: expected the scores and the order of LightGBM on {len(rows):,} rows, found a difference of "
            f"{difference:.2e} (tolerance {ATOL:.0e} + {RTOL:.0e} of the score). Report this as a bug."
        )
    return difference


def _scores(path: Path, rows: pl.DataFrame) -> npt.NDArray[np.float32]:
    scores: npt.NDArray[np.float32] = open_session(path.read_bytes(), str(path)).run(
        [OUTPUT], {INPUT: np.ascontiguousarray(rows.to_numpy())}
    )[0]
    return scores


def _write_signature(
    ranker: Ranker, rows: pl.DataFrame, categorical: Sequence[str], parity: dict[str, Any], folder: Path
) -> None:
    meaning = "Features of each candidate in the order of `columns`, as in features.json; NaN where unknown."
    told: dict[str, Any] = {"name": INPUT, "dtype": "float32", "shape": ["candidates", rows.width], "meaning": meaning}
    told |= {"columns": rows.columns, "codes": [name for name in categorical if name in rows.columns]}
    what = "Probability of a click" if ranker.gives_probabilities else "Score within one request's list"
    write_signature(
        folder / RANKER_SIGNATURE,
        {"model": RANKER_MODEL, "parity": parity},
        [told],
        [{"name": OUTPUT, "dtype": "float32", "shape": ["candidates"], "meaning": f"{what}; higher is better."}],
        {INPUT: nested(rows.to_numpy())},
        nested(ranker.score(rows)),
    )
