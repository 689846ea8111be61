"""What is told of an answer: the channels that proposed it, and the features that moved its score most."""

import re

import numpy as np
import polars as pl
import pytest

from features.catalog import FEATURES
from features.columns import TIME
from newsrec.data import Log
from newsrec.explain import explanations, proposed_by
from newsrec.serve import Recommender
from newsrec.train import TrainResult
from tests.factories import bits

STRANGER = -5


@pytest.fixture(scope="module")
def served(trained: TrainResult) -> Recommender:
    return Recommender.load(trained.run)


class Moved:
    """A model of four features whose contributions are known."""

    def contributions(self, features: pl.DataFrame) -> np.ndarray:
        return np.array([[0.1, -0.7, 0.5, 0.0], [3.0, 0.0, 0.25, -0.5]])


def requests_at_clicks(log: Log, n: int) -> pl.DataFrame:
    """Requests of `n` clickers and a stranger, numbered backwards."""
    chosen = log.clicks.sample(n, seed=1)
    users, at = [*chosen["user_id"], STRANGER], [*chosen["clicked_at"], chosen["clicked_at"][0]]
    frame = pl.DataFrame({"request_id": range(500, 500 - len(users), -1), "user_id": users, "requested_at": at})
    return frame.with_columns(pl.col("requested_at").cast(TIME), statistics_at=pl.col("requested_at").cast(TIME))


def test_channels_are_named_in_their_order_and_none_is_empty() -> None:
    ranks = pl.DataFrame({"itemcf_rank": [1, None, 3, None], "popular_rank": [None, 2, 4, None]})
    names = ranks.select(proposed_by(("itemcf", "popular"))).to_series()
    assert names.to_list() == ["itemcf", "popular", "itemcf, popular", ""]
    assert ranks.select("itemcf_rank", proposed_by(()).alias("none"))["none"].unique().to_list() == [""]


def test_largest_contributions_are_told_with_their_sign() -> None:
    described = pl.DataFrame({name: [0.0, 0.0] for name in "abcd"})
    told = explanations(Moved(), described)  # type: ignore[arg-type]
    assert told.to_list() == ["b -0.7, c +0.5, a +0.1", "a +3.0, d -0.5, c +0.25"]
    assert explanations(Moved(), described, top=1).to_list() == ["b -0.7", "a +3.0"]  # type: ignore[arg-type]


def test_in_words_value_and_first_sentence_of_the_catalogue_stand_beside() -> None:
    feature = next(f for f in FEATURES if f.name == "item_clicks_1h")
    described = pl.DataFrame(
        {"item_clicks_1h": [12.0, None], "b": [1.5, 0.0], "c": [0.0, 1e-9], "d": [0.0, 0.0]},
        schema=dict.fromkeys(["item_clicks_1h", "b", "c", "d"], pl.Float32),
    )
    first, second = explanations(Moved(), described, in_words=True)  # type: ignore[arg-type]
    sentence = feature.meaning.split(". ")[0].rstrip(".")
    assert first == f"b = 1.5 (b) -0.7; c = 0 (c) +0.5; item_clicks_1h = 12 ({sentence}) +0.1"
    assert second == f"item_clicks_1h = unknown ({sentence}) +3.0; d = 0 (d) -0.5; c = 1e-09 (c) +0.25"


@pytest.mark.parametrize("in_words", [False, True])
def test_nothing_described_is_nothing_told(served: Recommender, in_words: bool) -> None:
    none = pl.DataFrame(schema=dict.fromkeys(served.manifest["features"], pl.Float32))
    told = explanations(served.ranker, none, in_words=in_words)
    assert (told.dtype, len(told)) == (pl.String, 0)


def test_answers_name_channels_and_what_moved_the_score(served: Recommender, log: Log) -> None:
    asked = requests_at_clicks(log, 10)
    plain, told = served.recommend_many(asked), served.recommend_many(asked, explain=True)
    assert bits(told.drop("channels", "because")) == bits(plain)
    assert set(told["channels"].str.split(", ").explode()) == {"itemcf", "popular"}
    assert told.filter(pl.col("user_id") == STRANGER)["channels"].unique().to_list() == ["popular"]
    assert told["because"].str.count_matches(r"\w+ [+-]?\d[\d.e-]*(, |$)").to_list() == [3] * len(told)


def test_each_explanation_is_that_of_its_own_row_and_adds_up_to_its_score(served: Recommender, log: Log) -> None:
    asked = requests_at_clicks(log, 5)
    assembly = served.assembly(asked)
    candidates = assembly.cut(assembly.lists(asked)[0])
    described = assembly.describe(candidates, asked)
    own = candidates.select("request_id", "item_id").with_columns(explanations(served.ranker, described).alias("own"))
    told = served.recommend_many(asked, explain=True).join(own, on=["request_id", "item_id"])
    assert told["because"].to_list() == told["own"].to_list()
    rest = served.ranker.score(described) - served.ranker.contributions(described).sum(axis=1)
    assert np.ptp(rest) < 1e-5


def test_explained_articles_have_the_scores_of_rank_in_the_order_given(served: Recommender, log: Log) -> None:
    user, items = log.clicks["user_id"][-1], log.articles["item_id"].sample(7, seed=2).to_list()
    told = served.explain(user, items)
    assert told.columns == ["item_id", "score", "because"]
    assert told["item_id"].to_list() == items
    assert told["score"].to_list() == served.rank(user, items).tolist()
    described = served.features(user, items)
    value = described[served.manifest["features"]].to_dicts()
    for place, text in enumerate(told["because"]):
        reasons = re.findall(r"(\w+) = (\S+) \(", text)
        assert len(reasons) == 3
        for name, shown in reasons:
            seen = value[place][name]
            assert shown == ("unknown" if seen is None else f"{seen:.4g}")
