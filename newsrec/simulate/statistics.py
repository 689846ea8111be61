"""The figures by which a log is known, beside those of the real logs: is the simulated one like them?"""

from collections.abc import Callable
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from features.columns import DAY, HOUR, SECOND
from newsrec.data.log import Log
from newsrec.simulate.traffic import PAUSE

Figure = Callable[[Log], float | None]

_GLOBO: Final = "Globo, 17 days"
_HITS_PER_DAY: Final = 1000 / 17


def statistics(log: Log) -> pl.DataFrame:
    """Compare a log with what is known of the real ones.

    Args:
        log: Any log; figures that its frames cannot give are null.

    Returns:
        `statistic, simulated, real, note`, one row per figure in a fixed order; `real` is null where nothing is known.
    """
    rows = [(name, figure(log), real, note) for name, figure, real, note in _FIGURES]
    schema = {"statistic": pl.String, "simulated": pl.Float64, "real": pl.Float64, "note": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _per_user(quantile: float) -> Figure:
    def figure(log: Log) -> float | None:
        counts = log.clicks["user_id"].value_counts()["count"]
        return counts.quantile(quantile, interpolation="lower")

    return figure


def _top_share(log: Log, n: int) -> float | None:
    counts = log.clicks["item_id"].value_counts()["count"].sort(descending=True)
    return float(counts.head(n).sum()) / log.clicks.height if log.clicks.height else None


def _length_days(log: Log) -> float:
    """From the first click's midnight to the last's, in whole days."""
    days = log.clicks["clicked_at"].dt.epoch("ms") // DAY
    return float(days.max() - days.min() + 1) if len(days) else 0.0  # type: ignore[operator]


def _median_age_hours(log: Log) -> float | None:
    if "created_at" not in log.articles.columns:
        return None
    created = log.articles.select("item_id", "created_at")
    ages = log.clicks.join(created, on="item_id", how="inner", maintain_order="left")
    age = (pl.col("clicked_at") - pl.col("created_at")).dt.total_milliseconds() / HOUR
    return ages.select(age).to_series().median()  # type: ignore[return-value]


def _gaps(log: Log) -> NDArray[np.int64]:
    """Time from each click to the reader's next one, milliseconds; (n_clicks - n_users,)."""
    ordered = log.clicks.select("user_id", pl.col("clicked_at").dt.epoch("ms").alias("at")).sort("user_id", "at")
    user = ordered["user_id"].rank("dense").to_numpy()
    gaps: NDArray[np.int64] = np.diff(ordered["at"].to_numpy())[user[1:] == user[:-1]]
    return gaps


def _clicks_per_session(log: Log) -> float | None:
    sessions = log.clicks["user_id"].n_unique() + int(np.count_nonzero(_gaps(log) >= PAUSE))
    return log.clicks.height / sessions if sessions else None


def _median_gap_seconds(log: Log) -> float | None:
    gaps = _gaps(log)
    gaps = gaps[gaps < PAUSE]
    return float(np.median(gaps)) / SECOND if len(gaps) else None


def _slate_size(log: Log) -> float | None:
    if log.impressions is None or log.impressions.is_empty():
        return None
    return log.impressions.height / log.impressions["request_id"].n_unique()


def _mean(column: str) -> Figure:
    def figure(log: Log) -> float | None:
        if log.impressions is None or column not in log.impressions.columns:
            return None
        return log.impressions[column].mean()  # type: ignore[return-value]

    return figure


def _requests_with_click(log: Log) -> float | None:
    if log.impressions is None or log.impressions.is_empty():
        return None
    requests = log.impressions["request_id"].n_unique()
    return log.impressions.filter("clicked")["request_id"].n_unique() / requests


def _shared_of_clicks(log: Log) -> float | None:
    if log.impressions is None or "shared" not in log.impressions.columns:
        return None
    return log.impressions.filter("clicked")["shared"].mean()  # type: ignore[return-value]


_FIGURES: Final[tuple[tuple[str, Figure, float | None, str], ...]] = (
    ("clicks", lambda log: float(log.clicks.height), 2_988_181.0, _GLOBO),
    ("users with clicks", lambda log: float(log.clicks["user_id"].n_unique()), 322_897.0, _GLOBO),
    ("clicked articles", lambda log: float(log.clicks["item_id"].n_unique()), 46_033.0, _GLOBO),
    ("clicks per user, median", _per_user(0.5), 4.0, _GLOBO),
    ("clicks per user, p90", _per_user(0.9), 21.0, _GLOBO),
    ("clicks per user, p99", _per_user(0.99), 67.0, _GLOBO),
    (
        "clicks on the top articles, scaled",
        lambda log: _top_share(log, round(_HITS_PER_DAY * _length_days(log))),
        0.80,
        "Globo's top 1,000 of 17 days are 59 a day: the same number for each day of this log",
    ),
    ("clicks on the top 1,000 articles", lambda log: _top_share(log, 1000), 0.80, f"{_GLOBO}; not scaled to this log"),
    (
        "clicks on the top 1 % of articles",
        lambda log: _top_share(log, max(1, round(0.01 * log.clicks["item_id"].n_unique()))),
        None,
        "of the articles with a click",
    ),
    ("age at click, median hours", _median_age_hours, 8.0, "Globo"),
    (
        "clicks per session",
        _clicks_per_session,
        None,
        "sessions end after 30 minutes; Globo keeps those of two or more",
    ),
    ("gap between clicks in a session, median seconds", _median_gap_seconds, None, "continuous, no preferred value"),
    ("slate size, mean", _slate_size, 11.5, "EB-NeRD, 11 to 12"),
    ("click rate of what is shown", _mean("clicked"), None, ""),
    ("requests with a click", _requests_with_click, None, "EB-NeRD keeps only such requests"),
    ("clicks that are passed on", _shared_of_clicks, None, "the rarer second action"),
    ("propensity, mean of what is shown", _mean("propensity"), None, "chance of being in the slate"),
)
