"""Pieces that expressions of several families are made of."""

import polars as pl

from features.columns import MINUTE


def ratio(part: pl.Expr, whole: pl.Expr) -> pl.Expr:
    """Part of the whole; null where the whole is 0 or unknown, so that 0 / 0 never becomes NaN."""
    return pl.when(whole > 0).then(part / whole)


def minutes(span: pl.Expr) -> pl.Expr:
    """Milliseconds to minutes, never below one: finer than a minute a log tells of its own making, not of readers."""
    return pl.max_horizontal(span, pl.when(span.is_not_null()).then(pl.lit(MINUTE))) / MINUTE
