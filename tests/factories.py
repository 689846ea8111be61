"""Small logs made to be awkward: ties, repeats, cold users, articles without metadata and articles never clicked.

`small_log` has clicks and articles; `rich_log` has impressions, reading times, publishers and embeddings as well.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import polars.selectors as cs

from features.build import build
from features.catalog import Feature, features_for
from features.columns import MINUTE, TIME
from features.events import EventStore, take
from features.vocabulary import Vocabulary
from newsrec.candidates import propose
from newsrec.data.log import Log
from newsrec.progress import Silent
from newsrec.recall import CHANNELS, Channel, RecallRequests, RecallSettings, working

START = datetime(2024, 1, 8, tzinfo=UTC)
"""First moment of every small log: a whole hour, so that grid moments and clicks coincide."""

CATEGORIES = ("politics", "sports", "culture", None)
DEVICES = ("phone", "desktop", None)
IDS = ("integer", "string")
UNKNOWN_USER, UNKNOWN_ITEM = 9_999, 8_888
SHALLOW = RecallSettings(depth=8)
"""Fewer places than there are articles, so that the cut at `depth` is seen."""


def instant(minutes: float) -> datetime:
    """So many minutes after the start of the log."""
    return START + timedelta(minutes=minutes)


def ms(minutes: float) -> int:
    """The same as milliseconds since 1970."""
    return round(START.timestamp() * 1_000 + minutes * MINUTE)


def clicks_of(rows: Iterable[tuple[int | str, int | str, float]], **context: Sequence[object]) -> pl.DataFrame:
    """Canonical clicks from (user, item, minutes after the start), in the given order."""
    users, items, minutes = zip(*rows, strict=True)
    return pl.DataFrame(
        {
            "user_id": users,
            "item_id": items,
            "clicked_at": pl.Series([instant(m) for m in minutes]).cast(TIME),
            **context,
        }
    )


def no_clicks(like: pl.DataFrame) -> pl.DataFrame:
    """The empty log with the columns of `like`."""
    return like.clear()


def articles_of(
    items: Sequence[int | str],
    created: Sequence[float | None] | None = None,
    **columns: Sequence[object],
) -> pl.DataFrame:
    """Canonical articles; `created` in minutes after the start, None where unknown."""
    frame = pl.DataFrame({"item_id": items, **columns})
    if created is None:
        return frame
    times = [None if minutes is None else instant(minutes) for minutes in created]
    return frame.with_columns(pl.Series("created_at", times, dtype=pl.Datetime("us", "UTC")).cast(TIME))


def impressions_of(
    slates: Iterable[tuple[int | str, float, Sequence[int | str]]], first: int = 1_000, **context: Sequence[object]
) -> pl.DataFrame:
    """Canonical impressions from (user, minutes after the start, items shown), nothing clicked.

    Args:
        slates: One per request.
        first: Number of the first request.
        context: Columns with one value per request, such as `page_item_id`.
    """
    users, minutes, shown = zip(*slates, strict=True)
    requests = pl.DataFrame(
        {
            "request_id": range(first, first + len(users)),
            "user_id": users,
            "requested_at": pl.Series([instant(m) for m in minutes]).cast(TIME),
            "item_id": [list(items) for items in shown],
            **context,
        }
    )
    return requests.explode("item_id").with_columns(clicked=False)


def contexts(store: EventStore, name: str, row: np.ndarray) -> list[object]:
    """A context column at rows of the clicks table, None at -1 and where the click told nothing."""
    known = store.context_ids[name].values.to_list()
    return [known[code] if code >= 0 else None for code in take(store.tables["clicks"][name], row, -1).tolist()]


def log_of(
    clicks: pl.DataFrame,
    articles: pl.DataFrame | None = None,
    held_out: Sequence[object] | None = None,
    impressions: pl.DataFrame | None = None,
) -> Log:
    """A log around its frames."""
    held_out_users = None if held_out is None else pl.DataFrame({"user_id": held_out})
    articles = clicks.select("item_id").unique().sort("item_id") if articles is None else articles
    shown = None if impressions is None else impressions.sort("requested_at", "request_id", "item_id")
    ordered = clicks.sort("clicked_at", "user_id", "item_id")
    return Log("made", ordered, articles, impressions=shown, held_out_users=held_out_users)


def small_log(seed: int = 0, ids: str = "integer", n_clicks: int = 220, days: float = 2.5) -> Log:
    """Some 200 clicks of 14 users on 24 articles.

    Half of the clicks stand on whole quarters of an hour, so users and refreshes share instants. Article 20 and above
    have no metadata; every fifth has no creation time, every seventh no words; article 3 is said to be created after
    its first clicks; articles 100 to 102 are never clicked. Users 13 and 14 click once.
    """
    rng = np.random.default_rng(seed)
    item = np.minimum(rng.zipf(1.4, n_clicks), 24)
    minutes = np.sort(rng.uniform(0, days * 24 * 60, n_clicks))
    # Visits: most clicks follow the one before them within minutes, by one of few users.
    user = np.repeat(rng.integers(1, 13, n_clicks), rng.integers(1, 6, n_clicks))[:n_clicks]
    minutes = np.where(rng.random(n_clicks) < 0.5, minutes // 15 * 15, minutes)
    rows = list(zip(user.tolist(), item.tolist(), minutes.tolist(), strict=True))
    rows += [(13, 1, 700.0), (14, 2, 1_500.0), (1, 5, 900.0), (1, 4, 900.0), (2, 4, 900.0)]
    clicks = clicks_of(
        rows,
        device=rng.choice(np.array(DEVICES, dtype=object), len(rows)).tolist(),
        referrer=rng.integers(1, 4, len(rows)).tolist(),
    ).unique(["user_id", "item_id", "clicked_at"], keep="first", maintain_order=True)
    known = [*range(1, 20), 100, 101, 102]
    articles = articles_of(
        known,
        created=[3_000.0 if i == 3 else None if i % 5 == 0 else float(60 * (i % 40)) - 600 for i in known],
        category=[CATEGORIES[i % 4] for i in known],
        words=pl.Series([None if i % 7 == 0 else 100 + 13 * i for i in known], dtype=pl.Int32),
    )
    return log_of(*(_as_text(f) for f in (clicks, articles))) if ids == "string" else log_of(clicks, articles)


ID_COLUMNS = ("user_id", "item_id", "page_item_id")
PAGE_ONLY, SHOWN_ONLY = 200, 103
"""An article that users only stand on, and one that is only shown; nothing else is known of either."""
PAUSES = (0.0, 2.0, 7.5, 29.9, 30.0, 31.0, 240.0)
"""Minutes between the requests of one user: the same instant, and both sides of the end of a session."""


def rich_log(seed: int = 0, ids: str = "integer") -> Log:
    """The small log with reading times (a third unknown), publishers, embeddings, and some 110 lists of 3 to 9 items.

    Users 1 to 14 are shown lists at, before and after their clicks, some at the same instant, in sessions that pauses
    on both sides of half an hour end; user 15 never clicks. Lists repeat what the user was shown. Every second list
    stands below an article. Every sixth article has no embedding, article 6 one of zeros.
    """
    log = small_log(seed)
    rng = np.random.default_rng(seed + 1_000)
    dwell = [None if rng.random() < 0.3 else s / 10 for s in rng.integers(0, 9_000, len(log.clicks)).tolist()]
    clicks = log.clicks.with_columns(pl.Series("dwell_seconds", dwell, dtype=pl.Float32))
    articles = _with_publisher_and_embedding(log.articles, rng)
    impressions = _impressions(log, rng)
    frames = (clicks, articles, impressions)
    clicks, articles, impressions = (_as_text(f) for f in frames) if ids == "string" else frames
    return log_of(clicks, articles, impressions=impressions)


def long_log(seed: int = 0, days: float = 2.5, eras: int = 4, ids: str = "integer") -> Log:
    """Several rich logs, one beginning so many days after the other: the same users, articles and requests' sessions.

    Some readings last for days, and user 15 is shown a list every 29 minutes for the last six days: one session.
    """
    logs = [rich_log(seed * eras + n, ids) for n in range(eras)]
    clicks = pl.concat(_later(log.clicks, "clicked_at", n * days) for n, log in enumerate(logs))
    shown = pl.concat(
        _later(log.impressions, "requested_at", n * days).with_columns(pl.col("request_id") + 1_000 * n)
        for n, log in enumerate(logs)
        if log.impressions is not None
    )
    whole_days = pl.when(pl.int_range(pl.len()) % 17 == 0).then(pl.col("dwell_seconds") * 300)
    clicks = clicks.with_columns(dwell_seconds=whole_days.otherwise("dwell_seconds"))
    end = ((eras - 1) * days + 2.5) * 24 * 60
    visit = impressions_of([(15, end - 29.0 * n, [1, 2 + n % 5]) for n in range(298)], first=90_000)
    visit = _as_text(visit) if ids == "string" else visit
    return log_of(clicks, logs[0].articles, impressions=pl.concat([shown, visit], how="diagonal"))


def _later(frame: pl.DataFrame, time: str, days: float) -> pl.DataFrame:
    return frame.with_columns(pl.col(time) + timedelta(days=days))


def _with_publisher_and_embedding(articles: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    items = articles["item_id"].to_list()
    vectors = [None if i % 6 == 1 else [0.0] * 4 if i == 6 else rng.normal(size=4).tolist() for i in items]
    return articles.with_columns(
        pl.Series("publisher", [("north", "south", None)[i % 3] for i in items]),
        pl.Series("embedding", vectors, dtype=pl.Array(pl.Float32, 4)),
    )


def _impressions(log: Log, rng: np.random.Generator) -> pl.DataFrame:
    pool = [*range(1, 25), 100, 101, 102, SHOWN_ONLY]
    read = log.clicks.select("user_id", "item_id", "clicked_at").rows()
    slates, pages, clicked = [], [], []
    for user in range(1, 16):
        own = [(item, (t - START).total_seconds() / 60) for u, item, t in read if u == user]
        moment = float(rng.integers(0, 40)) * 15
        for _ in range(int(rng.integers(5, 10))):
            if own and rng.random() < 0.5:
                moment = own[int(rng.integers(len(own)))][1]  # a list at the very instant of a click
            slate = set(rng.choice(pool, int(rng.integers(2, 9)), replace=False, p=_popular(len(pool))).tolist())
            here = {item for item, at in own if at == moment}
            slates.append((user, moment, sorted(slate | here)[:9] if len(slate) > 2 else [1, 2, 3]))
            clicked.append(here)
            pages.append(int(rng.choice([*pool[:8], PAGE_ONLY])) if rng.random() < 0.5 else None)
            moment += float(rng.choice(PAUSES))
    frame = impressions_of(
        slates,
        device=rng.choice(np.array(DEVICES, dtype=object), len(slates)).tolist(),
        is_subscriber=rng.random(len(slates)) < 0.3,
        page_item_id=pl.Series(pages, dtype=pl.Int64),
        here=[sorted(items) for items in clicked],
    )
    # Numbers of requests must not be in the order of time.
    number = dict(zip(range(1_000, 1_000 + len(slates)), (1_000 + rng.permutation(len(slates))).tolist(), strict=True))
    return frame.with_columns(
        pl.col("item_id").is_in(pl.col("here")).alias("clicked"), pl.col("request_id").replace_strict(number)
    ).drop("here")


def _popular(n: int) -> np.ndarray:
    """So that the same articles are shown again and again."""
    weight = 1 / np.arange(1, n + 1)
    return weight / weight.sum()


def _as_text(frame: pl.DataFrame) -> pl.DataFrame:
    """Ids as text whose order is not that of the numbers."""
    names = [name for name in ID_COLUMNS if name in frame.columns]
    return frame.with_columns(pl.format("n{}", pl.col(name)).alias(name) for name in names)


def requests_of(rows: Iterable[tuple[object, float, float]]) -> pl.DataFrame:
    """Canonical requests from (user, minutes, minutes of the statistics), numbered from 100."""
    users, at, statistics = zip(*rows, strict=True)
    return pl.DataFrame(
        {
            "request_id": range(100, 100 + len(users)),
            "user_id": users,
            "requested_at": pl.Series([instant(m) for m in at]).cast(TIME),
            "statistics_at": pl.Series([instant(m) for m in statistics]).cast(TIME),
        }
    )


def requests_for(log: Log, n: int = 40, seed: int = 0, stale_minutes: float = 0) -> pl.DataFrame:
    """Requests at the log's own instants and between them, of clickers and of a stranger, before and after the log.

    Of a log with impressions, as many at its lists, and with context: a device, one nobody knows, and the article that
    the user stands on, every ninth unknown to everybody.

    Args:
        log: With at least one click.
        n: Number of requests at clicks; six more are added.
        seed: Of the choice.
        stale_minutes: How long before the request its statistics end.
    """
    chosen = log.clicks.sample(n, seed=seed).sort("clicked_at", "user_id", "item_id")
    at = [(t - START).total_seconds() / 60 for t in chosen["clicked_at"]]
    users = chosen["user_id"].to_list()
    stranger = UNKNOWN_USER if log.clicks["user_id"].dtype.is_integer() else "nobody"
    rows = list(zip(users, at, strict=True))
    rows += [(users[0], -60.0), (users[0], 9_000.0), (users[1], 900.0), (users[2], 1_800.5)]
    rows += [(stranger, 1_800.0), (stranger, 0.0)]
    if log.impressions is not None:
        shown = log.impressions.unique("request_id").sort("request_id").sample(n, seed=seed)
        rows += [(u, (t - START).total_seconds() / 60) for u, t in shown.select("user_id", "requested_at").iter_rows()]
    requests = requests_of((user, minutes, minutes - stale_minutes) for user, minutes in rows)
    return requests if log.impressions is None else requests.with_columns(_context(log, len(requests), seed))


def _context(log: Log, n: int, seed: int) -> list[pl.Series]:
    rng = np.random.default_rng(seed)
    assert log.impressions is not None
    stranger = UNKNOWN_ITEM if log.clicks["item_id"].dtype.is_integer() else "nothing"
    known = log.impressions["page_item_id"].drop_nulls().unique().sort().to_list()
    pages = [None if i % 2 else stranger if i % 9 == 0 else known[int(rng.integers(len(known)))] for i in range(n)]
    return [
        pl.Series("device", rng.choice(np.array([*DEVICES, "watch"], dtype=object), n).tolist()),
        pl.Series("is_subscriber", rng.random(n) < 0.5),
        pl.Series("page_item_id", pages, dtype=log.clicks["item_id"].dtype),
    ]


def candidates_for(log: Log, requests: pl.DataFrame, per_request: int = 9, seed: int = 0) -> pl.DataFrame:
    """Lists drawn from all articles, the never clicked and one unknown to everybody included, with made-up recall."""
    rng = np.random.default_rng(seed)
    text = log.clicks["item_id"].dtype == pl.String
    stranger = "nothing" if text else UNKNOWN_ITEM
    frame = log.clicks.clear() if log.impressions is None else log.impressions
    shown = [frame[name].drop_nulls() for name in ("item_id", "page_item_id") if name in frame.columns]
    items = [*pl.concat([log.articles["item_id"], log.clicks["item_id"], *shown]).unique().sort(), stranger]
    rows = [
        (request, items[i], rank + 1)
        for request in requests["request_id"]
        for rank, i in enumerate(rng.choice(len(items), per_request, replace=False))
    ]
    frame = pl.DataFrame(rows, schema=["request_id", "item_id", "recall_rank"], orient="row")
    scores = {
        f"{name}_{what}": pl.when(pl.col("recall_rank") % (2 + place) > 0).then(pl.col("recall_rank") * factor)
        for place, name in enumerate(CHANNELS)
        for what, factor in (("score", -0.5), ("rank", 1))
    }
    return frame.with_columns(pl.col("recall_rank").cast(pl.UInt16)).with_columns(**scores)


def equipped(log: Log) -> Log:
    """The log with what some channel needs where it has none: embeddings of the articles, a region of the clicks."""
    clicks, articles = log.clicks, log.articles
    if not {"region", "device", "referrer"} & set(clicks.columns):
        clicks = clicks.with_columns(region=pl.lit("north"))
    if "embedding" not in articles.columns:
        number = articles["item_id"].cast(pl.String).str.extract(r"(\d+)").cast(pl.Int64)
        vectors = [[1.0, (n % 5) / 5, (n % 7) / 7, (n % 3) / 3] for n in number]
        articles = articles.with_columns(pl.Series("embedding", vectors, dtype=pl.Array(pl.Float32, 4)))
    return replace(log, clicks=clicks, articles=articles)


def store_of(log: Log) -> EventStore:
    """Everything the log has."""
    return EventStore(log.clicks, log.articles, log.impressions)


def fitted(log: Log, settings: RecallSettings = SHALLOW) -> tuple[EventStore, dict[str, Channel]]:
    """The log's store and every channel that can work on it."""
    store = store_of(log)
    return store, {name: CHANNELS[name]().fit(store, settings) for name in working(store)}


def recalled(log: Log, name: str, requests: pl.DataFrame, settings: RecallSettings = SHALLOW) -> pl.DataFrame:
    """What one channel proposes, in raw ids: `request_id, item_id, score, rank`, sorted by request and rank."""
    store = store_of(log)
    found = CHANNELS[name]().fit(store, settings).recall(RecallRequests.of(requests, store))
    return found.select(
        requests["request_id"].gather(found["row"]).alias("request_id"),
        store.items.gather(found["item"]).alias("item_id"),
        "score",
        "rank",
    ).sort("request_id", "rank")


def proposed(
    log: Log, requests: pl.DataFrame, settings: RecallSettings = SHALLOW, names: Sequence[str] | None = None
) -> pl.DataFrame:
    """The merged lists of some channels, of all that can work on the log without names."""
    store = store_of(log)
    channels = {name: CHANNELS[name]().fit(store, settings) for name in names or working(store)}
    return propose(channels, RecallRequests.of(requests, store), store.items)


def all_features() -> tuple[Feature, ...]:
    """Every feature, those of all channels included."""
    return features_for(CHANNELS)


def features_of(candidates: pl.DataFrame) -> tuple[Feature, ...]:
    """Every feature, those of the channels that the candidates carry included."""
    return features_for([name for name in CHANNELS if f"{name}_score" in candidates.columns])


def described(
    log: Log, candidates: pl.DataFrame, requests: pl.DataFrame, vocabulary: Vocabulary | None = None
) -> pl.DataFrame:
    """Every feature of the candidates, of the channels that they carry, beside `request_id` and `item_id`."""
    known = vocabulary or Vocabulary.of(log.clicks, 2, log.impressions)
    store = store_of(log)
    rows = candidates.filter("kept") if "kept" in candidates.columns else candidates
    return rows.select("request_id", "item_id").hstack(
        build(candidates, requests, store, known, features_of(candidates))
    )


def bits(frame: pl.DataFrame) -> list[object]:
    """The frame's content to the last bit, NaN and null told apart."""
    nulls, filled = frame.select(pl.all().is_null()), frame.with_columns(cs.float().fill_null(0))

    def values(column: pl.Series) -> object:
        return column.to_numpy().tobytes() if column.dtype.is_float() else column.to_list()

    return [(c.name, c.dtype, null.to_list(), values(c)) for c, null in zip(filled, nulls, strict=True)]


def unequal(one: pl.DataFrame, other: pl.DataFrame) -> list[str]:
    """Columns of the first that the second has with another content."""
    both = zip(one.columns, bits(one), bits(other.select(one.columns)), strict=True)
    return [name for name, here, there in both if here != there]


def shown(log: Log) -> pl.DataFrame:
    """The impressions of a log that has them."""
    assert log.impressions is not None
    return log.impressions


def noted(log: Log, words: str) -> bool:
    """Whether a note of the reading holds these words."""
    return any(words in note for note in log.intake.notes)


class Heard(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)
