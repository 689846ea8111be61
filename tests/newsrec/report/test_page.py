"""The page shows what the run has, leaves out what it has not, and trusts no text."""

import json
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newsrec.errors import BundleError
from newsrec.report import render_report, write_report

SCORES = {"mrr@5": 0.29, "hit@5": 0.47, "ndcg@5": 0.33, "ndcg@10": 0.36, "auc": 0.9, "gauc": 0.91, "auc_share": 0.8}
CALIBRATION = {
    "ece": 0.02, "ece_share": 0.04, "normalised_entropy": 0.8, "logloss": 0.05, "click_rate": 0.01,
    "curve": [{"probability": 0.001, "click_rate": 0.002, "rows": 900},
              {"probability": 0.2, "click_rate": 0.0, "rows": 100}],
}  # fmt: skip
ATTACK = "<script>alert('x')</script>"


def full(scale: float = 1.0) -> dict[str, Any]:
    """A run with every part."""
    scores = {name: value * scale for name, value in SCORES.items()}
    less = {name: value / 2 for name, value in scores.items()}
    by_slice = {"requests": 1234, "hit@5": 0.4, "mrr@5": 0.2, "ndcg@10": 0.3}
    hits = {"hit@5": 0.3, "hit@50": 0.6, "hit@100": 0.75, "unique@50": 0.04}
    return {
        "run": "tianchi-0", "created_at": "2026-01-02T03:04:05Z",
        "protocol": {"format": "tianchi", "validation": "last-click", "train_requests": 60000, "test_requests": 50000,
                     "candidates": "recall", "seed": 0, "fingerprint": "f" * 64},
        "recall": {"itemcf": hits, "popular": {**hits, "hit@5": 0.02},
                   "merged": {**hits, "candidates_per_request": 80.5}},
        "recall_overlap": {"itemcf": {"itemcf": 1.0, "popular": 0.2}, "popular": {"itemcf": 0.3, "popular": 1.0}},
        "rank": less, "rerank": scores, "rerank_alone": less,
        "intervals": {"mrr@5": [0.28, 0.30], "hit@5": [0.46, 0.48]},
        "baselines": {"popularity": {**less, "mrr@5": 0.029}, "recency": less, "recall_order": less},
        "curves": {"metric": "ndcg@5", "train": [0.1, 0.2, 0.3], "valid": [0.1, 0.15, 0.14], "best_iteration": 2},
        "calibration": {"method": "isotonic", "before": CALIBRATION, "after": CALIBRATION},
        "reranker": {"name": "din", "on": True, "top": 20, "weight": 0.4,
                     "gain": {"metric": "mrr@5", "first": 0.28, "second": 0.29, "difference": 0.01, "low": 0.004,
                              "high": 0.016},
                     "curves": {"metric": "mrr@5", "loss": [2.0, 1.9, 1.8], "train": [0.3, 0.33, 0.4],
                                "valid": [0.28, 0.29, 0.27], "best_epoch": 2},
                     "overfitting": "overfits after epoch 2: validation falls"},
        "importance": [{"feature": f"feature_{i}", "gain": 100.0 / (i + 1), "splits": 50 - i} for i in range(40)],
        "slices": [{"slice": "history clicks", "value": "3-5", **by_slice},
                   {"slice": "hour of day, UTC", "value": "07", **by_slice}],
        "artefacts": [{"name": "30 s gap", "found": True, "share": 0.39,
                       "explanation": "every last click follows by 30 s"}],
        "intake": {"rows_read": 1112623, "rows_quarantined": 3, "duplicate_clicks": 0,
                   "notes": ["12 articles lack metadata"]},
        "seconds": {"read": 1.5, "recall": 30.25, "features": 60.0, "rank": 20.0, "rerank": 10.0, "total": 121.75},
        "peak_rss_mb": 3512.4,
    }  # fmt: skip


SECTIONS = {
    "reranker": "The network on top", "baselines": "Baselines", "curves": "Learning curves",
    "calibration": "Calibration",
    "importance": "Feature importance", "slices": "Slices", "artefacts": "Artefacts of the data", "intake": "Intake",
}  # fmt: skip


class Outline(HTMLParser):
    """Tags that are open at once, so that a page that is not well nested fails."""

    VOID = frozenset({"meta", "line", "circle", "rect", "polyline", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def outline(page: str) -> Outline:
    parsed = Outline()
    parsed.feed(page)
    assert parsed.open == []
    return parsed


def test_a_full_run_shows_every_section_and_its_figures() -> None:
    page = render_report(full())
    for title in [*SECTIONS.values(), "The way of a click", "Recall attribution", "Time and memory"]:
        assert f"<h2>{title}</h2>" in page
    words = " ".join(outline(page).text)
    for told in ["last-click split", "counts as zero", "tianchi-0", "0.2800 to 0.3000", "10.0 ×", "30.2", "1,112,623",
                 "feature_39", "12 articles lack metadata", "3,512.4 MB", "yes", "0.3900", "80.5"]:  # fmt: skip
        assert told in words, told


def test_the_page_is_well_formed_and_its_charts_speak() -> None:
    parsed = outline(render_report(full()))
    charts = [attrs for tag, attrs in parsed.seen if tag == "svg"]
    ids = [str(attrs["id"]) for _, attrs in parsed.seen if "id" in attrs]
    assert len(charts) == 6
    assert len(ids) == len(set(ids)) == 12
    assert [part for attrs in charts for part in str(attrs["aria-labelledby"]).split()] == ids


def test_the_page_needs_nothing_from_outside() -> None:
    page = render_report(full())
    assert "http" not in page
    assert not {"script", "link", "img", "iframe", "image", "use", "object"} & {tag for tag, _ in outline(page).seen}
    for outside in ("url(", "@import", "src=", "href="):
        assert outside not in page


@pytest.mark.parametrize("key", sorted(full()))
def test_a_run_without_a_part_leaves_its_section_out(key: str) -> None:
    metrics = full()
    for absent in ({}, {key: None}):
        page = render_report({name: value for name, value in metrics.items() if name != key} | absent)
        outline(page)
        if key in SECTIONS:
            assert f"<h2>{SECTIONS[key]}</h2>" not in page
        assert "None" not in page
        assert "nan" not in page


def test_an_empty_run_is_still_a_page() -> None:
    page = render_report({})
    assert "<h2>" not in page
    assert "counts as zero" in page


@settings(max_examples=40, deadline=None)
@given(st.sets(st.sampled_from(sorted(full()))), st.sampled_from([{}, [], 0, "x", [1], {"a": 1}, {"a": {"b": "c"}}]))
def test_parts_of_any_shape_never_break_the_page(chosen: set[str], odd: object) -> None:
    """Not well nested is broken too, see `Outline`; the parts that are as they should be are still there."""
    parsed = outline(render_report(full() | dict.fromkeys(chosen, odd)))
    titles = {title for key, title in SECTIONS.items() if key not in chosen}
    assert titles <= set(parsed.text)
    assert parsed.seen[0][0] == "html"


def test_page_that_is_not_well_nested_would_be_found() -> None:
    for page in ("<html><b></html></b>", "<html>", "<html><p></html>"):
        with pytest.raises((AssertionError, IndexError)):
            outline(page)


def strings(value: object) -> object:
    """The same structure with an attack in the place of every text and name."""
    if isinstance(value, dict):
        return {key: strings(each) for key, each in value.items()} | {ATTACK: 0.5}
    if isinstance(value, list):
        return [strings(each) for each in value]
    return ATTACK if isinstance(value, str) else value


def test_every_text_stays_text() -> None:
    metrics = strings(full())
    assert isinstance(metrics, dict)
    metrics["recall"][ATTACK] = metrics["recall"]["itemcf"]
    metrics["recall_overlap"][ATTACK] = {ATTACK: 0.5}
    page = render_report(metrics)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") > 30
    assert "script" not in {tag for tag, _ in outline(page).seen}


def test_figures_that_do_not_exist_become_a_dash() -> None:
    metrics = full() | {"rank": {"mrr@5": math.nan, "hit@5": None, "auc": math.inf}, "rerank": {}}
    metrics["curves"]["valid"] = [0.1, math.nan, 0.2]
    metrics["recall"]["itemcf"]["hit@5"] = math.nan
    metrics["baselines"]["popularity"]["mrr@5"] = 0.0
    page = render_report(metrics)
    assert "nan" not in page
    assert ">inf<" not in page
    assert "–" in page


def test_intervals_may_be_given_per_stage() -> None:
    page = render_report(full() | {"intervals": {"rank": {"mrr@5": [0.1, 0.2]}, "rerank": {"mrr@5": [0.27, 0.31]}}})
    assert "0.2700 to 0.3100" in page
    assert "0.1000 to 0.2000" not in page


def test_the_same_run_gives_the_same_page() -> None:
    assert render_report(full()) == render_report(full())


def test_the_file_is_written_once_and_never_changed_in_place(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text(json.dumps(full()), encoding="utf-8")
    path = write_report(tmp_path)
    assert path == tmp_path / "report.html"
    assert path.read_text(encoding="utf-8") == render_report(full())
    path.write_text("kept")
    assert write_report(tmp_path).read_text() == "kept"
    elsewhere = write_report(tmp_path, tmp_path / "new" / "page.html")
    assert elsewhere.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["metrics.json", "new", "report.html"]


@pytest.mark.parametrize(("text", "message"), [(None, "cannot read"), ("{", "no JSON"), ("[]", "found list")])
def test_a_folder_without_figures_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(BundleError, match=message):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_the_networks_training_is_told_in_words() -> None:
    page = render_report(full())
    assert "mrr@5 by epochs" in page
    assert "epochs 1 to 3, best at 2: train ends at 0.4; valid ends at 0.27" in page
    assert "The network overfits after epoch 2: validation falls." in page
