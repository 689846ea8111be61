"""The blend and its verdict: what is chosen on whom, and on whom it is judged."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from newsrec.metrics import METRICS, per_request, summarise
from newsrec.rerankers.blending import fit_blend, halves, judge, reciprocal_ranks
from newsrec.tensors import Lists
from tests.networks import random_lists

LISTS = random_lists(400)
LISTS = replace(LISTS, dense=np.nan_to_num(LISTS.dense))
RIGHT = np.where(LISTS.label == 1, 2.0, -2.0).astype(np.float32)
REQUESTS = pl.DataFrame(
    {"request_id": LISTS.request_id, "user_id": LISTS.request_id % 100, "positives": np.ones(len(LISTS), np.uint32)}
)
MRR = {"mrr@5": METRICS["mrr@5"]}


def with_ranker(scores: np.ndarray, lists: Lists = LISTS) -> Lists:
    """The ranker's score is the last dense column."""
    return replace(lists, dense=np.column_stack([lists.dense[:, :-1], scores]).astype(np.float32))


def mrr(scores: np.ndarray, lists: Lists = LISTS, requests: pl.DataFrame = REQUESTS) -> float:
    """By the metrics; ids ascend inside a list, as ties in the ranker's order do."""
    rows = pl.DataFrame({"request_id": lists.request_id[lists.row_request], "score": scores, "label": lists.label})
    return summarise(per_request(rows.with_row_index("item_id"), requests, MRR), MRR)["mrr@5"]


def test_halves_share_no_user_and_leave_nobody_out() -> None:
    first, second = halves(REQUESTS, 0)
    assert not set(first["user_id"]) & set(second["user_id"])
    assert sorted([*first["request_id"], *second["request_id"]]) == list(range(400))
    assert len(set(first["user_id"])) == 50


@pytest.mark.parametrize("decimals", [0, 6])
def test_reciprocal_ranks_are_those_of_the_metrics_ties_included(decimals: int) -> None:
    scores = np.random.default_rng(0).normal(size=len(LISTS.label)).round(decimals)
    assert reciprocal_ranks(scores, LISTS).mean() == pytest.approx(mrr(scores))


def test_blend_leaves_the_ranker_alone_where_the_network_says_nothing_and_the_network_where_the_ranker_does() -> None:
    assert fit_blend(LISTS, np.zeros(len(RIGHT))).weight == 0
    assert fit_blend(with_ranker(RIGHT), -RIGHT).weight == 0
    assert fit_blend(with_ranker(-RIGHT), RIGHT).weight > 0.5
    rng = np.random.default_rng(0)
    both = [RIGHT + rng.normal(0, 4, len(RIGHT)) for _ in range(2)]
    blend = fit_blend(with_ranker(both[0]), both[1])
    assert 0.2 < blend.weight < 0.8
    assert mrr(blend.scores(*both)) > max(mrr(scores) for scores in both)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.75, 1.0])
def test_the_weight_is_the_share_by_which_clicks_were_drawn(share: float) -> None:
    """Oracle: clicks follow a softmax of known coefficients; scores of other units and places change nothing."""
    rng = np.random.default_rng(0)
    lists = random_lists(4000, seed=1)
    ranker, network = rng.normal(size=(2, len(lists.label)))
    noise = rng.gumbel(size=len(lists.label))  # the largest of score and Gumbel noise is a draw of the softmax
    row, drawn = lists.row_request, 2 * ((1 - share) * ranker + share * network) + noise
    best = np.full(len(lists), -np.inf)
    np.maximum.at(best, row, drawn)
    lists = with_ranker(ranker, replace(lists, label=(drawn == best[row]).astype(np.uint8)))
    blend = fit_blend(lists, network)
    assert blend.weight == pytest.approx(share, abs=0.03)
    moved = fit_blend(with_ranker(5 * ranker + 1, lists), network / 9 - 3)
    assert moved.weight == pytest.approx(blend.weight, abs=1e-4)


def test_lists_without_clicks_and_without_candidates_leave_the_ranker_alone() -> None:
    nobody = replace(LISTS, label=np.zeros_like(LISTS.label))
    assert fit_blend(nobody, RIGHT).weight == 0
    assert fit_blend(LISTS.only(np.zeros(len(RIGHT), np.bool_)), RIGHT[:0]).weight == 0


def test_a_network_that_helps_everybody_is_found_to() -> None:
    rng = np.random.default_rng(0)
    ranker, network = (RIGHT + rng.normal(0, 4, len(RIGHT)) for _ in range(2))
    bad = rng.normal(size=len(RIGHT))
    gain = judge(with_ranker(ranker), np.stack([bad, network]).astype(np.float32), REQUESTS, 0)
    assert gain.first == pytest.approx(mrr(ranker.astype(np.float32)))
    assert 0 < gain.low < gain.difference < gain.high


def test_what_helps_one_half_only_is_judged_on_the_other() -> None:
    # The first half learns to trust the network, which misleads the second; the second learns to leave it.
    first = np.isin(LISTS.request_id, halves(REQUESTS, 0)[0]["request_id"].to_numpy())[LISTS.row_request]
    ranker = RIGHT + np.random.default_rng(0).normal(0, 4, len(RIGHT))
    lists, network = with_ranker(ranker), np.where(first, 9, -9) * RIGHT
    gain = judge(lists, network[None].astype(np.float32), REQUESTS, 0)
    wanted = np.where(first, ranker, fit_blend(lists, RIGHT).scores(ranker, 9 * network))
    assert gain.second == pytest.approx(mrr(wanted), abs=1e-6)
    assert gain.high < 0
    assert mrr(np.where(first, network, ranker)) > gain.first  # what the same users would have said


def test_the_epoch_is_chosen_on_other_users_too() -> None:
    first = np.isin(LISTS.request_id, halves(REQUESTS, 0)[0]["request_id"].to_numpy())[LISTS.row_request]
    epochs = np.stack([np.where(first, RIGHT, -RIGHT), np.where(first, -RIGHT, RIGHT)]).astype(np.float32)
    gain = judge(with_ranker(np.zeros(len(RIGHT))), epochs, REQUESTS, 0)
    assert gain.second == pytest.approx(mrr(-RIGHT))


def test_requests_without_candidates_count_as_misses_and_those_without_a_click_do_not_count() -> None:
    more = pl.DataFrame({"request_id": [900, 901], "user_id": [1, 2], "positives": [1, 0]}, schema=REQUESTS.schema)
    few, all_ = (judge(with_ranker(RIGHT), RIGHT[None], asked, 0) for asked in (REQUESTS, pl.concat([REQUESTS, more])))
    assert few.first == 1
    assert all_.first == pytest.approx(400 / 401)


def test_one_user_alone_decides_nothing() -> None:
    alone = REQUESTS.with_columns(pl.lit(7).alias("user_id"))
    gain = judge(with_ranker(-RIGHT), RIGHT[None], alone, 0)
    assert gain.difference == gain.low == 0
