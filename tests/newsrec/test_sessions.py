"""ONNX files that are not what they should be, and that none of them is opened."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from newsrec.errors import BundleError
from newsrec.sessions import open_session

FLOATS = [2]


def model(*nodes: onnx.NodeProto, weights: onnx.TensorProto | None = None) -> onnx.ModelProto:
    """`y = x + weights`, then what the nodes make of it."""
    weights = weights or numpy_helper.from_array(np.array([1.0, 2.0], np.float32), "weights")
    places = [helper.make_tensor_value_info(name, TensorProto.FLOAT, FLOATS) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "weights"], ["y"]), *nodes], "g", *([p] for p in places))
    graph.initializer.append(weights)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 4), helper.make_opsetid("elsewhere", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def foreign() -> onnx.NodeProto:
    return helper.make_node("Open", ["y"], ["z"], domain="elsewhere")


def in_a_branch() -> onnx.NodeProto:
    """The foreign operator deep inside, where no list of the graph's nodes shows it."""
    out = [helper.make_tensor_value_info("z", TensorProto.FLOAT, FLOATS)]
    branch = helper.make_graph([foreign()], "branch", [], out)
    return helper.make_node("If", ["y"], ["z"], then_branch=branch, else_branch=branch)


def outside() -> onnx.TensorProto:
    tensor = TensorProto(name="weights", data_type=TensorProto.FLOAT, dims=FLOATS)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    return tensor


def outside_in_a_constant() -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["z"], value=outside())


def with_sparse() -> onnx.ModelProto:
    made = model()
    values = numpy_helper.from_array(np.ones(1, np.float32), "s")
    made.graph.sparse_initializer.append(
        helper.make_sparse_tensor(values, numpy_helper.from_array(np.zeros(1, np.int64)), [2])
    )
    return made


def with_function() -> onnx.ModelProto:
    made = model()
    opsets = [helper.make_opsetid("elsewhere", 1)]
    made.functions.append(helper.make_function("ai.onnx.ml", "F", ["y"], ["z"], [foreign()], opsets))
    return made


def trained() -> onnx.ModelProto:
    made = model()
    made.training_info.add().algorithm.name = "a"
    return made


BAD: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "operator": (lambda: model(foreign()), "found an operator of domain 'elsewhere'"),
    "operator in a branch": (lambda: model(in_a_branch()), "found an operator of domain 'elsewhere'"),
    "operator in a function": (with_function, "found an operator of domain 'elsewhere'"),
    "external weights": (lambda: model(weights=outside()), "found external data"),
    "external constant": (lambda: model(outside_in_a_constant()), "found external data"),
    "sparse weights": (with_sparse, "found sparse tensors"),
    "training": (trained, "found training information"),
}


def test_a_model_that_stands_alone_is_opened() -> None:
    found = open_session(model().SerializeToString()).run(None, {"x": np.zeros(2, np.float32)})[0]
    assert found.tolist() == [1, 2]


@pytest.mark.parametrize("case", BAD)
def test_models_that_do_not_stand_alone_are_refused(case: str) -> None:
    make, told = BAD[case]
    with pytest.raises(BundleError, match=f"a.onnx: expected an ONNX file that stands alone .*{told}") as caught:
        open_session(make().SerializeToString(), "a.onnx")
    assert "\n" not in str(caught.value)


def test_onnxruntime_alone_would_read_the_other_file(tmp_path: Path) -> None:
    """Why the bytes are looked at first; where this fails the check has become needless."""
    np.full(2, 7, np.float32).tofile(tmp_path / "weights.bin")
    (tmp_path / "a.onnx").write_bytes(model(weights=outside()).SerializeToString())
    session = ort.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": np.zeros(2, np.float32)})[0].tolist() == [7, 7]


@pytest.mark.parametrize("content", [b"nothing of the kind", b"\x3a\xff\xff\x03", b"\x3a\x80", b"", b"\x0b"])
def test_bytes_that_are_no_model_are_refused(content: bytes) -> None:
    with pytest.raises(BundleError, match="expected an ONNX model, found one that does not load"):
        open_session(content)


def test_an_opset_of_the_future_is_refused() -> None:
    made = model()
    made.opset_import[0].version = 9_999
    with pytest.raises(BundleError, match="does not load"):
        open_session(made.SerializeToString())


@given(st.data())
def test_damage_is_refused_or_harmless_and_never_another_error(data: st.DataObject) -> None:
    good = bytearray(model(in_a_branch()).SerializeToString())
    place = data.draw(st.integers(0, len(good) - 1))
    good[place] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(BundleError):
        open_session(bytes(good[: data.draw(st.integers(place, len(good)))]))


def test_many_numbers_and_words_in_a_node_are_passed_over() -> None:
    many = helper.make_node(
        "LabelEncoder",
        ["i"],
        ["z"],
        domain="ai.onnx.ml",
        keys_int64s=[-1, 0, 2**62, *range(50_000)],
        values_floats=[0.5] * 50_003,
    )
    with pytest.raises(BundleError, match="found an operator of domain 'elsewhere'"):
        open_session(model(many, foreign()).SerializeToString())
