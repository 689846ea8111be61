"""Verbs over a log: what is in it, what in it knows the future, and one that is simulated."""

from pathlib import Path
from typing import Annotated, Any

import typer

from newsrec.cli.options import (
    Columns,
    Data,
    Features,
    Format,
    IntegerIds,
    MaxBad,
    Quarantine,
    console,
    read_options,
)
from newsrec.data import WRITERS


def inspect(
    data: Data = None,
    format: Format = "auto",
    json: Annotated[Path | None, typer.Option(help="File for the profile.")] = None,
    column: Columns = None,
    integer_ids: IntegerIds = False,
    quarantine: Quarantine = None,
    max_bad_share: MaxBad = 0.01,
) -> None:
    """Profile a log before a long run: sizes, times, labels, artefacts.

    \b
    newsrec inspect --data logs/tianchi
    """
    from newsrec.bundle import write_json
    from newsrec.inspect import inspect_log
    from newsrec.train import read
    from newsrec.train_config import TrainConfig

    options = read_options(column, integer_ids, quarantine, max_bad_share)
    profile = inspect_log(read(TrainConfig(data=data, format=format, read=options)))
    with console() as told:
        for line in profile.lines():
            told.say(line)
    if json is not None:
        write_json(json, profile.as_dict())


def audit(
    data: Data = None,
    format: Format = "auto",
    features: Features = None,
    requests: Annotated[int, typer.Option(help="Requests that are tried.", min=10)] = 200,
    seed: Annotated[int, typer.Option(help="Same seed, same audit.", min=0)] = 0,
    json: Annotated[Path | None, typer.Option(help="File for the findings.")] = None,
    column: Columns = None,
    integer_ids: IntegerIds = False,
    quarantine: Quarantine = None,
    max_bad_share: MaxBad = 0.01,
) -> None:
    """Look for features and recall channels that know the future. Exit code 1 if there is one.

    \b
    newsrec audit --data logs/mine --features own.py
    """
    from newsrec import audit as stage

    options = read_options(column, integer_ids, quarantine, max_bad_share)
    config = stage.AuditConfig(data, format, features, requests, seed, json, options)
    with console() as told:
        result = stage.audit(config, told)
        told.frame(result.table(), "what each feature and channel knows of the future")
        for line in result.lines():
            told.say(line)
    if result.bad:
        raise typer.Exit(1)


def simulate(
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    format: Annotated[str, typer.Option(help=f"One of {', '.join(WRITERS)}.")] = "table",
    users: Annotated[int | None, typer.Option(help="Readers.")] = None,
    days: Annotated[int | None, typer.Option(help="Length of the log.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same log.")] = 0,
) -> None:
    """Write a simulated log, and show how it compares with real ones.

    \b
    newsrec simulate --out logs/simulated --format tianchi
    """
    from newsrec.simulate import SimulationConfig, statistics, write_simulation

    chosen: dict[str, Any] = {name: value for name, value in (("users", users), ("days", days)) if value is not None}
    simulation = write_simulation(out, format, SimulationConfig(**chosen, seed=seed))
    with console() as told:
        told.frame(statistics(simulation.log), "simulated log")
        told.say(f"wrote {len(simulation.log.clicks):,} clicks to {out}")
