"""Is the network worth having? Its blend with the ranker, fitted on validation users and judged on others in turn.

The users of the validation are halved. What one half chooses, the epoch and the weight, is judged on the other, and the
other way round: every request is judged by a choice that did not see its user, and none is lost to the choosing. Only
how many epochs there were to choose from was found on all of them. What is served is then chosen on all.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.optimize import minimize

from newsrec.evaluation.comparison import Difference, paired_comparison
from newsrec.metrics import METRICS
from newsrec.neural.trainer import METRIC
from newsrec.rerank import Blend
from newsrec.tensors import Floats, Lists

PLACES: Final = 5
"""Of `METRIC`."""
DIGITS: Final = 4
"""Of the weight: what is behind them hangs on the order of additions."""

Numbers = npt.NDArray[np.float64]


def fit_blend(lists: Lists, network: npt.NDArray[np.floating]) -> Blend:
    """The weight under which the clicks of these lists are likeliest.

    A conditional logit (McFadden 1974, "Conditional logit analysis of qualitative choice behavior") of ranker and
    network, both by their spreads inside the lists, with no coefficient below 0 and a penalty as heavy as one click;
    the weight is the network's share of the two. The likelihood is smooth, where the weight of the best MRR@5 on the
    same lists hangs on single requests.

    Args:
        lists: Whole tops, best first; the ranker's score is the last dense column.
        network: The network's logits or log-odds, shape (n_rows,). A line through them changes nothing.

    Returns:
        The blend; its weight is 0 where the network tells nothing, or no list has a click.
    """
    ranker = lists.dense[:, -1].astype(np.float64)
    spreads = _spread(ranker, lists), _spread(network.astype(np.float64), lists)
    of_ranker, of_network = _likeliest(np.column_stack([ranker / spreads[0], network / spreads[1]]), lists)
    share = float(of_network / (of_ranker + of_network)) if of_network > 0 else 0.0
    return Blend(round(share, DIGITS), *spreads)


def _likeliest(terms: Numbers, lists: Lists) -> Numbers:
    """Coefficients >= 0 of the terms, shape (n_terms,); terms of shape (n_rows, n_terms)."""
    clicked, row = lists.label == 1, lists.row_request
    clicks = np.bincount(row, weights=clicked, minlength=len(lists))

    def loss(coefficients: Numbers) -> tuple[float, Numbers]:
        scores = terms @ coefficients
        best = np.full(len(lists), -np.inf)
        np.maximum.at(best, row, scores)
        raised = np.exp(scores - best[row])
        total = np.bincount(row, weights=raised, minlength=len(lists))
        likely = scores - best[row] - np.log(total[row])
        missed = clicks[row] * raised / total[row] - clicked
        penalty = 0.5 * float(coefficients @ coefficients)
        return penalty - float(likely[clicked].sum()), terms.T @ missed + coefficients

    start = np.array([1.0, 0.0])  # the ranker alone: a network that tells nothing stays out
    found: Numbers = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * 2).x
    return found


def judge(lists: Lists, epochs: Floats, requests: pl.DataFrame, seed: int) -> Difference:
    """MRR@5 of the ranker's order and of the blend, users drawn in pairs; the arguments of `crosswise`."""
    first, second = crosswise(lists, epochs, requests, seed)
    return paired_comparison(first, second, {}, {}, metrics={METRIC: METRICS[METRIC]}, seed=seed)[METRIC]


def crosswise(lists: Lists, epochs: Floats, requests: pl.DataFrame, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """MRR@5 per request of the ranker's order, and of the blend that the other half of the users chose.

    Args:
        lists: Tops of the validation requests.
        epochs: The network's logits after each epoch, shape (epochs, n_rows).
        requests: `request_id, user_id, positives` of all validation requests, also of those without candidates.
        seed: Of the halves, and of the draws of `judge`.

    Returns:
        Two frames `request_id, user_id, mrr@5`, in the order of the requests; misses of recall count as 0.
    """
    ranker, first = lists.dense[:, -1].astype(np.float64), _of_first_half(lists, requests, seed)
    alone = np.stack([reciprocal_ranks(logits, lists) for logits in epochs])  # (epochs, n_requests)
    blended = np.zeros(len(lists))
    for chooses in (first, ~first):
        network = epochs[int(alone[:, chooses].sum(axis=1).argmax())]
        blend = fit_blend(lists.chosen(np.flatnonzero(chooses)), network[chooses[lists.row_request]])
        blended[~chooses] = reciprocal_ranks(blend.scores(ranker, network), lists)[~chooses]
    return _per_request(reciprocal_ranks(ranker, lists), lists, requests), _per_request(blended, lists, requests)


def reciprocal_ranks(scores: npt.NDArray[np.floating], lists: Lists) -> Numbers:
    """1 / place of the first clicked candidate, 0 below `PLACES` or where none was clicked, shape (n_requests,).

    Equal scores stand in the order of the list, which is the ranker's and then that of the ids, as in what is served.
    """
    row = lists.row_request
    order = np.lexsort((-scores, row))  # stable: rows of a list stay together and ties in their order
    place = np.empty(len(row), np.int64)
    place[order] = np.arange(len(row)) - lists.start[row] + 1
    best = np.zeros(len(lists))
    np.maximum.at(best, row, np.where((lists.label == 1) & (place <= PLACES), 1.0 / place, 0.0))
    return best


def halves(requests: pl.DataFrame, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The requests of two random halves of the users."""
    users = requests["user_id"].unique().sort()
    first = users.sample(fraction=0.5, shuffle=True, seed=seed).implode()
    of_first = requests["user_id"].is_in(first)
    return requests.filter(of_first), requests.filter(~of_first)


def _of_first_half(lists: Lists, requests: pl.DataFrame, seed: int) -> npt.NDArray[np.bool_]:
    return np.isin(lists.request_id, halves(requests, seed)[0]["request_id"].to_numpy())


def _per_request(values: Numbers, lists: Lists, requests: pl.DataFrame) -> pl.DataFrame:
    """As `newsrec.metrics.per_request` gives it; requests without candidates have 0, those without a click no value."""
    found = pl.DataFrame({"request_id": lists.request_id, METRIC: values})
    joined = requests.join(found, on="request_id", how="left", maintain_order="left")
    value = pl.when(pl.col("positives") > 0).then(pl.col(METRIC).fill_null(0.0))
    return joined.select("request_id", "user_id", value.alias(METRIC))


def _spread(scores: Numbers, lists: Lists) -> float:
    """Standard deviation inside the lists; 1 where there is none."""
    row = lists.row_request
    mean = np.bincount(row, weights=scores, minlength=len(lists)) / np.maximum(lists.length, 1)
    spread = float(np.sqrt(np.mean((scores - mean[row]) ** 2))) if len(scores) else 0.0
    return spread if spread > 0 else 1.0
