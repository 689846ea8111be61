"""The whole catalogue for ten million candidates, and twelve of its features against two ways of pandas on a sample."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl

from features.build import build
from features.catalog import Feature, features_for, parts_of
from features.columns import HOUR
from features.events import EventStore
from features.vocabulary import Vocabulary
from newsrec.data import Log, read_log
from newsrec.process import peak_rss_mb
from newsrec.recall import CHANNELS
from newsrec.simulate import simulate

ROWS = 10_000_000
PER_REQUEST = 100
CHUNK = 10_000
SAMPLE = 200
"""Requests for pandas: 20,000 candidates."""
WINDOWS = {"1h": HOUR, "3h": 3 * HOUR, "12h": 12 * HOUR, "24h": 24 * HOUR, "48h": 48 * HOUR, "all": None}
TWELVE = (
    *(f"item_clicks_{w}" for w in ("1h", "3h", "12h", "24h", "48h", "all")),
    "category_clicks_1h",
    "category_clicks_12h",
    "user_clicks",
    "user_clicks_24h",
    "user_category_clicks",
    "item_minutes_since_click",
)


def run(data: Path | None) -> Iterator[str]:
    """Seconds and peak memory for the whole catalogue; then seconds per row of twelve features, three ways."""
    log = simulate().log if data is None else read_log(data)
    store, vocabulary = EventStore(log.clicks, log.articles, log.impressions), Vocabulary.of(log.clicks)
    features = features_for(CHANNELS, parts_of(log.clicks, log.articles, log.impressions))
    began = time.perf_counter()
    kept = [_described(log, store, vocabulary, features, CHUNK, seed) for seed in range(ROWS // PER_REQUEST // CHUNK)]
    seconds = time.perf_counter() - began
    rows = sum(len(frame) for frame in kept)
    yield f"{rows:,} rows, {len(features)} features: {seconds:.1f} s; peak memory {peak_rss_mb():,.0f} MB"
    del kept
    twelve = [f for f in features if f.name in TWELVE]
    requests, candidates = _asked(log, SAMPLE, 0)
    seconds = {}
    answers = {}
    for name, way in (
        ("newsrec", lambda: build(candidates, requests, store, vocabulary, twelve)),
        ("groupby-apply", lambda: _by_apply(log, requests, candidates)),
        ("merge_asof", lambda: _by_merge(log, requests, candidates)),
    ):
        began = time.perf_counter()
        answers[name] = way()
        seconds[name] = time.perf_counter() - began
    for name in ("groupby-apply", "merge_asof"):
        same = np.allclose(answers[name]["item_clicks_24h"], answers["newsrec"]["item_clicks_24h"])
        ratio = seconds[name] / seconds["newsrec"]
        yield (
            f"{len(candidates):,} rows, 12 features: newsrec {seconds['newsrec']:.2f} s, pandas {name} "
            f"{seconds[name]:.1f} s, ratio {ratio:.0f}, {'equal' if same else 'OTHER'} counts"
        )


def _asked(log: Log, n: int, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Requests at moments of clicks in the second half of the log, each with random articles."""
    rng = np.random.default_rng(seed)
    late = log.clicks[len(log.clicks) // 2 :]
    at = late[rng.integers(0, len(late), n)]
    requests = pl.DataFrame(
        {
            "request_id": np.arange(n),
            "user_id": at["user_id"],
            "requested_at": at["clicked_at"],
            "statistics_at": at["clicked_at"],
        }
    )
    items = log.clicks["item_id"][rng.integers(0, len(log.clicks), n * PER_REQUEST)]
    candidates = pl.DataFrame({"request_id": np.repeat(np.arange(n), PER_REQUEST), "item_id": items})
    rank = pl.Series(np.tile(np.arange(1, PER_REQUEST + 1), n), dtype=pl.UInt16)
    said = {f"{name}_{what}": rank.cast(pl.Float32) for name in CHANNELS for what in ("score", "rank")}
    return requests, candidates.with_columns(recall_rank=rank, **said)


def _described(
    log: Log, store: EventStore, vocabulary: Vocabulary, features: tuple[Feature, ...], n: int, seed: int
) -> pl.DataFrame:
    requests, candidates = _asked(log, n, seed)
    return build(candidates, requests, store, vocabulary, features)


def _tables(log: Log, requests: pl.DataFrame, candidates: pl.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    category = log.articles.select("item_id", "category")
    clicks = log.clicks.select("user_id", "item_id", "clicked_at").join(category, on="item_id", how="left")
    rows = candidates.select("request_id", "item_id").join(requests, on="request_id", maintain_order="left")
    rows = rows.join(category, on="item_id", how="left", maintain_order="left").rename({"requested_at": "at"})
    ms = pl.selectors.datetime().dt.epoch("ms")
    return (
        pd.DataFrame(clicks.with_columns(ms).rename({"clicked_at": "t"}).to_dict(as_series=False)),
        pd.DataFrame(rows.with_columns(ms).to_dict(as_series=False)),
    )


KEYS = {
    "item_clicks": (["item_id"], ("1h", "3h", "12h", "24h", "48h", "all")),
    "category_clicks": (["category"], ("1h", "12h")),
    "user_clicks": (["user_id"], ("24h", "all")),
    "user_category_clicks": (["user_id", "category"], ("all",)),
}


def _by_apply(log: Log, requests: pl.DataFrame, candidates: pl.DataFrame) -> pd.DataFrame:
    """A group of events per key, and per row a mask over its group: how feature scripts mostly look."""
    clicks, rows = _tables(log, requests, candidates)
    for name, (keys, windows) in KEYS.items():
        groups = {key: group["t"] for key, group in clicks.groupby(keys)}

        def count(row: pd.Series, keys: list[str] = keys, windows: tuple[str, ...] = windows, groups: dict = groups):
            times = groups.get(tuple(row[key] for key in keys), pd.Series(dtype="int64"))
            before = times[times < row["at"]]
            spans = [WINDOWS[w] for w in windows]
            return pd.Series(
                [len(before) if span is None else int((before >= row["at"] - span).sum()) for span in spans]
            )

        rows[[f"{name}_{w}" for w in windows]] = rows.apply(count, axis=1)
    last = {key: group["t"] for key, group in clicks.groupby("item_id")}
    rows["item_clicked"] = rows.apply(lambda r: last[r["item_id"]][last[r["item_id"]] < r["at"]].max(), axis=1)
    return rows


def _by_merge(log: Log, requests: pl.DataFrame, candidates: pl.DataFrame) -> pd.DataFrame:
    """Running counts per key, joined at both edges of each window: the fast way of pandas."""
    clicks, rows = _tables(log, requests, candidates)
    clicks = clicks.sort_values("t")
    for name, (keys, windows) in KEYS.items():
        running = clicks.assign(n=clicks.groupby(keys).cumcount() + 1)[[*keys, "t", "n"]]

        def at(edge: pd.Series, running: pd.DataFrame = running, keys: list[str] = keys) -> np.ndarray:
            asked = rows[keys].assign(t=edge, order=np.arange(len(rows))).sort_values("t")
            found = pd.merge_asof(asked, running, on="t", by=keys, allow_exact_matches=False)
            return found.sort_values("order")["n"].fillna(0).to_numpy()

        right = at(rows["at"])
        for window in windows:
            span = WINDOWS[window]
            rows[f"{name}_{window}"] = right if span is None else right - at(rows["at"] - span)
    asked = rows[["item_id"]].assign(t=rows["at"], order=np.arange(len(rows))).sort_values("t")
    latest = clicks[["item_id", "t"]].assign(last=clicks["t"])
    found = pd.merge_asof(asked, latest, on="t", by="item_id", allow_exact_matches=False)
    rows["item_clicked"] = found.sort_values("order")["last"].to_numpy()
    return rows
