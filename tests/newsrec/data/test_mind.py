"""MIND by hand: tokens, histories without times, test sets, lines that cannot be read."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from newsrec.data import ReadOptions, log_from_frames, read_log, write_log
from newsrec.data.mind import HISTORY_DAYS
from newsrec.data.slates import LONGEST
from newsrec.errors import DataError
from newsrec.inspect import inspect_log
from newsrec.simulate import SimulationConfig, write_simulation
from tests.factories import noted, shown

FIRST = datetime(2019, 11, 11, 0, 14, 46, tzinfo=UTC)
ROWS = [
    "7\tU1\t11/12/2019 2:14:46 PM\tN3 N9 N3\tN5-0 N1-1 N4-1",
    "2\tU2\t11/11/2019 12:14:46 AM\t\tN8-1 N5-0",
    "5\tU1\t11/12/2019 2:20:00 PM\tN3 N9 N3\tN6-0",
]
NEWS = (
    'N1\tnews\tnewsus\t"CBS" headlines "live\tAbstract\thttps://x\t[]\t[]\nN5\tsports\tgolf\tTitle\t\thttps://x\t[]\t\n'
)
ALL = ReadOptions(max_bad_share=1.0)


def mind(folder: Path, rows: list[str] = ROWS, news: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "behaviors.tsv").write_text("".join(row + "\n" for row in rows))
    if news:
        (folder / "news.tsv").write_text(news)
    return folder


def test_tokens_become_rows_in_their_order(tmp_path: Path) -> None:
    log = read_log(mind(tmp_path))
    assert log.format == "mind"
    expected = ["request_id", "user_id", "requested_at", "item_id", "clicked", "slate_order"]
    assert shown(log).columns == expected
    assert shown(log).drop("requested_at").rows() == [
        (2, "U2", "N8", True, 1),
        (2, "U2", "N5", False, 2),
        (7, "U1", "N5", False, 1),
        (7, "U1", "N1", True, 2),
        (7, "U1", "N4", True, 3),
        (5, "U1", "N6", False, 1),
    ]
    assert shown(log)["requested_at"].unique().sort().to_list() == [
        FIRST,
        datetime(2019, 11, 12, 14, 14, 46, tzinfo=UTC),
        datetime(2019, 11, 12, 14, 20, tzinfo=UTC),
    ]


def test_history_stands_in_its_order_long_before_the_log_and_once(tmp_path: Path) -> None:
    log = read_log(mind(tmp_path))
    last = FIRST - timedelta(days=HISTORY_DAYS)
    assert log.clicks.rows() == [
        ("U1", "N3", last - timedelta(minutes=2)),
        ("U1", "N9", last - timedelta(minutes=1)),
        ("U1", "N3", last),
        ("U2", "N8", FIRST),
        ("U1", "N1", datetime(2019, 11, 12, 14, 14, 46, tzinfo=UTC)),
        ("U1", "N4", datetime(2019, 11, 12, 14, 14, 46, tzinfo=UTC)),
    ]
    assert log.intake.duplicate_clicks == 0
    assert noted(
        log, "clicks: 3 of histories without times stand one minute apart, the last of each user 60 days before"
    )


def test_what_a_history_gains_within_the_log_is_not_known_before_it(tmp_path: Path) -> None:
    grown = [*ROWS, "9\tU1\t11/13/2019 1:00:00 PM\tN3 N9 N3 N1 N77\tN6-1"]
    log = read_log(mind(tmp_path, grown))
    of_user = log.clicks.filter(pl.col("user_id") == "U1")["item_id"].to_list()
    assert of_user == ["N3", "N9", "N3", "N1", "N4", "N6"]
    assert noted(log, "clicks: 1 users have rows with several histories; the one of their first row is taken")


def test_news_is_text_without_quoting(tmp_path: Path) -> None:
    log = read_log(mind(tmp_path, news=NEWS))
    assert log.articles.to_dicts() == [
        {"item_id": "N1", "category": "news", "title": '"CBS" headlines "live', "subcategory": "newsus"},
        {"item_id": "N5", "category": "sports", "title": "Title", "subcategory": "golf"},
    ]
    assert noted(log, "articles: abstract, url, title_entities, abstract_entities are left out")


def test_quotes_are_text_on_every_way_in(tmp_path: Path) -> None:
    """Whole titles in quotes would lose them in the quick reader, stray ones would swallow lines in the slow one."""
    tail = "\tAbstract\thttps://x\t[]\t[]\n"
    whole = f'N1\tnews\tus\t"Whole"{tail}N5\tnews\tus\tPlain{tail}'
    log = read_log(mind(tmp_path, news=whole))
    assert log.articles["title"].to_list() == ['"Whole"', "Plain"]
    stray = f'N6\tnews\tus\tStray "{tail}N7\tnews\tus\tPlain{tail}N8\tnews\tus\t"Another{tail}'
    log = read_log(mind(tmp_path, news=whole + stray + "N9\tragged\n"), options=ALL)
    assert log.articles["title"].to_list() == ['"Whole"', "Plain", 'Stray "', "Plain", '"Another']
    assert log.intake.rows_quarantined == 1


def test_test_set_reads_with_nothing_clicked(tmp_path: Path) -> None:
    bare = [row.replace("-0", "").replace("-1", "") for row in ROWS]
    log = read_log(mind(tmp_path, bare))
    assert not shown(log)["clicked"].any()
    assert shown(log)["item_id"].to_list() == ["N8", "N5", "N5", "N1", "N4", "N6"]
    assert log.clicks.height == 3
    assert noted(log, "impressions: no labels, as in the competition's test set")
    assert read_log(mind(tmp_path, bare[1:2])).clicks.height == 0


def test_the_one_part_that_is_there_is_read(tmp_path: Path) -> None:
    mind(tmp_path / "MINDsmall_train", news=NEWS)
    for path in (tmp_path, tmp_path / "MINDsmall_train", tmp_path / "MINDsmall_train" / "behaviors.tsv"):
        log = read_log(path)
        assert (log.format, shown(log).height, log.articles.height) == ("mind", 6, 2)
    mind(tmp_path / "MINDsmall_dev")
    with pytest.raises(DataError, match=r"\['MINDsmall_dev', 'MINDsmall_train'\] found; name one"):
        read_log(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"mind: 'behaviors\.tsv' expected in '.*' or in a folder there, none found"):
        read_log(tmp_path / "empty", "mind")


def test_repeats_and_empty_slates_are_dropped_and_counted(tmp_path: Path) -> None:
    rows = [ROWS[0] + " N5-0 N6-0 N6-1", ROWS[1], "5\tU1\t11/12/2019 2:20:00 PM\tN3 N9 N3\t"]
    log = read_log(mind(tmp_path, rows))
    of_request = shown(log).filter(pl.col("request_id") == 7).select("item_id", "clicked", "slate_order")
    assert of_request.rows() == [("N5", False, 1), ("N1", True, 2), ("N4", True, 3), ("N6", True, 6)]
    assert 5 not in shown(log)["request_id"]
    assert noted(log, "impressions: 2 rows repeat an item of the same request and were dropped")
    assert noted(log, "impressions: 1 of 3 slates are empty and were dropped")


def test_harmless_oddities_are_read(tmp_path: Path) -> None:
    """Windows line ends, blank lines, spaces at the ends and between, no last line end."""
    clean = read_log(mind(tmp_path / "clean"))
    odd = [ROWS[0].replace("N5-0 ", " N5-0  "), "", ROWS[1] + " ", ROWS[2].replace("N3 N9", "N3  N9")]
    folder = mind(tmp_path / "odd")
    (folder / "behaviors.tsv").write_bytes("\r\n".join(odd).encode())
    log = read_log(folder)
    assert (log.fingerprint, log.intake.rows_read) == (clean.fingerprint, 3)


NOT_A_SLATE = "'impressions' is not a list such as N123-0 N456-1, or N123 N456 without labels: "
BAD = {
    "other label": ("9\tU1\t11/12/2019 2:14:46 PM\tN3\tN1-0 N123-2", NOT_A_SLATE + "N1-0 N123-2"),
    "half labelled": ("9\tU1\t11/12/2019 2:14:46 PM\tN3\tN1-0 N123", NOT_A_SLATE + "N1-0 N123"),
    "commas": ("9\tU1\t11/12/2019 2:14:46 PM\tN3\tN1-0,N2-1", NOT_A_SLATE + "N1-0,N2-1"),
    "no label": ("9\tU1\t11/12/2019 2:14:46 PM\tN3\tN1", "'impressions' has no -0 and -1, which other rows have"),
    "history": ("9\tU1\t11/12/2019 2:14:46 PM\tN3-1\tN1-0", "'history' is not a list such as N123 N456: N3-1"),
    "short": ("9\tU1\t11/12/2019 2:14:46 PM\tN3", "5 fields expected, 4 found"),
    "long": ("9\tU1\t11/12/2019 2:14:46 PM\tN3\tN1-0\tx", "5 fields expected, 6 found"),
    "text id": ("x9\tU1\t11/12/2019 2:14:46 PM\tN3\tN1-0", "'impression_id' is not a whole number of 64 bits: x9"),
    "no user": ("9\t\t11/12/2019 2:14:46 PM\tN3\tN1-0", "'user_id' is missing"),
    "no time": ("9\tU1\t\tN3\tN1-0", "'time' is missing"),
    "month 13": (
        "9\tU1\t13/12/2019 2:14:46 PM\tN3\tN1-0",
        "'time' is not a time from 1990 until now such as 11/15/2019 2:14:46 PM: 13/12/2019 2:14:46 PM",
    ),
    "future": (
        "9\tU1\t11/12/2098 2:14:46 PM\tN3\tN1-0",
        "'time' is not a time from 1990 until now such as 11/15/2019 2:14:46 PM: 11/12/2098 2:14:46 PM",
    ),
    "NUL": ("9\tU1\0\t11/12/2019 2:14:46 PM\tN3\tN1-0", "a NUL byte"),
    "endless slate": (
        "9\tU1\t11/12/2019 2:14:46 PM\tN3\t" + " ".join(f"N{place}-0" for place in range(LONGEST + 1)),
        "'impressions' holds 10001 items, at most 10000 expected",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_row_is_set_aside_with_its_line_and_reason(name: str, tmp_path: Path) -> None:
    bad, reason = BAD[name]
    clean = read_log(mind(tmp_path))
    mind(tmp_path, [ROWS[0], bad, *ROWS[1:]])
    with pytest.raises(
        DataError, match=r"impressions: at most 1.00% bad rows expected, 1 of 4 .*behaviors\.tsv line 2"
    ):
        read_log(tmp_path)
    log = read_log(tmp_path, options=ReadOptions(max_bad_share=0.5, quarantine=tmp_path / "bad.csv"))
    assert_frame_equal(shown(log), shown(clean))
    assert_frame_equal(log.clicks, clean.clicks)
    kept = pl.read_csv(tmp_path / "bad.csv").row(0, named=True)
    assert (kept["line"], kept["reason"], kept["raw"]) == (2, reason, bad)


def test_a_label_among_many_without_is_bad(tmp_path: Path) -> None:
    bare = [row.replace("-0", "").replace("-1", "") for row in ROWS]
    log = read_log(mind(tmp_path, [*bare, ROWS[2].replace("5\t", "6\t", 1)]), options=ALL)
    assert (6 in shown(log)["request_id"], log.intake.rows_quarantined) == (False, 1)


def test_nothing_to_read_is_one_line(tmp_path: Path) -> None:
    folder = mind(tmp_path, [])
    with pytest.raises(DataError, match=r"lines of 5 fields expected at '.*', an empty file found; fetch the file"):
        read_log(folder)
    mind(tmp_path, ["clicks,and,commas"] * 3)
    with pytest.raises(DataError, match=r"3 of 3 \(100.00%\) found; behaviors\.tsv line 1: 5 fields expected, 1 found"):
        read_log(folder)


def test_ids_that_a_list_cannot_hold_are_refused(tmp_path: Path) -> None:
    at = "2019-11-12T14:14:46Z"
    for item, request, expected in (
        ("a b", 1, r"ids of letters, digits and '_' expected, \['a b'\]"),
        ("a", "r", "request"),
    ):
        slate = pl.DataFrame(
            {"request_id": [request], "user_id": ["u"], "requested_at": [at], "item_id": [item], "clicked": [True]}
        )
        click = pl.DataFrame({"user_id": ["u"], "item_id": [item], "clicked_at": [at]})
        with pytest.raises(DataError, match=expected):
            write_log(log_from_frames(click, impressions=slate), tmp_path, "mind", lossy=True)


def test_times_that_seconds_cannot_hold_are_a_loss(tmp_path: Path) -> None:
    log = read_log(mind(tmp_path))
    half = pl.duration(milliseconds=500)
    later = pl.when(pl.col("clicked_at") >= FIRST).then(pl.col("clicked_at") + half).otherwise("clicked_at")
    clicks = log.clicks.with_columns(later)
    moved = log_from_frames(clicks, impressions=shown(log).with_columns(pl.col("requested_at") + half), format="mind")
    with pytest.raises(DataError) as caught:
        write_log(moved, tmp_path, "mind")
    lost = "['milliseconds of impressions.requested_at', 'users, items or times of 3 clicks']"
    assert lost in str(caught.value)


def test_titles_with_line_ends_are_a_loss(tmp_path: Path) -> None:
    log = read_log(mind(tmp_path, news=NEWS))
    broken = log_from_frames(
        log.clicks, log.articles.with_columns(title=pl.lit("two\n\tlines")), shown(log), format="mind"
    )
    with pytest.raises(DataError, match=r"found: \['line ends in articles\.title'\]"):
        write_log(broken, tmp_path, "mind")
    write_log(broken, tmp_path, "mind", lossy=True)
    assert read_log(tmp_path).articles["title"].unique().to_list() == ["two lines"]


def test_simulated_log_keeps_its_slates_under_named_ids(tmp_path: Path) -> None:
    simulated = write_simulation(tmp_path, "mind", SimulationConfig(users=60, days=1)).log
    log = read_log(tmp_path)
    expected = shown(simulated).select(
        "request_id",
        pl.format("U{}", "user_id").alias("user_id"),
        pl.col("requested_at").dt.truncate("1s"),
        pl.format("N{}", "item_id").alias("item_id"),
        "clicked",
        slate_order="position",
    )
    assert_frame_equal(shown(log), expected.sort("requested_at", "request_id", "slate_order"))
    assert log.clicks.height == simulated.clicks.height


REAL = os.environ.get("NEWSREC_TEST_DATA")


@pytest.mark.skipif(not REAL, reason="NEWSREC_TEST_DATA names no folder with real logs")
def test_real_sample_reads_whole_and_writes_back(tmp_path: Path) -> None:
    log = read_log(Path(str(REAL)) / "mind")
    assert (shown(log)["request_id"].n_unique(), shown(log).height, log.clicks.height) == (5_000, 189_359, 146_474)
    assert (log.articles.height, log.intake.rows_quarantined, int(shown(log)["clicked"].sum())) == (2_000, 0, 7_542)
    assert [(count.label, count.positives) for count in inspect_log(log).labels] == [("clicked", 7_542)]
    border = shown(log)["requested_at"][0] - timedelta(days=HISTORY_DAYS)
    assert log.clicks.filter(pl.col("clicked_at") <= border).height == log.clicks.height - 7_542
    write_log(log, tmp_path, "mind")
    back = read_log(tmp_path)
    for left, right in ((back.clicks, log.clicks), (shown(back), shown(log)), (back.articles, log.articles)):
        assert_frame_equal(left, right)
