"""How good an order is: NDCG@k, MRR, MRR@k, hit@k, recall@k, AUC, GAUC; NumPy and Polars, no loop over requests.

Scored candidates and requests go in, one row per request comes out (`per_request`), and of that the figures of
`metrics.json` (`summarise`). A clicked article that recall did not propose counts as zero: the denominator is the
requests, never the hits. Ties in score are ordered by item, so the order of the rows does not matter.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from newsrec.errors import DataError, UsageError
from newsrec.frames import to_polars

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Ranking:
    """An order, reduced to what metrics ask: where the clicked articles stand.

    Per request, shape (n_requests,), in the order of the requests frame:
    """

    clicked: Ints
    """Clicked articles, those that recall missed included; 0: the request does not count and every metric is null."""
    candidates: Ints
    """Articles that were scored; may be 0."""
    found: Ints
    """Clicked articles among the candidates."""
    user: Ints
    """Code of the request's user, from 0."""

    # Per clicked candidate, shape (n_found,).
    request: Ints
    """Its request's row, ascending."""
    rank: Ints
    """Its place in its request, 1 is best; ascending inside a request."""
    beaten: Floats
    """Not clicked candidates of the request with a smaller score, plus half of those with the same."""

    # Every candidate, for what compares across requests.
    row: Ints
    score: pl.Series
    label: NDArray[np.bool_]

    def total(self, value: Floats) -> Floats:
        """Sum over the clicked candidates (n_found,) of each request: (n_requests,)."""
        return np.bincount(self.request, weights=value, minlength=len(self.clicked)).astype(np.float64)

    @property
    def both_classes(self) -> NDArray[np.bool_]:
        """Whether a request has a clicked and a not clicked candidate, so that an AUC exists: (n_requests,)."""
        return (self.found > 0) & (self.found < self.candidates)


@dataclass(frozen=True)
class Metric:
    """One figure: its value per request, and how requests are weighed into one number."""

    value: Callable[[Ranking], Floats]
    """Gives (n_requests,), NaN where a request has no such value."""
    weight: str | None = None
    """Column of `per_request` that weighs the requests; None: all weigh the same."""


def hit(k: int) -> Callable[[Ranking], Floats]:
    """hit@k: 1 where a clicked article is among the first k, else 0 (also called Success@k)."""
    return lambda ranking: (ranking.total((ranking.rank <= k).astype(np.float64)) > 0).astype(np.float64)


def mrr(k: int) -> Callable[[Ranking], Floats]:
    """MRR@k: 1 / rank of the first clicked article where that rank is at most k, else 0.

    With one clicked article per request and k = 5 this is the score of the Tianchi news competition.
    Source: Voorhees, TREC-8 question answering track, 1999.
    """

    def value(ranking: Ranking) -> Floats:
        best = np.zeros(len(ranking.clicked))
        np.maximum.at(best, ranking.request, np.where(ranking.rank <= k, 1.0 / ranking.rank, 0.0))
        return best

    return value


def reciprocal_ranks(ranking: Ranking) -> Floats:
    """MRR as MIND and EB-NeRD count it: mean of 1 / rank over the request's clicked articles, without a cut.

    Source: Wu et al., MIND, ACL 2020; its published evaluation, which EB-NeRD's took over.
    """
    return ranking.total(1.0 / ranking.rank) / np.maximum(ranking.clicked, 1)


def ndcg(k: int) -> Callable[[Ranking], Floats]:
    """NDCG@k with binary gains: sum over clicked ranks r <= k of 1 / log2(1 + r), by its value in the best order.

    The best order has min(k, clicked) clicked articles on top, those that recall missed included.
    Source: Järvelin and Kekäläinen, ACM TOIS 2002, with the discount log2(1 + r) of Burges et al. 2005.
    """

    def value(ranking: Ranking) -> Floats:
        gains = 1.0 / np.log2(1.0 + np.arange(1, k + 1))
        best = np.concatenate([[0.0], np.cumsum(gains)])[np.minimum(ranking.clicked, k)]
        gained = np.where(ranking.rank <= k, gains[np.minimum(ranking.rank, k) - 1], 0.0)
        share: Floats = np.divide(ranking.total(gained), best, out=np.zeros(len(best)), where=best > 0)
        return share

    return value


def recall(k: int) -> Callable[[Ranking], Floats]:
    """recall@k: share of a request's clicked articles that are among the first k."""

    def value(ranking: Ranking) -> Floats:
        return ranking.total((ranking.rank <= k).astype(np.float64)) / np.maximum(ranking.clicked, 1)

    return value


def auc(ranking: Ranking) -> Floats:
    """AUC inside the request: share of (clicked, not clicked) candidate pairs in the right order, a tie is half.

    NaN where the candidates do not hold both classes. Its mean over requests is EB-NeRD's AUC.
    Source: Mann and Whitney, 1947.
    """
    pairs = ranking.found * (ranking.candidates - ranking.found)
    area: Floats = np.full(len(pairs), np.nan)
    return np.divide(ranking.total(ranking.beaten), pairs, out=area, where=ranking.both_classes)


def user_auc(ranking: Ranking) -> Floats:
    """AUC over all candidates of the request's user, pooled; the same value at each of the user's requests.

    Only requests that hold both classes are pooled; NaN at the others. Its mean weighted by the candidates of each
    request is GAUC: sum over users of impressions x AUC, by sum of impressions.
    Source: Zhou et al., Deep Interest Network, KDD 2018, section 6.3.
    """
    value, both = auc(ranking), ranking.both_classes
    several = np.bincount(ranking.user[both], minlength=len(ranking.user))[ranking.user] > 1
    if not np.any(several & both):
        return value  # the usual held-out set: a user's only request is the user
    chosen = (several & both)[ranking.row]
    users = ranking.user[ranking.row[chosen]]
    pooled = pl.DataFrame(
        {"user": users, "score": ranking.score.filter(pl.Series(chosen)), "label": ranking.label[chosen]}
    )
    pooled = pooled.sort("user", "score", descending=[False, True])
    label = pooled["label"].to_numpy()
    at = np.flatnonzero(label)
    user = pooled["user"].to_numpy()
    wins = np.bincount(user[at], weights=_beaten(user, pooled["score"], label, at), minlength=len(value))
    found = np.bincount(user, weights=label, minlength=len(value))
    pairs = found * (np.bincount(user, minlength=len(value)) - found)
    of_user = np.divide(wins, pairs, out=np.full(len(value), np.nan), where=pairs > 0)
    return np.where(several & both, of_user[ranking.user], value)


METRICS: Final[Mapping[str, Metric]] = {
    "mrr@5": Metric(mrr(5)),
    "mrr": Metric(reciprocal_ranks),
    "hit@5": Metric(hit(5)),
    "ndcg@5": Metric(ndcg(5)),
    "ndcg@10": Metric(ndcg(10)),
    "recall@50": Metric(recall(50)),
    "auc": Metric(auc),
    "gauc": Metric(user_auc, weight="n_candidates"),
    "auc_share": Metric(lambda ranking: ranking.both_classes.astype(np.float64)),
}
"""Every metric of a run by its name in `metrics.json`; a new one is one more line."""


def rank_within(request: ArrayLike, score: ArrayLike, item: ArrayLike | pl.Series) -> Ints:
    """Number the candidates of each request from 1 (best score); equal scores by item, ascending.

    Args:
        request: (n_rows,) anything that tells requests apart; rows in any order.
        score: (n_rows,) finite, higher is better.
        item: (n_rows,) breaks ties.

    Returns:
        (n_rows,) ranks in the order of the input rows.

    >>> rank_within([7, 7, 9, 7], [0.5, 0.9, 0.1, 0.5], [30, 10, 10, 20]).tolist()
    [3, 1, 1, 2]
    """
    frame = pl.DataFrame({"row": _series(request), "score": _series(score), "item": _series(item)})
    order = frame.select(pl.arg_sort_by("row", "score", "item", descending=[False, True, False])).to_series()
    rank = np.empty(len(frame), np.int64)
    rank[order.to_numpy()] = _places(frame["row"].gather(order))
    return rank


def per_request(scored: object, requests: object, metrics: Mapping[str, Metric] = METRICS) -> pl.DataFrame:
    """Score each request's order.

    Args:
        scored: Polars or pandas, one row per candidate, in any order: `request_id, item_id, score` (finite, higher is
            better) and `label` (1 clicked, 0 not). No candidate twice.
        requests: Polars or pandas, one row per request: `request_id, user_id, positives` (clicked articles, those that
            recall missed included). A request without candidates scores 0; one with no positives does not count.
        metrics: Which figures.

    Returns:
        One row per request, in the order of `requests`: `request_id, user_id, n_candidates` (Int64) and a Float64
        column per metric, null where the request has no such value.

    Raises:
        DataError: If columns are missing, a score is null or not finite, a label is not 0 or 1, a candidate belongs to
            no request, or a request has more clicked candidates than `positives`.
    """
    asked = _required(requests, "requests", ("request_id", "user_id", "positives"))
    ranking = rank_candidates(
        _required(scored, "scored candidates", ("request_id", "item_id", "score", "label")), asked
    )
    counted = ranking.clicked > 0
    values = {name: np.where(counted, metric.value(ranking), np.nan) for name, metric in metrics.items()}
    return asked.select("request_id", "user_id").with_columns(
        pl.Series("n_candidates", ranking.candidates),
        *(pl.Series(name, value, nan_to_null=True) for name, value in values.items()),
    )


def rank_candidates(scored: pl.DataFrame, requests: pl.DataFrame) -> Ranking:
    """Order the candidates once and keep what every metric needs; the arguments and errors of `per_request`."""
    if requests["request_id"].n_unique() != len(requests):
        raise DataError(f"requests: {len(requests)} rows hold a 'request_id' twice. Give one row per request.")
    joined = _with_rows(scored, requests).select("row", "score", "item_id", "label")
    _check_candidates(joined)
    ordered = joined.sort("row", "score", "item_id", descending=[False, True, False])
    row = ordered["row"].to_numpy().astype(np.int64)
    label = ordered["label"].cast(pl.Boolean).to_numpy()
    at = np.flatnonzero(label)
    n = len(requests)
    ranking = Ranking(
        clicked=requests["positives"].cast(pl.Int64).to_numpy(),
        candidates=np.bincount(row, minlength=n),
        found=np.bincount(row[at], minlength=n),
        user=requests["user_id"].rank("dense").cast(pl.Int64).to_numpy() - 1,
        request=row[at],
        rank=_places(ordered["row"])[at],
        beaten=_beaten(row, ordered["score"], label, at),
        row=row,
        score=ordered["score"],
        label=label,
    )
    _check_found(ranking, requests["request_id"])
    return ranking


def summarise(per_request: pl.DataFrame, metrics: Mapping[str, Metric] = METRICS) -> dict[str, float]:
    """Mean of each metric over the requests that have it, weighted where the metric says so.

    A metric that no request has (AUC where every request holds one class) is left out.

    Args:
        per_request: What `per_request` returned, or some of its rows.
        metrics: Which of its columns.
    """
    values, weights = values_and_weights(per_request, metrics)
    total = weights.sum(axis=0)
    sums = (values * weights).sum(axis=0)
    return {name: float(sums[i] / total[i]) for i, name in enumerate(metrics) if total[i] > 0}


def values_and_weights(per_request: pl.DataFrame, metrics: Mapping[str, Metric] = METRICS) -> tuple[Floats, Floats]:
    """Columns of `per_request` as (n_requests, n_metrics) values and weights; both 0 where there is no value."""
    values = per_request.select(pl.col(name).fill_null(0.0) for name in metrics).to_numpy()
    weight = [pl.lit(1.0) if metric.weight is None else pl.col(metric.weight) for metric in metrics.values()]
    weights = per_request.select(
        pl.when(pl.col(name).is_not_null()).then(each).otherwise(0.0).cast(pl.Float64).alias(name)
        for name, each in zip(metrics, weight, strict=True)
    ).to_numpy()
    return values, weights


def effective_size(weight: Floats) -> float:
    """`(sum w)^2 / sum w^2`: how many equally weighted rows tell as much; 0 where all weights are 0.

    >>> effective_size(np.array([2.0, 2.0, 0.0]))
    2.0
    """
    squares = float(np.square(weight).sum())
    return float(weight.sum()) ** 2 / squares if squares > 0 else 0.0


def logloss(probability: ArrayLike, label: ArrayLike) -> float:
    """Mean negative log-likelihood, in nats, of 0/1 labels under the given probabilities, cut to [1e-7, 1 - 1e-7].

    Only for a model with a binary objective: LambdaRank scores are no probabilities, and squeezing them through a
    sigmoid does not make them any (they need isotonic or Platt calibration first).

    Raises:
        UsageError: If the arrays are empty or of different length, a probability lies outside 0..1, or a label is not
            0 or 1.

    >>> round(logloss([0.5, 0.5], [0, 1]), 4)
    0.6931
    """
    p, y = np.asarray(probability, np.float64), np.asarray(label, np.float64)
    if p.shape != y.shape or p.size == 0:
        raise UsageError(f"logloss: expected equally many probabilities and labels, found {p.shape} and {y.shape}")
    if not np.all((p >= 0) & (p <= 1)):
        raise UsageError(
            f"logloss: expected probabilities in 0..1, found {p.min()} to {p.max()}. "
            "LambdaRank scores are no probabilities: calibrate them, or use a binary objective."
        )
    if not np.all((y == 0) | (y == 1)):
        raise UsageError(f"logloss: expected labels 0 or 1, found {y.min()} to {y.max()}")
    p = np.clip(p, 1e-7, 1 - 1e-7)
    return float(-np.mean(y * np.log(p) + (1 - y) * np.log1p(-p)))


def _beaten(group: Ints, score: pl.Series, label: NDArray[np.bool_], at: Ints) -> Floats:
    """For the clicked rows `at` of an order by group and falling score: negatives below plus half of the tied."""
    new_group = _changes(pl.Series(group))
    groups = np.append(np.flatnonzero(new_group), len(group))
    ties = np.append(np.flatnonzero(new_group | _changes(score)), len(group))
    negatives = np.concatenate([[0], np.cumsum(~label)])  # before each row
    tie = np.searchsorted(ties, at, side="right")
    first, after = negatives[ties[tie - 1]], negatives[ties[tie]]
    end = negatives[groups[np.searchsorted(groups, at, side="right")]]
    beaten: Floats = end - after + 0.5 * (after - first)
    return beaten


def _changes(ordered: pl.Series) -> NDArray[np.bool_]:
    """Whether each row differs from the one before; the first does."""
    differs = ordered.slice(1) != ordered.slice(0, max(len(ordered) - 1, 0))
    return np.concatenate([np.ones(min(len(ordered), 1), np.bool_), differs.to_numpy()])


def _places(ordered: pl.Series) -> Ints:
    """1, 2, 3 ... inside each run of equal values."""
    starts = np.flatnonzero(_changes(ordered))
    places: Ints = np.arange(1, len(ordered) + 1) - np.repeat(starts, np.diff(np.append(starts, len(ordered))))
    return places


def _series(values: ArrayLike | pl.Series) -> pl.Series:
    return values if isinstance(values, pl.Series) else pl.Series(np.asarray(values))


def _required(table: object, name: str, columns: tuple[str, ...]) -> pl.DataFrame:
    """The columns as Polars; an error names all that are missing."""
    frame = to_polars(table, name)
    missing = sorted(set(columns) - set(frame.columns))
    if missing:
        raise DataError(f"{name}: missing columns {missing}; found {frame.columns}. Rename or add them.")
    return frame.select(columns)


def _with_rows(scored: pl.DataFrame, requests: pl.DataFrame) -> pl.DataFrame:
    """The candidates with `row`, their request's place in the requests frame; null where it is not there."""
    have, want = scored["request_id"].dtype, requests["request_id"].dtype
    if have != want and not (have.is_integer() and want.is_integer()):
        raise DataError(
            f"request_id: {have} in the scored candidates, {want} in the requests. Give both the same dtype."
        )
    rows = requests.select("request_id").with_row_index("row")
    return scored.with_columns(pl.col("request_id").cast(want)).join(rows, on="request_id", how="left")


def _check_candidates(joined: pl.DataFrame) -> None:
    """Refuse candidates that would be scored wrongly in silence; all faults at once."""
    faults = joined.select(
        pl.col("row").is_null().sum().alias("rows of a request that is not in the requests frame"),
        (~pl.col("score").is_finite()).fill_null(True).sum().alias("scores that are null or not finite"),
        (~pl.col("label").cast(pl.Float64).is_in([0.0, 1.0])).fill_null(True).sum().alias("labels other than 0 and 1"),
    ).row(0, named=True)
    if any(faults.values()):
        found = "; ".join(f"{count} {what}" for what, count in faults.items() if count)
        raise DataError(f"scored candidates: {len(joined)} rows, of which {found}. Mend them before scoring.")


def _check_found(ranking: Ranking, request_id: pl.Series) -> None:
    """More clicked candidates than clicks: a candidate stands twice, or `positives` leaves some out."""
    wrong = np.flatnonzero(ranking.found > ranking.clicked)
    if len(wrong):
        examples = request_id.gather(wrong[:3]).to_list()
        raise DataError(
            f"scored candidates: {len(wrong)} requests have more candidates with label 1 than 'positives', for example "
            f"{examples}. Remove repeated candidates, or count all clicked articles in 'positives'."
        )
