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


def explanations(ranker: Ranker, described: pl.DataFrame, top: int = 3, in_words: bool = False) -> pl.Series:
    """The features that moved each score most, as text such as `item_clicks_15m +0.41, hour -0.10`. Shape (n_rows,).

    Args:
        ranker: The model.
        described: Its features.
        top: How many are named.
        in_words: Say what each means, as the catalogue does, with the value it had.
    """
    if described.is_empty():
        return pl.Series(dtype=pl.String)
    moved = ranker.contributions(described)
    order = np.argsort(-np.abs(moved), axis=1, kind="stable")[:, :top]
    names = np.array(described.columns)[order]
    values = np.take_along_axis(moved, order, axis=1)
    said = _words(described, order) if in_words else names
    columns = [
        pl.DataFrame({"said": said[:, i], "value": values[:, i]})
        .select(
            pl.format(
                "{} {}{}",
                "said",
                pl.when(pl.col("value") < 0).then(pl.lit("")).otherwise(pl.lit("+")),
                pl.col("value").round(3),
            )
        )
        .to_series()
        .rename(str(i))
        for i in range(order.shape[1])
    ]
    separator = "; " if in_words else ", "
    return pl.DataFrame(columns).select(pl.concat_str(pl.all(), separator=separator)).to_series()


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
