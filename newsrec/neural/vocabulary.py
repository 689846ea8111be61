"""Codes of the ids that a network embeds: 0 is everything unknown, then the known ids in ascending order."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import polars as pl

from features.ids import codes_of
from newsrec.tensors import NO_INTEGER, NO_STRING, Array, Lists

MIN_COUNT = 5
"""An id seen less often stays unknown: its embedding would know little, and the unknown one has to learn from some."""


@dataclass(frozen=True)
class IdVocabulary:
    """The known ids of each field."""

    known: Mapping[str, Array]
    """Field -> ids in ascending order, int64 or text; the code of an id is its place plus one."""

    @classmethod
    def of(cls, lists: Lists, min_count: int = MIN_COUNT) -> Self:
        """Learn the ids of training lists, candidates and histories together.

        Args:
            lists: With raw ids.
            min_count: Rows and clicks with the id at least, >= 1.
        """
        return cls({name: _known(lists.ids[name], lists.history_ids[name], min_count) for name in lists.ids})

    @property
    def sizes(self) -> tuple[int, ...]:
        """Codes per field, the unknown one included."""
        return tuple(len(ids) + 1 for ids in self.known.values())

    def codes(self, field: str, ids: Array) -> Array:
        """Code of each id, shape kept, int64."""
        flat = pl.Series(ids.ravel(), dtype=pl.Int64 if ids.dtype.kind == "i" else pl.String)
        known = pl.Series(self.known[field], dtype=flat.dtype)
        return (codes_of(flat, known) + 1).reshape(ids.shape)

    def coded(self, lists: Lists) -> Lists:
        """The lists with codes in place of ids."""
        return replace(
            lists,
            ids={name: self.codes(name, ids) for name, ids in lists.ids.items()},
            history_ids={name: self.codes(name, ids) for name, ids in lists.history_ids.items()},
            coded=True,
        )


def _known(ids: Array, of_history: Array, min_count: int) -> Array:
    seen = pl.Series("id", np.concatenate([ids, of_history]))
    counted = seen.value_counts(name="n").filter(pl.col("n") >= min_count)["id"].sort()
    missing = NO_INTEGER if counted.dtype.is_integer() else NO_STRING
    return counted.filter(counted != missing).to_numpy()
