"""The page `CATALOGUE.md`: every feature in words, made from the catalogue.

`python -m features.catalogue_page` rewrites it.
"""

import importlib
from pathlib import Path
from typing import Final

from features.catalog import FAMILIES, Feature, features_for

PAGE: Final = Path(__file__).with_name("CATALOGUE.md")

CHANNEL: Final = "<channel>"
"""Stands for each recall channel."""

HEAD: Final = """\
# Features

Made by `python -m features.catalogue_page` from the docstrings of `features/`; do not edit.

Every feature is one Float32 column, in this order but for those of the recall channels, which come last. A feature is
left out where the log lacks a part that it needs. Everything is known strictly before the request: what describes
articles, up to its `statistics_at`, what describes the user, up to its `requested_at`. "-" needs clicks only.
"""


def page() -> str:
    """The whole page, Markdown."""
    features = features_for([CHANNEL])
    parts = [_section(family, [f for f in features if f.family == family]) for family in FAMILIES]
    return "\n".join([HEAD, *parts])


def _section(family: str, features: list[Feature]) -> str:
    about = importlib.import_module(f"features.{family}").__doc__ or ""
    rows = [f"| `{f.name}` | {_meaning(f)} | {_needs(f)} |" for f in features]
    table = ["| feature | meaning | needs |", "|---|---|---|", *rows]
    return "\n".join([f"## {family} ({len(features)})", "", about.strip(), "", *table, ""])


def _meaning(feature: Feature) -> str:
    return feature.text.replace("|", r"\|").replace(CHANNEL, f"`{CHANNEL}`")


def _needs(feature: Feature) -> str:
    return ", ".join(f"`{part}`" for part in sorted(feature.requires)) or "-"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
