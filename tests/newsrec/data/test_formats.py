"""What is particular to each format: its files, its users, its embeddings, what it refuses."""

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

from newsrec.data import FORMATS, ReadOptions, log_from_frames, read_log
from newsrec.errors import DataError

CLICK_HEADER = "user_id,click_article_id,click_timestamp,click_environment\n"
T0 = 1_507_000_000_000


def write(folder: Path, **files: str) -> Path:
    """Text files; `__` in a name stands for the dot."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def tianchi(folder: Path) -> Path:
    return write(
        folder,
        train_click_log__csv=CLICK_HEADER + f"1,10,{T0},4\n1,11,{T0 + 5},4\n2,10,{T0 + 7},4\n",
        testA_click_log__csv=CLICK_HEADER + f"9,10,{T0 + 1},4\n2,12,{T0 + 9},4\n",
        articles__csv=f"article_id,category_id,created_at_ts,words_count\n10,3,{T0 - 9},200\n11,,,\n",
    )


def test_tianchi_test_clicks_are_events_and_their_users_held_out(tmp_path: Path) -> None:
    log = read_log(tianchi(tmp_path))
    assert log.format == "tianchi"
    assert log.clicks["user_id"].to_list() == [1, 9, 1, 2, 2]
    assert log.held_out_users is not None
    assert log.held_out_users["user_id"].to_list() == [2, 9]
    assert any("1 users are in the train and the test log" in note for note in log.intake.notes)
    assert any("1 of 3 clicked articles have no metadata" in note for note in log.intake.notes)


def test_tianchi_labels_are_never_opened(tmp_path: Path) -> None:
    folder = tianchi(tmp_path)
    before = read_log(folder).fingerprint
    os.mkfifo(folder / "testA_labels.csv")  # whoever opens it waits for ever
    code = f"from newsrec.data import read_log; print(read_log({str(folder)!r}).fingerprint)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == before


def test_tianchi_second_test_log_is_held_out_as_well(tmp_path: Path) -> None:
    folder = tianchi(tmp_path)
    write(folder, testB_click_log__csv=CLICK_HEADER + f"30,10,{T0},4\n")
    log = read_log(folder)
    assert log.held_out_users is not None
    assert log.held_out_users["user_id"].to_list() == [2, 9, 30]


def test_tianchi_embeddings_join_by_article(tmp_path: Path) -> None:
    folder = tianchi(tmp_path)
    write(folder, articles_emb__csv="article_id,emb_0,emb_1\n11,0.5,-1e-3\n99,1,1\n10,2,3\n")
    log = read_log(folder)
    assert log.articles.schema["embedding"] == pl.Array(pl.Float32, 2)
    np.testing.assert_allclose(log.articles["embedding"].to_numpy(), [[2, 3], [0.5, -1e-3]], rtol=1e-6)
    write(folder, articles_emb__csv="article_id,emb_0,emb_1\n11,0.5,\n")
    with pytest.raises(DataError, match="empty fields found"):
        read_log(folder)


def test_globo_hours_read_as_one_log_without_session_columns(tmp_path: Path) -> None:
    header = "user_id,session_id,session_start,session_size,click_article_id,click_timestamp,click_os\n"
    write(
        tmp_path / "clicks",
        clicks_hour_000__csv=header + f"1,5,{T0},2,10,{T0},17\n",
        clicks_hour_001__csv=header + f"1,5,{T0},2,11,{T0 + 1},17\n",
        clicks_hour_002__csv=header,
    )
    write(
        tmp_path,
        articles_metadata__csv=f"article_id,category_id,created_at_ts,publisher_id,words_count\n10,1,{T0},0,9\n",
    )
    log = read_log(tmp_path)
    assert (log.format, log.clicks.columns, log.clicks.height) == (
        "globo",
        ["user_id", "item_id", "clicked_at", "os"],
        2,
    )
    assert log.clicks.schema["os"] == pl.Int32
    assert log.articles.columns == ["item_id", "category", "created_at", "words", "publisher"]
    assert not any("unknown" in note for note in log.intake.notes)


def globo(folder: Path) -> Path:
    write(folder, clicks_sample__csv=CLICK_HEADER + f"1,0,{T0},4\n1,2,{T0},4\n")
    return write(folder, articles_metadata__csv="article_id,category_id\n0,1\n2,1\n7,1\n")


def test_globo_embeddings_are_the_rows_of_the_matrix(tmp_path: Path) -> None:
    np.save(globo(tmp_path) / "articles_embeddings.npy", np.arange(6, dtype=np.float32).reshape(3, 2))
    log = read_log(tmp_path)
    assert log.articles["embedding"].to_list() == [[0.0, 1.0], [4.0, 5.0], None]
    assert any("1 articles lie beyond the 3 rows" in note for note in log.intake.notes)


def test_globo_pickle_is_refused_with_the_line_that_converts_it(tmp_path: Path) -> None:
    folder = globo(tmp_path)
    pd.to_pickle(np.ones((8, 2)), folder / "articles_embeddings.pickle")
    with pytest.raises(DataError) as caught:
        read_log(folder)
    line = str(caught.value).partition('python -c "')[2].rstrip('"')
    subprocess.run([sys.executable, "-c", line], cwd=folder, check=True)
    assert read_log(folder).articles["embedding"].to_list() == [[1.0, 1.0]] * 3


def test_matrix_that_hides_a_pickle_is_refused(tmp_path: Path) -> None:
    folder = globo(tmp_path)
    np.save(folder / "articles_embeddings.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"whole \.npy file of numbers expected"):
        read_log(folder)
    np.save(folder / "articles_embeddings.npy", np.ones(3))
    with pytest.raises(DataError, match=r"shape \(3,\) found"):
        read_log(folder)


def test_table_ids_stay_text_unless_told(tmp_path: Path) -> None:
    path = write(tmp_path, own__csv=f"user_id,item_id,clicked_at\n007,a,{T0}\n7,b,{T0}\n") / "own.csv"
    assert read_log(path).clicks["user_id"].to_list() == ["007", "7"]
    path.write_text(f"user_id,item_id,clicked_at\n12,5,{T0}\n")
    assert read_log(path).clicks.schema["user_id"] == pl.String
    assert read_log(path, options=ReadOptions(integer_ids=True)).clicks.schema["user_id"] == pl.Int64


def test_table_maps_columns_and_keeps_further_ones(tmp_path: Path) -> None:
    write(
        tmp_path,
        clicks__csv=f"reader;news;when;phone;ward\nu1;7;{T0};x;12\n",
        articles__csv="id,section\n7,04\n",
    )
    names = {"user_id": "reader", "item_id": "news", "clicked_at": "when", "device": "phone", "hospital": "ward"}
    log = read_log(tmp_path, options=ReadOptions(columns={**names, "articles.item_id": "id", "category": "section"}))
    assert log.clicks.to_dict(as_series=False) == {
        "user_id": ["u1"],
        "item_id": ["7"],
        "clicked_at": [datetime.fromtimestamp(T0 / 1000, UTC)],
        "device": ["x"],
        "hospital": [12],
    }
    assert log.articles.to_dict(as_series=False) == {"item_id": ["7"], "category": ["04"]}


def test_table_context_is_integer_where_all_of_it_is(tmp_path: Path) -> None:
    write(tmp_path, clicks__csv=f"user_id,item_id,clicked_at,os,region\na,b,{T0},3,03\na,c,{T0},,4\n")
    log = read_log(tmp_path)
    assert log.clicks.schema["os"] == pl.Int32
    assert log.clicks["region"].to_list() == ["03", "4"]


def test_clicked_impressions_are_the_clicks_where_there_are_no_others(tmp_path: Path) -> None:
    shown = (
        f"request_id,user_id,requested_at,item_id,clicked,position\n1,u,{T0},a,0,2\n1,u,{T0},b,1,1\n1,u,{T0},b,0,1\n"
    )
    log = read_log(write(tmp_path, impressions__csv=shown))
    assert log.clicks.select("user_id", "item_id").rows() == [("u", "b")]
    assert log.impressions is not None
    assert log.impressions.select("item_id", "clicked", "position").rows() == [("b", True, 1), ("a", False, 2)]
    assert any("1 rows repeat an item of the same request" in note for note in log.intake.notes)
    torn = shown + f"1,other,{T0},c,0,3\n"
    with pytest.raises(DataError, match=r"one user and one time per request_id expected, 1 requests .*\['1'\]"):
        read_log(write(tmp_path, impressions__csv=torn))


def test_repeated_article_rows_keep_one_and_say_so(tmp_path: Path) -> None:
    write(
        tmp_path, clicks__csv=f"user_id,item_id,clicked_at\nu,a,{T0}\n", articles__csv="item_id,title\na,\na,x\na,x\n"
    )
    log = read_log(tmp_path)
    assert log.articles.rows() == [("a", "x")]
    assert "articles: 2 rows repeat an item_id and were dropped" in log.intake.notes


def test_columns_without_a_value_are_dropped_with_a_note(tmp_path: Path) -> None:
    write(tmp_path, clicks__csv=f"user_id,item_id,clicked_at,os\nu,a,{T0},\n", articles__csv="item_id,title\na,\n")
    log = read_log(tmp_path)
    assert (log.clicks.width, log.articles.width) == (3, 1)
    assert "clicks: columns without any value were dropped: os" in log.intake.notes


def test_frames_of_either_library_give_one_log() -> None:
    columns = {"user_id": ["a", "b"], "item_id": [3, 4], "device": ["x", None]}
    at = ["2024-01-01T00:00:00Z", "2024-01-02T00:00:00Z"]
    from_polars = log_from_frames(pl.DataFrame({**columns, "clicked_at": at}))
    from_pandas = log_from_frames(pd.DataFrame({**columns, "clicked_at": pd.to_datetime(at)}))
    assert from_polars.clicks.equals(from_pandas.clicks)
    assert from_polars.fingerprint == from_pandas.fingerprint
    assert from_polars.clicks.schema["item_id"] == pl.Int64


def test_auto_says_what_it_saw_and_what_it_knows(tmp_path: Path) -> None:
    write(tmp_path, notes__txt="x")
    with pytest.raises(DataError, match=r"notes\.txt") as caught:
        read_log(tmp_path)
    assert all(repr(name) in str(caught.value) for name in FORMATS)


REAL = os.environ.get("NEWSREC_TEST_DATA")


@pytest.mark.skipif(not REAL, reason="NEWSREC_TEST_DATA names no folder with real logs")
def test_real_globo_log_reads_whole() -> None:
    log = read_log(Path(str(REAL)) / "globo")
    assert (log.format, log.clicks.height, log.articles.height) == ("globo", 2_606_437, 46_033)
    assert log.intake.rows_quarantined == log.intake.duplicate_clicks == 0
    assert log.clicks.schema["os"] == pl.Int32
