"""Clicks that ask, before the log is divided; sampled requests in canonical form, after."""

import numpy as np
import polars as pl

from features.columns import HOUR, TIME
from features.events import EventStore
from features.windows import NO_TIME, Ints
from newsrec.data.log import Log
from newsrec.split.config import LOG_REQUESTS, REQUEST, SplitConfig


def clicks_with_history(log: Log, store: EventStore) -> pl.DataFrame:
    """Clicks with an earlier click of the same user: `user, item` (codes), `time, previous` (ms), `last` (Boolean)."""
    s = store.sequences
    # The earlier click must be strictly earlier: at the same instant neither is known when the other is asked for.
    previous = store.index("user").latest(s.user, s.time)
    ends = np.searchsorted(s.user, s.user, side="right") - 1
    frame = pl.DataFrame(
        {"user": s.user, "item": s.item, "time": s.time, "previous": previous, "last": s.time == s.time[ends]}
    )
    clicks = frame.filter(pl.col("previous") != NO_TIME)
    if log.held_out_users is None:
        return clicks
    held_out = log.held_out_users.select("user_id").join(
        pl.DataFrame({"user_id": store.users, "user": np.arange(len(store.users), dtype=np.int64)}), on="user_id"
    )
    return clicks.join(held_out, on="user", how="anti", maintain_order="left")


def sample(requests: pl.DataFrame, config: SplitConfig) -> pl.DataFrame:
    """At most the configured number of requests per part, in order of time, then user."""
    limits = {
        "train": LOG_REQUESTS if config.train_requests is None else config.train_requests,
        "valid": config.valid_requests,
        "test": config.test_requests,
    }
    ordered = requests.sort("at", "user", "item")
    rng = np.random.default_rng([config.seed, 1])
    parts = []
    for name, limit in limits.items():
        part = ordered.filter(pl.col("split") == name)
        keys = part.select(REQUEST).unique(maintain_order=True)
        if len(keys) > limit:
            chosen = keys[np.sort(rng.choice(len(keys), limit, replace=False))]
            part = part.join(chosen, on=list(REQUEST), how="semi", maintain_order="left")
        parts.append(part)
    return pl.concat(parts).sort("at", "user", "item")


def requests_of(clicks: pl.DataFrame, store: EventStore) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Canonical requests and positives: clicks of one user at one instant are one request."""
    created = store.created[clicks["item"].to_numpy()]
    age = np.where(created == NO_TIME, np.nan, (clicks["at"].to_numpy() - created) / HOUR)
    clicks = clicks.with_columns(pl.Series("age", age, dtype=pl.Float32).fill_nan(None))
    requests = clicks.group_by(REQUEST, maintain_order=True).agg(
        pl.col("statistics_at", "split").first(),
        pl.len().cast(pl.UInt32).alias("positives"),
        pl.col("age").min().alias("positive_age_hours"),
    )
    requests = requests.with_row_index("request_id").with_columns(pl.col("request_id").cast(pl.Int64))
    positives = clicks.join(requests.select("request_id", *REQUEST), on=list(REQUEST), maintain_order="left")
    user: Ints = requests["user"].to_numpy()
    history = store.index("user").counts(user, requests["at"].to_numpy(), (None,))[0]
    canonical = requests.select(
        "request_id",
        store.users.gather(user).alias("user_id"),
        pl.col("at").cast(TIME).alias("requested_at"),
        pl.col("statistics_at").cast(TIME),
        "split",
        "positives",
        pl.Series("history_clicks", history, dtype=pl.UInt32),
        "positive_age_hours",
    )
    return canonical, pl.DataFrame(
        {"request_id": positives["request_id"], "item_id": store.items.gather(positives["item"])}
    )
