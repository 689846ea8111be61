"""What another policy would have earned, estimated from decisions that a known policy took and logged.

A decision: something was chosen with a known probability (the propensity) and brought a reward. The other policy would
have chosen the same with another probability (the target). Where their ratio is large, few decisions speak for many:
the effective sample size says how few, and below a floor there is no estimate at all.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final, Literal

import numpy as np
import polars as pl

from newsrec.errors import DataError, UsageError
from newsrec.evaluation.intervals import Interval, ends, resample_sums, sum_by
from newsrec.frames import to_polars
from newsrec.metrics import Floats, effective_size

FLOOR: Final = 100.0
"""Effective decisions below which an interval by the normal law or by the bootstrap is not to be trusted."""
NEEDED: Final = ("reward", "propensity", "target")
PREDICTED: Final = ("predicted", "predicted_target")


@dataclass(frozen=True)
class Decisions:
    """Logged decisions; every array has shape (n_decisions,)."""

    reward: Floats
    weight: Floats
    """Target by propensity, clipped, >= 0."""
    predicted: Floats
    """Reward that a model expected of what was chosen; zeros without a model."""
    predicted_target: Floats
    """Reward that the model expects of the other policy at the same decision; zeros without a model."""


Parts = tuple[Floats, Floats]
Estimator = Callable[[Decisions], Parts]
"""Gives numerator and denominator of each decision, (n_decisions,) each; their sums' quotient is the estimate."""


def inverse_propensity(decisions: Decisions) -> Parts:
    """IPS: mean of `w r` (Horvitz and Thompson 1952). Unbiased, and wild where weights are."""
    return decisions.weight * decisions.reward, np.ones(len(decisions.reward))


def self_normalised(decisions: Decisions) -> Parts:
    """SNIPS: `sum(w r) / sum(w)` (Swaminathan and Joachims 2015). Slightly biased, never outside the rewards."""
    return decisions.weight * decisions.reward, decisions.weight


def doubly_robust(decisions: Decisions) -> Parts:
    """DR: mean of `rhat(target) + w (r - rhat)` (Dudik et al. 2011): right if propensities or predictions are."""
    surprise = decisions.weight * (decisions.reward - decisions.predicted)
    return decisions.predicted_target + surprise, np.ones(len(decisions.reward))


ESTIMATORS: Final[Mapping[str, Estimator]] = {
    "ips": inverse_propensity,
    "snips": self_normalised,
    "dr": doubly_robust,
}
"""Every estimator by its name; `dr` is only given where there are predictions."""


@dataclass(frozen=True)
class Estimate:
    """Value of a policy: the reward that it earns per decision."""

    value: float
    low: float
    high: float
    effective: float
    """Effective sample size `(sum w)^2 / sum w^2` (Kish 1965), 1..n_decisions."""
    decisions: int
    clipped: float
    """Share of decisions whose weight was clipped, 0..1."""


def off_policy(
    logged: object,
    *,
    clip: float | None = None,
    floor: float = FLOOR,
    interval: Literal["normal", "bootstrap"] = "normal",
    level: float = 0.95,
    n: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Estimate the value of the target policy by each of `ESTIMATORS`.

    Args:
        logged: Polars or pandas, one row per decision: `reward` (finite), `propensity` (of what was chosen, above 0, at
            most 1) and `target` (the other policy's probability of the same choice, 0..1). With `predicted` and
            `predicted_target` (see `Decisions`) there is also `dr`; the model must not have seen the row's own reward.
            With `user_id` the decisions of one user are drawn together.
        clip: Largest weight; None clips nothing. Clipping trades variance for bias, of which the interval is
            silent.
        floor: Least effective sample size.
        interval: `normal` (delta method) or `bootstrap` (percentiles).
        level: Coverage of the interval.
        n: Replicates of the bootstrap.
        seed: Of the bootstrap.

    Raises:
        DataError: Missing columns, values out of range, or fewer effective decisions than the floor.
        UsageError: `clip`, `level` or `n` out of range.

    >>> rows = {"reward": [1, 0, 0, 1] * 100, "propensity": [0.5] * 400, "target": [1.0, 0.0] * 200}
    >>> off_policy(pl.DataFrame(rows))["ips"].value
    0.5
    """
    frame = _checked(to_polars(logged, "logged decisions"))
    if clip is not None and not clip > 0:
        raise UsageError(f"off-policy: expected a largest weight above 0, found clip={clip}.")
    if not 0 < level < 1:
        raise UsageError(f"off-policy: expected a level between 0 and 1, found {level}.")
    raw = (frame["target"] / frame["propensity"]).to_numpy()
    weight = raw if clip is None else np.minimum(raw, clip)
    effective = effective_size(weight)
    if effective < floor:
        raise DataError(
            f"off-policy: expected at least {floor:g} effective decisions, found {effective:.1f} of {len(frame):,}: "
            "the two policies hardly ever choose the same. Log more, compare a closer policy, or clip the weights."
        )
    models = [frame[name].to_numpy() if name in frame.columns else np.zeros(len(frame)) for name in PREDICTED]
    decisions = Decisions(frame["reward"].to_numpy(), weight, *models)
    names = [name for name in ESTIMATORS if name != "dr" or PREDICTED[0] in frame.columns]
    clipped = float(np.mean(raw > weight))
    found = {}
    for name in names:
        sums = np.column_stack(ESTIMATORS[name](decisions))
        by_user = sum_by(frame["user_id"], sums) if "user_id" in frame.columns else sums
        value = float(sums[:, 0].sum() / sums[:, 1].sum())
        around = _normal(by_user, value, level) if interval == "normal" else _bootstrap(by_user, level, n, seed)
        found[name] = Estimate(value, around.low, around.high, effective, len(frame), clipped)
    return found


def _normal(sums: Floats, value: float, level: float) -> Interval:
    """Delta method for a quotient of sums over independent groups, (n_groups, 2)."""
    groups = len(sums)
    surprise = sums[:, 0] - value * sums[:, 1]
    variance = np.square(surprise).sum() * groups / max(groups - 1, 1) / np.square(sums[:, 1].sum())
    half = NormalDist().inv_cdf((1 + level) / 2) * float(np.sqrt(variance))
    return Interval(value - half, value + half)


def _bootstrap(sums: Floats, level: float, n: int, seed: int) -> Interval:
    drawn = resample_sums(sums, n, seed)
    low, high = ends(drawn[:, :1], drawn[:, 1:], level)
    return Interval(float(low[0]), float(high[0]))


def _checked(frame: pl.DataFrame) -> pl.DataFrame:
    """The columns as Float64, all in range; an error tells all faults."""
    missing = sorted(set(NEEDED) - set(frame.columns))
    lone = sorted(set(PREDICTED) - set(frame.columns)) if set(PREDICTED) & set(frame.columns) else []
    if missing or lone or frame.is_empty():
        raise DataError(
            f"logged decisions: expected rows with {list(NEEDED)} and both or none of {list(PREDICTED)}, found "
            f"{len(frame)} rows with {frame.columns}. Add {missing + lone or 'rows'}."
        )
    numbers = [name for name in (*NEEDED, *PREDICTED) if name in frame.columns]
    frame = frame.with_columns(pl.col(numbers).cast(pl.Float64))
    faults = {
        **{f"'{name}' null or not finite": ~pl.col(name).is_finite().fill_null(False) for name in numbers},
        "'propensity' not above 0 and at most 1": ~pl.col("propensity").is_between(0, 1, closed="right"),
        "'target' outside 0..1": ~pl.col("target").is_between(0, 1),
    }
    counts = frame.select(fault.sum().alias(name) for name, fault in faults.items()).row(0, named=True)
    if any(counts.values()):
        found = "; ".join(f"{count} with {name}" for name, count in counts.items() if count)
        raise DataError(f"logged decisions: of {len(frame):,} rows {found}. Mend or drop them.")
    return frame
