"""Vectors of articles compared exactly: whole numbers, so that no sum depends on how it is added up.

A matrix product of floats gives other bits for one row than for many; of whole numbers below 2 ** 53 it does not.
"""

import numpy as np
import numpy.typing as npt

from features.articles import UNIT
from features.windows import Ints
from newsrec.recall.dense import Floats, largest, rows_at_once


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
        products = queries[start : start + per_block] @ vectors.T  # (block, n_vectors)
        query, vector = largest(products, count)
        found.append((query + start, vector, products[query, vector]))
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    query, vector, product = (np.concatenate(part) for part in zip(*found, strict=True))
    return query, vector, product
