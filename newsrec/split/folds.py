"""Folds for tuning: nothing in them touches the test period."""

import polars as pl

from features.columns import HOUR
from features.events import EventStore
from newsrec.data.log import Log
from newsrec.errors import DataError, UsageError
from newsrec.split.config import Split, SplitConfig
from newsrec.split.modes import Borders, borders_of, check, divides_by_time
from newsrec.split.requests import clicks_with_history, requests_of, sample


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
    check(config)
    if not divides_by_time(config):
        raise UsageError(
            f"--validation {config.validation}: expected a mode that divides by time, as folds end one before the "
            "other. Use temporal or gap."
        )
    if folds < 1:
        raise UsageError(f"folds: expected one fold or more, found {folds}.")
    clicks = clicks_with_history(log, store)
    borders = borders_of(clicks, config)
    return [_fold(clicks, store, config, borders, number) for number in range(folds)]


def _fold(clicks: pl.DataFrame, store: EventStore, config: SplitConfig, borders: Borders, number: int) -> Split:
    length = borders.test - borders.valid  # on whole hours, so that folds touch and no hour is shared
    valid, until = borders.valid - number * length, borders.test - number * length
    time = pl.col("time")
    statistics_at = time
    if config.validation == "gap":
        frozen = pl.min_horizontal(time, pl.lit(valid - round(config.gap_hours * HOUR)))
        statistics_at = pl.when(time >= valid).then(frozen).otherwise(time)
    requests = clicks.filter((time >= borders.train) & (time < until)).with_columns(
        pl.when(time >= valid).then(pl.lit("valid")).otherwise(pl.lit("train")).alias("split"),
        time.alias("at"),
        statistics_at.alias("statistics_at"),
    )
    if set(requests["split"]) != {"train", "valid"}:
        raise DataError(
            f"fold {number}: expected training and validation requests, found {sorted(set(requests['split']))}. "
            "Ask for fewer folds or shorter --valid-days."
        )
    frame, positives = requests_of(sample(requests, config), store)
    return Split(frame, positives, {"validation": config.validation, "fold": number}, until, valid)
