"""Writes a log as the files of a format; `read_log` of them gives the same log again."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from newsrec.data.globo import MATRIX
from newsrec.data.log import Log
from newsrec.data.schema import GLOBO_ARTICLES, TIANCHI_ARTICLES, TIANCHI_CLICKS, Column
from newsrec.data.tianchi import ARTICLES, EMBEDDINGS, TRAIN
from newsrec.data.write_slates import lost_in_ebnerd, lost_in_mind, write_ebnerd, write_mind
from newsrec.errors import DataError, UsageError

TEST: Final = "testA_click_log.csv"
SPARSEST: Final = 100
"""Rows of the embedding matrix, which is indexed by article id, for each article: more is refused."""


def write_log(log: Log, path: Path | str, format: str, *, lossy: bool = False) -> Path:
    """Write a log.

    Args:
        log: The log.
        path: The folder to write into; made if need be. Files of the same names are replaced.
        format: A key of `WRITERS`.
        lossy: Leave out, instead of refusing, what the format cannot hold.

    Returns:
        The folder.

    Raises:
        UsageError: An unknown format.
        DataError: The format cannot hold ids that are text, lacks impressions that it needs, or has no place for
            columns or frames that the log has.
    """
    if format not in WRITERS:
        raise UsageError(f"format: one of {sorted(WRITERS)} expected, {format!r} found; pass another")
    lost = _lost(log, format)
    if lost and not lossy:
        raise DataError(
            f"{format}: a log that it can hold expected, more found: {lost}; write 'table' or allow the loss"
        )
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    WRITERS[format](log, folder)
    return folder


def write_tianchi(log: Log, folder: Path) -> None:
    """Write the competition's CSV files; the clicks of held-out users go into the test log."""
    clicks = _renamed(log.clicks, TIANCHI_CLICKS)
    held_out = pl.Series([], dtype=pl.Int64) if log.held_out_users is None else log.held_out_users["user_id"]
    is_test = pl.col("user_id").is_in(held_out.implode())
    _csv(clicks.filter(~is_test), folder / TRAIN)
    if log.held_out_users is not None:
        _csv(clicks.filter(is_test), folder / TEST)
    if log.articles.height:
        _csv(_renamed(log.articles, TIANCHI_ARTICLES), folder / ARTICLES)
    if "embedding" in log.articles.columns:
        known = log.articles.select(article_id="item_id", embedding="embedding").drop_nulls()
        names = [f"emb_{place}" for place in range(_width(log.articles))]
        vectors = pl.DataFrame(known["embedding"].to_numpy(), schema=names, orient="row")
        _csv(known.select("article_id").hstack(vectors), folder / EMBEDDINGS)


def write_globo(log: Log, folder: Path) -> None:
    """Write `clicks.parquet`, `articles.parquet` and, for embeddings, the matrix indexed by article id."""
    _renamed(log.clicks, TIANCHI_CLICKS).write_parquet(folder / "clicks.parquet")
    if log.articles.height:
        _renamed(log.articles, GLOBO_ARTICLES).write_parquet(folder / "articles.parquet")
    if "embedding" in log.articles.columns:
        known = log.articles.select("item_id", "embedding").drop_nulls()
        row = known["item_id"].to_numpy()
        highest = int(row.max()) + 1 if len(row) else 0
        if len(row) and (int(row.min()) < 0 or highest > SPARSEST * len(row)):
            found = f"ids up to {highest - 1} for {len(row)} articles"
            raise DataError(f"globo: article ids from 0 up, without wide gaps, expected, {found} found; write 'table'")
        matrix = np.full((highest, _width(log.articles)), np.nan, np.float32)  # (article id, dim)
        matrix[row] = known["embedding"].to_numpy()
        np.save(folder / MATRIX, matrix)


def write_table(log: Log, folder: Path) -> None:
    """Write each frame as Parquet under canonical names."""
    log.clicks.write_parquet(folder / "clicks.parquet")
    if log.articles.height:
        log.articles.write_parquet(folder / "articles.parquet")
    if log.impressions is not None:
        log.impressions.write_parquet(folder / "impressions.parquet")


WRITERS: Final[dict[str, Callable[[Log, Path], None]]] = {
    "tianchi": write_tianchi,
    "globo": write_globo,
    "ebnerd": write_ebnerd,
    "mind": write_mind,
    "table": write_table,
}
"""Format name -> writer."""

_HOLDS: Final[dict[str, tuple[tuple[Column, ...], tuple[Column, ...], bool]]] = {
    "tianchi": (TIANCHI_CLICKS, TIANCHI_ARTICLES, True),
    "globo": (TIANCHI_CLICKS, GLOBO_ARTICLES, False),
}
"""Click columns, article columns, and whether held-out users have a place."""
_LOST: Final[dict[str, Callable[[Log], list[str]]]] = {"ebnerd": lost_in_ebnerd, "mind": lost_in_mind}
"""What formats with impressions have no place for."""


def _lost(log: Log, format: str) -> list[str]:
    """What the format has no place for. Text ids in a format of integers are refused outright."""
    if format in _LOST:
        return _LOST[format](log)
    if format not in _HOLDS:
        return [] if log.held_out_users is None else ["held_out_users"]
    clicks, articles, holds_users = _HOLDS[format]
    if not (log.clicks.schema["user_id"].is_integer() and log.clicks.schema["item_id"].is_integer()):
        raise DataError(f"{format}: ids that are whole numbers expected, text found; write 'table'")
    lost = _unplaced("clicks", log.clicks, clicks)
    lost += _unplaced("articles", log.articles.drop("embedding", strict=False), articles)
    lost += ["impressions"] if log.impressions is not None else []
    return lost + (["held_out_users"] if log.held_out_users is not None and not holds_users else [])


def _unplaced(role: str, frame: pl.DataFrame, columns: tuple[Column, ...]) -> list[str]:
    fits = {column.name for column in columns if column.name in frame.columns and _fits(frame.schema[column.name])}
    return [f"{role}.{name}" for name in frame.columns if name not in fits]


def _fits(dtype: pl.DataType) -> bool:
    return dtype.is_integer() or isinstance(dtype, pl.Datetime)


def _renamed(frame: pl.DataFrame, columns: tuple[Column, ...]) -> pl.DataFrame:
    """Source names, times as epoch milliseconds."""
    there = [c for c in columns if c.name in frame.columns and _fits(frame.schema[c.name])]
    out = {c.source: frame[c.name].dt.epoch("ms") if c.kind in ("time", "past") else frame[c.name] for c in there}
    return pl.DataFrame(out)


def _width(articles: pl.DataFrame) -> int:
    dtype = articles.schema["embedding"]
    return int(dtype.size) if isinstance(dtype, pl.Array) else 0


def _csv(frame: pl.DataFrame, path: Path) -> None:
    frame.write_csv(path)
