"""Two orders are only compared where they answered the same requests under the same protocol."""

import numpy as np
import polars as pl
import pytest

from newsrec.errors import UsageError
from newsrec.evaluation import Difference, paired_comparison
from newsrec.metrics import METRICS, per_request, summarise

PROTOCOL = {"format": "tianchi", "validation": "last-click", "seed": 0, "fingerprint": "abc"}


def run(strength: float, n: int = 300, seed: int = 0) -> pl.DataFrame:
    """Requests whose clicked article gets so much extra score."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(n, 20)) + np.random.default_rng(seed).normal(size=(n, 20)) / 10
    noise[:, 0] += strength
    rows = {"request_id": np.repeat(np.arange(n), 20), "item_id": np.tile(np.arange(20), n), "score": noise.ravel()}
    scored = pl.DataFrame(rows).with_columns(label=(pl.col("item_id") == 0).cast(pl.Int8))
    requests = {"request_id": np.arange(n), "user_id": np.arange(n) // 2, "positives": np.ones(n, int)}
    return per_request(scored, pl.DataFrame(requests))


def test_a_better_order_is_clearly_better_and_the_reverse_clearly_worse() -> None:
    weak, strong = run(0.5), run(1.5)
    there = paired_comparison(weak, strong, PROTOCOL, PROTOCOL, n=300)
    back = paired_comparison(strong, weak, PROTOCOL, PROTOCOL, n=300)
    assert there.keys() == METRICS.keys()
    for name in ("mrr@5", "hit@5", "ndcg@10", "auc", "gauc"):
        found = there[name]
        assert found.clear
        assert 0 < found.low < found.difference < found.high
        assert (found.first, found.second) == pytest.approx((summarise(weak)[name], summarise(strong)[name]))
        assert back[name].high == pytest.approx(-found.low)


def test_an_order_does_not_differ_from_itself_whatever_the_row_order() -> None:
    rows = run(1.0)
    for found in paired_comparison(rows, rows.sample(fraction=1, shuffle=True, seed=1), PROTOCOL, PROTOCOL).values():
        assert (found.difference, found.low, found.high) == (0, 0, 0)
        assert not found.clear


def test_pairing_makes_the_interval_narrow() -> None:
    found = paired_comparison(run(1.0), run(1.0, seed=9), PROTOCOL, PROTOCOL, n=300)["mrr@5"]
    alone = run(1.0)["mrr@5"].to_numpy().std() / np.sqrt(300) * 1.96 * np.sqrt(2) * 2
    assert found.high - found.low < alone / 2


@pytest.mark.parametrize("other", [{"seed": 1}, {"seed": 1, "candidates": "slate"}])
def test_differing_protocols_are_named(other: dict[str, object]) -> None:
    rows = run(1.0, n=10)
    with pytest.raises(UsageError, match="protocols differ in " + str(sorted(other)).replace("[", r"\[")) as raised:
        paired_comparison(rows, rows, PROTOCOL, {**PROTOCOL, **other})
    assert "'format'" not in str(raised.value)
    assert paired_comparison(rows, rows, PROTOCOL, {**PROTOCOL, **other}, ignore=other)


def test_other_requests_are_refused_with_examples() -> None:
    rows = run(1.0, n=10)
    with pytest.raises(UsageError, match=r"10 and 9, of which 1 only in the first \[3\] and 0 only in the second \[\]"):
        paired_comparison(rows, rows.filter(pl.col("request_id") != 3), PROTOCOL, PROTOCOL)
    moved = rows.with_columns(pl.col("user_id") + 1000)
    with pytest.raises(UsageError, match="10 only in the first"):
        paired_comparison(rows, moved, PROTOCOL, PROTOCOL)
    with pytest.raises(UsageError, match=r"Int64.*String"):
        paired_comparison(rows, rows.with_columns(pl.col("request_id").cast(pl.String)), PROTOCOL, PROTOCOL)
    with pytest.raises(UsageError, match="no requests"):
        paired_comparison(rows.head(0), rows.head(0), PROTOCOL, PROTOCOL)


def test_a_metric_that_one_side_lacks_is_left_out() -> None:
    rows = run(1.0, n=10)
    without = rows.with_columns(pl.lit(None, pl.Float64).alias("auc"))
    assert paired_comparison(rows, without, PROTOCOL, PROTOCOL, n=10).keys() == METRICS.keys() - {"auc"}


def test_clear_means_zero_is_outside() -> None:
    assert Difference(0.1, 0.2, 0.1, 0.05, 0.15).clear
    assert Difference(0.2, 0.1, -0.1, -0.15, -0.05).clear
    assert not Difference(0.1, 0.2, 0.1, 0.0, 0.2).clear
