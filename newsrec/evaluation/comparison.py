"""Is the second order better than the first? Only asked where both answered the same requests under one protocol."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from newsrec.errors import UsageError
from newsrec.evaluation.intervals import percentiles, ratio, resample_sums, sum_by
from newsrec.metrics import METRICS, Metric, values_and_weights


@dataclass(frozen=True)
class Difference:
    """One metric of two orders over the same requests."""

    first: float
    second: float
    difference: float
    """second - first: above zero, the second is better."""
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


def paired_comparison(
    first: pl.DataFrame,
    second: pl.DataFrame,
    first_protocol: Mapping[str, Any],
    second_protocol: Mapping[str, Any],
    *,
    ignore: Collection[str] = (),
    metrics: Mapping[str, Metric] = METRICS,
    n: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Difference]:
    """Compare two orders by paired bootstrap: the same users are drawn for both.

    Args:
        first: Rows of `newsrec.metrics.per_request`, the order to beat.
        second: The same of the other order; rows may be in another order.
        first_protocol: What `metrics.json` has under `protocol` for the first.
        second_protocol: The same for the second.
        ignore: Protocol keys that may differ, when that difference is what the comparison is about.
        metrics: Which columns to compare.
        n: Replicates.
        seed: Same seed, same interval.
        level: Share of replicates inside the interval.

    Returns:
        A `Difference` per metric; one that either side has nowhere is left out.

    Raises:
        UsageError: If the protocols differ (the keys are named) or the requests are not the same.
    """
    _same_protocol(first_protocol, second_protocol, ignore)
    second = _same_requests(first, second)
    sides = [values_and_weights(side, metrics) for side in (first, second)]
    sums = np.hstack([part for values, weights in sides for part in (values * weights, weights)])
    here = np.flatnonzero((sides[0][1].sum(axis=0) > 0) & (sides[1][1].sum(axis=0) > 0))
    total = np.split(sums.sum(axis=0), 4)
    drawn = np.split(resample_sums(sum_by(first["user_id"], sums), n, seed), 4, axis=1)
    low, high = percentiles(
        ratio(drawn[2][:, here], drawn[3][:, here]) - ratio(drawn[0][:, here], drawn[1][:, here]), level
    )
    one, two = ratio(total[0], total[1]), ratio(total[2], total[3])
    names = list(metrics)
    return {
        names[m]: Difference(float(one[m]), float(two[m]), float(two[m] - one[m]), float(low[i]), float(high[i]))
        for i, m in enumerate(here)
    }


def _same_protocol(first: Mapping[str, Any], second: Mapping[str, Any], ignore: Collection[str]) -> None:
    absent = object()
    keys = sorted((set(first) | set(second)) - set(ignore))
    differing = [key for key in keys if first.get(key, absent) != second.get(key, absent)]
    if differing:
        found = "; ".join(
            f"'{key}': {first.get(key, 'absent')!r} and {second.get(key, 'absent')!r}" for key in differing
        )
        raise UsageError(
            f"comparison: the protocols differ in {differing}, so the scores are not comparable ({found}). "
            "Evaluate both runs on the same data, split and candidates."
        )


def _same_requests(first: pl.DataFrame, second: pl.DataFrame) -> pl.DataFrame:
    """The second's rows in the first's order; refuses other requests, users or ids of another kind."""
    keys = ["request_id", "user_id"]
    kinds = [[str(side[key].dtype) for key in keys] for side in (first, second)]
    if kinds[0] != kinds[1]:
        raise UsageError(f"comparison: {keys} are {kinds[0]} in the first and {kinds[1]} in the second")
    only = [
        left.join(right, on=keys, how="anti")["request_id"].sort() for left, right in ((first, second), (second, first))
    ]
    if any(len(ids) for ids in only) or len(first) != len(second):
        examples = [ids.head(3).to_list() for ids in only]
        raise UsageError(
            f"comparison: the runs answered different requests: {len(first)} and {len(second)}, of which "
            f"{len(only[0])} only in the first {examples[0]} and {len(only[1])} only in the second {examples[1]}. "
            "Use one test set."
        )
    if len(first) == 0:
        raise UsageError("comparison: both runs hold no requests. Use a test set with at least one.")
    return first.select(keys).join(second, on=keys, how="left", maintain_order="left")
