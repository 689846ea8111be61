"""The network where it is used: what it reorders, what it leaves, what it refuses."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from features.events import EventStore
from newsrec.errors import BundleError
from newsrec.neural.export import export_network
from newsrec.neural.model import Model
from newsrec.neural.parity import random_batch
from newsrec.neural.vocabulary import IdVocabulary
from newsrec.rerank import (
    MODEL_FILE,
    SIGNATURE_FILE,
    Blend,
    Reranker,
    RerankSettings,
    lists_place,
    log_odds,
)
from newsrec.rerankers import make
from newsrec.rerankers.base import Shape
from newsrec.tensors import Fields
from tests.factories import requests_for, small_log

LOG = small_log(1)
STORE = EventStore(LOG.clicks, LOG.articles)
FIELDS = Fields.of(STORE, ("a", "b"))
SETTINGS = RerankSettings("din", True, 3, 5, Blend(0.75, 0.5, 4.0), FIELDS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with new weights, exported."""
    known = {"item_id": np.arange(1, 15), "category": np.array(["culture", "politics"], object)}
    vocabulary, path = IdVocabulary(known), tmp_path_factory.mktemp("network") / MODEL_FILE
    torch.manual_seed(0)
    model = Model(make("din", Shape(3, vocabulary.sizes, 1)), 3, 1)
    export_network(model, vocabulary, FIELDS, random_batch(vocabulary, FIELDS, (2, 2, 2), rng()), path, {})
    return path.parent


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def reranker(folder: Path) -> Reranker:
    return Reranker.load(folder, SETTINGS.facts())


def material(seed: int = 0) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Features, scored candidates and requests; lists of 1 to 7 distinct articles."""
    requests, draw = requests_for(LOG, 20, seed), np.random.default_rng(seed)
    rows = [
        (request, int(item))
        for request in requests["request_id"]
        for item in draw.choice(np.arange(1, 24), int(draw.integers(1, 8)), replace=False)
    ]
    scored = pl.DataFrame(rows, schema=["request_id", "item_id"], orient="row").with_columns(
        pl.Series("score", draw.normal(size=len(rows)), dtype=pl.Float32)
    )
    described = pl.DataFrame(draw.normal(size=(len(rows), 2)).astype(np.float32), schema=["a", "b"])
    return described, scored, requests


def test_first_candidates_of_each_list_best_first_ties_by_article() -> None:
    scored = pl.DataFrame(
        {"request_id": [7, 7, 7, 5, 5], "item_id": [3, 1, 2, 9, 8], "score": [0.5, 0.5, 0.9, -1.0, 2.0]}
    )
    assert lists_place(scored, 2).tolist() == [2, 1, 4, 3]
    assert lists_place(scored, 1).tolist() == [2, 4]


def test_blend_by_hand() -> None:
    found = SETTINGS.blend.scores(np.array([1.0, -1.0]), np.array([0.0, 8.0]))
    assert found.tolist() == [0.25 * 1 / 0.5, 0.25 * -1 / 0.5 + 0.75 * 8 / 4]


def test_log_odds_are_finite_where_float32_is_rounded() -> None:
    found = log_odds(np.array([0.0, 0.5, 1.0], np.float32))
    assert found[1] == 0
    assert (np.isfinite(found).all(), found[0], found[2]) == (
        True,
        pytest.approx(-found[2]),
        pytest.approx(16.118, abs=1e-3),
    )


def test_top_is_ordered_by_the_blend_and_stands_above_the_rest_which_stays(reranker: Reranker) -> None:
    described, scored, requests = material()
    found = scored.hstack(reranker.rescored(described, scored, requests, STORE)).with_columns(
        pl.col("score").rank("ordinal", descending=True).over("request_id").alias("place")
    )
    top, rest = found.filter(pl.col("place") <= 3), found.filter(pl.col("place") > 3)
    assert rest["rerank"].equals(rest["score"].alias("rerank"))
    both = top.group_by("request_id").agg(pl.col("rerank").min()).join(rest, on="request_id", suffix="_rest")
    assert len(both)
    assert (both["rerank"] > both["rerank_rest"]).all()
    blend = 0.25 * top["score"].to_numpy() / 0.5 + 0.75 * top["rerank_alone"].to_numpy() / 4.0
    ordered = top.with_columns(pl.Series("blend", blend)).select(
        pl.col(name).rank().over("request_id").alias(name) for name in ("blend", "rerank")
    )
    assert ordered["blend"].equals(ordered["rerank"].alias("blend"))
    assert (top["rerank"] != top["score"]).any()


def test_alone_the_network_orders_the_top_and_the_ranker_what_lies_below(reranker: Reranker) -> None:
    described, scored, requests = material()
    found = scored.hstack(reranker.rescored(described, scored, requests, STORE)).with_columns(
        pl.col("score").rank("ordinal", descending=True).over("request_id").alias("place")
    )
    rest = found.filter(pl.col("place") > 3)
    ranks = rest.select(pl.col(name).rank().over("request_id") for name in ("score", "rerank_alone"))
    assert ranks["score"].equals(ranks["rerank_alone"].alias("score"))
    worst = found.filter(pl.col("place") <= 3).group_by("request_id").agg(pl.col("rerank_alone").min().alias("worst"))
    assert rest.join(worst, on="request_id").select((pl.col("rerank_alone") <= pl.col("worst")).all()).item()


def test_without_weight_the_order_is_the_rankers(folder: Path) -> None:
    described, scored, requests = material()
    settings = replace(SETTINGS, blend=replace(SETTINGS.blend, weight=0.0))
    found = Reranker.load(folder, settings.facts()).rescored(described, scored, requests, STORE)
    np.testing.assert_allclose(found["rerank"], scored["score"], rtol=1e-6)


def test_one_request_scores_as_among_many_and_order_of_rows_is_kept(reranker: Reranker) -> None:
    described, scored, requests = material()
    whole = reranker.rescored(described, scored, requests, STORE)
    one = scored["request_id"][0]
    rows = np.flatnonzero((scored["request_id"] == one).to_numpy())[::-1]
    alone = reranker.rescored(described[rows], scored[rows], requests.filter(pl.col("request_id") == one), STORE)
    np.testing.assert_allclose(alone["rerank"], whole["rerank"].gather(rows), rtol=1e-4)


def test_clicks_at_or_after_the_request_change_nothing(reranker: Reranker) -> None:
    described, scored, requests = material()
    at = requests["requested_at"].sort()[10]
    asked = requests.filter(pl.col("requested_at") <= at)
    early = scored["request_id"].is_in(asked["request_id"].implode())
    past = EventStore(LOG.clicks.filter(pl.col("clicked_at") < at), LOG.articles)
    only = asked.filter(pl.col("requested_at") == at)
    rows = np.flatnonzero(scored["request_id"].is_in(only["request_id"].implode()).to_numpy())
    assert early.any()
    assert len(rows)
    found = [reranker.rescored(described[rows], scored[rows], only, store) for store in (past, STORE)]
    assert found[0].equals(found[1])


def test_no_candidates_give_no_rows(reranker: Reranker) -> None:
    described, scored, requests = material()
    assert reranker.rescored(described[:0], scored[:0], requests, STORE).shape == (0, 2)


def test_settings_come_back_from_json() -> None:
    assert RerankSettings.of(json.loads(json.dumps(SETTINGS.facts()))) == SETTINGS
    broken: list[dict[str, Any]] = [{}, {"name": "din"}, SETTINGS.facts() | {"fields": 3}, SETTINGS.facts() | {"x": 1}]
    for facts in broken:
        with pytest.raises(BundleError, match="expected a whole entry 'reranker'"):
            RerankSettings.of(facts)


def test_signatures_that_do_not_fit_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / MODEL_FILE).write_bytes((folder / MODEL_FILE).read_bytes())
    signature = json.loads((folder / SIGNATURE_FILE).read_text(encoding="utf-8"))
    for content in ("", "[]", json.dumps(signature | {"inputs": signature["inputs"][:-1]})):
        (tmp_path / SIGNATURE_FILE).write_text(content, encoding="utf-8")
        with pytest.raises(BundleError, match=r"reranker\.signature\.json"):
            Reranker.load(tmp_path, SETTINGS.facts())
    for dense, told in (
        (FIELDS.dense[1:], "expected the 2 dense"),
        (FIELDS.dense[::-1], "in its order, found 3 there"),
    ):
        other = replace(SETTINGS, fields=replace(FIELDS, dense=dense))
        with pytest.raises(BundleError, match=told):
            Reranker.load(folder, other.facts())
    strings = replace(SETTINGS, fields=replace(FIELDS, ids=FIELDS.ids | {"item_id": "string"}))
    with pytest.raises(BundleError, match=r"expected inputs .*'item_id': 'string'.* found .*'item_id': 'int64'"):
        Reranker.load(folder, strings.facts())
