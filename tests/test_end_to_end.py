"""From nothing to recommendations with the real command line only, once for each format that can be written."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import polars as pl
import pytest

from newsrec.bundle import read_manifest
from newsrec.data import WRITERS
from newsrec.recommend import PREDICTIONS
from tests.conftest import FEW_TREES

WORLD = ("--users", "400", "--days", "4", "--seed", "2")


@pytest.mark.parametrize("format", WRITERS)
def test_simulate_inspect_train_evaluate_recommend_report(
    format: str, tmp_path: Path, python: Callable[..., CompletedProcess[str]]
) -> None:
    log, run, params, answers, figures, profile = (
        tmp_path / name for name in ("log", "run", "params.json", "answers", "figures.json", "profile.json")
    )
    params.write_text(json.dumps(FEW_TREES), encoding="utf-8")

    def newsrec(verb: str, *words: object) -> str:
        done = python("-W", "error", "-m", f"newsrec.{verb}", *(str(word) for word in words), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    told = newsrec("simulate", "--out", log, "--format", format, *WORLD)
    assert f"clicks to {log}" in told

    told = newsrec("inspect", "--data", log, "--json", profile)
    clicks = loaded(profile)["clicks"]
    assert loaded(profile)["format"] == format
    assert f"{clicks:,}" in told

    few = ("--train-requests", 1500, "--valid-requests", 500)
    told = newsrec("train", "--data", log, "--params", params, "--out", run, "--no-refit", "--seed", 3, *few)
    metrics, manifest = loaded(run / "metrics.json"), read_manifest(run)
    assert f"{metrics['rank']['mrr@5']:.4f}" in told
    assert (manifest["data"]["format"], manifest["data"]["path"], manifest["seed"]) == (format, str(log), 3)
    assert metrics["rank"]["mrr@5"] > metrics["baselines"]["popularity"]["mrr@5"]
    known = pl.read_parquet(run / "state" / "clicks.parquet").height
    assert 0 < known < clicks

    newsrec("evaluate", "--run", run, "--data", log, "--json", figures)
    found = loaded(figures)
    assert found["protocol"]["test_requests"] == metrics["protocol"]["test_requests"] > 100
    assert found["rank"] == metrics["rank"]  # the same requests, the same model, the same knowledge

    told = newsrec("recommend", "--run", run, "--data", log, "--out", answers)
    rows = READERS.get(format, pl.read_parquet)(answers)
    assert f"wrote {len(rows):,} recommendations to {answers}" in told
    if format in PREDICTIONS:
        assert len(rows) == loaded(profile)["impressions"]
        assert rows["impression_id"].n_unique() > 1_000
    else:
        users = pl.read_parquet(run / "state" / "clicks.parquet")["user_id"].n_unique()
        assert rows["user_id"].n_unique() >= users
        assert not rows.select("user_id", "item_id").is_duplicated().any()
        assert set(rows.group_by("user_id").len()["len"]) == {5}

    told = newsrec("report", "--run", run)
    page = Path(told.split("report: ")[1].strip())
    assert page == run / "report.html"
    assert page.read_text(encoding="utf-8").lower().startswith("<!doctype html>")


def loaded(path: Path) -> dict[str, dict[str, object]]:
    return json.loads(path.read_text(encoding="utf-8"))


def submission(path: Path) -> pl.DataFrame:
    """The competition's file as one row per answer."""
    wide = pl.read_csv(path)
    assert wide.columns == ["user_id", *(f"article_{place}" for place in range(1, 6))]
    return wide.unpivot(index="user_id", value_name="item_id")


def predictions(path: Path) -> pl.DataFrame:
    """The competition's lines as one row per shown item, each list of ranks a permutation of 1..n."""
    lines = (line.split(" ") for line in path.read_text(encoding="utf-8").splitlines())
    lists = {int(number): json.loads(ranks) for number, ranks in lines}
    assert all(sorted(ranks) == list(range(1, len(ranks) + 1)) for ranks in lists.values())
    frame = pl.DataFrame({"impression_id": list(lists), "rank": list(lists.values())})
    return frame.explode("rank")


READERS = {"tianchi": submission, **dict.fromkeys(PREDICTIONS, predictions)}
"""Formats whose answers have a form of their own."""
