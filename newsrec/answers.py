"""Requests in, ordered articles out: recall, features and scores of one state (`newsrec.live.Live`), chunk by chunk.

`newsrec.serve.Recommender` asks here; a question is answered from the state that it began with.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from features.columns import TIME
from newsrec.asked import Context
from newsrec.assembly import Assembly
from newsrec.diversity import diversified
from newsrec.errors import UsageError
from newsrec.explain import explanations, proposed_by
from newsrec.fallback import fill
from newsrec.live import Filter, Live
from newsrec.progress import Progress, Silent
from newsrec.rankers import Ranker
from newsrec.recall import RecallRequests
from newsrec.rerank import Reranker

REASONS = ("channels", "because")
"""Columns that explain an answer."""


@dataclass(frozen=True)
class Scoring:
    """What gives the final scores: the ranker, and the network where it orders the top."""

    ranker: Ranker
    reranker: Reranker | None = None

    def scores(
        self, live: Live, described: pl.DataFrame, candidates: pl.DataFrame, requests: pl.DataFrame
    ) -> npt.NDArray[np.float32]:
        """Final scores of whole lists, shape (n_candidates,)."""
        scores = self.ranker.score(described)
        if self.reranker is None:
            return scores
        scored = candidates.select("request_id", "item_id").with_columns(pl.Series("score", scores))
        return np.array(self.reranker.rescored(described, scored, requests, live.store)["rerank"], np.float32)


def requests_at(
    users: pl.Series, at: int | np.ndarray, statistics_until: int | None = None, context: Context = None
) -> pl.DataFrame:
    """Canonical requests: one per user, at one moment or one each (ms); see `Recommender.requests`."""
    moments = np.broadcast_to(np.asarray(at, np.int64), (len(users),))
    border = moments if statistics_until is None else np.minimum(moments, statistics_until)
    asked = pl.DataFrame(
        {
            "request_id": np.arange(len(users), dtype=np.int64),
            "user_id": users,
            "requested_at": pl.Series(moments).cast(TIME),
            "statistics_at": pl.Series(border).cast(TIME),
        }
    )
    return asked.with_columns(pl.lit(value).alias(name) for name, value in (context or {}).items())


def described_list(live: Live, asked: pl.DataFrame, items: pl.Series) -> pl.DataFrame:
    """Features of some distinct articles for the one request of `asked`, in their order."""
    return _described_list(live, asked, items)[0]


def scored_list(live: Live, scoring: Scoring, asked: pl.DataFrame, items: pl.Series) -> npt.NDArray[np.float32]:
    """Final scores of some distinct articles for the one request of `asked`, in their order."""
    described, candidates = _described_list(live, asked, items)
    return scoring.scores(live, described, candidates, asked)


def _described_list(live: Live, asked: pl.DataFrame, items: pl.Series) -> tuple[pl.DataFrame, pl.DataFrame]:
    slate = pl.DataFrame({"request_id": np.zeros(len(items), np.int64), "item_id": items})
    assembly = replace(live.assembly(asked), slates=slate)
    candidates, _ = assembly.lists(asked)
    return assembly.describe(candidates, asked), candidates


def ranked_lists(
    live: Live,
    scoring: Scoring,
    asked: pl.DataFrame,
    lists: pl.DataFrame,
    k: int | None = None,
    *,
    explain: bool = False,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """Order the lists that requests bring along; see `Recommender.rank_many`."""
    _refuse_places(k)
    scored = {"item_id": live.store.items.dtype, "score": pl.Float32(), "rank": pl.UInt32()}
    if asked.is_empty():
        return _none(asked.select("request_id"), scored, explain)
    assembly, parts = replace(live.assembly(asked), slates=lists), []
    with (progress or Silent()).stage("rank", len(asked)) as step:
        for chunk, candidates in assembly.recalled(asked):
            described = assembly.describe(candidates, chunk)
            rank = pl.col("score").rank("ordinal", descending=True).over("request_id").cast(pl.UInt32)
            ranked = _scored(live, scoring, candidates, described, chunk).with_columns(rank.alias("rank"))
            best = ranked if k is None else ranked.filter(pl.col("rank") <= k)
            best = _explained(live, scoring.ranker, best, described) if explain else best
            parts.append(best.select("request_id", "item_id", "score", "rank", *(REASONS if explain else ())))
            step(len(chunk))
    return asked.select("request_id").join(pl.concat(parts), on="request_id", maintain_order="left_right")


def best_articles(
    live: Live,
    scoring: Scoring,
    asked: pl.DataFrame,
    k: int,
    chosen: Filter,
    *,
    explain: bool = False,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """The best articles that recall proposes, places that it leaves empty filled; see `Recommender.recommend_many`."""
    _refuse_places(k)
    order = asked.select("request_id", "user_id")
    if asked.is_empty():
        return _none(order, {"item_id": live.store.items.dtype, "rank": pl.UInt32(), "score": pl.Float32()}, explain)
    assembly, parts = live.proposing(asked), []
    with (progress or Silent()).stage("recommend", len(asked)) as step:
        for chunk, lists in assembly.recalled(asked):
            parts.append(_best(live, scoring, assembly, chunk, lists, k, chosen, explain))
            step(len(chunk))
    return order.join(pl.concat(parts), on="request_id", how="left", maintain_order="left_right").filter(
        pl.col("item_id").is_not_null()
    )


def _best(
    live: Live,
    scoring: Scoring,
    assembly: Assembly,
    requests: pl.DataFrame,
    lists: pl.DataFrame,
    k: int,
    chosen: Filter,
    explain: bool,
) -> pl.DataFrame:
    coded = RecallRequests.of(requests, live.store)
    allowed = live.allowed(chosen, coded.at)
    candidates = assembly.cut(lists.filter(allowed.gather(pl.Series(live.store.item_codes(lists["item_id"])))))
    described = assembly.describe(candidates, requests)
    scored = _scored(live, scoring, candidates, described, requests)
    best = (
        diversified(scored, requests, live.store, k, chosen.diversity)
        if chosen.diversity.on
        else scored.sort("request_id", "score", "item_id", descending=[False, True, False])
        .with_columns(pl.int_range(1, pl.len() + 1, dtype=pl.UInt32).over("request_id").alias("rank"))
        .filter(pl.col("rank") <= k)
    )
    best = _explained(live, scoring.ranker, best, described) if explain else best
    best = best.select("request_id", "item_id", "rank", "score", *(REASONS if explain else ()))
    more = fill(best, requests, coded, k, live.recall["settings"]["refresh_ms"], allowed)
    return pl.concat([best, more], how="diagonal").sort("request_id", "rank")


def _none(asked: pl.DataFrame, more: dict[str, pl.DataType], explain: bool) -> pl.DataFrame:
    """The answer to no request."""
    return pl.DataFrame(schema={**asked.schema, **more, **dict.fromkeys(REASONS if explain else (), pl.String())})


def _scored(
    live: Live, scoring: Scoring, candidates: pl.DataFrame, described: pl.DataFrame, requests: pl.DataFrame
) -> pl.DataFrame:
    """The candidates with `score`, and `place`: the row of their features."""
    scores = pl.Series("score", scoring.scores(live, described, candidates, requests))
    return candidates.with_columns(scores).with_row_index("place")


def _explained(live: Live, ranker: Ranker, best: pl.DataFrame, described: pl.DataFrame) -> pl.DataFrame:
    reasons = explanations(ranker, described[best["place"]]).alias("because")
    return best.with_columns(proposed_by(live.recall["channels"]).alias("channels"), reasons)


def _refuse_places(k: int | None) -> None:
    if k is not None and k < 1:
        raise UsageError(f"--k: expected at least 1, found {k}.")
