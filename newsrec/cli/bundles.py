"""Verbs over a bundle: how good it is, what it recommends, how it is kept up to date, its report."""

from pathlib import Path
from typing import Annotated

import typer

from newsrec.cli.options import (
    Columns,
    Data,
    Features,
    Format,
    Frozen,
    IntegerIds,
    MaxBad,
    Quarantine,
    Run,
    Switch,
    console,
    moment,
    read_options,
)


def evaluate(
    run: Run,
    data: Data = None,
    format: Format = "auto",
    json: Annotated[Path | None, typer.Option(help="File for the figures.")] = None,
    frozen: Frozen = False,
    test_requests: Annotated[int, typer.Option(help="Requests at most.", min=1)] = 50_000,
    off_policy: Annotated[
        bool,
        typer.Option(
            "--off-policy",
            help="Lists were shown in random order: also estimate how many would be clicked if the bundle chose the "
            "first article of each.",
        ),
    ] = False,
    column: Columns = None,
    integer_ids: IntegerIds = False,
    quarantine: Quarantine = None,
    features: Features = None,
    max_bad_share: MaxBad = 0.01,
) -> None:
    """Measure a bundle on clicks that it has not seen.

    \b
    newsrec evaluate --run artifacts/my-run --data logs/next-week --json figures.json
    """
    from newsrec import evaluate as stage

    options = read_options(column, integer_ids, quarantine, max_bad_share)
    config = stage.EvaluateConfig(run, data, format, json, frozen, test_requests, options, features, off_policy)
    with console() as told:
        told.table(stage.evaluate(config, told), run)


def recommend(
    run: Run,
    data: Annotated[Path, typer.Option(help="Folder or file of the log whose users are answered.")],
    out: Annotated[Path, typer.Option(help="File to write: the format's submission, or Parquet.")],
    format: Format = "auto",
    k: Annotated[
        int | None, typer.Option(help="Articles per user, 5 without it; or of each shown list, all without it.", min=1)
    ] = None,
    at: Annotated[
        str | None, typer.Option(help="Moment, such as 2024-01-31T08:00:00Z; shown lists have their own.")
    ] = None,
    frozen: Frozen = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Also write OUT.explain.parquet: why each article.")
    ] = False,
    reranker: Annotated[
        Switch | None,
        typer.Option(help="Whether the bundle's network orders the top; without it, what training found best."),
    ] = None,
    diversity: Annotated[float, typer.Option(help="What likeness to the articles above costs, 0 to 1.")] = 0.0,
    freshness: Annotated[float, typer.Option(help="What youth gains, 0 to 1.")] = 0.0,
    per_category: Annotated[int | None, typer.Option(help="Articles of one category at most.")] = None,
    one_per_story: Annotated[
        bool, typer.Option("--one-per-story", help="Only one article of a story: same title, or nearly same text.")
    ] = False,
    column: Columns = None,
    integer_ids: IntegerIds = False,
    quarantine: Quarantine = None,
    features: Features = None,
    max_bad_share: MaxBad = 0.01,
) -> None:
    """Recommend articles to every user of a log.

    \b
    newsrec recommend --run artifacts/my-run --data logs/tianchi --out submission.csv
    """
    from newsrec import recommend as stage
    from newsrec.diversity import Diversity

    options = read_options(column, integer_ids, quarantine, max_bad_share)
    network = None if reranker is None else reranker is Switch.on
    varied = Diversity(diversity, freshness, per_category=per_category, one_per_story=one_per_story)
    config = stage.RecommendConfig(
        run, data, out, format, k, moment(at), frozen, explain, options, features, network, varied
    )
    with console() as told:
        answers = stage.recommend(config, told)
        told.say(f"wrote {len(answers):,} recommendations to {out}")


def update(
    run: Run,
    data: Annotated[Path, typer.Option(help="Folder or file of the newer log.")],
    out: Annotated[Path, typer.Option(help="Folder of the new bundle.")],
    format: Format = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is at --out.")] = False,
    keep_days: Annotated[
        int | None,
        typer.Option(help="Days of events that the new bundle keeps whole; without it as many as the old one.", min=1),
    ] = None,
    features: Features = None,
    column: Columns = None,
    integer_ids: IntegerIds = False,
    quarantine: Quarantine = None,
    max_bad_share: MaxBad = 0.01,
) -> None:
    """Roll a bundle's state forward to a newer log without training, and show how far the log has moved.

    \b
    newsrec update --run artifacts/my-run --data logs/next-week --out artifacts/next-week
    """
    from newsrec import update as stage

    options = read_options(column, integer_ids, quarantine, max_bad_share)
    config = stage.UpdateConfig(run, data, out, format, overwrite, options, features, keep_days)
    with console() as told:
        result = stage.update(config, told)
        told.frame(result.table, "drift: the time before the bundle's last event against the time since")
        for line in result.lines():
            told.say(line)
        told.say(f"bundle: {result.run}")


def report(
    run: Run,
    against: Annotated[Path | None, typer.Option(help="Another bundle: print the paired differences.")] = None,
) -> None:
    """Show where the report of a run is, or how two runs compare.

    \b
    newsrec report --run artifacts/my-run
    newsrec report --run artifacts/old --against artifacts/new
    """
    from newsrec.bundle import read_manifest
    from newsrec.evaluate import compare
    from newsrec.report import write_report

    read_manifest(run)
    with console() as told:
        if against is not None:
            told.differences(compare(run, against))
        told.say(f"report: {write_report(run)}")
