"""Other futures of a log, and what of them reaches what a request is shown: the means of the leak tests."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final, Self

import numpy as np
import polars as pl

from features.build import build
from features.columns import TIME
from features.events import EventStore
from features.vocabulary import Vocabulary
from newsrec.data import Log
from newsrec.recall import Channel, RecallRequests, RecallSettings
from tests.factories import SHALLOW, UNKNOWN_ITEM, bits, candidates_for, features_of, requests_for, store_of, unequal

View = Callable[[Log], pl.DataFrame]
"""What a request is shown of a log."""


class Bestseller:
    """Proposes what is clicked most in the whole log."""

    last_clicks = 0

    def reach(self, settings: RecallSettings) -> int:
        return settings.refresh_ms

    def lacks(self, store: EventStore) -> str | None:
        return None

    def fit(self, store: EventStore, settings: RecallSettings) -> Self:
        self.store = store
        return self

    def table(self, at: int) -> pl.DataFrame:
        return pl.DataFrame()

    def recall(self, requests: RecallRequests) -> pl.DataFrame:
        n = np.bincount(self.store.tables["clicks"]["item"], minlength=self.store.n_items)
        best = np.argsort(-n, kind="stable")[:5]
        return pl.DataFrame({"item": best, "score": n[best]})


def deleted(log: Log, at: pl.Expr) -> Log:
    """Nothing of the future: no click, no list, and no reading that lasts on."""
    clicks = log.clicks.filter(pl.col("clicked_at") < at)
    return replace(
        with_readings(log, clicks, at, pl.lit(None)), impressions=lists_where(log, pl.col("requested_at") < at)
    )


def lists_where(log: Log, keep: pl.Expr) -> pl.DataFrame | None:
    return None if log.impressions is None else log.impressions.filter(keep)


def with_readings(log: Log, clicks: pl.DataFrame, at: pl.Expr, seconds: pl.Expr) -> Log:
    """The log with these clicks, and another length of those that are still being read at the instant."""
    if "dwell_seconds" not in clicks.columns:
        return replace(log, clicks=clicks)
    length = pl.col("dwell_seconds")
    ends = pl.col("clicked_at") + pl.duration(milliseconds=(length.cast(pl.Float64) * 1_000).round())
    return replace(log, clicks=clicks.with_columns(pl.when(ends < at).then(length).otherwise(seconds.cast(pl.Float32))))


def read_on(log: Log, at: pl.Expr) -> Log:
    """What is still being read is read for another while."""
    return with_readings(log, log.clicks, at, pl.col("dwell_seconds") * 2 + 3_600)


def appended(log: Log, at: pl.Expr) -> Log:
    """Every reader clicks and is shown every article at the very instant and a minute later, and so do strangers."""
    users = pl.concat([log.clicks["user_id"].unique().sort(), stranger(log.clicks["user_id"])])
    items = pl.concat([log.articles["item_id"], log.clicks["item_id"]]).unique().sort()
    unknown = pl.Series([UNKNOWN_ITEM if items.dtype.is_integer() else "nothing"], dtype=items.dtype)
    every = users.to_frame().join(pl.concat([items, stranger(items), unknown]).to_frame("item_id"), how="cross")
    late = [every.with_columns((at + pl.duration(minutes=m)).cast(TIME).alias("clicked_at")) for m in (0, 1)]
    context = pl.lit("never seen before").alias("device")
    clicks = pl.concat([log.clicks, *(f.with_columns(context) for f in late)], how="diagonal")
    if log.impressions is None:
        return replace(log, clicks=clicks)
    lists = (
        pl.concat(late)
        .rename({"clicked_at": "requested_at"})
        .with_columns(
            pl.struct("user_id", "requested_at").rank("dense").cast(pl.Int64).alias("request_id") + 10**6,
            pl.col("item_id").first().over("user_id", "requested_at").alias("page_item_id"),
            clicked=True,
            device=pl.lit("never seen before"),
        )
    )
    return replace(log, clicks=clicks, impressions=pl.concat([log.impressions, lists], how="diagonal"))


def stranger(ids: pl.Series) -> pl.Series:
    """Ids below and above all known ones, so that every code moves."""
    low, high = ("a", "zz") if ids.dtype == pl.String else (-7, 10**6)
    return pl.Series(ids.name, [low, high], dtype=ids.dtype)


def changed(log: Log, at: pl.Expr) -> Log:
    """Other readers click other articles on other devices, later."""
    past, future = (log.clicks.filter(side) for side in (pl.col("clicked_at") < at, pl.col("clicked_at") >= at))
    rng = np.random.default_rng(0)
    names = [name for name in log.clicks.columns if name != "clicked_at"]
    mixed = future.with_columns(log.clicks[name][rng.integers(0, len(log.clicks), len(future))] for name in names)
    later = mixed.with_columns(pl.col("clicked_at") + pl.duration(milliseconds=17))
    clicks = pl.concat([past, later])
    return replace(log, clicks=clicks, impressions=other_lists(log, at, rng))


def other_lists(log: Log, at: pl.Expr, rng: np.random.Generator) -> pl.DataFrame | None:
    """Later lists go to other readers, on other pages, with other articles."""
    if log.impressions is None:
        return None
    time = pl.col("requested_at")
    past, future = log.impressions.filter(time < at), log.impressions.filter(time >= at)
    of_request = future.unique("request_id", maintain_order=True).select("request_id", "requested_at")
    drawn = log.impressions[rng.integers(0, len(log.impressions), len(of_request))]
    context = drawn.select("user_id", "page_item_id", "device", "is_subscriber")
    requests = of_request.with_columns(time + pl.duration(milliseconds=17)).hstack(context)
    items = future.select("request_id", log.impressions["item_id"][rng.integers(0, len(log.impressions), len(future))])
    lists = items.unique(maintain_order=True).join(requests, on="request_id", maintain_order="left")
    return pl.concat([past, lists.with_columns(clicked=True).select(past.columns)])


def moved_to_the_instant(log: Log, at: pl.Expr) -> Log:
    def moved(frame: pl.DataFrame, name: str) -> pl.DataFrame:
        time = pl.col(name)
        return frame.with_columns(pl.when(time >= at).then(at).otherwise(time).cast(TIME).alias(name))

    lists = None if log.impressions is None else moved(log.impressions, "requested_at")
    return replace(log, clicks=moved(log.clicks, "clicked_at"), impressions=lists)


def published(log: Log, at: pl.Expr) -> Log:
    """New articles, of a new category too, from the instant on."""
    new = stranger(log.articles["item_id"]).to_frame()
    told = [at.cast(TIME).alias("created_at"), pl.lit("aaa").alias("category"), pl.lit(5, pl.Int32).alias("words")]
    return replace(log, articles=pl.concat([log.articles, new.with_columns(told)], how="diagonal"))


def unpublished(log: Log, at: pl.Expr) -> Log:
    """Articles that come later, and that nobody has clicked or was shown yet, do not come at all."""
    met = lists_where(log, pl.col("requested_at") < at)
    known = {*log.clicks.filter(pl.col("clicked_at") < at)["item_id"], *([] if met is None else met["item_id"])}
    kept = (pl.col("created_at") < at) | pl.col("created_at").is_null() | pl.col("item_id").is_in(list(known))
    return replace(log, articles=log.articles.filter(kept))


FUTURES: Final = (deleted, read_on, appended, changed, moved_to_the_instant, published, unpublished)


def seen(view: View, log: Log, at: pl.Expr) -> set[str]:
    """Changes of the future that reach the view, with the columns that they reach."""
    before = view(log)
    return {f"{change.__name__}: {name}" for change in FUTURES for name in unequal(before, view(change(log, at)))}


def feature_view(asked: pl.DataFrame, candidates: pl.DataFrame, vocabulary: Vocabulary) -> View:
    def view(log: Log) -> pl.DataFrame:
        return build(candidates, asked, store_of(log), vocabulary, features_of(candidates))

    return view


def recall_view(channels: Mapping[str, Callable[[], Channel]], asked: pl.DataFrame) -> View:
    """One column per channel: all that it proposes, to the last bit. One store serves them all."""

    def view(log: Log) -> pl.DataFrame:
        store = store_of(log)
        requests = RecallRequests.of(asked, store)

        def told(make: Callable[[], Channel]) -> str:
            found = make().fit(store, SHALLOW).recall(requests)
            return repr(bits(found.with_columns(store.items.gather(found["item"]).alias("item"))))

        return pl.DataFrame({name: [told(make)] for name, make in channels.items()})

    return view


def each_request(log: Log, seed: int, stale: float = 0, n: int = 6) -> list[tuple[pl.DataFrame, pl.Expr]]:
    """Requests one by one with their own moment; most stand at the instant of a click or of a list."""
    asked = requests_for(log, n, seed, stale)
    return [(asked[i], pl.lit(asked["requested_at"][i]).cast(TIME)) for i in range(len(asked))]


def known_before(log: Log, asked: pl.DataFrame, at: pl.Expr, seed: int) -> pl.DataFrame:
    """Candidates that are out, or that nothing is known of."""
    candidates = candidates_for(log, asked, 15, seed)
    out = unpublished(log, at).articles["item_id"].to_list()
    coming = [item for item in log.articles["item_id"] if item not in set(out)]
    return candidates.filter(~pl.col("item_id").is_in(coming))
