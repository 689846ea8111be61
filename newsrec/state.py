"""The part of a bundle that grows: the events that features are built from, and each recall channel's last table."""

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from newsrec.recall import Channel

FOLDERS = ("state", "recall")
"""Folders of a bundle that hold it."""


def write_state(
    folder: Path,
    clicks: pl.DataFrame,
    articles: pl.DataFrame,
    impressions: pl.DataFrame | None,
    channels: Mapping[str, Channel],
) -> None:
    """Write `state/` and `recall/` into a new bundle.

    Args:
        folder: The temporary folder.
        clicks: Canonical clicks, at least one.
        articles: Canonical articles.
        impressions: Canonical impressions, or None.
        channels: Fitted channels by name; their tables are those of the last refresh before the last click's end.
    """
    for name in FOLDERS:
        (folder / name).mkdir()
    frames = {"clicks": clicks, "articles": articles, "impressions": impressions}
    for name, frame in frames.items():
        if frame is not None:
            frame.write_parquet(folder / "state" / f"{name}.parquet")
    until = int(clicks["clicked_at"].dt.timestamp("ms").max()) + 1  # type: ignore[arg-type]
    for name, channel in channels.items():
        channel.table(until).write_parquet(folder / "recall" / f"{name}.parquet")
