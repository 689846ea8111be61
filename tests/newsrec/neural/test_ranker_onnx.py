"""The ranker as ONNX: LightGBM's scores where they are hardest to hit, alone with onnxruntime, or no file at all."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import polars as pl
import pytest

from newsrec.bundle import read_manifest
from newsrec.neural import ranker_onnx
from newsrec.neural.parity import ParityError
from newsrec.neural.ranker_onnx import INPUT, OUTPUT, RANKER_MODEL, RANKER_SIGNATURE, border_rows, export_ranker
from newsrec.rankers import RankingData
from newsrec.rankers.lgbm import OBJECTIVES, LgbmRanker
from newsrec.rankers.trees import Trees
from newsrec.serve import Recommender
from newsrec.sessions import open_session
from newsrec.train import TrainResult

EXACT = {"rtol": 1e-6, "atol": 1e-6}
"""Doubles inside, one rounding to float32 at the end."""
CODES = ["kind"]


def ranking_data(seed: int = 0, n: int = 1_500) -> RankingData:
    """A column with missing values, one without, seventy categories, and labels that depend on all three."""
    rng = np.random.default_rng(seed)
    kind, signal, whole = rng.integers(0, 70, n), rng.normal(size=n), rng.integers(0, 9, n)
    label = ((signal > 0.3) ^ (kind % 3 == 1) ^ (whole > 6)).astype(np.uint8)
    signal[rng.random(n) < 0.2] = np.nan
    features = pl.DataFrame({"signal": signal, "whole": whole, "kind": kind}).cast(pl.Float32)
    return RankingData(features, label, np.repeat(np.arange(n // 10), 10), np.ones(n))


def fitted(**params: object) -> LgbmRanker:
    settings = {"trees": 20, "min_data_in_leaf": 5, "models": 3, "threads": 1, "feature_fraction": 1.0, **params}
    return LgbmRanker.of(settings).fit(ranking_data(), None, categorical=CODES)


@pytest.fixture(scope="module")
def ranker() -> LgbmRanker:
    return fitted()


@pytest.fixture(scope="module")
def folder(ranker: LgbmRanker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ranker")
    export_ranker(ranker, ranking_data().features, CODES, path)
    return path


def scores(folder: Path, rows: pl.DataFrame) -> np.ndarray:
    return open_session((folder / RANKER_MODEL).read_bytes()).run([OUTPUT], {INPUT: rows.to_numpy()})[0]


def test_the_model_has_what_is_hard(ranker: LgbmRanker) -> None:
    """Else the parity below would show little."""
    assert len(ranker.trees) == 3
    for trees in ranker.trees:
        inner = ~trees.leaf
        assert trees.equals.any()
        assert (inner & ~trees.equals & trees.missing_yes).any()
        assert (inner & ~trees.equals & ~trees.missing_yes).any()
        assert (trees.threshold[inner] != trees.threshold[inner].astype(np.float32)).any()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_new_rows_score_as_in_lightgbm(objective: str, tmp_path: Path) -> None:
    ranker, rows = fitted(objective=objective), ranking_data(seed=1).features
    export_ranker(ranker, rows, CODES, tmp_path)
    np.testing.assert_allclose(scores(tmp_path, rows), ranker.score(rows), **EXACT)


def test_values_at_and_beside_every_threshold_fall_to_the_same_side(ranker: LgbmRanker, folder: Path) -> None:
    rows = border_rows(ranker.trees, ranking_data().features.columns, seed=7)
    np.testing.assert_allclose(scores(folder, rows), ranker.score(rows), **EXACT)
    whole = ranker.trees[0].threshold[ranker.trees[0].feature == 0].astype(np.float32)
    assert np.isin(rows["signal"].to_numpy(), whole).any()
    assert rows["signal"].is_nan().any()
    assert rows["signal"].is_infinite().any()


def test_fractions_and_unknown_codes_are_read_as_lightgbm_reads_them(ranker: LgbmRanker, folder: Path) -> None:
    codes = [0.5, -0.5, -1.0, 3.999, 69.0, 70.0, 1e9, float("nan")]
    rows = pl.DataFrame({"signal": [0.0] * 8, "whole": [1.0] * 8, "kind": codes}).cast(pl.Float32)
    np.testing.assert_allclose(scores(folder, rows), ranker.score(rows), **EXACT)


@pytest.mark.parametrize("n", [0, 1, 2, 10_000])
def test_any_number_of_candidates(ranker: LgbmRanker, folder: Path, n: int) -> None:
    rows = pl.concat([ranking_data(seed=3).features] * 7)[:n]
    np.testing.assert_allclose(scores(folder, rows), ranker.score(rows), **EXACT)


def test_the_signature_is_enough_to_use_it(folder: Path) -> None:
    told = json.loads((folder / RANKER_SIGNATURE).read_text(encoding="utf-8"))
    (given,), (output,) = told["inputs"], told["outputs"]
    assert (given["columns"], given["codes"]) == (["signal", "whole", "kind"], CODES)
    assert (given["shape"], output["shape"]) == (["candidates", 3], ["candidates"])
    session = ort.InferenceSession(folder / told["model"], providers=["CPUExecutionProvider"])
    rows = np.array(told["example"]["inputs"][given["name"]], np.float32)
    assert rows.shape == (3, 3)
    np.testing.assert_allclose(session.run([output["name"]], {given["name"]: rows})[0], told["example"]["scores"])
    domains = {node.domain for node in onnx.load(folder / RANKER_MODEL).graph.node}
    assert domains == {"", "ai.onnx.ml"}


def test_an_example_with_infinite_values_is_still_json(ranker: LgbmRanker, tmp_path: Path) -> None:
    rows = ranking_data().features.with_columns(pl.lit(float("inf"), pl.Float32).alias("signal"))
    export_ranker(ranker, rows, CODES, tmp_path)
    told = json.loads((tmp_path / RANKER_SIGNATURE).read_text(encoding="utf-8"))
    shown = np.array(told["example"]["inputs"][INPUT], np.float32)
    assert (shown[:, 0] == np.finfo(np.float32).max).all()
    np.testing.assert_allclose(ranker.score(rows[:3]), told["example"]["scores"])


def rounded(trees: Trees) -> Trees:
    """Thresholds as a float32 graph would have them."""
    return replace(trees, threshold=trees.threshold.astype(np.float32).astype(np.float64))


def without_missing(trees: Trees) -> Trees:
    return replace(trees, missing_yes=~trees.missing_yes)


@pytest.mark.parametrize("fault", [rounded, without_missing])
def test_a_file_that_scores_otherwise_is_deleted(
    fault: object, ranker: LgbmRanker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensemble = ranker_onnx._ensemble
    monkeypatch.setattr(ranker_onnx, "_ensemble", lambda trees, output: ensemble(fault(trees), output))  # type: ignore[operator]
    with pytest.raises(ParityError, match=r"expected the scores and the order of LightGBM on .* rows, found a differ"):
        export_ranker(ranker, ranking_data().features, CODES, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_bundle_holds_it_and_it_ranks_as_the_bundle_does(measured: TrainResult) -> None:
    manifest = read_manifest(measured.run)
    assert {RANKER_MODEL, RANKER_SIGNATURE} <= set(manifest["files"])
    figures = measured.metrics["onnx"][RANKER_MODEL]
    assert figures["bytes"] == manifest["files"][RANKER_MODEL]["size"]
    assert figures["parity"]["largest_difference"] < 1e-6
    assert manifest["onnx"] == measured.metrics["onnx"]
    told = json.loads((measured.run / RANKER_SIGNATURE).read_text(encoding="utf-8"))
    assert told["inputs"][0]["columns"] == manifest["features"]
    served = Recommender.load(measured.run)
    rows = served.features(served.store.users[0], served.store.items[:50].to_list())
    np.testing.assert_allclose(scores(measured.run, rows), served.ranker.score(rows), **EXACT)
