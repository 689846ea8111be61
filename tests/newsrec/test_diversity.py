"""Served lists that vary: by hand, against a loop, and unchanged where nothing is asked for."""

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.events import EventStore
from newsrec.data import Log
from newsrec.diversity import Diversity, diversified
from newsrec.errors import UsageError
from newsrec.recommend import RecommendConfig, recommend
from newsrec.serve import Recommender
from newsrec.train import TrainResult
from tests.factories import articles_of, clicks_of, requests_of

ITEMS = [10, 11, 12, 13, 14, 15]
VECTORS = [[1.0, 0.0], [1.0, 0.02], [0.0, 1.0], [0.6, 0.8], [-1.0, 0.0], [0.0, -1.0]]
CATEGORIES = ["a", "a", "b", "a", None, "b"]
CREATED = [0.0, 0.0, 600.0, 1_200.0, 1_400.0, 0.0]


def store(embeddings: bool = True) -> EventStore:
    columns: dict[str, Any] = {"category": CATEGORIES}
    if embeddings:
        columns["embedding"] = pl.Series(VECTORS, dtype=pl.Array(pl.Float32, 2))
    return EventStore(clicks_of([(1, 10, 1.0)]), articles_of(ITEMS, CREATED, **columns))


def lists(scores: list[list[float]]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Requests 100, 101 ... at minute 1,440 with a score for each article."""
    rows = [(100 + i, item, score) for i, own in enumerate(scores) for item, score in zip(ITEMS, own, strict=True)]
    scored = pl.DataFrame(rows, schema=["request_id", "item_id", "score"], orient="row")
    return scored, requests_of([(1, 1_440.0, 1_440.0)] * len(scores))


FALLING = [1.0, 0.9, 0.8, 0.5, 0.2, 0.0]


def order(chosen: Diversity, k: int = 4, embeddings: bool = True) -> list[int]:
    scored, requests = lists([FALLING])
    found = diversified(scored, requests, store(embeddings), k, chosen)
    assert found["rank"].to_list() == list(range(1, len(found) + 1))
    return found["item_id"].to_list()


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (Diversity(), [10, 11, 12, 13]),
        (Diversity(one_per_story=True), [10, 12, 13, 14]),  # 11 is 10 again
        (Diversity(per_category=1), [10, 12, 14, 11]),  # an unknown category is no category; then the cap gives way
        (Diversity(per_category=2), [10, 11, 12, 14]),
        (Diversity(strength=0.5), [10, 12, 14, 15]),  # 0.4; then -0.18 of 15, 0.1 of 14, -0.15 of 13, -0.55 of 11
        (Diversity(strength=1.0), [10, 12, 14, 15]),
        (Diversity(freshness=1.0), [14, 13, 12, 10]),  # by age alone, ties by score
    ],
)
def test_by_hand(chosen: Diversity, expected: list[int]) -> None:
    assert order(chosen) == expected


def test_without_embeddings_the_category_says_what_is_alike() -> None:
    assert order(Diversity(strength=0.5), embeddings=False) == [10, 12, 14, 11]
    assert order(Diversity(one_per_story=True), embeddings=False) == [10, 11, 12, 13]


def slowly(scores: list[float], k: int, chosen: Diversity) -> list[int]:
    """One list, one place after the other."""
    low, high = min(scores), max(scores)
    vectors = np.array(VECTORS) / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    left = sorted(range(len(ITEMS)), key=lambda i: (-scores[i], ITEMS[i]))
    picked: list[int] = []

    def value(i: int) -> float:
        score = (scores[i] - low) / (high - low) if high > low else 1.0
        youth = 0.5 ** ((1_440 - CREATED[i]) / 60 / chosen.half_life_hours)
        alike = max((max(float(vectors[i] @ vectors[j]), 0.0) for j in picked), default=0.0)
        same = sum(CATEGORIES[i] == CATEGORIES[j] and CATEGORIES[i] is not None for j in picked)
        twin = chosen.one_per_story and any(vectors[i] @ vectors[j] >= 0.9 for j in picked)
        broken = twin or (chosen.per_category is not None and same >= chosen.per_category)
        worth = (1 - chosen.strength) * ((1 - chosen.freshness) * score + chosen.freshness * youth)
        return worth - chosen.strength * alike - 10 * broken

    while left and len(picked) < k:
        best = max(left, key=lambda i: round(value(i), 4))
        picked.append(best)
        left.remove(best)
    return [ITEMS[i] for i in picked]


@given(
    scores=st.lists(st.permutations(range(6)), min_size=1, max_size=4),
    k=st.integers(1, 7),
    strength=st.sampled_from([0.0, 0.3, 0.7]),
    freshness=st.sampled_from([0.0, 0.25]),
    per_category=st.sampled_from([None, 1, 2]),
    one_per_story=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_batch_equals_a_loop(
    scores: list[list[int]], k: int, strength: float, freshness: float, per_category: int | None, one_per_story: bool
) -> None:
    chosen = Diversity(strength, freshness, per_category=per_category, one_per_story=one_per_story)
    numbers = [[float(s) + 0.013 * s * s for s in own] for own in scores]
    scored, requests = lists(numbers)
    found = diversified(scored.sample(fraction=1.0, shuffle=True, seed=1), requests, store(), k, chosen)
    for i, own in enumerate(numbers):
        mine = found.filter(pl.col("request_id") == 100 + i)
        assert mine["item_id"].to_list() == slowly(own, k, chosen)


def test_no_candidates_give_no_places() -> None:
    scored, requests = lists([FALLING])
    found = diversified(scored.clear(), requests, store(), 3, Diversity(strength=0.5))
    assert found.is_empty()
    assert found.schema["rank"] == pl.UInt32


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"strength": 1.1}, "--diversity"),
        ({"freshness": -0.1}, "--freshness"),
        ({"half_life_hours": 0}, "half_life_hours"),
        ({"per_category": 0}, "--per-category"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Diversity(**changes)


@pytest.fixture(scope="module")
def served(trained: TrainResult) -> Recommender:
    return Recommender.load(trained.run)


def test_served_lists_vary_where_asked_and_never_by_default(served: Recommender, log: Log) -> None:
    user = log.clicks["user_id"][0]
    plain, again = served.recommend(user, k=8), served.recommend(user, k=8, diversity=Diversity())
    assert plain.equals(again)
    capped = served.recommend(user, k=8, diversity=Diversity(per_category=1))
    assert capped["rank"].to_list() == list(range(1, 9))
    assert capped["item_id"][0] == plain["item_id"][0]
    kinds = [frame.join(log.articles, on="item_id")["category"].n_unique() for frame in (plain, capped)]
    assert kinds[1] == 8 > kinds[0]


def test_one_request_is_its_part_of_the_batch(served: Recommender, log: Log) -> None:
    users = log.clicks["user_id"].unique().sort()[:40]
    asked = served.requests(users, served.known_until)
    chosen = Diversity(0.3, 0.1, per_category=2, one_per_story=True)
    batch = served.recommend_many(asked, 6, diversity=chosen)
    one = served.recommend(users[7], k=6, diversity=chosen)
    assert batch.filter(pl.col("user_id") == users[7]).select("item_id", "rank")["item_id"].equals(one["item_id"])


def test_recommend_passes_it_on_and_refuses_it_for_shown_lists(
    trained: TrainResult, on_slates: TrainResult, tables: Any, tmp_path: Any
) -> None:
    from newsrec.data import ReadOptions

    read = ReadOptions(integer_ids=True)
    usual = RecommendConfig(trained.run, tables, tmp_path / "plain.parquet", read=read)
    varied = RecommendConfig(trained.run, tables, tmp_path / "varied.parquet", read=read, diversity=Diversity(0.5))
    plain, other = recommend(usual), recommend(varied)
    assert len(plain) == len(other)
    assert not plain["item_id"].equals(other["item_id"])
    lists_ = RecommendConfig(on_slates.run, tables, tmp_path / "lists.parquet", read=read, diversity=Diversity(0.5))
    with pytest.raises(UsageError, match="--diversity: expected none"):
        recommend(lists_)
