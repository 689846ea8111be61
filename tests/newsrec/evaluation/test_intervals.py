"""Intervals of known distributions, and what must not move them."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newsrec.errors import UsageError
from newsrec.evaluation import bootstrap_interval, metric_intervals
from newsrec.metrics import METRICS, summarise


def table(n: int, seed: int = 0, requests_per_user: int = 1) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    columns = {name: rng.random(n) for name in METRICS}
    columns["hit@5"] = (columns["hit@5"] < 0.3).astype(float)
    auc = pl.when(pl.col("n_candidates") > 3).then(pl.col("auc")).alias("auc")
    ids = {"request_id": np.arange(n), "user_id": np.arange(n) // requests_per_user}
    return pl.DataFrame({**ids, "n_candidates": rng.integers(1, 9, n), **columns}).with_columns(auc)


def test_interval_of_a_share_is_the_textbook_one() -> None:
    values = np.r_[np.ones(300), np.zeros(700)]
    low, high = bootstrap_interval(values, n=2000)
    half = 1.96 * math.sqrt(0.3 * 0.7 / 1000)
    assert (low, high) == pytest.approx((0.3 - half, 0.3 + half), abs=0.004)


def test_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    inside = 0
    for seed in range(100):
        low, high = bootstrap_interval(rng.exponential(size=200), n=200, seed=seed, level=0.9)
        inside += low <= 1 <= high
    assert 80 <= inside <= 97


def test_same_seed_same_interval_other_seed_another() -> None:
    values = np.random.default_rng(0).random(100)
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    assert bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=30), st.integers(0, 99))
def test_interval_lies_within_the_values(values: list[float], seed: int) -> None:
    low, high = bootstrap_interval(values, n=50, seed=seed)
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9


def test_requests_without_a_value_do_not_pull_the_mean() -> None:
    values = np.r_[np.full(50, 0.8), np.full(50, np.nan)]
    assert bootstrap_interval(values) == pytest.approx((0.8, 0.8))


def test_weights_shift_the_mean() -> None:
    values, weights = np.r_[np.zeros(200), np.ones(200)], np.r_[np.ones(200), np.full(200, 3.0)]
    low, high = bootstrap_interval(values, weights=weights)
    assert low < 0.75 < high
    assert low > 0.5


def test_users_with_many_like_requests_widen_the_interval() -> None:
    per_user = np.random.default_rng(0).random(50)
    values, users = np.repeat(per_user, 20), np.repeat(np.arange(50), 20)
    alone, together = bootstrap_interval(values), bootstrap_interval(values, groups=users)
    assert together[1] - together[0] > 3 * (alone[1] - alone[0])
    assert together == pytest.approx(bootstrap_interval(per_user))


def test_every_figure_lies_in_its_interval() -> None:
    rows = table(400, requests_per_user=2)
    figures, intervals = summarise(rows), metric_intervals(rows, n=300)
    assert figures.keys() == intervals.keys() == METRICS.keys()
    for name, (low, high) in intervals.items():
        assert low < figures[name] < high, name
    one = bootstrap_interval(rows["auc"].to_numpy(), n=300, groups=rows["user_id"].to_numpy())
    assert intervals["auc"] == pytest.approx(one)


def test_a_metric_without_values_has_no_interval() -> None:
    rows = table(20).with_columns(pl.lit(None, pl.Float64).alias("auc"))
    assert "auc" not in metric_intervals(rows, n=10)
    assert metric_intervals(rows.head(0)) == {}


@pytest.mark.parametrize(
    ("values", "n", "level", "message"),
    [
        ([], 10, 0.9, "found 0 requests"),
        ([math.nan], 10, 0.9, "found 1 requests"),
        ([1], 0, 0.9, "n=0"),
        ([1], 9, 1, "level"),
    ],
)
def test_nothing_to_draw_is_refused(values: list[float], n: int, level: float, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        bootstrap_interval(values, n=n, level=level)
