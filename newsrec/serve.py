"""Stage 10: a bundle that answers. Loads state and model, observes what happens, and ranks for any user.

Imports neither torch nor optuna. Recall, features and ranking are those of training: `newsrec.assembly.Assembly`.
"""

import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from features.columns import CLICK_KEY, TIME
from features.events import EventStore
from features.vocabulary import Vocabulary
from newsrec.asked import (
    IMPRESSION_KEY,
    Id,
    checked_events,
    clicks_of_impressions,
    live_moment,
    refuse_other_ids,
    refuse_requests,
    typed_ids,
)
from newsrec.assembly import Assembly, chunks
from newsrec.bundle import read_manifest
from newsrec.errors import BundleError, UsageError
from newsrec.explain import explanations, proposed_by
from newsrec.fallback import fill
from newsrec.frames import to_polars
from newsrec.live import Filter, Live
from newsrec.own import NONE, OwnFeatures, own_of_bundle
from newsrec.progress import Progress, Silent
from newsrec.rankers import RANKERS, Ranker
from newsrec.rerank import Reranker

NEEDED: Final = ("candidates", "features", "protocol", "ranker", "recall", "seed", "validation")
"""Facts of the manifest that serving and evaluation cannot do without."""

WITHDRAWN: Final = float(np.finfo(np.float32).min)
"""Score of a withdrawn article."""


class Recommender:
    """A loaded bundle that lives: it answers, and learns of events as they happen.

    Any number of threads may ask while one observes: an answer sees all of an observation or nothing of it.

    >>> Recommender.load("artifacts/my-run").recommend(user_id=42, k=5)  # doctest: +SKIP
    """

    def __init__(
        self,
        manifest: dict[str, Any],
        ranker: Ranker,
        vocabulary: Vocabulary,
        store: EventStore,
        own: OwnFeatures = NONE,
        reranker: Reranker | None = None,
    ) -> None:
        self.manifest = manifest
        self.ranker = ranker
        self.vocabulary = vocabulary
        self.own = own
        self.reranker = reranker
        self._live = Live(manifest, vocabulary, store, own.features)
        self._writing = threading.Lock()

    @classmethod
    def load(cls, run: str | Path, features: str | Path | None = None, *, reranker: bool | None = None) -> Self:
        """Check and read a bundle.

        Args:
            run: Its folder.
            features: The file of own features that it was trained with, if it was; that file is executed, nothing in
                the bundle ever is.
            reranker: Whether its network orders the top; None is what training found best.

        Raises:
            BundleError: If anything in the folder is not what `train` wrote, or `features` is not the file it needs.
            UsageError: A reranker is asked for and the bundle has none.
        """
        folder = Path(run)
        manifest = read_manifest(folder)
        _refuse_incomplete(manifest, folder)
        own = own_of_bundle(manifest, features)
        ranker = RANKERS[manifest["ranker"]].load(folder)
        vocabulary = Vocabulary(pl.read_parquet(folder / "vocabulary.parquet"))
        frames = {name: folder / "state" / f"{name}.parquet" for name in ("clicks", "articles", "impressions")}
        state = {name: pl.read_parquet(path) for name, path in frames.items() if path.is_file()}
        return cls(manifest, ranker, vocabulary, EventStore(**state), own, _reranker(manifest, folder, reranker))

    @property
    def store(self) -> EventStore:
        """What is known at this moment; it never changes, `observe` puts another in its place."""
        return self._live.store

    @property
    def known_until(self) -> int:
        """The instant after the last event that the state holds, ms."""
        return 0 if self.store.last_event is None else self.store.last_event + 1

    @property
    def ranks_slates(self) -> bool:
        """Whether it was trained on lists that were shown, and not on what recall proposes."""
        return str(self.manifest["candidates"]) == "slate"

    def with_log(self, clicks: object, articles: object, impressions: object | None = None) -> "Recommender":
        """The same model over other events.

        Data that starts after the state's last event continues it; data that overlaps it stands alone: it is its own
        history. Where there are impressions, they decide that. An event known to both counts once. The object itself
        stays as it is.

        Args:
            clicks: Canonical clicks, Polars or pandas.
            articles: Canonical articles, Polars or pandas; those only the bundle knows are kept.
            impressions: Canonical impressions, Polars or pandas.

        Raises:
            DataError: Ids of another kind than the bundle's.
        """
        new, more = to_polars(clicks, "clicks"), to_polars(articles, "articles")
        shown = None if impressions is None else to_polars(impressions, "impressions")
        known = self.store
        refuse_other_ids(new, known.clicks, ("user_id", "item_id"))
        refuse_other_ids(more, known.articles, ("item_id",) if len(more) else ())
        began = new["clicked_at"].min() if shown is None or shown.is_empty() else shown["requested_at"].min()
        last = known.last_event
        continues = began is not None and last is not None and began > pl.Series([last]).cast(TIME)[0]
        if continues or (new.is_empty() and (shown is None or shown.is_empty())):
            new = pl.concat([known.clicks, new], how="diagonal_relaxed").unique(CLICK_KEY, maintain_order=True)
            frames = [frame for frame in (known.impressions, shown) if frame is not None]
            shown = pl.concat(frames, how="diagonal_relaxed") if frames else None
        both = pl.concat([more, known.articles], how="diagonal_relaxed").unique(
            "item_id", keep="first", maintain_order=True
        )
        store = EventStore(new, both, shown)
        return Recommender(self.manifest, self.ranker, self.vocabulary, store, self.own, self.reranker)

    def observe(
        self, clicks: object | None = None, impressions: object | None = None, articles: object | None = None
    ) -> None:
        """Take in what has happened. Known events are ignored; late ones count, at the cost of a new state.

        Args:
            clicks: Canonical clicks (`user_id, item_id, clicked_at`, context, `dwell_seconds`), Polars or pandas.
            impressions: Canonical impressions (`request_id, user_id, requested_at, item_id`). Where `clicks` is not
                given, rows with `clicked` are clicks at the time of their request.
            articles: New and changed articles (`item_id` and what is known); a null leaves what was known.

        Raises:
            DataError: Missing columns, nulls in ids or times, ids of another kind; nothing of the call is taken in.
        """
        shown = None if impressions is None else checked_events(impressions, "impressions", IMPRESSION_KEY, self.store)
        read = None if clicks is None else checked_events(clicks, "clicks", CLICK_KEY, self.store)
        told = None if articles is None else checked_events(articles, "articles", ("item_id",), self.store)
        if read is None and shown is not None and "clicked" in shown.columns:
            read = clicks_of_impressions(shown)
        with self._writing:
            self._live = self._live.observed(read, told, shown)

    def withdraw(self, item_ids: Collection[Id]) -> None:
        """Never recommend these articles again; `rank` puts them last. Observing them as articles brings them back."""
        gone = typed_ids(item_ids, self.store.items.dtype, "item_ids")
        with self._writing:
            self._live = self._live.without(gone)

    def rank(
        self,
        user_id: Id,
        item_ids: Sequence[Id],
        at: datetime | None = None,
        context: Mapping[str, object] | None = None,
    ) -> npt.NDArray[np.float32]:
        """Scores of some articles for one user at one moment.

        Args:
            user_id: Known or not.
            item_ids: The list; unknown articles and repeats are allowed.
            at: Time zone aware, not before the last known event; None is the instant after it.
            context: What is known of the request: any of `features.columns.REQUEST_CONTEXT` and `page_item_id`.

        Returns:
            Shape (n_items,), in the order of `item_ids`, finite, higher is better.

        Raises:
            UsageError: A moment before the last known event, or without a time zone; an id of another kind.
        """
        live = self._live
        items = typed_ids(item_ids, live.store.items.dtype, "item_ids")
        distinct = items.unique(maintain_order=True)
        described, candidates, asked = self._described(live, user_id, distinct, at, context)
        scores = self._scores(live, described, candidates, asked)
        scores[live.withdrawn_among(distinct)] = WITHDRAWN
        if len(distinct) == len(items):
            return scores
        place = items.to_frame("item_id").join(
            distinct.to_frame("item_id").with_row_index("place"), on="item_id", maintain_order="left"
        )
        in_order: npt.NDArray[np.float32] = scores[place["place"].to_numpy()]
        return in_order

    def features(
        self,
        user_id: Id,
        item_ids: Sequence[Id],
        at: datetime | None = None,
        context: Mapping[str, object] | None = None,
    ) -> pl.DataFrame:
        """What the model sees in `rank`: one Float32 column per feature, one row per article; articles distinct."""
        items = typed_ids(item_ids, self.store.items.dtype, "item_ids")
        if items.is_duplicated().any():
            raise UsageError(
                f"item_ids: expected distinct articles, found {items.filter(items.is_duplicated())[0]!r} twice."
            )
        return self._described(self._live, user_id, items, at, context)[0]

    def explain(
        self,
        user_id: Id,
        item_ids: Sequence[Id],
        at: datetime | None = None,
        context: Mapping[str, object] | None = None,
    ) -> pl.DataFrame:
        """Why these articles score as they do for one user.

        Returns:
            `item_id, score, because` in the order given: the three features that moved the score most (TreeSHAP,
            Lundberg et al. 2018), each with its value and with what it means. The score is the ranker's, also where a
            network orders the top.
        """
        described = self.features(user_id, item_ids, at, context)
        items = typed_ids(item_ids, self.store.items.dtype, "item_ids")
        return pl.DataFrame(
            {
                "item_id": items,
                "score": self.ranker.score(described),
                "because": explanations(self.ranker, described, in_words=True),
            }
        )

    def recommend(
        self,
        user_id: Id,
        at: datetime | None = None,
        k: int = 5,
        *,
        exclude: Collection[Id] = (),
        categories: Collection[Id] | None = None,
        max_age: timedelta | None = None,
    ) -> pl.DataFrame:
        """The best articles for one user at one moment.

        Args:
            user_id: Known or not; an unknown user gets what is popular.
            at: Time zone aware, not before the last known event; None is the instant after it.
            k: Number of articles, >= 1.
            exclude: Articles that must not be given.
            categories: Only articles of these categories; None allows all.
            max_age: Only articles that exist for at most so long.

        Returns:
            `item_id, rank` (1 is best) and `score` (null for one that only fills the list); at most k rows, none
            that the user has read.

        Raises:
            UsageError: A moment before the last known event, or without a time zone; `k` below 1.
        """
        live = self._live
        asked = self.requests(typed_ids([user_id], live.store.users.dtype, "user_id"), live_moment(at, live.store))
        chosen = Filter(tuple(exclude), None if categories is None else tuple(categories), max_age)
        return self._answer(live, asked, k, chosen).select("item_id", "rank", "score")

    def requests(self, users: pl.Series, at: int | np.ndarray, statistics_until: int | None = None) -> pl.DataFrame:
        """Canonical requests: one per user, at one moment or one each (ms).

        Args:
            users: User ids.
            at: `requested_at` in ms.
            statistics_until: Statistics about articles stop here, ms; None lets them run up to the request.
        """
        moments = np.broadcast_to(np.asarray(at, np.int64), (len(users),))
        border = moments if statistics_until is None else np.minimum(moments, statistics_until)
        return pl.DataFrame(
            {
                "request_id": np.arange(len(users), dtype=np.int64),
                "user_id": users,
                "requested_at": pl.Series(moments).cast(TIME),
                "statistics_at": pl.Series(border).cast(TIME),
            }
        )

    def recommend_many(
        self, requests: object, k: int = 5, *, explain: bool = False, progress: Progress | None = None
    ) -> pl.DataFrame:
        """The best articles of many requests, at any moments of the log: each knows what happened strictly before it.

        Args:
            requests: Polars or pandas: `request_id, user_id, requested_at, statistics_at`.
            k: Number of articles, >= 1.
            explain: Add `channels` (which recall channels proposed the article) and `because` (the three features that
                moved its score most, TreeSHAP, Lundberg et al. 2018).
            progress: Told after each chunk.

        Returns:
            Polars: `request_id, user_id, item_id, rank, score`, in the order of the requests, rank 1 first.

        Raises:
            UsageError: `k` below 1.
            DataError: A column is missing, or a `request_id` occurs twice.
        """
        asked = to_polars(requests, "requests")
        refuse_requests(asked)
        return self._answer(self._live, asked, k, Filter(), explain=explain, progress=progress)

    def rank_many(self, requests: object, slates: object, progress: Progress | None = None) -> pl.DataFrame:
        """Order the lists of many requests, at any moments of the log.

        Args:
            requests: Polars or pandas: `request_id, user_id, requested_at, statistics_at` and context columns.
            slates: Polars or pandas: `request_id, item_id`, the list of each request in its order, no item twice.
            progress: Told after each chunk.

        Returns:
            Polars: `request_id, item_id, score, rank` (UInt32, 1 is best, ties by the list's order), in the order of
            the requests and of their lists.
        """
        asked, lists = to_polars(requests, "requests"), to_polars(slates, "slates")
        refuse_requests(asked)
        live, parts = self._live, []
        with (progress or Silent()).stage("rank", len(asked)) as step:
            for chunk in chunks(asked):
                assembly = replace(live.assembly(chunk), slates=lists)
                candidates, _ = assembly.lists(chunk)
                score = pl.Series("score", self._scores(live, assembly.describe(candidates, chunk), candidates, chunk))
                parts.append(candidates.select("request_id", "item_id").with_columns(score))
                step(len(chunk))
        rank = pl.col("score").rank("ordinal", descending=True).over("request_id").cast(pl.UInt32)
        scored = pl.concat(parts).with_columns(rank.alias("rank"))
        return asked.select("request_id").join(scored, on="request_id", maintain_order="left_right")

    def assembly(self, requests: pl.DataFrame) -> Assembly:
        """Channels and features for these requests."""
        return self._live.assembly(requests)

    def _described(
        self, live: Live, user_id: Id, items: pl.Series, at: datetime | None, context: Mapping[str, object] | None
    ) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
        """Features, candidates and the request."""
        asked = self.requests(typed_ids([user_id], live.store.users.dtype, "user_id"), live_moment(at, live.store))
        asked = asked.with_columns(pl.lit(value).alias(name) for name, value in (context or {}).items())
        slate = pl.DataFrame({"request_id": np.zeros(len(items), np.int64), "item_id": items})
        assembly = replace(live.assembly(asked), slates=slate)
        candidates, _ = assembly.lists(asked)
        return assembly.describe(candidates, asked), candidates, asked

    def _scores(
        self, live: Live, described: pl.DataFrame, candidates: pl.DataFrame, requests: pl.DataFrame
    ) -> npt.NDArray[np.float32]:
        """Final scores, shape (n_candidates,): the ranker's, or the blend's where the network orders the top."""
        scores = self.ranker.score(described)
        if self.reranker is None:
            return scores
        scored = candidates.select("request_id", "item_id").with_columns(pl.Series("score", scores))
        return np.array(self.reranker.rescored(described, scored, requests, live.store)["rerank"], np.float32)

    def _answer(
        self,
        live: Live,
        asked: pl.DataFrame,
        k: int,
        chosen: Filter,
        *,
        explain: bool = False,
        progress: Progress | None = None,
    ) -> pl.DataFrame:
        if k < 1:
            raise UsageError(f"--k: expected at least 1, found {k}.")
        parts = []
        with (progress or Silent()).stage("recommend", len(asked)) as step:
            for chunk in chunks(asked):
                parts.append(self._best(live, chunk, k, chosen, explain))
                step(len(chunk))
        order = asked.select("request_id", "user_id")
        if not parts:
            ranked: dict[str, Any] = {"item_id": live.store.items.dtype, "rank": pl.UInt32, "score": pl.Float32}
            reasons = {"channels": pl.String, "because": pl.String} if explain else {}
            return pl.DataFrame(schema={**order.schema, **ranked, **reasons})
        return order.join(pl.concat(parts), on="request_id", how="left", maintain_order="left_right").filter(
            pl.col("item_id").is_not_null()
        )

    def _best(self, live: Live, requests: pl.DataFrame, k: int, chosen: Filter, explain: bool) -> pl.DataFrame:
        assembly = live.proposing(requests)
        lists, coded = assembly.lists(requests)
        allowed = live.allowed(chosen, coded.at)
        candidates = assembly.cut(lists.filter(allowed.gather(pl.Series(live.store.item_codes(lists["item_id"])))))
        described = assembly.describe(candidates, requests)
        scores = pl.Series("score", self._scores(live, described, candidates, requests))
        scored = candidates.with_columns(scores).with_row_index("place")
        best = (
            scored.sort("request_id", "score", "item_id", descending=[False, True, False])
            .with_columns(pl.int_range(1, pl.len() + 1, dtype=pl.UInt32).over("request_id").alias("rank"))
            .filter(pl.col("rank") <= k)
        )
        columns = ["request_id", "item_id", "rank", "score"]
        if explain:
            reasons = explanations(self.ranker, described[best["place"]])
            channels = self.manifest["recall"]["channels"]
            best = best.with_columns(proposed_by(channels).alias("channels"), reasons.alias("because"))
            columns += ["channels", "because"]
        best = best.select(columns)
        refresh = self.manifest["recall"]["settings"]["refresh_ms"]
        more = fill(best, requests, coded, k, refresh, allowed)
        return pl.concat([best, more], how="diagonal").sort("request_id", "rank")


def _reranker(manifest: dict[str, Any], folder: Path, wanted: bool | None) -> Reranker | None:
    """The network where it is to order the top, checked also where it is not."""
    facts = manifest.get("reranker")
    if facts is None:
        if wanted:
            raise UsageError("--reranker on: expected a bundle with a reranker, found none in this one. Leave it out.")
        return None
    reranker = Reranker.load(folder, facts)
    return reranker if (reranker.settings.on if wanted is None else wanted) else None


def _refuse_incomplete(manifest: dict[str, Any], folder: Path) -> None:
    missing = [name for name in NEEDED if name not in manifest]
    if missing:
        raise BundleError(f"{folder}: expected a manifest with {missing}, found none of these. Train again.")
    if manifest["ranker"] not in sorted(RANKERS):
        raise BundleError(
            f"{folder}: expected a ranker of {sorted(RANKERS)}, found {manifest['ranker']!r}. "
            "Train again, or use the newsrec that wrote it."
        )
