"""The log as arrays: every click and everything shown, with dense codes, in tables and in indices by key and time.

Made from canonical frames by training and serving alike; recall channels and features read it. A store never changes:
`extended` gives another one that shares what is old, which is how a running service observes.
"""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from features.articles import Articles, milliseconds
from features.columns import CONTEXT
from features.event_rows import NEVER, click_rows, shown_rows, take
from features.ids import Ids, codes_of
from features.indices import INDICES
from features.known import cannot_grow, unknown_clicks, unknown_shown
from features.past import PAST, coded, named, past_index, past_items
from features.tables import Table
from features.windows import NO_KEY, NO_TIME, EventIndex, Ints

__all__ = ["NEVER", "EventStore", "Folded", "codes_of", "history", "milliseconds", "read_before", "take"]


@dataclass(frozen=True)
class Sequences:
    """All clicks ordered by user, then time, then the article's id: arrays of shape (n_clicks,)."""

    user: Ints
    item: Ints
    time: Ints


@dataclass(frozen=True)
class Folded:
    """What is left of events that were folded away (`features.folding.fold`)."""

    border: int
    """All of them are earlier, ms."""
    last_clicks: int
    """So many last clicks of each user, or all, are no part of it."""
    summaries: Mapping[str, pl.DataFrame]
    """By the names of `features.past.SUMMARIES`, with ids."""


class EventStore:
    """Clicks, impressions and articles, coded and indexed. Cheap to make; an index is built when first asked for.

    Args:
        clicks: Canonical clicks, any row order; an exact duplicate is the caller's to drop.
        articles: Canonical articles; clicked and shown items may be missing there.
        impressions: Canonical impressions, or None. Whether a row was clicked is not looked at: clicks say that.
        folded: Events before these of each user; those of the frames at or after its border are all there are.
    """

    def __init__(
        self,
        clicks: pl.DataFrame,
        articles: pl.DataFrame,
        impressions: pl.DataFrame | None = None,
        folded: Folded | None = None,
    ) -> None:
        self._frames = {"clicks": (clicks,), "articles": (articles,)}
        if impressions is not None:
            self._frames["impressions"] = (impressions,)
        shown = clicks.clear() if impressions is None else impressions
        pages = [shown["page_item_id"]] if "page_item_id" in shown.columns else []
        past = {} if folded is None else folded.summaries
        users, items = ([f[name] for f in past.values() if name in f.columns] for name in ("user_id", "item_id"))
        self._users = Ids.of(*(s.cast(clicks["user_id"].dtype) for s in (clicks["user_id"], shown["user_id"], *users)))
        kind = clicks["item_id"].dtype
        self._items = Ids.of(
            *(s.cast(kind) for s in (articles["item_id"], clicks["item_id"], shown["item_id"], *pages, *items))
        )
        self.articles_by_code = Articles.of(articles, self._items.codes(articles["item_id"]), self.n_items)
        # Room for new articles: keys of pairs keep their meaning until it is used up.
        self._pair_base = self.n_items + self.n_items // 4 + 1_024
        self.first_seen = np.full(self.n_items, NEVER, np.int64)
        self.first_click = np.full(len(self._users), NEVER, np.int64)
        self.context_ids = {name: Ids.of(clicks[name]) for name in CONTEXT if name in clicks.columns}
        self._indices: dict[str, EventIndex] = {}
        self._columns: dict[str, pl.Series | None] = {}
        self._line = object()
        self.last_event = None
        self.tables: dict[str, Table] = {}
        self.border = None if folded is None else folded.border
        self.last_clicks = None if folded is None else folded.last_clicks
        self.past = coded(past, self._users, self._items)
        self._note_past()
        exposures, requests = shown_rows(self, impressions)
        self.tables |= {"shown": Table.of(exposures), "requests": Table.of(requests)}
        rows = click_rows(self, clicks)
        self.tables["clicks"] = Table.of(rows)
        self._note_times(rows, exposures)

    def extended(
        self,
        clicks: pl.DataFrame | None = None,
        articles: pl.DataFrame | None = None,
        impressions: pl.DataFrame | None = None,
    ) -> "EventStore":
        """The store with more events and with new or changed articles; answers as one made of everything at once.

        Events that are known already are ignored. Usual are events later than what is known of their users: they cost
        what they are. Others, and articles that change category or length after they were read, cost a new store.

        Args:
            clicks: Canonical clicks, distinct; as impressions, later than the folded ones of their users.
            articles: Canonical articles; a null leaves what was known of a known article.
            impressions: Canonical impressions, distinct by request and item.
        """
        new_clicks = None if clicks is None else unknown_clicks(self, clicks)
        new_shown = None if impressions is None else unknown_shown(self, impressions)
        given = {"clicks": new_clicks, "articles": articles, "impressions": new_shown}
        more = {name: frame for name, frame in given.items() if frame is not None and frame.height}
        if not more:
            return self
        frames = {name: (*self._frames.get(name, ()), frame) for name, frame in more.items()}
        grown = copy.copy(self)
        grown._frames, grown._columns = self._frames | frames, {}
        if cannot_grow(self, more) or not grown._grow(self, more):
            return EventStore(*grown._whole_frames(), self.folded)
        return grown

    def grew_from(self, older: "EventStore") -> bool:
        """Whether codes of the older one have the same meaning here."""
        return self is older or self._line is older._line

    @property
    def clicks(self) -> pl.DataFrame:
        """All clicks as they were given, oldest frame first."""
        return _concat(self._frames["clicks"])

    @property
    def articles(self) -> pl.DataFrame:
        """All articles, the last that was told of each."""
        return _last_told(_concat(self._frames["articles"]), len(self._frames["articles"]))

    @property
    def impressions(self) -> pl.DataFrame | None:
        """All impressions as they were given; None for a log without."""
        return _concat(self._frames["impressions"]) if "impressions" in self._frames else None

    @property
    def folded(self) -> Folded | None:
        """What is left of the events that are in no frame; None where all are kept."""
        if self.border is None or self.last_clicks is None:
            return None
        return Folded(self.border, self.last_clicks, named(self.past, self.users, self.items))

    @property
    def users(self) -> pl.Series:
        """User ids by code."""
        return self._users.values

    @property
    def items(self) -> pl.Series:
        """Article ids by code."""
        return self._items.values

    def user_codes(self, ids: pl.Series) -> Ints:
        """Code of each user, -1 where unknown."""
        return self._users.codes(ids)

    def item_codes(self, ids: pl.Series) -> Ints:
        """Code of each article, -1 where unknown."""
        return self._items.codes(ids)

    @property
    def n_items(self) -> int:
        """Number of known articles."""
        return len(self._items)

    first_seen: Ints
    """Time of each article's first event, ms, `NEVER` without one; shape (n_items,)."""
    first_click: Ints
    """Time of each user's first click, ms, `NEVER` without one; shape (n_users,)."""
    last_event: int | None
    """Time of the last click or impression, ms; None for an empty store."""
    border: int | None
    """Events before it may be folded, ms; None where all are kept."""
    last_clicks: int | None
    """So many last clicks of each user are never folded; None where all are kept."""
    past: Mapping[str, pl.DataFrame]
    """Summaries of folded events by the names of `features.past.SUMMARIES`, with codes; empty where all are kept."""

    @cached_property
    def item_order(self) -> Ints:
        """Rank of each article by its id: breaks ties the same way however the articles came in; shape (n_items,)."""
        return self._items.order()

    @cached_property
    def user_order(self) -> Ints:
        """Rank of each user by its id, as `item_order`; shape (n_users,)."""
        return self._users.order()

    @property
    def created(self) -> Ints:
        """Creation time per item code in ms, `NO_TIME` where unknown; shape (n_items,)."""
        return self.articles_by_code.created

    @property
    def words(self) -> Ints:
        """Words per item code, -1 where unknown; shape (n_items,)."""
        return self.articles_by_code.words

    @property
    def category(self) -> Ints:
        """Category code per item code, -1 where unknown; shape (n_items,)."""
        return self.articles_by_code.category

    @property
    def publisher(self) -> Ints:
        """Publisher code per item code, -1 where unknown; shape (n_items,)."""
        return self.articles_by_code.publisher

    @cached_property
    def exists_from(self) -> Ints:
        """What must lie before a request for the item to be shown, ms: its creation, else its first event."""
        return np.where(self.created == NO_TIME, self.first_seen, self.created)

    @cached_property
    def sequences(self) -> Sequences:
        """Every user's clicks in order."""
        table = self.tables["clicks"]
        # In the table a user's later clicks have later rows, but new clicks of all users stand behind all older ones.
        order = np.argsort(table["user"], kind="stable")
        return Sequences(table["user"][order], table["item"][order], table["time"][order])

    def index(self, name: str) -> EventIndex:
        """An index of `features.indices.INDICES`."""
        if name not in self._indices:
            made = INDICES[name]
            rows = self.tables[made.table].rows(0)
            index = EventIndex(made.key(self, rows), made.time(rows), made.values(self, rows))
            self._indices[name] = index.after(past_index(self, name)) if self.past and name in PAST else index
        return self._indices[name]

    def pair_key(self, first: Ints, second: Ints) -> Ints:
        """One key for (user or item, item or category); -1 where either is unknown. Shape of the inputs."""
        key: Ints = first * self._pair_base + second
        return np.where((first < 0) | (second < 0), NO_KEY, key)

    def article_column(self, name: str) -> pl.Series | None:
        """Any column of the articles by item code, null where unknown, shape (n_items,); None where none has it."""
        if name not in self._columns:
            articles, told = self.articles, None
            if name in articles.columns:
                known = articles.select(pl.col("item_id").cast(self.items.dtype), name)
                ids = self.items.to_frame("item_id")
                told = ids.join(known, on="item_id", how="left", maintain_order="left")[name]
            self._columns[name] = told
        return self._columns[name]

    def request_dtype(self, name: str) -> pl.DataType | None:
        """Kind of a column of the impressions; None where they have no such column."""
        frames = self._frames.get("impressions", ())
        return next((frame.schema[name] for frame in frames if name in frame.columns), None)

    def _note_past(self) -> None:
        """What folded events say of the first of all."""
        for name, first, column in (
            ("read_items", self.first_seen, "item"),
            ("shown_items", self.first_seen, "item"),
            ("readers", self.first_click, "user"),
        ):
            if name in self.past:
                code = self.past[name][column].to_numpy()
                first[code] = np.minimum(first[code], self.past[name]["first"].to_numpy())

    def _note_times(self, clicks: Mapping[str, Ints], shown: Mapping[str, Ints]) -> None:
        """What new events say of the first and the last of all."""
        for rows in (clicks, shown):
            np.minimum.at(self.first_seen, rows["item"], rows["time"])
            last = int(rows["time"].max(initial=NO_TIME))
            if last != NO_TIME:
                self.last_event = last if self.last_event is None else max(last, self.last_event)
        np.minimum.at(self.first_click, clicks["user"], clicks["time"])

    def _grow(self, old: "EventStore", more: Mapping[str, pl.DataFrame]) -> bool:
        """Take the frames in, being a copy of `old`; False where they change what older events mean."""
        for cached in ("exists_from", "item_order", "user_order", "sequences"):
            self.__dict__.pop(cached, None)
        clicks, articles, shown = (more.get(name) for name in ("clicks", "articles", "impressions"))
        events = [frame for frame in (clicks, shown) if frame is not None]
        for frame in events:
            self._users = self._users.extended(frame["user_id"])
        pages = [shown["page_item_id"]] if shown is not None and "page_item_id" in shown.columns else []
        for ids in [*(f["item_id"] for f in (*events, articles) if f is not None), *pages]:
            self._items = self._items.extended(ids)
        if self.n_items > self._pair_base:
            return False
        told = pl.DataFrame({"item_id": self.items[:0]}) if articles is None else articles
        self.articles_by_code = old.articles_by_code.extended(told, self.item_codes(told["item_id"]), self.n_items)
        changed = old.articles_by_code.changes(self.articles_by_code)
        if (old.first_seen[changed] != NEVER).any():
            return False
        self.first_seen = np.append(old.first_seen, np.full(self.n_items - old.n_items, NEVER))
        self.first_click = np.append(old.first_click, np.full(len(self._users) - len(old.users), NEVER))
        self._append(old, clicks, shown)
        return True

    def _append(self, old: "EventStore", clicks: pl.DataFrame | None, shown: pl.DataFrame | None) -> None:
        self.tables, self._indices = dict(old.tables), dict(old._indices)
        nothing = dict.fromkeys(("user", "item", "time"), np.zeros(0, np.int64))
        exposures: Mapping[str, Ints] = nothing
        if shown is not None:
            # Before the clicks: an index may ask which list a click came from.
            exposures, requests = shown_rows(self, shown)
            self._take_in("shown", exposures)
            self._take_in("requests", requests)
        rows: Mapping[str, Ints] = nothing
        if clicks is not None:
            self.context_ids = {
                name: ids.extended(clicks[name]) if name in clicks.columns else ids
                for name, ids in old.context_ids.items()
            }
            rows = click_rows(self, clicks)
            self._take_in("clicks", rows)
        self._note_times(rows, exposures)

    def _take_in(self, table: str, rows: Mapping[str, Ints]) -> None:
        self.tables[table] = self.tables[table].extended(rows)
        for name, index in list(self._indices.items()):
            made = INDICES[name]
            if made.table == table:
                self._indices[name] = index.extended(made.key(self, rows), made.time(rows), made.values(self, rows))

    def _whole_frames(self) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame | None]:
        return self.clicks, self.articles, self.impressions


def history(store: EventStore, user: Ints, at: Ints, last: int | None = None) -> tuple[Ints, Ints, Ints]:
    """The clicks of each user strictly before each moment, newest first.

    Args:
        store: The log.
        user: User code per request, shape (n_requests,); -1 has no history.
        at: Moment per request in ms, shape (n_requests,).
        last: At most this many clicks per request; None for all.

    Returns:
        `(row, place, age)` of shape (n_clicks,): the request's row, the row of the clicks table, 0 for the newest.

    Raises:
        ValueError: More clicks than the store keeps of each user.
    """
    if store.last_clicks is not None and (last is None or last > store.last_clicks):
        raise ValueError(f"history: expected at most {store.last_clicks} clicks, as others are folded, found {last}.")
    return store.index("user").newest_first("row", user, at, last)


def read_before(store: EventStore, user: Ints, at: Ints) -> tuple[Ints, Ints]:
    """Articles that each user read strictly before each moment, folded clicks included; some more than once.

    Returns:
        `(row, item)` of shape (n_found,): the request's row, the article's code.
    """
    row, place, _ = store.index("user").newest_first("row", user, at, None)
    item = store.tables["clicks"]["item"]
    if not store.past:
        return row, item[place]
    kept = place >= 0
    more, old = past_items(store, user)
    return np.concatenate([row[kept], more]), np.concatenate([item[place[kept]], old])


def _concat(frames: Iterable[pl.DataFrame]) -> pl.DataFrame:
    parts = tuple(frames)
    return parts[0] if len(parts) == 1 else pl.concat(parts, how="diagonal_relaxed")


def _last_told(articles: pl.DataFrame, frames: int) -> pl.DataFrame:
    """One row per article; of what was told several times, the last value that was not null."""
    if frames == 1:
        return articles
    return articles.group_by("item_id", maintain_order=True).agg(pl.all().drop_nulls().last()).sort("item_id")
