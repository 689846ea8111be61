"""A bundle is only measured on clicks that it cannot have seen, and then as it measured itself."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from newsrec.data import Log, ReadOptions, write_log
from newsrec.errors import BundleError, DataError, UsageError
from newsrec.evaluate import EvaluateConfig, compare, evaluate
from newsrec.serve import Recommender
from newsrec.split import SplitConfig
from newsrec.train import TrainResult, train
from newsrec.train_config import TrainConfig

FIGURES = ("recall", "recall_overlap", "rank", "baselines", "intervals", "slices", "calibration")
INTEGERS = ReadOptions(integer_ids=True)
WEAK = {"trees": 3, "min_data_in_leaf": 20, "threads": 1}


@pytest.fixture(scope="module")
def weak(log: Log, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], TrainResult]:
    """A run with three trees and without a refit, under the validation of that name."""
    runs: dict[str, TrainResult] = {}

    def run(validation: str) -> TrainResult:
        if validation not in runs:
            out = tmp_path_factory.mktemp("weak") / validation
            split = SplitConfig(validation=validation)
            runs[validation] = train(TrainConfig(out=out, params=WEAK, split=split, refit=False), log=log)
        return runs[validation]

    return run


def config(run: TrainResult, data: Path, **changes: Any) -> EvaluateConfig:
    return replace(EvaluateConfig(run.run, data, read=INTEGERS), **changes)


def test_bundle_without_a_refit_measures_what_it_measured_itself(measured: TrainResult, tables: Path) -> None:
    """To the last bit: the same requests, the same state of the world before each, the same model."""
    figures = evaluate(config(measured, tables))
    assert {name: figures[name] for name in FIGURES} == {name: measured.metrics[name] for name in FIGURES}
    protocol = figures["protocol"]
    assert protocol["format"] == "table"
    assert protocol["train_requests"] == 0
    assert protocol["statistics"] == "live"
    assert protocol["requests"] == "impressions with a click that the bundle's state does not hold"
    for same in ("test_requests", "validation", "candidates", "seed"):
        assert protocol[same] == measured.metrics["protocol"][same]


def test_so_does_one_that_ranks_shown_lists(on_slates: TrainResult, tables: Path) -> None:
    figures = evaluate(config(on_slates, tables))
    assert {name: figures[name] for name in FIGURES} == {name: on_slates.metrics[name] for name in FIGURES}
    assert figures["recall"] == {}
    assert figures["protocol"]["candidates"] == "the whole list that was shown"
    assert figures["protocol"]["test_requests"] == on_slates.metrics["protocol"]["test_requests"] > 1_000


def test_one_that_ranks_shown_lists_needs_them(on_slates: TrainResult, log: Log, tmp_path: Path) -> None:
    log.clicks.write_parquet(tmp_path / "clicks.parquet")
    with pytest.raises(DataError, match="--data: expected impressions, as the bundle ranks shown lists, found clicks"):
        evaluate(config(on_slates, tmp_path))


@pytest.mark.parametrize("validation", ["temporal", "last-click", "gap"])
def test_so_does_one_of_a_log_of_clicks_alone(log: Log, tmp_path: Path, validation: str) -> None:
    clicks = replace(log, impressions=None)
    split = SplitConfig(validation=validation)
    run = train(TrainConfig(out=tmp_path / "run", params=WEAK, split=split, refit=False), log=clicks)
    figures = evaluate(config(run, write_log(clicks, tmp_path / "tables", "table")))
    assert {name: figures[name] for name in FIGURES} == {name: run.metrics[name] for name in FIGURES}
    assert figures["protocol"]["requests"] == "clicks that the bundle's state does not hold"


@pytest.mark.parametrize("validation", ["last-click", "gap"])
def test_so_it_does_under_the_other_validations(
    weak: Callable[[str], TrainResult], tables: Path, validation: str
) -> None:
    run = weak(validation)
    figures = evaluate(config(run, tables))
    assert figures["protocol"]["validation"] == validation
    assert figures["protocol"]["test_requests"] == run.metrics["protocol"]["test_requests"]
    assert {name: figures[name] for name in FIGURES} == {name: run.metrics[name] for name in FIGURES}


def test_so_does_one_that_gives_probabilities(log: Log, tables: Path, tmp_path: Path) -> None:
    params = {**WEAK, "objective": "binary"}
    run = train(TrainConfig(out=tmp_path / "run", params=params, refit=False, candidates="slate"), log=log)
    figures = evaluate(config(run, tables))
    assert figures["rank"] == run.metrics["rank"]
    assert 0 < figures["rank"]["logloss"] < 1


def test_data_that_only_continues_the_state_gives_the_same_figures(
    measured: TrainResult, on_slates: TrainResult, log: Log, tmp_path: Path
) -> None:
    until = Recommender.load(measured.run).known_until
    assert log.impressions is not None
    later = replace(
        log,
        clicks=log.clicks.filter(pl.col("clicked_at").to_physical() >= until),
        impressions=log.impressions.filter(pl.col("requested_at").to_physical() >= until),
    )
    folder = write_log(later, tmp_path / "later", "table")
    for run in (measured, on_slates):
        assert evaluate(config(run, folder))["rank"] == run.metrics["rank"]


def test_bundle_that_knows_every_click_is_refused(trained: TrainResult, tables: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not know, found none in 4,831\. Give a later log, or .* --no-refit"):
        evaluate(config(trained, tables, json=tmp_path / "figures.json"))
    assert list(tmp_path.iterdir()) == []


def test_frozen_statistics_are_told_and_cost(measured: TrainResult, tables: Path) -> None:
    live, frozen = measured.metrics, evaluate(config(measured, tables, frozen=True))
    assert frozen["protocol"]["statistics"] == "frozen with the bundle"
    assert frozen["protocol"]["test_requests"] == live["protocol"]["test_requests"]
    assert frozen["rank"]["ndcg@10"] < live["rank"]["ndcg@10"]
    assert frozen["recall"]["merged"]["hit@50"] < live["recall"]["merged"]["hit@50"]


def test_number_of_requests_is_limited_and_their_choice_repeats(measured: TrainResult, tables: Path) -> None:
    one, two = (evaluate(config(measured, tables, test_requests=60)) for _ in range(2))
    assert one["protocol"]["test_requests"] == 60
    assert one["protocol"]["available_requests"] == measured.metrics["protocol"]["test_requests"]
    assert one["rank"] == two["rank"]


def test_figures_are_written_as_they_are_returned(measured: TrainResult, tables: Path, tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    figures = evaluate(config(measured, tables, json=path, test_requests=60))
    assert json.loads(path.read_text()) == figures
    assert figures["run"] == measured.run.name
    assert figures["seconds"]["total"] >= figures["seconds"]["rank"] >= 0
    assert figures["peak_rss_mb"] > 0
    assert all(math.isfinite(value) for value in figures["rank"].values())


def test_place_that_cannot_be_written_is_told_before_the_work(tmp_path: Path) -> None:
    """Neither the bundle nor the data is there: the place is looked at first."""
    for path in (tmp_path, tmp_path / "absent" / "figures.json"):
        with pytest.raises(UsageError, match="--json: expected a file in a folder that exists, found"):
            evaluate(EvaluateConfig(tmp_path / "no bundle", tmp_path / "no data", json=path))


def test_text_ids_for_a_bundle_of_numbers_are_refused(measured: TrainResult, tmp_path: Path) -> None:
    path = tmp_path / "clicks.csv"
    path.write_text("user_id,item_id,clicked_at\n1,10,2025-03-08T00:00:00Z\n1,11,2025-03-09T00:00:00Z\n")
    with pytest.raises(DataError, match="found user_id: Int64 in the bundle, String in the data"):
        evaluate(EvaluateConfig(measured.run, path))
    figures = evaluate(EvaluateConfig(measured.run, path, read=INTEGERS))
    assert figures["protocol"]["test_requests"] >= 1


def test_damaged_bundle_is_refused(bundle: Path, tables: Path) -> None:
    (bundle / "per_request.parquet").write_bytes(b"")
    with pytest.raises(BundleError, match=r"'per_request\.parquet' with 0 bytes"):
        evaluate(EvaluateConfig(bundle, tables, read=INTEGERS))
    with pytest.raises(BundleError, match=r"'per_request\.parquet' with 0 bytes"):
        compare(bundle, bundle)


def test_comparison_shows_the_difference_of_the_test_figures(
    measured: TrainResult, weak: Callable[[str], TrainResult]
) -> None:
    other = weak("temporal")
    differences = compare(measured.run, other.run)
    assert set(differences) == set(measured.metrics["rank"])
    for name, found in differences.items():
        one, two = measured.metrics["rank"][name], other.metrics["rank"][name]
        assert (found.first, found.second) == (pytest.approx(one), pytest.approx(two))
        assert found.low <= found.difference <= found.high
    assert differences["ndcg@10"].difference < 0
    turned = compare(other.run, measured.run)
    assert turned["ndcg@10"].difference == pytest.approx(-differences["ndcg@10"].difference)
    assert compare(measured.run, other.run) == differences


def test_refit_changes_nothing_that_was_measured(measured: TrainResult, trained: TrainResult) -> None:
    differences = compare(measured.run, trained.run)
    assert {(d.difference, d.low, d.high, d.clear) for d in differences.values()} == {(0.0, 0.0, 0.0, False)}


def test_runs_under_different_protocols_are_not_compared(
    measured: TrainResult, weak: Callable[[str], TrainResult]
) -> None:
    with pytest.raises(UsageError, match=r"comparison: the protocols differ in .*'validation': 'temporal' and 'gap'"):
        compare(measured.run, weak("gap").run)


def test_off_policy_is_asked_of_every_unseen_list(measured: TrainResult, tables: Path, log: Log) -> None:
    """The ranking is better than chance: nothing says that it would earn less than the random order did."""
    found = evaluate(config(measured, tables, off_policy=True))["off_policy"]
    assert log.impressions is not None
    midnight = log.impressions.filter(pl.col("requested_at") >= pl.col("requested_at").max().dt.truncate("1d"))
    lists = midnight.group_by("request_id").agg(pl.col("clicked").any())
    assert found["ips"]["decisions"] == len(lists)
    assert found["logged"] == pytest.approx(lists["clicked"].mean())
    for name in ("ips", "snips", "dr"):
        assert found[name]["low"] < found[name]["value"] < found[name]["high"]
        assert found[name]["high"] > found["logged"]
    assert found["dr"]["high"] - found["dr"]["low"] < found["ips"]["high"] - found["ips"]["low"]
    assert found["snips"]["effective"] == pytest.approx(len(lists) / 12, rel=0.2)


def test_off_policy_is_refused_where_nobody_saw_the_positions(measured: TrainResult, log: Log, tmp_path: Path) -> None:
    assert log.impressions is not None
    unplaced = write_log(replace(log, impressions=log.impressions.drop("position")), tmp_path, "table")
    with pytest.raises(UsageError, match="--off-policy: expected impressions with the positions"):
        evaluate(config(measured, unplaced, off_policy=True))
