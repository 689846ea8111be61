"""A whole study by library and command line, and its product in `train`."""

import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from newsrec.cli import main
from newsrec.data import Log
from newsrec.errors import UsageError
from newsrec.params import load_params
from newsrec.train import train
from newsrec.train_config import TrainConfig
from tests.conftest import ROOT
from tests.factories import Heard
from tests.tuning.planted import CONFIG
from tuning.__main__ import app
from tuning.objective import TUNED
from tuning.product import refuse_overwriting
from tuning.recovery import start_of
from tuning.run import PAGE, TuneConfig, TuneResult, tune
from tuning.samplers import SAMPLERS
from tuning.selection import LEVELS
from tuning.storage import STORAGES

SPACE = '[trees]\nvalue = 15\n[leaf_rows_scale]\nvalue = 0.2\n[objective]\nchoices = ["lambdarank", "binary"]\n'


def config_in(folder: Path, **more: Any) -> TuneConfig:
    space = folder / "space.toml"
    space.write_text(SPACE, encoding="utf-8")
    given = {"storage": f"sqlite:///{folder}/tuning.db", "space": space, "folds": 2, "train": CONFIG, "trials": 3}
    return TuneConfig(folder / "params.json", **(given | more))


@pytest.fixture(scope="module")
def study(log: Log, tmp_path_factory: pytest.TempPathFactory) -> tuple[TuneConfig, TuneResult]:
    config = config_in(tmp_path_factory.mktemp("study"))
    (config.out.parent / f".frames-{platform.node()}-{2**22 + 1}-long-ago").mkdir()  # of a run that was killed
    (config.out.parent / f".frames-{platform.node()}-1-{start_of(1)}").mkdir()  # of a run that lives
    return config, tune(config, log=log)


def test_product_says_what_was_found_and_how(study: tuple[TuneConfig, TuneResult], log: Log) -> None:
    config, result = study
    found = json.loads(config.out.read_text(encoding="utf-8"))
    assert found == result.params
    assert found["ranker"] == "lgbm"
    assert found["metric"] == "ndcg@10"
    assert found["trials"] == {"complete": 3, "pruned": 0, "fail": 0}
    assert found["data"]["fingerprint"] == log.fingerprint
    assert found["score"] >= found["default_score"] > 0
    assert found["score"] == pytest.approx(sum(fold["score"] for fold in found["folds"]) / 2)
    assert found["params"]["trees"] == 15
    assert found["packages"]["lightgbm"]
    if found["gain_where_chosen"] is not None:
        assert found["gain_where_chosen"]["low"] <= found["score"] - found["default_score"] + 1e-3


def test_described_rows_go_with_their_run_and_those_of_killed_ones_too(study: tuple[TuneConfig, TuneResult]) -> None:
    left = [path.name for path in study[0].out.parent.glob(".frames-*")]
    assert left == [f".frames-{platform.node()}-1-{start_of(1)}"]


def test_page_holds_its_charts_and_needs_no_network(study: tuple[TuneConfig, TuneResult]) -> None:
    page = (study[0].out.parent / PAGE).read_text(encoding="utf-8")
    for title in ("History", "Importance", "Slices", "Timeline"):
        assert f"<h2>{title}</h2>" in page
    assert 'src="http' not in page
    assert page.count("plotly.js v") >= 1


def test_train_takes_the_product_and_warns_of_other_data(
    study: tuple[TuneConfig, TuneResult], log: Log, tmp_path: Path
) -> None:
    config, result = study
    file = load_params(config.out, "lgbm")
    assert file.tuned_on == log.fingerprint
    kept = {**file.params, "models": 1, "threads": 1}
    told = Heard()
    split = replace(CONFIG.split, test_requests=100)
    given = replace(CONFIG, out=tmp_path / "run", params=kept, tuned_on=("another",), refit=False, split=split)
    run = train(given, told, log=log).run
    assert [line for line in told.lines if line.startswith("note: parameters were tuned on other data")]
    stored = json.loads((run / "params.json").read_text(encoding="utf-8"))["params"]
    found = {name: value for name, value in result.params["params"].items() if name != "trees"}
    assert {name: stored[name] for name in found} == found


def test_same_command_continues_and_rewrites_its_own_file(log: Log, tmp_path: Path) -> None:
    first = tune(config_in(tmp_path, trials=1), log=log)
    more = tune(config_in(tmp_path, trials=2), log=log)
    assert first.params["trials"]["complete"] == 1
    assert first.params["gain_where_chosen"] is None
    assert sum(more.params["trials"].values()) == 2
    assert more.params["score"] >= first.params["score"]
    assert json.loads((tmp_path / "params.json").read_text())["trials"] == more.params["trials"]
    nothing_left = tune(config_in(tmp_path, trials=2), log=log)
    assert nothing_left.params["trials"] == more.params["trials"]
    with pytest.raises(UsageError, match=r"folds: 2 before, 1 now.*space.trees.choices: \[15\] before, \[300\] now"):
        tune(config_in(tmp_path, trials=4, folds=1, space=None), log=log)


def test_workers_share_a_study(log: Log, tmp_path: Path) -> None:
    result = tune(config_in(tmp_path, trials=3, jobs=2), log=log)
    assert result.params["trials"]["complete"] + result.params["trials"]["pruned"] == 3


def test_quality_against_latency_gives_a_front(log: Log, tmp_path: Path) -> None:
    result = tune(config_in(tmp_path, trials=3, latency=True, folds=1, sampler="random"), log=log)
    front = result.params["pareto"]
    assert front[0]["score"] == result.params["score"]
    assert all(a["score"] > b["score"] and a["latency_p99_ms"] > b["latency_p99_ms"] for a, b in pairwise(front))
    assert "<h2>Pareto front</h2>" in (tmp_path / PAGE).read_text(encoding="utf-8")
    with pytest.raises(UsageError, match=r"directions: \['maximize', 'minimize'\] before, \['maximize'\] now"):
        tune(config_in(tmp_path, trials=3, folds=1), log=log)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--metric", "gauc"], "--metric: expected one of"),
        (["--trials", "0"], "tuning: expected at least 1, found --trials 0"),
        (["--jobs", "0", "--folds", "0"], "expected at least 1, found --folds 0, --jobs 0"),
        (["--timeout", "-1"], "--timeout: expected seconds above zero"),
        (["--sampler", "grid"], "--sampler: expected one of"),
        (["--ranker", "linear"], "--ranker: expected one of"),
        (["--study", "../up"], "--study: expected 1 to 64 letters"),
        (["--storage", "mysql://x"], "--storage: expected one of sqlite"),
        (["--space", "none.toml"], "--space: expected a TOML file"),
        (["--out", "no/such/folder/p.json"], "--out: expected a folder to write into"),
        (["--reranker", "din", "--metric", "auc"], "--metric: expected one of ['mrr@5'] for din, found 'auc'"),
        (["--reranker", "din", "--switches", "families"], "--switches: expected no --reranker with it"),
        (["--reranker", "din", "--latency"], "--latency: expected a study of the ranker"),
        (["--validation", "last-click"], "--validation last-click: expected"),
        (["--data", "nowhere"], "expected at 'nowhere'"),
    ],
)
def test_bad_command_lines_are_one_line(
    words: list[str], message: str, tmp_path: Path, tables: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, storage = tmp_path / "params.json", f"sqlite:///{tmp_path}/tuning.db"
    given = ["--trials", "2", "--out", str(out), "--storage", storage, "--data", str(tables), *words]
    assert main(given, app, "python -m tuning") == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert not out.exists()


def test_study_without_a_complete_trial_writes_nothing(log: Log, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected a complete trial, found none, so nothing was written"):
        tune(config_in(tmp_path, timeout=1e-9), log=log)
    assert not (tmp_path / "params.json").exists()


def test_file_of_somebody_else_is_not_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "params.json"
    for content in ('{"study": "other"}', "{}", "[1]", "no JSON"):
        out.write_text(content, encoding="utf-8")
        with pytest.raises(UsageError, match="expected a file that does not exist or that the study 'mine' wrote"):
            refuse_overwriting(out, "mine", False)
        refuse_overwriting(out, "mine", True)
    out.write_text('{"study": "mine"}', encoding="utf-8")
    refuse_overwriting(out, "mine", False)


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("jobs", [1, 2])
def test_pressed_key_ends_cleanly_with_the_best_so_far(jobs: int, tables: Path, tmp_path: Path) -> None:
    space = tmp_path / "space.toml"
    space.write_text("[trees]\nvalue = 100\n[patience]\nvalue = 100\n", encoding="utf-8")
    out = tmp_path / "params.json"
    command = [sys.executable, "-m", "tuning", "--trials", "500", "--out", str(out), "--folds", "1"]
    command += ["--train-requests", "300", "--valid-requests", "100", "--jobs", str(jobs), "--data", str(tables)]
    command += ["--storage", f"journal:///{tmp_path}/study.log", "--space", str(space)]
    variables = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        journal = tmp_path / "study.log"
        _wait_for(lambda: journal.exists() and '"state":1' in journal.read_text())
        running.send_signal(signal.SIGINT)
        told, err = running.communicate(timeout=120)
    assert running.returncode == 130, err
    assert "stopped; the same command continues" in told
    assert json.loads(out.read_text())["trials"]["complete"] >= 1
    assert not list(tmp_path.glob(".frames-*"))


def _wait_for(seen: Callable[[], bool], seconds: float = 300) -> None:
    until = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < until
        time.sleep(0.1)


def test_missing_packages_are_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("tuning.__main__.find_spec", lambda name: None if name == "optuna" else name)
    assert main(["--trials", "1", "--out", "p.json"], app, "python -m tuning") == 2
    assert "expected ['optuna'], found none. Install: pip install 'newsrec[tuning]'" in capsys.readouterr().err


def test_help_names_every_option_and_choice(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"], app, "python -m tuning") == 0
    told = capsys.readouterr().out
    assert all(option in told for option in ("--ranker", "--storage", "--study", "--jobs", "--timeout", "--metric"))
    words = set(re.findall(r"[a-z0-9@]+", told))
    assert words >= {*TUNED, *SAMPLERS, *LEVELS, *STORAGES}


def test_defaults_of_the_command_line_are_those_of_the_library() -> None:
    from tuning.__main__ import tune as verb

    config, given = (
        TuneConfig(Path("p"), 1),
        dict(zip(verb.__code__.co_varnames[2:], verb.__defaults__ or (), strict=False)),
    )
    for name in ("storage", "study", "jobs", "metric", "folds", "sampler", "space", "latency", "timeout", "overwrite"):
        assert given[name] == getattr(config, name), name
    for name in ("train_requests", "valid_requests", "test_days", "valid_days", "gap_hours"):
        assert given[name] == getattr(config.train.split, name), name
    assert TrainConfig().seed == given["seed"]
