"""Dense codes for categorical columns, made once from training clicks and frozen: 0 is everything unknown.

LightGBM and networks see the codes; the bundle keeps the table (`vocabulary.parquet`).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import polars as pl

from features.columns import REQUEST_CONTEXT
from features.windows import Ints

UNKNOWN = 0
FEW = 100
"""So few values are looked up one by one: a single request must not pay for a join."""


@dataclass(frozen=True)
class Vocabulary:
    """The known values of each context column.

    `table`: `column` (String), `value` (String form of the source's value), `code` (Int32, 1..n per column).
    """

    table: pl.DataFrame

    @classmethod
    def of(cls, clicks: pl.DataFrame, min_clicks: int = 20, impressions: pl.DataFrame | None = None) -> Self:
        """Learn the context columns of a log. A value seen fewer than `min_clicks` times in a frame stays unknown.

        Args:
            clicks: Canonical clicks.
            min_clicks: Rows with the value at least, in one of the frames.
            impressions: Canonical impressions: their context columns (`REQUEST_CONTEXT`) join in.
        """
        shown = clicks.clear() if impressions is None else impressions
        frames = {name: [f[name] for f in (clicks, shown) if name in f.columns] for name in REQUEST_CONTEXT}
        parts = [_values(name, columns, min_clicks) for name, columns in frames.items() if columns]
        empty = pl.DataFrame(schema={"column": pl.String, "value": pl.String, "code": pl.Int32})
        return cls(pl.concat([empty, *parts]))

    @cached_property
    def _codes(self) -> dict[str, dict[str, int]]:
        parts = self.table.partition_by("column", as_dict=True)
        return {str(name): dict(zip(part["value"], part["code"], strict=True)) for (name,), part in parts.items()}

    @property
    def columns(self) -> tuple[str, ...]:
        """The context columns that the log had, in canonical order."""
        have = set(self.table["column"])
        return tuple(name for name in REQUEST_CONTEXT if name in have)

    def codes(self, values: pl.Series) -> Ints:
        """Code of each value of the column that the series is named after; null and unseen are 0. Order kept."""
        if len(values) <= FEW:
            by_value = self._codes.get(values.name, {})
            return np.array([by_value.get(value, UNKNOWN) for value in values.cast(pl.String)], np.int64)
        known = self.table.filter(pl.col("column") == values.name).select("value", "code")
        asked = values.cast(pl.String).to_frame("value").join(known, on="value", how="left", maintain_order="left")
        return asked["code"].fill_null(UNKNOWN).cast(pl.Int64).to_numpy()


def _values(name: str, columns: list[pl.Series], min_clicks: int) -> pl.DataFrame:
    counted = [column.drop_nulls().value_counts(name="n").filter(pl.col("n") >= min_clicks) for column in columns]
    values = pl.concat([frame.select(name) for frame in counted], how="vertical_relaxed").to_series().unique().sort()
    return pl.DataFrame(
        {"column": [name] * len(values), "value": values.cast(pl.String)},
        schema={"column": pl.String, "value": pl.String},
    ).with_columns(pl.int_range(1, pl.len() + 1, dtype=pl.Int32).alias("code"))
