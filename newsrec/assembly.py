"""Stages 3 to 5 as one part: requests in, described candidates out, in chunks so that memory stays small.

Training, evaluation and serving all go through `Assembly`; there is no second implementation.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, cast

import numpy as np
import polars as pl

from features.build import build
from features.catalog import FAMILIES, Feature, features_for, parts_of
from features.events import EventStore
from features.vocabulary import Vocabulary
from newsrec.ahead import Aside, Beside, ahead
from newsrec.candidates import (
    ALIKE,
    MergeConfig,
    SamplingConfig,
    in_turn,
    label,
    on_slates,
    positive_ranks,
    propose,
    whole_lists,
)
from newsrec.errors import UsageError
from newsrec.exposure import exposure_weights, places
from newsrec.metrics import effective_size
from newsrec.progress import Clock, Progress, Silent
from newsrec.rankers.base import RankingData, Scores
from newsrec.recall import CHANNELS, Channel, RecallRequests, RecallSettings, refuse_lacking
from newsrec.sampling import mark_negatives

CHUNK_REQUESTS = 10_000
"""Requests handled at once: a million candidates at the default list length."""

MANY_REQUESTS = 500
"""From so many on channels are asked beside each other; a single answer would wait for the threads."""

LIST_LENGTH = 100
"""Candidates per request at most."""

Rerank = Callable[[pl.DataFrame, pl.DataFrame, pl.DataFrame, EventStore], pl.DataFrame]
"""(features, `request_id, item_id, score`, requests, log) -> further scores, one row per candidate."""


@dataclass(frozen=True)
class Assembly:
    """The log with its fitted channels, vocabulary and features."""

    store: EventStore
    channels: Mapping[str, Channel]
    vocabulary: Vocabulary
    features: Sequence[Feature]
    list_length: int = LIST_LENGTH
    clock: Clock = field(default_factory=Clock)
    slates: pl.DataFrame | None = None
    """`request_id, item_id` of the lists that requests bring along, in their order; None where recall proposes."""
    merge: MergeConfig = ALIKE
    """How lists of several channels become one."""
    _aside: Aside = field(default_factory=Aside, init=False, compare=False)
    _beside: Beside = field(default_factory=Beside, init=False, compare=False)

    @classmethod
    def of(
        cls,
        store: EventStore,
        channels: Sequence[str],
        settings: RecallSettings,
        vocabulary: Vocabulary | None = None,
        feature_names: Sequence[str] | None = None,
        list_length: int = LIST_LENGTH,
        clock: Clock | None = None,
        slates: pl.DataFrame | None = None,
        without: Collection[str] = (),
        own: Sequence[Feature] = (),
        merge: MergeConfig = ALIKE,
    ) -> "Assembly":
        """Fit the named channels on the store.

        Args:
            store: The log.
            channels: Names in `CHANNELS`, in the order of their columns.
            settings: Refresh grid and depth.
            vocabulary: From a bundle; None learns it from the store's clicks.
            feature_names: From a bundle: exactly these columns, in this order; None takes all that the log can have.
            list_length: Candidates per request at most.
            clock: Where the time of the stages is added up.
            slates: Lists that requests bring along; channels are then optional.
            without: Features and families to leave out.
            own: Features of an own file (`newsrec.own`), after those of the catalogue.
            merge: Quotas and weights of the channels.

        Raises:
            UsageError: An unknown channel, feature or family, a channel whose data the log lacks, or a named feature
                that this log or version cannot make.
        """
        if not channels and slates is None:
            raise UsageError(f"--recall: expected channels of {sorted(CHANNELS)}, found none.")
        refuse_lacking(channels, store)
        merge.refuse_contradictions(channels)
        clock = clock or Clock()
        with clock.time("recall"):
            fitted = {name: CHANNELS[name]().fit(store, settings) for name in channels}
        known = vocabulary or Vocabulary.of(store.clicks, impressions=store.impressions)
        has = parts_of(store.clicks, store.articles, store.impressions) if feature_names is None else None
        features = _features(channels, has, without, own)
        if feature_names is not None:
            features = _named(features, feature_names)
        return cls(store, fitted, known, features, list_length, clock, slates, merge)

    @property
    def categorical(self) -> list[str]:
        """Names of the feature columns that hold codes."""
        return [f.name for f in self.features if f.categorical]

    def lists(self, requests: pl.DataFrame) -> tuple[pl.DataFrame, RecallRequests]:
        """Candidates of some requests: their own lists, or whole merged lists of recall before any cut."""
        coded = RecallRequests.of(requests, self.store)
        with self.clock.time("recall"):
            asked = in_turn if len(requests) < MANY_REQUESTS else self._beside
            proposed = propose(self.channels, coded, self.store.items, self.merge, asked) if self.channels else None
            if self.slates is None:
                return cast(pl.DataFrame, proposed), coded
            ids = requests.select("request_id")
            own = ids.join(self.slates.select("request_id", "item_id"), on="request_id", maintain_order="left_right")
            return (own if proposed is None else on_slates(own, proposed, tuple(self.channels))), coded

    def recalled(
        self, requests: pl.DataFrame, beside: pl.DataFrame | None = None
    ) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
        """Whole lists, chunk by chunk; those of the next chunk are proposed while the present one is worked on.

        Args:
            requests: Canonical requests.
            beside: Others of the same time, whose lists are put aside until they are asked for here: what channels know
                changes with time, so that going through it once for all is cheapest.

        Yields:
            Requests, ordered by moment, and their lists (see `lists`).
        """
        made = self._recalled(requests, beside)
        return made if len(requests) < MANY_REQUESTS else ahead(made)

    def _recalled(
        self, requests: pl.DataFrame, beside: pl.DataFrame | None
    ) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
        for chunk in chunks(requests if beside is None else pl.concat([requests, beside])):
            lists = self._aside.take(chunk)
            lists = self.lists(chunk)[0] if lists is None else lists
            if beside is None:
                yield chunk, lists
                continue
            other = pl.col("request_id").is_in(beside["request_id"].implode())
            self._aside.put(chunk.filter(other), lists.filter(other))
            if not (own := chunk.filter(~other)).is_empty():
                yield own, lists.filter(~other)

    def describe(self, candidates: pl.DataFrame, requests: pl.DataFrame) -> pl.DataFrame:
        """Features of the candidates (the `kept` ones, where that column is there); see `features.build.build`."""
        with self.clock.time("features"):
            return build(candidates, requests, self.store, self.vocabulary, self.features)

    def cut(self, lists: pl.DataFrame) -> pl.DataFrame:
        """The first `list_length` of each list; what was shown is never cut."""
        return lists if self.slates is not None else lists.filter(pl.col("recall_rank") <= self.list_length)

    def described(
        self, requests: pl.DataFrame, positives: pl.DataFrame, progress: Progress | None = None, stage: str = "lists"
    ) -> Iterator["Described"]:
        """Whole lists, chunk by chunk: who reads them in passing lets them go, who reads them twice keeps them.

        Args:
            requests: Canonical requests.
            positives: `request_id, item_id`; may be empty, and may hold other requests too.
            progress: Told after each chunk, when the next is asked for.
            stage: What it is told: one word.

        Yields:
            At most `CHUNK_REQUESTS` requests at a time, ordered by moment; nothing for no requests.
        """
        with (progress or Silent()).stage(stage, len(requests)) as step:
            for chunk, lists in self.recalled(requests):
                clicked = positives.join(chunk.select("request_id"), on="request_id", how="semi")
                candidates = label(self.cut(lists), clicked)
                ranks = positive_ranks(lists, clicked) if self.slates is None else None
                yield Described(chunk, candidates, self.describe(candidates, chunk), ranks)
                step(len(chunk))


@dataclass(frozen=True)
class Described:
    """Some requests with all their candidates, labelled and described."""

    requests: pl.DataFrame
    """By moment, see `chunks`."""
    candidates: pl.DataFrame
    """`request_id, item_id, label`, and what recall said."""
    features: pl.DataFrame
    """One row per candidate, in the same order."""
    positive_ranks: pl.DataFrame | None
    """What recall said of each clicked article, in the list or cut off; see `newsrec.candidates.positive_ranks`. None
    where requests bring their own lists."""
    score: Scores | None = None
    """The ranker's of each candidate, where it has been asked."""

    def scored_by(self, score: Callable[[pl.DataFrame], Scores]) -> "Described":
        """With the score of the ranker, which is asked once."""
        return self if self.score is not None else replace(self, score=score(self.features))


def chunks(requests: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Requests by moment, so that a chunk touches few refreshes of the recall tables."""
    ordered = requests.sort("statistics_at", "request_id")
    for start in range(0, len(ordered), CHUNK_REQUESTS):
        yield ordered[start : start + CHUNK_REQUESTS]


def training_data(
    assembly: Assembly,
    requests: pl.DataFrame,
    positives: pl.DataFrame,
    sampling: SamplingConfig | None,
    progress: Progress | None = None,
    until: int | None = None,
    beside: pl.DataFrame | None = None,
) -> RankingData:
    """Labelled rows to fit on.

    Args:
        assembly: Channels and features.
        requests: Canonical requests.
        positives: `request_id, item_id`.
        sampling: Which negatives to keep; None keeps whole lists (validation). What was shown is only sampled where a
            sampler other than the default is named.
        progress: Told after each chunk.
        until: End of the training time, ms; None is the end of the log. See `newsrec.sampling.mark_negatives`.
        beside: Requests that will be asked for later; see `Assembly.recalled`.

    Returns:
        Rows of the requests whose clicked article was proposed; the others cannot teach an order.
    """
    parts = []
    with (progress or Silent()).stage("features", len(requests)) as step:
        for chunk, lists in assembly.recalled(requests, beside):
            marked = _marked(assembly, label(assembly.cut(lists), positives), chunk, sampling, until)
            # The rows that are not kept count inside their lists, but need no features of their own.
            parts.append(_rows(assembly, marked, assembly.describe(marked, chunk), chunk, sampling))
            step(len(chunk))
    return together(assembly, parts, sampling, progress)


def rows_of(
    assembly: Assembly, lists: Iterable[Described], sampling: SamplingConfig | None, progress: Progress | None = None
) -> RankingData:
    """What `training_data` gives for the requests of lists that are described already."""
    return together(assembly, [kept_rows(assembly, each, sampling) for each in lists], sampling, progress)


def kept_rows(assembly: Assembly, lists: Described, sampling: SamplingConfig | None) -> RankingData:
    """The part of `rows_of` that one chunk gives; `together` makes a whole of parts."""
    marked = _marked(assembly, lists.candidates, lists.requests, sampling, None)
    return _rows(assembly, marked, lists.features.filter(marked["kept"]), lists.requests, sampling)


def together(
    assembly: Assembly,
    parts: Sequence[RankingData],
    sampling: SamplingConfig | None,
    progress: Progress | None = None,
) -> RankingData:
    """All parts as one; weights of exposure become 1 in the mean of the clicks."""
    if not parts:
        return RankingData.empty([f.name for f in assembly.features])
    data = RankingData.concat(parts)
    if sampling is None or sampling.exposure == "none":
        return data
    clicked = data.weight[data.label == 1]
    weighs = effective_size(clicked)
    (progress or Silent()).say(
        f"exposure weights ({sampling.exposure}): {len(clicked):,} clicks tell as much as {weighs:,.0f} of equal weight"
    )
    return replace(data, weight=data.weight / max(float(clicked.mean()), 1e-12) if len(clicked) else data.weight)


def _marked(
    assembly: Assembly,
    labelled: pl.DataFrame,
    requests: pl.DataFrame,
    sampling: SamplingConfig | None,
    until: int | None,
) -> pl.DataFrame:
    """With `kept` and `sampling_probability`."""
    if sampling is None or (assembly.slates is not None and sampling.sampler == SamplingConfig.sampler):
        return whole_lists(labelled)
    return mark_negatives(labelled, requests, assembly.store, sampling, until)


def _rows(
    assembly: Assembly,
    marked: pl.DataFrame,
    features: pl.DataFrame,
    requests: pl.DataFrame,
    sampling: SamplingConfig | None,
) -> RankingData:
    """The kept rows, which `features` describes."""
    rows = marked.filter("kept")
    weight = (1.0 / rows["sampling_probability"]).to_numpy()
    place = None
    if sampling is not None:
        weight = weight if sampling.weighted else np.ones(len(rows))
        weight = weight * exposure_weights(rows, requests, assembly.store, sampling.exposure, sampling.exposure_clip)
        place = places(rows, requests, assembly.store) if sampling.places else None
    return RankingData(features, rows["label"].to_numpy(), rows["request_id"].to_numpy(), weight, place)


@dataclass(frozen=True)
class ScoredLists:
    """Every candidate of every request with its score.

    `rows`: `request_id, item_id, label, score` and the baselines' scores; `positive_ranks`: what recall said of each
    clicked article (see `newsrec.candidates.positive_ranks`), None where requests bring their own lists.
    """

    rows: pl.DataFrame
    positive_ranks: pl.DataFrame | None

    @property
    def baselines(self) -> tuple[str, ...]:
        """Names of the baselines that these candidates allow."""
        return tuple(name for name in BASELINES if name in self.rows.columns)


def _column(name: str, sign: int = 1, missing: float | None = None) -> Callable[[pl.DataFrame], pl.Expr | None]:
    """The order by one feature; None where the log cannot have it."""

    def order(features: pl.DataFrame) -> pl.Expr | None:
        value = sign * pl.col(name)
        return None if name not in features.columns else value if missing is None else value.fill_null(missing)

    return order


BASELINES: Final[dict[str, Callable[[pl.DataFrame], pl.Expr | None]]] = {
    "popularity": _column("item_clicks_1h"),
    "click_rate": _column("item_click_rate_24h"),
    "recency": lambda features: (
        _column("item_age_hours", -1, -1e6)(features)
        if "item_age_hours" in features.columns
        else _column("item_hours_since_first_seen", -1, 0.0)(features)
    ),
    "recall_order": _column("recall_rank", -1, -1e6),
}
"""Orders without a model, by name: an expression over the features, higher is better, or None where they lack it."""


def score_lists(
    assembly: Assembly,
    lists: Iterable[Described],
    score: Callable[[pl.DataFrame], Scores],
    rerank: Rerank | None = None,
) -> ScoredLists:
    """Score whole lists.

    Args:
        assembly: That they are of.
        lists: See `Assembly.described`; at least one.
        score: Gives a score per row of a feature frame, such as `Ranker.score`.
        rerank: Orders the tops again, such as `newsrec.rerank.Reranker.rescored`; its columns join the rows.
    """
    rows, ranks = [], []
    for each in lists:
        with assembly.clock.time("rank"):
            scores = pl.Series("score", each.scored_by(score).score)
        orders = {name: made for name, order in BASELINES.items() if (made := order(each.features)) is not None}
        baselines = each.features.select(order.cast(pl.Float32).alias(name) for name, order in orders.items())
        kept = each.candidates.select("request_id", "item_id", "label").with_columns(scores)
        if rerank is not None:
            with assembly.clock.time("rerank"):
                kept = kept.hstack(rerank(each.features, kept, each.requests, assembly.store))
        rows.append(kept.hstack(baselines))
        ranks.append(each.positive_ranks)
    known = [each for each in ranks if each is not None]
    return ScoredLists(pl.concat(rows), pl.concat(known) if known else None)


def _named(features: Sequence[Feature], names: Sequence[str]) -> tuple[Feature, ...]:
    by_name = {f.name: f for f in features}
    missing = [name for name in names if name not in by_name]
    if missing:
        raise UsageError(f"features: the bundle needs {missing}, which this version of newsrec does not make.")
    return tuple(by_name[name] for name in names)


def _features(
    channels: Sequence[str], has: frozenset[str] | None, without: Collection[str], own: Sequence[Feature]
) -> tuple[Feature, ...]:
    try:
        return features_for(channels, has, without, own)
    except KeyError as error:
        raise UsageError(
            f"--without: expected features or families of {list(FAMILIES)}, found {error.args[0]}. "
            "features/CATALOGUE.md lists all."
        ) from error
