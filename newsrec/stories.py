"""Which articles tell the same story: duplicates that only one place of a list should go to."""

from typing import Final

import numpy as np
import numpy.typing as npt

from features.articles import UNIT
from features.events import EventStore
from features.windows import Ints

SAME_STORY: Final = 0.9
"""Cosine of two embeddings from which on they are of one story, 0..1."""
ROWS: Final = 100_000
"""Pairs compared at once: embeddings of more would not fit."""


def same_story(store: EventStore, first: Ints, second: Ints) -> np.ndarray:
    """Whether two articles tell the same story: the same article, the same title, or embeddings that nearly agree.

    Args:
        store: The log with what is known of its articles.
        first: (n_pairs,) item codes, -1 where unknown.
        second: The same of the other side.

    Returns:
        (n_pairs,) Boolean. Nothing is known of an article without title and embedding: False, unless it is the same.
    """
    found: npt.NDArray[np.bool_] = (first == second) & (first >= 0)
    titles = store.article_column("title")
    if titles is not None:
        one, two = (titles.gather(np.maximum(code, 0)).str.to_lowercase().str.strip_chars() for code in (first, second))
        same = ((one == two) & (one != "")).fill_null(False).to_numpy()
        found |= same & (first >= 0) & (second >= 0)
    if store.articles_by_code.embedding is not None:
        found |= similarity(store, first, second) >= SAME_STORY
    return found


def similarity(store: EventStore, first: Ints, second: Ints) -> np.ndarray:
    """Cosine of the embeddings of each pair, (n_pairs,) Float32; 0 where one is unknown."""
    table = store.articles_by_code.embedding
    cosine = np.zeros(len(first), np.float32)
    if table is None:
        return cosine
    for start in range(0, len(first), ROWS):
        part = slice(start, start + ROWS)
        one, two = (table[codes[part]].astype(np.float32) for codes in (first, second))  # (pairs, dim)
        cosine[part] = np.einsum("ij,ij->i", one, two) / UNIT**2
    return np.where((first < 0) | (second < 0), np.float32(0), cosine)
