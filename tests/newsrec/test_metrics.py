"""Metrics by hand, against slow loops, against ir-measures, and under changes that must not change them."""

import math
from collections import defaultdict
from collections.abc import Iterator

import ir_measures
import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from newsrec.errors import DataError, UsageError
from newsrec.metrics import METRICS, Metric, hit, logloss, mrr, ndcg, per_request, rank_within, summarise

SCHEMA = {"request_id": pl.Int64, "item_id": pl.Int64, "score": pl.Float64, "label": pl.Int8}
PLACED = ("mrr@5", "mrr", "hit@5", "ndcg@5", "ndcg@10", "recall@50")


def candidates(*rows: tuple[int, int, float, int]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=SCHEMA, orient="row")


def asked(*rows: tuple[int, int, int]) -> pl.DataFrame:
    names = {"request_id": pl.Int64, "user_id": pl.Int64, "positives": pl.Int64}
    return pl.DataFrame(list(rows), schema=names, orient="row")


def random_case(seed: int, n: int = 40, size: int = 30, levels: int = 8) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Requests with several, one or no found positives, missed ones, ties, and some without candidates."""
    rng = np.random.default_rng(seed)
    rows, requests = [], []
    for request in range(n):
        count = int(rng.integers(0, size))
        labels = (rng.random(count) < rng.choice([0.0, 0.1, 0.4, 1.0])).astype(int)
        items = rng.permutation(1000)[:count]
        scores = rng.integers(0, levels, count) / levels
        rows += zip([request] * count, items.tolist(), scores.tolist(), labels.tolist(), strict=True)
        missed = int(rng.integers(0, 3))
        requests.append((request, int(rng.integers(0, n // 3)), max(int(labels.sum()) + missed, 1)))
    shuffled = [rows[i] for i in rng.permutation(len(rows))]
    return candidates(*shuffled), asked(*requests)


def slow_auc(scored: list[tuple[float, int]]) -> float | None:
    wins = [1.0 if p > n else 0.5 if p == n else 0.0 for p, a in scored if a for n, b in scored if not b]
    return sum(wins) / len(wins) if wins else None


def slow_metrics(scored: pl.DataFrame, requests: pl.DataFrame) -> Iterator[dict[str, float | None]]:
    """The formulas, one request at a time."""
    lists: dict[int, list[tuple[float, int, int]]] = defaultdict(list)
    for request, item, score, label in scored.rows():
        lists[request].append((-score, item, label))
    of_user: dict[int, list[tuple[float, int]]] = defaultdict(list)
    for request, user, _ in requests.rows():
        if {label for *_, label in lists[request]} == {0, 1}:
            of_user[user] += [(-negated, label) for negated, _, label in lists[request]]
    for request, user, positives in requests.rows():
        labels = [label for *_, label in sorted(lists[request])]
        ranks = [place for place, label in enumerate(labels, start=1) if label]
        row: dict[str, float | None] = {
            "mrr@5": 1 / ranks[0] if ranks and ranks[0] <= 5 else 0.0,
            "mrr": sum(1 / rank for rank in ranks) / positives,
            "hit@5": float(any(rank <= 5 for rank in ranks)),
            "recall@50": sum(rank <= 50 for rank in ranks) / positives,
            "auc": slow_auc([(-negated, label) for negated, _, label in lists[request]]),
        }
        for k in (5, 10):
            best = sum(1 / math.log2(1 + rank) for rank in range(1, min(k, positives) + 1))
            row[f"ndcg@{k}"] = sum(1 / math.log2(1 + rank) for rank in ranks if rank <= k) / best
        row["gauc"] = slow_auc(of_user[user]) if row["auc"] is not None else None
        row["auc_share"] = float(row["auc"] is not None)
        yield row


# By hand


def test_one_request_by_hand() -> None:
    scored = candidates((1, 10, 0.9, 0), (1, 11, 0.8, 1), (1, 12, 0.7, 0), (1, 13, 0.6, 1), (1, 14, 0.1, 0))
    row = per_request(scored, asked((1, 7, 3))).row(0, named=True)
    best = 1 + 1 / math.log2(3) + 1 / math.log2(4)
    assert row["mrr@5"] == 0.5
    assert row["mrr"] == pytest.approx((1 / 2 + 1 / 4 + 0) / 3)
    assert row["hit@5"] == 1.0
    assert row["recall@50"] == pytest.approx(2 / 3)
    assert row["ndcg@5"] == pytest.approx((1 / math.log2(3) + 1 / math.log2(5)) / best)
    assert row["auc"] == pytest.approx(3 / 6)  # 11 beats 12 and 14, 13 beats 14
    assert row["n_candidates"] == 5


@pytest.mark.parametrize(("rank", "score"), [(1, 1.0), (2, 0.5), (3, 1 / 3), (4, 0.25), (5, 0.2), (6, 0.0)])
def test_mrr_of_one_click_is_the_tianchi_score(rank: int, score: float) -> None:
    scored = candidates(*((1, item, -float(item), int(item == rank)) for item in range(1, 9)))
    assert per_request(scored, asked((1, 1, 1)))["mrr@5"].item() == pytest.approx(score)


def test_a_miss_of_recall_counts_as_zero() -> None:
    scored = candidates((1, 10, 0.9, 1), (2, 10, 0.9, 0))
    table = per_request(scored, asked((1, 1, 1), (2, 2, 1), (3, 3, 1)))
    assert table["mrr@5"].to_list() == [1.0, 0.0, 0.0]
    assert table["n_candidates"].to_list() == [1, 1, 0]
    figures = summarise(table)
    assert [figures[name] for name in PLACED] == pytest.approx([1 / 3] * len(PLACED))


def test_a_request_without_positives_does_not_count() -> None:
    table = per_request(candidates((1, 10, 0.9, 1), (2, 10, 0.5, 0)), asked((1, 1, 1), (2, 1, 0)))
    assert table.row(1)[3:] == (None,) * len(METRICS)
    assert summarise(table)["hit@5"] == 1.0


def test_ties_are_broken_by_item() -> None:
    scored = candidates((1, 12, 0.5, 0), (1, 11, 0.5, 1), (1, 10, 0.5, 0))
    row = per_request(scored, asked((1, 1, 1))).row(0, named=True)
    assert row["mrr@5"] == 0.5
    assert row["auc"] == 0.5


def test_negative_zero_ties_with_zero() -> None:
    assert rank_within([1, 1], [0.0, -0.0], [2, 1]).tolist() == [2, 1]


def test_auc_needs_both_classes_and_its_share_says_how_often() -> None:
    scored = candidates((1, 1, 0.1, 1), (1, 2, 0.2, 1), (2, 1, 0.1, 0), (3, 1, 0.9, 1), (3, 2, 0.1, 0))
    table = per_request(scored, asked((1, 1, 2), (2, 1, 1), (3, 1, 1), (4, 1, 1)))
    assert table["auc"].to_list() == [None, None, 1.0, None]
    assert summarise(table)["auc"] == 1.0
    assert summarise(table)["auc_share"] == 0.25


def test_gauc_pools_a_user_and_weighs_by_impressions() -> None:
    scored = candidates(
        (1, 1, 0.9, 1), (1, 2, 0.8, 0),  # user 1: alone 1.0
        (2, 1, 0.3, 1), (2, 2, 0.2, 0),  # user 1: pooled 0.9 > both, 0.3 > 0.2 only: 3/4
        (3, 1, 0.1, 1), (3, 2, 0.2, 0), (3, 3, 0.3, 0),  # user 2: 0
    )  # fmt: skip
    figures = summarise(per_request(scored, asked((1, 1, 1), (2, 1, 1), (3, 2, 1))))
    assert figures["auc"] == pytest.approx(2 / 3)
    assert figures["gauc"] == pytest.approx((4 * 0.75 + 3 * 0.0) / 7)


def test_ranks_answer_in_the_order_of_the_rows() -> None:
    assert rank_within(["b", "a", "b"], [1.0, 5.0, 2.0], ["x", "y", "z"]).tolist() == [2, 1, 1]
    assert rank_within([], [], []).tolist() == []
    pandas = pd.DataFrame({"r": ["b", "a", "b"], "i": ["y", "x", "x"]})
    assert rank_within(pandas["r"], np.zeros(3), pandas["i"]).tolist() == [2, 1, 1]


def test_logloss_by_hand() -> None:
    assert logloss([0.9, 0.2], [1, 0]) == pytest.approx(-(math.log(0.9) + math.log(0.8)) / 2)
    assert logloss([0.0], [1]) == pytest.approx(-math.log(1e-7))
    assert logloss([1.0, 0.0], [1, 0]) < 1e-6


# Against other implementations


@pytest.mark.parametrize("seed", range(6))
def test_against_slow_loops(seed: int) -> None:
    scored, requests = random_case(seed)
    table = per_request(scored, requests)
    for fast, slow in zip(table.to_dicts(), slow_metrics(scored, requests), strict=True):
        for name, value in slow.items():
            assert (fast[name] is None) == (value is None), name
            assert fast[name] == pytest.approx(value, abs=1e-12), name


def test_against_ir_measures() -> None:
    rng = np.random.default_rng(5)
    scored, requests = random_case(5, n=120, size=90)
    scored = scored.with_columns(pl.Series("score", rng.permutation(len(scored)) / len(scored)))  # its ties differ
    qrels = [ir_measures.Qrel(str(r), str(i), 1) for r, i, _, label in scored.rows() if label]
    found = dict(scored.filter(pl.col("label") == 1).group_by("request_id").len().rows())
    for request, _, positives in requests.rows():
        qrels += [ir_measures.Qrel(str(request), f"missed{j}", 1) for j in range(positives - found.get(request, 0))]
    run = [ir_measures.ScoredDoc(str(r), str(i), s) for r, i, s, _ in scored.rows()]
    names = {"mrr@5": "RR@5", "hit@5": "Success@5", "ndcg@5": "nDCG@5", "ndcg@10": "nDCG@10", "recall@50": "R@50"}
    measures = {ir_measures.parse_measure(theirs): ours for ours, theirs in names.items()}
    theirs = {(int(m.query_id), measures[m.measure]): m.value for m in ir_measures.iter_calc(measures, qrels, run)}
    table = per_request(scored, requests)
    for row in table.to_dicts():
        for name in names:
            assert row[name] == pytest.approx(theirs.get((row["request_id"], name), 0.0), abs=1e-6), (row, name)
    figures = summarise(table)
    assert len(figures) == len(METRICS)
    assert 0.1 < figures["ndcg@10"] < 0.9  # the case is neither empty nor perfect


# What must not change a figure, and what must


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), order=st.randoms(use_true_random=False))
def test_order_of_rows_does_not_matter(seed: int, order: object) -> None:
    scored, requests = random_case(seed, n=12, size=12, levels=3)
    places = list(range(len(scored)))
    order.shuffle(places)  # type: ignore[attr-defined]
    assert_frame_equal(per_request(scored[places], requests), per_request(scored, requests))
    back = per_request(scored, requests.reverse()).reverse()
    assert_frame_equal(back, per_request(scored, requests))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_only_the_order_of_scores_matters(seed: int) -> None:
    scored, requests = random_case(seed, n=12, size=12, levels=4)
    stretched = scored.with_columns((pl.col("score") * 3).exp() - 7)
    assert_frame_equal(per_request(stretched, requests), per_request(scored, requests))
    coarse = scored.with_columns(pl.col("score").cast(pl.Float32))
    assert_frame_equal(per_request(coarse, requests), per_request(scored, requests))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_figures_stay_in_bounds_and_a_better_order_is_better(seed: int) -> None:
    scored, requests = random_case(seed, n=12, size=12)
    table = per_request(scored, requests)
    for name in METRICS:
        assert table[name].drop_nulls().is_between(0, 1).all(), name
    perfect = per_request(scored.with_columns(pl.col("label").cast(pl.Float64).alias("score")), requests)
    for name in ("mrr@5", "hit@5", "ndcg@5", "ndcg@10", "auc"):
        assert (perfect[name].fill_null(0) >= table[name].fill_null(0) - 1e-12).all(), name
    assert perfect["auc"].drop_nulls().eq(1).all()
    reversed_auc = per_request(scored.with_columns(-pl.col("score")), requests)["auc"]
    np.testing.assert_allclose(reversed_auc.drop_nulls(), 1 - table["auc"].drop_nulls(), atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_more_missed_clicks_never_help(seed: int) -> None:
    scored, requests = random_case(seed, n=10, size=10)
    fewer = per_request(scored, requests)
    more = per_request(scored, requests.with_columns(pl.col("positives") + 1))
    assert all((more[name] <= fewer[name]).all() for name in PLACED)


def test_shuffled_labels_give_an_auc_of_a_half() -> None:
    rng = np.random.default_rng(0)
    n = 3000
    rows = pl.DataFrame({"request_id": np.repeat(np.arange(n), 10), "item_id": np.tile(np.arange(10), n)})
    scored = rows.with_columns(
        pl.Series("score", rng.random(10 * n)),
        pl.Series("label", np.eye(10, dtype=int)[rng.integers(0, 10, n)].ravel()),
    )
    requests = pl.DataFrame({"request_id": np.arange(n), "user_id": np.arange(n) // 3, "positives": np.ones(n, int)})
    figures = summarise(per_request(scored, requests))
    assert figures["auc"] == pytest.approx(0.5, abs=0.02)
    assert figures["gauc"] == pytest.approx(0.5, abs=0.02)


# Borders of the interface


def test_pandas_and_text_ids_are_welcome() -> None:
    scored, requests = random_case(1)
    text = [pl.col("request_id").cast(pl.String)]
    pandas = [
        pd.DataFrame(frame.with_columns(*text, ids).to_dict(as_series=False))
        for frame, ids in [(scored, pl.col("item_id") + 0), (requests, pl.col("user_id").cast(pl.String))]
    ]
    assert summarise(per_request(*pandas)) == pytest.approx(summarise(per_request(scored, requests)))


def test_integer_ids_of_another_width_match() -> None:
    scored, requests = random_case(2)
    narrow = per_request(scored.with_columns(pl.col("request_id").cast(pl.UInt32)), requests)
    assert_frame_equal(narrow, per_request(scored, requests))


def test_no_candidates_and_no_requests() -> None:
    assert summarise(per_request(candidates(), asked((1, 1, 1)))) == {**dict.fromkeys(PLACED, 0.0), "auc_share": 0.0}
    empty = per_request(candidates(), asked())
    assert len(empty) == 0
    assert summarise(empty) == {}


def test_a_new_metric_is_one_line() -> None:
    scored, requests = random_case(3)
    mine = {"hit@1": Metric(hit(1)), "mrr@1": Metric(mrr(1)), "ndcg@1": Metric(ndcg(1))}
    table = per_request(scored, requests, mine)
    assert table.columns == ["request_id", "user_id", "n_candidates", *mine]
    figures = summarise(table, mine)
    assert figures["hit@1"] == figures["mrr@1"] == figures["ndcg@1"] > 0


def test_faults_of_candidates_are_told_together() -> None:
    scored = candidates((1, 1, math.nan, 0), (1, 2, math.inf, 2), (9, 1, 0.5, 1))
    with pytest.raises(DataError, match=r"3 rows, of which 1 rows of a request .*; 2 scores .*; 1 labels"):
        per_request(scored, asked((1, 1, 1)))
    with pytest.raises(DataError, match=r"missing columns \['label', 'score'\]"):
        per_request(scored.drop("score", "label"), asked((1, 1, 1)))


def test_repeated_candidates_and_requests_are_refused() -> None:
    with pytest.raises(DataError, match=r"1 requests have more candidates .* \[4\]"):
        per_request(candidates((4, 1, 0.5, 1), (4, 1, 0.5, 1)), asked((4, 1, 1)))
    with pytest.raises(DataError, match="one row per request"):
        per_request(candidates(), asked((1, 1, 1), (1, 1, 1)))
    with pytest.raises(DataError, match=r"String in the scored candidates, Int64 in the requests"):
        per_request(candidates().with_columns(pl.col("request_id").cast(pl.String)), asked((1, 1, 1)))


@pytest.mark.parametrize(
    ("probability", "label", "message"),
    [
        ([1.2], [1], "calibrate"),
        ([0.2, 0.3], [1], "equally many"),
        ([], [], "equally many"),
        ([0.2], [2], "labels 0 or 1"),
    ],
)
def test_logloss_refuses_scores_that_are_no_probabilities(probability: object, label: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        logloss(probability, label)  # type: ignore[arg-type]
