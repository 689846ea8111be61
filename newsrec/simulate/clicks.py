"""The loop over time: show slates, let readers choose, let the policy learn from it. Vectorised over readers.

A reader looks down the slate with falling attention and clicks at most one article: a multinomial logit over the slate
and the choice of nothing. What an article is worth to a reader is the sum of its quality, the reader's interest in its
category, the pull of the last click's story and category, and its fading with age.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from features.columns import HOUR, SECOND
from newsrec.simulate.config import SimulationConfig, generator
from newsrec.simulate.exposure import HALF_LIFE_TICKS, TICK, PolicyState, Pool, draw_slates, inclusion, make_pool
from newsrec.simulate.traffic import SOCIAL, World, click_delays
from newsrec.simulate.world import Floats, Ints

_MEMORY: Final = 128
"""Clicks after which an article may be shown again; few readers make as many while one article lives."""
_SMALLEST_SLATE: Final = 5.0
_NOTHING: Final = 0.9
"""Log odds of clicking nothing, against an article of no quality at the top."""
_PULL_FADES_HOURS: Final = 8.0
_USUAL_CLICKS_PER_DAY: Final = 15_000 * 4.0 / 7
"""What the policy's constants are made for: the default configuration, in its own measure of activity."""


@dataclass(frozen=True)
class Shown:
    """One row per shown article, sorted by request (index into the traffic) and position."""

    request: Ints
    item: Ints
    position: Ints
    """1 = top."""
    propensity: Floats
    """Probability of being in the slate; each position is then equally likely."""
    utility: Floats
    """Log odds against an article of no quality, without the position's effect."""
    probability: Floats
    """True chance of a click, given the slate and the position."""
    clicked: NDArray[np.bool_]
    shared: NDArray[np.bool_]
    clicked_at: Ints
    """Milliseconds since the log's start; -1 where not clicked."""
    dwell: Floats
    """Seconds; NaN where not clicked."""


def examination(position: NDArray[np.int64]) -> Floats:
    """How much a position weighs in the choice: 1 at the top, falling to about 0.3 at position 12.

    >>> examination(np.array([1, 4])).round(2).tolist()
    [1.0, 0.54]
    """
    return np.asarray(position**-0.45)


def click_chances(weight: Floats) -> Floats:
    """Chance that anything is clicked in lists of this total weight (examination times worth); shape kept."""
    return np.asarray(weight / (np.exp(_NOTHING) + weight))


@dataclass(frozen=True)
class _Slates:
    """What one round shows, before anybody chose; sorted by request, in the order on the page; (n_shown,) each."""

    request: Ints
    item: Ints
    propensity: Floats


def run(world: World) -> tuple[Shown, Ints]:
    """Play the whole log.

    Returns:
        Everything shown, and for each request of the traffic the number of articles that could have been shown.
    """
    rng = generator(world.config, "clicks")
    state = _fresh_state(world)
    batches: list[Shown] = []
    eligible = np.zeros(len(world.traffic.time), dtype=np.int64)
    tick = world.traffic.time // TICK
    n_ticks = int(tick.max(initial=-1)) + 1
    borders = np.searchsorted(tick, np.arange(n_ticks + 1))
    for at in range(n_ticks):
        pool = make_pool(rng, world.articles, state.popularity, at * TICK)
        new_clicks = []
        for request in _rounds(world.traffic.user, int(borders[at]), int(borders[at + 1])):
            slates, eligible[request] = _show(rng, world, state, pool, request)
            shown = _choose(rng, world, state, slates)
            new_clicks.append(_remember(world, state, shown))
            batches.append(shown)
        _count(world.config, state, new_clicks)
    return _sorted(batches), eligible


def _fresh_state(world: World) -> PolicyState:
    config = world.config
    return PolicyState(
        popularity=np.zeros(len(world.articles.created)),
        category_clicks=np.zeros((config.users, config.categories), dtype=np.float32),
        clicked=np.full((config.users, _MEMORY), -1),
        n_clicked=np.zeros(config.users, dtype=np.int64),
        last_item=np.full(config.users, -1),
        last_time=np.zeros(config.users, dtype=np.int64),
    )


def _rounds(user: Ints, low: int, high: int) -> list[Ints]:
    """The requests of one tick in rounds, each in order of time: the first of every reader, then the second, ..."""
    order = np.argsort(user[low:high], kind="stable")
    by_user = user[low:high][order]
    first = np.searchsorted(by_user, by_user)
    turn = np.empty(high - low, dtype=np.int64)
    turn[order] = np.arange(high - low) - first
    return [low + np.flatnonzero(turn == number) for number in range(int(turn.max(initial=-1)) + 1)]


def _show(
    rng: np.random.Generator, world: World, state: PolicyState, pool: Pool, request: Ints
) -> tuple[_Slates, Ints]:
    """Draw the slates of a round; also how many articles each request could have been shown."""
    config = world.config
    wanted = _SMALLEST_SLATE + rng.gamma(4.0, (config.slate_size - _SMALLEST_SLATE) / 4.0, len(request))
    user = world.traffic.user[request]
    chance = inclusion(pool, world.articles, state, user, wanted=wanted, exploration=config.exploration)
    row, column = draw_slates(rng, chance)
    return _Slates(request[row], pool.item[column], chance[row, column]), np.count_nonzero(chance, axis=1)


def _utility(world: World, state: PolicyState, request: Ints, item: Ints) -> Floats:
    """Worth of each shown article to its reader at that moment; (n_shown,)."""
    config, articles, users, traffic = world.config, world.articles, world.users, world.traffic
    user, time = traffic.user[request], traffic.time[request]
    age = (time - articles.created[item]) / HOUR
    interest = np.sqrt(users.interests[user, articles.category[item]])
    interest *= np.where(traffic.referrer[request] == SOCIAL, 0.5, 1.0)
    last = state.last_item[user]
    pull = np.where(last >= 0, np.exp(-(time - state.last_time[user]) / HOUR / _PULL_FADES_HOURS), 0.0)
    same_story = articles.story[item] == articles.story[last]
    same_category = articles.category[item] == articles.category[last]
    return np.asarray(
        articles.quality[item]
        + config.interest_strength * (interest - 0.2)
        + config.sequence_strength * pull * (same_story + 0.3 * same_category)
        - age / articles.fading_hours[item]
    )


def _choose(rng: np.random.Generator, world: World, state: PolicyState, slates: _Slates) -> Shown:
    """Let each reader of a round click one article of the slate, or none."""
    request, item, n = slates.request, slates.item, len(slates.item)
    first = np.flatnonzero(np.diff(request, prepend=-1))
    row = np.repeat(np.arange(len(first)), np.diff(first, append=n))
    position = 1 + np.arange(n) - first[row]
    utility = _utility(world, state, request, item)
    weight = examination(position) * np.exp(utility)
    running = np.concatenate([[0.0], np.cumsum(weight)])
    ends = np.concatenate([first[1:], [n]])
    total = np.exp(_NOTHING) + running[ends] - running[first]
    target = running[first] + rng.random(len(first)) * total
    hit = np.flatnonzero(target < running[ends])
    chosen = np.searchsorted(running, target[hit], side="right") - 1
    shared, clicked = np.zeros((2, n), dtype=np.bool_)
    clicked_at, dwell = np.full(n, -1), np.full(n, np.nan)
    clicked[chosen] = True
    clicked_at[chosen], dwell[chosen], shared[chosen] = _reading(
        rng, world, request[chosen], item[chosen], utility[chosen]
    )
    probability = weight / total[row]
    return Shown(request, item, position, slates.propensity, utility, probability, clicked, shared, clicked_at, dwell)


def _reading(
    rng: np.random.Generator, world: World, request: Ints, item: Ints, utility: Floats
) -> tuple[Ints, Floats, NDArray[np.bool_]]:
    """When the click falls, how many seconds were read, and whether the article was passed on; (n_clicks,) each."""
    n, traffic = len(item), world.traffic
    clicked_at = traffic.time[request] + click_delays(rng, n).astype(np.int64)
    dwell = 0.25 * world.articles.words[item] * rng.lognormal(0.12 * utility, 0.8, n)
    room = np.where(traffic.next_time[request] < 0, np.inf, (traffic.next_time[request] - clicked_at) / SECOND)
    dwell = dwell / (1 + dwell / room)  # smoothly shorter than the time to the next request
    shared = rng.random(n) < 1 / (1 + np.exp(4.2 - 0.5 * utility))
    return clicked_at, dwell, shared


def _remember(world: World, state: PolicyState, shown: Shown) -> Ints:
    """Note a round's clicks, at most one for each reader; returns the clicked articles."""
    at = np.flatnonzero(shown.clicked)
    item, user = shown.item[at], world.traffic.user[shown.request[at]]
    state.clicked[user, state.n_clicked[user] % _MEMORY] = item
    state.n_clicked[user] += 1
    state.category_clicks[user, world.articles.category[item]] += 1
    state.last_item[user] = item
    state.last_time[user] = shown.clicked_at[at]
    return item


def _count(config: SimulationConfig, state: PolicyState, clicked: list[Ints]) -> None:
    """Age the popularity by one tick and add the tick's clicks."""
    # A log of few readers gets the same rich-get-richer as the default one, only noisier.
    weight = _USUAL_CLICKS_PER_DAY / (config.users * config.clicks_per_user / config.days)
    state.popularity *= 0.5 ** (1 / HALF_LIFE_TICKS)
    for item in clicked:
        state.popularity += weight * np.bincount(item, minlength=len(state.popularity))


def _sorted(batches: list[Shown]) -> Shown:
    """All batches as one, by request and position."""
    columns = {name: np.concatenate([getattr(b, name) for b in batches]) for name in Shown.__dataclass_fields__}
    order = np.argsort(columns["request"], kind="stable")  # stable: positions stay ascending
    return Shown(**{name: values[order] for name, values in columns.items()})
