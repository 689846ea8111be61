"""The last step of a served list: not five times the same story, if that is asked for. Off by default.

Maximal marginal relevance (Carbonell and Goldstein 1998) with a part for freshness: place by place the candidate wins
whose score is high, that is young, and that is unlike what already stands above it. It costs clicks: the README says
how many.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from features.columns import HOUR
from features.events import EventStore
from features.windows import Ints
from newsrec.errors import UsageError
from newsrec.metrics import Floats
from newsrec.stories import same_story, similarity

POOL: Final = 50
"""Best candidates of a list among which is chosen."""
LAST_RESORT: Final = 10.0
"""What a broken cap costs: more than any score, so that a cap gives way only where a place would stay empty."""


@dataclass(frozen=True)
class Diversity:
    """How much a list should vary. The default changes nothing."""

    strength: float = 0.0
    """What likeness to the articles above costs, against the score, 0..1."""
    freshness: float = 0.0
    """What youth gains, against the score, 0..1."""
    half_life_hours: float = 12.0
    """Age at which youth is worth half, > 0."""
    per_category: int | None = None
    """Articles of one category at most, >= 1; None is any number."""
    one_per_story: bool = False
    """Only one article of a story (`newsrec.stories`)."""

    def __post_init__(self) -> None:
        """Refuse what means nothing.

        Raises:
            UsageError: With the setting that is out of range.
        """
        for name, value in (("--diversity", self.strength), ("--freshness", self.freshness)):
            if not 0 <= value <= 1:
                raise UsageError(f"{name}: expected 0 to 1, found {value}.")
        if not self.half_life_hours > 0:
            raise UsageError(f"half_life_hours: expected more than 0, found {self.half_life_hours}.")
        if self.per_category is not None and self.per_category < 1:
            raise UsageError(f"--per-category: expected at least 1, found {self.per_category}.")

    @property
    def on(self) -> bool:
        """Whether anything is asked for."""
        return bool(self.strength or self.freshness or self.per_category is not None or self.one_per_story)


def diversified(
    scored: pl.DataFrame, requests: pl.DataFrame, store: EventStore, k: int, chosen: Diversity
) -> pl.DataFrame:
    """Choose the first places of each list.

    Args:
        scored: `request_id, item_id, score` and more, in any order.
        requests: Canonical requests.
        store: The log with what is known of its articles.
        k: Places, >= 1.
        chosen: How.

    Returns:
        At most `k` rows per request with `rank` (UInt32, from 1), by request and rank; `score` stays the model's.
    """
    best = scored.sort("request_id", "score", "item_id", descending=[False, True, False])
    best = best.filter(pl.int_range(pl.len()).over("request_id") < max(POOL, k))
    if best.is_empty():
        return best.with_columns(pl.lit(0, pl.UInt32).alias("rank"))
    row = best["request_id"].rle_id().to_numpy().astype(np.int64)
    first = np.flatnonzero(np.diff(row, prepend=-1))
    column = np.arange(len(row)) - first[row]
    shape = (len(first), int(column.max()) + 1)  # (lists, candidates)
    code = np.full(shape, -1, np.int64)
    code[row, column] = store.item_codes(best["item_id"])
    at = best.select("request_id").join(requests, on="request_id", how="left", maintain_order="left")["requested_at"]
    worth = np.full(shape, -np.inf)
    worth[row, column] = (1 - chosen.strength) * _worth(best, row, at.to_physical().to_numpy(), store, chosen)
    places = _places(code, worth, store, min(k, shape[1]), chosen)  # (lists, k), -1 where a list is shorter
    rank = np.zeros(shape, np.uint32)
    of, place = np.nonzero(places >= 0)
    rank[of, places[of, place]] = place + 1
    ranked = best.with_columns(pl.Series("rank", rank[row, column], dtype=pl.UInt32))
    return ranked.filter(pl.col("rank") > 0).sort("request_id", "rank")


def _worth(best: pl.DataFrame, row: Ints, at: Ints, store: EventStore, chosen: Diversity) -> Floats:
    """Score on the scale of its list, 0..1, mixed with youth, 0..1; (n_rows,)."""
    low, high = pl.col("score").min().over("request_id"), pl.col("score").max().over("request_id")
    score = best.select(((pl.col("score") - low) / (high - low)).fill_nan(1.0).cast(pl.Float64)).to_series().to_numpy()
    age = np.maximum(at - store.exists_from[store.item_codes(best["item_id"])], 0) / HOUR
    youth = 0.5 ** (age / chosen.half_life_hours)
    return np.asarray((1 - chosen.freshness) * score + chosen.freshness * youth)


def _places(code: Ints, worth: Floats, store: EventStore, k: int, chosen: Diversity) -> Ints:
    """Column of the candidate at each place, (lists, k); -1 where none is left."""
    lists, candidates = code.shape
    every, here = np.arange(lists), np.full((lists, k), -1)
    likeness, banned = np.zeros(code.shape), np.zeros(code.shape, bool)
    category = np.where(code >= 0, store.category[code], -1)
    above: npt.NDArray[Any] = np.zeros(code.shape, np.int64)  # how many of its category already stand above
    for place in range(k):
        value = worth - chosen.strength * likeness - LAST_RESORT * banned
        pick = np.argmax(value, axis=1)
        there = np.isfinite(value[every, pick])
        here[there, place] = pick[there]
        worth[every, pick] = -np.inf
        if place == k - 1:
            break
        picked = np.repeat(code[every, pick][:, None], candidates, axis=1)
        same = (category == category[every, pick][:, None]) & (category >= 0)
        if chosen.strength:
            likeness = np.maximum(likeness, _likeness(code, picked, same, store))
        if chosen.per_category is not None:
            above += same
            banned |= above >= chosen.per_category
        if chosen.one_per_story:
            banned |= same_story(store, code.ravel(), picked.ravel()).reshape(code.shape)
    return here


def _likeness(code: Ints, picked: Ints, same_category: np.ndarray, store: EventStore) -> Floats:
    """0..1: cosine of the embeddings where articles have them, else whether the category is the same."""
    if store.articles_by_code.embedding is None:
        return same_category.astype(np.float64)
    cosine = similarity(store, code.ravel(), picked.ravel()).reshape(code.shape)
    return np.asarray(np.maximum(cosine, 0.0), np.float64)
