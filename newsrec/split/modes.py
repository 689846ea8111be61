"""The validation modes: each gives every request its part and the moment that it knows statistics of."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from features.columns import DAY, HOUR, TIME
from newsrec.errors import DataError, UsageError
from newsrec.split.config import PARTS, SplitConfig, warmup_hours
from newsrec.split.requests import sample

LONGEST_DAYS: Final = 36_500.0


@dataclass(frozen=True)
class Divided:
    """`requests`: rows of `clicks_with_history` with `at`, `statistics_at` (ms) and `split`."""

    requests: pl.DataFrame
    protocol: dict[str, object]
    known_until: int | None = None
    learn_until: int | None = None


def _temporal(clicks: pl.DataFrame, config: SplitConfig) -> Divided:
    borders = borders_of(clicks, config)
    time = pl.col("time")
    split = pl.when(time >= borders.test).then(pl.lit("test")).when(time >= borders.valid).then(pl.lit("valid"))
    requests = (
        clicks.filter(time >= borders.train)
        .with_columns(split.otherwise(pl.lit("train")).alias("split"))
        .with_columns(time.alias("at"), time.alias("statistics_at"))
    )
    return Divided(requests, borders.protocol(), borders.test, borders.valid)


def _gap(clicks: pl.DataFrame, config: SplitConfig) -> Divided:
    plain = _temporal(clicks, config)
    borders = borders_of(clicks, config)
    gap = round(config.gap_hours * HOUR)
    frozen = (
        pl.when(pl.col("split") == "test")
        .then(borders.test - gap)
        .when(pl.col("split") == "valid")
        .then(borders.valid - gap)
        .otherwise(pl.col("at"))
    )
    requests = plain.requests.with_columns(pl.min_horizontal(frozen, pl.col("at")).alias("statistics_at"))
    return Divided(requests, {**plain.protocol, "gap_hours": config.gap_hours}, plain.known_until, plain.learn_until)


def _last_click(clicks: pl.DataFrame, config: SplitConfig) -> Divided:
    """Each user's last click, asked for the instant after the click before it; users are divided at random."""
    warm = int(clicks["previous"].min() or 0) + round(warmup_hours(config) * HOUR)  # type: ignore[arg-type]
    last = clicks.filter(pl.col("last"))
    # Drawn by user, not by click: the last clicks of a user may tie, and they stay together.
    users = last["user"].unique().sort()
    order = np.random.default_rng(config.seed).permutation(len(users))
    n_test, n_valid = min(config.test_requests, len(users) // 10), min(config.valid_requests, len(users) // 20)
    split = np.full(len(users), "train", dtype=object)
    split[order[:n_test]] = "test"
    split[order[n_test : n_test + n_valid]] = "valid"
    drawn = pl.DataFrame({"user": users, "split": pl.Series(split, dtype=pl.String)})
    at = pl.col("previous") + 1
    requests = last.join(drawn, on="user", maintain_order="left").with_columns(
        at.alias("at"), at.alias("statistics_at")
    )
    requests = requests.filter((pl.col("split") != "train") | (pl.col("at") >= warm))
    return Divided(requests, {"requests": "each user's last click, asked for 1 ms after the click before it"})


VALIDATIONS: Final[dict[str, Callable[[pl.DataFrame, SplitConfig], Divided]]] = {
    "temporal": _temporal,
    "last-click": _last_click,
    "gap": _gap,
}
"""temporal: train, then valid, then test in order of time. last-click: each held-out user's last click (Tianchi).
gap: temporal with statistics frozen `gap_hours` before the period that is scored."""


@dataclass(frozen=True)
class Borders:
    """First moments of the three periods, and the moment after the last event; ms."""

    train: int
    valid: int
    test: int
    end: int

    def protocol(self) -> dict[str, object]:
        return {
            f"{name}_from": pl.select(pl.lit(ms).cast(TIME)).item().isoformat()
            for name, ms in (("train", self.train), ("valid", self.valid), ("test", self.test))
        } | {"test_until": pl.select(pl.lit(self.end).cast(TIME)).item().isoformat()}


def borders_of(clicks: pl.DataFrame, config: SplitConfig) -> Borders:
    """Periods on whole hours, counted back from the log's end; the warm-up gives way where the log is short."""
    if clicks.is_empty():
        return Borders(0, 0, 0, 0)
    first, end = int(clicks["time"].min()), int(clicks["time"].max()) + 1  # type: ignore[arg-type]
    whole_end = -(-end // HOUR) * HOUR
    test = (whole_end - round(config.test_days * DAY)) // HOUR * HOUR
    valid = (test - round(config.valid_days * DAY)) // HOUR * HOUR
    warm = min(round(warmup_hours(config) * HOUR), max(0, (valid - first) // 4))
    return Borders(first + warm, valid, test, end)


def divides_by_time(config: SplitConfig) -> bool:
    """Whether the mode divides by time alone, and so can divide impressions too."""
    return config.validation in ("temporal", "gap")


def divide(rows: pl.DataFrame, config: SplitConfig) -> tuple[Divided, pl.DataFrame]:
    """Divide moments, and sample them as the configuration limits them.

    Args:
        rows: `time` (ms), `user` and `item`; for `last-click` also `previous` and `last`. Rows that share user and time
            are one request.
        config: How.

    Returns:
        All requests with `at`, `statistics_at` (ms) and `split`, and the sampled ones in order of time and user.

    Raises:
        UsageError: Unknown validation mode or impossible lengths.
        DataError: Train, validation or test would be without a request.
    """
    check(config)
    divided = VALIDATIONS[config.validation](rows, config)
    _refuse_empty(divided.requests, config)
    return divided, sample(divided.requests, config)


def check(config: SplitConfig) -> None:
    """Refuse what no log could be divided by.

    Raises:
        UsageError: Unknown validation mode or impossible lengths.
    """
    if config.validation not in VALIDATIONS:
        raise UsageError(f"--validation: expected one of {sorted(VALIDATIONS)}, found {config.validation!r}.")
    days = {"test-days": config.test_days, "valid-days": config.valid_days}
    hours = {"gap-hours": config.gap_hours, "warmup-hours": warmup_hours(config)}
    counts = {f"{name}-requests": getattr(config, f"{name}_requests") for name in PARTS}
    wrong = [f"--{name} {value:g}" for name, value in days.items() if not 0 < value <= LONGEST_DAYS]
    wrong += [f"--{name} {value:g}" for name, value in hours.items() if not 0 <= value <= LONGEST_DAYS * 24]
    wrong += [f"--{name} {value}" for name, value in counts.items() if value is not None and value < 1]
    if wrong:
        raise UsageError(
            f"split: expected days above zero, hours from zero (a century at most) and at least one request, "
            f"found {', '.join(wrong)}."
        )


def _refuse_empty(requests: pl.DataFrame, config: SplitConfig) -> None:
    found = dict(requests.group_by("split").len().iter_rows())
    missing = [name for name in PARTS if not found.get(name)]
    if missing:
        raise DataError(
            f"split: expected requests to train, validate and test on, found none for {', '.join(missing)} "
            f"(of {len(requests)} clicks with an earlier click of the same user, {config.validation} validation). "
            "The log may be too short: try smaller --test-days and --valid-days, or --validation last-click."
        )
