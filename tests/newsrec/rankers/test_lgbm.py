"""What only the LightGBM rankers do: objectives, parameters, thresholds in the model text."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from newsrec.errors import UsageError
from newsrec.rankers import RankingData
from newsrec.rankers.lgbm import OBJECTIVES, LgbmParams, LgbmRanker


def lists(n: int = 80, length: int = 10, seed: int = 0) -> RankingData:
    rng = np.random.default_rng(seed)
    signal = rng.normal(size=(n, length))
    label = (signal == signal.max(axis=1, keepdims=True)).ravel().astype(np.uint8)
    features = pl.DataFrame({"signal": signal.ravel(), "noise": rng.normal(size=n * length)}).cast(pl.Float32)
    return RankingData(features, label, np.repeat(np.arange(n), length), np.ones(n * length))


def small(**params: Any) -> LgbmRanker:
    return LgbmRanker.of({"trees": 15, "min_data_in_leaf": 5, "models": 1, "threads": 1, **params})


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_learns_the_order(objective: str) -> None:
    ranker = small(objective=objective).fit(lists(), lists(seed=1))
    test = lists(seed=2)
    best = ranker.score(test.features).reshape(80, 10).argmax(axis=1)
    assert test.label.reshape(80, 10)[np.arange(80), best].mean() > 0.6  # one in ten by chance


def test_only_binary_gives_probabilities() -> None:
    ranker = small(objective="binary").fit(lists(), None)
    scores = ranker.score(lists().features)
    assert ranker.gives_probabilities
    assert ((scores > 0) & (scores < 1)).all()
    assert not small().gives_probabilities


def test_rows_on_a_threshold_score_the_same_after_loading(tmp_path: Path) -> None:
    ranker = small().fit(lists(), lists(seed=1))
    ranker.save(tmp_path)
    text = (tmp_path / LgbmRanker.MODEL_FILE).read_text()
    thresholds = {float(word) for line in re.findall(r"^threshold=(.*)$", text, re.M) for word in line.split()}
    # Thresholds are doubles and the features floats: on it, and one float to either side.
    on = np.array(sorted(thresholds)).astype(np.float32)
    values = np.concatenate([on, np.nextafter(on, np.float32(-9)), np.nextafter(on, np.float32(9))])
    rows = pl.DataFrame({"signal": values, "noise": values[::-1]}, schema={"signal": pl.Float32, "noise": pl.Float32})
    assert len(rows) > 50
    assert np.array_equal(LgbmRanker.load(tmp_path).score(rows), ranker.score(rows))


def test_saved_model_holds_only_the_trees_that_validation_chose(tmp_path: Path) -> None:
    ranker = small(trees=60, patience=4, learning_rate=0.5).fit(lists(), lists(seed=1))
    best = ranker.fitting.best_iteration
    assert best < len(ranker.fitting.valid) < 60
    ranker.save(tmp_path)
    loaded = LgbmRanker.load(tmp_path)
    assert loaded.boosters[0].num_trees() == best
    rows = lists(seed=2).features
    assert np.array_equal(loaded.score(rows), ranker.score(rows))


def test_training_curve_that_is_flat_does_not_stop_the_training() -> None:
    """On so few lists the training curve reaches 1 in a few iterations while validation still moves."""
    sharp = {"trees": 60, "patience": 3, "learning_rate": 0.3, "min_data_in_leaf": 1, "lambda_l2": 0.0}
    told = small(**sharp).fit(lists(10), lists(seed=1)).fitting
    reached = told.train.index(1.0)
    assert len(told.valid) == told.best_iteration + 3
    assert len(told.valid) > reached + 4


def test_weights_count() -> None:
    data = lists()
    heavy = RankingData(data.features, data.label, data.request, np.where(data.request % 2, 50.0, 1.0))
    rows = lists(seed=2).features
    assert not np.array_equal(small().fit(data, None).score(rows), small().fit(heavy, None).score(rows))


def test_each_iteration_is_told() -> None:
    told: list[int] = []
    small().fit(lists(), None, on_iteration=lambda: told.append(1))
    assert len(told) == 15


OUT_OF_RANGE: list[dict[str, Any]] = [
    {"objective": "regression"},
    {"trees": 0},
    {"patience": 0},
    {"truncation": 0},
    {"num_leaves": 1},
    {"num_leaves": 131_073},
    {"max_bin": 1},
    {"max_bin": 256},
    {"learning_rate": 0},
    {"learning_rate": 1.5},
    {"learning_rate": float("nan")},
    {"min_data_in_leaf": -1},
    {"feature_fraction": 0.0},
    {"feature_fraction": 1.1},
    {"bagging_fraction": -0.5},
    {"lambda_l2": -1.0},
    {"threads": -1},
    {"trees": "many"},
    {"trees": 2.5},
    {"learning_rate": "0.1"},
    {"learning_rate": None},
    {"deterministic": 1},
    {"num_leaves": True},
    {"models": 0},
    {"trees": None},
]


@pytest.mark.parametrize("params", OUT_OF_RANGE, ids=str)
def test_parameter_out_of_range_is_refused_by_name(params: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(params))) as caught:
        LgbmRanker.of(params)
    assert len(str(caught.value)) < 300


def test_whole_numbers_are_taken_where_fractions_may_stand() -> None:
    assert LgbmRanker.of({"learning_rate": 1, "lambda_l2": 0}).params == LgbmParams(learning_rate=1, lambda_l2=0)


@pytest.mark.parametrize(
    ("rows", "leaves", "leaf_rows", "models"),
    [(0, 31, 100, 5), (299_999, 31, 100, 5), (300_000, 31, 100, 1), (900_000, 60, 128, 1), (10**8, 255, 500, 1)],
)
def test_trees_grow_with_the_data(rows: int, leaves: int, leaf_rows: int, models: int) -> None:
    made = LgbmParams().for_rows(rows)
    assert (made.num_leaves, made.min_data_in_leaf, made.models) == (leaves, leaf_rows, models)
    assert LgbmParams(num_leaves=7, min_data_in_leaf=3, models=9).for_rows(rows).num_leaves == 7


@pytest.mark.parametrize(
    ("share", "leaves", "leaf_rows"), [(1.0, 200, 428), (0.5, 100, 214), (0.1, 31, 100), (0.0, 31, 100)]
)
def test_trees_of_a_share_of_the_rows_are_smaller(share: float, leaves: int, leaf_rows: int) -> None:
    made = LgbmParams().for_rows(3_000_000)
    shrunk = made.for_share(share)
    assert (shrunk.num_leaves, shrunk.min_data_in_leaf) == (leaves, leaf_rows)
    assert replace(shrunk, num_leaves=200, min_data_in_leaf=428) == made


def test_small_trees_are_not_made_larger_for_a_share() -> None:
    made = LgbmParams(num_leaves=7, min_data_in_leaf=3).for_rows(3_000_000)
    assert made.for_share(0.5) == made


def test_refit_on_a_share_has_smaller_trees() -> None:
    ranker = small(num_leaves=60, min_data_in_leaf=1).fit(lists(), None)
    assert ranker.refit(lists(seed=1)).params.num_leaves == 60
    assert ranker.refit(lists(seed=1), share=0.6).params.num_leaves == 36


class TestAverage:
    def test_scores_are_the_mean_of_models_with_a_seed_each(self) -> None:
        rows = lists(seed=2).features
        alone = [small().fit(lists(), None, seed=seed).score(rows) for seed in (4, 5, 6)]
        together = small(models=3).fit(lists(), None, seed=4).score(rows)
        assert not np.array_equal(alone[0], alone[1])
        np.testing.assert_allclose(together, np.mean(alone, axis=0, dtype=np.float64), rtol=1e-6)

    def test_all_use_the_trees_that_validation_chose_with_the_first(self) -> None:
        ranker = small(models=2, trees=60, patience=4, learning_rate=0.5).fit(lists(), lists(seed=1))
        best = ranker.fitting.best_iteration
        assert [booster.num_trees() for booster in ranker.boosters] == [best, best]
        assert best < 60
        assert sum(row["splits"] for row in ranker.fitting.importance) == sum(
            int(booster.feature_importance("split", iteration=best).sum()) for booster in ranker.boosters
        )

    def test_each_is_a_file_of_its_own(self, tmp_path: Path) -> None:
        ranker, rows = small(models=3).fit(lists(), lists(seed=1)), lists(seed=2).features
        ranker.save(tmp_path)
        assert {p.name for p in tmp_path.glob("*.txt")} == {"lambdarank.txt", "lambdarank-2.txt", "lambdarank-3.txt"}
        assert np.array_equal(LgbmRanker.load(tmp_path).score(rows), ranker.score(rows))
        np.testing.assert_allclose(
            ranker.contributions(rows).sum(axis=1).std(), ranker.score(rows).std(), rtol=1e-4
        )  # the constant apart
