"""The command line: thin verbs over the library. `newsrec <verb>` and `python -m newsrec.<verb>` are the same.

Exit codes: 0 good, 2 misuse or bad input (one line on stderr), 1 failure (one line; `--debug` shows the traceback).
"""

import sys
import traceback
from typing import Final

import typer

from newsrec.cli.bundles import evaluate, recommend, report, update
from newsrec.cli.experiments import experiment
from newsrec.cli.logs import audit, inspect, simulate
from newsrec.cli.training import train
from newsrec.errors import NewsrecError
from newsrec.process import pool_memory

# Newer Typer carries its own copy of Click, older ones import it: the base of both is found through what Typer exports.
_BadCommandLine: type[Exception] = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException" and issubclass(kind, Exception)
)

STOPPED = 130
"""Exit code of a run that a pressed key ended: 128 and the signal, as shells have it."""

VERBS: Final = (train, evaluate, recommend, update, report, experiment, inspect, audit, simulate)
"""In the order of the help. Beside its line here, a verb is a function and `run_verb` in the module that does the work.
Work is imported inside the functions, so that help is quick."""

app = typer.Typer(
    name="newsrec",
    help="A lightweight news recommender: recall, point-in-time features, LambdaRank, honest evaluation.",
    epilog="Every verb has --help with an example; --debug shows the traceback of an error.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for _verb in VERBS:
    app.command()(_verb)


def run_verb(verb: str) -> None:
    """Entry of `python -m newsrec.<verb>`."""
    sys.exit(main([verb, *sys.argv[1:]]))


def main(arguments: list[str] | None = None, app: typer.Typer = app, name: str = "newsrec") -> int:
    """Run a command line of an app and return its exit code; nothing escapes. No word at all asks for help."""
    pool_memory()
    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given
    given = [word for word in given if word != "--debug"] or ["--help"]
    try:
        code = app(given, standalone_mode=False, prog_name=name)
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
