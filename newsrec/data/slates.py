"""What the impression logs share: where their files are, and slates as rows.

A slate comes as one row with a list; here it becomes one row per shown item, and what was clicked is looked up in it.
Called by `ebnerd` and `mind`; all in whole columns.
"""

from pathlib import Path
from typing import Final

import polars as pl

from newsrec.data.ledger import Ledger
from newsrec.data.schema import SLATE_ORDER
from newsrec.errors import DataError

LONGEST: Final = 10_000
"""Items in a slate at most: LightGBM ranks no longer list."""
ENTRY: Final = ("request_id", "item_id")


def find_folder(path: Path, file: str, format: str) -> Path:
    """The folder that holds a file: the path itself or the one folder in it that does.

    Args:
        path: What `--data` names; may be the file itself.
        file: Its name.
        format: For the message.

    Raises:
        DataError: No folder holds the file, or several do.
    """
    if path.is_file() and path.name == file:
        return path.parent
    parts = [path] if (path / file).is_file() else sorted(found.parent for found in path.glob(f"*/{file}"))
    if not parts:
        raise DataError(f"{format}: '{file}' expected in '{path}' or in a folder there, none found; check --data")
    if len(parts) > 1:
        names = [part.name for part in parts]
        raise DataError(f"{format}: one part of the log expected in '{path}', {names} found; name one, as '{parts[0]}'")
    return parts[0]


def longest_rule(length: pl.Expr, source: str) -> pl.Expr:
    """The reason why a row with a list of more than `LONGEST` items is bad, else null."""
    return pl.when(length > LONGEST).then(
        pl.format("'" + source + f"' holds {{}} items, at most {LONGEST} expected", length)
    )


def shown_items(rows: pl.DataFrame, order: str, ledger: Ledger) -> pl.DataFrame:
    """One row per shown item.

    Args:
        rows: One row per request, `item_id` being its slate: a list, null or empty where nothing was shown.
        order: Column that receives the place in the slate, from 1 (Int32).
        ledger: Receives a note on empty slates, which are dropped.

    Returns:
        All other columns repeated, shape (n_shown, n_columns + 1). Order kept, repeated items too.
    """
    length = pl.col("item_id").list.len()
    full = rows.filter(length > 0)
    if full.height < rows.height:
        ledger.note(f"impressions: {rows.height - full.height} of {rows.height} slates are empty and were dropped")
    places = pl.int_ranges(1, length.cast(pl.Int64) + 1, dtype=pl.Int32)
    return full.with_columns(places.alias(order)).explode("item_id", order)


def clicks_inside(chosen: pl.DataFrame, shown: pl.DataFrame, ledger: Ledger) -> pl.DataFrame:
    """The clicks on items of their own slate; a note counts the others.

    Args:
        chosen: `request_id, item_id` and more, one row per click.
        shown: `request_id, item_id`, one row per shown item.
        ledger: Receives the note.

    Returns:
        Rows of `chosen`, order kept.
    """
    inside = chosen.join(shown.select(ENTRY).unique(), on=ENTRY, how="semi", maintain_order="left")
    outside = chosen.height - inside.height
    if outside:
        ledger.note(f"clicks: {outside} clicks are on items outside their slate and were dropped")
    return inside


def flagged(shown: pl.DataFrame, clicks: pl.DataFrame) -> pl.DataFrame:
    """Shown items with `clicked`. Order kept."""
    chosen = clicks.select(ENTRY).unique().with_columns(clicked=pl.lit(True))
    joined = shown.join(chosen, on=ENTRY, how="left", maintain_order="left")
    return joined.with_columns(pl.col("clicked").fill_null(False))


def slate_order(impressions: pl.DataFrame) -> str:
    """The column that gives back the order of a slate's items: for submissions, and for writing a log."""
    return next((name for name in SLATE_ORDER if name in impressions.columns), "item_id")
