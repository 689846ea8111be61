"""What the recall channels said of the candidate: their own scores and ranks, and the merged order."""

import polars as pl


def channel_score(channel: str) -> pl.Expr:
    """Score of the recall channel {channel}. The channel's own unit, null where it did not propose the article."""
    return pl.col(f"{channel}_score")


def channel_rank(channel: str) -> pl.Expr:
    """Rank that the recall channel {channel} gave. 1 is best, null where it did not propose the article."""
    return pl.col(f"{channel}_rank")


def recall_rank() -> pl.Expr:
    """Rank in the merged list of all channels. 1 is best."""
    return pl.col("recall_rank")
