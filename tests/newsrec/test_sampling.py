"""Negatives are drawn as told, with the probability that is told, and what is no negative is left alone."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.events import EventStore
from newsrec.assembly import Assembly, training_data
from newsrec.candidates import SamplingConfig, label
from newsrec.data import Log
from newsrec.errors import UsageError
from newsrec.recall import DEFAULT_CHANNELS, RecallSettings
from newsrec.sampling import HARD, LEFT_SOON_SECONDS, SAMPLERS, SEMI_HARD, inclusion, mark_negatives, parse, systematic
from newsrec.slates import SPLITS
from newsrec.split import Split, SplitConfig
from newsrec.stories import same_story
from tests.factories import articles_of, clicks_of, impressions_of, instant, requests_of

RATIO = 4.0
DRAWN = [name for name in SAMPLERS if name not in ("list", "all")]
MIXTURES = ("random+hard", "random:3+exposed:1")


class Lists:
    """Labelled candidate lists of a simulated log."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.store = EventStore(log.clicks, log.articles, log.impressions)
        self.split: Split = SPLITS["recall"](log, self.store, SplitConfig(train_requests=500))
        self.assembly = Assembly.of(self.store, DEFAULT_CHANNELS, RecallSettings())
        self.requests = self.split.part("train")
        lists, _ = self.assembly.lists(self.requests)
        self.labelled = label(self.assembly.cut(lists), self.split.positives)

    def marked(self, spec: str, seed: int = 0, **changes: object) -> pl.DataFrame:
        config = replace(SamplingConfig(sampler=spec, ratio=RATIO, seed=seed), **changes)  # type: ignore[arg-type]
        return mark_negatives(self.labelled, self.requests, self.store, config, self.split.learn_until)


@pytest.fixture(scope="module")
def lists(log: Log) -> Lists:
    return Lists(log)


@pytest.mark.parametrize("spec", [*SAMPLERS, *MIXTURES])
class TestEverySampler:
    def test_rows_and_columns_stay_and_the_draw_is_repeatable(self, lists: Lists, spec: str) -> None:
        first, again = lists.marked(spec), lists.marked(spec)
        assert first.equals(again)
        assert first.columns == [*lists.labelled.columns, "kept", "sampling_probability"]
        assert first.drop("kept", "sampling_probability", "label").equals(lists.labelled.drop("label"))
        assert first.schema["label"] == pl.UInt8
        assert first.schema["sampling_probability"] == pl.Float32

    def test_kept_requests_hold_their_clicks_and_a_negative(self, lists: Lists, spec: str) -> None:
        kept = lists.marked(spec).filter("kept")
        classes = kept.group_by("request_id").agg(low=pl.col("label").min(), high=pl.col("label").max())
        assert len(classes) > 100
        assert (classes["low"] == 0).all()
        assert (classes["high"] == 1).all()
        assert kept["sampling_probability"].is_between(0, 1, closed="right").all()
        assert (kept.filter(pl.col("label") == 1)["sampling_probability"] == 1).all()

    def test_probability_is_how_often_a_row_is_kept(self, lists: Lists, spec: str) -> None:
        """Over forty seeds the rows that are told a probability are kept as often, high ones and low ones."""
        draws = [lists.marked(spec, seed=100 * seed) for seed in range(40)]
        told = draws[0].filter(pl.col("label") == 0)["sampling_probability"].to_numpy()
        often = np.mean([d.filter(pl.col("label") == 0)["kept"].to_numpy() for d in draws], axis=0)
        in_use = np.isin(
            draws[0].filter(pl.col("label") == 0)["request_id"].to_numpy(), draws[0].filter("kept")["request_id"]
        )
        drawn = in_use & (told < 1)
        for part in (drawn & (told < 0.1), drawn & (told >= 0.1)):
            if part.sum() > 200:
                assert often[part].mean() == pytest.approx(told[part].mean(), rel=0.06)

    def test_empty_lists_stay_empty(self, lists: Lists, spec: str) -> None:
        config = SamplingConfig(sampler=spec)
        marked = mark_negatives(lists.labelled.clear(), lists.requests, lists.store, config)
        assert marked.is_empty()
        assert marked.schema["kept"] == pl.Boolean

    def test_frames_in_pieces_are_marked_alike(self, lists: Lists, spec: str) -> None:
        pieces = pl.concat([lists.labelled[:1000], lists.labelled[1000:]], rechunk=False)
        assert pieces.n_chunks() > 1
        config = SamplingConfig(sampler=spec)
        one, other = (mark_negatives(each, lists.requests, lists.store, config) for each in (lists.labelled, pieces))
        assert other.equals(one)

    def test_fits_through_training_data(self, lists: Lists, spec: str) -> None:
        few = lists.requests.head(150)
        config = SamplingConfig(sampler=spec)
        rows = training_data(lists.assembly, few, lists.split.positives, config)
        bare = training_data(lists.assembly, few, lists.split.positives, replace(config, weighted=False))
        assert len(rows) == len(bare) > 0
        assert (rows.weight >= 1).all()
        assert (bare.weight == 1).all()


@pytest.mark.parametrize("spec", [name for name in DRAWN if name not in ("exposed", "semi_hard")] + ["random+hard"])
def test_ratio_is_kept(lists: Lists, spec: str) -> None:
    kept = lists.marked(spec).filter("kept")
    wanted = 2 * RATIO if spec == "short_dwell" else RATIO
    assert RATIO - 0.4 <= (kept["label"] == 0).sum() / (kept["label"] == 1).sum() <= wanted


def test_weights_restore_the_size_of_the_lists(lists: Lists) -> None:
    kept = lists.marked("popular").filter("kept")
    whole = lists.labelled.join(kept.select("request_id").unique(), on="request_id", how="semi")
    assert (1 / kept["sampling_probability"]).sum() == pytest.approx(len(whole), rel=0.05)


def test_hard_and_semi_hard_come_from_their_parts_of_the_list(lists: Lists) -> None:
    for spec, low, high in (("hard", 0, HARD), ("semi_hard", HARD, SEMI_HARD)):
        marked = lists.marked(spec).with_columns(length=pl.len().over("request_id"))
        kept = marked.filter("kept", pl.col("label") == 0)
        depth = (kept["recall_rank"] - 0.5) / kept["length"]
        assert depth.is_between(low, high).all()
        assert depth.max() > high - 0.05  # type: ignore[operator]


def test_popular_draws_the_popular(lists: Lists) -> None:
    popularity = lists.log.clicks.group_by("item_id").len("n")
    means = {}
    for spec in ("random", "popular"):
        kept = lists.marked(spec).filter("kept", pl.col("label") == 0)
        means[spec] = kept.join(popularity, on="item_id")["n"].mean()
    assert means["popular"] > 1.2 * means["random"]


def test_exposed_draws_only_what_was_in_the_list_of_the_request(lists: Lists) -> None:
    kept = lists.marked("exposed").filter("kept", pl.col("label") == 0)
    asked = kept.join(lists.requests.select("request_id", "impression_id"), on="request_id")
    shown = lists.log.impressions
    assert shown is not None
    seen = asked.join(shown, left_on=["impression_id", "item_id"], right_on=["request_id", "item_id"], how="semi")
    assert len(seen) == len(kept) > 100


def test_clicks_left_at_once_become_negatives(lists: Lists) -> None:
    marked = lists.marked("short_dwell")
    turned = lists.labelled.select("request_id", "item_id").filter(
        (lists.labelled["label"] == 1) & (marked["label"] == 0)
    )
    users = turned.join(lists.requests.select("request_id", "user_id", "requested_at"), on="request_id")
    reads = users.join(lists.log.clicks, on=["user_id", "item_id"])
    read = reads.filter(pl.col("clicked_at") >= pl.col("requested_at")).sort("clicked_at")
    assert len(turned) > 0
    assert (read.unique(["user_id", "item_id"], keep="first")["dwell_seconds"] < LEFT_SOON_SECONDS).all()


def small(embeddings: bool = False) -> tuple[EventStore, pl.DataFrame, pl.DataFrame]:
    """User 1 clicks article 10 at minute 60 among 10, 11, 12, 13, reads 11 an hour later; 12 tells the story of 10."""
    clicks = clicks_of([(1, 10, 61.0), (1, 11, 120.0), (2, 13, 130.0), (3, 12, 1.0)])
    vectors = [[1.0, 0.0], [0.0, 1.0], [0.99, 0.05], [-1.0, 0.0]]
    columns = {"embedding": pl.Series(vectors, dtype=pl.Array(pl.Float32, 2))} if embeddings else {}
    store = EventStore(clicks, articles_of([10, 11, 12, 13], **columns))
    requests = requests_of([(1, 60.0, 60.0)])
    rows = {"request_id": [100] * 4, "item_id": [10, 11, 12, 13], "label": [1, 0, 0, 0], "recall_rank": [1, 2, 3, 4]}
    return store, requests, pl.DataFrame(rows).cast({"label": pl.UInt8, "recall_rank": pl.UInt16})


@pytest.mark.parametrize(
    ("embeddings", "until", "kept"), [(False, None, [10, 12, 13]), (True, None, [10, 13]), (True, 100, [10, 11, 13])]
)
def test_later_clicks_and_twins_of_the_story_are_no_negatives(
    embeddings: bool, until: float | None, kept: list[int]
) -> None:
    """A later click counts only inside the training time: with its end at minute 100, article 11 is a negative."""
    store, requests, labelled = small(embeddings)
    end = None if until is None else round(instant(until).timestamp() * 1000)
    marked = mark_negatives(labelled, requests, store, SamplingConfig(sampler="random", ratio=10), end)
    assert marked.filter("kept")["item_id"].to_list() == kept
    assert (marked["sampling_probability"] == 1).all()


def test_story_is_told_by_the_title_too_and_nothing_is_known_of_strangers() -> None:
    titles = ["Same thing", " same THING ", None, None]
    store = EventStore(clicks_of([(1, 10, 1.0)]), articles_of([10, 11, 12, 13], title=titles))
    code = store.item_codes(pl.Series([10, 11, 12, 13]))
    first, second = code[[0, 0, 2, 2]], np.array([code[1], code[2], code[3], -1])
    assert same_story(store, first, second).tolist() == [True, False, False, False]
    assert same_story(store, code, code).all()


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.0, 0.01, 1.0, 2.5, 90.0])), min_size=1, max_size=30),
    st.lists(st.integers(0, 12), min_size=4, max_size=4),
)
@settings(max_examples=100, deadline=None)
def test_inclusion_keeps_the_wanted_number_and_the_proportions(
    rows: list[tuple[int, float]], wanted: list[int]
) -> None:
    request, weight = (np.array(column) for column in zip(*sorted(rows), strict=True))
    chance = inclusion(weight, request, np.array(wanted, float))
    for each in range(4):
        mine = request == each
        can = min(wanted[each], int((weight[mine] > 0).sum()))
        assert chance[mine].sum() == pytest.approx(can, abs=1e-6)
        free = mine & (chance > 0) & (chance < 1)
        if free.any():
            assert np.ptp(chance[free] / weight[free]) == pytest.approx(0, abs=1e-6)
    assert np.all((chance >= 0) & (chance <= 1))
    assert np.all(chance[weight == 0] == 0)


@given(chances=st.lists(st.floats(0, 1), min_size=1, max_size=20), seed=st.integers(0, 50))
@settings(max_examples=100, deadline=None)
def test_systematic_sampling_keeps_the_size_within_one(chances: list[float], seed: int) -> None:
    chance = np.array(chances)
    draw = np.random.default_rng(seed).integers(0, 2**63, len(chance)).astype(np.uint64)
    kept = systematic(chance, np.zeros(len(chance), np.int64), draw).sum()
    assert np.floor(chance.sum() - 1e-9) <= kept <= np.ceil(chance.sum() + 1e-9)


def test_mixture_is_kept_where_any_part_keeps() -> None:
    """Evenly 1 of 9 and, independently, 1 of the first two: 1 - 8/9 * 1/2."""
    rows = {"request_id": [1] * 10, "item_id": range(10), "label": [0] * 9 + [1], "recall_rank": range(1, 11)}
    labelled = pl.DataFrame(rows).cast({"label": pl.UInt8, "recall_rank": pl.UInt16, "request_id": pl.Int64})
    store = EventStore(clicks_of([(1, 9, 1.0)]), articles_of(list(range(10))))
    requests = requests_of([(1, 1.0, 1.0)]).with_columns(request_id=pl.lit(1, pl.Int64))
    marked = mark_negatives(labelled, requests, store, SamplingConfig(sampler="random+hard", ratio=2))
    assert marked["sampling_probability"].to_list() == pytest.approx([1 - 8 / 9 * 0.5] * 2 + [1 / 9] * 7 + [1])


@pytest.mark.parametrize(
    "spec", ["luck", "random+luck", "random+random", "list+hard", "hard:0", "hard:x", "hard:inf", ""]
)
def test_unknown_mixtures_are_refused(spec: str) -> None:
    with pytest.raises(UsageError, match="--negatives: expected"):
        parse(spec)


@pytest.mark.parametrize(("spec", "told"), [("exposed", "with impressions"), ("short_dwell", "'dwell_seconds'")])
def test_sampler_whose_data_is_absent_is_refused(spec: str, told: str) -> None:
    store, requests, labelled = small()
    with pytest.raises(UsageError, match=f"--negatives {spec}: expected .*{told}"):
        mark_negatives(labelled, requests, store, SamplingConfig(sampler=spec))


def test_shown_lists_are_sampled_only_by_name() -> None:
    clicks = clicks_of([(1, 10, 61.0), (2, 11, 3.0)])
    shown = impressions_of([(1, 60.0, list(range(10, 40)))])
    store = EventStore(clicks, articles_of(list(range(10, 40))), shown)
    requests = requests_of([(1, 60.0, 60.0)])
    slates = pl.DataFrame(
        {"request_id": [100] * 30, "item_id": range(10, 40)}, schema_overrides={"request_id": pl.Int64}
    )
    positives = pl.DataFrame({"request_id": [100], "item_id": [10]}, schema_overrides={"request_id": pl.Int64})
    assembly = Assembly.of(store, (), RecallSettings(), slates=slates)
    sizes = {
        spec: len(training_data(assembly, requests, positives, SamplingConfig(sampler=spec)))
        for spec in ("list", "all", "random")
    }
    assert sizes == {"list": 30, "all": 30, "random": 5}
