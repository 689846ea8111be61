"""How much the model's input has moved: features of an older period's requests against those of a newer one."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from features.catalog import Feature
from features.columns import DAY, TIME
from features.events import EventStore
from features.vocabulary import UNKNOWN
from features.windows import NO_TIME
from newsrec.serve import Recommender
from newsrec.slates import canonical_requests, requests_of, slates_of

Floats = npt.NDArray[np.float64]

BINS: Final = 10
PSI_LIMIT: Final = 0.25
"""Population stability index from which a feature has drifted: the usual border of a large shift (Siddiqi 2006)."""
FLOOR: Final = 1e-4
"""Share that an empty bin is given, so that the logarithm exists."""
REQUESTS: Final = 1_000
"""Requests of each period at most: some 100,000 candidates."""
SOURCE: Final = "Siddiqi, Credit Risk Scorecards, 2006; Yurdakul, Statistical Properties of PSI, 2018"


def psi(old: pl.Series, new: pl.Series, categorical: bool = False) -> float | None:
    """Population stability index of a column: sum over bins of (q - p) ln(q / p), >= 0; None without values in both.

    Bins are ten quantiles of the old values, or the codes of a categorical; equal quantiles are one bin. Nulls are left
    out. Source: see `SOURCE`.

    >>> psi(pl.Series([1.0, 2.0]), pl.Series([2.0, 1.0, 1.0, 2.0]))
    0.0
    """
    first, second = (np.asarray(s.drop_nulls().cast(pl.Float64).to_numpy()) for s in (old, new))
    if not len(first) or not len(second):
        return None
    # An edge belongs to the bin below it, so that many equal values, such as zeros, stay together.
    quantiles = np.quantile(first, np.arange(1, BINS) / BINS, method="inverted_cdf")
    edges = np.unique(np.concatenate([first, second]) if categorical else quantiles)
    p, q = (_shares(values, edges) for values in (first, second))
    return float(((q - p) * np.log(q / p)).sum())


def _shares(values: Floats, edges: Floats) -> Floats:
    """Share of the values up to each edge and above all, never below `FLOOR`; shape (n_edges + 1,)."""
    counts = np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)
    return np.maximum(counts / len(values), FLOOR)


def drift_table(old: pl.DataFrame, new: pl.DataFrame, features: Sequence[Feature]) -> pl.DataFrame:
    """Compare described candidates of two periods.

    Returns:
        `feature, family, psi` (null where a period has no value), `null_old, null_new` (0..1), `unseen_old, unseen_new`
        (0..1: codes that the vocabulary does not know; null but for categoricals) and `drifted`; largest PSI first.
    """
    rows = []
    for f in features:
        moved = psi(old[f.name], new[f.name], f.categorical)
        rows.append(
            {
                "feature": f.name,
                "family": f.family,
                "psi": moved,
                "null_old": _share(old[f.name].is_null()),
                "null_new": _share(new[f.name].is_null()),
                "unseen_old": _share(old[f.name] == UNKNOWN) if f.categorical else None,
                "unseen_new": _share(new[f.name] == UNKNOWN) if f.categorical else None,
                "drifted": moved is not None and moved > PSI_LIMIT,
            }
        )
    numbers = dict.fromkeys(("psi", "null_old", "null_new", "unseen_old", "unseen_new"), pl.Float64)
    frame = pl.DataFrame(rows, schema_overrides=numbers, infer_schema_length=None)
    return frame.sort("psi", descending=True, nulls_last=True, maintain_order=True)


def _share(flags: pl.Series) -> float | None:
    return None if flags.is_empty() else round(float(flags.mean() or 0.0), 4)  # type: ignore[arg-type]


def described_sample(recommender: Recommender, since: int, until: int, seed: int) -> tuple[pl.DataFrame, int]:
    """Features of the candidates of requests in `[since, until)`, ms, drawn evenly: lists with a click, else clicks.

    Returns:
        One Float32 column per feature, one row per candidate, and the number of requests; both may be of nothing.
    """
    store = recommender.store
    lists = store.impressions
    shown = None if lists is None else _between(lists, "requested_at", since, until)
    rng = np.random.default_rng([seed, 5])
    slates = None
    if shown is not None and shown["clicked"].any():
        rows = _drawn(requests_of(shown).filter(pl.col("positives") > 0), rng)
        requests = recommender.own.with_columns(canonical_requests(rows, store), shown)
        slates = slates_of(shown, requests) if recommender.ranks_slates else None
    else:
        asked = (
            _between(store.clicks, "clicked_at", since, until)
            .unique(["user_id", "clicked_at"])
            .sort("clicked_at", "user_id")
        )
        before = store.index("user").latest(
            store.user_codes(asked["user_id"]), asked["clicked_at"].to_physical().to_numpy()
        )
        rows = _drawn(asked.filter(pl.Series(before != NO_TIME)), rng)
        requests = recommender.requests(rows["user_id"], rows["clicked_at"].to_physical().to_numpy())
    names = recommender.manifest["features"]
    if requests.is_empty() or (recommender.ranks_slates and slates is None):
        return pl.DataFrame(schema=dict.fromkeys(names, pl.Float32)), 0
    assembly = recommender.assembly(requests)
    assembly = assembly if slates is None else replace(assembly, slates=slates)
    return assembly.describe(assembly.cut(assembly.lists(requests)[0]), requests), len(requests)


def _between(frame: pl.DataFrame, time: str, since: int, until: int) -> pl.DataFrame:
    low, high = (pl.lit(border).cast(TIME) for border in (since, until))
    return frame.filter((pl.col(time) >= low) & (pl.col(time) < high))


def _drawn(rows: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    chosen = rng.choice(len(rows), REQUESTS, replace=False) if len(rows) > REQUESTS else np.arange(len(rows))
    return rows[np.sort(chosen)]


def events_per_day(store: EventStore, since: int, until: int) -> dict[str, float]:
    """Clicks and shown lists per day in `[since, until)`, ms."""
    days = max((until - since) / DAY, 1e-9)
    clicks, lists = len(_between(store.clicks, "clicked_at", since, until)), store.impressions
    found = {"clicks": round(clicks / days, 2)}
    if lists is not None:
        found["lists"] = round(_between(lists, "requested_at", since, until)["request_id"].n_unique() / days, 2)
    return found


def drift_page(table: pl.DataFrame, requests: dict[str, int], per_day: dict[str, dict[str, float]]) -> dict[str, Any]:
    """What `drift.json` holds."""
    return {
        "psi_limit": PSI_LIMIT,
        "source": SOURCE,
        "requests": requests,
        "events_per_day": per_day,
        "drifted": table.filter("drifted")["feature"].to_list(),
        "features": table.to_dicts(),
    }
