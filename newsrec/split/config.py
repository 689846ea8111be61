"""How a log is to be divided, and what comes out."""

from dataclasses import dataclass
from typing import Final

import polars as pl

PARTS: Final = ("train", "valid", "test")
REQUEST: Final = ("at", "user")
"""What makes clicks one request: the same user at the same instant."""
WARMUP_HOURS: Final = 24.0
LOG_REQUESTS: Final = 200_000
EMBEDDED_REQUESTS: Final = 15_000
"""Enough rows for one model: fewer would train, and score, the average of several (`newsrec.rankers.lgbm`)."""


@dataclass(frozen=True)
class SplitConfig:
    """How the log is divided."""

    validation: str = "temporal"
    """Name in `VALIDATIONS`."""
    test_days: float = 1.0
    """Length of the test period at the end of the log, days, > 0 (`temporal`, `gap`)."""
    valid_days: float = 1.0
    """Length of the validation period before it, days, > 0 (`temporal`, `gap`)."""
    gap_hours: float = 24.0
    """How long before a period its statistics stop, hours, >= 0 (`gap`)."""
    warmup_hours: float | None = None
    """Requests in the first hours of the log do not train: their counters are still filling. Hours, >= 0; None: 24 for
    a click log, 0 for impressions."""
    train_requests: int | None = None
    """At most so many training requests, sampled evenly; >= 1. None: `LOG_REQUESTS`, or `EMBEDDED_REQUESTS` where the
    embedded log is trained on."""
    valid_requests: int = 8_000
    """At most so many validation requests, sampled evenly; >= 1."""
    test_requests: int = 30_000
    """At most so many test requests, sampled evenly; >= 1."""
    seed: int = 0


@dataclass(frozen=True)
class Split:
    """Requests and what was clicked at them.

    `requests`: `request_id` (Int64, in order of `requested_at`), `user_id, requested_at, statistics_at`, `split`
    (`train`, `valid` or `test`), `positives` (UInt32, number of clicked articles), `history_clicks` (UInt32) and
    `positive_age_hours` (Float32, of the youngest clicked article, null where unknown).
    `positives`: `request_id, item_id`, one row per clicked article.
    `known_until`: the test period's first moment, or None in `last-click`; what `--no-refit` may keep.
    `learn_until`: the validation period's first moment, or None in `last-click`; what is learned looks no further.
    """

    requests: pl.DataFrame
    positives: pl.DataFrame
    protocol: dict[str, object]
    known_until: int | None = None
    learn_until: int | None = None
    slates: pl.DataFrame | None = None
    """`request_id, item_id, label` of every shown item where requests bring their own lists; None where recall
    proposes."""

    def part(self, *names: str) -> pl.DataFrame:
        """Requests of the named splits."""
        return self.requests.filter(pl.col("split").is_in(names))


def warmup_hours(config: SplitConfig) -> float:
    """The configured warm-up, or that of a click log."""
    return WARMUP_HOURS if config.warmup_hours is None else config.warmup_hours
