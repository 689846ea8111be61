"""Blocks of scores, one row per request and one column per article: what was read or is not out is struck out, the best
are kept. For channels that score every article of a short list for each request, or a few of a long one.
"""

from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.sparse import csr_matrix

from features.windows import Ints, places_in
from newsrec.recall.base import RecallRequests, proposable, top_rows
from newsrec.recall.windows import entries

Floats = npt.NDArray[np.float64]
Numbers = TypeVar("Numbers", bound=np.floating[Any])

CELLS: Final = 4_000_000
"""Scores computed at once; bounds the memory."""
ALONE: Final = 2**18
"""OpenBLAS multiplies with one thread up to so many multiplications."""
ROWS: Final = 16
"""Rows of a piece at least where that many fit: each piece lays out its columns anew."""


def product(a: npt.NDArray[Numbers], b: npt.NDArray[Numbers]) -> npt.NDArray[Numbers]:
    """The product of (n, inner) and (inner, width), (n, width), in pieces that BLAS does not share out among threads.

    So its bits do not depend on how many there are, and it neither waits for them where other work has the cores nor
    leaves them waiting there: OpenBLAS's threads keep theirs busy for a while after each product.
    """
    inner, width = b.shape
    columns = max(1, ALONE // max(1, inner * ROWS))
    rows = max(1, ALONE // max(1, inner * min(width, columns)))
    pieces = len(a) // rows
    whole = pieces * rows
    result = np.empty((len(a), width), a.dtype)
    for start in range(0, width, columns):
        some, out = b[:, start : start + columns], result[:, start : start + columns]
        np.matmul(a[:whole].reshape(pieces, rows, inner), some, out=out[:whole].reshape(pieces, rows, some.shape[1]))
        np.matmul(a[whole:], some, out=out[whole:])
    return result


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


def best_stored(scores: csr_matrix, rows: Ints, requests: RecallRequests, depth: int) -> pl.DataFrame:
    """As `best_of`, of scores that few articles have.

    Args:
        scores: Shape (n_rows, n_items), a column for each article of the log, by code; what is not stored, or not above
            0, is not proposed.
        rows: The request of each row.
        requests: All requests.
        depth: Articles per request at most.

    Returns:
        `row, item, score, rank` as `newsrec.recall.base.Channel.recall` promises.
    """
    row, item, score = entries(scores)
    row = rows[row]
    may = proposable(row, item, requests) & (score > 0)
    found = {"row": row[may].astype(np.uint32), "item": item[may], "score": score[may]}
    return top_rows(pl.DataFrame(found), requests, depth)


def largest(scores: Floats, count: int) -> tuple[Ints, Ints]:
    """`(row, column)` of the `count` largest of each row, in any order, and of all that tie with the last of them."""
    if not scores.size:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    # The smallest of the opposites: among many zeros it takes a fifth of the time that the largest do.
    last = min(count, scores.shape[1]) - 1
    border = -np.partition(-scores, last, axis=1)[:, last, None]
    row, column = np.nonzero(scores >= border)
    return row, column
