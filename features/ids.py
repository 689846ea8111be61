"""Ids of the source and their dense codes: places in a growing list. In memory only; nothing that is kept uses them."""

from itertools import repeat
from typing import Self

import numpy as np
import polars as pl

from features.windows import NO_KEY, Ints

FEW = 20
"""Ids are looked up one by one where there are so many times more known ones: a single request pays for no join."""
MANY_CHUNKS = 20
"""So many pieces of the list are made one again."""


def codes_of(ids: pl.Series, known: pl.Series) -> Ints:
    """Position of each id in `known` (unique), or -1 where it is not there; null is -1. Shape (n_ids,), order kept.

    >>> codes_of(pl.Series(["b", "x"]), pl.Series(["a", "b"])).tolist()
    [1, -1]
    """
    if ids.dtype != known.dtype:
        ids = ids.cast(known.dtype, strict=False)
    if len(known) == 1:
        return np.where((ids == known[0]).fill_null(False).to_numpy(), 0, NO_KEY)
    table = pl.DataFrame({"id": known, "code": np.arange(len(known), dtype=np.int64)})
    joined = ids.to_frame("id").join(table, on="id", how="left", maintain_order="left")
    return joined["code"].fill_null(NO_KEY).to_numpy()


class Ids:
    """Known ids; the code of an id is its place in `values`. Never changed: `extended` gives another one.

    Args:
        values: Distinct ids in ascending order.
    """

    def __init__(self, values: pl.Series) -> None:
        self.values = values
        # Shared with the ids that grow out of these: entries are only added, and newer ones are known by their code.
        self._code: dict[object, int] = {}

    @classmethod
    def of(cls, *columns: pl.Series) -> Self:
        """All ids of some columns of one dtype, null apart."""
        return cls(pl.concat([column.drop_nulls() for column in columns]).unique().sort())

    def __len__(self) -> int:
        return len(self.values)

    def codes(self, ids: pl.Series) -> Ints:
        """Code of each id, -1 where it is unknown or null; shape (n_ids,), order kept."""
        if len(ids) * FEW > len(self):
            return codes_of(ids, self.values)
        if ids.dtype != self.values.dtype:
            ids = ids.cast(self.values.dtype, strict=False)
        code = self._code
        if not code:
            # Put in place only when whole: other threads may ask meanwhile.
            code = self._code = dict(zip(self.values, range(len(self)), strict=True))
        found = np.fromiter(map(code.get, ids, repeat(NO_KEY)), np.int64, len(ids))
        return np.where(found < len(self), found, NO_KEY)

    def extended(self, ids: pl.Series) -> "Ids":
        """With those of the ids that are new, which get the next codes in ascending order of the id."""
        if not len(self):
            return Ids.of(ids)  # whose kind is not known before the first
        ids = ids.cast(self.values.dtype).drop_nulls()
        new = ids.filter(pl.Series(self.codes(ids) < 0, dtype=pl.Boolean)).unique().sort()
        if new.is_empty():
            return self
        grown = Ids(pl.concat([self.values, new], rechunk=self.values.n_chunks() > MANY_CHUNKS))
        # Longer than these: another list has grown out of them already, and its new ids are not ours.
        if self._code and len(self._code) == len(self):
            grown._code = self._code
            grown._code.update(zip(new, range(len(self), len(grown)), strict=True))
        return grown

    def order(self) -> Ints:
        """Rank of each code's id among all ids, ascending from 0: the same however the ids came in; shape (n_ids,)."""
        rank = np.empty(len(self), np.int64)
        rank[self.values.arg_sort().to_numpy()] = np.arange(len(self), dtype=np.int64)
        return rank
