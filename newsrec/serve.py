"""Stage 10: a bundle that answers. Loads state and model, observes what happens, and ranks for any user.

Imports neither torch nor optuna. Recall, features and ranking are those of training: `newsrec.assembly.Assembly`.
"""

import threading
from collections.abc import Collection, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from features.columns import CLICK_KEY
from features.events import EventStore
from features.vocabulary import Vocabulary
from newsrec.answers import Scoring, best_articles, described_list, ranked_lists, requests_at, scored_list
from newsrec.asked import (
    IMPRESSION_KEY,
    Context,
    Id,
    Moment,
    checked_events,
    clicks_of_impressions,
    live_moment,
    one_way,
    refuse_requests,
    typed_ids,
    way_of_telling,
)
from newsrec.assembly import Assembly
from newsrec.calibration import Calibrator
from newsrec.diversity import Diversity
from newsrec.errors import UsageError
from newsrec.explain import explanations
from newsrec.frames import to_polars
from newsrec.history import store_over
from newsrec.live import Filter, Live
from newsrec.loading import load_parts
from newsrec.own import NONE, OwnFeatures
from newsrec.progress import Progress
from newsrec.rankers import Ranker
from newsrec.rerank import Reranker
from newsrec.state import refuse_folded

SAME: Final = Diversity()
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
        calibrator: Calibrator | None = None,
    ) -> None:
        self.manifest = manifest
        self.ranker = ranker
        self.vocabulary = vocabulary
        self.own = own
        self.reranker = reranker
        self.calibrator = calibrator
        self._scoring = Scoring(ranker, reranker)
        self._live = Live(manifest, vocabulary, store, own.features)
        self._writing = threading.Lock()
        self._told_by: str | None = None

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
        parts = load_parts(Path(run), features, reranker)
        return cls(
            parts.manifest, parts.ranker, parts.vocabulary, parts.store, parts.own, parts.reranker, parts.calibrator
        )

    @property
    def store(self) -> EventStore:
        """What is known at this moment; it never changes, `observe` puts another in its place."""
        return self._live.store

    @property
    def known_until(self) -> int:
        """The instant after the last event that the state holds, ms."""
        return 0 if self.store.last_event is None else self.store.last_event + 1

    @property
    def answers_from(self) -> int | None:
        """The first moment of requests, and of their statistics, that can be asked for, ms; None for every moment."""
        return self._live.answers_from

    @property
    def ranks_slates(self) -> bool:
        """Whether it was trained on lists that were shown, and not on what recall proposes."""
        return str(self.manifest["candidates"]) == "slate"

    def with_log(self, clicks: object, articles: object, impressions: object | None = None) -> "Recommender":
        """The same model over other events.

        Data that starts after the state's last event continues it; data that overlaps it stands alone: it is its own
        history. Where there are impressions, they decide that. An event known to both counts once; of a user with
        folded events, all up to the last of them count as known. What was withdrawn stays so. The object itself stays
        as it is.

        Args:
            clicks: Canonical clicks, Polars or pandas.
            articles: Canonical articles, Polars or pandas; those only the bundle knows are kept.
            impressions: Canonical impressions, Polars or pandas.

        Raises:
            DataError: Ids of another kind than the bundle's.
        """
        new, more = to_polars(clicks, "clicks"), to_polars(articles, "articles")
        shown = None if impressions is None else to_polars(impressions, "impressions")
        live = self._live
        store = store_over(live.store, new, more, shown)
        other = Recommender(
            self.manifest, self.ranker, self.vocabulary, store, self.own, self.reranker, self.calibrator
        )
        other._live = other._live.without(live.withdrawn)
        return other

    def observe(
        self,
        clicks: object | None = None,
        impressions: object | None = None,
        articles: object | None = None,
        *,
        clicked_rows: bool = False,
    ) -> None:
        """Take in what has happened. Known events are ignored; late ones count, at the cost of a new state.

        Where the bundle was made with `--keep-days`, older events are folded once a day, which also costs a new state.

        Clicks are told in one way only, so that none counts twice: by `clicks`, each at its own time, or, where clicks
        have no times of their own, by `clicked_rows`. What a recommender has once been told in one way it is not told
        in the other.

        Args:
            clicks: Canonical clicks (`user_id, item_id, clicked_at`, context, `dwell_seconds`), Polars or pandas.
            impressions: Canonical impressions (`request_id, user_id, requested_at, item_id`). They tell what was shown;
                their column `clicked` is not looked at without `clicked_rows`.
            articles: New and changed articles (`item_id` and what is known); a null leaves what was known.
            clicked_rows: Rows of `impressions` with `clicked` are clicks at the time of their request.

        Raises:
            DataError: Missing columns, nulls in ids or times, ids of another kind, or events that are not later than
                those of their users that are folded away.
            UsageError: Clicks in both ways, in this call or over several. Nothing of a refused call is taken in.
        """
        key = (*IMPRESSION_KEY, "clicked") if clicked_rows else IMPRESSION_KEY
        shown = None if impressions is None else checked_events(impressions, "impressions", key, self.store)
        read = None if clicks is None else checked_events(clicks, "clicks", CLICK_KEY, self.store)
        told = None if articles is None else checked_events(articles, "articles", ("item_id",), self.store)
        way = way_of_telling(read, clicked_rows)
        if clicked_rows and shown is not None:
            read = clicks_of_impressions(shown)
        with self._writing:
            refuse_folded(read, "clicks", self.store)
            refuse_folded(shown, "impressions", self.store)
            self._told_by = one_way(self._told_by, way)
            self._live = self._live.observed(read, told, shown)

    def withdraw(self, item_ids: Collection[Id]) -> None:
        """Never recommend these articles again; `rank` puts them last. Observing them as articles brings them back."""
        gone = typed_ids(item_ids, self.store.items.dtype, "item_ids")
        with self._writing:
            self._live = self._live.without(gone)

    def rank(
        self, user_id: Id, item_ids: Sequence[Id], at: Moment = None, context: Context = None
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
        scores = scored_list(live, self._scoring, self._one(live, user_id, at, context), distinct)
        scores[live.withdrawn_among(distinct)] = WITHDRAWN
        if len(distinct) == len(items):
            return scores
        place = items.to_frame("item_id").join(
            distinct.to_frame("item_id").with_row_index("place"), on="item_id", maintain_order="left"
        )
        in_order: npt.NDArray[np.float32] = scores[place["place"].to_numpy()]
        return in_order

    def probabilities(
        self, user_id: Id, item_ids: Sequence[Id], at: Moment = None, context: Context = None
    ) -> npt.NDArray[np.float64]:
        """Chance of a click on each of some articles, as one candidate among those that the bundle ranks.

        Args: as in `rank`.

        Returns:
            Shape (n_items,), 0..1, in the order of `item_ids`; they rise with the scores of `rank`, and the chance of a
            withdrawn article is that of the worst.

        Raises:
            UsageError: As in `rank`, and where the bundle has no calibration of the order that it serves.
        """
        if self.calibrator is None:
            raise UsageError(
                "probabilities: expected a bundle whose served order was calibrated, found another. Train again, or "
                "leave the reranker as training found best."
            )
        return self.calibrator.probabilities(self.rank(user_id, item_ids, at, context))

    def features(self, user_id: Id, item_ids: Sequence[Id], at: Moment = None, context: Context = None) -> pl.DataFrame:
        """What the model sees in `rank`: one Float32 column per feature, one row per article; articles distinct."""
        items = typed_ids(item_ids, self.store.items.dtype, "item_ids")
        if items.is_duplicated().any():
            raise UsageError(
                f"item_ids: expected distinct articles, found {items.filter(items.is_duplicated())[0]!r} twice."
            )
        live = self._live
        return described_list(live, self._one(live, user_id, at, context), items)

    def explain(self, user_id: Id, item_ids: Sequence[Id], at: Moment = None, context: Context = None) -> pl.DataFrame:
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
                "because": explanations(self.ranker, described),
            }
        )

    def recommend(
        self,
        user_id: Id,
        at: Moment = None,
        k: int = 5,
        *,
        exclude: Collection[Id] = (),
        categories: Collection[Id] | None = None,
        max_age: timedelta | None = None,
        diversity: Diversity = SAME,
    ) -> pl.DataFrame:
        """The best articles for one user at one moment.

        Args:
            user_id: Known or not; an unknown user gets what is popular.
            at: Time zone aware, not before the last known event; None is the instant after it.
            k: Number of articles, >= 1.
            exclude: Articles that must not be given.
            categories: Only articles of these categories; None allows all.
            max_age: Only articles that exist for at most so long.
            diversity: How much the list should vary, see `newsrec.diversity`; the default orders by score alone.

        Returns:
            `item_id, rank` (1 is best) and `score` (null for one that only fills the list); at most k rows, none
            that the user has read.

        Raises:
            UsageError: A moment before the last known event, or without a time zone; `k` below 1.
        """
        live = self._live
        chosen = Filter(tuple(exclude), None if categories is None else tuple(categories), max_age, diversity)
        best = best_articles(live, self._scoring, self._one(live, user_id, at), k, chosen)
        return best.select("item_id", "rank", "score")

    def requests(self, users: pl.Series, at: int | np.ndarray, statistics_until: int | None = None) -> pl.DataFrame:
        """Canonical requests: one per user, at one moment or one each (ms).

        Args:
            users: User ids.
            at: `requested_at` in ms.
            statistics_until: Statistics about articles stop here, ms; None lets them run up to the request.
        """
        return requests_at(users, at, statistics_until)

    def recommend_many(
        self,
        requests: object,
        k: int = 5,
        *,
        explain: bool = False,
        progress: Progress | None = None,
        diversity: Diversity = SAME,
    ) -> pl.DataFrame:
        """The best articles of many requests, at any moments of the log: each knows what happened strictly before it.

        Args:
            requests: Polars or pandas: `request_id, user_id, requested_at, statistics_at`.
            k: Number of articles, >= 1.
            explain: Add `channels` (which recall channels proposed the article) and `because`, as `explain` tells it.
            progress: Told after each chunk.
            diversity: As in `recommend`.

        Returns:
            Polars: `request_id, user_id, item_id, rank, score`, in the order of the requests, rank 1 first.

        Raises:
            UsageError: `k` below 1.
            DataError: A column is missing, or a `request_id` occurs twice.
        """
        asked = to_polars(requests, "requests")
        refuse_requests(asked)
        chosen = Filter(diversity=diversity)
        return best_articles(self._live, self._scoring, asked, k, chosen, explain=explain, progress=progress)

    def rank_many(
        self,
        requests: object,
        slates: object,
        progress: Progress | None = None,
        *,
        k: int | None = None,
        explain: bool = False,
    ) -> pl.DataFrame:
        """Order the lists of many requests, at any moments of the log.

        Args:
            requests: Polars or pandas: `request_id, user_id, requested_at, statistics_at` and context columns.
            slates: Polars or pandas: `request_id, item_id`, the list of each request in its order, no item twice.
            progress: Told after each chunk.
            k: Keep only the best articles of each list, >= 1; None keeps all.
            explain: Add `channels` and `because`, as in `recommend_many`.

        Returns:
            Polars: `request_id, item_id, score, rank` (UInt32, 1 is best, ties by the list's order), in the order of
            the requests and of their lists.

        Raises:
            UsageError: `k` below 1.
            DataError: A column is missing, or a `request_id` occurs twice.
        """
        asked, lists = to_polars(requests, "requests"), to_polars(slates, "slates")
        refuse_requests(asked)
        return ranked_lists(self._live, self._scoring, asked, lists, k, explain=explain, progress=progress)

    def assembly(self, requests: pl.DataFrame) -> Assembly:
        """Channels and features for these requests."""
        return self._live.assembly(requests)

    def _one(self, live: Live, user_id: Id, at: Moment, context: Context = None) -> pl.DataFrame:
        """One live request."""
        user = typed_ids([user_id], live.store.users.dtype, "user_id")
        return requests_at(user, live_moment(at, live.store), context=context)
