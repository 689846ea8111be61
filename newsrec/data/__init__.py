"""Stage 1: any supported log in, canonical frames out.

`read_log` is the way in; `FORMATS` lists what it can read, `WRITERS` what `write_log` can write. Adding a format is its
own file and one line here.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from newsrec.data.auto import detect
from newsrec.data.ebnerd import read_ebnerd
from newsrec.data.globo import read_globo
from newsrec.data.log import Intake, Log, ReadOptions
from newsrec.data.mind import read_mind
from newsrec.data.table import log_from_frames, read_table
from newsrec.data.tianchi import read_tianchi
from newsrec.data.write import WRITERS, write_log
from newsrec.errors import DataError, UsageError

__all__ = [
    "FORMATS",
    "SHUFFLED_FORMATS",
    "SLATE_FORMATS",
    "WRITERS",
    "Intake",
    "Log",
    "ReadOptions",
    "log_from_frames",
    "read_log",
    "write_log",
]

FORMATS: Final[dict[str, Callable[[Path, ReadOptions], Log]]] = {
    "tianchi": read_tianchi,
    "globo": read_globo,
    "ebnerd": read_ebnerd,
    "mind": read_mind,
    "table": read_table,
}
"""Format name -> reader."""

SHUFFLED_FORMATS: Final = ("ebnerd", "mind")
"""Formats whose publisher shuffled the lists afterwards: what they call an order, no reader saw."""
SLATE_FORMATS: Final = ("ebnerd", "mind")
"""Formats whose requests bring the list that was shown: that list is ranked unless somebody asks for recall."""

AUTO: Final = "auto"
DEFAULTS: Final = ReadOptions()


def read_log(path: Path | str, format: str = AUTO, *, options: ReadOptions = DEFAULTS) -> Log:
    """Read a log.

    Args:
        path: A folder in the layout of the format, or one file.
        format: A key of `FORMATS`, or `auto`, which looks at the files.
        options: Column mapping, ids, quarantine and its limit.

    Returns:
        The log in canonical Polars frames; equal files, in whatever row order, give equal logs.

    Raises:
        DataError: Nothing there, a layout or columns that do not fit, or more bad rows than allowed.
        UsageError: An unknown format.
    """
    path = Path(path)
    if format not in FORMATS and format != AUTO:
        raise UsageError(f"format: one of {[AUTO, *sorted(FORMATS)]} expected, {format!r} found; pass another --format")
    try:
        name = detect(path, tuple(FORMATS)) if format == AUTO else format
        if not path.exists():
            raise DataError(f"{name}: a log expected at '{path}', nothing found; check the path")
        return FORMATS[name](path, options)
    except OSError as error:
        raise DataError(f"files that can be read expected at '{path}', {error} found; check the permissions") from error
