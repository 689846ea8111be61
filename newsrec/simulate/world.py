"""The world before anybody reads: articles in stories, and readers with interests. Traffic and clicks happen in it.

Everything is a NumPy array by dense index; ids appear only in `frames`. Times are milliseconds since the log's start
(negative: published during the warm-up, so that the first hour is as full as any other).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from features.columns import DAY, HOUR
from newsrec.simulate.config import SimulationConfig, generator

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MAX_AGE: Final = 48 * HOUR
"""Articles older than this are no longer shown."""
PUBLISHERS: Final = 20
_STORY_SIZE: Final = 3.0
_BREAKING_PER_DAY: Final = 1.5
# Relative rate of each hour, UTC: newsrooms work by day and stop late; readers peak at noon and in the evening.
_PUBLISHING: Final = (2, 1, 1, 1, 2, 4, 6, 8, 9, 10, 10, 10, 9, 9, 10, 10, 10, 9, 8, 7, 6, 5, 4, 3)


@dataclass(frozen=True)
class Articles:
    """All articles by dense index in order of `created`; every array has shape (n_articles,) but `embedding`."""

    created: Ints
    """Milliseconds since the log's start, strictly increasing."""
    category: Ints
    story: Ints
    breaking: NDArray[np.bool_]
    publisher: Ints
    words: Ints
    quality: Floats
    """What the article is worth to everybody, log odds, mean about 0."""
    fading_hours: Floats
    """Age in which the appeal falls by a factor e."""
    embedding: NDArray[np.float32]
    """(n_articles, dim), unit length: category, story and the article's own part."""


@dataclass(frozen=True)
class Users:
    """All readers by dense index."""

    interests: Floats
    """(n_users, n_categories), rows sum to 1; one to five categories hold nearly all."""
    activity: Floats
    """Clicks the reader would like to make in the whole log, > 0, log-normal."""
    context: dict[str, Ints]
    """The reader's own device, os and so on; (n_users,) each."""


def cumulative_rhythm(hours: tuple[int, ...], days: int) -> Floats:
    """Cumulative share of events at each hour's border, from 0 to 1; shape (24 * days + 1,)."""
    rate = np.tile(np.asarray(hours, dtype=np.float64), days)
    return np.concatenate([[0.0], np.cumsum(rate) / rate.sum()])


def make_articles(config: SimulationConfig) -> Articles:
    """Publish stories in a daily rhythm, each a few articles over some hours; about one a day is breaking news."""
    rng = generator(config, "articles")
    warm_up = MAX_AGE // DAY
    days = config.days + warm_up
    n_stories = max(1, round(config.articles_per_day * days / _STORY_SIZE))
    breaking = rng.random(n_stories) < _BREAKING_PER_DAY * days / n_stories
    size = np.where(breaking, rng.integers(6, 15, n_stories), rng.geometric(1 / _STORY_SIZE, n_stories))
    cumulative = cumulative_rhythm(_PUBLISHING, days)
    born = np.interp(rng.random(n_stories), cumulative, np.arange(len(cumulative))) - 24 * warm_up
    story = np.repeat(np.arange(n_stories), size)
    first = np.concatenate([[True], story[1:] != story[:-1]])
    hours = born[story] + np.where(first, 0.0, rng.exponential(np.where(breaking[story], 2.0, 5.0)))
    order = np.argsort(hours, kind="stable")
    order = order[hours[order] < 24 * config.days]
    story = story[order]
    # A millisecond apart at least: the order of publication is then never a matter of sorting ties.
    created = (hours[order] * HOUR).astype(np.int64)
    created = np.maximum.accumulate(created - np.arange(len(created))) + np.arange(len(created))
    category = _zipf(rng, n_stories, config.categories)[story]
    publisher = rng.integers(0, PUBLISHERS, len(story))
    return Articles(
        created=created,
        category=category,
        story=story,
        breaking=breaking[story],
        publisher=publisher,
        words=np.maximum(40, rng.lognormal(5.3, 0.5, len(story))).astype(np.int64),
        quality=config.quality_strength
        * _quality(rng, config, category=category, publisher=publisher, story=story, breaking=breaking),
        fading_hours=rng.lognormal(np.log(np.where(breaking[story], 10.0, 22.0)), 0.4),
        embedding=_embeddings(rng, config, category, story),
    )


def make_users(config: SimulationConfig) -> Users:
    """Readers with one to five interests, drawn by the categories' sizes, and a heavy-tailed activity."""
    rng = generator(config, "users")
    n = config.users
    interests = np.full((n, config.categories), 0.1 / config.categories)
    for share in (0.40, 0.25, 0.15, 0.10):  # the fifth part, 0.1, is spread over everything
        np.add.at(interests, (np.arange(n), _zipf(rng, n, config.categories)), share)
    mobile = rng.random(n) < 0.62
    context = {
        "environment": np.where(rng.random(n) < 0.97, 4, 2),
        "device": np.where(mobile, np.where(rng.random(n) < 0.9, 1, 4), 3),
        "os": np.where(mobile, np.where(rng.random(n) < 0.75, 2, 5), np.where(rng.random(n) < 0.8, 17, 20)),
        "country": np.where(rng.random(n) < 0.93, 1, rng.integers(2, 12, n)),
        "region": _zipf(rng, n, 28) + 1,
    }
    # Log-normal as in Globo: median 4 and p90 21 ask for 1.29, p99 67 for 1.21.
    return Users(interests, rng.lognormal(np.log(config.clicks_per_user), 1.25, n), context)


def _zipf(rng: np.random.Generator, n: int, size: int) -> Ints:
    weight = 1 / (np.arange(size) + 3.0)
    return rng.choice(size, n, p=weight / weight.sum())


def _quality(
    rng: np.random.Generator,
    config: SimulationConfig,
    *,
    category: Ints,
    publisher: Ints,
    story: Ints,
    breaking: NDArray[np.bool_],
) -> Floats:
    """Publisher, category, story and the article's own part, so that a table of articles foretells some of it."""
    parts = (
        0.3 * rng.standard_normal(PUBLISHERS)[publisher],
        0.2 * rng.standard_normal(config.categories)[category],
        0.5 * rng.standard_normal(len(breaking))[story],
        0.8 * rng.standard_normal(len(story)),
    )
    return np.asarray(sum(parts) + 1.0 * breaking[story])


def _embeddings(rng: np.random.Generator, config: SimulationConfig, category: Ints, story: Ints) -> NDArray[np.float32]:
    dim = config.embedding_dim
    vector = rng.standard_normal((config.categories, dim))[category]
    vector = vector + 0.7 * rng.standard_normal((int(story.max()) + 1, dim))[story]
    vector = vector + 0.5 * rng.standard_normal((len(story), dim))
    unit: Floats = vector / np.sqrt(np.square(vector).sum(axis=1, keepdims=True))
    return unit.astype(np.float32)
