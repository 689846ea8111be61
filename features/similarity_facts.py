"""Facts that embeddings tell: how close the candidate is to what the user read last."""

from typing import Final

import numpy as np
import numpy.typing as npt

from features.articles import UNIT
from features.facts import FactGroup, Facts, Rows
from features.windows import NO_KEY, Ints

LAST_CLICKS: Final = 5
"""Clicks that the candidate is compared with."""
PART: Final = 200_000
"""Candidates compared at once; bounds the memory."""


def _cosines(rows: Rows, wanted: tuple[str, ...]) -> Facts:
    """Cosine with the last click, the largest and the one with the mean of the last clicks; NaN where unknown."""
    table = rows.store.articles_by_code.embedding
    facts = {name: np.full(len(rows.item), np.nan, np.float32) for name in COSINES}
    if table is None or not len(rows.item):
        return facts
    clicked = np.stack([rows.clicked(age) for age in range(LAST_CLICKS)])  # (last clicks, requests)
    last = _vectors(table, clicked)  # (last clicks, requests, dim)
    unknown = np.logical_not(last.any(axis=2))  # (last clicks, requests)
    mean = last.sum(axis=0)  # (requests, dim)
    length = np.sqrt((mean**2).sum(axis=1).astype(np.float64))
    for start in range(0, len(rows.item), PART):
        part = slice(start, start + PART)
        own, row = _vectors(table, rows.item[part]), rows.row[part]  # (part, dim)
        known = own.any(axis=1)
        each = np.stack([_dot(own, one[row]) for one in last]) / UNIT**2  # (last clicks, part)
        each[unknown[:, row] | ~known] = np.nan
        facts["cosine_last"][part] = each[0]
        facts["cosine_max"][part] = np.fmax.reduce(each)
        there = known & (length[row] > 0)
        dots = _dot(own, mean[row])
        facts["cosine_mean"][part][there] = dots[there] / (UNIT * length[row][there])
    return facts


def _vectors(table: npt.NDArray[np.int16], item: Ints) -> Ints:
    vectors = table[np.maximum(item, 0)].astype(np.int64)
    vectors[item == NO_KEY] = 0
    return vectors


def _dot(first: Ints, second: Ints) -> Ints:
    """Row by row; of whole numbers, so that a batch gives the same bits as a single row."""
    dots: Ints = np.einsum("ij,ij->i", first, second)
    return dots


COSINES: Final = ("cosine_last", "cosine_max", "cosine_mean")

SIMILARITY_FACTS: Final = (FactGroup(COSINES, _cosines, needs=("articles.embedding",)),)
"""Facts of logs whose articles have embeddings."""
