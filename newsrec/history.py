"""The events of a bundle's state and of a log that it is asked about, as one store."""

import polars as pl

from features.columns import CLICK_KEY, TIME
from features.events import EventStore
from newsrec.asked import refuse_other_ids
from newsrec.state import may_be_folded


def store_over(
    known: EventStore, clicks: pl.DataFrame, articles: pl.DataFrame, impressions: pl.DataFrame | None
) -> EventStore:
    """A log after what is known where it continues it, else the log alone: see `Recommender.with_log`.

    Args:
        known: The state; it stays as it is.
        clicks: Canonical clicks.
        articles: Canonical articles; those that only the state knows are added.
        impressions: Canonical impressions, or None.

    Raises:
        DataError: Ids of another kind than the state's.
    """
    refuse_other_ids(clicks, known.clicks, ("user_id", "item_id"))
    refuse_other_ids(articles, known.articles, ("item_id",) if len(articles) else ())
    continues = _continues(known, clicks, impressions)
    if continues:
        clicks = clicks.filter(~may_be_folded(clicks, known))
        clicks = pl.concat([known.clicks, clicks], how="diagonal_relaxed").unique(CLICK_KEY, maintain_order=True)
        frames = [frame for frame in (known.impressions, impressions) if frame is not None]
        impressions = pl.concat(frames, how="diagonal_relaxed") if frames else None
    both = pl.concat([articles, known.articles], how="diagonal_relaxed")
    folded = known.folded if continues else None
    return EventStore(clicks, both.unique("item_id", keep="first", maintain_order=True), impressions, folded)


def _continues(known: EventStore, clicks: pl.DataFrame, impressions: pl.DataFrame | None) -> bool:
    """Whether nothing of the log happened before the state's end; a log without an event continues every state."""
    none_shown = impressions is None or impressions.is_empty()
    began = clicks["clicked_at"].min() if impressions is None or none_shown else impressions["requested_at"].min()
    if began is None or known.last_event is None:
        return clicks.is_empty() and none_shown
    return bool(began > pl.Series([known.last_event]).cast(TIME)[0])
