"""Format `globo`: the Globo.com click log, as its CSV folder or as Parquet.

Session columns are left out: `session_size` counts clicks that had not happened yet.
"""

from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from newsrec.data.canonical import Parts, make_log
from newsrec.data.files import read_rows
from newsrec.data.ledger import Ledger
from newsrec.data.log import Log, ReadOptions
from newsrec.data.schema import GLOBO_ARTICLES, TIANCHI_CLICKS
from newsrec.errors import DataError

CLICKS: Final = ("clicks.parquet", "clicks/clicks_hour_*.csv", "clicks_hour_*.csv", "clicks_sample.csv")
"""The first that is there is read: the others hold the same clicks."""
ARTICLES: Final = ("articles.parquet", "articles_metadata.csv")
MATRIX: Final = "articles_embeddings.npy"
PICKLE: Final = "articles_embeddings.pickle"
SESSION: Final = ("session_id", "session_start", "session_size")


def read_globo(path: Path, options: ReadOptions) -> Log:
    """Read the Globo folder, or one click file alone.

    Args:
        path: A folder with `clicks/clicks_hour_*.csv` or `clicks.parquet`, `articles_metadata.csv` or
            `articles.parquet`, and optionally `articles_embeddings.npy` (row = article id); or one click file.
        options: `columns` and `integer_ids` do not apply.

    Raises:
        DataError: No clicks there, columns missing, too many bad rows, or embeddings as a pickle.
    """
    ledger = Ledger(options)
    logs = [path] if path.is_file() else _first_there(path, CLICKS)
    if not logs:
        raise DataError(f"globo: one of {list(CLICKS)} expected in '{path}', none found; check --data or --format")
    frames = [read_rows(log, "clicks", TIANCHI_CLICKS, ledger, known=SESSION) for log in logs]
    parts = Parts(clicks=pl.concat(frames, how="diagonal"))
    metadata = _first_there(path, ARTICLES) if path.is_dir() else []
    if metadata:
        parts.articles = read_rows(metadata[0], "articles", GLOBO_ARTICLES, ledger)
        parts.articles = _with_embeddings(parts.articles, path, ledger)
    return make_log("globo", parts, ledger)


def _first_there(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    return next((found for pattern in patterns if (found := sorted(folder.glob(pattern)))), [])


def _with_embeddings(articles: pl.DataFrame, folder: Path, ledger: Ledger) -> pl.DataFrame:
    """Articles with row `article_id` of the matrix as `embedding`; null beyond its end and where it is not finite."""
    path = folder / MATRIX
    if not path.is_file():
        _refuse_pickle(folder)
        return articles
    matrix = _matrix(path)  # (highest article id + 1, dim)
    row = articles["item_id"].to_numpy()
    inside = (row >= 0) & (row < len(matrix))
    vectors = np.asarray(matrix[np.where(inside, row, 0)], np.float32)  # (articles, dim)
    known = pl.Series(inside & np.isfinite(vectors).all(axis=1))
    outside = int((~inside).sum())
    if outside:
        ledger.note(f"{outside} articles lie beyond the {len(matrix)} rows of {MATRIX} and have no embedding")
    embedding = pl.Series("embedding", vectors, dtype=pl.Array(pl.Float32, vectors.shape[1]))
    return articles.with_columns(pl.when(known).then(embedding).alias("embedding"))


def _matrix(path: Path) -> np.ndarray:
    try:
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        first = str(error).splitlines()[0][:120]
        raise DataError(
            f"a whole .npy file of numbers expected at '{path}', another found ({first}); make it again"
        ) from error
    if not isinstance(matrix, np.ndarray) or matrix.ndim != 2 or matrix.dtype.kind != "f" or not len(matrix):
        shape = getattr(matrix, "shape", None)
        raise DataError(
            f"a matrix of floats (article id, dim) expected in '{path}', shape {shape} found; make it again"
        )
    return matrix


def _refuse_pickle(folder: Path) -> None:
    if (folder / PICKLE).exists():
        line = (
            "import pickle, numpy; "
            f"numpy.save('{MATRIX}', numpy.asarray(pickle.load(open('{PICKLE}', 'rb')), dtype='float32'))"
        )
        raise DataError(
            f"globo: embeddings as '{MATRIX}' expected, '{PICKLE}' found in '{folder}'; a pickle can run "
            "any program and is never opened: move it away or, if you trust it, convert it there with: "
            f'python -c "{line}"'
        )
