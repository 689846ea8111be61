"""Charts draw the figures they are given, at their place."""

import math
import re

import pytest

from newsrec.report.charts import bars, grouped_bars, heat_table, line_chart


def widths(chart: str) -> list[float]:
    return [float(each) for each in re.findall(r'<rect [^>]*width="([\d.]+)"', chart)]


def test_bars_are_as_long_as_their_figures() -> None:
    wide = widths(bars("gain", [("a", 40.0), ("b", 20.0), ("c", 0.0), ("d", -1.0)], " %"))
    assert wide[0] == pytest.approx(2 * wide[1])
    assert wide[2:] == [1, 1]  # a line at zero, so that the row is not empty


def test_groups_share_one_scale_and_a_legend() -> None:
    chart = grouped_bars("hits", [("x", {"hit@5": 0.2, "hit@50": 0.4}), ("y", {"hit@5": 0.1, "hit@50": math.nan})])
    wide = widths(chart)
    assert wide[1] == pytest.approx(2 * wide[0], abs=0.2) == pytest.approx(4 * wide[2], abs=0.4)
    assert chart.count("hit@50</text>") == 1


def test_lines_rise_where_figures_rise_and_the_best_is_marked() -> None:
    chart = line_chart("ndcg", {"train": [0.1, 0.2, 0.4], "valid": [0.1, 0.3, 0.2]}, "trees", marked=2)
    first, second = re.findall(r'points="([^"]+)"', chart)
    heights = [float(point.split(",")[1]) for point in first.split()]
    assert heights == sorted(heights, reverse=True)
    places = [float(point.split(",")[0]) for point in second.split()]
    mark = re.search(r'class="mark" x1="([\d.]+)"', chart)
    assert mark is not None
    assert float(mark.group(1)) == pytest.approx(places[1], abs=0.1)
    assert "best at 2: train ends at 0.4; valid ends at 0.2" in chart


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.5], [0.0, 0.0], [math.nan, 0.5]])
def test_lines_without_a_span_still_stand_inside(values: list[float]) -> None:
    chart = line_chart("flat", {"valid": values}, "trees")
    assert "nan" not in chart
    assert all(
        float(point.split(",")[1]) == 230
        for points in re.findall(r'points="([^"]+)"', chart)
        for point in points.split()
    )


def test_labels_of_lines_that_end_together_do_not_cover_each_other() -> None:
    chart = line_chart("ndcg", {"train": [0.1, 0.2], "valid": [0.1, 0.2]}, "trees")
    heights = [float(y) for y in re.findall(r'<circle [^>]*cy="([\d.]+)"', chart)]
    assert abs(heights[0] - heights[1]) >= 16


def test_nothing_to_draw_draws_nothing() -> None:
    assert line_chart("x", {}, "trees") == line_chart("x", {"a": [math.nan]}, "trees") == bars("x", []) == ""


def test_heat_follows_the_share_and_absent_pairs_stay_empty() -> None:
    table = heat_table("overlap", {"a": {"a": 1.0, "b": 0.25}, "b": {"b": 1.0}})
    assert re.findall(r"--share:(\d+)%", table) == ["100", "25", "100"]
    assert "<td></td></tr>" not in table
    assert '<th scope="row">b</th><td></td>' in table


def test_long_names_are_shortened_but_kept_on_hover() -> None:
    name = "user_category_share_of_clicks_in_the_last_24h"
    chart = bars("gain", [(name, 1.0)])
    assert f"<title>{name}</title>" in chart
    assert f">{name}<" not in chart.replace(f"<title>{name}</title>", "")
