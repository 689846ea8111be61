"""What is told of an answer: the channels that proposed it, and the features that moved its score most."""

import re

import numpy as np
import polars as pl
import pytest

from features.catalog import FEATURES, features_for
from features.columns import TIME
from newsrec.data import Log
from newsrec.errors import UsageError
from newsrec.explain import explanations, proposed_by
from newsrec.recall import CHANNELS
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


MEANING = {f.name: f.meaning.split(". ")[0].rstrip(".") for f in features_for(CHANNELS)}


def reasons_in_words(because: str) -> bool:
    """Three features of the catalogue, each with a value, what it means and what it added."""
    found = re.findall(r"(\w+) = (?:unknown|[-+.e\d]+) \((.*?)\) [+-]\d[\d.e-]*(?:; |$)", because)
    return len(found) == 3 and all(MEANING[name] == meaning for name, meaning in found)


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
    assert told.to_list() == [
        "b = 0 (b) -0.7; c = 0 (c) +0.5; a = 0 (a) +0.1",
        "a = 0 (a) +3.0; d = 0 (d) -0.5; c = 0 (c) +0.25",
    ]
    one = explanations(Moved(), described, top=1)  # type: ignore[arg-type]
    assert one.to_list() == ["b = 0 (b) -0.7", "a = 0 (a) +3.0"]


def test_value_and_first_sentence_of_the_catalogue_stand_beside() -> None:
    feature = next(f for f in FEATURES if f.name == "item_clicks_1h")
    described = pl.DataFrame(
        {"item_clicks_1h": [12.0, None], "b": [1.5, 0.0], "c": [0.0, 1e-9], "d": [0.0, 0.0]},
        schema=dict.fromkeys(["item_clicks_1h", "b", "c", "d"], pl.Float32),
    )
    first, second = explanations(Moved(), described)  # type: ignore[arg-type]
    sentence = feature.meaning.split(". ")[0].rstrip(".")
    assert first == f"b = 1.5 (b) -0.7; c = 0 (c) +0.5; item_clicks_1h = 12 ({sentence}) +0.1"
    assert second == f"item_clicks_1h = unknown ({sentence}) +3.0; d = 0 (d) -0.5; c = 1e-09 (c) +0.25"


def test_nothing_described_is_nothing_told(served: Recommender) -> None:
    none = pl.DataFrame(schema=dict.fromkeys(served.manifest["features"], pl.Float32))
    told = explanations(served.ranker, none)
    assert (told.dtype, len(told)) == (pl.String, 0)


def test_answers_name_channels_and_what_moved_the_score(served: Recommender, log: Log) -> None:
    asked = requests_at_clicks(log, 10)
    plain, told = served.recommend_many(asked), served.recommend_many(asked, explain=True)
    assert bits(told.drop("channels", "because")) == bits(plain)
    assert set(told["channels"].str.split(", ").explode()) == {"itemcf", "popular"}
    assert told.filter(pl.col("user_id") == STRANGER)["channels"].unique().to_list() == ["popular"]
    assert all(reasons_in_words(because) for because in told["because"])


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


def test_shown_lists_are_explained_row_by_row(on_slates: TrainResult, log: Log) -> None:
    """Of a bundle without channels: none proposed anything. The best of each list alone, and whole lists."""
    served = Recommender.load(on_slates.run)
    asked = requests_at_clicks(log, 5)
    items = log.articles["item_id"].sample(8, seed=2).to_list()
    lists = pl.DataFrame(
        {"request_id": np.repeat(asked["request_id"].to_numpy(), 8), "item_id": items * len(asked)},
    )
    plain, told = served.rank_many(asked, lists), served.rank_many(asked, lists, explain=True)
    assert bits(told.drop("channels", "because")) == bits(plain)
    assert told["channels"].unique().to_list() == [""]
    assert all(reasons_in_words(because) for because in told["because"])
    best = served.rank_many(asked, lists, k=2, explain=True)
    assert bits(best) == bits(told.filter(pl.col("rank") <= 2))
    none = served.rank_many(asked.clear(), lists, explain=True)
    assert (none.schema, len(none)) == (told.schema, 0)
    with pytest.raises(UsageError, match="--k: expected at least 1, found 0"):
        served.rank_many(asked, lists, k=0)


def test_shown_lists_name_the_channels_that_would_have_proposed(trained: TrainResult, log: Log) -> None:
    served = Recommender.load(trained.run)
    asked = requests_at_clicks(log, 5)
    best = served.recommend_many(asked, k=4, explain=True)
    told = served.rank_many(asked, best.select("request_id", "item_id"), explain=True)
    both = told.join(best, on=["request_id", "item_id"], suffix="_of_recall")
    assert both["channels"].to_list() == both["channels_of_recall"].to_list()
    assert len(both) == len(told) == 24


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
