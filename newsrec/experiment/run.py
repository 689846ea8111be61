"""All stages of an experiment in order; `python -m newsrec.experiment` and the library function do the same."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from newsrec.bundle import write_json
from newsrec.errors import UsageError
from newsrec.experiment import channels
from newsrec.experiment.cells import run_cell
from newsrec.experiment.config import ExperimentConfig
from newsrec.experiment.kept import Kept
from newsrec.experiment.material import Material
from newsrec.experiment.questions import EXPERIMENTS
from newsrec.experiment.table import table_of
from newsrec.progress import Progress, Silent


@dataclass(frozen=True)
class ExperimentResult:
    """What an experiment found."""

    out: Path
    """Folder with `table.json`, `table.csv` and each cell's figures; of networks also `table.md` and `table.html`."""
    table: pl.DataFrame
    """One row per cell, see `newsrec.experiment.table.table_of` and those of `channels` and `networks`."""
    protocol: dict[str, Any]


@dataclass(frozen=True)
class Study:
    """How the cells of an experiment are run."""

    material: Callable[[ExperimentConfig, Progress], Any]
    run_cell: Callable[[Any, Any], tuple[dict[str, Any], pl.DataFrame]]
    table_of: Callable[..., pl.DataFrame]
    write_pages: Callable[[Path, pl.DataFrame, Mapping[str, Any]], None]


def _study(name: str) -> Study:
    if name == "recall":
        return Study(channels.RecallMaterial.of, channels.run_cell, channels.table_of, lambda *_: None)
    if name != "rerankers":
        return Study(Material.of, run_cell, table_of, lambda *_: None)
    from newsrec.experiment import networks  # what trains networks needs torch

    return Study(networks.NetworkMaterial.of, networks.run_cell, networks.table_of, networks.write_pages)


def run_experiment(config: ExperimentConfig, progress: Progress | None = None) -> ExperimentResult:
    """Run what is not yet done, and lay all of it out.

    Args:
        config: Which experiment, on what, how large.
        progress: Told of stages and cells; None is silent.

    Raises:
        NewsrecError: An unknown experiment, a folder that holds another one, bad data, or a place that cannot be
            written.
    """
    tell = progress or Silent()
    if config.name not in EXPERIMENTS:
        raise UsageError(f"experiment: expected one of {sorted(EXPERIMENTS)}, found {config.name!r}.")
    config.refuse_contradictions()
    experiment = EXPERIMENTS[config.name]
    study = _study(config.name)
    material = study.material(config, tell)
    left_out: list[str] = []
    cells = [cell for cell in experiment.cells(config) if material.can(cell, left_out.append)]
    for line in dict.fromkeys(left_out):
        tell.say(line)
    out = config.out or Path("artifacts") / f"experiment-{config.name}-{material.log.fingerprint[:8] or 'log'}"
    kept = Kept.open(out, {**config.facts(), "protocol": material.protocol})
    wanted = [cell.with_seed(seed) for seed in range(config.seeds) for cell in cells]
    waiting = [cell for cell in wanted if not kept.has(cell.key)]
    if len(waiting) < len(wanted):
        tell.say(f"{len(wanted) - len(waiting)} of {len(wanted)} cells are done already")
    with tell.stage("cells", len(waiting)) as step:
        for cell in waiting:
            kept.add(cell.key, *study.run_cell(material, cell))
            step(1)
    baseline = next((cell for cell in cells if experiment.baseline(cell)), cells[0])
    table = study.table_of(cells, range(config.seeds), baseline, kept)
    table.write_csv(out / "table.csv")
    facts = {"protocol": material.protocol, "baseline": baseline.key, "lists": material.counts}
    write_json(out / "table.json", {**facts, "rows": table.to_dicts()})
    study.write_pages(out, table, material.protocol)
    return ExperimentResult(out, table, material.protocol)
