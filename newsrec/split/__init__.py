"""Stage 2: which moments of the log are asked for, and which of them train, validate and test.

A click-only log has no impressions: a click of a user with earlier clicks makes a request, and the label is what was
clicked then. Three validation modes (see `VALIDATIONS`); in all of them a request knows only what happened strictly
before it. The way of the data: `config`, `requests`, `modes`; beside it `folds` for tuning and `unseen` for bundles.
"""

import polars as pl

from features.events import EventStore
from newsrec.data.log import Log
from newsrec.split.config import EMBEDDED_REQUESTS, LOG_REQUESTS, PARTS, REQUEST, Split, SplitConfig
from newsrec.split.folds import Fold, divide_folds, rolling_folds
from newsrec.split.modes import VALIDATIONS, Divided, divide, divides_by_time
from newsrec.split.requests import clicks_with_history, requests_of
from newsrec.split.unseen import held_out_requests

__all__ = [
    "EMBEDDED_REQUESTS",
    "LOG_REQUESTS",
    "PARTS",
    "VALIDATIONS",
    "Fold",
    "Split",
    "SplitConfig",
    "divide",
    "divide_folds",
    "divides_by_time",
    "held_out_requests",
    "protocol_of",
    "rolling_folds",
    "split_log",
]


def split_log(log: Log, store: EventStore, config: SplitConfig) -> Split:
    """Make requests of a click-only log and divide them.

    Raises:
        UsageError: Unknown validation mode or impossible lengths.
        DataError: Train, validation or test would be without a request.
    """
    divided, sampled = divide(clicks_with_history(log, store), config)
    requests, positives = requests_of(sampled, store)
    protocol = protocol_of(log, config, divided, requests)
    return Split(requests, positives, protocol, divided.known_until, divided.learn_until)


def protocol_of(log: Log, config: SplitConfig, divided: Divided, requests: pl.DataFrame) -> dict[str, object]:
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
