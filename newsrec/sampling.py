"""Stage 4 for training: which candidates that were not clicked are kept, each with the probability of being kept.

It comes after recall, never in it, and never touches validation or test. `SAMPLERS` is the one list of ways. All draw
from the candidate list of the request, whose articles are alive: recall proposed them at that moment. A sampling whose
probability is told can be undone: a row weighs one by it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from features.columns import DAY
from features.events import EventStore, milliseconds
from features.windows import Ints
from newsrec.candidates import SamplingConfig, noise, sample_negatives, whole_lists
from newsrec.errors import UsageError
from newsrec.metrics import Floats
from newsrec.stories import same_story

HARD: Final = 0.2
"""The first so much of a list by recall's order is hard, ..."""
SEMI_HARD: Final = 0.6
"""... and up to here semi-hard."""
POPULARITY_POWER: Final = 0.75
"""Of the clicks of a day, as in word2vec (Mikolov et al. 2013)."""
LEFT_SOON_SECONDS: Final = 10.0
"""A click that was read for less is a negative of `short_dwell`."""
DEPTH: Final = (pl.col("recall_rank") - 0.5) / pl.len().over("request_id")
"""Where a candidate stands in its list, 0..1."""
LATER: Final = DAY
"""What the same user clicks within this time after the request is no negative, ms."""


@dataclass(frozen=True)
class Sampler:
    """One way of choosing negatives of a list."""

    weight: pl.Expr
    """>= 0 per candidate; the chance of being drawn is proportional to it, 0 is never drawn."""
    needs: str | None = None
    """Column that is looked up for the weight or the label."""
    meaning: str = ""


SAMPLERS: Final[Mapping[str, Sampler]] = {
    "list": Sampler(pl.lit(1.0), meaning="the top of the list always, and some of the rest evenly (the default)"),
    "all": Sampler(pl.lit(1.0), meaning="whole lists"),
    "random": Sampler(pl.lit(1.0), meaning="evenly over the list"),
    "popular": Sampler((pl.col("clicks_24h") + 1.0) ** POPULARITY_POWER, "clicks_24h", "by clicks of the last day"),
    "exposed": Sampler(pl.col("shown").cast(pl.Float64), "shown", "what the user was shown and did not click"),
    "hard": Sampler((DEPTH <= HARD).cast(pl.Float64), None, f"the first {HARD:.0%} of the list"),
    "semi_hard": Sampler(
        ((DEPTH > HARD) & (DEPTH <= SEMI_HARD)).cast(pl.Float64),
        None,
        f"from {HARD:.0%} to {SEMI_HARD:.0%} of the list",
    ),
    "short_dwell": Sampler(pl.lit(1.0), "left_soon", "clicks that were left at once, filled up evenly"),
}
"""Every sampler by its name; `SamplingConfig.sampler` names one, or several as `random+hard` or `random:3+hard:1`."""
ALONE: Final = ("list", "all")
"""Samplers that are not mixed: they have sizes of their own."""


def parse(spec: str) -> dict[str, float]:
    """Names and shares of a sampler or a mixture; shares sum to 1.

    Raises:
        UsageError: An unknown name, a share that is no number above 0, a name twice, or a mixture with one of `ALONE`.

    >>> parse("random:3+hard")
    {'random': 0.75, 'hard': 0.25}
    """
    pairs = [word.partition(":") for word in spec.split("+")]
    names = [name.strip() for name, _, _ in pairs]
    unknown = sorted(set(names) - set(SAMPLERS))
    if unknown or len(set(names)) < len(names) or (len(names) > 1 and set(names) & set(ALONE)):
        raise UsageError(
            f"--negatives: expected one of {list(SAMPLERS)}, or some but {' and '.join(ALONE)} as random:3+hard:1, "
            f"found {spec!r}."
        )
    try:
        shares = [float(share) if colon else 1.0 for _, colon, share in pairs]
    except ValueError:
        shares = [0.0]
    if not all(0 < share < float("inf") for share in shares):
        raise UsageError(f"--negatives: expected shares above 0 such as random:3+hard:1, found {spec!r}.")
    return {name: share / sum(shares) for name, share in zip(names, shares, strict=True)}


def mark_negatives(
    labelled: pl.DataFrame,
    requests: pl.DataFrame,
    store: EventStore,
    config: SamplingConfig,
    until: int | None = None,
) -> pl.DataFrame:
    """Mark the rows to train on.

    Args:
        labelled: Candidate lists with `label`.
        requests: Canonical requests, at least those of the lists.
        store: The log.
        config: What to keep.
        until: Later clicks are not looked at when negatives are guarded, ms: the end of the training time; None is the
            end of the log.

    Returns:
        The same rows with `kept` and `sampling_probability`, as `newsrec.candidates.sample_negatives` gives them; with
        `short_dwell`, clicks that were left at once have label 0. The draw depends on request, place and seed alone.

    Raises:
        UsageError: The log lacks what the sampler looks at.
    """
    shares = parse(config.sampler)
    if "list" in shares:
        return sample_negatives(labelled, config)
    if "all" in shares:
        return whole_lists(labelled)
    facts = {fact for name in shares if (fact := SAMPLERS[name].needs) is not None}
    told = _with_facts(labelled, requests, store, facts)
    if "left_soon" in facts:
        told = told.with_columns(pl.when("left_soon").then(0).otherwise("label").cast(pl.UInt8).alias("label"))
    guarded = _false_negatives(told, requests, store, until)
    request = told["request_id"].rle_id().to_numpy().astype(np.int64)
    clicked = told["label"].to_numpy() == 1
    left_soon = told["left_soon"].to_numpy() if "left_soon" in facts else np.zeros(len(told), bool)
    free = ~clicked & ~guarded & ~left_soon
    positives = np.bincount(request[clicked], minlength=request.max(initial=-1) + 1)
    place = told["recall_rank"] if "recall_rank" in told.columns else pl.Series([None] * len(told), dtype=pl.UInt16)
    key = place.cast(pl.Int64).fill_null(-1).to_numpy()
    key = np.where(key < 0, np.arange(len(told)) - np.searchsorted(request, request) + 100_000, key)
    kept, missed = left_soon.copy(), np.where(left_soon, 0.0, 1.0)
    for i, (name, share) in enumerate(shares.items()):
        # Not `select`: alone there, a literal has as many rows as the frame has chunks.
        weight = told.with_columns(SAMPLERS[name].weight.fill_null(0.0).cast(pl.Float64).alias("w"))["w"]
        weights = np.where(free, weight.to_numpy(), 0.0)
        # Each part draws for itself, so that the chance of being kept by any follows from the parts'.
        chance = inclusion(weights, request, config.ratio * share * positives.astype(np.float64))
        draw = noise(told["request_id"].to_numpy(), key, config.seed + 1 + i)
        kept |= systematic(chance, request, draw)
        missed *= 1 - chance
    negative = np.bincount(request[kept], minlength=len(positives)) > 0
    whole = (positives > 0) & negative
    probability = np.where(clicked | ~free | (missed == 1), 1.0, 1 - missed)
    return told.select(labelled.columns).with_columns(
        pl.Series("kept", (kept | clicked) & whole[request]),
        pl.Series("sampling_probability", probability, dtype=pl.Float32),
    )


def inclusion(weight: Floats, request: Ints, wanted: Floats) -> Floats:
    """Chance of each row so that each request keeps the wanted number on average.

    Args:
        weight: (n_rows,), >= 0.
        request: (n_rows,) codes from 0, ascending.
        wanted: (n_requests,) rows to keep, >= 0.

    Returns:
        (n_rows,), 0..1: proportional to the weights but for rows that are certain; what they leave goes to the others.

    >>> inclusion(np.array([8.0, 1.0, 1.0]), np.array([0, 0, 0]), np.array([2.0])).tolist()
    [1.0, 0.5, 0.5]
    """
    chance, rest, wanted = np.zeros(len(weight)), weight > 0, wanted.astype(np.float64)
    while rest.any():
        total = np.bincount(request, weights=weight * rest, minlength=len(wanted))
        scale = np.divide(wanted, total, out=np.zeros(len(wanted)), where=total > 0)
        share = scale[request] * weight
        certain = rest & (share >= 1)
        if not certain.any():
            return np.where(rest, share, chance)
        chance[certain] = 1.0
        wanted = np.maximum(wanted - np.bincount(request, weights=certain, minlength=len(wanted)), 0.0)
        rest &= ~certain
    return chance


def systematic(chance: Floats, request: Ints, draw: np.ndarray) -> np.ndarray:
    """Systematic sampling (Madow 1949) in random order: each row is kept with exactly its chance, sizes hardly vary.

    Args:
        chance: (n_rows,), 0..1.
        request: (n_rows,) codes from 0, ascending.
        draw: (n_rows,) random 64-bit numbers.

    Returns:
        (n_rows,) Boolean.
    """
    order = np.lexsort((draw, request))
    ordered, of = chance[order], request[order]
    first = np.flatnonzero(np.diff(of, prepend=-1))
    running = np.cumsum(ordered)
    running -= np.repeat((running - ordered)[first], np.diff(first, append=len(of)))
    # The order already used the draws' high bits; a list's start takes the low ones of its first row.
    start = (draw[order][first] & np.uint64(0xFFFFFFFF)).astype(np.float64) / 2.0**32
    steps = np.floor(running + np.repeat(start, np.diff(first, append=len(of))))
    before = np.floor(running - ordered + np.repeat(start, np.diff(first, append=len(of))))
    kept = np.zeros(len(chance), bool)
    kept[order] = (steps > before) | (ordered >= 1)
    return kept


def _with_facts(labelled: pl.DataFrame, requests: pl.DataFrame, store: EventStore, facts: set[str]) -> pl.DataFrame:
    """Add the columns that samplers need."""
    of_request = labelled.select("request_id").join(requests, on="request_id", how="left", maintain_order="left")
    columns = []
    if "clicks_24h" in facts:
        item = store.item_codes(labelled["item_id"])
        at = milliseconds(of_request["statistics_at"])
        columns.append(pl.Series("clicks_24h", store.index("item").counts(item, at, (DAY,))[0]))
    if "shown" in facts:
        columns.append(_shown(labelled, of_request, store))
    if "left_soon" in facts:
        columns.append(_left_soon(labelled, of_request, store))
    return labelled.with_columns(columns)


def _shown(labelled: pl.DataFrame, of_request: pl.DataFrame, store: EventStore) -> pl.Series:
    """Whether the candidate was in the list that the request was made from."""
    if store.impressions is None or "impression_id" not in of_request.columns:
        raise UsageError("--negatives exposed: expected a log with impressions, found clicks only. Choose another.")
    shown = store.impressions.select(
        pl.col("request_id").alias("impression_id"), "item_id", pl.lit(True).alias("shown")
    )
    keys = ["impression_id", "item_id"]
    rows = of_request.select("impression_id").hstack([labelled["item_id"]])
    return rows.join(shown.unique(keys), on=keys, how="left", maintain_order="left")["shown"].fill_null(False)


def _left_soon(labelled: pl.DataFrame, of_request: pl.DataFrame, store: EventStore) -> pl.Series:
    """Whether the candidate was clicked at the request and read for less than `LEFT_SOON_SECONDS`."""
    if "dwell_seconds" not in store.clicks.columns:
        raise UsageError("--negatives short_dwell: expected clicks with 'dwell_seconds', found none. Choose another.")
    keys = ["user_id", "item_id"]
    rows = (
        of_request.select("user_id", "requested_at").hstack(labelled.select("item_id", "label")).with_row_index("row")
    )
    clicked = rows.filter(pl.col("label") == 1).join(store.clicks.select(*keys, "clicked_at", "dwell_seconds"), on=keys)
    first = (
        clicked.filter(pl.col("clicked_at") >= pl.col("requested_at")).sort("clicked_at").unique("row", keep="first")
    )
    soon = first.filter(pl.col("dwell_seconds") < LEFT_SOON_SECONDS)["row"]
    return rows.select(pl.col("row").is_in(soon.implode()).alias("left_soon"))["left_soon"]


def _false_negatives(
    labelled: pl.DataFrame, requests: pl.DataFrame, store: EventStore, until: int | None
) -> np.ndarray:
    """Candidates that are no honest negatives: the user clicks them within the day, or they tell the clicked story."""
    rows = labelled.select("request_id", "item_id", "label").with_row_index("row")
    asked = requests.select("request_id", "user_id", pl.col("requested_at").to_physical().alias("at"))
    users = asked["user_id"].unique()
    clicks = store.clicks.select("user_id", "item_id", pl.col("clicked_at").to_physical().alias("clicked"))
    clicks = clicks.filter(pl.col("user_id").is_in(users.implode()))
    if until is not None:
        clicks = clicks.filter(pl.col("clicked") < until)
    after = asked.join(clicks, on="user_id").filter(
        pl.col("clicked") >= pl.col("at"), pl.col("clicked") < pl.col("at") + LATER
    )
    later = rows.join(after, on=["request_id", "item_id"], how="semi")
    pairs = rows.filter(pl.col("label") == 0).join(
        rows.filter(pl.col("label") == 1).select("request_id", pl.col("item_id").alias("clicked")), on="request_id"
    )
    twin = same_story(store, store.item_codes(pairs["item_id"]), store.item_codes(pairs["clicked"]))
    guarded = np.zeros(len(rows), bool)
    guarded[later["row"].to_numpy()] = True
    guarded[pairs["row"].to_numpy()[twin]] = True
    guarded &= labelled["label"].to_numpy() == 0
    return guarded
