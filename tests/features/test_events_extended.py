"""A store that grows answers as one made of everything at once: the parity that a running service lives on."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.build import build
from features.events import NEVER, EventStore
from features.vocabulary import Vocabulary
from newsrec.data.log import Log
from tests.factories import (
    IDS,
    all_features,
    articles_of,
    candidates_for,
    clicks_of,
    contexts,
    impressions_of,
    ms,
    requests_for,
    rich_log,
    unequal,
)

Frames = tuple[pl.DataFrame | None, pl.DataFrame | None, pl.DataFrame | None]
"""Clicks, articles and impressions of one batch."""


@dataclass(frozen=True)
class Disorder:
    """What a stream may do, as shares of its events."""

    late: float = 0.0
    repeated: float = 0.0
    torn: float = 0.0
    """Lists that arrive in two parts."""
    renamed: float = 0.0
    """Articles that change category, publisher or length after they were told first."""


CALM = Disorder()
WILD = Disorder(late=0.05, repeated=0.2, torn=0.1, renamed=0.2)


class Stream:
    """A log cut into a start and small batches.

    `final` holds all of it: what a store must know in the end.
    """

    def __init__(self, log: Log, seed: int, disorder: Disorder) -> None:
        self.rng, self.disorder = np.random.default_rng(seed), disorder
        assert log.impressions is not None
        requests = log.impressions.partition_by("request_id", maintain_order=True)
        events = [("clicks", row["clicked_at"], log.clicks[i]) for i, row in enumerate(log.clicks.to_dicts())]
        events += [("impressions", part["requested_at"][0], part) for slate in requests for part in self.torn(slate)]
        events += self.announcements(log)
        order = sorted(range(len(events)), key=lambda i: (events[i][1], self.rng.random()))
        self.events = [(kind, frame) for kind, _, frame in (events[i] for i in self.shaken(order))]

    def torn(self, slate: pl.DataFrame) -> list[pl.DataFrame]:
        if self.rng.random() >= self.disorder.torn:
            return [slate]
        cut = int(self.rng.integers(1, len(slate)))
        return [slate[:cut], slate[cut:]]

    def announcements(self, log: Log) -> list[tuple[str, object, pl.DataFrame]]:
        """Most articles are told before their first click, some after it, and some twice, the first time wrongly."""
        times = log.clicks["clicked_at"]
        told: list[tuple[str, object, pl.DataFrame]] = []
        for i in range(len(log.articles)):
            article = log.articles[i]
            if self.rng.random() < self.disorder.renamed:
                early = article.with_columns(
                    pl.lit(str(self.rng.choice(["politics", "new"]))).alias("category"),
                    pl.lit(None, pl.String).alias("publisher"),
                    pl.lit(7, pl.Int32).alias("words"),
                )
                told.append(("articles", self.moment(times), early))
                told.append(("articles", self.moment(times), article.drop("created_at")))
            else:
                told.append(("articles", times[0] if self.rng.random() < 0.5 else self.moment(times), article))
        return told

    def moment(self, times: pl.Series) -> object:
        return times[int(self.rng.integers(len(times)))]

    def shaken(self, order: list[int]) -> list[int]:
        late = self.rng.random(len(order)) < self.disorder.late
        place = np.arange(len(order)) + np.where(late, self.rng.integers(1, 40, len(order)), 0)
        return [order[i] for i in np.argsort(place, kind="stable")]

    def start(self, share: float) -> tuple[EventStore, list[tuple[str, pl.DataFrame]]]:
        """A store of the first events, and the events."""
        n = int(share * len(self.events))
        first = self.events[:n]
        clicks, articles, impressions = (of_kind(first, k) for k in ("clicks", "articles", "impressions"))
        empty = {kind: of_kind(self.events, kind)[:0] for kind in ("clicks", "articles")}  # type: ignore[index]
        return EventStore(
            empty["clicks"] if clicks is None else clicks,
            empty["articles"] if articles is None else last_told(articles),
            impressions,
        ), first

    def batches(self, start: int) -> Iterator[list[tuple[str, pl.DataFrame]]]:
        """The other events, one to twelve at a time."""
        while start < len(self.events):
            size = int(self.rng.integers(1, 13))
            yield self.events[start : start + size]
            start += size


def of_kind(events: list[tuple[str, pl.DataFrame]], kind: str) -> pl.DataFrame | None:
    frames = [frame for name, frame in events if name == kind]
    return pl.concat(frames, how="diagonal_relaxed") if frames else None


def last_told(articles: pl.DataFrame) -> pl.DataFrame:
    """Row by row: a later value that is not null stands."""
    known: dict[object, dict[str, object]] = {}
    for row in articles.to_dicts():
        known[row["item_id"]] = known.get(row["item_id"], {}) | {k: v for k, v in row.items() if v is not None}
    return pl.DataFrame(list(known.values()), schema=articles.schema)


def at_once(events: list[tuple[str, pl.DataFrame]], like: Log) -> EventStore:
    clicks, articles, impressions = (of_kind(events, k) for k in ("clicks", "articles", "impressions"))
    return EventStore(
        like.clicks.clear() if clicks is None else clicks,
        like.articles.clear() if articles is None else last_told(articles),
        impressions,
    )


class Questions:
    """Some requests and candidates, described by any store."""

    def __init__(self, log: Log, seed: int) -> None:
        self.requests = requests_for(log, 12, seed, stale_minutes=[0, 45][seed % 2])
        self.candidates = candidates_for(log, self.requests, 12, seed)
        self.vocabulary = Vocabulary.of(log.clicks, 2, log.impressions)

    def ask(self, store: EventStore) -> pl.DataFrame:
        return build(self.candidates, self.requests, store, self.vocabulary, all_features())


def with_repeats(
    stream: Stream, batch: list[tuple[str, pl.DataFrame]], known: list[tuple[str, pl.DataFrame]]
) -> Frames:
    """The batch's frames; some rows of clicks and lists that are known already stand among them."""
    again = [e for e in known if e[0] != "articles" and stream.rng.random() < stream.disorder.repeated / 10]
    rows = [*again, *batch]
    return tuple(of_kind(rows, kind) for kind in ("clicks", "articles", "impressions"))  # type: ignore[return-value]


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    ids=st.sampled_from(IDS),
    share=st.sampled_from([0.0, 0.1, 0.6]),
    disorder=st.sampled_from([CALM, WILD]),
)
def test_replay_in_small_batches_gives_the_bits_of_a_store_made_at_once(
    seed: int, ids: str, share: float, disorder: Disorder
) -> None:
    log = rich_log(seed % 7, ids)
    stream, questions = Stream(log, seed, disorder), Questions(log, seed)
    store, known = stream.start(share)
    checks = set(stream.rng.integers(0, 60, 2).tolist())
    for number, batch in enumerate(stream.batches(len(known))):
        store = store.extended(*with_repeats(stream, batch, known))
        known = [*known, *batch]
        if number in checks:
            assert not unequal(questions.ask(store), questions.ask(at_once(known, log))), number
    assert not unequal(questions.ask(store), questions.ask(at_once(known, log)))


def small_batches(seed: int, disorder: Disorder = WILD) -> tuple[Log, Stream, Questions]:
    log = rich_log(seed)
    return log, Stream(log, seed, disorder), Questions(log, seed)


@pytest.mark.parametrize("seed", [0, 1])
def test_older_store_stays_as_it_was_and_can_grow_another_way(seed: int) -> None:
    log, stream, questions = small_batches(seed, CALM)
    store, known = stream.start(0.4)
    before = questions.ask(store)
    batches = list(stream.batches(len(known)))
    one = store
    for batch in batches[:10]:
        one = one.extended(*with_repeats(stream, batch, []))
    after = questions.ask(one)
    other = store
    for batch in batches[10:20]:
        other = other.extended(*with_repeats(stream, batch, []))
    expected = at_once(known + [event for batch in batches[10:20] for event in batch], log)
    assert not unequal(questions.ask(other), questions.ask(expected))
    assert not unequal(questions.ask(store), before)
    assert not unequal(questions.ask(one), after)
    assert unequal(before, after)


def test_events_in_order_do_not_cost_a_new_store(monkeypatch: pytest.MonkeyPatch) -> None:
    log, _, questions = small_batches(3, CALM)
    middle = pl.col("clicked_at") < log.clicks["clicked_at"][100]
    store, later = EventStore(log.clicks.filter(middle), log.articles, log.impressions), log.clicks.filter(~middle)
    expected = questions.ask(EventStore(log.clicks, log.articles, log.impressions))

    def refuse(*_: object) -> None:
        raise AssertionError("a new store")

    monkeypatch.setattr(EventStore, "__init__", refuse)
    # Clicks of one user at one instant must come together.
    for part in later.partition_by("clicked_at", maintain_order=True):
        store = store.extended(part)
    assert not unequal(questions.ask(store), expected)


START = clicks_of([(1, 7, 0.0), (2, 8, 5.0)], device=["a", "b"])
ARTICLES = articles_of([7, 8, 9], [0.0, 0.0, 0.0], category=["x", "y", "y"], words=[10, 20, 30])


def test_nothing_new_gives_the_store_itself() -> None:
    shown = impressions_of([(1, 1.0, [7, 8]), (1, 1.0, [7, 9])])
    store = EventStore(START, ARTICLES, shown)
    assert store.extended() is store
    assert store.extended(START, None, shown) is store
    assert store.extended(START[1:], ARTICLES[:0], shown[2:3]) is store
    assert len(store.index("user")) == 2


def test_lists_of_one_instant_that_share_an_article_both_count() -> None:
    first, second = (impressions_of([(1, 1.0, [7, 8])], first=number) for number in (50, 40))
    store = EventStore(START, ARTICLES, first).extended(None, None, second)
    assert len(store.index("user_exposure")) == 4
    assert len(store.index("request")) == 2
    assert store.extended(None, None, pl.concat([second, first])) is store


def test_article_told_again_keeps_what_a_null_does_not_say() -> None:
    told = articles_of([9, 8], [None, None], category=[None, "z"], words=[31, None])
    store = EventStore(START, ARTICLES).extended(None, told)
    found = store.articles.sort("item_id").select("item_id", "category", "words").rows()
    assert found == [(7, "x", 10), (8, "z", 20), (9, "y", 31)]
    assert store.words.tolist() == [10, 20, 31]
    assert store.created.tolist() == [int(START["clicked_at"].dt.epoch("ms")[0])] * 3
    assert store.category[1] != store.category[2]


def test_category_that_changes_after_a_reading_moves_the_reading() -> None:
    store = EventStore(START, ARTICLES)
    key = store.pair_key(store.user_codes(pl.Series([2])), store.category[[1]])
    far = np.array([2**50])
    assert store.index("user_category").counts(key, far, (None,))[0].tolist() == [1]
    moved = store.extended(None, articles_of([8], category=["x"]))
    of_x, of_y = (moved.pair_key(moved.user_codes(pl.Series([2])), moved.category[[i]]) for i in (0, 2))
    assert moved.index("user_category").counts(of_x, far, (None,))[0].tolist() == [1]
    assert moved.index("user_category").counts(of_y, far, (None,))[0].tolist() == [0]


def test_more_articles_than_there_was_room_for() -> None:
    """Keys of pairs are then counted anew."""
    store = EventStore(START, ARTICLES)
    many = clicks_of([(1, 100 + i, 10.0 + i) for i in range(1_100)])
    store.index("transition")
    grown = store.extended(many[:1_000]).extended(many[1_000:])
    whole = EventStore(pl.concat([START, many], how="diagonal"), ARTICLES)
    assert grown.n_items == whole.n_items == 1_103
    for one in (grown, whole):
        first, second = (one.item_codes(many["item_id"][rows]) for rows in (slice(0, 1_099), slice(1, 1_100)))
        assert set(one.index("transition").counts(one.pair_key(first, second), first + 2**50, (None,))[0]) == {1}
        every = [codes.ravel() for codes in np.meshgrid(np.arange(one.n_items), np.arange(one.n_items))]
        moves = one.index("transition").counts(one.pair_key(*every), every[0] + 2**50, (None,))[0]
        assert moves.sum() == 1_100


def test_what_was_computed_before_growing_is_computed_anew() -> None:
    store = EventStore(START, ARTICLES.drop("created_at"))
    assert store.item_order.tolist() == [0, 1, 2]
    assert len(store.sequences.item) == 2
    assert store.exists_from.tolist()[2] == NEVER
    grown = store.extended(clicks_of([(1, 9, 6.0), (1, 3, 7.0)]))
    assert grown.items.to_list() == [7, 8, 9, 3]
    assert grown.item_order.tolist() == [1, 2, 3, 0]
    assert grown.sequences.item.tolist() == [0, 2, 3, 1]
    assert grown.exists_from.tolist() == [ms(0), ms(5), ms(6), ms(7)]
    assert store.exists_from.tolist()[2] == NEVER


def test_context_column_that_comes_later_is_known_from_then_on() -> None:
    bare = START.drop("device")
    store = EventStore(bare, ARTICLES).extended(clicks_of([(1, 8, 9.0)], device=["c"]))
    row = store.index("user").nth_latest("row", store.user_codes(pl.Series([1, 2])), np.full(2, 2**50), 0)
    assert contexts(store, "device", row) == ["c", None]


@pytest.mark.parametrize("column", ["device", "category"])
def test_column_that_was_empty_before_takes_values(column: str) -> None:
    empty = pl.lit(None).alias(column)
    if column == "device":
        store = EventStore(START.with_columns(empty), ARTICLES).extended(clicks_of([(1, 8, 9.0)], device=["c"]))
        row = store.index("user").nth_latest("row", np.array([0]), np.array([2**50]), 0)
        assert contexts(store, "device", row) == ["c"]
    else:
        store = EventStore(START, ARTICLES.with_columns(empty)).extended(None, ARTICLES)
        assert store.category.tolist() == [0, 1, 1]


def test_store_that_began_empty() -> None:
    store = EventStore(START.clear(), ARTICLES.clear()).extended(START, ARTICLES, impressions_of([(3, 2.0, [9])]))
    assert store.users.sort().to_list() == [1, 2, 3]
    assert store.items.sort().to_list() == [7, 8, 9]
    assert store.last_event is not None
    assert store.clicks.equals(START)
