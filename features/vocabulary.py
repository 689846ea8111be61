"""Dense codes for categorical columns, made once from training clicks and frozen: 0 is everything unknown.

LightGBM and networks see the codes; the bundle keeps the table (`vocabulary.parquet`).
"""

from dataclasses import dataclass
from typing import Self

import polars as pl

from features.columns import CONTEXT
from features.windows import Ints

UNKNOWN = 0


@dataclass(frozen=True)
class Vocabulary:
    """The known values of each context column.

    `table`: `column` (String), `value` (String form of the source's value), `code` (Int32, 1..n per column).
    """

    table: pl.DataFrame

    @classmethod
    def of(cls, clicks: pl.DataFrame, min_clicks: int = 20) -> Self:
        """Learn the context columns of a click log. A value seen fewer than `min_clicks` times stays unknown."""
        parts = [_values(clicks[name], min_clicks) for name in CONTEXT if name in clicks.columns]
        empty = pl.DataFrame(schema={"column": pl.String, "value": pl.String, "code": pl.Int32})
        return cls(pl.concat([empty, *parts]))

    @property
    def columns(self) -> tuple[str, ...]:
        """The context columns that the log had, in canonical order."""
        have = set(self.table["column"])
        return tuple(name for name in CONTEXT if name in have)

    def codes(self, values: pl.Series) -> Ints:
        """Code of each value of the column that the series is named after; null and unseen are 0. Order kept."""
        known = self.table.filter(pl.col("column") == values.name).select("value", "code")
        asked = values.cast(pl.String).to_frame("value").join(known, on="value", how="left", maintain_order="left")
        return asked["code"].fill_null(UNKNOWN).cast(pl.Int64).to_numpy()


def _values(column: pl.Series, min_clicks: int) -> pl.DataFrame:
    counted = column.drop_nulls().value_counts(name="n").filter(pl.col("n") >= min_clicks)
    return (
        counted.sort(column.name)
        .select(pl.lit(column.name).alias("column"), pl.col(column.name).cast(pl.String).alias("value"))
        .with_columns(pl.int_range(1, pl.len() + 1, dtype=pl.Int32).alias("code"))
    )
