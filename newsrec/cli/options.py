"""Options that several verbs share, and what their words mean."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from newsrec.console import Console
from newsrec.data import FORMATS, ReadOptions
from newsrec.errors import UsageError


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
Frozen = Annotated[bool, typer.Option("--frozen", help="Keep the bundle's statistics as they are.")]
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


def names_in(words: str) -> tuple[str, ...]:
    """Names that are separated by commas."""
    return tuple(name.strip() for name in words.split(",") if name.strip())


def read_options(
    column: list[str] | None, integer_ids: bool, quarantine: Path | None, max_bad_share: float
) -> ReadOptions:
    """How the log is read.

    Raises:
        UsageError: A `--column` that maps nothing.
    """
    pairs = [word.partition("=") for word in column or []]
    wrong = [word for word, pair in zip(column or [], pairs, strict=True) if not (pair[0] and pair[1] and pair[2])]
    if wrong:
        raise UsageError(f"--column: expected canonical=source, found {wrong}. Write it like user_id=reader.")
    columns = {name: source for name, _, source in pairs}
    return ReadOptions(columns, integer_ids, quarantine, max_bad_share)


def quotas_in(words: list[str] | None) -> dict[str, int]:
    """What `--quota` says: channel -> articles.

    Raises:
        UsageError: Not a channel and a whole number.
    """
    pairs = [word.partition("=") for word in words or []]
    wrong = ["".join(pair) for pair in pairs if not (pair[0] and pair[2].isdecimal())]
    if wrong:
        raise UsageError(f"--quota: expected channel=number, found {wrong}. Write it like usercf=50.")
    return {name: int(number) for name, _, number in pairs}


def moment(text: str | None) -> datetime | None:
    """The moment of `--at`; without a time zone it is UTC.

    Raises:
        UsageError: No moment.
    """
    if text is None:
        return None
    try:
        told = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"--at: expected a moment such as 2024-01-31T08:00:00Z, found {text!r}.") from error
    return told if told.tzinfo else told.replace(tzinfo=UTC)


@contextmanager
def console() -> Iterator[Console]:
    """What a verb talks through; warnings of libraries go to the log, not between its lines."""
    logging.captureWarnings(True)
    with Console() as opened:
        yield opened
