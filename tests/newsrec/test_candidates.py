"""Lists of several channels become one; negatives are sampled with a probability that is told."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newsrec.candidates import (
    FUSION_OFFSET,
    MergeConfig,
    SamplingConfig,
    label,
    positive_ranks,
    propose,
    sample_negatives,
)
from newsrec.errors import UsageError
from newsrec.recall import CHANNELS, RecallRequests, RecallSettings
from tests.factories import IDS, SHALLOW, bits, fitted, proposed, recalled, requests_for, small_log
from tests.oracle import fuse


@pytest.mark.parametrize("ids", IDS)
def test_fusion_equals_a_loop(ids: str) -> None:
    log = small_log(0, ids)
    asked = requests_for(log)
    merged = proposed(log, asked)
    lists = {name: recalled(log, name, asked) for name in CHANNELS}
    for request in asked["request_id"]:
        mine = pl.col("request_id") == request
        expected = fuse([of.filter(mine)["item_id"].to_list() for of in lists.values()], FUSION_OFFSET)
        assert merged.filter(mine)["item_id"].to_list() == expected
        assert merged.filter(mine)["recall_rank"].to_list() == list(range(1, len(expected) + 1))


def test_each_channel_keeps_its_own_score_and_rank() -> None:
    log = small_log(1)
    asked = requests_for(log)
    merged = proposed(log, asked)
    for name in fitted(log)[1]:
        own = merged.filter(pl.col(f"{name}_rank").is_not_null())
        kept = own.select("request_id", "item_id", score=f"{name}_score", rank=f"{name}_rank")
        assert kept.sort("request_id", "rank").equals(recalled(log, name, asked))
    assert set(merged["request_id"]) <= set(asked["request_id"])
    assert not merged.select("request_id", "item_id").is_duplicated().any()


def test_columns_follow_the_channels() -> None:
    log = small_log(1)
    asked = requests_for(log)
    store, channels = fitted(log)
    requests = RecallRequests.of(asked, store)
    for names in (["popular"], ["popular", "itemcf"]):
        found = propose({name: channels[name] for name in names}, requests, store.items)
        own = [f"{name}_{what}" for name in names for what in ("score", "rank")]
        assert found.columns == ["request_id", "item_id", *own, "recall_rank"]
        assert [found.schema[c] for c in own] == [pl.Float32, pl.UInt16] * len(names)
        assert found.schema["recall_rank"] == pl.UInt16


def test_quota_keeps_the_best_of_a_channel_and_leaves_the_others() -> None:
    log = small_log(1)
    asked = requests_for(log)
    store, channels = fitted(log)
    requests = RecallRequests.of(asked, store)
    whole = propose(channels, requests, store.items)
    found = propose(channels, requests, store.items, MergeConfig(quotas={"popular": 2}))
    assert found["popular_rank"].max() == 2
    assert whole["popular_rank"].max() == SHALLOW.depth
    others = [f"{name}_rank" for name in channels if name != "popular"]
    kept = whole.filter(pl.any_horizontal(pl.col(*others).is_not_null(), pl.col("popular_rank") <= 2))
    assert set(found.select("request_id", "item_id").rows()) == set(kept.select("request_id", "item_id").rows())


def test_weight_decides_whose_first_comes_first() -> None:
    log = small_log(1)
    asked = requests_for(log)
    store, channels = fitted(log)
    requests, two = RecallRequests.of(asked, store), {name: channels[name] for name in ("itemcf", "popular")}
    for favoured, other in (("itemcf", "popular"), ("popular", "itemcf")):
        found = propose(two, requests, store.items, MergeConfig(weights={favoured: 1_000.0}))
        both = found.filter(pl.col(f"{favoured}_rank").is_not_null())
        assert (both["recall_rank"] == both[f"{favoured}_rank"]).all()
        assert found[f"{other}_rank"].is_not_null().any()


@pytest.mark.parametrize(
    ("merge", "line"),
    [
        (MergeConfig(quotas={"swing": 5}), r"--quota swing: expected one of the channels \['itemcf', 'popular'\]"),
        (MergeConfig(quotas={"popular": 0}), "--quota popular: expected a number above zero, found 0"),
        (MergeConfig(weights={"popular": -1.0}), "--quota popular: expected a number above zero, found -1"),
    ],
)
def test_merging_that_makes_no_sense_is_refused(merge: MergeConfig, line: str) -> None:
    with pytest.raises(UsageError, match=line):
        merge.refuse_contradictions(("popular", "itemcf"))


def test_requests_keep_their_order() -> None:
    log = small_log(1)
    asked = requests_for(log).sample(fraction=1.0, shuffle=True, seed=3)
    merged = proposed(log, asked)
    order = merged["request_id"].unique(maintain_order=True).to_list()
    assert order == [r for r in asked["request_id"] if r in set(order)]


def test_no_request_gives_an_empty_list() -> None:
    log = small_log(1)
    assert proposed(log, requests_for(log).clear()).height == 0


def test_batch_is_its_single_requests() -> None:
    log = small_log(2)
    asked = requests_for(log, 15)
    merged = proposed(log, asked)
    for place in range(len(asked)):
        mine = pl.col("request_id") == asked["request_id"][place]
        assert bits(proposed(log, asked[place])) == bits(merged.filter(mine))


def lists_of(lengths: dict[int, int], clicked: dict[int, list[int]]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Lists of so many articles per request, numbered by their rank, and what was clicked."""
    rows = [(request, 1_000 + rank, rank) for request, n in lengths.items() for rank in range(1, n + 1)]
    keys = {"request_id": pl.Int64, "item_id": pl.Int64}
    frame = pl.DataFrame(rows, schema={**keys, "recall_rank": pl.UInt16}, orient="row")
    pairs = [(request, 1_000 + rank) for request, ranks in clicked.items() for rank in ranks]
    return frame, pl.DataFrame(pairs, schema=keys, orient="row")


def test_label_is_one_where_it_was_clicked() -> None:
    lists, positives = lists_of({1: 3, 2: 2}, {1: [2], 2: [1, 2], 3: [1]})
    labelled = label(lists, positives)
    assert labelled["label"].to_list() == [0, 1, 0, 1, 1]
    assert labelled.schema["label"] == pl.UInt8
    assert labelled.drop("label").equals(lists)
    assert label(lists, positives.clear())["label"].sum() == 0


def test_ranks_of_the_clicked_are_null_where_recall_missed() -> None:
    lists, positives = lists_of({1: 3, 2: 2}, {1: [3, 9], 2: [1], 5: [1]})
    assert positive_ranks(lists, positives).rows() == [(1, 1_003, 3), (1, 1_009, None), (2, 1_001, 1), (5, 1_001, None)]


@given(
    length=st.integers(1, 40), clicked=st.integers(1, 45), top=st.integers(0, 12), others=st.integers(0, 12),
    seed=st.integers(0, 3),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_sampling_keeps_what_it_promises(length: int, clicked: int, top: int, others: int, seed: int) -> None:
    lists, positives = lists_of({7: length}, {7: [clicked]})
    marked = sample_negatives(label(lists, positives), SamplingConfig(top, others, seed))
    kept = marked.filter("kept")
    if clicked > length or length == 1:  # missed by recall, or nothing to tell it from
        assert kept.is_empty()
        return
    rest = marked.filter((pl.col("label") == 0) & (pl.col("recall_rank") > top))
    assert marked.filter((pl.col("label") == 1) | (pl.col("recall_rank") <= top))["kept"].all()
    assert rest["kept"].sum() == min(others, len(rest))
    assert kept["sampling_probability"].is_between(0, 1, closed="right").all()
    assert kept.filter(pl.col("recall_rank") <= top)["sampling_probability"].to_list() == [1.0] * min(top, length)
    if len(rest) and others:
        assert rest["sampling_probability"].to_list() == pytest.approx([min(1, others / len(rest))] * len(rest))


def test_weights_restore_the_size_of_the_list() -> None:
    lists, positives = lists_of({1: 80, 2: 33, 3: 10}, {1: [40], 2: [3], 3: [9]})
    kept = sample_negatives(label(lists, positives), SamplingConfig()).filter("kept")
    weights = kept.group_by("request_id").agg((1 / pl.col("sampling_probability")).sum().alias("n")).sort("request_id")
    assert weights["n"].to_list() == pytest.approx([80, 33, 10], rel=1e-5)


def test_request_with_nothing_but_clicked_articles_is_left_out() -> None:
    lists, positives = lists_of({1: 2, 2: 2}, {1: [1, 2], 2: [1]})
    marked = sample_negatives(label(lists, positives), SamplingConfig())
    assert marked["kept"].to_list() == [False, False, True, True]


def test_draw_is_the_same_in_any_order_and_company_and_another_with_another_seed() -> None:
    lists, positives = lists_of(dict.fromkeys(range(30), 60), {r: [r + 1] for r in range(30)})
    labelled = label(lists, positives)
    whole = sample_negatives(labelled, SamplingConfig(seed=1))
    order = np.random.default_rng(0).permutation(len(labelled))
    assert sample_negatives(labelled[order], SamplingConfig(seed=1)).equals(whole[order])
    alone = labelled.filter(pl.col("request_id") == 17)
    assert sample_negatives(alone, SamplingConfig(seed=1)).equals(whole.filter(pl.col("request_id") == 17))
    assert not sample_negatives(labelled, SamplingConfig(seed=2)).equals(whole)
    assert whole.drop("kept", "sampling_probability").equals(labelled)


def test_draw_is_even_over_the_rest_of_the_list() -> None:
    """Every rank below the top is drawn about equally often: 2,000 lists, 20 of 48 each."""
    lists, positives = lists_of(dict.fromkeys(range(2000), 60), {r: [1] for r in range(2_000)})
    marked = sample_negatives(label(lists, positives), SamplingConfig(top=12, others=20))
    shares = marked.filter(pl.col("recall_rank") > 12).group_by("recall_rank").agg(pl.col("kept").mean())["kept"]
    assert len(shares) == 48
    assert shares.is_between(0.36, 0.47).all()


def test_empty_lists_stay_empty() -> None:
    lists, positives = lists_of({}, {})
    marked = sample_negatives(label(lists, positives), SamplingConfig())
    assert marked.is_empty()
    assert marked.schema["kept"] == pl.Boolean


def test_deeper_lists_begin_with_the_same_ranks_per_channel() -> None:
    log = small_log(3)
    asked = requests_for(log)
    deep, flat = (recalled(log, "itemcf", asked, RecallSettings(depth=depth)) for depth in (30, 3))
    assert deep.filter(pl.col("rank") <= 3).equals(flat)
