"""The log after reading: canonical frames and what reading did to get them. Formats make it; every stage reads it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl


@dataclass(frozen=True)
class ReadOptions:
    """What the caller may say about the files. The defaults suit every fixed format."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """Format `table` only: canonical name -> the file's name, as in `{"user_id": "reader", "clicked_at": "time"}`."""
    integer_ids: bool = False
    """Format `table` only: ids are whole numbers (Int64). Otherwise they are text, so that '007' stays '007'."""
    quarantine: Path | None = None
    """CSV that receives the bad rows as `file, line, reason, raw`; written if there are any. None: only counted."""
    max_bad_share: float = 0.01
    """Share of the rows of clicks, articles or impressions that may be bad, in [0, 1]; above it the log is refused."""
    now: datetime | None = None
    """The reader's clock (time zone aware); clicks more than a day after it are bad rows. None: the machine's clock."""


def read_facts(options: ReadOptions) -> dict[str, Any]:
    """What a bundle keeps of how its log was read, so that the same log can be read again."""
    return {
        "columns": dict(options.columns),
        "integer_ids": options.integer_ids,
        "max_bad_share": options.max_bad_share,
    }


def read_as(given: ReadOptions, then: Mapping[str, Any]) -> ReadOptions:
    """The options that are given, and where one has its default, that of `read_facts` then."""
    now, default = read_facts(given), read_facts(ReadOptions())
    return replace(given, **{name: then[name] for name in default if name in then and now[name] == default[name]})


@dataclass(frozen=True)
class Intake:
    """What reading kept, dropped and mended; printed once and written into `metrics.json`."""

    rows_read: int = 0
    rows_quarantined: int = 0
    duplicate_clicks: int = 0
    notes: tuple[str, ...] = ()
    """One plain sentence for each repair or absence, such as '12 clicked articles have no metadata'."""


@dataclass(frozen=True)
class Log:
    """A click log in canonical frames (see `features.columns`).

    `clicks`: `user_id, item_id, clicked_at` and the context columns the source has; no exact duplicates; sorted by
    `clicked_at, user_id, item_id`. `articles`: one row per `item_id`, sorted by it, only columns the source has; may
    lack clicked items. `impressions`: `request_id, user_id, requested_at, item_id, clicked` (Boolean), sorted by
    `requested_at, request_id` and then `position` or `item_id`; or None. `held_out_users`: one column `user_id`,
    unique, ascending: users whose next click somebody else knows (a competition's test users): their clicks are events,
    never training requests, and a submission answers them in this order; None where the format has no such users.
    """

    format: str
    clicks: pl.DataFrame
    articles: pl.DataFrame
    impressions: pl.DataFrame | None = None
    held_out_users: pl.DataFrame | None = None
    intake: Intake = field(default_factory=Intake)
    fingerprint: str = ""
    """sha256 of the canonical frames' content: equal for equal data in whatever file format."""
