"""One file in, one frame with canonical columns out; rows that cannot be read go to the ledger.

A CSV is tried with declared dtypes first, which is as fast as Polars can read. If that raises, or anything in the
result is suspect, the file is read as text, and only if that is ragged too, line by line (still whole columns at a
time), so that each bad line keeps its number. Called by the formats.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from newsrec.data.casting import as_integers_where_plain, cast, limit
from newsrec.data.ledger import Ledger
from newsrec.data.lines import COUNTED, Header, bare_header, read_header, read_lines
from newsrec.data.schema import EXPECTED, FAST, Column
from newsrec.errors import DataError

TABLES = (".csv", ".tsv", ".txt", ".parquet", ".pq")
PARQUET = (".parquet", ".pq")
MISREAD = (pl.exceptions.PolarsError, OSError, pl.exceptions.PanicException)


def read_rows(
    path: Path,
    role: str,
    columns: Sequence[Column],
    ledger: Ledger,
    *,
    known: Sequence[str] = (),
    names: Sequence[str] = (),
    rules: Sequence[pl.Expr] = (),
) -> pl.DataFrame:
    """Read the columns that the file has.

    Args:
        path: A CSV (or TSV) or Parquet file.
        role: `clicks`, `articles` or `impressions`.
        columns: What to look for; optional columns may be absent.
        ledger: Receives row counts, bad rows and notes.
        known: Source columns that are left out on purpose, without a note.
        names: Source columns of a tab-separated file that has no header line; its quotes are text like any other.
        rules: See `judge`.

    Returns:
        Canonical columns in the order of `columns`, file order of rows kept.

    Raises:
        DataError: No such file, not a table, or needed columns are missing.
    """
    if not path.is_file():
        raise DataError(f"{role}: a file expected at '{path}', none found; check the path")
    if path.suffix.lower() in PARQUET:
        present = choose(column_names(path), columns, str(path), role, ledger, known=known)
        frame = _read_parquet(path, [column.source for column in present])
        good, bad = judge(frame, present, ledger, role, rules)
        bad = bad.with_columns(raw=_joined(frame)[bad["line"]]) if bad.height else bad
        bad = bad.with_columns(pl.col("line") + 1)
    else:
        header = bare_header(path, names) if names else read_header(path)
        present = choose(header.names, columns, str(path), role, ledger, known=known)
        good, bad = _read_csv(path, header, present, ledger, role, rules)
    ledger.count(role, good.height + bad.height)
    ledger.quarantine(role, path, bad)
    return good


def choose(
    found: Sequence[str], columns: Sequence[Column], where: str, role: str, ledger: Ledger, *, known: Sequence[str] = ()
) -> list[Column]:
    """The columns that are there; notes the unknown ones.

    Raises:
        DataError: A needed column is missing.
    """
    missing = sorted(column.source for column in columns if column.needed and column.source not in found)
    if missing:
        names = ", ".join(repr(name) for name in missing)
        raise DataError(
            f"{role}: {len(missing)} missing column{'s' * (len(missing) > 1)} {names} in '{where}'; "
            f"found {sorted(found)[:20]}; pass another --format or map the columns"
        )
    wanted = {column.source for column in columns}
    unknown = sorted(set(found) - wanted - set(known))
    if unknown:
        ledger.note(f"{role}: columns left out as unknown: {', '.join(unknown)}")
    return [column for column in columns if column.source in found]


def judge(
    frame: pl.DataFrame, columns: Sequence[Column], ledger: Ledger, role: str, rules: Sequence[pl.Expr] = ()
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Cast every column and part the good rows from the bad.

    Args:
        frame: Source columns of any dtype, shape (n_rows, n_columns).
        columns: All of them in `frame`.
        ledger: Receives a note on what lenient columns lost.
        role: For that note.
        rules: Over canonical columns; each gives the reason why a row is bad, or null.

    Returns:
        The good rows under canonical names, and `line, reason, raw` of the others; `line` is the row in `frame`,
        from 0, and `raw` is null. Order kept.
    """
    latest = limit(ledger.options.now)
    kept: dict[str, pl.Series] = {}
    reasons: list[pl.Expr] = []
    masks: dict[str, pl.Series] = {}
    for column in columns:
        source = frame[column.source]
        values, bad = cast(source, column.kind, latest)
        kept[column.name] = values.alias(column.name)
        if bad.any() and column.lenient:
            lost = int(bad.sum())
            ledger.note(
                f"{role}: {lost} values of '{column.source}' are not {EXPECTED[column.kind]} and count as unknown"
            )
        elif bad.any():
            masks[f"bad {column.name}"] = bad
            shown = _shown(source, column.name)
            reasons.append(
                pl.when(pl.col(f"bad {column.name}")).then(
                    pl.format(f"'{column.source}' is not {EXPECTED[column.kind]}: {{}}", pl.lit(shown))
                )
            )
        if column.needed and values.has_nulls():
            masks[f"missing {column.name}"] = values.is_null() & ~bad
            reasons.append(pl.when(pl.col(f"missing {column.name}")).then(pl.lit(f"'{column.source}' is missing")))
    good = pl.DataFrame(kept)
    reasons.extend(rules)
    if not reasons:
        return good, pl.DataFrame(schema=COUNTED)
    verdict = pl.DataFrame(kept | masks).select(reason=pl.coalesce(*reasons, pl.lit(None, pl.String)))["reason"]
    line = np.flatnonzero(verdict.is_not_null().to_numpy())
    bad_rows = pl.DataFrame({"line": line, "reason": verdict.gather(line), "raw": [None] * len(line)}, schema=COUNTED)
    return good.filter(verdict.is_null()), bad_rows


def _shown(source: pl.Series, name: str) -> pl.Series:
    text = source.cast(pl.String, strict=False) if not source.dtype.is_nested() else pl.Series([""] * len(source))
    return text.str.slice(0, 60).fill_null("").alias(name)


def _read_csv(
    path: Path, header: Header, columns: Sequence[Column], ledger: Ledger, role: str, rules: Sequence[pl.Expr]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    by_source = {column.source: column for column in columns}
    declared: dict[str, pl.DataType] = {
        name: FAST[by_source[name].kind] if name in by_source else pl.String() for name in header.names
    }
    texts: dict[str, pl.DataType] = dict.fromkeys(header.names, pl.String())
    for schema in (declared, texts):
        frame = _read_whole(path, header, schema)
        if frame is None:
            continue
        trial = Ledger(ledger.options)
        good, bad = judge(frame.select(list(by_source)), columns, trial, role, rules)
        if not bad.height:
            ledger.notes.extend(trial.notes)
            return _inferred(good, columns), bad
    frame, ragged = read_lines(path, header)
    good, misread = judge(frame.select(list(by_source)), columns, ledger, role, rules)
    at = misread["line"]
    misread = misread.with_columns(line=frame["line number"].gather(at), raw=frame["raw line"].gather(at))
    return _inferred(good, columns), pl.concat([ragged, misread]).sort("line")


def _inferred(good: pl.DataFrame, columns: Sequence[Column]) -> pl.DataFrame:
    """CSV knows no dtypes: columns that may hold either become integers where all their text is."""
    return good.with_columns(as_integers_where_plain(good[column.name]) for column in columns if column.kind == "value")


def _read_whole(path: Path, header: Header, schema: dict[str, pl.DataType]) -> pl.DataFrame | None:
    """The file through Polars' own reader, or None where its result could hide a fault."""
    try:
        frame = pl.read_csv(
            path,
            schema=schema,
            separator=header.separator,
            has_header=header.written,
            quote_char='"' if header.written else None,
        )
    except MISREAD:
        return None
    texts = [name for name in frame.columns if frame.schema[name] == pl.String]
    for name in texts:
        # A stray quote swallows lines up to the next one; a NUL byte ends the text for other programs.
        if frame[name].str.contains("[\0\n\r]").any():
            return None
    # A short row reads as nulls at its end, without a word.
    if frame.height and frame[:, -1].has_nulls() and not header.all_lines_full(path):
        return None
    return frame


def _read_parquet(path: Path, columns: list[str]) -> pl.DataFrame:
    try:
        return pl.read_parquet(path, columns=columns)
    except MISREAD as error:
        raise _not_parquet(path, error) from error


def _not_parquet(path: Path, error: BaseException) -> DataError:
    first = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
    size = path.stat().st_size
    return DataError(f"a whole Parquet file expected at '{path}', {size} bytes found ({first}); fetch it again")


def _joined(frame: pl.DataFrame) -> pl.Series:
    """Rows of a typed frame as one text each, for the quarantine."""
    flat = [name for name, dtype in frame.schema.items() if not dtype.is_nested()]
    if not flat:
        return pl.Series("raw", [""] * frame.height)
    return frame.select(raw=pl.concat_str(pl.col(flat).cast(pl.String).fill_null(""), separator=","))["raw"]


def column_names(path: Path) -> list[str]:
    """Column names of a CSV or Parquet file, without reading its rows.

    Raises:
        DataError: The file is damaged or empty.
    """
    if path.suffix.lower() not in PARQUET:
        return list(read_header(path).names)
    try:
        return list(pl.read_parquet_schema(path))
    except MISREAD as error:
        raise _not_parquet(path, error) from error
