"""A CSV as lines of text: its header, and the slow way in that gives every bad line its number and a reason."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from newsrec.errors import DataError

SEPARATORS: Final = (",", "\t", ";", "|")
LONGEST_HEADER: Final = 1 << 20
SAVE: Final = "save it as UTF-8 text"
COUNTED: Final = {"line": pl.Int64, "reason": pl.String, "raw": pl.String}
"""What a bad row is reported with."""
REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class Header:
    """What the first line of a CSV says, or the format where there is no such line."""

    names: tuple[str, ...]
    separator: str
    written: bool = True
    """Whether the first line is the header. Without one, quotes are text like any other."""

    def all_lines_full(self, path: Path) -> bool:
        """Whether every line has a value, empty or not, for every column. False where quotes make that hard to say."""
        lines = pl.Series(_text_lines(path)).str.strip_chars_end("\r")
        if self.written and lines.str.contains('"', literal=True).any():
            return False
        fields = lines.filter(lines != "").str.count_matches(self.separator, literal=True)
        return bool((fields == len(self.names) - 1).all())


def read_header(path: Path) -> Header:
    """Column names and separator of a CSV; a byte order mark is left out.

    Raises:
        DataError: The file is empty, not UTF-8 text, or names a column twice.
    """
    with path.open("rb") as file:
        first = file.readline(LONGEST_HEADER)
    if not first.strip():
        raise DataError(f"a CSV with a header line expected at '{path}', an empty file found; fetch the file again")
    try:
        line = first.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError(f"a CSV in UTF-8 expected at '{path}', other bytes found in its header; {SAVE}") from error
    if not line.isprintable() and re.search(r"[\0\r]", line):
        raise DataError(
            f"a CSV in UTF-8 with \\n line ends expected at '{path}', NUL or bare \\r found in its header; {SAVE}"
        )
    separator = max(SEPARATORS, key=line.count)
    names = tuple(name.strip().strip('"').strip() for name in line.split(separator))
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(
            f"each column once expected in '{path}', {twice} found more than once; rename or drop the others"
        )
    return Header(names, separator)


def bare_header(path: Path, names: Sequence[str]) -> Header:
    """The columns of a tab-separated file that names none itself.

    Raises:
        DataError: The file is empty.
    """
    if not path.stat().st_size:
        raise DataError(f"lines of {len(names)} fields expected at '{path}', an empty file found; fetch the file again")
    return Header(tuple(names), "\t", written=False)


def read_lines(path: Path, header: Header) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Read a CSV line by line, every value as text.

    Args:
        path: The file.
        header: Its header.

    Returns:
        The rows that have the right number of fields, with `line number` (from 1, the header's) and `raw line`; and
        `line, reason, raw` of the others. Blank lines are neither. Order kept.
    """
    lines = pl.DataFrame({"raw line": pl.Series(_text_lines(path), dtype=pl.String).str.strip_chars_end("\r")})
    lines = lines.with_row_index("line number", offset=1).cast({"line number": pl.Int64}).slice(int(header.written))
    lines = lines.filter(pl.col("raw line") != "")
    broken = pl.coalesce(
        pl.when(pl.col("raw line").str.contains(REPLACEMENT, literal=True)).then(pl.lit("bytes that are not UTF-8")),
        pl.when(pl.col("raw line").str.contains("\0", literal=True)).then(pl.lit("a NUL byte")),
    )
    lines = lines.with_columns(reason=broken)
    good, rest = _split(lines.filter(pl.col("reason").is_null()), header)
    bad = pl.concat([lines.filter(pl.col("reason").is_not_null()), rest]).sort("line number")
    return good, bad.select(line="line number", reason="reason", raw="raw line")


def _text_lines(path: Path) -> list[str]:
    return path.read_bytes().decode("utf-8", errors="replace").split("\n")


def _split(lines: pl.DataFrame, header: Header) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Part lines into fields: plain lines at the separator, quoted ones by the CSV rules, quoted line ends joined."""
    quoted = pl.col("raw line").str.contains('"', literal=True) & header.written
    plain = lines.filter(~quoted).with_columns(fields=pl.col("raw line").str.split(header.separator))
    odd = (lines["raw line"].str.count_matches('"', literal=True) % 2 == 1) & header.written
    # Lines between two with an odd number of quotes are one row, if they make a whole one together.
    joined = lines.with_columns(row=_running_rows(odd)).group_by("row", maintain_order=True)
    rows = joined.agg(pl.col("line number"), pl.col("raw line"), pl.col("reason").first())
    rows = rows.filter(pl.col("raw line").list.len() > 1).with_columns(pl.col("raw line").list.join("\n"))
    rows = _by_csv_rules(rows, header).filter(pl.col("fields").list.len() == len(header.names))
    taken = rows["line number"].explode()
    rows = rows.with_columns(pl.col("line number").list.first())
    inside = pl.col("line number").is_in(taken.implode())
    single = _by_csv_rules(lines.filter(quoted & ~inside), header)
    columns = ["line number", "raw line", "reason", "fields"]
    parts = pl.concat([frame.select(columns) for frame in (plain.filter(~inside), rows, single)]).sort("line number")
    full = pl.col("fields").list.len() == len(header.names)
    good = parts.filter(full)
    values = [pl.col("fields").list.get(place).alias(name) for place, name in enumerate(header.names)]
    reason = pl.format(f"{len(header.names)} fields expected, {{}} found", pl.col("fields").list.len())
    reason = pl.when(pl.col("fields").list.len() == 0).then(pl.lit("quotes that do not match")).otherwise(reason)
    return good.select("line number", "raw line", *values), parts.filter(~full).select(
        "line number", "raw line", reason=reason
    )


def _running_rows(odd: pl.Series) -> npt.NDArray[np.int64]:
    """A number per row of the table: lines from one with an odd number of quotes to the next share it."""
    opened = np.cumsum(odd.to_numpy())
    continues = np.concatenate([[0], opened[:-1]]) % 2 == 1 if len(opened) else np.zeros(0, bool)
    return np.cumsum(~continues)


def _by_csv_rules(lines: pl.DataFrame, header: Header) -> pl.DataFrame:
    """Fields of lines with quotes; an empty list where the quotes do not match."""
    sep = re.escape(header.separator)
    field = rf'(?:"(?:[^"]|"")*"|[^"{sep}]*)'
    whole = pl.col("raw line").str.contains(rf"(?s)\A{field}(?:{sep}{field})*\z")
    with_separator = pl.format("{}{}", pl.lit(header.separator), pl.col("raw line")).str.extract_all(
        rf"(?s){sep}{field}"
    )
    cleaned = pl.element().str.slice(1).str.replace(r'(?s)\A"(.*)"\z', "${1}").str.replace_all('""', '"', literal=True)
    return lines.with_columns(
        fields=pl.when(whole).then(with_separator.list.eval(cleaned)).otherwise(pl.lit([], pl.List(pl.String)))
    )
