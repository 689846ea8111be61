"""The part of a bundle that grows: the events that features are built from, and each recall channel's last table.

How long events are kept whole is a setting (`--keep-days`); earlier ones are folded (`features.folding`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import polars as pl

from features.columns import DAY
from features.events import EventStore, Folded, milliseconds, take
from features.folding import LONGEST_WINDOW, fold
from features.past import SUMMARIES, past_of
from features.similarity_facts import LAST_CLICKS
from features.windows import NO_TIME
from newsrec.errors import DataError, UsageError
from newsrec.recall import CHANNELS, Channel, RecallSettings

FOLDERS = ("state", "recall")
"""Folders of a bundle that hold it."""
FRAMES: Final = ("clicks", "articles", "impressions")
FOLDED: Final = "folded"
"""Folder in `state/` with the summaries of folded events, and what `BORDER` says of them."""
BORDER: Final = "border.json"


@dataclass(frozen=True)
class Memory:
    """How much of the past a state holds whole, and what can be asked of it."""

    keep_days: int | None
    """Events of so many days before the last one are kept, and those of the day that this cuts; None keeps all."""
    reach: int
    """A request looks at most so far back, ms, but for its user's last events and what is added up since ever."""
    last_clicks: int
    """So many last clicks of its user are looked at one by one."""

    @classmethod
    def of(cls, keep_days: int | None, settings: RecallSettings, history: int = 0) -> Self:
        """For all features, all recall channels, and a network that reads so many clicks.

        Raises:
            UsageError: So few days that a request at the last event would look further back.
        """
        channels = [make() for make in CHANNELS.values()]
        reach = max(LONGEST_WINDOW, *(channel.reach(settings) for channel in channels))
        if keep_days is not None and keep_days * DAY < reach:
            raise UsageError(
                f"--keep-days: expected at least {-(-reach // DAY)}, as requests look {reach / DAY:.2f} days back, "
                f"found {keep_days}."
            )
        return cls(keep_days, reach, max(LAST_CLICKS, history, *(channel.last_clicks for channel in channels)))

    @classmethod
    def of_bundle(cls, manifest: Mapping[str, Any], keep_days: int | None = None) -> Self:
        """What a bundle's manifest says, with another number of days where one is given."""
        days = manifest.get("state", {}).get("keep_days") if keep_days is None else keep_days
        history = manifest.get("reranker", {}).get("history", 0)
        return cls.of(days, RecallSettings(**manifest["recall"]["settings"]), history)

    def facts(self) -> dict[str, Any]:
        """What the manifest keeps."""
        return {"keep_days": self.keep_days}

    def folded(self, store: EventStore) -> EventStore:
        """The store without events that are older than it should keep; itself where there are none since midnight."""
        if self.keep_days is None or store.last_event is None:
            return store
        border = (store.last_event - self.keep_days * DAY) // DAY * DAY
        return store if store.border is not None and border <= store.border else fold(store, border, self.last_clicks)

    def answers_from(self, store: EventStore) -> int | None:
        """The first moment of requests, and of their statistics, that the store answers, ms; None for every moment."""
        return None if store.border is None else store.border + self.reach


def may_be_folded(clicks_or_lists: pl.DataFrame, store: EventStore) -> pl.Series:
    """Whether each click or shown list may be one of those that are folded: it is not after its user's last of them."""
    read = "clicked_at" in clicks_or_lists.columns
    summary = store.past.get("readers" if read else "visitors")
    if summary is None:
        return pl.repeat(False, len(clicks_or_lists), dtype=pl.Boolean, eager=True)
    last, row = past_of(summary, store.user_codes(clicks_or_lists["user_id"]))
    at = milliseconds(clicks_or_lists["clicked_at" if read else "requested_at"])
    return pl.Series(at <= take(last["time"], row, NO_TIME))


def known_keys(frame: pl.DataFrame, held: pl.DataFrame | None, key: Sequence[str], store: EventStore) -> pl.DataFrame:
    """Keys of the events that a store holds, and of those of a log that may be folded in it.

    Args:
        frame: Clicks or impressions of a log.
        held: Those of the store.
        key: Columns of both.
        store: The store.
    """
    folded = frame.filter(may_be_folded(frame, store)).select(key)
    return folded if held is None else pl.concat([held.select(key), folded], how="vertical_relaxed")


def refuse_folded(frame: pl.DataFrame | None, name: str, store: EventStore) -> None:
    """Refuse late events of which nobody can tell whether they are known.

    Raises:
        DataError: With their number.
    """
    early = 0 if frame is None else int(may_be_folded(frame, store).sum())
    if early:
        raise DataError(
            f"{name}: expected events later than those of their users that are folded away (--keep-days), found "
            f"{early} that are not. Leave them out."
        )


def write_state(folder: Path, store: EventStore, channels: Mapping[str, Channel]) -> int:
    """Write `state/` and `recall/` into a new bundle.

    Args:
        folder: The temporary folder.
        store: With at least one click.
        channels: Fitted channels by name; their tables are those of the last refresh before the last click's end.

    Returns:
        That end, ms.
    """
    for name in FOLDERS:
        (folder / name).mkdir()
    frames = {"clicks": store.clicks, "articles": store.articles, "impressions": store.impressions}
    for name, frame in frames.items():
        if frame is not None:
            frame.write_parquet(folder / "state" / f"{name}.parquet")
    if store.folded is not None:
        _write_folded(folder / "state" / FOLDED, store.folded)
    until = int(store.clicks["clicked_at"].dt.timestamp("ms").max()) + 1  # type: ignore[arg-type]
    for name, channel in channels.items():
        channel.table(until).write_parquet(folder / "recall" / f"{name}.parquet")
    return until


def read_state(run: Path) -> EventStore:
    """The store of a bundle whose files were checked."""
    paths = {name: run / "state" / f"{name}.parquet" for name in FRAMES}
    frames = {name: pl.read_parquet(path) for name, path in paths.items() if path.is_file()}
    return EventStore(**frames, folded=_read_folded(run / "state" / FOLDED))


def _write_folded(folder: Path, folded: Folded) -> None:
    folder.mkdir()
    for name, frame in folded.summaries.items():
        # What one list showed stands together: a third less bytes.
        order = [column for column in ("user_id", "time", "item_id") if column in frame.columns]
        frame.sort(order).write_parquet(folder / f"{name}.parquet")
    facts = {"border": folded.border, "last_clicks": folded.last_clicks}
    (folder / BORDER).write_text(json.dumps(facts), encoding="utf-8")


def _read_folded(folder: Path) -> Folded | None:
    if not folder.is_dir():
        return None
    facts = json.loads((folder / BORDER).read_text(encoding="utf-8"))
    return Folded(**facts, summaries={name: pl.read_parquet(folder / f"{name}.parquet") for name in SUMMARIES})
