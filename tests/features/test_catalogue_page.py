"""The page that says what every feature means is the catalogue itself."""

import re

import pytest

from features.catalog import FEATURES
from features.catalogue_page import PAGE, page
from newsrec.recall import CHANNELS


def rows() -> dict[str, list[str]]:
    cells = [re.split(r"(?<!\\) \| ", line.strip("| ")) for line in page().splitlines() if line.startswith("| `")]
    return {name.strip("`"): rest for name, *rest in cells}


def test_page_is_what_the_catalogue_says_now() -> None:
    """Else run `python -m features.catalogue_page`."""
    assert PAGE.read_text(encoding="utf-8") == page()


def test_every_feature_has_its_row_and_the_channels_one_for_all() -> None:
    assert set(rows()) == {f.name for f in FEATURES} | {"<channel>_score", "<channel>_rank"}
    assert CHANNELS
    assert all(len(cells) == 2 for cells in rows().values())


@pytest.mark.parametrize(
    ("name", "words", "needs"),
    [
        ("item_clicks_5m", "Readers of the article in the last 5m.", "-"),
        ("item_click_rate_all", "article's exposures so far that were clicked", "`impressions`"),
        ("item_clicks_all", "Readers of the article so far.", "-"),
        ("transition_lift_36h", "Above 1: read by this article's readers more than by the public.", "-"),
        ("is_page", "null on a front page", "`impressions.page_item_id`"),
        ("item_seconds_per_exposure_24h", "Seconds read", "`clicks.dwell_seconds`, `impressions`"),
    ],
)
def test_row_says_the_whole_docstring_and_what_it_needs(name: str, words: str, needs: str) -> None:
    meaning, needed = rows()[name]
    assert words in meaning
    assert needed == needs
