"""An experiment changes one thing, keeps what is done, goes on where it was stopped, and compares in pairs."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from newsrec.data import ReadOptions
from newsrec.errors import UsageError
from newsrec.experiment import run as stage
from newsrec.experiment.cells import first_reaching
from newsrec.experiment.config import Cell, ExperimentConfig
from newsrec.experiment.kept import Kept
from newsrec.experiment.material import Material
from newsrec.experiment.questions import EXPERIMENTS
from newsrec.experiment.run import ExperimentResult, run_experiment
from newsrec.metrics import METRICS
from newsrec.rankers.lgbm import OBJECTIVES
from tests.conftest import FEW_TREES
from tests.factories import Heard

SMALL = {"train_requests": 400, "valid_requests": 300, "test_requests": 400}
READ = ReadOptions(integer_ids=True)


def config(tables: Path, out: Path, name: str = "negatives", **changes: Any) -> ExperimentConfig:
    usual = ExperimentConfig(
        name, tables, out=out, read=READ, samplers=("random", "hard"), ratios=(4.0,), params=FEW_TREES, **SMALL
    )
    return replace(usual, **changes)


@pytest.fixture(scope="module")
def done(tables: Path, tmp_path_factory: pytest.TempPathFactory) -> ExperimentResult:
    return run_experiment(config(tables, tmp_path_factory.mktemp("experiment") / "negatives"))


def test_every_cell_has_its_row_with_figures_in_range(done: ExperimentResult) -> None:
    table = done.table
    assert table.select("negatives", "weighted").rows() == [
        ("random", True), ("random", False), ("hard", True), ("hard", False), ("all", True), ("list", True),
        ("list", False),
    ]  # fmt: skip
    for name in ("auc", "gauc", "mrr@5", "auc_hard", "auc_easy", "auc_sampled", "gain_in_common"):
        assert table[name].is_between(0, 1).all(), name
    only_hard = pl.col("negatives") == "hard"  # has never seen an easy one
    easy = table.filter(~only_hard)["auc_easy"]
    assert (table.filter(~only_hard)["auc_hard"] < easy).all()
    assert table.filter(only_hard)["auc_easy"].max() < easy.min()  # type: ignore[operator]
    assert (table["seconds"] > 0).all()
    assert table["negatives_per_click"].to_list()[:4] == pytest.approx([4] * 4, abs=0.3)


def test_baseline_gains_nothing_over_itself(done: ExperimentResult) -> None:
    first = done.table.row(0, named=True)
    assert [first[name] for name in ("auc_gain", "auc_low", "auc_high")] == [0, 0, 0]
    assert first["gain_in_common"] == pytest.approx(1)
    others = done.table.tail(-1)
    assert (others["auc_low"] <= others["auc_gain"]).all()
    assert (others["auc_gain"] <= others["auc_high"]).all()


def test_calibration_after_is_nearer_than_before(done: ExperimentResult) -> None:
    assert (done.table["ece_after"] < 0.5 * done.table["ece_before"]).all()


def test_sampled_test_lists_would_have_said_too_much(done: ExperimentResult) -> None:
    assert (done.table["mrr@5_sampled"] > done.table["mrr@5"] + 0.1).all()


def test_folder_tells_protocol_counts_and_table(done: ExperimentResult) -> None:
    told = json.loads((done.out / "table.json").read_text(encoding="utf-8"))
    assert told["protocol"]["test_requests"] == 400
    assert told["baseline"] == "random-4-weighted-seed0"
    assert told["lists"]["after_recall"]["others"] > 50 * told["lists"]["after_recall"]["clicked"]
    assert told["lists"]["raw"]["others"] > told["lists"]["raw"]["clicked"]
    assert len(pl.read_csv(done.out / "table.csv")) == len(told["rows"]) == 7


def test_stopped_experiment_goes_on_and_another_is_refused(
    done: ExperimentResult, tables: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One cell is lost: only that one runs again. Further requests are another experiment."""
    (done.out / "cells" / "hard-4-bare-seed0.json").unlink()
    ran: list[str] = []
    run_cell = stage.run_cell

    def noted(material: Any, cell: Cell) -> Any:
        ran.append(cell.key)
        return run_cell(material, cell)

    monkeypatch.setattr(stage, "run_cell", noted)
    again = run_experiment(config(tables, done.out))
    assert ran == ["hard-4-bare-seed0"]
    timed = ["seconds", "seconds_to_baseline"]
    assert again.table.drop(timed).equals(done.table.drop(timed))
    with pytest.raises(UsageError, match=r"differs in \['protocol'\]"):
        run_experiment(config(tables, done.out, test_requests=300))


def test_what_the_log_lacks_is_left_out_and_said_once(
    done: ExperimentResult, tables: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poor(material: Material, cell: Cell, say: Callable[[str], None]) -> bool:
        if cell.sampler == "hard":
            say("left out: hard")
        return cell.sampler != "hard"

    monkeypatch.setattr(Material, "can", poor)
    told = Heard()
    found = run_experiment(config(tables, done.out), told)
    assert found.table["negatives"].to_list() == ["random", "random", "all", "list", "list"]
    assert told.lines.count("left out: hard") == 1


def test_folder_with_something_else_is_refused(tables: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="--out: expected an empty folder or an experiment"):
        Kept.open(tmp_path, {})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": "luck"}, "expected one of"),
        ({"samplers": ("luck",)}, "--negatives: expected"),
        ({"samplers": ("list",)}, "--samplers: expected none of"),
        ({"ratios": (0.0,)}, "--ratios: expected"),
        ({"ratios": ()}, "--ratios: expected"),
        ({"seeds": 0}, "at least 1 seed"),
        ({"candidates": "dreams"}, "--candidates: expected"),
    ],
)
def test_contradictions_are_refused(tables: Path, tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        run_experiment(config(tables, tmp_path / "new", **changes))
    assert not (tmp_path / "new").exists()


def test_shown_lists_have_places_too(tables: Path, tmp_path: Path) -> None:
    """By the best baseline, as nothing recalled them; the objective changes and nothing else."""
    found = run_experiment(config(tables, tmp_path / "objective", "objective", candidates="slate"))
    assert found.table["params"].to_list() == [f"objective={name}" for name in OBJECTIVES]
    assert found.protocol["candidates"] == "the whole list that was shown"
    assert found.table["auc"].is_between(0.5, 1).all()


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_cells_have_keys_of_their_own_and_one_baseline(name: str) -> None:
    experiment = EXPERIMENTS[name]
    cells = experiment.cells(ExperimentConfig(name))
    assert len({cell.key for cell in cells}) == len(cells) > 2
    assert any(experiment.baseline(cell) for cell in cells)
    assert cells[0].with_seed(3).key.endswith("seed3")


def test_first_reaching() -> None:
    assert first_reaching([0.1, 0.3, 0.2, 0.3], 0.3) == 2
    assert first_reaching([0.1], 0.2) is None
    assert set(METRICS) >= {"auc", "gauc", "mrr@5"}
