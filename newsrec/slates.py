"""Stage 2 for impression logs: each logged list is a request, and what was clicked in it are its labels.

`SPLITS` names both ways of getting candidates: lists that were shown (`slate`), or what recall proposes (`recall`).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np
import polars as pl

from features.columns import HOUR, REQUEST_CONTEXT, TIME
from features.events import NEVER, EventStore, milliseconds
from newsrec.data import Log
from newsrec.errors import DataError, UsageError
from newsrec.split import (
    Fold,
    Split,
    SplitConfig,
    divide,
    divide_folds,
    divides_by_time,
    protocol_of,
    rolling_folds,
    split_log,
)

OF_REQUEST: Final = (*REQUEST_CONTEXT, "page_item_id")
"""Columns of impressions that a request carries into the features."""


def split_slates(log: Log, store: EventStore, config: SplitConfig) -> Split:
    """Make a request of every impression with a click, and divide them by time.

    Args:
        log: With impressions.
        store: Of the log.
        config: `temporal` or `gap`.

    Returns:
        A split whose `slates` holds every shown item; `request_id` is a number of its own, `impression_id` the log's.

    Raises:
        UsageError: A log without impressions, a validation mode for click-only logs, or impossible lengths.
        DataError: A part without a request.
    """
    impressions, clicked, config = _clicked(log, config)
    divided, sampled = divide(clicked, config)
    requests, positives, slates = _requests_and_lists(impressions, sampled, store)
    protocol = protocol_of(log, config, divided, requests) | {"requests": "every impression with a click"}
    return Split(requests, positives, protocol, divided.known_until, divided.learn_until, slates)


def slate_folds(log: Log, store: EventStore, config: SplitConfig, folds: int) -> list[Split]:
    """As `newsrec.split.rolling_folds`, whose errors it raises, of impressions with a click; each with its lists."""
    impressions, clicked, config = _clicked(log, config)

    def split_of(fold: Fold) -> Split:
        requests, positives, slates = _requests_and_lists(impressions, fold.rows, store)
        return Split(requests, positives, fold.protocol, fold.until, fold.valid, slates)

    return [split_of(fold) for fold in divide_folds(clicked, config, folds)]


def folds_for_recall(log: Log, store: EventStore, config: SplitConfig, folds: int) -> list[Split]:
    """Folds of the requests that `split_for_recall` makes."""
    if log.impressions is None:
        return rolling_folds(log, store, config, folds)
    return [replace(fold, slates=None) for fold in slate_folds(log, store, config, folds)]


def split_for_recall(log: Log, store: EventStore, config: SplitConfig) -> Split:
    """Requests whose candidates recall proposes: impressions at their own time where the log has them, else clicks.

    A click of a log with impressions follows the list that it was made from; a request at the click's time would know
    that list.
    """
    if log.impressions is None or not divides_by_time(config):
        return split_log(log, store, config)
    return replace(split_slates(log, store, config), slates=None)


def unseen_slates(log: Log, store: EventStore, config: SplitConfig, known: pl.DataFrame | None) -> Split:
    """Requests of the impressions with a click that a bundle does not know: what `evaluate` asks.

    Args:
        log: With impressions.
        store: What is known to each request.
        config: The bundle's; its number of test requests applies, its periods do not.
        known: `user_id, requested_at` of the lists that the bundle knows, or None.
    """
    if log.impressions is None:
        raise DataError("--data: expected impressions, as the bundle ranks shown lists, found clicks only.")
    rows = requests_of(log.impressions).filter(pl.col("positives") > 0)
    if known is not None:
        keys = known.select("user_id", "requested_at").unique()
        rows = rows.join(keys, on=["user_id", "requested_at"], how="anti", maintain_order="left")
    available = len(rows)
    statistics = pl.col("time")
    if config.validation == "gap" and available:
        first = int(rows["time"].min()) // HOUR * HOUR  # type: ignore[arg-type]
        statistics = pl.min_horizontal("time", pl.lit(first - round(config.gap_hours * HOUR)))
    rows = rows.with_columns(pl.col("time").alias("at"), statistics.alias("statistics_at"), split=pl.lit("test"))
    if config.test_requests < available:
        chosen = np.random.default_rng([config.seed, 1]).choice(len(rows), config.test_requests, replace=False)
        rows = rows[np.sort(chosen)]
    requests = _canonical(rows, store)
    slates = slates_of(log.impressions, requests)
    requests = _with_ages(requests, slates, store)
    protocol: dict[str, object] = {
        "format": log.format,
        "validation": config.validation,
        "train_requests": 0,
        "test_requests": len(requests),
        "available_requests": available,
        "requests": "impressions with a click that the bundle's state does not hold",
        "seed": config.seed,
        "fingerprint": log.fingerprint,
    }
    return Split(requests, _positives(slates), protocol, slates=slates)


def requests_of(impressions: pl.DataFrame) -> pl.DataFrame:
    """One row per impression, in order of time: `impression_id, user_id, requested_at, time, positives` and context."""
    kept = [name for name in OF_REQUEST if name in impressions.columns]
    return (
        impressions.group_by("request_id", maintain_order=True)
        .agg(
            pl.col("user_id", "requested_at", *kept).first(),
            pl.col("clicked").sum().cast(pl.UInt32).alias("positives"),
        )
        .rename({"request_id": "impression_id"})
        .sort("requested_at", "impression_id")
        .with_columns(pl.col("requested_at").to_physical().alias("time"))
    )


def slates_of(impressions: pl.DataFrame, requests: pl.DataFrame) -> pl.DataFrame:
    """Every shown item of some requests: `request_id, item_id, label` (UInt8), in their order and the list's own."""
    ids = requests.select("request_id", "impression_id")
    shown = impressions.select(pl.col("request_id").alias("impression_id"), "item_id", "clicked")
    joined = ids.join(shown, on="impression_id", maintain_order="left_right")
    return joined.select("request_id", "item_id", pl.col("clicked").cast(pl.UInt8).alias("label"))


def canonical_requests(rows: pl.DataFrame, store: EventStore) -> pl.DataFrame:
    """Canonical requests of all rows of `requests_of`, numbered from 0 in their order, with live statistics."""
    time = pl.col("time")
    return _canonical(rows.with_columns(time.alias("at"), time.alias("statistics_at"), split=pl.lit("test")), store)


def _canonical(rows: pl.DataFrame, store: EventStore) -> pl.DataFrame:
    user, at = store.user_codes(rows["user_id"]), rows["at"].to_numpy()
    history = store.index("user").counts(user, at, (None,))[0]
    kept = [name for name in OF_REQUEST if name in rows.columns]
    return rows.select(
        pl.int_range(pl.len(), dtype=pl.Int64).alias("request_id"),
        "impression_id",
        "user_id",
        "requested_at",
        pl.col("statistics_at").cast(TIME),
        "split",
        "positives",
        pl.Series("history_clicks", history, dtype=pl.UInt32),
        *kept,
    )


def _clicked(log: Log, config: SplitConfig) -> tuple[pl.DataFrame, pl.DataFrame, SplitConfig]:
    """The impressions, those with a click as moments to divide, and the configuration that fits them."""
    if log.impressions is None:
        raise UsageError("--candidates slate: expected a log with impressions, found clicks only. Use recall.")
    if not divides_by_time(config):
        raise UsageError(f"--validation {config.validation}: expected a click log, found shown lists. Use temporal.")
    rows = requests_of(log.impressions)
    # Numbered, so that two impressions of one user at one instant stay two.
    clicked = rows.filter(pl.col("positives") > 0).with_row_index("user").with_columns(item=pl.lit(0))
    # Long histories fill the counters before the first request: none needs to warm them up.
    config = config if config.warmup_hours is not None else replace(config, warmup_hours=0.0)
    return log.impressions, clicked, config


def _requests_and_lists(
    impressions: pl.DataFrame, sampled: pl.DataFrame, store: EventStore
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Canonical requests, their positives and their lists."""
    requests = _canonical(sampled, store)
    slates = slates_of(impressions, requests)
    return _with_ages(requests, slates, store), _positives(slates), slates


def _positives(slates: pl.DataFrame) -> pl.DataFrame:
    return slates.filter(pl.col("label") == 1).select("request_id", "item_id")


def _with_ages(requests: pl.DataFrame, slates: pl.DataFrame, store: EventStore) -> pl.DataFrame:
    """The requests with `positive_age_hours` (Float32): age of the youngest clicked article, null where unknown."""
    clicked = _positives(slates).join(
        requests.select("request_id", "requested_at"), on="request_id", maintain_order="left"
    )
    exists = store.exists_from[store.item_codes(clicked["item_id"])]
    age = (milliseconds(clicked["requested_at"]) - exists) / HOUR
    ages = clicked.select("request_id", pl.Series("age", np.where(exists == NEVER, np.nan, age)).fill_nan(None))
    youngest = ages.group_by("request_id").agg(pl.col("age").min().cast(pl.Float32).alias("positive_age_hours"))
    return requests.join(youngest, on="request_id", how="left", maintain_order="left")


SPLITS: Final[dict[str, Callable[[Log, EventStore, SplitConfig], Split]]] = {
    "recall": split_for_recall,
    "slate": split_slates,
}
"""What `--candidates` names -> how requests are made and divided."""

FOLDS: Final[dict[str, Callable[[Log, EventStore, SplitConfig, int], list[Split]]]] = {
    "recall": folds_for_recall,
    "slate": slate_folds,
}
"""The same for the folds of tuning, which leave the test period out."""
