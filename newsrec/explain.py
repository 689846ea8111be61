"""Why an article stands where it stands: the features that moved its score most, and the channels that proposed it."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from features.catalog import features_for
from newsrec.rankers import Ranker
from newsrec.recall import CHANNELS


def proposed_by(channels: Sequence[str]) -> pl.Expr:
    """The channels that proposed a candidate, as text such as `itemcf, popular`; empty for none."""
    named = (pl.when(pl.col(f"{name}_rank").is_not_null()).then(pl.lit(name)) for name in channels)
    return pl.concat_str(*named, separator=", ", ignore_nulls=True) if channels else pl.lit("")


def explanations(ranker: Ranker, described: pl.DataFrame, top: int = 3) -> pl.Series:
    """The features that moved each score most, in words. Shape (n_rows,).

    Such as `item_clicks_1h = 12 (Clicks on the article in the last 1h) +0.41; hour = 7 (Hour of the day) -0.1`: the
    name, the value, what it means by the catalogue, and what it added to the score (TreeSHAP, Lundberg et al. 2018).

    Args:
        ranker: The model.
        described: Its features.
        top: How many are named.
    """
    if described.is_empty():
        return pl.Series(dtype=pl.String)
    moved = ranker.contributions(described)
    order = np.argsort(-np.abs(moved), axis=1, kind="stable")[:, :top]
    values = np.take_along_axis(moved, order, axis=1)
    said = _words(described, order)
    sign = pl.when(pl.col("value") < 0).then(pl.lit("")).otherwise(pl.lit("+"))
    columns = [
        pl.DataFrame({"said": said[:, i], "value": values[:, i]})
        .select(pl.format("{} {}{}", "said", sign, pl.col("value").round(3)).alias(str(i)))
        .to_series()
        for i in range(order.shape[1])
    ]
    return pl.DataFrame(columns).select(pl.concat_str(pl.all(), separator="; ")).to_series()


def _words(described: pl.DataFrame, order: npt.NDArray[np.int64]) -> npt.NDArray[np.object_]:
    """Name, value and first sentence of each feature that is named; shape of `order`."""
    meaning = {f.name: f.meaning.split(". ")[0].rstrip(".") for f in features_for(CHANNELS)}
    sentence = np.array([meaning.get(name, name) for name in described.columns], dtype=object)
    matrix = described.to_numpy()
    values = np.take_along_axis(matrix, order, axis=1)
    shown = np.where(np.isnan(values), "unknown", np.char.mod("%.4g", values)).astype(object)
    name = np.array(described.columns, dtype=object)[order]
    words: npt.NDArray[np.object_] = name + " = " + shown + " (" + sentence[order] + ")"
    return words
