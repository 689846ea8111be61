"""Format `table`: an own click log as CSV or Parquet, by canonical or mapped column names; and logs from frames."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import polars as pl

from newsrec.data.canonical import Parts, make_log
from newsrec.data.files import TABLES, choose, column_names, judge, read_rows
from newsrec.data.ledger import Ledger
from newsrec.data.log import Log, ReadOptions
from newsrec.data.schema import KNOWN, LENIENT, NEEDED, OWN_KINDS, Column, Kind
from newsrec.errors import DataError
from newsrec.frames import to_polars

ROLES: Final = ("clicks", "articles", "impressions")


def read_table(path: Path, options: ReadOptions) -> Log:
    """Read an own log.

    Args:
        path: A folder with `clicks.*` and / or `impressions.*` and optionally `articles.*` (CSV, TSV or Parquet), or
            one file of clicks or impressions.
        options: `columns` maps canonical names to the files' own; `articles.item_id` as a key speaks of that file only.
            Mapped names that are not canonical are kept as further columns. Ids are text unless `integer_ids`.

    Raises:
        DataError: No such files, columns missing or mapped to nothing, or too many bad rows.
    """
    ledger = Ledger(options)
    files = _find(path, options.columns)
    found = {role: column_names(file) for role, file in files.items()}
    _check_mapping(options.columns, found)
    frames = {role: read_rows(file, role, _columns(role, found[role], options), ledger) for role, file in files.items()}
    parts = Parts(frames.get("clicks"), frames.get("articles"), frames.get("impressions"))
    return make_log("table", parts, ledger)


def log_from_frames(
    clicks: object,
    articles: object | None = None,
    impressions: object | None = None,
    format: str = "table",
    *,
    options: ReadOptions | None = None,
) -> Log:
    """Make a log of frames in memory.

    Args:
        clicks: Polars or pandas frame with `user_id, item_id, clicked_at` and any of the optional columns. Ids stay
            what they are, text or integers; times are datetimes, ISO text or epoch numbers; naive ones are UTC.
        articles: The same for articles.
        impressions: The same for impressions.
        format: The name that the log bears.
        options: `quarantine`, `max_bad_share` and `now` apply.

    Returns:
        The log, with Polars frames.

    Raises:
        DataError: Columns are missing or of a wrong dtype, or too many rows are bad.
    """
    ledger = Ledger(options or ReadOptions())
    parts = Parts(
        clicks=_from_frame(clicks, "clicks", ledger),
        articles=None if articles is None else _from_frame(articles, "articles", ledger),
        impressions=None if impressions is None else _from_frame(impressions, "impressions", ledger),
    )
    return make_log(format, parts, ledger)


def _from_frame(frame: object, role: str, ledger: Ledger) -> pl.DataFrame:
    polars = to_polars(frame, role)
    further = [name for name in polars.columns if name not in KNOWN[role]]
    columns = [_column(role, name, name, OWN_KINDS[name]) for name in KNOWN[role]]
    columns += [_column(role, name, name, _kind_of(polars.schema[name])) for name in further]
    present = choose(polars.columns, columns, f"the {role} frame", role, ledger)
    good, bad = judge(polars, present, ledger, role)
    ledger.count(role, polars.height)
    ledger.quarantine(role, Path(f"{role} frame"), bad)
    return good


def _column(role: str, name: str, source: str, kind: Kind) -> Column:
    return Column(name, source, kind, needed=name in NEEDED[role], lenient=role == "articles" and name in LENIENT)


def _kind_of(dtype: pl.DataType) -> Kind:
    if dtype.is_float():
        return "number"
    if dtype == pl.Boolean:
        return "flag"
    if isinstance(dtype, pl.Datetime | pl.Date):
        return "time"
    return "vector" if dtype.is_nested() else "value"


def _columns(role: str, found: list[str], options: ReadOptions) -> list[Column]:
    mapped = _mapped(role, options.columns)
    ids: Kind = "integer" if options.integer_ids else "text"
    further = [name for name in mapped if name not in OWN_KINDS and mapped[name] in found]
    columns = []
    for name in (*KNOWN[role], *further):
        kind = OWN_KINDS.get(name, "value")
        source = mapped[name] if mapped.get(name) in found else name
        columns.append(_column(role, name, source, ids if kind == "id" else kind))
    return columns


def _mapped(role: str, columns: Mapping[str, str]) -> dict[str, str]:
    """The mapping as one file sees it: `articles.item_id` speaks of articles and beats `item_id`."""
    general = {name: source for name, source in columns.items() if "." not in name}
    own = {name.removeprefix(f"{role}."): source for name, source in columns.items() if name.startswith(f"{role}.")}
    return general | own


def _find(path: Path, columns: Mapping[str, str]) -> dict[str, Path]:
    if path.is_file():
        clicked = _mapped("impressions", columns).get("clicked", "clicked")
        return {"impressions" if clicked in column_names(path) else "clicks": path}
    files: dict[str, Path] = {}
    for role in ROLES:
        there = sorted(file for file in path.glob(f"{role}.*") if file.suffix.lower() in TABLES)
        if len(there) > 1:
            names = [file.name for file in there]
            raise DataError(f"table: one file of {role} expected in '{path}', {names} found; keep one of them")
        if there:
            files[role] = there[0]
    if not {"clicks", "impressions"} & set(files):
        seen = sorted(file.name for file in path.iterdir())[:10] if path.is_dir() else "no such folder"
        raise DataError(
            f"table: clicks.* or impressions.* ({', '.join(TABLES)}) expected in '{path}', {seen} found; "
            "rename the file, or give its own path"
        )
    return files


def _check_mapping(columns: Mapping[str, str], found: Mapping[str, list[str]]) -> None:
    everywhere = {name for names in found.values() for name in names}
    lost = sorted(f"{name}={source}" for name, source in columns.items() if source not in everywhere)
    if lost:
        raise DataError(
            f"table: mapped columns expected in the files, not found: {lost}; found {sorted(everywhere)[:20]}; "
            "mend the mapping"
        )
