"""Drift: the population stability index by hand, and what is compared with what."""

import math

import numpy as np
import polars as pl
import pytest

from features.catalog import Feature
from features.columns import DAY, TIME
from newsrec.drift import (
    FLOOR,
    PSI_LIMIT,
    REQUESTS,
    described_sample,
    drift_page,
    drift_table,
    events_per_day,
    psi,
)
from newsrec.serve import Recommender
from newsrec.train import TrainResult
from tests.factories import articles_of, clicks_of, impressions_of, log_of, ms, store_of


def column(*values: float | None) -> pl.Series:
    return pl.Series(values, dtype=pl.Float32)


class TestPsi:
    def test_by_hand(self) -> None:
        """Four of ten zeros become eight: all quantiles but one are 0 or 1, so two bins are left."""
        old, new = column(*[0] * 4, *[1] * 6), column(*[0] * 8, *[1] * 2)
        assert psi(old, new) == pytest.approx(0.4 * math.log(0.8 / 0.4) + (0.2 - 0.6) * math.log(0.2 / 0.6))

    def test_of_the_same_values_is_zero(self) -> None:
        values = pl.Series(np.random.default_rng(0).normal(size=1_000))
        assert psi(values, values) == 0

    def test_of_ten_even_bins_that_become_one(self) -> None:
        old, new = column(*range(100)), column(*[1_000] * 50)
        expected = 9 * (FLOOR - 0.1) * math.log(FLOOR / 0.1) + (1 - 0.1) * math.log(1 / 0.1)
        assert psi(old, new) == pytest.approx(expected)

    def test_sees_a_shift_and_not_a_new_sample(self) -> None:
        rng = np.random.default_rng(0)
        old, new = (pl.Series(rng.normal(size=5_000)) for _ in range(2))
        assert psi(old, new) < 0.01  # type: ignore[operator]
        assert psi(old, new + 1) > PSI_LIMIT  # type: ignore[operator]

    def test_of_codes_takes_each_code_as_a_bin(self) -> None:
        old, new = column(1, 1, 3, 3), column(1, 1, 2, 2)
        rare = (FLOOR - 0.5) * math.log(FLOOR / 0.5)
        assert psi(old, new, categorical=True) == pytest.approx(2 * rare)
        assert psi(old, column(1, 3), categorical=True) == 0

    def test_leaves_nulls_out(self) -> None:
        assert psi(column(1, 2, None), column(None, None, 1, 2)) == 0
        assert psi(column(1, 2), column(None)) is None
        assert psi(column(), column(1)) is None


def feature(name: str, categorical: bool = False) -> Feature:
    return Feature(name, "made", pl.col(name), "Made.", categorical)


class TestTheTable:
    def test_has_rates_and_marks_what_drifted(self) -> None:
        features = [feature("calm"), feature("code", categorical=True), feature("moved"), feature("empty")]
        old = pl.DataFrame({"calm": [1.0, 2.0], "code": [1.0, 0.0], "moved": [1.0, 1.0], "empty": [None, None]})
        new = pl.DataFrame({"calm": [2.0, 1.0], "code": [0.0, 0.0], "moved": [9.0, None], "empty": [None, 1.0]})
        table = drift_table(old.cast(pl.Float32), new.cast(pl.Float32), features)
        rows = {row["feature"]: row for row in table.to_dicts()}
        assert table["feature"].to_list() == ["moved", "code", "calm", "empty"]
        assert [name for name, row in rows.items() if row["drifted"]] == ["moved", "code"]
        assert (rows["moved"]["null_old"], rows["moved"]["null_new"]) == (0.0, 0.5)
        assert (rows["code"]["unseen_old"], rows["code"]["unseen_new"]) == (0.5, 1.0)
        assert (rows["calm"]["unseen_old"], rows["empty"]["psi"]) == (None, None)
        assert drift_page(table, {}, {})["drifted"] == ["moved", "code"]

    def test_of_no_request_has_no_value(self) -> None:
        nothing = pl.DataFrame(schema={"calm": pl.Float32})
        (row,) = drift_table(nothing, nothing, [feature("calm")]).to_dicts()
        assert (row["psi"], row["null_old"], row["drifted"]) == (None, None, False)


def test_events_per_day_count_the_period_alone() -> None:
    day = 24 * 60
    clicks = clicks_of([(1, 1, 0), (1, 2, day - 1), (1, 3, day), (2, 3, 3 * day)])
    lists = impressions_of([(1, 0, [1, 2]), (1, day, [1, 2, 3]), (2, 2 * day, [3])])
    store = store_of(log_of(clicks, articles_of([1, 2, 3]), impressions=lists))
    assert events_per_day(store, ms(0), ms(day)) == {"clicks": 2.0, "lists": 1.0}
    assert events_per_day(store, ms(day), ms(3 * day)) == {"clicks": 0.5, "lists": 1.0}
    assert events_per_day(store_of(log_of(clicks)), ms(0), ms(day)) == {"clicks": 2.0}


class TestTheSample:
    def test_is_of_lists_that_were_shown(self, on_slates: TrainResult) -> None:
        recommender = Recommender.load(on_slates.run)
        until = recommender.known_until
        described, n = described_sample(recommender, until - DAY, until, 0)
        lists = recommender.store.impressions
        assert lists is not None
        lists = lists.filter(pl.col("requested_at") >= pl.lit(until - DAY).cast(TIME))
        clicked = lists.filter(pl.col("clicked").any().over("request_id"))
        assert n == min(REQUESTS, clicked["request_id"].n_unique())
        assert described.columns == recommender.manifest["features"]
        if n < REQUESTS:
            assert len(described) == len(clicked)

    def test_of_clicks_takes_users_with_a_history(self, trained: TrainResult) -> None:
        recommender = Recommender.load(trained.run)
        clicks = recommender.store.clicks
        bare = recommender.store.__class__(clicks, recommender.store.articles)
        alone = Recommender(recommender.manifest, recommender.ranker, recommender.vocabulary, bare)
        until = recommender.known_until
        described, n = described_sample(alone, until - DAY, until, 0)
        earlier = clicks.sort("clicked_at").with_columns(first=pl.col("clicked_at").min().over("user_id"))
        late = earlier.filter(milliseconds_from(until - DAY) & (pl.col("first") < pl.col("clicked_at")))
        assert n == min(REQUESTS, late.select("user_id", "clicked_at").n_unique())
        assert described["user_clicks"].min() == 1

    def test_of_a_period_without_events_is_empty(self, trained: TrainResult) -> None:
        recommender = Recommender.load(trained.run)
        described, n = described_sample(recommender, 0, DAY, 0)
        assert (len(described), n) == (0, 0)
        assert described.columns == recommender.manifest["features"]

    def test_is_the_same_for_the_same_seed(self, trained: TrainResult, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("newsrec.drift.REQUESTS", 50)
        recommender = Recommender.load(trained.run)
        until = recommender.known_until
        one, other, third = (described_sample(recommender, until - DAY, until, seed)[0] for seed in (1, 1, 2))
        assert one.equals(other)
        assert not one.equals(third)


def milliseconds_from(since: int) -> pl.Expr:
    return pl.col("clicked_at") >= pl.lit(since).cast(TIME)
