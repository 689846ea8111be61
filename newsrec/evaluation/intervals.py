"""Bootstrap intervals of a mean: how far it would move with other requests of the same kind.

Percentile bootstrap (Efron, 1979). What is drawn are users where users are known: requests of one user resemble each
other, and drawing them one by one makes the interval too narrow. It says nothing of other days or another seed.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from newsrec.errors import UsageError
from newsrec.metrics import METRICS, Floats, Metric, values_and_weights


class Interval(NamedTuple):
    """Where the mean of like requests would lie; JSON keeps it as `[low, high]`."""

    low: float
    high: float


def bootstrap_interval(
    values: ArrayLike,
    n: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    *,
    weights: ArrayLike | None = None,
    groups: ArrayLike | None = None,
) -> Interval:
    """Interval of the mean of one metric.

    Args:
        values: (n_requests,), NaN where a request has no value (it is drawn, but does not count).
        n: Replicates, >= 1.
        seed: Same seed and values, same interval.
        level: Share of replicates inside, in 0..1.
        weights: (n_requests,) >= 0, for a weighted mean such as GAUC; all equal by default.
        groups: (n_requests,) what is drawn together, such as the user; each request alone by default.

    Returns:
        Lower and upper end.

    Raises:
        UsageError: If there is no value at all, or `n` or `level` is out of range.

    >>> bootstrap_interval([0.5, 0.5, 0.5])
    Interval(low=0.5, high=0.5)
    """
    value = np.asarray(values, np.float64)
    known = ~np.isnan(value)
    weight = np.where(known, 1.0 if weights is None else np.asarray(weights, np.float64), 0.0)
    if not weight.any():
        raise UsageError(f"bootstrap: expected at least one value, found {len(value)} requests without any")
    sums = np.column_stack([np.where(known, value, 0.0) * weight, weight])
    drawn = resample_sums(sums if groups is None else sum_by(pl.Series(np.asarray(groups)), sums), n, seed)
    low, high = ends(drawn[:, :1], drawn[:, 1:], level)
    return Interval(float(low[0]), float(high[0]))


def metric_intervals(
    per_request: pl.DataFrame,
    metrics: Mapping[str, Metric] = METRICS,
    n: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Intervals of all figures of `newsrec.metrics.summarise`, users drawn; a metric without values is left out."""
    values, weights = values_and_weights(per_request, metrics)
    if not weights.any():
        return {}
    drawn = resample_sums(sum_by(per_request["user_id"], np.hstack([values * weights, weights])), n, seed)
    here = weights.sum(axis=0) > 0
    low, high = ends(drawn[:, : len(metrics)][:, here], drawn[:, len(metrics) :][:, here], level)
    names = [name for name, any_value in zip(metrics, here, strict=True) if any_value]
    return {name: Interval(float(low[i]), float(high[i])) for i, name in enumerate(names)}


def resample_sums(sums: Floats, n: int, seed: int) -> Floats:
    """Column sums of `n` draws with replacement of the rows: (n_groups, n_columns) to (n, n_columns).

    A draw is kept as how often each row came up, so memory does not grow with `n` and all columns share the draws.
    """
    if n < 1:
        raise UsageError(f"bootstrap: expected at least 1 replicate, found n={n}")
    rng = np.random.default_rng(seed)
    size = len(sums)
    drawn = np.empty((n, sums.shape[1]))
    for replicate in range(n):
        drawn[replicate] = np.bincount(rng.integers(0, size, size), minlength=size).astype(np.float64) @ sums
    return drawn


def sum_by(group: pl.Series, sums: Floats) -> Floats:
    """Sum the rows of each group, groups in their sorted order: (n_rows, n_columns) to (n_groups, n_columns)."""
    code = group.rank("dense").to_numpy().astype(np.int64) - 1
    size = int(code.max()) + 1 if len(code) else 0
    return np.column_stack([np.bincount(code, weights=column, minlength=size) for column in sums.T])


def ends(numerator: Floats, denominator: Floats, level: float) -> tuple[Floats, Floats]:
    """Percentiles of the replicates' ratios, column by column."""
    return percentiles(ratio(numerator, denominator), level)


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Quotient, NaN where a replicate drew no request that counts."""
    empty: NDArray[np.float64] = np.full(numerator.shape, np.nan)
    return np.divide(numerator, denominator, out=empty, where=denominator > 0)


def percentiles(replicates: Floats, level: float) -> tuple[Floats, Floats]:
    """The two ends that leave (1 - level) / 2 of the replicates (n, n_columns) outside on each side."""
    if not 0 < level < 1:
        raise UsageError(f"bootstrap: expected a level between 0 and 1, found {level}")
    low, high = np.nanquantile(replicates, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high
