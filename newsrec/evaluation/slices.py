"""Where a ranking is good and where it is not: the figures by length of history, age of the clicked article, hour."""

from collections.abc import Mapping
from typing import Final

import polars as pl

from newsrec.errors import DataError
from newsrec.frames import to_polars

UNKNOWN: Final = "unknown"
HISTORY: Final = ((1.0, "0"), (2.0, "1"), (3.0, "2"), (6.0, "3-5"), (21.0, "6-20"), (float("inf"), "21+"))
AGE: Final = ((1.0, "<1"), (3.0, "1-3"), (6.0, "3-6"), (12.0, "6-12"), (24.0, "12-24"), (float("inf"), "24+"))
"""Upper border, exclusive, and name of each class."""

HOURS: Final = tuple(f"{hour:02d}" for hour in range(24))
SHOWN: Final = ("hit@5", "mrr@5", "ndcg@10")


def _classes(column: str, borders: tuple[tuple[float, str], ...]) -> pl.Expr:
    """The first class whose border lies above the value; null and NaN are unknown."""
    value = pl.col(column).cast(pl.Float64).fill_nan(None)
    name = pl.coalesce(
        *(pl.when(value < upper).then(pl.lit(label)) for upper, label in borders[:-1]), pl.lit(borders[-1][1])
    )
    return pl.when(value.is_null()).then(pl.lit(UNKNOWN)).otherwise(name)


SLICES: Final[Mapping[str, tuple[str, pl.Expr, tuple[str, ...]]]] = {
    "history clicks": ("history_clicks", _classes("history_clicks", HISTORY), tuple(name for _, name in HISTORY)),
    "article age, hours": ("positive_age_hours", _classes("positive_age_hours", AGE), tuple(name for _, name in AGE)),
    "hour of day, UTC": ("requested_at", pl.col("requested_at").dt.strftime("%H"), HOURS),
}
"""Name of a slice -> the column it needs, the class of a request, and the classes in the order of the report."""


def slices(per_request: pl.DataFrame, requests: object) -> pl.DataFrame:
    """Figures by slice.

    Args:
        per_request: What `newsrec.metrics.per_request` returned.
        requests: Polars or pandas, one row per request: `request_id` and any of `history_clicks` (clicks of the user
            before the request), `positive_age_hours` (age of the clicked article at the request, null if unknown) and
            `requested_at`. A slice whose column is absent is left out.

    Returns:
        Polars: `slice, value` (String), `requests` (Int64, those that count) and the means `hit@5, mrr@5, ndcg@10`, in
        the order of `SLICES` and of their classes. Classes without a request are left out.

    Raises:
        DataError: If a request of `per_request` does not stand in `requests`, or stands there twice.
    """
    described = to_polars(requests, "requests")
    known = {name: slice_ for name, slice_ in SLICES.items() if slice_[0] in described.columns}
    columns = ["request_id", *dict.fromkeys(column for column, _, _ in known.values())]
    missing = per_request.join(described, on="request_id", how="anti")["request_id"]
    if len(missing) or described["request_id"].n_unique() != len(described):
        raise DataError(
            f"slices: expected each scored request once in the requests, found {len(missing)} absent "
            f"{missing.head(3).to_list()} and {len(described) - described['request_id'].n_unique()} repeated."
        )
    counted = per_request.filter(pl.col(SHOWN[0]).is_not_null()).join(described.select(columns), on="request_id")
    tables = [_slice(counted, name, value, classes) for name, (_, value, classes) in known.items()]
    return pl.concat([counted.head(0).select(_NO_ROWS), *tables])


_NO_ROWS: Final = (
    pl.lit("").alias("slice"),
    pl.lit("").alias("value"),
    pl.lit(0, pl.Int64).alias("requests"),
    *(pl.col(name) for name in SHOWN),
)


def _slice(counted: pl.DataFrame, name: str, value: pl.Expr, classes: tuple[str, ...]) -> pl.DataFrame:
    grouped = counted.group_by(value.cast(pl.Enum([*classes, UNKNOWN])).alias("value")).agg(
        pl.len().cast(pl.Int64).alias("requests"), *(pl.col(metric).mean() for metric in SHOWN)
    )
    ordered = grouped.sort("value").with_columns(pl.col("value").cast(pl.String), pl.lit(name).alias("slice"))
    return ordered.select("slice", "value", "requests", *SHOWN)
