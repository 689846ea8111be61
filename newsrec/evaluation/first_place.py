"""The policy that a ranking is, on lists that were shown in random order: it chooses which article stands first.

Under a random order each article of a list of n stands first with probability 1 / n, so what the lists with the chosen
article on top earned tells what the ranking would earn (Li et al. 2010, on uniformly logged events). The rest of the
list stays in random order.
"""

from typing import Final

import polars as pl

from newsrec.errors import DataError
from newsrec.frames import to_polars

CLASSES: Final = 5
"""Classes of the first article's place in the ranking by which a list's clicks are predicted."""
_FIRST: Final = pl.col("position") == pl.col("position").min()


def first_place(impressions: object, scores: object) -> pl.DataFrame:
    """Decisions about the first place, for `newsrec.evaluation.off_policy`.

    Args:
        impressions: Polars or pandas, shown lists in random order: `request_id, user_id, item_id, position` (1 is the
            top), `clicked`. Lists without a click belong to them.
        scores: Polars or pandas, of the same lists: `request_id, item_id, score`, higher is better. A list without
            scores is left out.

    Returns:
        One row per list: `request_id, user_id, reward` (1 where anything in the list was clicked), `propensity`
        (1 / n), `target` (1 where the article with the best score stood first; articles that share it share the 1), and
        `predicted, predicted_target`: the share of clicked lists with a first article of the same class of places in
        the ranking, and of those with the best, among the users of the other half.

    Raises:
        DataError: Missing columns, or no list in both frames.
    """
    shown, scored = to_polars(impressions, "impressions"), to_polars(scores, "scores")
    needed = {"request_id", "user_id", "item_id", "position", "clicked"}
    missing = sorted((needed - set(shown.columns)) | ({"request_id", "item_id", "score"} - set(scored.columns)))
    if missing:
        raise DataError(
            f"first place: expected columns {missing}, found {shown.columns} and {scored.columns}. "
            "Only lists with the positions that they were shown in can be asked."
        )
    keys = ["request_id", "item_id"]
    joined = shown.select(*sorted(needed)).join(scored.select(*keys, "score"), on=keys, maintain_order="left")
    if joined.is_empty():
        raise DataError("first place: expected shown lists with scores, found no article in both.")
    best = pl.col("score") == pl.col("score").max()
    place = (pl.col("score").rank("min", descending=True) - 1) / pl.len()
    lists = joined.group_by("request_id", maintain_order=True).agg(
        pl.col("user_id").first(),
        pl.col("clicked").any().cast(pl.Float64).alias("reward"),
        (1 / pl.len()).alias("propensity"),
        pl.when(best.filter(_FIRST).first()).then(1 / best.sum()).otherwise(0.0).alias("target"),
        pl.when(best).then(0).otherwise(1 + (place * (CLASSES - 1)).floor()).filter(_FIRST).first().alias("class"),
    )
    half = (pl.col("user_id").rank("dense").cast(pl.Int64) % 2).alias("half")
    return _predicted(lists.with_columns(half)).drop("class", "half")


def _predicted(lists: pl.DataFrame) -> pl.DataFrame:
    """With what each half's lists say of the other half's."""
    told = lists.group_by("half", "class").agg(pl.col("reward").mean().alias("predicted"))
    told = told.with_columns((1 - pl.col("half")).alias("half"))
    usual = pl.col("reward").mean()
    best = told.filter(pl.col("class") == 0).select("half", pl.col("predicted").alias("predicted_target"))
    joined = lists.join(told, on=["half", "class"], how="left", maintain_order="left").join(
        best, on="half", how="left", maintain_order="left"
    )
    return joined.with_columns(pl.col("predicted").fill_null(usual), pl.col("predicted_target").fill_null(usual))
