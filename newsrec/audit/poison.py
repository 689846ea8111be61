"""The future-poison test: what happens at or after a request must not change a bit of what the request sees.

A few cut moments are chosen and requests are placed exactly at them. Then everything at or after the cut is deleted,
added to, and changed, once each; whatever feature or channel gives other bits knows the future. Only events near the
cut are kept, so that the test takes seconds on millions of clicks: a shorter log is a log too.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import polars as pl

from features.columns import CLICK_KEY, TIME
from features.events import EventStore
from newsrec.assembly import Assembly
from newsrec.audit.material import SETTINGS, Material, at_moments
from newsrec.data import Log
from newsrec.recall import RecallRequests, working
from newsrec.slates import canonical_requests, requests_of

CUTS: Final = 5
PERIOD: Final = (0.3, 0.95)
"""Share of the log's events before the first and the last cut: some past, and some future."""
CLICKS: Final = (60_000, 10_000)
"""Clicks kept before and after a cut."""
SHOWN: Final = (300_000, 30_000)
"""Shown articles kept before and after a cut."""
PROPOSED: Final = 15
"""Articles of recall per request, besides the list that was shown."""
STILL: Final = pl.duration(milliseconds=(pl.col("dwell_seconds").cast(pl.Float64) * 1_000).round())


@dataclass(frozen=True)
class Cut:
    """Requests that stand at one moment, and the events around it."""

    at: int
    """ms."""
    log: Log
    requests: pl.DataFrame
    candidates: pl.DataFrame
    """`request_id, item_id`: articles that are known before the moment."""

    @property
    def moment(self) -> pl.Expr:
        """As an expression."""
        return pl.lit(self.at).cast(TIME)


Poison = Callable[[Cut], Log]


def poisoned(material: Material) -> dict[str, list[str]]:
    """Which kinds of poison reach which features and channels.

    Returns:
        Name of each feature, then `recall:<channel>` of each channel -> kinds of `POISONS` that change it, if any.
    """
    found: dict[str, list[str]] = {}
    for cut in cuts(material):
        truth = view(cut.log, cut, material)
        for kind, poison in POISONS.items():
            other = view(poison(cut), cut, material)
            for name, values in truth.items():
                reached = found.setdefault(name, [])
                if values != other[name] and kind not in reached:
                    reached.append(kind)
    return found


def view(log: Log, cut: Cut, material: Material) -> dict[str, object]:
    """All that the cut's requests see of a log, to the last bit, by feature and channel."""
    store = EventStore(log.clicks, log.articles, log.impressions)
    names = [f.name for f in material.features]
    settings = replace(SETTINGS, since=cut.at)
    assembly = Assembly.of(
        store, working(store), settings, material.vocabulary, names, slates=cut.candidates, own=material.own.features
    )
    lists, coded = assembly.lists(cut.requests)
    seen: dict[str, object] = dict(bits(assembly.describe(lists, cut.requests)))
    for name, channel in assembly.channels.items():
        seen[f"recall:{name}"] = _proposals(channel.recall(coded), coded)
    return seen


def bits(frame: pl.DataFrame) -> dict[str, tuple[bytes, bytes]]:
    """Name of each column -> the Float32 column to the last bit, nulls told apart."""
    nulls, filled = frame.select(pl.all().is_null().cast(pl.UInt8)), frame.fill_null(0)
    return {name: (nulls[name].to_numpy().tobytes(), filled[name].to_numpy().tobytes()) for name in frame.columns}


def cuts(material: Material) -> list[Cut]:
    """Cut moments at instants of events, spread over the log with the audit's seed; each with requests of its own."""
    log = material.log
    shown = log.impressions if log.impressions is not None and len(log.impressions) else None
    times = log.clicks["clicked_at"] if shown is None else shown["requested_at"]
    low, high = PERIOD
    share = low + (high - low) * (np.arange(CUTS) + np.random.default_rng([material.seed, 3]).random(CUTS)) / CUTS
    ordered = times.sort().to_physical().to_numpy()
    places = np.unique((share * len(ordered)).astype(np.int64).clip(0, len(ordered) - 1))
    each = max(1, material.n_requests // CUTS)
    return [_cut(material, int(at), each) for at in np.unique(ordered[places])]


def _cut(material: Material, at: int, n: int) -> Cut:
    log = material.log
    lists = None if log.impressions is None else _near(log.impressions, "requested_at", at, SHOWN)
    near = replace(log, clicks=_near(log.clicks, "clicked_at", at, CLICKS), impressions=lists)
    moment = pl.lit(at).cast(TIME)
    store = EventStore(near.clicks, near.articles, near.impressions)
    if lists is not None and len(lists.filter(pl.col("requested_at") >= moment)):
        rows = requests_of(lists.filter(pl.col("requested_at") >= moment)).head(n)
        requests = material.own.with_columns(canonical_requests(rows, store), lists)
        own = requests.select("request_id", "impression_id").join(
            lists.select(pl.col("request_id").alias("impression_id"), "item_id"), on="impression_id"
        )
    else:
        users = near.clicks.filter(pl.col("clicked_at") >= moment)["user_id"].unique(maintain_order=True).head(n)
        requests = pl.DataFrame({"request_id": np.arange(len(users)), "user_id": users})
        own = pl.DataFrame(schema={"request_id": pl.Int64, "item_id": store.items.dtype})
    requests = at_moments(requests, np.full(len(requests), at))
    return Cut(at, near, requests, _candidates(near, store, requests, own.select("request_id", "item_id"), moment))


def _candidates(
    log: Log, store: EventStore, requests: pl.DataFrame, own: pl.DataFrame, moment: pl.Expr
) -> pl.DataFrame:
    """The requests' own lists and what recall proposes, of articles that are known before the moment."""
    assembly = Assembly.of(store, working(store), SETTINGS, list_length=PROPOSED)
    proposed = assembly.cut(assembly.lists(requests)[0]).select("request_id", "item_id")
    both = pl.concat([own, proposed]).unique(maintain_order=True)
    met = [log.clicks.filter(pl.col("clicked_at") < moment)["item_id"]]
    if log.impressions is not None:
        met.append(log.impressions.filter(pl.col("requested_at") < moment)["item_id"])
    if "created_at" in log.articles.columns:
        met.append(log.articles.filter(pl.col("created_at") < moment)["item_id"])
    known = both.filter(pl.col("item_id").is_in(pl.concat(met).unique().implode()))
    return requests.select("request_id").join(known, on="request_id", maintain_order="left_right")


def _near(frame: pl.DataFrame, time: str, at: int, most: tuple[int, int]) -> pl.DataFrame:
    """The events around a moment; an instant, and so a list, is whole or not there."""
    times = frame[time].to_physical()
    if not times.is_sorted():
        frame = frame.sort(time, maintain_order=True)
        times = frame[time].to_physical()
    values = times.to_numpy()
    place = int(np.searchsorted(values, at))
    first = int(np.searchsorted(values, values[max(place - most[0], 0)])) if len(values) else 0
    last = min(place + most[1], len(values) - 1)
    return frame[first : int(np.searchsorted(values, values[last], side="right")) if len(values) else 0]


def _proposals(found: pl.DataFrame, coded: RecallRequests) -> object:
    items = coded.store.items.gather(found["item"]).to_list()
    rest = found.select("row", "score", "rank").sort("row", "rank")
    return items, bits(rest.cast(pl.Float32))


def deleted(cut: Cut) -> Log:
    """Nothing of the future: no click, no list, no reading that lasts on."""
    clicks, lists = cut.log.clicks.filter(pl.col("clicked_at") < cut.moment), cut.log.impressions
    lists = None if lists is None else lists.filter(pl.col("requested_at") < cut.moment)
    return replace(cut.log, clicks=_reading(clicks, cut, pl.lit(None, pl.Float64)), impressions=lists)


def appended(cut: Cut) -> Log:
    """Every asked user clicks and is shown each candidate at the very instant, half a second and a minute later."""
    pairs = cut.requests.select("request_id", "user_id").join(cut.candidates, on="request_id")
    pairs = pairs.select("user_id", "item_id").unique(maintain_order=True)
    late = pl.concat(
        [
            pairs.with_columns((cut.moment + pl.duration(milliseconds=ms)).cast(TIME).alias("t"))
            for ms in (0, 500, 60_000)
        ]
    )
    clicks = pl.concat([cut.log.clicks, late.rename({"t": "clicked_at"})], how="diagonal").unique(
        CLICK_KEY, keep="first", maintain_order=True
    )
    lists = cut.log.impressions
    if lists is not None:
        number = pl.struct("user_id", "t").rank("dense").cast(pl.Int64)
        ids = pl.format("poison-{}", number) if lists.schema["request_id"] == pl.String else -number
        more = late.select(ids.alias("request_id").cast(lists.schema["request_id"]), "user_id", "item_id", "t")
        more = more.rename({"t": "requested_at"}).with_columns(clicked=True)
        lists = pl.concat([lists, more], how="diagonal")
    return replace(cut.log, clicks=clicks, impressions=lists)


def changed(cut: Cut) -> Log:
    """All later events happen to other users, with other articles, within a second; readings last another while."""
    rng = np.random.default_rng(cut.at % 2**32)
    users = _exchange(cut.log.clicks["user_id"], rng)
    items = _exchange(pl.concat([cut.log.clicks["item_id"], cut.candidates["item_id"]]), rng)
    clicks = _reading(cut.log.clicks, cut, pl.col("dwell_seconds") * 2 + 3_600)
    clicks = _moved(clicks, "clicked_at", cut, users, items).unique(CLICK_KEY, keep="first", maintain_order=True)
    lists = cut.log.impressions
    lists = None if lists is None else _moved(lists, "requested_at", cut, users, items)
    return replace(cut.log, clicks=clicks, impressions=lists)


POISONS: Final[dict[str, Poison]] = {"deleted": deleted, "appended": appended, "changed": changed}
"""Kind -> the log after it."""


def _reading(clicks: pl.DataFrame, cut: Cut, seconds: pl.Expr) -> pl.DataFrame:
    """Another length of the readings that are not over at the cut."""
    if "dwell_seconds" not in clicks.columns:
        return clicks
    over = pl.col("clicked_at") + STILL < cut.moment
    length = pl.when(over).then(pl.col("dwell_seconds")).otherwise(seconds)
    return clicks.with_columns(length.cast(clicks.schema["dwell_seconds"]).alias("dwell_seconds"))


def _moved(frame: pl.DataFrame, time: str, cut: Cut, users: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    """Later rows with exchanged users and articles; a list keeps one user, one time, and each article once."""
    later = pl.col(time) >= cut.moment
    when = cut.moment + pl.duration(milliseconds=pl.col(time).to_physical() % 1_000)
    past, future = frame.filter(~later), frame.filter(later).with_columns(when.cast(TIME).alias(time))
    for name, table in (("user_id", users), ("item_id", items)):
        other = future.select(pl.col(name).alias("old")).join(table, on="old", how="left", maintain_order="left")
        future = future.with_columns(other["new"].fill_null(future[name]).alias(name))
    lists = ["request_id", "item_id"] if "request_id" in frame.columns else list(CLICK_KEY)
    return pl.concat([past, future.unique(lists, keep="first", maintain_order=True)])


def _exchange(ids: pl.Series, rng: np.random.Generator) -> pl.DataFrame:
    """Each id and the one in its place: `old, new`."""
    old = ids.unique().sort()
    return pl.DataFrame({"old": old, "new": old.gather(rng.permutation(len(old)))})
