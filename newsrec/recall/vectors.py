"""Vectors of articles compared exactly: whole numbers, so that no sum depends on how it is added up.

A matrix product of floats gives other bits for one row than for many; of whole numbers below 2 ** 53 it does not. Few
articles are compared one by one; of many, usearch (HNSW, Malkov & Yashunin 2018) finds those that are compared.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from features.articles import UNIT
from features.windows import Ints
from newsrec.recall.dense import Floats, largest, product, rows_at_once

EXACT: Final = 20_000
"""So many articles are compared one by one; of more, an index finds the nearest."""


def whole_units(vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.int16]:
    """Rows at length `features.articles.UNIT` in whole numbers; a row of zeros stays one. Shape kept."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
    whole: npt.NDArray[np.int16] = np.rint(unit * UNIT).astype(np.int16)
    return whole


def nearest(queries: Floats, vectors: Floats, count: int) -> tuple[Ints, Ints, Floats]:
    """The best of all products of queries (n_queries, dim) and vectors (n_vectors, dim), both whole numbers.

    Returns:
        `(query, vector, product)` of shape (n_found,), sorted by query: the `count` largest of each, in any order, and
        all that tie with the last of them, so that ties can be broken by whoever asks.
    """
    found: list[tuple[Ints, Ints, Floats]] = []
    per_block = rows_at_once(len(vectors))
    for start in range(0, len(queries), per_block):
        block = product(queries[start : start + per_block], vectors.T)  # (block, n_vectors)
        query, vector = largest(block, count)
        found.append((query + start, vector, block[query, vector]))
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    query, vector, products = (np.concatenate(part) for part in zip(*found, strict=True))
    return query, vector, products


class Compared:
    """Some articles, compared one by one or by an index.

    Args:
        item: Ascending codes.
        embedding: Their whole-number vectors.
        order: Rank of each by its id: an index depends on the order in which it was made.
    """

    def __init__(self, item: Ints, embedding: npt.NDArray[np.int16], order: Ints) -> None:
        self.item = item
        self.vectors: Floats = embedding.astype(np.float64)  # (n_items, dim)
        self._index = _index(self.vectors, np.argsort(order)) if len(item) > EXACT else None

    def products(self, queries: Floats, count: int) -> Floats:
        """Products, shape (n_queries, n_items); of an index, with the `count` that it finds, and 0 elsewhere."""
        if self._index is None:
            return product(queries, self.vectors.T)
        count = min(count, len(self.item))
        keys = np.asarray(self._index.search(queries.astype(np.float32), count, threads=1).keys)
        vector = keys.reshape(len(queries), count).astype(np.int64)
        found = np.zeros((len(queries), len(self.item)))
        exact = np.einsum("id,ijd->ij", queries, self.vectors[vector])
        np.put_along_axis(found, vector, exact, axis=1)
        return found


def _index(vectors: Floats, order: Ints) -> Any:
    """A usearch index of the vectors; None where the package is not there: everything is then compared exactly."""
    try:
        from usearch.index import Index
    except ImportError:
        return None
    index = Index(ndim=vectors.shape[1], metric="cos", dtype="f32")
    # One thread: several would lay the graph out in the order in which they come by.
    index.add(order, vectors[order].astype(np.float32), threads=1)
    return index
