"""What is known of each article, as arrays by item code: creation, length, category, publisher, embedding."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from features.ids import Ids
from features.windows import NO_KEY, NO_TIME, Ints

UNIT = 2**11
"""Length of a stored embedding. Whole numbers, so that a dot product does not depend on how it is added up."""

NO_WORDS = -1


def milliseconds(column: pl.Series) -> Ints:
    """Times as integers, null as `NO_TIME`; shape kept."""
    whole = column.cast(pl.Int64)
    return (whole.fill_null(NO_TIME) if whole.null_count() else whole).to_numpy()


@dataclass(frozen=True)
class Articles:
    """Arrays of shape (n_items,), in the order of the item codes; what is unknown has the marker of its kind."""

    created: Ints
    """Milliseconds, `NO_TIME` where unknown."""
    words: Ints
    """`NO_WORDS` where unknown."""
    category: Ints
    """Code, `NO_KEY` where unknown."""
    publisher: Ints
    """Code, `NO_KEY` where unknown."""
    embedding: npt.NDArray[np.int16] | None
    """Unit vectors times `UNIT`, shape (n_items, dim), zeros where unknown; None if no article has one."""
    categories: Ids
    publishers: Ids

    @classmethod
    def of(cls, frame: pl.DataFrame, codes: Ints, n_items: int) -> "Articles":
        """Lay canonical articles out; `codes` is the item code of each row."""
        known = cls(
            np.full(n_items, NO_TIME, np.int64),
            np.full(n_items, NO_WORDS, np.int64),
            np.full(n_items, NO_KEY, np.int64),
            np.full(n_items, NO_KEY, np.int64),
            None,
            *(Ids.of(frame[name] if name in frame.columns else pl.Series(dtype=pl.Null)) for name in GROUPS),
        )
        return known._with(frame, codes)

    def extended(self, frame: pl.DataFrame, codes: Ints, n_items: int) -> "Articles":
        """With new and changed articles; a null leaves what was known."""
        missing = n_items - len(self.created)
        if not missing and not frame.height:
            return self  # the usual case of a click: embeddings are large, do not copy them
        padded = replace(
            self,
            created=np.append(self.created, np.full(missing, NO_TIME)),
            words=np.append(self.words, np.full(missing, NO_WORDS)),
            category=np.append(self.category, np.full(missing, NO_KEY)),
            publisher=np.append(self.publisher, np.full(missing, NO_KEY)),
            embedding=None if self.embedding is None else np.pad(self.embedding, ((0, missing), (0, 0))),
        )
        return padded._with(frame, codes) if frame.height else padded

    def changes(self, other: "Articles") -> Ints:
        """Items of this one whose category, publisher or length another one tells otherwise; shape (n_changed,)."""
        n = len(self.created)
        same = (self.category == other.category[:n]) & (self.publisher == other.publisher[:n])
        return np.flatnonzero(~(same & (self.words == other.words[:n])))

    def _with(self, frame: pl.DataFrame, codes: Ints) -> "Articles":
        categories, category = self._group(frame, "category", self.categories, codes, self.category)
        publishers, publisher = self._group(frame, "publisher", self.publishers, codes, self.publisher)
        return replace(
            self,
            created=_set(self.created, frame, "created_at", codes, NO_TIME),
            words=_set(self.words, frame, "words", codes, NO_WORDS),
            category=category,
            publisher=publisher,
            embedding=_embeddings(self.embedding, frame, codes, len(self.created)),
            categories=categories,
            publishers=publishers,
        )

    def _group(self, frame: pl.DataFrame, name: str, known: Ids, codes: Ints, old: Ints) -> tuple[Ids, Ints]:
        if name not in frame.columns:
            return known, old
        grown = known.extended(frame[name])
        return grown, _put(old, codes, grown.codes(frame[name]), NO_KEY)


GROUPS = ("category", "publisher")


def _set(old: Ints, frame: pl.DataFrame, name: str, codes: Ints, missing: int) -> Ints:
    if name not in frame.columns:
        return old
    column = frame[name]
    values = milliseconds(column) if isinstance(column.dtype, pl.Datetime) else column.cast(pl.Int64)
    numbers = values if isinstance(values, np.ndarray) else values.fill_null(missing).to_numpy()
    return _put(old, codes, numbers, missing)


def _put(old: Ints, codes: Ints, values: Ints, missing: int) -> Ints:
    known = values != missing
    new = old.copy()
    new[codes[known]] = values[known]
    return new


def _embeddings(
    old: npt.NDArray[np.int16] | None, frame: pl.DataFrame, codes: Ints, n_items: int
) -> npt.NDArray[np.int16] | None:
    if "embedding" not in frame.columns:
        return old
    there = frame["embedding"].is_not_null().to_numpy()
    if not there.any():
        return old
    vectors = frame["embedding"].drop_nulls().to_numpy().astype(np.float64)  # (rows, dim)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.rint(np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0) * UNIT)
    table = np.zeros((n_items, vectors.shape[1]), np.int16) if old is None else old.copy()
    table[codes[there]] = unit.astype(np.int16)
    return table
