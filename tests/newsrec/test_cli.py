"""The command line as a person or a script meets it: help, exit codes, one line per error, plain progress."""

import json
import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import typer

import newsrec.inspect
from newsrec import cli
from newsrec.cli import app, main
from newsrec.cli.options import Validation
from newsrec.console import Console, stages
from newsrec.data import FORMATS, WRITERS
from newsrec.rankers import RANKERS
from newsrec.rankers.lgbm import OBJECTIVES
from newsrec.recall import CHANNELS, DEFAULT_CHANNELS
from newsrec.split import EMBEDDED_REQUESTS, LOG_REQUESTS, VALIDATIONS
from newsrec.train_config import TrainConfig

ROOT = Path(__file__).parents[2]
VERBS = sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
Python = Callable[..., CompletedProcess[str]]
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Help as wide as in the processes that are started here."""
    monkeypatch.setenv("COLUMNS", "200")


def told(capsys: Capture, *arguments: object) -> tuple[int, str, str]:
    code = main([str(word) for word in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def help_of(capsys: Capture, verb: str) -> str:
    return told(capsys, verb, "--help")[1]


def flat(text: str) -> str:
    return " ".join(text.split())


class TestHelp:
    @pytest.mark.parametrize("verb", VERBS)
    def test_of_each_verb_shows_its_example(self, verb: str, capsys: Capture) -> None:
        code, out, err = told(capsys, verb, "--help")
        assert (code, err) == (0, "")
        assert re.search(rf"^ +newsrec {verb} (\w+ )?--", out, re.MULTILINE)

    @pytest.mark.parametrize("verb", VERBS)
    def test_examples_use_flags_that_exist(self, verb: str, capsys: Capture) -> None:
        text = help_of(capsys, verb)
        used = {
            flag for line in text.splitlines() if f"newsrec {verb} " in line for flag in re.findall(r"--[\w-]+", line)
        }
        assert used <= set(re.findall(r"^ +(--[\w-]+)", text, re.MULTILINE))

    def test_every_flag_is_explained(self, capsys: Capture) -> None:
        for verb in VERBS:
            text = help_of(capsys, verb)
            explained = re.findall(r"^  (--[\w-]+)(?: <[^>]*>)?\s{2,}[A-Za-z]", text, re.MULTILINE)
            assert len(explained) > 1
            assert explained == re.findall(r"^  (--[\w-]+)", text, re.MULTILINE)

    def test_is_what_no_argument_gives(self, capsys: Capture) -> None:
        code, out, err = told(capsys)
        assert (code, err) == (0, "")
        assert out == told(capsys, "--help")[1]
        assert all(re.search(rf"^  {verb} ", out, re.MULTILINE) for verb in VERBS)
        assert len(out.splitlines()) > len(VERBS) + 5

    def test_names_every_format_channel_ranker_and_objective(self, capsys: Capture) -> None:
        train = flat(help_of(capsys, "train"))
        assert f"> {', '.join(FORMATS)}, or auto" in train
        assert f"by commas: {', '.join(CHANNELS)}." in train
        assert all(name in train for name in (*OBJECTIVES, *VALIDATIONS))
        assert all(re.search(rf"--ranker <[^>]*> [^\[]*{name}", train) for name in RANKERS)
        assert f"One of {', '.join(WRITERS)}." in help_of(capsys, "simulate")

    def test_defaults_are_those_of_the_library(self, capsys: Capture) -> None:
        text, config = flat(help_of(capsys, "train")), TrainConfig()
        for flag, value in (
            ("ranker", config.ranker),
            ("seed", config.seed),
            ("list-length", config.list_length),
            ("validation", config.split.validation),
            ("test-days", config.split.test_days),
            ("gap-hours", config.split.gap_hours),
            ("valid-requests", config.split.valid_requests),
        ):
            assert re.search(rf"--{flag} <[^>]*> [^\[]*\[default: {value}[;\]]", text), flag
        assert f"without it {LOG_REQUESTS:,}, and {EMBEDDED_REQUESTS:,} of the embedded log" in text
        assert f"Without it {','.join(DEFAULT_CHANNELS)}, and none for slate." in text

    def test_validation_modes_are_those_of_the_split(self) -> None:
        assert [mode.value for mode in Validation] == list(VALIDATIONS)

    def test_readme_shows_every_verb(self) -> None:
        readme = (ROOT / "README.md").read_text(encoding="utf-8")
        assert not [verb for verb in VERBS if f"`newsrec {verb}`" not in readme]

    def test_module_and_script_are_the_same(self, python: Python, capsys: Capture) -> None:
        with ThreadPoolExecutor(2) as pool:
            runs = list(pool.map(lambda verb: python("-m", f"newsrec.{verb}", "--help"), VERBS))
        for verb, run in zip(VERBS, runs, strict=True):
            assert (run.returncode, run.stderr) == (0, "")
            assert run.stdout == help_of(capsys, verb)


@pytest.fixture
def places(tmp_path: Path, tables: Path) -> dict[str, Path]:
    """Paths that the wrong command lines name."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "letter.txt").write_text("keep me", encoding="utf-8")
    (tmp_path / "bad.json").write_text("{trees: 7}", encoding="utf-8")
    (tmp_path / "wrong.json").write_text('{"trees": "many"}', encoding="utf-8")
    (tmp_path / "times.csv").write_text("user_id,item_id,clicked_at\n1,2,2024-01-01T00:00:00Z\n", encoding="utf-8")
    (tmp_path / "words.csv").write_text("user_id,item_id,clicked_at\n1,2,yesterday\n", encoding="utf-8")
    return {"tmp": tmp_path, "tables": tables}


WRONG: dict[str, tuple[str, str]] = {
    "no such verb": ("frobnicate", "No such command 'frobnicate'"),
    "no such flag": ("train --speed 9", "No such option: --speed"),
    "flag missing": ("simulate", "Missing option '--out'"),
    "not a number": ("train --seed one", "'--seed'.*integer"),
    "below its range": ("train --seed -1", "'--seed'.*0"),
    "no such mode": ("train --validation random", "'random' is not one of 'temporal', 'last-click', 'gap'"),
    "no data there": ("inspect --data {tmp}/none", "a log expected at '{tmp}/none', nothing found"),
    "empty folder": ("inspect --data {tmp}/empty", "files of one of the formats .* expected at '{tmp}/empty'"),
    "no such format": ("inspect --data {tables} --format paper", r"\['auto', .*'table'.* expected, 'paper' found"),
    "format without data": ("train --format globo --out {tmp}/run", "--format globo: expected --data"),
    "times that are words": ("inspect --data {tmp}/words.csv", "bad rows"),
    "share above one": ("inspect --data {tables} --max-bad-share 7", "'--max-bad-share'.*1"),
    "mapping without a name": ("inspect --data {tables} --column =reader", "expected canonical=source, found"),
    "mapping to nothing": ("inspect --data {tables} --column user_id", r"--column: .* found \['user_id'\]"),
    "no such ranker": ("train --ranker oracle --out {tmp}/run", r"--ranker: expected one of \['lgbm'\]"),
    "no such channel": (
        "train --data {tables} --recall psychic --out {tmp}/run",
        r"--recall: expected channels of .*'popular', .*\], found \['psychic'\]",
    ),
    "channel without its data": (
        "train --data {tmp}/times.csv --recall popular,content --out {tmp}/run",
        "--recall content: expected articles with embeddings, found none",
    ),
    "quota of nothing": (
        "train --quota popular --out {tmp}/run",
        r"--quota: expected channel=number, found \['popular'\]",
    ),
    "quota of a channel that is not asked": (
        "train --data {tables} --recall popular --quota swing=9 --out {tmp}/run",
        r"--quota swing: expected one of the channels \['popular'\]",
    ),
    "no such objective": ("train --objective luck --out {tmp}/run", "objective: one of"),
    "no such reranker": (
        "train --reranker nothing --out {tmp}/run",
        r"--reranker: expected one of \['deepfm', 'dien', 'din'",
    ),
    "task of a network of one": (
        "train --reranker din --task shared --out {tmp}/run",
        "--task: expected a network of several tasks, found 'din'",
    ),
    "task of no network": ("train --task shared --out {tmp}/run", "--task: expected --reranker with it, found none"),
    "base that has no tower": (
        "train --reranker mmoe --base lr --out {tmp}/run",
        "expected a base of .* whose inputs meet in a tower, found 'lr'",
    ),
    "network from no file": (
        "train --reranker {tmp}/none.py:Net --out {tmp}/run",
        "--reranker: expected a Python file",
    ),
    "parameters of no network": (
        "train --rerank-params {tmp}/x.json --out {tmp}/run",
        "--rerank-params: expected a JSON",
    ),
    "no such candidates": (
        "train --candidates all --out {tmp}/run",
        r"--candidates: expected one of \['recall', 'slate'",
    ),
    "slates of clicks": (
        "train --data {tmp}/times.csv --candidates slate --out {tmp}/run",
        "--candidates slate: expected a log with impressions, found clicks only",
    ),
    "slates by last clicks": (
        "train --data {tables} --candidates slate --validation last-click --out {tmp}/run",
        "--validation last-click: expected a click log, found shown lists",
    ),
    "no such feature": ("train --data {tables} --without luck --out {tmp}/run", "--without: expected features"),
    "short lists": ("train --list-length 9 --out {tmp}/run", "--list-length: expected 10 to 10000"),
    "standing clock": ("train --recall-refresh 0 --out {tmp}/run", "--recall-refresh: expected minutes above zero"),
    "no length": ("train --data {tables} --test-days 0 --out {tmp}/run", "--test-days 0"),
    "gap that is no number": ("train --data {tables} --gap-hours nan --out {tmp}/run", "--gap-hours nan"),
    "folder taken": ("train --out {tmp}/taken", "--out: expected a folder that does not exist, found '{tmp}/taken'"),
    "no bundle to replace": ("train --out {tmp}/taken --overwrite", "found '{tmp}/taken' without manifest.json"),
    "params that are no JSON": (
        "train --params {tmp}/bad.json",
        "--params: expected a JSON file, found '{tmp}/bad.json'",
    ),
    "params out of range": ("train --params {tmp}/wrong.json --out {tmp}/run", "trees: a whole number"),
    "no bundle": ("report --run {tmp}/empty", "--run: expected a bundle, found no manifest.json"),
    "no bundle to go on": ("train --run {tmp}/none", "--run: expected a bundle"),
    "no moment": (
        "recommend --run {tmp}/none --data {tables} --out {tmp}/x --at yesterday",
        "--at: expected a moment such as 2024-01-31T08:00:00Z, found 'yesterday'",
    ),
    "network of one candidate": ("train --reranker din --rerank-top 1 --out {tmp}/run", "'--rerank-top'.*2"),
    "no such format to write": ("simulate --out {tmp}/log --format paper --users 9 --days 1", "'paper' found"),
    "nobody to simulate": ("simulate --out {tmp}/log --users 0", "users"),
    "no folder for the file": ("inspect --data {tables} --json {tmp}/none/x.json", "{tmp}/none/x.json"),
}


class TestWrongInput:
    @pytest.mark.parametrize("case", WRONG)
    def test_exits_2_with_one_line_and_leaves_nothing(
        self, case: str, places: dict[str, Path], capsys: Capture
    ) -> None:
        words, message = (text.replace("{tmp}", str(places["tmp"])) for text in WRONG[case])
        before = sorted(places["tmp"].rglob("*"))
        code, _, err = told(capsys, *words.replace("{tables}", str(places["tables"])).split())
        assert code == 2
        assert err.startswith("error: ")
        assert re.search(message, err), err
        assert err.count("\n") == 1
        assert err.endswith("\n")
        assert sorted(places["tmp"].rglob("*")) == before

    def test_message_of_several_lines_becomes_one(self, tmp_path: Path, capsys: Capture) -> None:
        code, _, err = told(capsys, "inspect", "--data", tmp_path / "two\nlines")
        assert (code, err.count("\n")) == (2, 1)
        assert f"expected at '{tmp_path}/two lines'" in err

    def test_exit_code_leaves_the_process(self, python: Python, tmp_path: Path) -> None:
        run = python("-m", "newsrec.inspect", "--data", tmp_path / "none")
        assert (run.returncode, run.stdout, run.stderr.count("\n")) == (2, "", 1)


class TestFailure:
    def test_exits_1_with_one_line_and_the_traceback_on_demand(
        self, monkeypatch: pytest.MonkeyPatch, capsys: Capture, tables: Path
    ) -> None:
        def broken(log: object) -> None:
            raise ZeroDivisionError("by\nnothing")

        monkeypatch.setattr(newsrec.inspect, "inspect_log", broken)
        code, out, err = told(capsys, "inspect", "--data", tables)
        assert (code, out, err) == (1, "", "failure: ZeroDivisionError: by (--debug shows where).\n")
        for words in (("--debug", "inspect"), ("inspect", "--debug")):
            code, _, err = told(capsys, *words, "--data", tables)
            assert code == 1
            assert err.startswith("Traceback (most recent call last)")
            assert "in broken" in err
            assert err.endswith("failure: ZeroDivisionError: by (--debug shows where).\n")

    def test_traceback_of_bad_input_on_demand(self, capsys: Capture, tmp_path: Path) -> None:
        code, _, err = told(capsys, "inspect", "--data", tmp_path / "none", "--debug")
        assert code == 2
        assert "Traceback" in err
        assert err.splitlines()[-1].startswith("error: a log expected at")

    def test_pressed_key_is_130(self, monkeypatch: pytest.MonkeyPatch, capsys: Capture, tables: Path) -> None:
        def stopped(log: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(newsrec.inspect, "inspect_log", stopped)
        assert told(capsys, "inspect", "--data", tables) == (130, "", "stopped; nothing was left half-written.\n")


class TestProgress:
    def test_without_a_terminal_is_a_line_per_stage(self, capsys: Capture) -> None:
        with Console() as console, console.stage("rank", 1_200) as step:
            step(1_000)
            step(200)
        out, err = capsys.readouterr()
        assert out == ""
        assert re.fullmatch(r" +\d+\.\d s  rank: 1,200 of 1,200 in \d+\.\d s\n", err)

    def test_unknown_total_counts_up(self, capsys: Capture) -> None:
        with Console() as console, console.stage("rank", 0) as step:
            step(7)
        assert re.search(r"rank: 7 in ", capsys.readouterr().err)

    def test_long_stage_tells_on_the_way(self, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("newsrec.console.LINE_EVERY_SECONDS", -1.0)
        with Console() as console, console.stage("score", 30) as step:
            step(10)
            step(20)
        lines = [line.split("  ")[-1] for line in capsys.readouterr().err.splitlines()]
        assert lines[:2] == ["score: 10 of 30", "score: 30 of 30"]

    def test_markup_in_data_stays_text(self, capsys: Capture) -> None:
        Console().say("[bold]news[/bold] [1]")
        assert capsys.readouterr().out == "[bold]news[/bold] [1]\n"

    def test_stages_are_baselines_then_models(self) -> None:
        metrics = {"baselines": {"popularity": {}}, "rerank": {}, "rank": {}, "other": {}}
        assert list(stages(metrics)) == ["baseline popularity", "rank", "rerank"]


@pytest.fixture(scope="module")
def two_runs(
    tables: Path, tmp_path_factory: pytest.TempPathFactory, python: Python
) -> list[tuple[Path, CompletedProcess[str]]]:
    """The same small training in two surroundings that have nothing in common."""
    folder = tmp_path_factory.mktemp("surroundings")
    params = folder / "params.json"
    params.write_text(json.dumps({"trees": 8, "min_data_in_leaf": 20, "models": 1, "threads": 1}), encoding="utf-8")
    surroundings = [
        {"TZ": "Asia/Tokyo", "PYTHONHASHSEED": "1", "LC_ALL": "C", "PYTHONUTF8": "0", "POLARS_MAX_THREADS": "1"},
        {"TZ": "America/St_Johns", "PYTHONHASHSEED": "2", "LC_ALL": "C.UTF-8", "POLARS_MAX_THREADS": "2"},
    ]

    def run(number: int) -> tuple[Path, CompletedProcess[str]]:
        out = folder / f"run-{number}"
        words = (
            "--data",
            tables,
            "--params",
            params,
            "--out",
            out,
            "--seed",
            "4",
            "--train-requests",
            "900",
            "--test-requests",
            "500",
        )
        return out, python("-m", "newsrec.train", *words, "--ranker", "lgbm", **surroundings[number])

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(run, range(2)))


class TestTraining:
    def test_time_zone_hash_seed_and_locale_change_nothing(
        self, two_runs: list[tuple[Path, CompletedProcess[str]]]
    ) -> None:
        for _, done in two_runs:
            assert done.returncode == 0, done.stderr
        (one, _), (other, _) = two_runs
        for name in ("lambdarank.txt", "features.json", "vocabulary.parquet", "per_request.parquet"):
            assert (one / name).read_bytes() == (other / name).read_bytes(), name
        figures = [json.loads((run / "metrics.json").read_text(encoding="utf-8")) for run, _ in two_runs]
        assert figures[0]["rank"] == figures[1]["rank"]
        assert figures[0]["protocol"] == figures[1]["protocol"]

    def test_progress_is_plain_lines_and_results_are_on_stdout(
        self, two_runs: list[tuple[Path, CompletedProcess[str]]]
    ) -> None:
        for run, done in two_runs:
            lines = done.stderr.splitlines()
            assert all(re.fullmatch(r" +\d+\.\d s  \w+: [\d,]+( of [\d,]+)?( in \d+\.\d s)?", line) for line in lines)
            assert {line.split()[2] for line in lines} == {"features:", "validation:", "rank:", "score:"}
            assert "\x1b" not in done.stdout + done.stderr
            assert done.stdout.rstrip().endswith(f"run: {run}")
            for word in ("temporal split", "baseline popularity", "mrr@5", *DEFAULT_CHANNELS):
                assert word in done.stdout

    def test_report_and_comparison_of_runs(
        self, two_runs: list[tuple[Path, CompletedProcess[str]]], capsys: Capture
    ) -> None:
        (one, _), (other, _) = two_runs
        code, out, _ = told(capsys, "report", "--run", one, "--against", other)
        assert code == 0
        assert re.search(r"mrr@5 +0\.\d+ +0\.\d+ +\+0\.0000", out)
        assert out.rstrip().endswith(f"report: {one / 'report.html'}")


def test_script_is_the_same_main() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'newsrec = "newsrec.cli:main"' in project
    assert cli.main is main
    assert shutil.which("newsrec") is not None


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (("train", "--negatives", "luck"), "'luck'"),
        (("train", "--negatives", "hard", "--negative-ratio", "0"), "found 0.0"),
        (("train", "--exposure", "guessed"), "'guessed'"),
        (("train", "--position-bias", "--objective", "binary"), "found 'binary'"),
        (("experiment", "luck"), "'luck'"),
        (("experiment", "negatives", "--ratios", "few"), "'few'"),
        (("experiment", "negatives", "--samplers", "luck"), "'luck'"),
        (("recommend", "--run", "r", "--data", "d", "--out", "o", "--diversity", "2"), "found 2.0"),
    ],
)
def test_what_cannot_be_is_refused_before_the_work(arguments: tuple[str, ...], found: str, capsys: Capture) -> None:
    code, out, err = told(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert found in err
    assert err.count("\n") == 1
