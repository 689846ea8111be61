"""The log after reading: canonical frames and what reading did to get them. Formats make it; every stage reads it."""

from dataclasses import dataclass, field

import polars as pl


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
    `clicked_at, user_id, item_id`. `articles`: one row per `item_id`, sorted by it, only columns the source has; may lack
    clicked items. `impressions`: `request_id, user_id, requested_at, item_id, clicked` or None. `held_out_users`: one
    column `user_id`, users whose next click somebody else knows (a competition's test users): their clicks are events,
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
