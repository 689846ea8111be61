"""The exported file: it scores as torch does, stands alone, and a file that does not is deleted."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from newsrec.neural import export
from newsrec.neural.export import export_network, probabilities
from newsrec.neural.model import Model
from newsrec.neural.parity import ParityError, cases, check_parity, same_order
from newsrec.neural.signature import ATOL, RTOL
from newsrec.neural.vocabulary import IdVocabulary
from newsrec.rerank import OUTPUT, SIGNATURE_FILE
from newsrec.rerankers import RERANKERS, make
from newsrec.sessions import open_session
from newsrec.tensors import MASK, Batch, batches, padded
from tests.networks import SHAPE, fields_of, random_lists, vocabulary_of

CASES = [*((name, "int64") for name in RERANKERS), ("din", "string")]
"""The look-up stands before the network: one of them is enough for ids of another kind."""
FACTS = {"network": "made", "loss": "softmax"}


def model_of(name: str) -> Model:
    torch.manual_seed(1)
    model = Model(make(name, SHAPE), SHAPE.dense, SHAPE.numbers)
    model.fit_scales(random_lists())
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 0.2)
    return model


def example_of(kind: str) -> Batch:
    lists = random_lists(60, seed=2, kind=kind)
    return padded(lists, batches(lists, 2)[-1])


@pytest.fixture(scope="module", params=CASES, ids=str)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, Model]:
    name, kind = request.param
    path = tmp_path_factory.mktemp("onnx") / "reranker.onnx"
    model = model_of(name)
    export_network(model, vocabulary_of(kind), fields_of(kind), example_of(kind), path, FACTS)
    return path, kind, model


def test_whole_lists_score_as_in_torch(exported: tuple[Path, str, Model]) -> None:
    path, kind, model = exported
    session, lists = open_session(path.read_bytes()), random_lists(90, seed=5, kind=kind, longest=30, history=20)
    for chosen in batches(lists, 16):
        batch = padded(lists, chosen)
        wanted = probabilities(model, vocabulary_of(kind), batch)
        found = session.run(None, batch.named())[0]
        np.testing.assert_allclose(found, wanted, rtol=RTOL, atol=ATOL)
        assert ((found > 0) & (found < 1)).all()


def test_cases_cover_shapes_and_values_that_the_export_never_saw(exported: tuple[Path, str, Model]) -> None:
    path, kind, model = exported
    shapes = {batch.dense.shape[:2] + batch.mask.shape[1:] for _, batch in cases(vocabulary_of(kind), fields_of(kind))}
    assert {(1, 1, 0), (256, 5, 9), (3, 300, 5)} <= shapes
    largest = check_parity(
        lambda b: probabilities(model, vocabulary_of(kind), b), vocabulary_of(kind), fields_of(kind), path
    )
    assert largest < ATOL


def test_no_candidates_give_no_scores(exported: tuple[Path, str, Model]) -> None:
    path, kind, _ = exported
    inputs = {name: values if "history" in name else values[:, :0] for name, values in example_of(kind).named().items()}
    assert open_session(path.read_bytes()).run(None, inputs)[0].shape == (len(inputs[MASK]), 0)


def test_ten_thousand_candidates_are_scored(exported: tuple[Path, str, Model]) -> None:
    path, kind, _ = exported
    one = {
        name: v[:1] if "history" in name else v[:1, :1].repeat(10_000, 1)
        for name, v in example_of(kind).named().items()
    }
    assert open_session(path.read_bytes()).run(None, one)[0].shape == (1, 10_000)


def test_it_is_one_file_of_two_known_domains_with_metadata(exported: tuple[Path, str, Model]) -> None:
    path, _, _ = exported
    assert {file.name for file in path.parent.iterdir()} == {path.name, SIGNATURE_FILE}
    graph = onnx.load(path, load_external_data=False)
    assert {node.domain for node in graph.graph.node} == {"", "ai.onnx.ml"}
    assert not [tensor.name for tensor in graph.graph.initializer if tensor.external_data]
    told = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).get_modelmeta().custom_metadata_map
    assert told.items() >= FACTS.items()
    assert "newsrec" in told


def test_the_worked_example_of_the_signature_is_reproduced_without_our_code(exported: tuple[Path, str, Model]) -> None:
    path, kind, _ = exported
    told = json.loads((path.parent / SIGNATURE_FILE).read_text(encoding="utf-8"))
    dtypes = {"float32": np.float32, "int64": np.int64, "string": object}
    inputs = {
        row["name"]: np.array(told["example"]["inputs"][row["name"]], dtype=dtypes[row["dtype"]])
        for row in told["inputs"]
    }
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_inputs()] == [row["name"] for row in told["inputs"]]
    np.testing.assert_allclose(session.run(None, inputs)[0], told["example"]["scores"], rtol=RTOL, atol=ATOL)
    assert {row["dtype"] for row in told["inputs"] if row["name"] == "item_id"} == {kind}
    assert all(row["meaning"] and row["shape"][0] == "requests" for row in told["inputs"] + told["outputs"])
    assert 0 <= told["parity"]["largest_difference"] < ATOL
    assert told["inputs"][0]["columns"] == list(fields_of().dense)


def test_a_file_that_scores_otherwise_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_look_up", with_swapped_articles)
    path = tmp_path / "reranker.onnx"
    with pytest.raises(ParityError, match=r"expected the scores and the order of torch in case .* found a difference"):
        export_network(model_of("din"), vocabulary_of(), fields_of(), example_of("int64"), path, FACTS)
    assert not list(tmp_path.iterdir())


LOOK_UP = export._look_up


def with_swapped_articles(graph: onnx.ModelProto, vocabulary: IdVocabulary) -> None:
    swapped = vocabulary.known | {"item_id": vocabulary.known["item_id"][::-1]}
    LOOK_UP(graph, IdVocabulary(swapped))


def test_a_vocabulary_that_knows_nothing_can_be_exported(tmp_path: Path) -> None:
    nothing = IdVocabulary({"item_id": np.zeros(0, np.int64), "category": np.zeros(0, object)})
    path = tmp_path / "reranker.onnx"
    export_network(model_of("din"), nothing, fields_of(), example_of("int64"), path, FACTS)
    check_parity(lambda batch: probabilities(model_of("din"), nothing, batch), nothing, fields_of(), path)


def test_order_may_differ_only_where_scores_are_as_good_as_equal() -> None:
    wanted = np.array([[0.9, 0.5, 0.5 + 1e-6, 0.1]])
    assert same_order(np.array([[0.9, 0.5, 0.4999, 0.1]]), wanted)
    assert not same_order(np.array([[0.9, 0.1, 0.5, 0.2]]), wanted)
    assert same_order(np.zeros((2, 0)), np.zeros((2, 0)))


def test_output_is_named(exported: tuple[Path, str, Model]) -> None:
    assert [each.name for each in open_session(exported[0].read_bytes()).get_outputs()] == [OUTPUT]
