"""Faulty files: nothing turns into null in silence, every bad row keeps its line, every refusal is one clear line."""

import re
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from newsrec.data import ReadOptions, log_from_frames, read_log
from newsrec.data.auto import detect
from newsrec.errors import DataError, NewsrecError

T0 = 1_507_000_000_000
NAMES = "user_id,click_article_id,click_timestamp,click_os"
GOOD = [f"{place},{place % 5},{T0 + place},{place % 3}" for place in range(40)]
ALL = ReadOptions(max_bad_share=1.0)


def click_log(folder: Path, rows: list[str] | bytes, header: str = NAMES) -> Path:
    body = rows if isinstance(rows, bytes) else "".join(row + "\n" for row in rows).encode()
    (folder / "train_click_log.csv").write_bytes(header.encode() + b"\n" + body)
    return folder


BAD_ROWS = {
    "short": (b"1,2", "4 fields expected, 2 found"),
    "short by the last": (f"1,2,{T0}".encode(), "4 fields expected, 3 found"),
    "long": (f"1,2,{T0},4,5".encode(), "4 fields expected, 5 found"),
    "text id": (f"N7,2,{T0},4".encode(), "'user_id' is not a whole number of 64 bits: N7"),
    "float id": (f"1e18,2,{T0},4".encode(), "'user_id' is not a whole number of 64 bits: 1e18"),
    "too many digits": (
        f"1,{10**25},{T0},4".encode(),
        f"'click_article_id' is not a whole number of 64 bits: {10**25}",
    ),
    "wide context": (f"1,2,{T0},{2**40}".encode(), f"'click_os' is not a whole number of 32 bits: {2**40}"),
    "no user": (f",2,{T0},4".encode(), "'user_id' is missing"),
    "no time": (b"1,2,,4", "'click_timestamp' is missing"),
    "NUL": (f"1\0,2,{T0},4".encode(), "a NUL byte"),
    "latin-1": (f"1,2,{T0},".encode() + b"\xe9", "bytes that are not UTF-8"),
    "1970": (
        b"1,2,86400,4",
        "'click_timestamp' is not a time from 1990 until now (epoch in s, ms, us or ns, or ISO 8601): 86400",
    ),
    "55840": (
        f"1,2,{T0 * 1000},4".encode(),
        f"'click_timestamp' is not a time from 1990 until now (epoch in s, ms, us or ns, or ISO 8601): {T0 * 1000}",
    ),
    "2099": (
        b"1,2,4070908800000,4",
        "'click_timestamp' is not a time from 1990 until now (epoch in s, ms, us or ns, or ISO 8601): 4070908800000",
    ),
    "open quote": (f'"1,2,{T0},4'.encode(), "quotes that do not match"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_bad_row_is_set_aside_with_its_line_and_reason(name: str, tmp_path: Path) -> None:
    bad, reason = BAD_ROWS[name]
    clean = read_log(click_log(tmp_path, GOOD))
    raw = "\n".join(GOOD[:20]).encode() + b"\n" + bad + b"\n" + "\n".join(GOOD[20:]).encode()
    options = ReadOptions(max_bad_share=0.05, quarantine=tmp_path / "out" / "bad.csv")
    log = read_log(click_log(tmp_path, raw), options=options)
    assert log.clicks.equals(clean.clicks)
    assert (log.intake.rows_read, log.intake.rows_quarantined) == (41, 1)
    kept = pl.read_csv(tmp_path / "out" / "bad.csv").row(0, named=True)
    assert (kept["line"], kept["reason"]) == (22, reason)
    assert kept["file"].endswith("train_click_log.csv")
    assert kept["raw"] == bad.decode("utf-8", "replace")


@pytest.mark.parametrize("name", BAD_ROWS)
def test_more_bad_rows_than_allowed_are_refused(name: str, tmp_path: Path) -> None:
    bad, reason = BAD_ROWS[name]
    raw = bad + b"\n" + "\n".join(GOOD).encode() + b"\n"
    with pytest.raises(DataError) as caught:
        read_log(click_log(tmp_path, raw))
    message = str(caught.value)
    assert "clicks: at most 1.00% bad rows expected, 1 of 41 (2.44%) found" in message
    assert f"train_click_log.csv line 2: {reason}" in message
    assert "\n" not in message


def test_harmless_oddities_are_read(tmp_path: Path) -> None:
    """A byte order mark, Windows line ends, blank lines, quotes, spaces, 5.0 for 5, no last line end."""
    clean = read_log(click_log(tmp_path, GOOD))
    rows = [f'"{row.split(",")[0]}",{row.split(",", 1)[1]}' for row in GOOD[:5]] + ["", *GOOD[5:]]
    rows[-1] = rows[-1].replace("39,4,", " 39,4.0,")
    body = "\r\n".join(rows).encode()
    log = read_log(click_log(tmp_path, body, header="\ufeff" + NAMES + "\r"))
    assert log.clicks.equals(clean.clicks)
    assert (log.intake.rows_read, log.intake.rows_quarantined) == (40, 0)


def test_quoted_line_ends_stay_in_their_row(tmp_path: Path) -> None:
    (tmp_path / "clicks.csv").write_text(f"user_id,item_id,clicked_at\nu,a,{T0}\nu,b,{T0}\n")
    titles = 'item_id,title\na,"two\nlines, ""quoted"""\nb,plain\n'
    (tmp_path / "articles.csv").write_text(titles)
    log = read_log(tmp_path)
    assert log.articles["title"].to_list() == ['two\nlines, "quoted"', "plain"]
    (tmp_path / "articles.csv").write_text(titles + 'c,"never closed\nd,x\n')
    log = read_log(tmp_path, options=ALL)
    assert log.articles["item_id"].to_list() == ["a", "b", "d"]
    assert log.intake.rows_quarantined == 1


def test_text_ids_survive_what_integers_would_not(tmp_path: Path) -> None:
    ids = ["007", "7", "1e18", "99999999999999999999999999999999999999999", "a,b", "NaN", "null"]
    rows = "".join(f'"{name}",{name if "," not in name else "x"},{T0}\n' for name in ids)
    (tmp_path / "clicks.csv").write_text("user_id,item_id,clicked_at\n" + rows)
    assert sorted(read_log(tmp_path).clicks["user_id"]) == sorted(ids)


def test_text_with_a_nul_byte_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "clicks.csv").write_text(f"user_id,item_id,clicked_at\nu,a,{T0}\nv\0,a,{T0}\n")
    log = read_log(tmp_path, options=ALL)
    assert (log.clicks["user_id"].to_list(), log.intake.rows_quarantined) == (["u"], 1)


def test_two_stray_quotes_do_not_swallow_the_lines_between(tmp_path: Path) -> None:
    rows = [f"u{place},a,{T0 + place}" for place in range(6)]
    rows[1] = '"' + rows[1]
    rows[4] = '"' + rows[4]
    (tmp_path / "clicks.csv").write_text("user_id,item_id,clicked_at\n" + "\n".join(rows) + "\n")
    log = read_log(tmp_path, options=ALL)
    assert log.clicks["user_id"].to_list() == ["u0", "u2", "u3", "u5"]
    assert log.intake.rows_quarantined == 2


def test_article_values_that_make_no_sense_become_unknown_with_a_note(tmp_path: Path) -> None:
    click_log(tmp_path, GOOD)
    rows = f"0,1,{T0},200\n1,1,-1,300\n2,1,0,many\n3,1,,\n4,1,{T0},5\n"
    (tmp_path / "articles.csv").write_text("article_id,category_id,created_at_ts,words_count\n" + rows)
    log = read_log(tmp_path)
    assert log.articles["created_at"].null_count() == 3
    assert any(note.startswith("articles: 2 values of 'created_at_ts' are not a time") for note in log.intake.notes)
    assert any(note.startswith("articles: 1 values of 'words_count' are not a whole") for note in log.intake.notes)


def test_parquet_of_other_dtypes_is_cast_or_set_aside(tmp_path: Path) -> None:
    good = pl.DataFrame({"user_id": ["1", "2", "x"], "click_article_id": [1.0, 2.0, 3.0], "click_timestamp": [T0] * 3})
    good.write_parquet(tmp_path / "clicks.parquet")
    log = read_log(tmp_path, options=ReadOptions(max_bad_share=0.5, quarantine=tmp_path / "bad.csv"))
    assert log.clicks.select("user_id", "item_id").rows() == [(1, 1), (2, 2)]
    kept = pl.read_csv(tmp_path / "bad.csv").row(0, named=True)
    assert (kept["line"], kept["raw"]) == (3, f"x,3.0,{T0}")
    good.with_columns(user_id=pl.lit([1])).write_parquet(tmp_path / "clicks.parquet")
    with pytest.raises(DataError, match=r"column 'user_id': a whole number expected, dtype List"):
        read_log(tmp_path)


CLICKS = "user_id,item_id,clicked_at\n"
REFUSED: dict[str, tuple[dict[str, bytes], str, str]] = {
    "empty": (
        {"clicks.csv": b""},
        "table",
        r"a CSV with a header line expected at '.*clicks\.csv', an empty file found",
    ),
    "header only": ({"clicks.csv": CLICKS.encode()}, "table", "clicks: at least one row expected, none found"),
    "missing columns": (
        {"clicks.csv": b"user,item_id,time\n1,2,3\n"},
        "table",
        r"clicks: 2 missing columns 'clicked_at', 'user_id' in '.*'; found \['item_id', 'time', 'user'\]; .*map the",
    ),
    "no header": ({"train_click_log.csv": b"1,2,3\n"}, "auto", r"3 missing columns .* found \['1', '2', '3'\]"),
    "twice the same column": ({"clicks.csv": b"user_id,user_id,x\n"}, "table", r"\['user_id'\] found more than once"),
    "UTF-16": ({"clicks.csv": CLICKS.encode("utf-16")}, "table", "a CSV in UTF-8 expected .*; save it as UTF-8"),
    "UTF-16 without mark": ({"clicks.csv": CLICKS.encode("utf-16-le")}, "table", "NUL or bare .* found in its header"),
    "junk": ({"clicks.csv": CLICKS.encode() + b"\x00\xff\xfe\n" * 9}, "table", r"9 of 9 \(100\.00%\) found"),
    "cut Parquet": ({"clicks.parquet": b"PAR1abcdef"}, "table", r"a whole Parquet file expected .*10 bytes found"),
    "two clicks": (
        {"clicks.csv": b"x", "clicks.tsv": b"x"},
        "table",
        r"\['clicks\.csv', 'clicks\.tsv'\] found; keep one",
    ),
    "no clicks": (
        {"articles.csv": b"item_id\n"},
        "table",
        r"clicks\.\* or impressions\.\* .*\['articles\.csv'\] found",
    ),
    "nothing": ({}, "auto", r"nothing found|files of one of the formats"),
    "wrong format": ({"clicks.csv": CLICKS.encode()}, "tianchi", "'train_click_log.csv' or .* neither found"),
    "other globo": ({"x.csv": b"1"}, "globo", r"globo: one of \['clicks\.parquet'"),
    "other ids": (
        {"clicks.csv": f"{CLICKS}u,7,{T0}\n".encode(), "articles.csv": b"item_id\nN7\n"},
        "table",
        r"articles: item ids of the clicks expected \(such as \['7'\]\), none of 1 found \(there are \['N7'\]\)",
    ),
    "mixed units": (
        {"clicks.csv": f"{CLICKS}u,7,{T0}\nu,8,{T0}\nu,9,{T0 // 1000}\n".encode()},
        "table",
        r"1 of 3 .*'clicked_at' is not a time .*: 1507000000",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusal_is_one_clear_line(name: str, tmp_path: Path) -> None:
    files, format, expected = REFUSED[name]
    for file, content in files.items():
        (tmp_path / file).write_bytes(content)
    with pytest.raises(NewsrecError) as caught:
        read_log(tmp_path, format)
    assert re.search(expected, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


def test_known_layout_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "behaviors.tsv").write_text("1\n")
    with pytest.raises(DataError, match=r"one of the formats \['table'\] expected at '.*', files of 'mind' found"):
        detect(tmp_path, ("table",))


def test_missing_path_is_named(tmp_path: Path) -> None:
    for format in ("auto", "table", "tianchi"):
        with pytest.raises(DataError, match=r"a log expected at '.*nowhere', nothing found"):
            read_log(tmp_path / "nowhere", format)


def test_mapping_to_a_column_that_is_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "clicks.csv").write_text(f"{CLICKS}u,7,{T0}\n")
    with pytest.raises(DataError, match=r"not found: \['device=phone'\]; found \['clicked_at'"):
        read_log(tmp_path, options=ReadOptions(columns={"device": "phone"}))


def test_frames_with_ids_of_two_kinds_are_refused() -> None:
    clicks = pl.DataFrame({"user_id": [1], "item_id": [1], "clicked_at": [T0]})
    with pytest.raises(DataError, match=r"articles: item_id of the same dtype as in clicks expected \(Int64\), String"):
        log_from_frames(clicks, pl.DataFrame({"item_id": ["1"]}))


def test_the_future_starts_a_day_after_the_clock(tmp_path: Path) -> None:
    click_log(tmp_path, GOOD)
    day = 86_400
    at = {days: datetime.fromtimestamp(T0 / 1000 + days * day + 1, UTC) for days in (-2, -1, 0)}
    assert read_log(tmp_path, options=ReadOptions(now=at[-1])).clicks.height == 40
    with pytest.raises(DataError, match="40 of 40"):
        read_log(tmp_path, options=ReadOptions(now=at[-2]))


MUTATIONS = st.tuples(
    st.sampled_from(["insert", "delete", "replace"]),
    st.integers(0, 10_000),
    st.one_of(
        st.binary(min_size=1, max_size=4), st.sampled_from([b'"', b"\n", b",", b"\0", b"\r", b"-", b"\xff", b"\n\n"])
    ),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mutations=st.lists(MUTATIONS, min_size=1, max_size=4), ids=st.booleans())
def test_damaged_files_are_read_honestly_or_refused(
    mutations: list[tuple[str, int, bytes]], ids: bool, tmp_path: Path
) -> None:
    """Rows that no change touched stay as they are, no key is ever null, every line is accounted for."""
    names = "user_id,item_id,clicked_at,os"
    data = ("\n".join([names, *GOOD]) + "\n").encode()
    for kind, place, junk in mutations:
        at = len(names) + 1 + place % (len(data) - len(names) - 1)
        data = data[:at] + (b"" if kind == "delete" else junk) + data[at + (kind != "insert") :]
    (tmp_path / "clicks.csv").write_bytes(data)
    try:
        log = read_log(tmp_path, "table", options=ReadOptions(max_bad_share=1.0, integer_ids=ids))
    except NewsrecError:
        return
    assert log.clicks.select("user_id", "item_id", "clicked_at").null_count().sum_horizontal().item() == 0
    whole = set(data.decode("utf-8", "replace").split("\n"))
    times = set(log.clicks["clicked_at"].dt.epoch("ms"))
    untouched = [row for row in GOOD if row in whole]
    lost = [row for row in untouched if int(row.split(",")[2]) not in times]
    # A quote that opens in one line and closes in another may legally hold what lies between.
    assert not lost or b'"' in data
    kept = log.clicks.height + log.intake.duplicate_clicks + log.intake.rows_quarantined
    assert kept == log.intake.rows_read
