"""The reader's tower as ONNX: the channel's own vectors for raw ids, alone with onnxruntime, or no file at all."""

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import polars as pl
import pytest

from features.articles import UNIT
from features.events import EventStore
from newsrec.neural import tower_file, tower_onnx
from newsrec.neural.parity import ParityError
from newsrec.neural.tower_file import write_user_tower
from newsrec.neural.tower_onnx import CLICKS, OUTPUT, export_user_tower
from newsrec.recall import RecallRequests
from newsrec.recall.two_tower import TwoTower
from newsrec.tensors import MASK
from tests.factories import IDS, SHALLOW, ms, requests_for, small_log, store_of

AT = ms(2 * 1_440 + 300)


def fitted(ids: str = "integer") -> tuple[EventStore, TwoTower]:
    store = store_of(small_log(1, ids))
    return store, TwoTower().fit(store, SHALLOW)


def session(folder: Path) -> ort.InferenceSession:
    return ort.InferenceSession(folder / "two_tower.onnx", providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("ids", IDS)
def test_nearest_of_the_table_are_what_the_channel_proposes(ids: str, tmp_path: Path) -> None:
    """From the two files of a bundle alone, for readers with their last clicks newest first."""
    store, channel = fitted(ids)
    export_user_tower(channel, AT, tmp_path)
    asked = requests_for(small_log(1, ids)).with_columns(
        pl.lit(AT).cast(pl.Datetime("ms", "UTC")).alias(name) for name in ("requested_at", "statistics_at")
    )
    found = channel.recall(RecallRequests.of(asked, store))
    table, log = channel.table(AT), small_log(1, ids).clicks.filter(pl.col("clicked_at").to_physical() < AT)
    vectors, checked = table["embedding"].to_numpy(), 0
    for row, user in enumerate(asked["user_id"]):
        # Clicks of one instant stand in the order of the ids.
        own = log.filter(pl.col("user_id") == user).sort("clicked_at", "item_id", descending=True)["item_id"].head(9)
        if own.is_empty():
            continue
        clicks = np.array([own.to_list()], np.int64 if ids == "integer" else object)
        given = {CLICKS: clicks, MASK: np.ones(clicks.shape, np.float32)}
        product = vectors @ session(tmp_path).run([OUTPUT], given)[0][0]
        told = found.filter(pl.col("row") == row)
        places = [table["item_id"].to_list().index(i) for i in store.items.gather(told["item"])]
        np.testing.assert_allclose(product[places], told["score"].to_numpy(), atol=1e-6)
        checked += len(places)
    assert checked > 50


def test_padding_and_unknown_ids_may_stand_anywhere(tmp_path: Path) -> None:
    _, channel = fitted()
    export_user_tower(channel, AT, tmp_path)
    known = channel.reading(AT)[0].to_list()
    a, b, c = known[:3]
    clicks = np.array([[a, b, c, 0], [a, b, 0, c], [a, 10**9, c, 0], [0, 0, 0, 0]])
    mask = np.array([[1, 1, 1, 0], [1, 1, 0, 1], [1, 1, 1, 0], [1, 1, 0, 0]], np.float32)
    one, moved, unknown, nobody = session(tmp_path).run([OUTPUT], {CLICKS: clicks, MASK: mask})[0]
    assert (one == moved).all()
    assert not (one == unknown).all()
    assert not nobody.any()
    assert np.linalg.norm(unknown) == pytest.approx(1, abs=4 / UNIT)


@pytest.mark.parametrize("ids", IDS)
def test_the_signature_is_enough_to_use_it(ids: str, tmp_path: Path) -> None:
    export_user_tower(fitted(ids)[1], AT, tmp_path)
    told = json.loads((tmp_path / "two_tower.signature.json").read_text(encoding="utf-8"))
    kinds = {"int64": np.int64, "string": object, "float32": np.float32}
    given = {i["name"]: np.array(told["example"]["inputs"][i["name"]], kinds[i["dtype"]]) for i in told["inputs"]}
    (output,) = told["outputs"]
    found = session(tmp_path).run([output["name"]], given)[0]
    assert found.shape[1:] == tuple(output["shape"][1:])
    np.testing.assert_array_equal(found, np.array(told["example"]["scores"], np.float32))
    assert found.any()


def test_a_file_that_gives_other_vectors_is_deleted_and_costs_the_bundle_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, channel = fitted()
    graph = tower_onnx._graph
    monkeypatch.setattr(tower_onnx, "_graph", lambda user, ids: graph(user, ids.reverse()))
    with pytest.raises(ParityError, match="expected the vectors of two_tower"):
        export_user_tower(channel, AT, tmp_path)
    (tmp_path / "recall").mkdir()
    told: list[str] = []
    write_user_tower(tmp_path, {"two_tower": channel}, AT, told.append)
    assert not list((tmp_path / "recall").iterdir())
    assert "no recall/two_tower.onnx: " in told[0]


def test_there_is_no_file_without_onnx_nor_before_the_first_article(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, channel = fitted()
    (tmp_path / "recall").mkdir()
    told: list[str] = []
    write_user_tower(tmp_path, {"two_tower": channel}, ms(-1_440), told.append)
    monkeypatch.setattr(tower_file, "find_spec", lambda name: None)
    write_user_tower(tmp_path, {"two_tower": channel}, AT, told.append)
    assert not list((tmp_path / "recall").iterdir())
    assert told == ["note: no recall/two_tower.onnx, as onnx is not installed (pip install 'newsrec[neural]')"]
