"""The command line: thin verbs over the library. `newsrec <verb>` and `python -m newsrec.<verb>` are the same.

Exit codes: 0 good, 2 misuse or bad input (one line on stderr), 1 failure (one line; `--debug` shows the traceback).
"""

import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from newsrec.console import Console
from newsrec.data import FORMATS, WRITERS
from newsrec.errors import NewsrecError, UsageError
from newsrec.recall import CHANNELS, DEFAULT_CHANNELS
from newsrec.rerankers import RERANKERS

if TYPE_CHECKING:
    from newsrec.data import ReadOptions

# Newer Typer carries its own copy of Click, older ones import it: the base of both is found through what Typer exports.
_BadCommandLine: type[Exception] = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException" and issubclass(kind, Exception)
)

STOPPED = 130
"""Exit code of a run that a pressed key ended: 128 and the signal, as shells have it."""

app = typer.Typer(
    name="newsrec",
    help="A lightweight news recommender: recall, point-in-time features, LambdaRank, honest evaluation.",
    epilog="Every verb has --help with an example; --debug shows the traceback of an error.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class Validation(StrEnum):
    """Names of `newsrec.split.VALIDATIONS`; a test holds the two together."""

    temporal = "temporal"
    last_click = "last-click"
    gap = "gap"


class Switch(StrEnum):
    """On or off."""

    on = "on"
    off = "off"


Data = Annotated[
    Path | None, typer.Option(help="Folder or file of the click log. Without it, the embedded simulated log.")
]
Format = Annotated[str, typer.Option(help=f"{', '.join(FORMATS)}, or auto to look at the files.")]
Run = Annotated[Path, typer.Option(help="The bundle: a folder that train wrote.")]
Columns = Annotated[
    list[str] | None,
    typer.Option("--column", help="table: canonical=source, such as user_id=reader. Repeat for each column."),
]
IntegerIds = Annotated[bool, typer.Option("--integer-ids", help="table: ids are whole numbers, not text.")]
Quarantine = Annotated[Path | None, typer.Option(help="CSV file for the rows that could not be read.")]
Features = Annotated[
    Path | None, typer.Option("--features", help="Python file with own features, which is executed; see the README.")
]
MaxBad = Annotated[float, typer.Option(help="Share of bad rows above which the log is refused.", min=0.0, max=1.0)]


def run_verb(verb: str) -> None:
    """Entry of `python -m newsrec.<verb>`."""
    sys.exit(main([verb, *sys.argv[1:]]))


def main(arguments: list[str] | None = None) -> int:
    """Run a command line and return its exit code; nothing escapes. No word at all asks for help."""
    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given
    given = [word for word in given if word != "--debug"] or ["--help"]
    try:
        code = app(given, standalone_mode=False, prog_name="newsrec")
        if code == STOPPED:
            raise KeyboardInterrupt  # Typer takes a pressed key and returns its code instead
    except NewsrecError as error:
        return _fail(f"error: {error}", 2, debug)
    except _BadCommandLine as error:
        return _fail(f"error: {getattr(error, 'format_message', error.__str__)()} See --help.", 2, debug)
    except (typer.Abort, KeyboardInterrupt):
        return _fail("stopped; nothing was left half-written.", STOPPED, debug)
    except OSError as error:
        where = f" '{error.filename}'" if error.filename else ""
        return _fail(
            f"error: the system refused{where}: {error.strerror or error}. Nothing was left half-written.", 2, debug
        )
    except Exception as error:
        told = str(error).splitlines()
        return _fail(f"failure: {type(error).__name__}: {told[0] if told else ''} (--debug shows where).", 1, debug)
    return code if isinstance(code, int) else 0


def _fail(line: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    sys.stderr.write(" ".join(line.split()) + "\n")
    return code


@app.command()
def train(
    ranker: Annotated[str, typer.Option(help="The ranker: lgbm.")] = "lgbm",
    data: Data = None,
    format: Format = "auto",
    out: Annotated[
        Path | None, typer.Option(help="Folder of the bundle; a fresh one under artifacts/ without it.")
    ] = None,
    validation: Annotated[Validation, typer.Option(help="How the test requests are held out.")] = Validation.temporal,
    recall: Annotated[
        str | None,
        typer.Option(
            help=f"Recall channels, separated by commas: {','.join(CHANNELS)}. "
            f"Without it {','.join(DEFAULT_CHANNELS)}, and none for slate."
        ),
    ] = None,
    candidates: Annotated[
        str | None, typer.Option(help="slate (the list that was shown) or recall; without it, what the format is for.")
    ] = None,
    without: Annotated[str, typer.Option(help="Features and families to leave out, separated by commas.")] = "",
    params: Annotated[Path | None, typer.Option(help="JSON file of ranker parameters, such as tuning writes.")] = None,
    objective: Annotated[str | None, typer.Option(help="lambdarank (default), rank_xendcg or binary.")] = None,
    run: Annotated[Path | None, typer.Option(help="Take data, format and seed from this bundle.")] = None,
    reranker: Annotated[
        str | None, typer.Option(help=f"Network that orders the top again: {', '.join(RERANKERS)}.")
    ] = None,
    rerank_top: Annotated[int, typer.Option(help="Candidates per request that the network orders.", min=2)] = 20,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.", min=0)] = 0,
    no_refit: Annotated[bool, typer.Option("--no-refit", help="Do not fit again on all requests at the end.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the bundle at --out.")] = False,
    train_requests: Annotated[
        int | None,
        typer.Option(help="Training requests at most; without it 200,000, and 40,000 of the embedded log.", min=1),
    ] = None,
    valid_requests: Annotated[int, typer.Option(help="Validation requests at most.", min=1)] = 8_000,
    test_requests: Annotated[int, typer.Option(help="Test requests at most.", min=1)] = 30_000,
    test_days: Annotated[float, typer.Option(help="Length of the test period, days.")] = 1.0,
    valid_days: Annotated[float, typer.Option(help="Length of the validation period, days.")] = 1.0,
    gap_hours: Annotated[float, typer.Option(help="gap: how old statistics are when a period starts.")] = 24.0,
    recall_refresh: Annotated[float, typer.Option(help="Minutes between refreshes of the recall tables.")] = 30.0,
    list_length: Annotated[int, typer.Option(help="Candidates per request at most, 10..10000.")] = 100,
    column: Columns = None,
    integer_ids: IntegerIds = False,
    quarantine: Quarantine = None,
    features: Features = None,
    max_bad_share: MaxBad = 0.01,
) -> None:
    """Train, evaluate and keep a ranking.

    \b
    newsrec train --ranker lgbm
    newsrec train --ranker lgbm --reranker din
    newsrec train --ranker lgbm --data logs/tianchi --validation last-click
    newsrec train --data clicks.csv --format table --column user_id=reader --column item_id=story
    """
    from newsrec import train as stage
    from newsrec.recall import settings_of
    from newsrec.split import SplitConfig

    chosen = stage.load_params(params, ranker) if params else {}
    config = stage.TrainConfig(
        data=data,
        format=format,
        ranker=ranker,
        params=chosen | ({"objective": objective} if objective else {}),
        out=out,
        overwrite=overwrite,
        candidates=candidates,
        recall=None if recall is None else _names(recall),
        without=_names(without),
        recall_settings=settings_of(recall_refresh, list_length),
        list_length=list_length,
        split=SplitConfig(
            validation=validation.value,
            test_days=test_days,
            valid_days=valid_days,
            gap_hours=gap_hours,
            train_requests=train_requests,
            valid_requests=valid_requests,
            test_requests=test_requests,
        ),
        refit=not no_refit,
        seed=seed,
        read=_read_options(column, integer_ids, quarantine, max_bad_share),
        features=features,
        reranker=reranker,
        rerank_top=rerank_top,
    )
    log = None
    if run is not None:
        config, log = stage.config_of_run(run, config)
    with _console() as console:
        result = stage.train(config, console, log=log)
        console.table(result.metrics, result.run)


@app.command()
def evaluate(
    run: Run,
    data: Data = None,
    format: Format = "auto",
    json: Annotated[Path | None, typer.Option(help="File for the figures.")] = None,
    frozen: Annotated[bool, typer.Option("--frozen", help="Keep the bundle's statistics as they are.")] = False,
    test_requests: Annotated[int, typer.Option(help="Requests at most.", min=1)] = 50_000,
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

    options = _read_options(column, integer_ids, quarantine, max_bad_share)
    config = stage.EvaluateConfig(run, data, format, json, frozen, test_requests, options, features)
    with _console() as console:
        console.table(stage.evaluate(config, console), run)


@app.command()
def recommend(
    run: Run,
    data: Annotated[Path, typer.Option(help="Folder or file of the log whose users are answered.")],
    out: Annotated[Path, typer.Option(help="File to write: the format's submission, or Parquet.")],
    format: Format = "auto",
    k: Annotated[int, typer.Option(help="Articles per user.", min=1)] = 5,
    at: Annotated[str | None, typer.Option(help="Moment, such as 2024-01-31T08:00:00Z.")] = None,
    frozen: Annotated[bool, typer.Option("--frozen", help="Keep the bundle's statistics as they are.")] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Also write OUT.explain.parquet: why each article.")
    ] = False,
    reranker: Annotated[
        Switch | None,
        typer.Option(help="Whether the bundle's network orders the top; without it, what training found best."),
    ] = None,
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

    options = _read_options(column, integer_ids, quarantine, max_bad_share)
    network = None if reranker is None else reranker is Switch.on
    config = stage.RecommendConfig(run, data, out, format, k, _moment(at), frozen, explain, options, features, network)
    with _console() as console:
        answers = stage.recommend(config, console)
        console.say(f"wrote {len(answers):,} recommendations to {out}")


@app.command()
def update(
    run: Run,
    data: Annotated[Path, typer.Option(help="Folder or file of the newer log.")],
    out: Annotated[Path, typer.Option(help="Folder of the new bundle.")],
    format: Format = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is at --out.")] = False,
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

    options = _read_options(column, integer_ids, quarantine, max_bad_share)
    config = stage.UpdateConfig(run, data, out, format, overwrite, options, features)
    with _console() as console:
        result = stage.update(config, console)
        console.frame(result.table, "drift: the time before the bundle's last event against the time since")
        for line in result.lines():
            console.say(line)
        console.say(f"bundle: {result.run}")


@app.command()
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
    with _console() as console:
        if against is not None:
            console.differences(compare(run, against))
        console.say(f"report: {write_report(run)}")


@app.command()
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
    from newsrec.train import TrainConfig, read

    options = _read_options(column, integer_ids, quarantine, max_bad_share)
    profile = inspect_log(read(TrainConfig(data=data, format=format, read=options)))
    with _console() as console:
        for line in profile.lines():
            console.say(line)
    if json is not None:
        write_json(json, profile.as_dict())


@app.command()
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

    options = _read_options(column, integer_ids, quarantine, max_bad_share)
    config = stage.AuditConfig(data, format, features, requests, seed, json, options)
    with _console() as console:
        result = stage.audit(config, console)
        console.frame(result.table(), "what each feature and channel knows of the future")
        for line in result.lines():
            console.say(line)
    if result.bad:
        raise typer.Exit(1)


@app.command()
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
    with _console() as console:
        console.frame(statistics(simulation.log), "simulated log")
        console.say(f"wrote {len(simulation.log.clicks):,} clicks to {out}")


def _names(words: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in words.split(",") if name.strip())


def _read_options(
    column: list[str] | None, integer_ids: bool, quarantine: Path | None, max_bad_share: float
) -> "ReadOptions":
    from newsrec.data import ReadOptions

    pairs = [word.partition("=") for word in column or []]
    wrong = [word for word, pair in zip(column or [], pairs, strict=True) if not (pair[0] and pair[1] and pair[2])]
    if wrong:
        raise UsageError(f"--column: expected canonical=source, found {wrong}. Write it like user_id=reader.")
    columns = {name: source for name, _, source in pairs}
    return ReadOptions(columns, integer_ids, quarantine, max_bad_share)


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"--at: expected a moment such as 2024-01-31T08:00:00Z, found {text!r}.") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@contextmanager
def _console() -> Iterator[Console]:
    logging.captureWarnings(True)
    with Console() as console:
        yield console
