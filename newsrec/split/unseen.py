"""Requests for clicks that a bundle has not seen: what `evaluate` asks it."""

import polars as pl

from features.columns import HOUR
from features.events import EventStore, milliseconds
from newsrec.data.log import Log
from newsrec.split.config import REQUEST, Split, SplitConfig
from newsrec.split.modes import check
from newsrec.split.requests import clicks_with_history, requests_of, sample


def held_out_requests(log: Log, store: EventStore, config: SplitConfig, unseen: pl.DataFrame) -> Split:
    """Requests for clicks that somebody has not seen: what `evaluate` asks a bundle.

    Args:
        log: The log.
        store: What is known to each request: the log's events, and earlier ones.
        config: The bundle's mode, seed and number of test requests; its periods are not used.
        unseen: `user_id, item_id, clicked_at` of the clicks that may be asked for.

    Returns:
        A split with a `test` part only; it may be empty.
    """
    check(config)
    coded = pl.DataFrame(
        {
            "user": store.user_codes(unseen["user_id"]),
            "item": store.item_codes(unseen["item_id"]),
            "time": milliseconds(unseen["clicked_at"]),
        }
    )
    clicks = clicks_with_history(log, store).join(coded, on=["user", "item", "time"], how="semi")
    at = pl.col("time")
    if config.validation == "last-click":
        clicks, at = clicks.filter(pl.col("last")), pl.col("previous") + 1
    statistics = at
    if config.validation == "gap" and len(clicks):
        first = int(clicks["time"].min()) // HOUR * HOUR  # type: ignore[arg-type]
        statistics = pl.min_horizontal(at, pl.lit(first - round(config.gap_hours * HOUR)))
    requests = clicks.with_columns(at.alias("at"), statistics.alias("statistics_at"), pl.lit("test").alias("split"))
    frame, positives = requests_of(sample(requests, config), store)
    protocol: dict[str, object] = {
        "format": log.format,
        "validation": config.validation,
        "train_requests": 0,
        "test_requests": len(frame),
        "available_requests": requests.select(REQUEST).n_unique(),
        "requests": "clicks that the bundle's state does not hold",
        "seed": config.seed,
        "fingerprint": log.fingerprint,
    }
    return Split(frame, positives, protocol)
