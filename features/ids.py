"""Ids of the source and their dense codes: places in a growing list. In memory only; nothing that is kept uses them."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import polars as pl

from features.windows import NO_KEY, Ints

FEW = 20
"""Ids are looked up one by one where there are so many times more known ones."""
MERGE_RATIO = 8
"""New ids are sorted in among the older ones when they are more than one in so many."""


def codes_of(ids: pl.Series, known: pl.Series) -> Ints:
    """Position of each id in `known` (unique), or -1 where it is not there; null is -1. Shape (n_ids,), order kept.

    >>> codes_of(pl.Series(["b", "x"]), pl.Series(["a", "b"])).tolist()
    [1, -1]
    """
    if ids.dtype != known.dtype:
        ids = ids.cast(known.dtype, strict=False)
    if len(known) == 1:
        return np.where((ids == known[0]).fill_null(False).to_numpy(), 0, NO_KEY)
    if known.flags["SORTED_ASC"] and len(ids) * FEW < len(known):
        return _codes_of_few(ids, known)
    table = pl.DataFrame({"id": known, "code": np.arange(len(known), dtype=np.int64)})
    joined = ids.to_frame("id").join(table, on="id", how="left", maintain_order="left")
    return joined["code"].fill_null(NO_KEY).to_numpy()


def _codes_of_few(ids: pl.Series, known: pl.Series) -> Ints:
    """The same by binary search: a single request must not pay for a table of all users."""
    place = known.search_sorted(ids.fill_null(known[0])).to_numpy().astype(np.int64)
    place = np.minimum(place, len(known) - 1)
    same = (known.gather(place) == ids).fill_null(False).to_numpy()
    return np.where(same, place, NO_KEY)


@dataclass(frozen=True)
class _Sorted:
    """Some ids in ascending order, and the code of each."""

    ids: pl.Series
    codes: Ints

    def find(self, ids: pl.Series) -> Ints:
        place = codes_of(ids, self.ids)
        return np.where(place >= 0, self.codes[np.maximum(place, 0)], NO_KEY) if len(self.codes) else place


class Ids:
    """Known ids; the code of an id is its place in `values`. Never changed: `extended` gives another one.

    Args:
        values: Distinct ids in ascending order.
    """

    def __init__(self, values: pl.Series) -> None:
        self.values = values
        self._parts: tuple[_Sorted, ...] = (_Sorted(values, np.arange(len(values), dtype=np.int64)),)

    @classmethod
    def of(cls, *columns: pl.Series) -> Self:
        """All ids of some columns of one dtype, null apart."""
        return cls(pl.concat([column.drop_nulls() for column in columns]).unique().sort())

    def __len__(self) -> int:
        return len(self.values)

    def codes(self, ids: pl.Series) -> Ints:
        """Code of each id, -1 where it is unknown or null; shape (n_ids,), order kept."""
        found = self._parts[0].find(ids)
        for part in self._parts[1:]:
            found = np.maximum(found, part.find(ids))
        return found

    def extended(self, ids: pl.Series) -> "Ids":
        """With those of the ids that are new, which get the next codes in ascending order of the id."""
        if self.values.dtype == pl.Null:
            return Ids.of(ids)
        ids = ids.cast(self.values.dtype).drop_nulls().unique().sort()
        new = ids.filter(pl.Series(self.codes(ids) < 0))
        if new.is_empty():
            return self
        grown = Ids(self.values)
        part = _Sorted(new, np.arange(len(self), len(self) + len(new), dtype=np.int64))
        parts = [*self._parts, part]
        while len(parts) > 1 and len(parts[-2].codes) < MERGE_RATIO * len(parts[-1].codes):
            parts[-2:] = [_merged(*parts[-2:])]
        grown.values = pl.concat([self.values, new], rechunk=self.values.n_chunks() > FEW)
        grown._parts = tuple(parts)
        return grown

    def order(self) -> Ints:
        """Rank of each code's id among all ids, ascending from 0: the same however the ids came in; shape (n_ids,)."""
        ordered = self._parts[0] if len(self._parts) == 1 else _merged(*self._parts)
        rank = np.empty(len(self), np.int64)
        rank[ordered.codes] = np.arange(len(self), dtype=np.int64)
        return rank


def _merged(*parts: _Sorted) -> _Sorted:
    ids, codes = pl.concat([part.ids for part in parts]), np.concatenate([part.codes for part in parts])
    order = ids.arg_sort()
    return _Sorted(ids.gather(order).set_sorted(), codes[order.to_numpy()])
