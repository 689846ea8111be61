"""Requests in, described candidates out: the same rows whatever the chunks, for training, validation and scoring."""

import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from features.catalog import FEATURES, features_for, parts_of
from features.events import EventStore
from features.vocabulary import Vocabulary
from newsrec import assembly as module
from newsrec.ahead import Beside, ahead
from newsrec.assembly import Assembly, ScoredLists, chunks, rows_of, score_lists, training_data
from newsrec.candidates import SamplingConfig, label, sample_negatives
from newsrec.data import Log
from newsrec.errors import UsageError
from newsrec.progress import Clock
from newsrec.rankers import RankingData
from newsrec.recall import CHANNELS, RecallRequests, RecallSettings, working
from newsrec.slates import canonical_requests, slates_of
from newsrec.slates import requests_of as requests_of_log
from newsrec.split import Split, SplitConfig, split_log
from tests.factories import bits, described, fitted, proposed, rich_log, small_log, store_of

SETTINGS = RecallSettings(depth=12)
SAMPLING = SamplingConfig(top=2, others=3, seed=1)
LOG = small_log(1)
STORE = EventStore(LOG.clicks, LOG.articles)
NAMES = working(STORE)
SPLIT = split_log(LOG, STORE, SplitConfig(test_days=0.5, valid_days=0.5, warmup_hours=2))
TRAIN = SPLIT.part("train")


def assembly_of(log: Log = LOG, **changes: object) -> Assembly:
    settings = {"vocabulary": Vocabulary.of(log.clicks, 2), "list_length": 10} | changes
    depth = RecallSettings(depth=max(SETTINGS.depth, settings["list_length"]))
    return Assembly.of(EventStore(log.clicks, log.articles), NAMES, depth, **settings)  # type: ignore[arg-type]


def by_rank(features: pl.DataFrame) -> np.ndarray:
    return -features["recall_rank"].to_numpy()


def scored(assembly: Assembly, split: Split = SPLIT) -> ScoredLists:
    return score_lists(assembly, assembly.described(split.part("test"), split.positives), by_rank)


def parts(data: RankingData) -> list[object]:
    return [bits(data.features), data.label.tolist(), data.request.tolist(), data.weight.tolist()]


class TestAssembly:
    def test_lists_are_those_of_the_channels_merged(self) -> None:
        lists, coded = assembly_of().lists(TRAIN)
        assert_frame_equal(lists, proposed(LOG, TRAIN, SETTINGS))
        assert isinstance(coded, RecallRequests)
        assert coded.frame.equals(TRAIN)

    def test_cut_keeps_the_first_of_each_list(self) -> None:
        lists = proposed(LOG, TRAIN, SETTINGS)
        cut = assembly_of(list_length=4).cut(lists)
        assert cut["recall_rank"].max() == 4
        assert cut.group_by("request_id").len()["len"].sum() == (lists["recall_rank"] <= 4).sum()

    def test_description_is_that_of_build(self) -> None:
        lists = proposed(LOG, TRAIN, SETTINGS)
        assembly = assembly_of()
        wanted = [f.name for f in features_for(NAMES, parts_of(LOG.clicks, LOG.articles))]
        assert [f.name for f in assembly.features] == wanted
        expected = described(LOG, lists, TRAIN, assembly.vocabulary).select(wanted)
        assert bits(assembly.describe(lists, TRAIN)) == bits(expected)

    def test_channels_keep_the_order_they_are_named_in(self) -> None:
        turned = Assembly.of(STORE, NAMES[::-1], SETTINGS)
        assert tuple(turned.channels) == NAMES[::-1]
        own = [f.name for f in turned.features if f.name.removesuffix("_score") in NAMES]
        assert own == [f"{name}_score" for name in NAMES[::-1]]

    @pytest.mark.parametrize("names", [(), ("popular", "psychic", "astrology")])
    def test_unknown_channels_and_none_are_refused(self, names: tuple[str, ...]) -> None:
        known, found = re.escape(str(sorted(CHANNELS))), r"\['astrology', 'psychic'\]" if names else "none"
        with pytest.raises(UsageError, match=rf"--recall: expected channels of {known}, found {found}\.$"):
            Assembly.of(STORE, names, SETTINGS)

    def test_named_features_come_in_their_order(self) -> None:
        names = ["popular_rank", "hour", FEATURES[0].name]
        assembly = assembly_of(feature_names=names)
        assert assembly.describe(proposed(LOG, TRAIN, SETTINGS), TRAIN).columns == names

    def test_named_features_that_nobody_makes_are_refused(self) -> None:
        with pytest.raises(UsageError, match=r"the bundle needs \['clairvoyance', 'dense_score'\]"):
            assembly_of(feature_names=["hour", "clairvoyance", "dense_score"])

    def test_named_features_are_made_of_a_log_without_their_columns(self) -> None:
        """A bundle keeps its columns; what the log lacks is null."""
        bare = replace(LOG, clicks=LOG.clicks.drop("device"), articles=LOG.articles.drop("words"))
        found = assembly_of(bare, feature_names=["item_words", "last_device", "hour"])
        frame = found.describe(proposed(bare, TRAIN, SETTINGS), TRAIN)
        assert frame["item_words"].null_count() == len(frame) > 0
        assert set(frame["last_device"]) <= {None, 0.0}
        assert frame["hour"].null_count() == 0

    def test_given_vocabulary_is_used(self) -> None:
        lists = proposed(LOG, TRAIN, SETTINGS)
        nobody = assembly_of(vocabulary=Vocabulary.of(LOG.clicks, 10**6), feature_names=["last_device"])
        assert set(nobody.describe(lists, TRAIN)["last_device"]) == {0.0}
        assert len(set(assembly_of(feature_names=["last_device"]).describe(lists, TRAIN)["last_device"])) > 1

    def test_vocabulary_is_learned_where_none_is_given(self) -> None:
        assert assembly_of(vocabulary=None).vocabulary.table.equals(Vocabulary.of(LOG.clicks).table)

    def test_time_is_added_to_the_stages(self) -> None:
        clock = Clock()
        scored(assembly_of(clock=clock))
        assert set(clock.seconds) == {"recall", "features", "rank"}


class TestChunks:
    @pytest.mark.parametrize("size", [1, 7, 1_000])
    def test_every_request_is_in_one_and_moments_ascend(self, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "CHUNK_REQUESTS", size)
        frames = list(chunks(SPLIT.requests.sample(fraction=1, shuffle=True, seed=0)))
        assert {len(frame) for frame in frames[:-1]} <= {size}
        together = pl.concat(frames)
        assert together["statistics_at"].is_sorted()
        assert together.sort("request_id").equals(SPLIT.requests.sort("request_id"))

    def test_no_request_makes_no_chunk(self) -> None:
        assert not list(chunks(SPLIT.requests.clear()))

    def test_rows_do_not_depend_on_the_size(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assembly = assembly_of()
        whole = [training_data(assembly, TRAIN, SPLIT.positives, each) for each in (SAMPLING, None)]
        lists = scored(assembly)
        monkeypatch.setattr(module, "CHUNK_REQUESTS", 5)
        again = [training_data(assembly, TRAIN, SPLIT.positives, each) for each in (SAMPLING, None)]
        assert [parts(data) for data in again] == [parts(data) for data in whole]
        assert scored(assembly).rows.equals(lists.rows)
        assert scored(assembly).positive_ranks.equals(lists.positive_ranks)

    @pytest.mark.parametrize("many", [1, 1_000])
    @pytest.mark.parametrize("size", [1, 3, 11, 1_000])
    def test_lists_proposed_beside_others_are_the_same_and_are_proposed_once(
        self, size: int, many: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        few = TRAIN.head(20)
        beside, own = few.gather_every(2), few.gather_every(2, 1)
        alone = assembly_of()
        expected = [list(alone.recalled(each)) for each in (own, beside)]
        monkeypatch.setattr(module, "CHUNK_REQUESTS", size)
        monkeypatch.setattr(module, "MANY_REQUESTS", many)
        assembly, asked = assembly_of(), []
        lists = Assembly.lists
        monkeypatch.setattr(Assembly, "lists", lambda self, chunk: (asked.append(len(chunk)), lists(self, chunk))[1])
        found = [list(assembly.recalled(own, beside)), list(assembly.recalled(beside))]
        assert sum(asked) == len(few)
        for chunked, ((requests, whole),) in zip(found, expected, strict=True):
            assert all(len(chunk) for chunk, _ in chunked)
            assert pl.concat(chunk for chunk, _ in chunked).equals(requests)
            assert pl.concat(each for _, each in chunked).equals(whole)
        list(assembly.recalled(beside))  # forgotten once given
        assert sum(asked) == len(few) + len(beside)

    def test_the_next_is_made_while_the_present_one_is_in_use(self) -> None:
        made = [threading.Event() for _ in range(3)]

        def items() -> Iterator[int]:
            for i, each in enumerate(made):
                each.set()
                yield i

        for i in ahead(items()):
            assert all(each.wait(10) for each in made[: i + 2])

    def test_channels_asked_beside_each_other_say_the_same(self, monkeypatch: pytest.MonkeyPatch) -> None:
        in_turn = assembly_of().lists(TRAIN)[0]
        monkeypatch.setattr(module, "MANY_REQUESTS", 1)
        assert assembly_of().lists(TRAIN)[0].equals(in_turn)

    def test_calls_are_made_beside_each_other_and_answered_in_their_order(self) -> None:
        met = threading.Barrier(2, timeout=10)
        assert list(Beside(2)({"a": met.wait, "b": lambda: met.wait() * 0 + 7}).items())[1] == ("b", 7)

    def test_what_took_longest_begins_first(self) -> None:
        begun: list[str] = []

        def call(name: str, seconds: float) -> Callable[[], None]:
            return lambda: (begun.append(name), time.sleep(seconds))[1]

        beside = Beside(1)
        calls = {"short": call("short", 0), "long": call("long", 0.05)}
        assert list(beside(calls)) == ["short", "long"]
        beside(calls | {"new": call("new", 0)})
        assert begun == ["short", "long", "new", "long", "short"]

    def test_what_fails_beside_others_is_raised(self) -> None:
        ended: list[int] = []

        def fails() -> None:
            raise UsageError("first")

        with pytest.raises(UsageError, match="first"):
            Beside(2)({"a": fails, "b": lambda: ended.append(1)})
        assert ended == [1]

    def test_what_fails_beside_fails_where_it_is_asked_for(self) -> None:
        def items() -> Iterator[int]:
            yield 1
            raise UsageError("second")

        found = ahead(items())
        assert next(found) == 1
        with pytest.raises(UsageError, match="second"):
            next(found)


class TestTrainingData:
    def taught(self, lists: pl.DataFrame) -> set[int]:
        """Requests whose list holds what was clicked, and something else."""
        counted = label(lists, SPLIT.positives).group_by("request_id").agg(pl.col("label").sum(), pl.len())
        return set(counted.filter((pl.col("label") > 0) & (pl.col("label") < pl.col("len")))["request_id"])

    def test_without_sampling_the_whole_lists_of_found_clicks_with_weight_one(self) -> None:
        data = training_data(assembly_of(), TRAIN, SPLIT.positives, None)
        lists = proposed(LOG, TRAIN, SETTINGS).filter(pl.col("recall_rank") <= 10)
        expected = label(lists, SPLIT.positives).filter(pl.col("request_id").is_in(list(self.taught(lists))))
        assert 0 < len(self.taught(lists)) < len(TRAIN)
        assert data.request.tolist() == expected["request_id"].to_list()
        assert data.label.tolist() == expected["label"].to_list()
        assert data.features["recall_rank"].to_list() == expected["recall_rank"].to_list()
        assert set(data.weight) == {1.0}

    def test_without_sampling_lists_longer_than_any_sample_stay_whole(self, log: Log) -> None:
        split = split_log(log, EventStore(log.clicks, log.articles), SplitConfig(valid_requests=40))
        assembly = assembly_of(log, list_length=70)
        data = training_data(assembly, split.part("valid"), split.positives, None)
        lengths = np.unique(data.request, return_counts=True)[1]
        assert max(lengths) == 70

    def test_with_sampling_the_kept_rows_weighed_by_their_probability(self) -> None:
        data = training_data(assembly_of(), TRAIN, SPLIT.positives, SAMPLING)
        lists = proposed(LOG, TRAIN, SETTINGS).filter(pl.col("recall_rank") <= 10)
        kept = sample_negatives(label(lists, SPLIT.positives), SAMPLING).filter("kept")
        assert data.request.tolist() == kept["request_id"].to_list()
        assert data.features["recall_rank"].to_list() == kept["recall_rank"].to_list()
        assert data.weight.tolist() == (1 / kept["sampling_probability"]).to_list()
        assert max(data.weight) > 1
        assert len(data) < len(training_data(assembly_of(), TRAIN, SPLIT.positives, None))

    def test_features_of_sampled_rows_are_those_of_the_whole_list(self) -> None:
        few, all_rows = (training_data(assembly_of(), TRAIN, SPLIT.positives, each) for each in (SAMPLING, None))
        key = ["request", "recall_rank"]
        one, other = (d.features.with_columns(pl.Series("request", d.request)) for d in (few, all_rows))
        assert one.equals(one.select(key).join(other, on=key, maintain_order="left").select(one.columns))

    @pytest.mark.parametrize("sampling", [SAMPLING, SamplingConfig(sampler="random+hard", seed=3), None])
    def test_lists_that_are_described_already_give_the_same_rows(self, sampling: SamplingConfig | None) -> None:
        assembly = assembly_of()
        lists = list(assembly.described(TRAIN, SPLIT.positives))
        expected = training_data(assembly, TRAIN, SPLIT.positives, sampling)
        assert parts(rows_of(assembly, lists, sampling)) == parts(expected)
        assert parts(rows_of(assembly, lists, sampling)) == parts(expected)

    def test_rows_of_a_request_stand_together(self) -> None:
        request = training_data(assembly_of(), TRAIN, SPLIT.positives, SAMPLING).request
        assert (np.diff(request) != 0).sum() + 1 == len(set(request))

    def test_click_beyond_the_list_length_teaches_nothing(self) -> None:
        short = assembly_of(list_length=3)
        found = set(training_data(short, TRAIN, SPLIT.positives, None).request)
        lists = proposed(LOG, TRAIN, SETTINGS)
        assert found == self.taught(lists.filter(pl.col("recall_rank") <= 3)) < self.taught(lists)

    def test_no_request_gives_the_columns_and_no_row(self) -> None:
        assembly = assembly_of()
        data = training_data(assembly, TRAIN.clear(), SPLIT.positives, SAMPLING)
        assert len(data) == 0
        assert data.features.columns == [f.name for f in assembly.features]


class TestScoreLists:
    def test_every_candidate_is_scored_and_none_is_sampled(self) -> None:
        rows = scored(assembly_of()).rows
        test = SPLIT.part("test")
        lists = proposed(LOG, test, SETTINGS).filter(pl.col("recall_rank") <= 10)
        key = ["request_id", "recall_rank"]
        expected = label(lists, SPLIT.positives).select("request_id", "item_id", "label", "recall_rank").sort(key)
        found = rows.with_columns((-pl.col("recall_order")).cast(pl.UInt16).alias("recall_rank"))
        assert found.select(expected.columns).sort(key).equals(expected)
        assert rows["score"].to_list() == rows["recall_order"].to_list()

    def test_baselines_are_orders_over_the_features(self) -> None:
        rows = scored(assembly_of()).rows
        test = SPLIT.part("test")
        features = described(LOG, proposed(LOG, test, SETTINGS), test)
        joined = rows.join(features, on=["request_id", "item_id"], maintain_order="left", suffix="_seen")
        assert scored(assembly_of()).baselines == ("popularity", "recency", "recall_order")
        assert rows["popularity"].to_list() == joined["item_clicks_1h"].to_list()
        assert rows["recall_order"].to_list() == [-rank for rank in joined["recall_rank"]]
        assert rows["recency"].to_list() == (-joined["item_age_hours"].fill_null(1e6)).to_list()

    def test_log_without_creation_times_goes_by_when_an_article_was_first_seen(self) -> None:
        bare = replace(LOG, articles=LOG.articles.drop("created_at"))
        rows, test = scored(assembly_of(bare)).rows, SPLIT.part("test")
        features = described(bare, proposed(bare, test, SETTINGS), test)
        joined = rows.join(features, on=["request_id", "item_id"], maintain_order="left")
        seen = joined["item_hours_since_first_seen"]
        assert rows["recency"].to_list() == [0.0 if hours is None else -hours for hours in seen]
        assert rows["recency"].n_unique() > 10

    def test_ranks_of_what_was_clicked_come_from_the_uncut_lists(self) -> None:
        test = SPLIT.part("test")
        found = scored(assembly_of(list_length=3)).positive_ranks
        lists = proposed(LOG, test, SETTINGS)
        positives = SPLIT.positives.filter(pl.col("request_id").is_in(test["request_id"].to_list()))
        columns = [*(f"{name}_rank" for name in NAMES), "recall_rank"]
        expected = positives.join(lists, on=["request_id", "item_id"], how="left")
        key = ["request_id", "item_id"]
        assert found.select(*key, *columns).sort(key).equals(expected.select(*key, *columns).sort(key))
        assert found["recall_rank"].max() > 3
        assert 0 < found["recall_rank"].null_count() < len(found)

    def test_nothing_clicked_labels_nothing(self) -> None:
        assembly = assembly_of()
        found = score_lists(assembly, assembly.described(SPLIT.part("test"), SPLIT.positives.clear()), by_rank)
        assert found.rows["label"].sum() == 0
        assert len(found.rows) == len(scored(assembly_of()).rows)
        assert found.positive_ranks.is_empty()


class TestShownLists:
    """Requests that bring their lists: all of `rich_log`, in an order of items that no sort would give."""

    LOG = rich_log(2)
    STORE = EventStore(LOG.clicks, LOG.articles, LOG.impressions)
    REQUESTS = canonical_requests(requests_of_log(LOG.impressions), STORE)
    SLATES = slates_of(LOG.impressions.reverse(), REQUESTS)
    POSITIVES = SLATES.filter(pl.col("label") == 1).select("request_id", "item_id")

    def of(self, channels: Sequence[str] = ()) -> Assembly:
        return Assembly.of(self.STORE, channels, SETTINGS, list_length=3, slates=self.SLATES)

    @pytest.mark.parametrize("channels", [(), NAMES])
    def test_lists_are_whole_in_their_order_and_never_cut(self, channels: Sequence[str]) -> None:
        assembly = self.of(channels)
        lists, _ = assembly.lists(self.REQUESTS)
        assert assembly.cut(lists).select("request_id", "item_id").equals(self.SLATES.select("request_id", "item_id"))
        assert lists.group_by("request_id").len()["len"].max() > 3

    def test_channels_only_describe(self) -> None:
        lists, _ = self.of(working(store_of(self.LOG))).lists(self.REQUESTS)
        said = proposed(self.LOG, self.REQUESTS, SETTINGS)
        expected = self.SLATES.select("request_id", "item_id").join(
            said, on=["request_id", "item_id"], how="left", maintain_order="left"
        )
        assert bits(lists.select(expected.columns)) == bits(expected)
        assert 0 < lists["popular_rank"].null_count() < len(lists)

    def test_without_channels_no_feature_is_of_recall(self) -> None:
        names = [f.name for f in self.of().features]
        assert not [name for name in names if name.endswith(("_score", "recall_rank")) or name in NAMES]
        assert "item_click_rate_24h" in names

    def test_nothing_shown_is_sampled(self) -> None:
        data = training_data(self.of(), self.REQUESTS, self.POSITIVES, SamplingConfig(top=0, others=0))
        told = self.SLATES.group_by("request_id").agg(pl.len(), pl.col("label").sum())
        both = told.filter(pl.col("label").is_between(1, pl.col("len") - 1))
        assert len(data) == both["len"].sum() > 0
        lists = self.of().described(self.REQUESTS, self.POSITIVES)
        assert parts(rows_of(self.of(), lists, SamplingConfig(top=0, others=0))) == parts(data)
        assert set(data.request) == set(both["request_id"])
        assert set(data.weight) == {1.0}

    def test_recall_is_not_measured(self) -> None:
        assembly = self.of()
        lists = assembly.described(self.REQUESTS, self.POSITIVES)
        found = score_lists(assembly, lists, lambda f: np.zeros(len(f), np.float32))
        assert found.positive_ranks is None
        assert found.baselines == ("popularity", "click_rate", "recency")
        assert (
            found.rows.select("request_id", "item_id", "label")
            .sort("request_id", maintain_order=True)
            .equals(self.SLATES)
        )

    def test_features_and_families_can_be_left_out(self) -> None:
        names = [f.name for f in Assembly.of(self.STORE, (), SETTINGS, slates=self.SLATES, without=["hour"]).features]
        assert names == [f.name for f in self.of().features if f.name != "hour"]
        with pytest.raises(UsageError, match=r"--without: expected features or families of .*found .*astrology"):
            Assembly.of(self.STORE, (), SETTINGS, slates=self.SLATES, without=["astrology"])


def test_one_channel_alone_is_enough() -> None:
    store, channels = fitted(LOG)
    for name in channels:
        alone = Assembly.of(store, [name], SETTINGS, list_length=10)
        data = training_data(alone, TRAIN, SPLIT.positives, None)
        assert len(data) > 0
        assert f"{name}_rank" in data.features.columns
        assert not {f"{other}_rank" for other in NAMES if other != name} & set(data.features.columns)
