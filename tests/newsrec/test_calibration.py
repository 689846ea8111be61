"""Scores become probabilities: by hand, against a slow oracle, and true where the truth is known."""

import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newsrec.calibration import (
    CALIBRATION,
    CALIBRATORS,
    ENOUGH_CLICKS,
    Isotonic,
    Platt,
    calibrate,
    calibration_figures,
    calibrator_of,
    facts_of,
    load_calibrator,
    never_falling,
    save_calibrator,
    sigmoid,
    unsampled,
)
from newsrec.errors import BundleError, DataError
from newsrec.metrics import Floats


def drawn(n: int, seed: int = 0, bend: float = 1.0) -> tuple[Floats, Floats, Floats]:
    """Scores, labels and the true chances; the log-odds are the score bent by a power."""
    rng = np.random.default_rng(seed)
    score = rng.normal(size=n)
    chance = sigmoid(np.sign(score) * np.abs(score) ** bend * 2 - 3)
    return score, (rng.random(n) < chance).astype(float), chance


def pooled_slowly(value: list[float], weight: list[float]) -> list[float]:
    """Pool adjacent violators with a stack, one value after the other."""
    stack: list[tuple[float, float, int]] = []
    for v, w in zip(value, weight, strict=True):
        stack.append((v, w, 1))
        while len(stack) > 1 and stack[-2][0] >= stack[-1][0]:
            (a, wa, na), (b, wb, nb) = stack[-2:]
            stack[-2:] = [((a * wa + b * wb) / (wa + wb), wa + wb, na + nb)]
    return [level for level, _, n in stack for _ in range(n)]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 4)), min_size=1, max_size=40))
@settings(max_examples=200, deadline=None)
def test_pooling_equals_a_loop(rows: list[tuple[int, int]]) -> None:
    value, weight = (np.array(column, float) for column in zip(*rows, strict=True))
    level, size = never_falling(value, weight)
    assert np.repeat(level, size) == pytest.approx(pooled_slowly(value.tolist(), weight.tolist()))
    assert np.all(np.diff(level) > 0)


def test_isotonic_by_hand() -> None:
    """Scores 1 and 2 are clicked one in two and one in four: together one in three. 3 always, 0 never: half one."""
    found = Isotonic.fit([0, 0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 3], [0] * 5 + [1, 0, 1, 0, 0, 0] + [1, 1])
    assert found.score == (0.0, 1.0, 2.0, 3.0)
    assert found.probability == pytest.approx((0.1, 1 / 3, 1 / 3, 0.75))
    assert found.probabilities([-1, 0.5, 1.5, 2.5, 9]) == pytest.approx([0.1, 13 / 60, 1 / 3, 13 / 24, 0.75])


def test_platt_finds_the_line() -> None:
    score, label, _ = drawn(60_000)
    line = Platt.fit(score, label)
    assert (line.slope, line.shift) == pytest.approx((2, -3), abs=0.08)


def test_platt_reads_probabilities_as_their_log_odds() -> None:
    """A model that says too little of each side: half the log-odds of the truth."""
    score, label, chance = drawn(60_000)
    shy = sigmoid((2 * score - 3) / 2)
    line = Platt.fit(shy, label)
    assert (line.slope, line.shift, line.log_odds) == (pytest.approx(2, abs=0.08), pytest.approx(0, abs=0.15), True)
    assert calibration_figures(line.probabilities(shy), chance)["ece_share"] < 0.03
    assert calibrator_of(facts_of(line)) == line


@pytest.mark.parametrize("name", CALIBRATORS)
class TestEveryCalibrator:
    def test_order_is_kept(self, name: str) -> None:
        score, label, _ = drawn(2_000, bend=2)
        found = CALIBRATORS[name].fit(score, label).probabilities(np.sort(score))
        assert np.all(np.diff(found) >= 0)

    def test_probabilities_lie_between_0_and_1_for_any_score(self, name: str) -> None:
        score, label, _ = drawn(500)
        found = CALIBRATORS[name].fit(score, label).probabilities([-1e30, -5.0, 0.0, 5.0, 1e30])
        assert np.all((found > 0) & (found < 1))

    def test_mean_prediction_is_the_click_rate(self, name: str) -> None:
        score, label, _ = drawn(5_000)
        assert CALIBRATORS[name].fit(score, label).probabilities(score).mean() == pytest.approx(label.mean(), rel=0.01)

    def test_error_against_the_true_chance_is_under_5_per_cent_of_the_rate(self, name: str) -> None:
        calibrator = CALIBRATORS[name].fit(*drawn(60_000)[:2])
        score, _, chance = drawn(60_000, seed=1)
        assert calibration_figures(sigmoid(score), chance)["ece_share"] > 1
        assert calibration_figures(calibrator.probabilities(score), chance)["ece_share"] < 0.05

    def test_facts_give_it_back(self, name: str) -> None:
        score, label, _ = drawn(500)
        calibrator = CALIBRATORS[name].fit(score, label)
        facts = facts_of(calibrator)
        assert facts["method"] == name
        assert calibrator_of(facts) == calibrator

    def test_one_class_is_refused(self, name: str) -> None:
        for label in ([0, 0, 0], [1, 1, 1], []):
            with pytest.raises(DataError, match="expected clicked and not clicked candidates"):
                CALIBRATORS[name].fit([0.0] * len(label), label)


def test_kind_follows_from_the_number_of_clicks() -> None:
    score, label, _ = drawn(40_000)
    at = np.flatnonzero(np.cumsum(label) == ENOUGH_CLICKS)[0]
    assert isinstance(calibrate(pl.Series(score[:at]), pl.Series(label[:at])), Platt)
    assert isinstance(calibrate(score[: at + 1], label[: at + 1]), Isotonic)


@pytest.mark.parametrize(
    "facts", [{"method": "magic"}, {"method": "platt"}, {"method": "platt", "slope": 1, "knee": 2}, {}]
)
def test_unknown_facts_are_refused(facts: dict[str, object]) -> None:
    with pytest.raises(BundleError, match="calibration: expected one of"):
        calibrator_of(facts)


@given(p=st.floats(0.001, 0.999), w=st.floats(0.01, 1.0))
def test_unsampled_undoes_uniform_sampling(p: float, w: float) -> None:
    """A share w of the negatives kept: the odds of a click rise by 1 / w."""
    q = p / (p + (1 - p) * w)
    assert float(unsampled(q, w)) == pytest.approx(p)


def test_unsampled_gives_the_true_rates_of_a_sampled_log() -> None:
    score, label, chance = drawn(100_000)
    kept = (label == 1) | (np.random.default_rng(2).random(len(label)) < 0.1)
    learned = Platt.fit(score[kept], label[kept]).probabilities(score)
    assert calibration_figures(learned, chance)["ece_share"] > 1
    assert calibration_figures(unsampled(learned, 0.1), chance)["ece_share"] < 0.05


def test_figures_by_hand() -> None:
    """Two classes of predictions: 0.1 where 1 of 10 is clicked, 0.9 where 5 of 10 are."""
    found = calibration_figures([0.1] * 10 + [0.9] * 10, [1] + [0] * 9 + [1] * 5 + [0] * 5)
    assert found["ece"] == pytest.approx(0.5 * 0.4)
    assert found["click_rate"] == pytest.approx(0.3)
    assert found["ece_share"] == pytest.approx(0.2 / 0.3)
    assert found["mean_probability"] == pytest.approx(0.5)
    loss = -(6 * math.log(0.9) + 9 * math.log(0.9) + 5 * math.log(0.1)) / 20 + (math.log(0.9) - math.log(0.1)) / 20
    assert found["logloss"] == pytest.approx(loss)
    usual = -(0.3 * math.log(0.3) + 0.7 * math.log(0.7))
    assert found["normalised_entropy"] == pytest.approx(loss / usual)
    assert [(point["rows"], round(point["click_rate"], 3)) for point in found["curve"]] == [(10, 0.1), (10, 0.5)]


def test_click_rate_alone_has_a_normalised_entropy_of_1() -> None:
    found = calibration_figures([0.25] * 8, [1, 0, 0, 0] * 2)
    assert found["normalised_entropy"] == pytest.approx(1)
    assert found["ece"] == pytest.approx(0)


def test_classes_hold_equal_predicted_clicks_and_every_row_once() -> None:
    score, label, _ = drawn(20_000)
    probability = Platt.fit(score, label).probabilities(score)
    curve = calibration_figures(probability, label)["curve"]
    clicks = [point["probability"] * point["rows"] for point in curve]
    assert len(curve) == 10
    assert clicks == pytest.approx([sum(clicks) / 10] * 10, rel=0.02)
    assert sum(point["rows"] for point in curve) == len(score)


@pytest.mark.parametrize("text", ["{}", "[]", "no JSON", '{"of": "rank", "method": "platt"}'])
def test_damaged_file_is_refused_and_another_order_has_none(text: str, tmp_path: Path) -> None:
    save_calibrator(tmp_path, Platt(2.0, -1.0), "rank")
    assert load_calibrator(tmp_path, "rank") == Platt(2.0, -1.0)
    assert load_calibrator(tmp_path, "rerank") is None
    (tmp_path / CALIBRATION).write_text(text)
    with pytest.raises(BundleError, match="calibrat"):
        load_calibrator(tmp_path, "rank")
