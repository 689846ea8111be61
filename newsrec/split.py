"""Stage 2: which moments of the log are asked for, and which of them train, validate and test.

A click-only log has no impressions: a click of a user with earlier clicks makes a request, and the label is what was
clicked then. Three validation modes (see `VALIDATIONS`); in all of them a request knows only what happened strictly
before it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import polars as pl

from features.columns import DAY, HOUR, TIME
from features.events import EventStore, milliseconds
from features.windows import NO_TIME, Ints
from newsrec.data.log import Log
from newsrec.errors import DataError, UsageError


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


def split_log(log: Log, store: EventStore, config: SplitConfig) -> Split:
    """Make requests of a click-only log and divide them.

    Raises:
        UsageError: Unknown validation mode or impossible lengths.
        DataError: Train, validation or test would be without a request.
    """
    divided, sampled = divide(_clicks_with_history(log, store), config)
    requests, positives = _requests_of(sampled, store)
    protocol = protocol_of(log, config, divided, requests)
    return Split(requests, positives, protocol, divided.known_until, divided.learn_until)


def divide(rows: pl.DataFrame, config: SplitConfig) -> "tuple[Divided, pl.DataFrame]":
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
    _check(config)
    divided = VALIDATIONS[config.validation](rows, config)
    _refuse_empty(divided.requests, config)
    return divided, _sample(divided.requests, config)


def divides_by_time(config: SplitConfig) -> bool:
    """Whether the mode divides by time alone, and so can divide impressions too."""
    return config.validation in ("temporal", "gap")


def protocol_of(log: Log, config: SplitConfig, divided: "Divided", requests: pl.DataFrame) -> dict[str, object]:
    """What a score must say of its requests."""
    counts = dict(requests.group_by("split").len().iter_rows())
    return {
        "format": log.format,
        "validation": config.validation,
        **{f"{name}_requests": counts[name] for name in PARTS},
        **divided.protocol,
        "available_requests": dict(sorted(divided.requests.unique(REQUEST).group_by("split").len().iter_rows())),
        "seed": config.seed,
        "fingerprint": log.fingerprint,
    }


PARTS: Final = ("train", "valid", "test")
REQUEST: Final = ("at", "user")
"""What makes clicks one request: the same user at the same instant."""
LONGEST_DAYS: Final = 36_500.0
WARMUP_HOURS: Final = 24.0
LOG_REQUESTS: Final = 200_000
EMBEDDED_REQUESTS: Final = 40_000


@dataclass(frozen=True)
class Divided:
    """`requests`: rows of `_clicks_with_history` with `at`, `statistics_at` (ms) and `split`."""

    requests: pl.DataFrame
    protocol: dict[str, object]
    known_until: int | None = None
    learn_until: int | None = None


def _clicks_with_history(log: Log, store: EventStore) -> pl.DataFrame:
    """Clicks with an earlier click of the same user: `user, item` (codes), `time, previous` (ms), `last` (Boolean)."""
    s = store.sequences
    # The earlier click must be strictly earlier: at the same instant neither is known when the other is asked for.
    previous = store.index("user").latest(s.user, s.time)
    ends = np.searchsorted(s.user, s.user, side="right") - 1
    frame = pl.DataFrame(
        {"user": s.user, "item": s.item, "time": s.time, "previous": previous, "last": s.time == s.time[ends]}
    )
    clicks = frame.filter(pl.col("previous") != NO_TIME)
    if log.held_out_users is None:
        return clicks
    held_out = log.held_out_users.select("user_id").join(
        pl.DataFrame({"user_id": store.users, "user": np.arange(len(store.users), dtype=np.int64)}), on="user_id"
    )
    return clicks.join(held_out, on="user", how="anti", maintain_order="left")


def _temporal(clicks: pl.DataFrame, config: SplitConfig) -> Divided:
    borders = _borders(clicks, config)
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
    borders = _borders(clicks, config)
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
class _Borders:
    train: int
    valid: int
    test: int
    end: int

    def protocol(self) -> dict[str, object]:
        return {
            f"{name}_from": pl.select(pl.lit(ms).cast(TIME)).item().isoformat()
            for name, ms in (("train", self.train), ("valid", self.valid), ("test", self.test))
        } | {"test_until": pl.select(pl.lit(self.end).cast(TIME)).item().isoformat()}


def _borders(clicks: pl.DataFrame, config: SplitConfig) -> _Borders:
    """Periods on whole hours, counted back from the log's end; the warm-up gives way where the log is short."""
    if clicks.is_empty():
        return _Borders(0, 0, 0, 0)
    first, end = int(clicks["time"].min()), int(clicks["time"].max()) + 1  # type: ignore[arg-type]
    whole_end = -(-end // HOUR) * HOUR
    test = (whole_end - round(config.test_days * DAY)) // HOUR * HOUR
    valid = (test - round(config.valid_days * DAY)) // HOUR * HOUR
    warm = min(round(warmup_hours(config) * HOUR), max(0, (valid - first) // 4))
    return _Borders(first + warm, valid, test, end)


def held_out_requests(log: Log, store: EventStore, config: SplitConfig, unseen: pl.DataFrame) -> Split:
    """Requests for clicks that somebody has not seen: what `evaluate` asks a bundle.

    Args:
        log: The log.
        store: What is known to each request: the log's events, and earlier ones.
        config: The bundle's mode, seed and number of test requests; its periods are not used.
        unseen: `user_id, item_id, clicked_at` of the clicks that may be asked for.

    Returns:
        A split with a `test` part only; it may be empty.
    """
    _check(config)
    coded = pl.DataFrame(
        {
            "user": store.user_codes(unseen["user_id"]),
            "item": store.item_codes(unseen["item_id"]),
            "time": milliseconds(unseen["clicked_at"]),
        }
    )
    clicks = _clicks_with_history(log, store).join(coded, on=["user", "item", "time"], how="semi")
    at = pl.col("time")
    if config.validation == "last-click":
        clicks, at = clicks.filter(pl.col("last")), pl.col("previous") + 1
    statistics = at
    if config.validation == "gap" and len(clicks):
        first = int(clicks["time"].min()) // HOUR * HOUR  # type: ignore[arg-type]
        statistics = pl.min_horizontal(at, pl.lit(first - round(config.gap_hours * HOUR)))
    requests = clicks.with_columns(at.alias("at"), statistics.alias("statistics_at"), pl.lit("test").alias("split"))
    frame, positives = _requests_of(_sample(requests, config), store)
    protocol: dict[str, object] = {
        "format": log.format,
        "validation": config.validation,
        "train_requests": 0,
        "test_requests": len(frame),
        "available_requests": requests.select(REQUEST).n_unique(),
        "requests": "clicks that the bundle's state does not hold",
        "seed": config.seed,
        "fingerprint": log.fingerprint,
    }
    return Split(frame, positives, protocol)


def rolling_folds(log: Log, store: EventStore, config: SplitConfig, folds: int) -> list[Split]:
    """Folds for tuning: the same temporal split, each ending a validation period earlier; never the test period.

    Args:
        folds: Number of folds, >= 1. Fold 0 validates on the period just before the test period.

    Returns:
        Splits whose `test` part is empty; in each, training ends where validation begins.

    Raises:
        UsageError: No fold asked for, or impossible lengths.
        DataError: The log is too short for so many folds.
    """
    _check(replace(config, validation="temporal"))
    if folds < 1:
        raise UsageError(f"folds: expected one fold or more, found {folds}.")
    clicks = _clicks_with_history(log, store)
    borders = _borders(clicks, config)
    return [_fold(clicks, store, config, borders, number) for number in range(folds)]


def _fold(clicks: pl.DataFrame, store: EventStore, config: SplitConfig, borders: _Borders, number: int) -> Split:
    length = borders.test - borders.valid  # on whole hours, so that folds touch and no hour is shared
    valid, until = borders.valid - number * length, borders.test - number * length
    time = pl.col("time")
    requests = clicks.filter((time >= borders.train) & (time < until)).with_columns(
        pl.when(time >= valid).then(pl.lit("valid")).otherwise(pl.lit("train")).alias("split"),
        time.alias("at"),
        time.alias("statistics_at"),
    )
    if set(requests["split"]) != {"train", "valid"}:
        raise DataError(
            f"fold {number}: expected training and validation requests, found {sorted(set(requests['split']))}. "
            "Ask for fewer folds or shorter --valid-days."
        )
    frame, positives = _requests_of(_sample(requests, config), store)
    return Split(frame, positives, {"validation": "temporal", "fold": number}, until, valid)


def warmup_hours(config: SplitConfig) -> float:
    """The configured warm-up, or that of a click log."""
    return WARMUP_HOURS if config.warmup_hours is None else config.warmup_hours


def _check(config: SplitConfig) -> None:
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


def _sample(requests: pl.DataFrame, config: SplitConfig) -> pl.DataFrame:
    """At most the configured number of requests per part, in order of time, then user."""
    limits = {
        "train": LOG_REQUESTS if config.train_requests is None else config.train_requests,
        "valid": config.valid_requests,
        "test": config.test_requests,
    }
    ordered = requests.sort("at", "user", "item")
    rng = np.random.default_rng([config.seed, 1])
    parts = []
    for name, limit in limits.items():
        part = ordered.filter(pl.col("split") == name)
        keys = part.select(REQUEST).unique(maintain_order=True)
        if len(keys) > limit:
            chosen = keys[np.sort(rng.choice(len(keys), limit, replace=False))]
            part = part.join(chosen, on=list(REQUEST), how="semi", maintain_order="left")
        parts.append(part)
    return pl.concat(parts).sort("at", "user", "item")


def _requests_of(clicks: pl.DataFrame, store: EventStore) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Canonical requests and positives: clicks of one user at one instant are one request."""
    created = store.created[clicks["item"].to_numpy()]
    age = np.where(created == NO_TIME, np.nan, (clicks["at"].to_numpy() - created) / HOUR)
    clicks = clicks.with_columns(pl.Series("age", age, dtype=pl.Float32).fill_nan(None))
    requests = clicks.group_by(REQUEST, maintain_order=True).agg(
        pl.col("statistics_at", "split").first(),
        pl.len().cast(pl.UInt32).alias("positives"),
        pl.col("age").min().alias("positive_age_hours"),
    )
    requests = requests.with_row_index("request_id").with_columns(pl.col("request_id").cast(pl.Int64))
    positives = clicks.join(requests.select("request_id", *REQUEST), on=list(REQUEST), maintain_order="left")
    user: Ints = requests["user"].to_numpy()
    history = store.index("user").counts(user, requests["at"].to_numpy(), (None,))[0]
    canonical = requests.select(
        "request_id",
        store.users.gather(user).alias("user_id"),
        pl.col("at").cast(TIME).alias("requested_at"),
        pl.col("statistics_at").cast(TIME),
        "split",
        "positives",
        pl.Series("history_clicks", history, dtype=pl.UInt32),
        "positive_age_hours",
    )
    return canonical, pl.DataFrame(
        {"request_id": positives["request_id"], "item_id": store.items.gather(positives["item"])}
    )
