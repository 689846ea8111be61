"""Stage 4: what the channels propose becomes one list per request, labelled; for training, negatives are sampled.

Lists are merged by reciprocal rank fusion (Cormack, Clarke & Büttcher 2009): it needs no common unit of the channels'
scores. Sampling comes after recall and only for training; what validation and test see is the whole list.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from newsrec.errors import UsageError
from newsrec.recall import Channel, RecallRequests

FUSION_OFFSET = 10
"""The constant of reciprocal rank fusion. The paper's 60 is for lists of a thousand; ours are a hundred long."""


@dataclass(frozen=True)
class SamplingConfig:
    """Which negatives of a training request are kept."""

    top: int = 12
    """`list`: best of the merged list, always kept (hard negatives); >= 0."""
    others: int = 12
    """`list`: drawn evenly from the rest, whose articles are all alive: proposed at that moment; >= 0."""
    seed: int = 0
    sampler: str = "list"
    """Name in `newsrec.sampling.SAMPLERS`, or a mixture such as `random:3+hard:1`."""
    ratio: float = 4.0
    """Other samplers: negatives per clicked article, > 0."""
    weighted: bool = True
    """Rows weigh one by their sampling probability."""
    exposure: str = "none"
    """Name in `newsrec.exposure.PROPENSITIES`: lists weigh one by the chance that their click was shown."""
    exposure_clip: float = 10.0
    """Largest such weight, >= 1."""
    places: bool = False
    """Rows keep the place at which they were shown, for a ranker that learns its bias."""


@dataclass(frozen=True)
class MergeConfig:
    """How the channels' lists become one."""

    quotas: Mapping[str, int] = field(default_factory=dict)
    """At most so many articles of a channel, its best, >= 1; all of a channel that is not named."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """How much a channel's ranks count, > 0; 1 for a channel that is not named."""

    def refuse_contradictions(self, channels: Sequence[str]) -> None:
        """Find out what cannot be done with these channels.

        Raises:
            UsageError: A channel that is not asked, or a number out of range.
        """
        for name, value in [*self.quotas.items(), *self.weights.items()]:
            if name not in channels:
                raise UsageError(
                    f"--quota {name}: expected one of the channels {sorted(channels)}. Name it in --recall."
                )
            if not 0 < value < float("inf"):
                raise UsageError(f"--quota {name}: expected a number above zero, found {value}.")


ALIKE: Final = MergeConfig()
"""Whole lists, every channel as good as another."""


Asked = Callable[[Mapping[str, Callable[[], pl.DataFrame]]], Mapping[str, pl.DataFrame]]
"""How channels are asked: their calls by name, to what each of them found."""


def in_turn(calls: Mapping[str, Callable[[], pl.DataFrame]]) -> dict[str, pl.DataFrame]:
    """One after the other."""
    return {name: call() for name, call in calls.items()}


def propose(
    channels: Mapping[str, Channel],
    requests: RecallRequests,
    items: pl.Series,
    merge: MergeConfig = ALIKE,
    asked: Asked = in_turn,
) -> pl.DataFrame:
    """Ask every channel and merge.

    Args:
        channels: Fitted channels by name.
        requests: The requests.
        items: `item_id` of each article code.
        merge: Quotas and weights of the channels.
        asked: In turn, or beside each other (`newsrec.ahead.Beside`).

    Returns:
        `request_id, item_id`, `<channel>_score` (Float32) and `<channel>_rank` (UInt16) per channel, null where it did
        not propose the article, and `recall_rank` (UInt16, 1 is best); sorted by request (in their order) and rank.
    """
    lists = asked({name: partial(channel.recall, requests) for name, channel in channels.items()})
    found = {name: _within(lists[name], merge.quotas.get(name)) for name in channels}
    n_items = requests.store.n_items
    keys = [each["row"].to_numpy().astype(np.int64) * n_items + each["item"].to_numpy() for each in found.values()]
    # A row that several channels propose stays one. Sorted numbers are found again in a fraction of a join's time.
    distinct, place = np.unique(np.concatenate(keys), return_inverse=True)
    places = np.split(place, np.cumsum([len(each) for each in keys])[:-1])
    row, item = distinct // n_items, distinct % n_items
    fused = np.zeros(len(distinct))
    said: dict[str, npt.NDArray[Any]] = {}
    for (name, each), at in zip(found.items(), places, strict=True):
        rank, score = np.zeros(len(distinct), np.uint16), np.zeros(len(distinct), np.float32)
        rank[at], score[at] = each["rank"].to_numpy(), each["score"].to_numpy()
        fused[at] += merge.weights.get(name, 1.0) / (FUSION_OFFSET + rank[at].astype(np.float64))
        said |= {f"{name}_score": score, f"{name}_rank": rank}
    # Ties by the article's id: codes depend on the order in which a running store met the articles.
    order = pl.DataFrame({"row": row, "fused": fused, "tie": requests.store.item_order[item]}).select(
        pl.arg_sort_by("row", "fused", "tie", descending=[False, True, False])
    )
    ranked = pl.DataFrame({"row": row, "item": item, **said})[order.to_series()]
    silent = {name: pl.col(f"{name}_rank") == 0 for name in channels}
    return ranked.select(
        requests.frame["request_id"].gather(ranked["row"]).alias("request_id"),
        items.gather(ranked["item"]).alias("item_id"),
        *(
            pl.when(~silent[name]).then(f"{name}_{what}").alias(f"{name}_{what}")
            for name in channels
            for what in ("score", "rank")
        ),
        pl.Series("recall_rank", _place_in_group(ranked["row"]), dtype=pl.UInt16),
    )


def label(candidates: pl.DataFrame, positives: pl.DataFrame) -> pl.DataFrame:
    """Add `label` (UInt8): 1 where `positives` (`request_id, item_id`) has the candidate. Order kept."""
    clicked = positives.select("request_id", "item_id", pl.lit(1, pl.UInt8).alias("label"))
    return candidates.join(clicked, on=["request_id", "item_id"], how="left", maintain_order="left").with_columns(
        pl.col("label").fill_null(0)
    )


def positive_ranks(candidates: pl.DataFrame, positives: pl.DataFrame) -> pl.DataFrame:
    """The ranks that recall gave to what was clicked: `positives` with all `*_rank` columns, null where missed."""
    ranks = candidates.select("request_id", "item_id", pl.selectors.ends_with("_rank"))
    return positives.join(ranks, on=["request_id", "item_id"], how="left", maintain_order="left")


def sample_negatives(labelled: pl.DataFrame, config: SamplingConfig) -> pl.DataFrame:
    """Mark the rows to train on. Requests that recall missed, and those without a negative, keep none.

    The draw depends on request, rank and seed alone, not on row order or on which requests are asked together.

    Returns:
        The same rows with `kept` (Boolean) and `sampling_probability` (Float32, 0 < p <= 1; 1 where always kept).
    """
    rest = (pl.col("label") == 0) & (pl.col("recall_rank") > config.top)
    draw = noise(labelled["request_id"].to_numpy(), labelled["recall_rank"].to_numpy(), config.seed)
    drawn = labelled.with_columns(pl.Series("draw", draw)).with_columns(
        pl.when(rest).then(pl.col("draw")).rank("ordinal").over("request_id").alias("order"),
        rest.sum().over("request_id").alias("rest"),
        (pl.col("label").max().over("request_id") == 1).alias("hit"),
        (pl.col("label").min().over("request_id") == 0).alias("missed"),
    )
    share = (config.others / pl.col("rest")).clip(upper_bound=1.0)
    return drawn.with_columns(
        (pl.col("hit") & pl.col("missed") & (~rest | (pl.col("order") <= config.others))).alias("kept"),
        pl.when(rest).then(share).otherwise(1.0).cast(pl.Float32).alias("sampling_probability"),
    ).drop("draw", "order", "rest", "hit", "missed")


def whole_lists(labelled: pl.DataFrame) -> pl.DataFrame:
    """As `sample_negatives`, with every row of the requests that hold both a click and another article."""
    both = (pl.col("label").max().over("request_id") == 1) & (pl.col("label").min().over("request_id") == 0)
    return labelled.with_columns(both.alias("kept"), pl.lit(1.0, pl.Float32).alias("sampling_probability"))


def on_slates(slates: pl.DataFrame, proposed: pl.DataFrame, channels: Sequence[str]) -> pl.DataFrame:
    """Shown lists with what the channels say of their articles.

    Args:
        slates: `request_id, item_id` and more, in the order of the lists.
        proposed: What `propose` gives for the same requests.
        channels: Names of the channels.

    Returns:
        The slates with the channels' scores and ranks and `recall_rank`, null for an article that none proposed.
    """
    said = [f"{name}_{what}" for name in channels for what in ("score", "rank")]
    told = proposed.select("request_id", "item_id", *said, "recall_rank")
    return slates.join(told, on=["request_id", "item_id"], how="left", maintain_order="left")


def _within(found: pl.DataFrame, quota: int | None) -> pl.DataFrame:
    return found if quota is None else found.filter(pl.col("rank") <= quota)


def _place_in_group(group: pl.Series) -> np.ndarray:
    """1, 2, 3 ... inside each run of equal values."""
    values = group.to_numpy()
    index = np.arange(len(values))
    starts = np.concatenate([[True], values[1:] != values[:-1]]) if len(values) else np.zeros(0, bool)
    return index - np.maximum.accumulate(np.where(starts, index, 0)) + 1


def noise(request: np.ndarray, rank: np.ndarray, seed: int) -> np.ndarray:
    """A repeatable random number per (request, rank): SplitMix64 (Steele, Lea & Flood 2014, figure 16)."""
    with np.errstate(over="ignore"):
        z = request.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + rank.astype(np.uint64)
        z += np.uint64(seed) * np.uint64(0xD1342543DE82EF95)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
        return z ^ (z >> np.uint64(31))
