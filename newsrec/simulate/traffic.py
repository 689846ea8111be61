"""Who asks for a page, and when: sessions in a daily rhythm. It comes before any click and depends on none.

Sessions of one reader are more than 30 minutes apart and the pauses inside one are shorter, so cutting at 30 minutes
finds exactly these sessions again. All times come from continuous distributions: no gap is more frequent than its
neighbours (the real log's 30-second artefact is not imitated).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from features.columns import DAY, HOUR, MINUTE, SECOND
from newsrec.simulate.config import SimulationConfig, generator
from newsrec.simulate.world import Articles, Floats, Ints, Users, cumulative_rhythm, make_articles, make_users

PAUSE: Final = 30 * MINUTE
"""A longer silence of a reader starts a new session."""
SHORTEST_PAUSE: Final = 12 * SECOND
"""Two requests of a reader are never closer; the click on the first falls between."""
_VISITING: Final = (5, 3, 2, 1, 1, 2, 4, 6, 8, 9, 9, 10, 11, 10, 9, 9, 9, 10, 11, 12, 12, 11, 9, 7)
_REQUESTS_PER_SESSION: Final = 2.6
_REQUESTS_PER_CLICK: Final = 1.15
_REFERRERS: Final = (0.45, 0.22, 0.05, 0.05, 0.15, 0.04, 0.04)
SOCIAL: Final = 5
"""The referrer whose readers follow the crowd more than their own interests."""


@dataclass(frozen=True)
class Traffic:
    """Requests in order of time; every array has shape (n_requests,)."""

    time: Ints
    """Milliseconds since the log's start."""
    user: Ints
    next_time: Ints
    """The reader's next request in the same session; -1 after the last."""
    referrer: Ints
    """1 to 7, one for a session."""


@dataclass(frozen=True)
class World:
    """Everything that is settled before the first click."""

    config: SimulationConfig
    articles: Articles
    users: Users
    traffic: Traffic


def make_world(config: SimulationConfig) -> World:
    """Publish the articles, invent the readers and draw their visits."""
    articles, users = make_articles(config), make_users(config)
    return World(config, articles, users, make_traffic(config, articles, users))


def make_traffic(config: SimulationConfig, articles: Articles, users: Users) -> Traffic:
    """Draw the sessions of all readers and the requests in each."""
    rng = generator(config, "traffic")
    wished = users.activity * _REQUESTS_PER_CLICK / _REQUESTS_PER_SESSION
    sessions = np.maximum(1, np.floor(wished + rng.random(config.users)).astype(np.int64))
    user = np.repeat(np.arange(config.users), sessions)
    start = _session_starts(rng, config, articles, len(user))
    length = rng.geometric(1 / _REQUESTS_PER_SESSION, len(user))
    referrer = 1 + rng.choice(len(_REFERRERS), len(user), p=_REFERRERS)
    session = np.repeat(np.arange(len(user)), length)
    first = np.concatenate([[True], session[1:] != session[:-1]])
    elapsed = np.cumsum(np.where(first, 0, _pauses(rng, len(session))))
    elapsed -= elapsed[first][session]
    time = start[session] + elapsed
    last = np.concatenate([~first[1:] * 1, [0]]) == 0
    kept = _apart(user, start, time[last])[session] & (time < config.days * DAY)
    following = np.where(last, -1, np.concatenate([time[1:], [0]]))
    following[following >= config.days * DAY] = -1
    order = np.flatnonzero(kept)
    order = order[np.lexsort((user[session[order]], time[order]))]
    return Traffic(time[order], user[session[order]], following[order], referrer[session[order]])


def _session_starts(rng: np.random.Generator, config: SimulationConfig, articles: Articles, n: int) -> Ints:
    """Daily rhythm, plus visits in the two hours after breaking news."""
    cumulative = cumulative_rhythm(_VISITING, config.days)
    hours = np.interp(rng.random(n), cumulative, np.arange(len(cumulative)))
    news = articles.created[articles.breaking & (articles.created >= 0)] / HOUR
    if len(news):
        surge = rng.choice(news, n) + rng.exponential(0.7, n)
        hours = np.where((rng.random(n) < 0.08) & (surge < 24 * config.days), surge, hours)
    return (hours * HOUR).astype(np.int64)


def _pauses(rng: np.random.Generator, n: int) -> Ints:
    """Log-normal, bent smoothly under the limit: a cut would make the limit itself a frequent value."""
    pause = rng.lognormal(np.log(150 * SECOND), 1.0, n)
    room = PAUSE - SHORTEST_PAUSE - SECOND
    return (SHORTEST_PAUSE + pause * room / (pause + room)).astype(np.int64)


def _apart(user: Ints, start: Ints, end: Ints) -> NDArray[np.bool_]:
    """Which sessions begin more than a pause after all earlier ones of their reader ended; (n_sessions,) bool."""
    order = np.lexsort((start, user))
    # One running maximum serves all readers: each has a range of its own, wider than any time.
    shift = user[order] * (int(end.max(initial=0)) + 2 * PAUSE + 1)
    latest = np.concatenate([[-2 * PAUSE], np.maximum.accumulate(end[order] + shift)[:-1]])
    apart = np.empty(len(user), dtype=np.bool_)
    # The margin keeps the clicks of two sessions apart too, wherever they fall after their requests.
    apart[order] = start[order] + shift > latest + PAUSE + SHORTEST_PAUSE
    return apart


def click_delays(rng: np.random.Generator, n: int) -> Floats:
    """Milliseconds from the request to the click on it: 2 to 12 seconds, always before the reader's next request."""
    delay = rng.lognormal(np.log(5.0), 0.8, n)
    return SECOND * (2.0 + delay * 9.9 / (delay + 9.9))
