"""The logging policy: which living articles a request is shown, with the exact probability of each.

The policy knows only what a real system knows: clicks so far, ages, categories and stories. Slates are drawn by
systematic sampling (Madow 1949): the probability that an article is in the slate is exactly the one that was asked
for, so `propensity` is the truth and no estimate.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from features.columns import HOUR, MINUTE
from newsrec.simulate.world import MAX_AGE, Articles, Floats, Ints

TICK: Final = 5 * MINUTE
"""The policy sees new articles and new counts this often; what the reader just clicked it sees at once."""
MAX_PROPENSITY: Final = 0.95
"""Nothing is shown for certain: what is always shown cannot be evaluated."""
HALF_LIFE_TICKS: Final = 24.0
_SHARES: Final = {"popular": 0.30, "fresh": 0.20, "affinity": 0.30, "related": 0.20}
"""Parts of the slate, after the even exploration. Without a last click the related part goes to the popular one."""


@dataclass
class PolicyState:
    """What the policy has counted so far; the simulation's loop updates it in place."""

    popularity: Floats
    """(n_articles,) clicks, halved every two hours, as a log of the default size would have."""
    category_clicks: NDArray[np.float32]
    """(n_users, n_categories) clicks so far."""
    clicked: Ints
    """(n_users, memory) the last articles of each reader, -1 = none: not shown again."""
    n_clicked: Ints
    """(n_users,) clicks so far; modulo memory it is the place of the next one."""
    last_item: Ints
    """(n_users,) the last click, -1 = none."""
    last_time: Ints
    """(n_users,) milliseconds since the log's start of the last click."""


@dataclass(frozen=True)
class Pool:
    """The articles alive at a tick, in random order, with what depends on the article alone; (n_alive,) each."""

    item: Ints
    category: Ints
    story: Ints
    column: Ints
    """(n_articles + 1,) place of each article in the pool; n_alive = not alive."""
    popular: Floats
    fresh: Floats
    appeal: Floats
    """Fresh and clicked: what personal parts multiply."""


def make_pool(rng: np.random.Generator, articles: Articles, popularity: Floats, now: int) -> Pool:
    """Everything created before `now` and not older than `MAX_AGE`.

    The order is shuffled because systematic sampling seldom takes neighbours together.
    """
    low, high = np.searchsorted(articles.created, [now - MAX_AGE, now], side="left")
    item = rng.permutation(np.arange(low, high))
    column = np.full(len(articles.created) + 1, len(item))
    column[item] = np.arange(len(item))
    age = (now - articles.created[item]) / HOUR
    counts = popularity[item]
    popular = counts**0.8 + 0.1 * np.exp(-age / 10)
    fresh = np.exp(-age / 5)
    appeal = np.exp(-age / 20) * (counts + 0.3) ** 0.5
    return Pool(
        item,
        articles.category[item],
        articles.story[item],
        column,
        popular / popular.sum(),
        fresh / fresh.sum(),
        appeal,
    )


def inclusion(
    pool: Pool, articles: Articles, state: PolicyState, user: Ints, *, wanted: Floats, exploration: float
) -> Floats:
    """Probability that each living article is in each request's slate.

    Args:
        pool: What is alive.
        articles: The whole world.
        state: What the policy has counted.
        user: (n_requests,) who asks; no reader twice.
        wanted: (n_requests,) articles asked for.
        exploration: Share of the slate that is drawn evenly.

    Returns:
        (n_requests, n_alive), in [0, MAX_PROPENSITY]; 0 only for what the reader has clicked.
    """
    counts = state.category_clicks[user]  # (n_requests, n_categories)
    affinity = (counts + 0.2)[:, pool.category] * pool.appeal
    last = state.last_item[user]
    known = last >= 0
    same_category = articles.category[last][:, None] == pool.category
    same_story = articles.story[last][:, None] == pool.story
    related = (0.03 + same_category + 8.0 * same_story) * pool.appeal
    guided = 1 - exploration
    from_related = guided * _SHARES["related"] * known
    mix = _SHARES["fresh"] * guided * pool.fresh + exploration / len(pool.item)
    mix = mix + (guided * (_SHARES["popular"] + _SHARES["related"]) - from_related)[:, None] * pool.popular
    mix += affinity * (guided * _SHARES["affinity"] / affinity.sum(axis=1))[:, None]
    mix += related * (from_related / related.sum(axis=1))[:, None]
    # A spare column takes the clicked articles that are no longer alive, and the empty places.
    open_ = np.ones((len(user), len(pool.item) + 1))
    open_[np.arange(len(user))[:, None], pool.column[state.clicked[user]]] = 0.0
    mix *= open_[:, :-1]
    return np.minimum(mix * wanted[:, None], MAX_PROPENSITY)


def draw_slates(rng: np.random.Generator, probability: Floats) -> tuple[Ints, Ints]:
    """Systematic sampling: each article is in with exactly its probability, and slates keep to their expected size.

    Args:
        rng: Where the random numbers come from.
        probability: (n_requests, n_alive), each in [0, 1).

    Returns:
        Row and column of everything shown, rows ascending and the columns of a row in random order.
    """
    steps = np.floor(np.cumsum(probability, axis=1) + rng.random((len(probability), 1)))
    taken = np.empty(probability.shape, dtype=np.bool_)
    taken[:, 0] = steps[:, 0] > 0
    np.greater(steps[:, 1:], steps[:, :-1], out=taken[:, 1:])
    row, column = np.nonzero(taken)
    order = np.lexsort((rng.random(len(row)), row))
    return row[order], column[order]
