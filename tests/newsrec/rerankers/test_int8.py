"""The small network: smaller, nearly as good, and what it loses is told."""

import json
from dataclasses import dataclass, replace

import numpy as np
import onnx
import pytest

from newsrec.bundle import read_manifest
from newsrec.errors import UsageError
from newsrec.rerank import MODEL_FILE, SIGNATURE_FILE, Blend, RerankSettings
from newsrec.rerankers.int8 import INT8_MODEL, INT8_SIGNATURE, TOLERANCE, loss_of_quality
from newsrec.tensors import Fields, Floats, Lists
from newsrec.train import TrainResult, train
from newsrec.train_config import TrainConfig
from tests.networks import random_lists

DRAWN = random_lists(50)
LISTS = replace(DRAWN, dense=np.nan_to_num(DRAWN.dense))
SETTINGS = RerankSettings("din", True, 20, 50, Blend(1.0, 1.0, 1.0), Fields((), {}, ()))


@dataclass
class Told:
    """A network that gives what it is told to."""

    given: Floats
    settings: RerankSettings = SETTINGS

    def probabilities(self, lists: Lists) -> Floats:
        assert lists is LISTS
        return self.given


def loss(exact: Floats, small: Floats) -> dict:
    return loss_of_quality(Told(exact), Told(small), LISTS)  # type: ignore[arg-type]


def test_nothing_is_lost_where_both_score_alike() -> None:
    good = np.where(LISTS.label == 1, 0.9, 0.1).astype(np.float32)
    found = loss(good, good)
    assert (found["largest_difference"], found["same_first"], found["lists"]) == (0, 1, 50)
    assert found["alone"] == {"float": 1.0, "int8": 1.0}
    assert found["blend"]["float"] == found["blend"]["int8"]


def test_what_is_lost_is_told_by_hand() -> None:
    """The small one puts the clicked article last: of lists with one article nothing is lost."""
    good = np.where(LISTS.label == 1, 0.9, 0.1).astype(np.float32)
    found, lone = loss(good, 1 - good), (LISTS.length == 1).mean()
    assert found["largest_difference"] == pytest.approx(0.8)
    assert found["same_first"] == pytest.approx(lone)
    last = np.where(LISTS.length <= 5, 1 / LISTS.length, 0).mean()
    assert found["alone"] == {"float": 1.0, "int8": pytest.approx(last)}
    assert found["blend"]["int8"] < found["blend"]["float"]


def test_a_run_keeps_both_with_size_parity_and_loss(reranked: TrainResult) -> None:
    manifest, told = read_manifest(reranked.run), reranked.metrics["onnx"]
    assert {INT8_MODEL, INT8_SIGNATURE, MODEL_FILE, SIGNATURE_FILE} <= set(manifest["files"])
    assert manifest["onnx"] == told
    assert told[INT8_MODEL]["bytes"] < told[MODEL_FILE]["bytes"]
    assert told[MODEL_FILE]["parity"]["largest_difference"] < 1e-5
    quality = told[INT8_MODEL]["quality"]
    assert quality["lists"] > 100
    assert 0 < quality["largest_difference"] < 0.1
    assert quality["same_first"] > 0.9
    assert quality["alone"]["int8"] == pytest.approx(quality["alone"]["float"], abs=0.02)


def test_its_signature_is_that_of_the_exact_one_with_its_own_scores(reranked: TrainResult) -> None:
    exact, small = (
        json.loads((reranked.run / name).read_text(encoding="utf-8")) for name in (SIGNATURE_FILE, INT8_SIGNATURE)
    )
    assert small["inputs"] == exact["inputs"]
    assert small["example"]["inputs"] == exact["example"]["inputs"]
    assert small["example"]["scores"] != exact["example"]["scores"]
    assert (small["model"], small["tolerance"]) == (INT8_MODEL, TOLERANCE)


def test_embeddings_have_eight_bits_and_no_operator_is_foreign(reranked: TrainResult) -> None:
    graph = onnx.load(reranked.run / INT8_MODEL).graph
    largest = max(graph.initializer, key=lambda tensor: np.prod(tensor.dims, dtype=int))
    assert largest.data_type == onnx.TensorProto.UINT8
    assert "MatMulInteger" in {node.op_type for node in graph.node}
    assert {node.domain for node in graph.node} == {"", "ai.onnx.ml"}


def test_int8_without_a_network_is_refused() -> None:
    with pytest.raises(UsageError, match="--int8: expected --reranker with it, found none"):
        train(TrainConfig(int8=True))
