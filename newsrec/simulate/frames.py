"""From arrays to canonical frames: the log that everybody reads, and the truth that only tests and studies may see."""

from dataclasses import dataclass, fields
from typing import Final

import numpy as np
import polars as pl

from features.columns import CONTEXT, TIME
from newsrec.data.fingerprint import fingerprint
from newsrec.data.log import Intake, Log
from newsrec.simulate.clicks import Shown, examination
from newsrec.simulate.config import SimulationConfig, generator
from newsrec.simulate.traffic import World
from newsrec.simulate.world import Ints

_NOTE: Final = "simulated log: articles, readers and clicks are invented, and what decides a click is known"


@dataclass(frozen=True)
class Truth:
    """What decided the clicks. No feature, channel or ranker may read it."""

    articles: pl.DataFrame
    """`item_id, quality, fading_hours, story, breaking`, one row per article of the log, sorted by `item_id`."""
    users: pl.DataFrame
    """`user_id, activity, interests` (Array(Float32, categories), sums to 1), all readers, sorted by `user_id`."""
    requests: pl.DataFrame
    """`request_id, eligible`: how many articles had a chance of being shown; sorted by `request_id`."""
    exposures: pl.DataFrame
    """`request_id, item_id, utility, examination, click_probability, propensity`, row by row as the impressions."""


@dataclass(frozen=True)
class Simulation:
    """A simulated log and what decided it."""

    config: SimulationConfig
    log: Log
    truth: Truth


@dataclass(frozen=True)
class _Ids:
    """The id of each dense index."""

    item: Ints
    user: Ints


def assemble(world: World, shown: Shown, eligible: Ints) -> Simulation:
    """Give everything its id, its canonical columns and its order."""
    # Shuffled ids: an id that grows with time would tell an article's age to whoever has no dates.
    shuffled = generator(world.config, "ids").permutation(len(world.articles.created))
    ids = _Ids(1 + shuffled, 1 + np.arange(world.config.users))
    impressions = _impressions(world, shown, ids)
    clicks = _clicks(world, shown, ids)
    table = _articles(world, ids)
    content = fingerprint({"clicks": clicks, "articles": table, "impressions": impressions})
    intake = Intake(rows_read=clicks.height, notes=(_NOTE,))
    log = Log("simulated", clicks, table, impressions, intake=intake, fingerprint=content)
    return Simulation(world.config, log, _truth(world, shown, eligible, impressions, ids))


def _instants(config: SimulationConfig, name: str, values: Ints) -> pl.Series:
    start = round(config.start.timestamp() * 1000)
    return pl.Series(name, values + start, dtype=pl.Int64).cast(TIME)


def _impressions(world: World, shown: Shown, ids: _Ids) -> pl.DataFrame:
    traffic = world.traffic
    return pl.DataFrame(
        {
            "request_id": shown.request + 1,
            "user_id": ids.user[traffic.user[shown.request]],
            "requested_at": _instants(world.config, "requested_at", traffic.time[shown.request]),
            "item_id": ids.item[shown.item],
            "clicked": shown.clicked,
            "position": shown.position.astype(np.int32),
            "propensity": shown.propensity.astype(np.float32),
            "shared": shown.shared,
            "dwell_seconds": pl.Series(shown.dwell.astype(np.float32), nan_to_null=True),
        }
    )


def _clicks(world: World, shown: Shown, ids: _Ids) -> pl.DataFrame:
    users, traffic = world.users, world.traffic
    at = np.flatnonzero(shown.clicked)
    request = shown.request[at]
    user = traffic.user[request]
    context = {name: values[user] for name, values in users.context.items()} | {"referrer": traffic.referrer[request]}
    columns = {
        "user_id": ids.user[user],
        "item_id": ids.item[shown.item[at]],
        "clicked_at": _instants(world.config, "clicked_at", shown.clicked_at[at]),
        **{name: context[name].astype(np.int32) for name in CONTEXT},
        "dwell_seconds": shown.dwell[at].astype(np.float32),
    }
    return pl.DataFrame(columns).sort("clicked_at", "user_id", "item_id")


def _articles(world: World, ids: _Ids) -> pl.DataFrame:
    articles = world.articles
    columns = {
        "item_id": ids.item,
        "category": articles.category.astype(np.int32),
        "created_at": _instants(world.config, "created_at", articles.created),
        "words": articles.words.astype(np.int32),
        "publisher": articles.publisher.astype(np.int32),
        "embedding": articles.embedding,
    }
    return pl.DataFrame(columns).sort("item_id")


def _truth(world: World, shown: Shown, eligible: Ints, impressions: pl.DataFrame, ids: _Ids) -> Truth:
    articles, users = world.articles, world.users
    worth = {
        "item_id": ids.item,
        "quality": articles.quality.astype(np.float32),
        "fading_hours": articles.fading_hours.astype(np.float32),
        "story": articles.story,
        "breaking": articles.breaking,
    }
    tastes = {
        "user_id": ids.user,
        "activity": users.activity.astype(np.float32),
        "interests": users.interests.astype(np.float32),
    }
    exposures = impressions.select("request_id", "item_id").with_columns(
        utility=pl.Series(shown.utility.astype(np.float32)),
        examination=pl.Series(examination(shown.position).astype(np.float32)),
        click_probability=pl.Series(shown.probability.astype(np.float32)),
        propensity=impressions["propensity"],
    )
    return Truth(
        articles=pl.DataFrame(worth).sort("item_id"),
        users=pl.DataFrame(tastes),
        requests=pl.DataFrame({"request_id": 1 + np.arange(len(eligible)), "eligible": eligible}),
        exposures=exposures,
    )


def truth_frames(truth: Truth) -> dict[str, pl.DataFrame]:
    """The frames of the truth by name."""
    return {field.name: getattr(truth, field.name) for field in fields(truth)}
