"""Blocks of scores, one row per request and one column per article: what was read or is not out is struck out, the best
are kept. For channels that score every article of a short list for each request.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.sparse import csr_matrix

from features.windows import Ints, places_in
from newsrec.recall.base import RecallRequests, top_rows

Floats = npt.NDArray[np.float64]

CELLS: Final = 4_000_000
"""Scores computed at once; bounds the memory."""


def rows_at_once(columns: int) -> int:
    """Rows of a block of so many columns."""
    return max(1, CELLS // max(columns, 1))


def read_matrix(requests: RecallRequests) -> csr_matrix:
    """What a request may not be shown again: entries where it was clicked before, shape (n_requests, n_items)."""
    shape = len(requests.at), requests.store.n_items
    borders = np.searchsorted(requests.read, np.arange(shape[0] + 1) * shape[1])
    return csr_matrix((np.ones(len(requests.read), np.int8), requests.read % shape[1], borders), shape=shape)


def best_of(
    scores: Floats, rows: Ints, items: Ints, requests: RecallRequests, read: csr_matrix, depth: int
) -> pl.DataFrame:
    """The best of each row.

    Args:
        scores: Shape (n_rows, n_columns), changed in place; what is not above 0 is not proposed.
        rows: The request of each row.
        items: The article of each column, ascending codes.
        requests: All requests.
        read: Of `read_matrix`.
        depth: Articles per request at most.

    Returns:
        `row, item, score, rank` as `newsrec.recall.base.Channel.recall` promises.
    """
    out = requests.store.exists_from[items][None, :] < requests.at[rows][:, None]
    scores[~out] = 0.0
    own = read[rows]
    row, item = np.repeat(np.arange(len(rows)), np.diff(own.indptr)), own.indices
    place = places_in(items, item)
    scores[row[place >= 0], place[place >= 0]] = 0.0
    row, column = largest(scores, depth)
    found = {"row": rows[row].astype(np.uint32), "item": items[column], "score": scores[row, column]}
    return top_rows(pl.DataFrame(found).filter(pl.col("score") > 0), requests, depth)


def largest(scores: Floats, count: int) -> tuple[Ints, Ints]:
    """`(row, column)` of the `count` largest of each row, in any order, and of all that tie with the last of them."""
    if not scores.size:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    last = max(scores.shape[1] - count, 0)
    border = np.partition(scores, last, axis=1)[:, last, None]
    row, column = np.nonzero(scores >= border)
    return row, column
