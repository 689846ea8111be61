"""Folds for tuning: nothing in them touches the test period."""

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from features.columns import HOUR
from features.events import EventStore
from newsrec.data.log import Log
from newsrec.errors import DataError, UsageError
from newsrec.split.config import Split, SplitConfig
from newsrec.split.modes import Borders, borders_of, check, divides_by_time
from newsrec.split.requests import clicks_with_history, requests_of, sample


@dataclass(frozen=True)
class Fold:
    """Moments that train, and those of the period after them that validate.

    `rows`: those that were given, sampled, with `at`, `statistics_at` (ms) and `split` (`train` or `valid`).
    """

    rows: pl.DataFrame
    valid: int
    """First moment of the validation period, ms."""
    until: int
    """The moment after it, ms."""
    protocol: dict[str, object]


def rolling_folds(log: Log, store: EventStore, config: SplitConfig, folds: int) -> list[Split]:
    """Folds for tuning: the same split by time, each ending a validation period earlier; never the test period.

    Args:
        log: A click log.
        store: Of the log.
        config: `temporal` or `gap`; in `gap` the statistics of a validation period stop `gap_hours` before it.
        folds: Number of folds, >= 1. Fold 0 validates on the period just before the test period.

    Returns:
        Splits whose `test` part is empty; in each, training ends where validation begins.

    Raises:
        UsageError: No fold asked for, a validation mode that does not divide by time, or impossible lengths.
        DataError: The log is too short for so many folds.
    """

    def split_of(fold: Fold) -> Split:
        frame, positives = requests_of(fold.rows, store)
        return Split(frame, positives, fold.protocol, fold.until, fold.valid)

    return [split_of(fold) for fold in divide_folds(clicks_with_history(log, store), config, folds)]


def divide_folds(rows: pl.DataFrame, config: SplitConfig, folds: int) -> Iterator[Fold]:
    """Divide moments (`time` in ms, `user`, `item`) as `rolling_folds` says, which also names the errors."""
    check(config)
    if not divides_by_time(config):
        raise UsageError(
            f"--validation {config.validation}: expected a mode that divides by time, as folds end one before the "
            "other. Use temporal or gap."
        )
    if folds < 1:
        raise UsageError(f"folds: expected one fold or more, found {folds}.")
    borders = borders_of(rows, config)
    return (_fold(rows, config, borders, number) for number in range(folds))


def _fold(rows: pl.DataFrame, config: SplitConfig, borders: Borders, number: int) -> Fold:
    length = borders.test - borders.valid  # on whole hours, so that folds touch and no hour is shared
    valid, until = borders.valid - number * length, borders.test - number * length
    time = pl.col("time")
    statistics_at = time
    if config.validation == "gap":
        frozen = pl.min_horizontal(time, pl.lit(valid - round(config.gap_hours * HOUR)))
        statistics_at = pl.when(time >= valid).then(frozen).otherwise(time)
    requests = rows.filter((time >= borders.train) & (time < until)).with_columns(
        pl.when(time >= valid).then(pl.lit("valid")).otherwise(pl.lit("train")).alias("split"),
        time.alias("at"),
        statistics_at.alias("statistics_at"),
    )
    if set(requests["split"]) != {"train", "valid"}:
        raise DataError(
            f"fold {number}: expected training and validation requests, found {sorted(set(requests['split']))}. "
            "Ask for fewer folds or shorter --valid-days."
        )
    protocol: dict[str, object] = {"validation": config.validation, "fold": number}
    return Fold(sample(requests, config), valid, until, protocol)
