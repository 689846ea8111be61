"""Networks compared on one ranker's tops: what the table says, what resumes, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

pytest.importorskip("torch")

from newsrec.data import ReadOptions
from newsrec.errors import UsageError
from newsrec.experiment import networks
from newsrec.experiment.config import RANKER, ExperimentConfig, NetworkCell
from newsrec.experiment.kept import Kept
from newsrec.experiment.networks import COMPARED, NetworkMaterial
from newsrec.experiment.pages import grids, html, markdown
from newsrec.experiment.questions import EXPERIMENTS
from newsrec.experiment.run import ExperimentResult, run_experiment
from newsrec.neural.trainer import TrainerConfig
from newsrec.progress import Silent
from newsrec.rerank import lists_place
from newsrec.rerankers import RERANKERS
from newsrec.rerankers.stage import RerankConfig
from tests.conftest import FEW_TREES
from tests.networks import random_lists

SMALL = {"train_requests": 300, "valid_requests": 200, "test_requests": 300}


def config(tables: Path, out: Path, **changes: Any) -> ExperimentConfig:
    usual = ExperimentConfig(
        "rerankers",
        tables,
        out=out,
        read=ReadOptions(integer_ids=True),
        params=FEW_TREES,
        models=("lr",),
        **SMALL,
    )
    return replace(usual, **changes)


@pytest.fixture(scope="module")
def short() -> Any:
    """One epoch per network."""
    of = RerankConfig.of

    def brief(name: str, top: int, params: dict[str, Any], seed: int) -> RerankConfig:
        made = of(name, top, params, seed)
        return replace(made, trainer=replace(made.trainer, epochs=1))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks.RerankConfig, "of", brief)
        yield


@pytest.fixture(scope="module")
def done(short: None, tables: Path, tmp_path_factory: pytest.TempPathFactory) -> ExperimentResult:
    return run_experiment(
        config(tables, tmp_path_factory.mktemp("experiment") / "rerankers", losses=("softmax", "focal"))
    )


def test_every_network_and_loss_has_its_row_and_the_ranker_too(done: ExperimentResult) -> None:
    table = done.table
    names = ("pooling", "lr")
    assert table.select("network", "loss").rows() == [
        (RANKER, None), *((name, loss) for loss in ("softmax", "focal") for name in names)
    ]  # fmt: skip
    networks_only = table.tail(-1)
    assert networks_only["models_the_sequence"].to_list() == [False] * 4
    assert networks._traits("dsin") == {"models_the_sequence": True, "aware_of_the_target": True}
    assert networks._traits("mine.py") == {}
    for name in ("parameters", "seconds", "epochs", "p50_ms", "p99_ms", "kilobytes"):
        assert (networks_only[name] > 0).all(), name
    assert (networks_only["p50_ms"] <= networks_only["p99_ms"]).all()
    for name in COMPARED:
        assert table[name].is_between(0, 1).all(), name
        for against in ("over_pooling", "over_ranker"):
            column = f"{name}_{against}"
            assert (table[f"{column}_low"] <= table[column]).all()
            assert (table[column] <= table[f"{column}_high"]).all()


def test_nothing_gains_over_itself(done: ExperimentResult) -> None:
    ranker, pooling = done.table.row(0, named=True), done.table.row(1, named=True)
    for name in COMPARED:
        assert ranker[f"{name}_over_ranker"] == ranker[f"{name}_over_ranker_high"] == 0
        assert pooling[f"{name}_over_pooling"] == pooling[f"{name}_over_pooling_low"] == 0
        assert pooling[f"{name}_over_ranker"] == pytest.approx(pooling[name] - ranker[name])
    for name in networks.SERVED:
        assert ranker[f"blend_{name}"] == ranker[name]
        assert ranker[f"blend_{name}_over_ranker_low"] == 0
    assert ranker["parameters"] is None


def test_clicks_below_the_top_keep_the_place_of_the_ranker(short: None, tables: Path, tmp_path: Path) -> None:
    """What the network cannot move it does not move, and hits at its depth are the ranker's."""
    material = NetworkMaterial.of(config(tables, tmp_path, rerank_top=5), Silent())
    assert len(material.test.place) == len(material.test.lists.label)
    np.testing.assert_array_equal(material.test.place, lists_place(material.test.scored, 5))
    (_, ranker), (_, network) = (
        networks.run_cell(material, NetworkCell(name, loss)) for name, loss in ((RANKER, ""), ("lr", "softmax"))
    )
    assert network["hit@5"].equals(ranker["hit@5"])
    assert network["blend_hit@5"].equals(ranker["hit@5"])
    assert not network["mrr@5"].equals(ranker["mrr@5"])


def test_folder_has_the_table_for_people(done: ExperimentResult) -> None:
    told = json.loads((done.out / "table.json").read_text(encoding="utf-8"))
    assert told["baseline"] == "pooling-softmax-seed0"
    assert "first 20" in told["protocol"]["candidates"]
    page, text = ((done.out / name).read_text(encoding="utf-8") for name in ("table.html", "table.md"))
    for name in ("focal", "models the sequence", "over the ranker", *COMPARED):
        assert name in page
        assert name in text
    assert "http" not in page
    assert text.count("| lr | focal |") == len(COMPARED) + 2


def test_pages_escape_what_they_are_told(done: ExperimentResult) -> None:
    named = done.table.with_columns(pl.lit("<b>|x.py:Mine").alias("network"))
    found = grids(named, COMPARED, networks.SERVED)
    assert "<b>" not in html("t", "<i>", found).replace("<body>", "")
    assert "<i>" not in html("t", "<i>", found)
    assert "| <b>/x.py:Mine |" in markdown("t", "told", found)


def test_further_networks_join_and_what_is_done_stays(
    short: None, done: ExperimentResult, tables: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    run_cell = networks.run_cell

    def noted(material: NetworkMaterial, cell: NetworkCell) -> Any:
        ran.append(cell.key)
        return run_cell(material, cell)

    monkeypatch.setattr(networks, "run_cell", noted)
    again = run_experiment(config(tables, done.out, models=("lr", "deepfm")))
    assert ran == ["deepfm-softmax-seed0"]
    assert again.table["network"].to_list() == [RANKER, "pooling", "lr", "deepfm"]
    with pytest.raises(UsageError, match=r"differs in \['protocol'\]"):
        run_experiment(config(tables, done.out, rerank_top=10))


def test_seeds_are_averaged(tmp_path: Path) -> None:
    kept = Kept.open(tmp_path / "kept", {})
    for name in (RANKER, "pooling"):
        for seed, value in ((0, 0.2), (1, 0.6)):
            columns = {f"{before}{metric}": [value, value] for before in ("", "blend_") for metric in networks.METRICS}
            found = pl.DataFrame({"request_id": [0, 1], "user_id": [0, 1], "n_candidates": [5, 5], **columns})
            figures = networks._figures(found) | {"seconds": 1.0 + seed}
            kept.add(NetworkCell(name, seed=seed).key, figures, found)
    cells = [NetworkCell(RANKER), NetworkCell("pooling")]
    table = networks.table_of(cells, range(2), cells[1], kept)
    assert table["mrr@5"].to_list() == pytest.approx([0.4, 0.4])
    assert table["seconds"].to_list() == [1.5, 1.5]


def test_what_a_log_lacks_is_left_out_with_a_line(tables: Path, tmp_path: Path) -> None:
    material = NetworkMaterial.of(config(tables, tmp_path), Silent())
    fields = replace(material.settings.fields, ids={"item_id": "int64"})
    poor = replace(material, settings=replace(material.settings, fields=fields))
    told: list[str] = []
    own = tmp_path / "own.py"
    own.write_text(
        "from newsrec.rerankers import lr\n\ndef needy(shape):\n    return lr.network(shape) if shape.sizes[1] else 0"
    )
    cells = [NetworkCell(name, "bce") for name in (RANKER, "din", "sim", f"{own}:needy", "mmoe")]
    assert [poor.can(cell, told.append) for cell in cells] == [True, True, True, False, False]
    assert f"left out: {own}:needy (" in told[0]
    assert told[1] == "left out: mmoe, as the log has no second label"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"models": ("luck",)}, "expected one of .*dien.*found 'luck'"),
        ({"losses": ("hinge",)}, r"--losses: expected some of .*lambdaloss.*found \['hinge'\]"),
        ({"losses": ()}, "--losses: expected some of .*found none"),
        ({"rerank_top": 1}, "--rerank-top: expected 2 or more, found 1"),
    ],
)
def test_contradictions_are_refused(tables: Path, tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        run_experiment(config(tables, tmp_path / "new", **changes))
    assert not (tmp_path / "new").exists()


def test_all_networks_are_compared_where_none_is_named() -> None:
    assert set(ExperimentConfig("rerankers").networks) == set(RERANKERS)
    assert ExperimentConfig("rerankers", models=("dien",)).networks == ("pooling", "dien")
    keys = {NetworkCell(name, loss).key for name in ("a/b.py:One", "a/b.py:Two") for loss in ("bce", "bpr")}
    assert len(keys) == 4
    assert not any("/" in key for key in keys)
    asked = ExperimentConfig("rerankers", models=("mmoe",), tasks=("dwell:30",))
    kept = {cell.key for cell in EXPERIMENTS["rerankers"].cells(asked)}
    alone = {"mmoe-softmax-dwell_30-seed0", "mmoe-softmax-alone-dwell_30-seed0"}
    assert kept == {"ranker-seed0", "pooling-softmax-seed0", *alone}
    assert TrainerConfig().loss == ExperimentConfig("rerankers").losses[0]


def test_several_labels_stand_beside_each_alone(short: None, tables: Path, tmp_path: Path) -> None:
    """The see-saw: a network of several tasks, and one such network per label; `alone` is no row."""
    read = ReadOptions(columns={"shared": "shared"}, integer_ids=True)
    asked = config(tables, tmp_path / "tasks", models=("mmoe",), tasks=("shared",), read=read)
    result = run_experiment(asked)
    assert result.table["network"].to_list() == [RANKER, "pooling", "mmoe"]
    told = result.table.row(2, named=True)
    for task in ("click", "shared"):
        assert 0 < told[f"task_{task}_together"] < 1
        assert 0 < told[f"task_{task}_alone"] < 1
    assert result.table.row(1, named=True)["task_shared_together"] is None
    kept = Kept(result.out)
    alone = kept.figures(NetworkCell("mmoe", "softmax", alone=True, tasks=("shared",)).key)
    assert alone["tasks"]["shared"]["auc"] == told["task_shared_alone"]
    text = (result.out / "table.md").read_text(encoding="utf-8")
    assert "see-saw" in text
    assert f"| mmoe | softmax | shared | {told['task_shared_together']:.4f} |" in text
    with pytest.raises(UsageError, match=r"--task: expected one of .*found 'luck'"):
        run_experiment(replace(asked, out=tmp_path / "other", tasks=("luck",)))


def test_a_label_alone_takes_the_place_of_the_click() -> None:
    lists = random_lists(30)
    rng = np.random.default_rng(0)
    second = np.where(rng.random(len(lists.label)) < 0.2, np.nan, rng.integers(0, 2, len(lists.label)))
    found = networks._of_label(replace(lists, further={"second": second.astype(np.float32)}), "second")
    assert found.further == {}
    assert found.label.tolist() == second[np.isfinite(second)].astype(int).tolist()
    assert found.length.sum() == len(found.label)
    assert networks._of_label(lists, "click").label is lists.label
