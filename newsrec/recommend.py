"""Recommendations for everybody in a log, in the form that its community expects.

`python -m newsrec.recommend` and the library function `recommend` do the same.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from features.columns import TIME
from features.events import milliseconds
from newsrec.answers import REASONS
from newsrec.bundle import refuse_unwritable_file, write_whole
from newsrec.data import Log, ReadOptions, read_log
from newsrec.diversity import Diversity
from newsrec.errors import DataError, UsageError
from newsrec.progress import Progress, Silent
from newsrec.serve import Recommender
from newsrec.slates import canonical_requests, requests_of, slates_of

TIANCHI_PLACES: Final = 5
PLACES: Final = 5
"""Articles per user where nothing else is said."""


@dataclass(frozen=True)
class RecommendConfig:
    """What to recommend to whom."""

    run: Path
    """The bundle."""
    data: Path
    """The log whose users are answered."""
    out: Path
    """File to write; replaced if it is there."""
    format: str = "auto"
    k: int | None = None
    """Articles per user, or of each shown list, >= 1. None: five per user, and whole lists. A Tianchi submission always
    has five, and the predictions of `PREDICTIONS` always whole lists."""
    at: datetime | None = None
    """Moment of all requests, time zone aware. None: the instant after each held-out user's last click where the format
    has such users, else the instant after the log's last event. Shown lists have moments of their own."""
    frozen: bool = False
    """Statistics about articles stay as the bundle knows them, however old."""
    explain: bool = False
    """Also write `<out>.explain.parquet`: which channels proposed each article, and what moved its score, in words."""
    read: ReadOptions = ReadOptions()
    features: Path | None = None
    """The file of own features that the bundle was trained with."""
    reranker: bool | None = None
    """Whether the bundle's network orders the top; None is what training found best."""
    diversity: Diversity = Diversity()
    """How much a user's list should vary; the default orders by score alone."""


def recommend(config: RecommendConfig, progress: Progress | None = None) -> pl.DataFrame:
    """Answer every user of a log and write the answers.

    Args:
        config: Bundle, log, file.
        progress: Told of stages and lines; None is silent.

    Returns:
        Polars: `user_id, item_id, rank, score` (null where an article only fills the list), users in the log's order;
        of shown lists `impression_id, user_id, item_id, score, rank`, in the order of time and of each list.

    Raises:
        NewsrecError: A damaged bundle, bad data, or a place that cannot be written; nothing is left half-written.
    """
    tell = progress or Silent()
    refuse_unwritable_file(config.out)
    bundle = Recommender.load(config.run, config.features, reranker=config.reranker)
    log = read_log(config.data, config.format, options=config.read)
    recommender = bundle.with_log(log.clicks, log.articles, log.impressions)
    until = bundle.known_until if config.frozen else None
    answer, writers = (_rank_slates, PREDICTIONS) if bundle.ranks_slates else (_recommend, SUBMISSIONS)
    told, requests = answer(recommender, log, config, until, tell)
    answers = told.drop(REASONS, strict=False)
    writers.get(log.format, _parquet)(answers, requests, config.out)
    if config.explain:
        _parquet(told, requests, config.out.with_name(f"{config.out.name}.explain.parquet"))
    return answers


def _recommend(
    recommender: Recommender, log: Log, config: RecommendConfig, until: int | None, tell: Progress
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The best articles of every user, and the requests."""
    k = PLACES if config.k is None else config.k
    if log.format == "tianchi" and k != TIANCHI_PLACES:
        raise UsageError(f"--k: a Tianchi submission has {TIANCHI_PLACES} articles per user, found {k}. Leave --k out.")
    requests = _requests(recommender, log, config, until)
    tell.say(f"recommending {k} articles to {len(requests):,} users")
    best = recommender.recommend_many(requests, k, explain=config.explain, progress=tell, diversity=config.diversity)
    return best.drop("request_id"), requests


def _rank_slates(
    recommender: Recommender, log: Log, config: RecommendConfig, until: int | None, tell: Progress
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The order of every list that the log shows, clicked or not, and the requests."""
    if log.impressions is None:
        raise DataError(
            f"--data {config.data}: expected impressions, as the bundle ranks shown lists, found clicks only. "
            "Give a log with impressions, or train with --candidates recall."
        )
    if config.at is not None:
        raise UsageError(
            f"--at: expected no moment, as the bundle ranks shown lists, each at its own, found '{config.at}'. "
            "Leave --at out, or train with --candidates recall."
        )
    if config.diversity.on:
        raise UsageError(
            "--diversity: expected none, as the bundle ranks shown lists and chooses no articles, found some. "
            "Leave it out, or train with --candidates recall."
        )
    k = None if log.format in PREDICTIONS else config.k
    if k != config.k:
        tell.say(f"note: --k {config.k} has no effect: predictions for '{log.format}' rank whole lists")
    requests = canonical_requests(requests_of(log.impressions), recommender.store)
    requests = recommender.own.with_columns(requests, log.impressions)
    if until is not None:
        border = pl.min_horizontal("statistics_at", pl.lit(until).cast(TIME))
        requests = requests.with_columns(border.alias("statistics_at"))
    slates = slates_of(log.impressions, requests)
    tell.say(f"ranking {len(slates):,} articles of {len(requests):,} shown lists")
    ranked = recommender.rank_many(requests, slates, tell, k=k, explain=config.explain)
    of_list = requests.select("request_id", "impression_id", "user_id")
    answers = of_list.join(ranked, on="request_id", maintain_order="left_right")
    return answers.drop("request_id"), requests


def _predictions(answers: pl.DataFrame, requests: pl.DataFrame, out: Path) -> None:
    """`<impression_id> [r1,r2,...]`: the rank of each item in the order of the list, one line per impression."""
    ranks = pl.col("rank").cast(pl.String).str.join(",")
    lines = answers.group_by("impression_id", maintain_order=True).agg(ranks)
    write_whole(
        out,
        lambda path: lines.select(pl.format("{} [{}]", "impression_id", "rank")).write_csv(
            path, include_header=False, quote_style="never"
        ),
    )


def _requests(recommender: Recommender, log: Log, config: RecommendConfig, until: int | None) -> pl.DataFrame:
    if log.held_out_users is None:
        users = log.clicks["user_id"].unique().sort()
        at: np.ndarray | int = recommender.known_until
    else:
        last = log.clicks.group_by("user_id").agg(pl.col("clicked_at").max())
        asked = log.held_out_users.join(last, on="user_id", how="left", maintain_order="left")
        users = asked["user_id"]
        never = asked["clicked_at"].is_null()
        at = np.where(never, recommender.known_until, milliseconds(asked["clicked_at"]) + 1)
    if config.at is not None:
        if config.at.tzinfo is None:
            raise UsageError(f"--at: expected a time zone, found '{config.at}'. Write it as 2024-01-31T08:00:00Z.")
        at = round(config.at.timestamp() * 1000)
    if users.is_empty():
        raise DataError(f"--data {config.data}: expected users to recommend to, found none.")
    return recommender.requests(users, at, until)


def _tianchi(answers: pl.DataFrame, requests: pl.DataFrame, out: Path) -> None:
    """`user_id, article_1 .. article_5`, one row per test user in ascending order."""
    wide = answers.pivot(on="rank", index="user_id", values="item_id", maintain_order=True)
    places = [str(rank) for rank in range(1, TIANCHI_PLACES + 1)]
    short = wide.height < len(requests) or any(name not in wide.columns for name in places)
    if short or wide.select(pl.any_horizontal(pl.col(places).is_null()).any()).item():
        raise DataError(
            f"submission: expected {TIANCHI_PLACES} articles for every user, found too few articles in the log."
        )
    submission = wide.select("user_id", *(pl.col(name).alias(f"article_{name}") for name in places))
    write_whole(out, submission.write_csv)


def _parquet(answers: pl.DataFrame, requests: pl.DataFrame, out: Path) -> None:
    write_whole(out, answers.write_parquet)


SUBMISSIONS: Final[dict[str, Callable[[pl.DataFrame, pl.DataFrame, Path], None]]] = {"tianchi": _tianchi}
"""Formats whose competition has a file form of its own; all others get Parquet."""
PREDICTIONS: Final[dict[str, Callable[[pl.DataFrame, pl.DataFrame, Path], None]]] = {
    "ebnerd": _predictions,
    "mind": _predictions,
}
"""The same for bundles that rank the lists that were shown."""


if __name__ == "__main__":
    from newsrec.cli import run_verb

    run_verb("recommend")
