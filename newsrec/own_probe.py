"""A trial of an own feature on made-up rows: are its values numbers, and do they depend on its own request alone?

What the form of an expression does not show, such as a rank over all rows, shows here: the same request alone, among
others and in another order must give the same values. Else what is served differs from what was trained on.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import polars as pl

from features.catalog import Feature
from features.own_columns import source_of

LENGTHS: Final = (5, 1, 8, 3)
"""Candidates of the requests that are tried."""
TOLERANCE: Final = 1e-4
"""Relative. A sum of floats in another order differs by some 1e-7; another meaning differs by more than this."""


def fault_of_values(feature: Feature, columns: Mapping[str, pl.Series]) -> str | None:
    """What is wrong with the feature's values, in one line; None where nothing is.

    Args:
        feature: Of an own file.
        columns: Values of each own column that it reads, as the log has them.
    """
    rows = _rows(feature, columns)
    expression = feature.expression.cast(pl.Float32).alias("value")
    try:
        whole = rows.select(expression)["value"]
    except pl.exceptions.PolarsError as error:
        return f"expected values, found {type(error).__name__}: {str(error).splitlines()[0]}"
    if len(whole) != len(rows):
        return f"expected one value per candidate, found {len(whole)} for {len(rows)}"
    alone = pl.concat([part.select(expression) for part in rows.partition_by("request_id", maintain_order=True)])
    if not _same(whole, alone["value"]):
        return 'expected values of its own request, found some that depend on others; use .over("request_id")'
    order = np.random.default_rng(1).permutation(len(rows))
    shuffled = rows[order].select(expression)["value"][np.argsort(order)]
    if not _same(whole, shuffled):
        return "expected values that do not depend on the order of rows, found some that do"
    return _fault_of_kind(whole, rows, feature)


def _fault_of_kind(whole: pl.Series, rows: pl.DataFrame, feature: Feature) -> str | None:
    """Text that is no number becomes null everywhere when cast."""
    if whole.null_count() < len(whole):
        return None
    text = sorted(name for name in feature.roots if rows.schema[name] == pl.String)
    return f"expected numbers, found only nulls from the text in {text}" if text else None


def _rows(feature: Feature, columns: Mapping[str, pl.Series]) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    request = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    frame = {"request_id": pl.Series(request)}
    for name in sorted(feature.roots):
        frame[name] = _drawn(columns[name], name, request, rng) if name in columns else _facts(len(request), rng)
    return pl.DataFrame(frame)


def _facts(n: int, rng: np.random.Generator) -> pl.Series:
    """Whole numbers, none twice, a few unknown."""
    values = pl.Series(rng.permutation(n) + 1.0)
    return values.set(pl.Series(rng.random(n) < 0.1), None)


def _drawn(values: pl.Series, name: str, request: np.ndarray, rng: np.random.Generator) -> pl.Series:
    """Values of the log; one per request where they are of the request."""
    known = values.drop_nulls()
    place = rng.integers(0, len(known), len(request))
    return known.gather(place if source_of(name)[0] == "articles" else place[request])


def _same(first: pl.Series, second: pl.Series) -> bool:
    nulls = first.is_null() == second.is_null()
    a, b = (s.fill_null(0).to_numpy().astype(np.float64) for s in (first, second))
    return bool(nulls.all() and np.allclose(a, b, rtol=TOLERANCE, atol=1e-6))
