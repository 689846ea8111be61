"""What every ranker of `RANKERS` keeps: order of rows, seeds, files, and refusals before native code sees the data."""

import dataclasses
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from newsrec.errors import BundleError, DataError, NewsrecError, UsageError
from newsrec.rankers import RANKERS, Ranker, RankingData
from newsrec.train import TrainResult
from tests.oracle.trees import forest

SMALL: dict[str, dict[str, Any]] = {"lgbm": {"trees": 12, "min_data_in_leaf": 5, "threads": 1}}
"""Parameters by ranker that fit a few hundred rows in a moment."""
CATEGORICAL = ["device"]


def ranking_data(lists: int = 60, length: int = 10, seed: int = 0) -> RankingData:
    """Lists whose clicked row is mostly the one with the highest `signal`; null, ties and categories included."""
    rng = np.random.default_rng(seed)
    n = lists * length
    signal = rng.normal(size=n).round(1)
    wanted = (signal + rng.gumbel(scale=0.3, size=n)).reshape(lists, length)
    label = (wanted == wanted.max(axis=1, keepdims=True)).ravel().astype(np.uint8)
    features = pl.DataFrame(
        {
            "signal": signal,
            "noise": pl.Series(rng.normal(size=n)).set(pl.Series(rng.random(n) < 0.2), None),
            "device": rng.integers(0, 4, n),
        }
    ).cast(pl.Float32)
    return RankingData(features, label, np.repeat(np.arange(lists), length), rng.choice([1.0, 2.5], n))


def fitted(name: str, data: RankingData | None = None, seed: int = 0, **params: Any) -> Ranker:
    ranker = RANKERS[name].of({**SMALL[name], **params})
    return ranker.fit(data or ranking_data(), ranking_data(seed=1), categorical=CATEGORICAL, seed=seed)


@pytest.fixture(scope="module", params=RANKERS)
def ranker(request: pytest.FixtureRequest) -> Ranker:
    return fitted(request.param)


def test_every_ranker_has_small_parameters_here() -> None:
    assert set(SMALL) == set(RANKERS)


def test_scores_are_finite_float32_and_put_the_clicked_row_first(ranker: Ranker) -> None:
    data = ranking_data(seed=2)
    scores = ranker.score(data.features)
    assert scores.dtype == np.float32
    assert scores.shape == (len(data),)
    assert np.isfinite(scores).all()
    lists = scores.reshape(60, 10).argmax(axis=1)
    assert (data.label.reshape(60, 10)[np.arange(60), lists] == 1).mean() > 0.4  # one in ten by chance


def test_permuted_rows_permute_the_scores(ranker: Ranker) -> None:
    rows = ranking_data(seed=2).features
    order = np.random.default_rng(0).permutation(len(rows))
    assert np.array_equal(ranker.score(rows[order]), ranker.score(rows)[order])


def test_score_of_a_row_does_not_depend_on_the_other_rows(ranker: Ranker) -> None:
    rows = ranking_data(lists=600, seed=2).features  # enough for the batch path of several threads
    together = ranker.score(rows)
    assert all(ranker.score(rows[i])[0] == together[i] for i in range(0, len(rows), 997))


def test_no_candidate_has_no_score(ranker: Ranker) -> None:
    assert ranker.score(ranking_data().features.clear()).shape == (0,)


def test_row_of_nulls_has_a_finite_score(ranker: Ranker) -> None:
    nulls = pl.DataFrame(
        {name: [None] for name in ("signal", "noise", "device")}, schema=ranking_data().features.schema
    )
    assert np.isfinite(ranker.score(nulls)).all()


def test_unseen_category_has_a_finite_score(ranker: Ranker) -> None:
    rows = ranking_data(lists=1).features.with_columns(pl.lit(99.0, pl.Float32).alias("device"))
    assert np.isfinite(ranker.score(rows)).all()


@pytest.mark.parametrize("name", RANKERS)
def test_same_seed_gives_the_same_scores_whatever_the_threads(name: str) -> None:
    rows = ranking_data(seed=2).features
    first = fitted(name, seed=3).score(rows)
    assert np.array_equal(first, fitted(name, seed=3).score(rows))
    assert np.array_equal(first, fitted(name, seed=3, threads=2).score(rows))
    assert not np.array_equal(first, fitted(name, seed=4).score(rows))


def test_saved_ranker_is_the_same_bit_for_bit(ranker: Ranker, tmp_path: Path) -> None:
    ranker.save(tmp_path)
    loaded = type(ranker).load(tmp_path)
    rows = ranking_data(seed=2).features
    assert np.array_equal(loaded.score(rows), ranker.score(rows))
    assert loaded.gives_probabilities == ranker.gives_probabilities
    assert np.array_equal(loaded.contributions(rows), ranker.contributions(rows))


def test_trees_walked_one_by_one_give_the_score(ranker: Ranker) -> None:
    rows = ranking_data(lists=3, seed=2).features
    raw = np.array([[forest(trees, row) for trees in ranker.trees] for row in rows.to_numpy()])
    of_models = 1 / (1 + np.exp(-raw)) if ranker.gives_probabilities else raw
    np.testing.assert_array_equal(of_models.mean(axis=1).astype(np.float32), ranker.score(rows))


def test_contributions_and_a_constant_add_up_to_the_score(ranker: Ranker) -> None:
    rows = ranking_data(seed=2).features
    rest = ranker.score(rows) - ranker.contributions(rows).sum(axis=1)
    assert np.ptp(rest) < 1e-5


def test_fitting_tells_curves_and_importance(ranker: Ranker) -> None:
    told = ranker.fitting
    assert len(told.valid) == len(told.train) >= told.best_iteration >= 1
    assert told.valid[told.best_iteration - 1] == max(told.valid)
    assert told.importance[0]["feature"] == "signal"
    assert sum(row["gain"] for row in told.importance) == pytest.approx(1)


def test_refit_keeps_the_number_of_trees_and_the_curves(ranker: Ranker) -> None:
    again = ranker.refit(ranking_data(seed=5), categorical=CATEGORICAL)
    assert again is not ranker
    assert again.fitting.valid == ranker.fitting.valid
    assert again.fitting.best_iteration == ranker.fitting.best_iteration
    rows = ranking_data(seed=2).features
    assert not np.array_equal(again.score(rows), ranker.score(rows))


def test_columns_of_another_order_are_refused_by_name(ranker: Ranker) -> None:
    rows = ranking_data(seed=2).features
    with pytest.raises(BundleError, match="another order"):
        ranker.score(rows.select("noise", "signal", "device"))
    with pytest.raises(BundleError, match=r"missing \['noise'\].*unknown \['sound'\]"):
        ranker.score(rows.rename({"noise": "sound"}))


@pytest.mark.parametrize("name", RANKERS)
def test_scoring_before_fitting_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="fit or load"):
        RANKERS[name].of({}).score(ranking_data().features)


GOOD = ranking_data()
BAD: dict[str, tuple[Callable[[], RankingData], str]] = {
    "no rows": (lambda: RankingData.empty(["signal"]), "found none"),
    "only clicked": (lambda: changed(label=np.ones(len(GOOD), np.uint8)), "only label 1"),
    "only not clicked": (lambda: changed(label=np.zeros(len(GOOD), np.uint8)), "only label 0"),
    "label 2": (lambda: changed(label=GOOD.label * 2), r"found \[0.0, 2.0\]"),
    "label NaN": (lambda: changed(label=np.where(GOOD.label == 1, np.nan, 0.0)), "nan"),
    "label too short": (lambda: changed(label=GOOD.label[1:]), r"one length, found \[599, 600\]"),
    "weight too short": (lambda: changed(weight=GOOD.weight[1:]), "one length"),
    "request in two places": (lambda: changed(request=np.arange(600) % 60), "stand together"),
    "text column": (lambda: column(pl.lit("a")), "noise: String"),
    "double precision": (lambda: column(pl.col("noise").cast(pl.Float64)), "noise: Float64"),
    "categories": (lambda: column(pl.lit("a").cast(pl.Categorical)), "noise: Categorical"),
    "times": (lambda: column(pl.lit(0).cast(pl.Datetime("ms"))), "noise: Datetime"),
    "lists": (lambda: column(pl.concat_list("noise")), "noise: List"),
    "too long a list": (lambda: ranking_data(lists=1, length=10_001), "at most 10000 candidates, found 10001"),
}


def changed(**parts: Any) -> RankingData:
    return dataclasses.replace(GOOD, **parts)


def column(expression: pl.Expr) -> RankingData:
    return changed(features=GOOD.features.with_columns(expression.alias("noise")))


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("name", RANKERS)
def test_rows_that_cannot_be_learned_from_are_refused(name: str, case: str) -> None:
    make, told = BAD[case]
    with pytest.raises(DataError, match=told) as caught:
        RANKERS[name].of(SMALL[name]).fit(make(), None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", RANKERS)
def test_bad_validation_rows_are_refused_as_well(name: str) -> None:
    with pytest.raises(DataError, match="String"):
        RANKERS[name].of(SMALL[name]).fit(GOOD, column(pl.lit("a")))


@pytest.mark.parametrize("name", RANKERS)
def test_nothing_aborts_the_process(name: str, python: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """The same refusals in a process of its own: an abort in native code cannot be caught from inside."""
    code = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("contract", {str(Path(__file__))!r})
contract = importlib.util.module_from_spec(spec)
spec.loader.exec_module(contract)
for case, (make, _) in contract.BAD.items():
    try:
        contract.RANKERS[{name!r}].of(contract.SMALL[{name!r}]).fit(make(), None)
        sys.exit(f"{{case}} was taken")
    except contract.NewsrecError:
        print(case)
"""
    done = python("-c", code)
    assert done.returncode >= 0, "killed by a signal"
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == list(BAD)


@pytest.mark.parametrize("name", RANKERS)
def test_features_that_tell_nothing_are_refused(name: str) -> None:
    constant = changed(features=pl.DataFrame({"signal": np.ones(len(GOOD), np.float32)}))
    with pytest.raises(DataError, match="single leaf"):
        RANKERS[name].of(SMALL[name]).fit(constant, None)


@pytest.mark.parametrize("name", RANKERS)
def test_unknown_parameter_names_the_known_ones(name: str) -> None:
    with pytest.raises(NewsrecError, match=r"expected parameters of \[.*\], found \['leafs', 'tree'\]"):
        RANKERS[name].of({"tree": 5, "leafs": 3})


def test_beats_popularity_on_the_simulated_log(trained: TrainResult) -> None:
    metrics = trained.metrics
    for metric in ("mrr@5", "ndcg@10", "auc", "gauc"):
        assert metrics["rank"][metric] > 1.05 * metrics["baselines"]["popularity"][metric]
    low, _ = metrics["intervals"]["mrr@5"]
    assert low > metrics["baselines"]["popularity"]["mrr@5"]
