"""Lists of requests as arrays: what a network reads, in training and in serving alike, without torch.

Rows of all lists are laid end to end; `batches` groups requests whose lists are equally long and whose histories are
nearly so, and `padded` makes the arrays of one group. No list is ever padded, histories only to their longest.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from features.articles import milliseconds
from features.events import EventStore, codes_of, take
from features.sequence import histories
from features.windows import NO_KEY, Ints

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

HISTORY: Final = "history_"
MASK: Final = "history_mask"
DENSE: Final = "dense"
RANKER_SCORE: Final = "ranker_score"
"""Last of the dense columns."""
AGE: Final = "age_hours"
DWELL: Final = "dwell_seconds"
NO_INTEGER: Final = int(np.iinfo(np.int64).min)
NO_STRING: Final = ""


@dataclass(frozen=True)
class Fields:
    """Which inputs a log can have; the order is that of the network's columns."""

    dense: tuple[str, ...]
    """Feature columns, then `RANKER_SCORE`."""
    ids: Mapping[str, str]
    """`item_id`, and `category` where the articles have one -> `int64` or `string`."""
    numbers: tuple[str, ...]
    """Of each click in a history: `AGE`, and `DWELL` where the log has it."""

    @classmethod
    def of(cls, store: EventStore, features: tuple[str, ...]) -> "Fields":
        """The inputs that this log can have, beside these features."""
        categories = store.articles_by_code.categories.values
        ids = {"item_id": store.items} | ({"category": categories} if len(categories) else {})
        kinds = {name: "int64" if values.dtype.is_integer() else "string" for name, values in ids.items()}
        read = bool((store.tables["clicks"]["dwell"] >= 0).any())
        return cls((*features, RANKER_SCORE), kinds, (AGE, DWELL) if read else (AGE,))

    @property
    def inputs(self) -> dict[str, str]:
        """Input name of the exported network -> dtype, in the order of `Batch.named`."""
        return {
            DENSE: "float32",
            **self.ids,
            **{HISTORY + name: kind for name, kind in self.ids.items()},
            **{HISTORY + name: "float32" for name in self.numbers},
            MASK: "float32",
        }


@dataclass(frozen=True)
class Lists:
    """Lists of some requests; a list's rows stand together. Ids are the source's, or codes in training."""

    request_id: Array
    """Shape (n_requests,)."""
    length: Ints
    """Candidates per request, shape (n_requests,)."""
    dense: Floats
    """Shape (n_rows, n_dense), NaN where unknown."""
    ids: Mapping[str, Array]
    """Field -> id of each candidate, shape (n_rows,)."""
    history_length: Ints
    """Clicks per request, shape (n_requests,)."""
    history_ids: Mapping[str, Array]
    """Field -> id of each click, newest first, shape (n_clicks,)."""
    history_numbers: Mapping[str, Floats]
    """Number -> value of each click, shape (n_clicks,), NaN where unknown."""
    label: npt.NDArray[np.uint8]
    """1 where clicked, shape (n_rows,)."""
    coded: bool = False
    """Whether ids are codes of `newsrec.neural.vocabulary`, 0 being unknown."""
    weight: Floats | None = None
    """What each request counts for in training, > 0, shape (n_requests,); None is 1 for all."""
    further: Mapping[str, Floats] = field(default_factory=dict)
    """Task beside the click -> 1, 0, or NaN where nobody knows, shape (n_rows,)."""

    def __len__(self) -> int:
        return len(self.length)

    @property
    def start(self) -> Ints:
        """First row of each request's list, shape (n_requests,)."""
        return np.cumsum(self.length) - self.length

    @property
    def row_request(self) -> Ints:
        """Request (its place here) of each row, shape (n_rows,)."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.length)

    def chosen(self, requests: Ints) -> "Lists":
        """Only these requests, in this order."""
        rows = _runs(self.start[requests], self.length[requests])
        clicks = _runs((np.cumsum(self.history_length) - self.history_length)[requests], self.history_length[requests])
        return Lists(
            self.request_id[requests],
            self.length[requests],
            self.dense[rows],
            {name: values[rows] for name, values in self.ids.items()},
            self.history_length[requests],
            {name: values[clicks] for name, values in self.history_ids.items()},
            {name: values[clicks] for name, values in self.history_numbers.items()},
            self.label[rows],
            self.coded,
            None if self.weight is None else self.weight[requests],
            {name: values[rows] for name, values in self.further.items()},
        )

    def only(self, kept: npt.NDArray[np.bool_]) -> "Lists":
        """Only these candidates, shape (n_rows,); all requests stay, and the order."""
        return replace(
            self,
            length=np.bincount(self.row_request[kept], minlength=len(self)),
            dense=self.dense[kept],
            ids={name: values[kept] for name, values in self.ids.items()},
            label=self.label[kept],
            further={name: values[kept] for name, values in self.further.items()},
        )

    def newest(self, clicks: int) -> "Lists":
        """The same with so many clicks per history at most."""
        kept = np.minimum(self.history_length, clicks)
        places = _runs(np.cumsum(self.history_length) - self.history_length, kept)
        return replace(
            self,
            history_length=kept,
            history_ids={name: values[places] for name, values in self.history_ids.items()},
            history_numbers={name: values[places] for name, values in self.history_numbers.items()},
        )


@dataclass(frozen=True)
class Batch:
    """The arrays of some requests with equally long lists."""

    dense: Floats
    """Shape (requests, candidates, n_dense)."""
    ids: Mapping[str, Array]
    """Field -> shape (requests, candidates)."""
    history_ids: Mapping[str, Array]
    """Field -> shape (requests, history), padded with an id that is unknown."""
    history_numbers: Mapping[str, Floats]
    """Number -> shape (requests, history), padded with NaN."""
    mask: Floats
    """1 where a click is, 0 where padding is, shape (requests, history)."""
    rows: Ints
    """Row of each candidate in the lists, shape (requests, candidates)."""

    def named(self) -> dict[str, Array]:
        """Input name of the exported network -> array, in its order."""
        return {
            DENSE: self.dense,
            **self.ids,
            **{HISTORY + name: values for name, values in self.history_ids.items()},
            **{HISTORY + name: values for name, values in self.history_numbers.items()},
            MASK: self.mask,
        }


def lists_of(
    described: pl.DataFrame,
    candidates: pl.DataFrame,
    requests: pl.DataFrame,
    store: EventStore,
    fields: Fields,
    history: int,
) -> Lists:
    """Lay the lists of some requests out.

    Args:
        described: One Float32 column per dense field but the last, one row per candidate.
        candidates: `request_id, item_id`, `score` (the ranker's) and optionally `label`, in the same order; the rows
            of a request stand together.
        requests: `request_id, user_id, requested_at`; those without candidates are left out.
        store: The log.
        fields: Which inputs to make.
        history: Clicks per request at most.
    """
    ids = candidates["request_id"].unique(maintain_order=True)
    asked = requests[codes_of(ids, requests["request_id"])]
    row = codes_of(candidates["request_id"], ids)
    told = histories(store, store.user_codes(asked["user_id"]), milliseconds(asked["requested_at"]), history)
    items = store.item_codes(candidates["item_id"])
    numbers = {AGE: told.age_hours, DWELL: told.dwell_seconds}
    columns = [described.select(fields.dense[:-1]).to_numpy(), candidates["score"].cast(pl.Float32).to_numpy()[:, None]]
    none = np.zeros(len(candidates), np.uint8)
    known = {"item_id": raw(candidates["item_id"]), **_categories(store, fields, items)}
    return Lists(
        ids.to_numpy(),
        np.bincount(row, minlength=len(ids)),
        np.concatenate(columns, axis=1, dtype=np.float32),
        known,
        told.length,
        {"item_id": raw(store.items.gather(told.item)), **_categories(store, fields, told.item)},
        {name: numbers[name] for name in fields.numbers},
        candidates["label"].cast(pl.UInt8).to_numpy() if "label" in candidates.columns else none,
    )


def concatenated(parts: list[Lists]) -> Lists:
    """One after the other; not yet weighed, of the click alone."""
    first = parts[0]
    return replace(
        first,
        request_id=np.concatenate([part.request_id for part in parts]),
        length=np.concatenate([part.length for part in parts]),
        dense=np.concatenate([part.dense for part in parts]),
        ids={name: np.concatenate([part.ids[name] for part in parts]) for name in first.ids},
        history_length=np.concatenate([part.history_length for part in parts]),
        history_ids={name: np.concatenate([part.history_ids[name] for part in parts]) for name in first.history_ids},
        history_numbers={
            name: np.concatenate([part.history_numbers[name] for part in parts]) for name in first.history_numbers
        },
        label=np.concatenate([part.label for part in parts]),
    )


def batches(lists: Lists, size: int, rng: np.random.Generator | None = None) -> list[Ints]:
    """Groups of requests with equally long lists and nearly equally long histories; empty lists are in none.

    Args:
        lists: All lists.
        size: Requests per group at most.
        rng: Shuffles requests of the same lengths, and the groups; None keeps the order.
    """
    order = np.arange(len(lists)) if rng is None else rng.permutation(len(lists))
    order = order[lists.length[order] > 0]
    order = order[np.lexsort((lists.history_length[order], lists.length[order]))]
    changes = np.flatnonzero(np.diff(lists.length[order])) + 1
    groups = [group for run in np.split(order, changes) for group in np.split(run, range(size, len(run), size))]
    groups = [group for group in groups if len(group)]
    return groups if rng is None else [groups[i] for i in rng.permutation(len(groups))]


def padded(lists: Lists, chosen: Ints) -> Batch:
    """The arrays of one group of `batches`."""
    rows = lists.start[chosen][:, None] + np.arange(lists.length[chosen[0]])
    lengths = lists.history_length[chosen]
    place = np.arange(lengths.max(initial=0))
    there = place < lengths[:, None]
    click = np.where(there, (np.cumsum(lists.history_length) - lists.history_length)[chosen][:, None] + place, NO_KEY)
    return Batch(
        lists.dense[rows],
        {name: values[rows] for name, values in lists.ids.items()},
        {
            name: _filled(values, click, 0 if lists.coded else _missing(values))
            for name, values in lists.history_ids.items()
        },
        {name: _filled(values, click, np.nan) for name, values in lists.history_numbers.items()},
        there.astype(np.float32),
        rows,
    )


def raw(ids: pl.Series) -> Array:
    """Ids as a network's input: int64 or text, null as one that no vocabulary knows. Shape kept."""
    if ids.dtype.is_integer():
        return ids.cast(pl.Int64).fill_null(NO_INTEGER).to_numpy()
    return ids.cast(pl.String).fill_null(NO_STRING).to_numpy()


def _categories(store: EventStore, fields: Fields, items: Ints) -> dict[str, Array]:
    if "category" not in fields.ids:
        return {}
    code = pl.Series(take(store.category, items, NO_KEY))
    return {"category": raw(store.articles_by_code.categories.values.gather(code.set(code < 0, None)))}


def _missing(values: Array) -> object:
    return NO_INTEGER if values.dtype.kind == "i" else NO_STRING


def _filled(values: Array, place: Ints, missing: object) -> Array:
    """`values[place]`, and `missing` where `place` is negative."""
    found = np.full(place.shape, missing, values.dtype)
    found[place >= 0] = values[place[place >= 0]]
    return found


def _runs(start: Ints, length: Ints) -> Ints:
    """start, start + 1 ... for each of several runs, laid end to end."""
    first = np.cumsum(length) - length
    places: Ints = np.arange(int(length.sum()), dtype=np.int64) + np.repeat(start - first, length)
    return places
