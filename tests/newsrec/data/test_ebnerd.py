"""EB-NeRD by hand: what becomes of each column, what is known when, what is dropped and how it is told."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from newsrec.data import ReadOptions, read_log, write_log
from newsrec.data.slates import LONGEST
from newsrec.errors import DataError
from newsrec.inspect import inspect_log
from newsrec.simulate import SimulationConfig, write_simulation
from tests.factories import noted, shown

AT = datetime(2023, 5, 18, 7, 0, 3)  # naive, as the files have it
ALL = ReadOptions(max_bad_share=1.0)
FUTURE = ("next_read_time", "next_scroll_percentage", "total_inviews", "total_pageviews", "total_read_time")


def behaviors(folder: Path, **columns: list[object]) -> Path:
    """Three impressions of two users a minute apart; columns can be replaced, or left out as an empty list."""
    table: dict[str, list[object]] = {
        "impression_id": [30, 10, 20],
        "article_id": [None, 7, None],
        "impression_time": [AT, AT + timedelta(minutes=1), AT + timedelta(minutes=2)],
        "read_time": [21.0, 30.0, 4.0],
        "scroll_percentage": [None, 100.0, None],
        "device_type": [2, 1, 2],
        "article_ids_inview": [[3, 1, 2], [5, 4], [1, 6]],
        "article_ids_clicked": [[1], [4], None],
        "user_id": [8, 9, 8],
        "is_sso_user": [False, True, False],
        "is_subscriber": [True, False, True],
        "gender": [None, 1, None],
        "postcode": [None, 2, None],
        "age": [None, 50, None],
        "session_id": [100, 101, 102],
        "next_read_time": [45.0, 29.0, None],
        "next_scroll_percentage": [100.0, 3.0, None],
    }
    kept = {name: values for name, values in (table | columns).items() if values}
    folder.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(kept).write_parquet(folder / "behaviors.parquet")
    return folder


def history(folder: Path, **columns: list[object]) -> Path:
    table: dict[str, list[object]] = {
        "user_id": [8, 9],
        "impression_time_fixed": [[AT - timedelta(days=2), AT - timedelta(seconds=1)], [AT]],
        "article_id_fixed": [[6, 7], [4]],
        "read_time_fixed": [[11.0, None], [2.0]],
        "scroll_percentage_fixed": [[None, 3.0], [9.0]],
    }
    pl.DataFrame(table | columns).write_parquet(folder / "history.parquet")
    return folder


def test_slates_become_rows_in_their_order(tmp_path: Path) -> None:
    log = read_log(behaviors(tmp_path))
    assert log.format == "ebnerd"
    keys = shown(log).select("request_id", "user_id", "item_id", "position", "clicked")
    assert keys.rows() == [
        (30, 8, 3, 1, False),
        (30, 8, 1, 2, True),
        (30, 8, 2, 3, False),
        (10, 9, 5, 1, False),
        (10, 9, 4, 2, True),
        (20, 8, 1, 1, False),
        (20, 8, 6, 2, False),
    ]
    assert not noted(log, "outside their slate")
    assert shown(log)["requested_at"][0] == AT.replace(tzinfo=UTC)
    of_page = shown(log).group_by("request_id", maintain_order=True).first()
    assert of_page["page_item_id"].to_list() == [None, 7, None]
    assert of_page["page_dwell_seconds"].to_list() == [21.0, 30.0, 4.0]
    facts = of_page.select("session_id", "device", "is_sso_user", "is_subscriber", "gender", "age", "postcode")
    assert facts.rows()[1] == (101, 1, 1, 0, 1, 50, 2)


def test_only_labels_are_boolean(tmp_path: Path) -> None:
    schema = shown(read_log(behaviors(tmp_path))).schema
    assert {name for name, dtype in schema.items() if dtype == pl.Boolean} == {"clicked", "read"}


def test_dwell_belongs_to_the_click_and_to_nothing_else(tmp_path: Path) -> None:
    chosen: list[object] = [[1], [4], [6]]
    log = read_log(behaviors(tmp_path, article_ids_clicked=chosen))
    labels = shown(log).select("clicked", "dwell_seconds", "read").filter("clicked")
    assert labels.rows() == [(True, 45.0, True), (True, 29.0, False), (True, None, None)]
    rest = shown(log).filter(~pl.col("clicked"))
    assert (rest["dwell_seconds"].null_count(), rest["read"].sum()) == (rest.height, 0)
    assert rest["read"].null_count() == 0
    assert log.clicks.select("item_id", "dwell_seconds", "device").rows() == [(1, 45.0, 2), (4, 29.0, 1), (6, None, 2)]


def test_one_reading_time_for_several_clicks_is_nobodys(tmp_path: Path) -> None:
    chosen: list[object] = [[1, 2], [4, 4], []]
    log = read_log(behaviors(tmp_path, article_ids_clicked=chosen))
    assert log.clicks.select("item_id", "dwell_seconds").rows() == [(1, None), (2, None), (4, 29.0)]
    assert log.intake.duplicate_clicks == 1
    assert noted(log, "impressions: 1 with several clicks give one reading time")


def test_history_counts_strictly_before_the_first_impression(tmp_path: Path) -> None:
    log = read_log(history(behaviors(tmp_path)))
    first = AT.replace(tzinfo=UTC)
    assert log.clicks.select("user_id", "item_id", "clicked_at", "dwell_seconds").rows() == [
        (8, 6, first - timedelta(days=2), 11.0),
        (8, 7, first - timedelta(seconds=1), None),
        (8, 1, first, 45.0),
        (9, 4, first + timedelta(minutes=1), 29.0),
    ]
    assert noted(log, "clicks: 1 of 3 clicks of the history stand at or after the first logged impression")


def test_nothing_that_knows_the_future_is_in_the_log(tmp_path: Path) -> None:
    folder = behaviors(tmp_path)
    pl.DataFrame(
        {
            "article_id": [1, 2, 4],
            "title": ["a", "b", "c"],
            "subtitle": ["two words", None, "x"],
            "body": ["three  more\nwords", "one", None],
            "published_time": [AT - timedelta(hours=3), None, AT],
            "last_modified_time": [AT + timedelta(days=9)] * 3,
            "category": pl.Series([140, 118, 140], dtype=pl.Int16),
            "premium": [True, False, False],
            "article_type": ["article_default", "article_default", "live"],
            "sentiment_score": [0.9, 0.5, 0.7],
            "total_inviews": [10, 20, 30],
            "total_pageviews": [1, 2, 3],
            "total_read_time": [1.0, 2.0, 3.0],
            "url": ["u"] * 3,
        }
    ).write_parquet(folder / "articles.parquet")
    log = read_log(history(folder))
    names = {*shown(log).columns, *log.clicks.columns, *log.articles.columns}
    assert not names & {*FUTURE, "scroll_percentage", "read_time", "last_modified_time", "body"}
    assert log.articles["words"].to_list() == [5, 1, None]
    assert log.articles["created_at"].to_list() == [
        (AT - timedelta(hours=3)).replace(tzinfo=UTC),
        None,
        AT.replace(tzinfo=UTC),
    ]
    expected = ["item_id", "category", "created_at", "words", "title", "article_type", "premium", "sentiment_score"]
    assert log.articles.columns == expected
    assert noted(log, "total_inviews, total_pageviews, total_read_time left out: they count the whole log")
    assert noted(log, "articles: columns left out as unknown: last_modified_time, url")


def test_test_set_reads_with_nothing_clicked(tmp_path: Path) -> None:
    gone: list[object] = []
    folder = behaviors(
        tmp_path, article_ids_clicked=gone, next_read_time=gone, next_scroll_percentage=gone, article_id=gone
    )
    log = read_log(folder)
    assert (log.clicks.height, shown(log).height, shown(log)["clicked"].any()) == (0, 7, False)
    assert not {"read", "dwell_seconds"} & set(shown(log).columns)
    assert noted(log, "nothing counts as clicked")
    with pytest.raises(DataError, match=r"clicks: at least one expected to profile a log, none found beside 3 rows"):
        inspect_log(log)
    pl.DataFrame({"article_id": [77]}).write_parquet(folder / "articles.parquet")
    assert read_log(folder).articles["item_id"].to_list() == [77]
    (folder / "articles.parquet").unlink()
    assert read_log(history(folder)).clicks.height == 2


def test_beyond_accuracy_rows_share_an_id_and_are_dropped(tmp_path: Path) -> None:
    log = read_log(behaviors(tmp_path, is_beyond_accuracy=[False, True, True], impression_id=[30, 0, 0]))
    assert shown(log)["request_id"].unique().to_list() == [30]
    assert noted(log, "impressions: 2 rows of the beyond-accuracy track")


def test_optional_columns_may_lack(tmp_path: Path) -> None:
    needed = ("impression_id", "impression_time", "article_ids_inview", "user_id")
    folder = behaviors(tmp_path)
    table = pl.read_parquet(folder / "behaviors.parquet", columns=list(needed))
    table.write_parquet(folder / "behaviors.parquet")
    expected = ["request_id", "user_id", "requested_at", "item_id", "clicked", "position"]
    assert shown(read_log(folder)).columns == expected
    table.drop("article_ids_inview").write_parquet(folder / "behaviors.parquet")
    with pytest.raises(DataError, match="1 missing column 'article_ids_inview' in"):
        read_log(folder)


def test_the_one_part_that_is_there_is_read_with_the_articles_beside_it(tmp_path: Path) -> None:
    behaviors(tmp_path / "validation")
    pl.DataFrame({"article_id": [1], "title": ["one"]}).write_parquet(tmp_path / "articles.parquet")
    for path in (tmp_path, tmp_path / "validation", tmp_path / "validation" / "behaviors.parquet"):
        log = read_log(path)
        assert (log.format, log.articles["title"].to_list()) == ("ebnerd", ["one"])
    behaviors(tmp_path / "train")
    with pytest.raises(DataError, match=r"one part of the log expected in '.*', \['train', 'validation'\] found; name"):
        read_log(tmp_path)
    behaviors(tmp_path / "mine")
    assert not read_log(tmp_path / "mine").articles.height


def test_repeats_strays_and_empty_slates_are_dropped_and_counted(tmp_path: Path) -> None:
    slates: list[object] = [[3, 1, 3], [5], []]
    chosen: list[object] = [[1], [4], [1]]
    log = read_log(behaviors(tmp_path, article_ids_inview=slates, article_ids_clicked=chosen))
    assert shown(log).select("request_id", "item_id", "position", "clicked").rows() == [
        (30, 3, 1, False),
        (30, 1, 2, True),
        (10, 5, 1, False),
    ]
    assert log.clicks["item_id"].to_list() == [1]
    assert noted(log, "impressions: 1 rows repeat an item of the same request and were dropped")
    assert noted(log, "clicks: 2 clicks are on items outside their slate and were dropped")
    assert noted(log, "impressions: 1 of 3 slates are empty and were dropped")


BAD: dict[str, tuple[dict[str, list[object]], str]] = {
    "hole in a slate": (
        {"article_ids_inview": [[3, 1], [5, None], [1]]},
        "'article_ids_inview' is not a list of whole",
    ),
    "no slate": ({"article_ids_inview": [[3, 1], None, [1]]}, "'article_ids_inview' is missing"),
    "endless slate": (
        {"article_ids_inview": [[1], list(range(LONGEST + 1)), [1]]},
        "'article_ids_inview' holds 10001 items, at most 10000 expected",
    ),
    "no user": ({"user_id": [8, None, 8]}, "'user_id' is missing"),
    "1970": ({"impression_time": [AT, datetime(1970, 1, 2), AT]}, "'impression_time' is not a time from 1990"),
    "future": ({"impression_time": [AT, datetime(2099, 1, 2), AT]}, "'impression_time' is not a time from 1990"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_row_is_set_aside_with_its_line_and_reason(name: str, tmp_path: Path) -> None:
    columns, reason = BAD[name]
    folder = behaviors(tmp_path, **columns)
    with pytest.raises(DataError, match=r"impressions: at most 1.00% bad rows expected, 1 of 3"):
        read_log(folder)
    log = read_log(folder, options=ReadOptions(max_bad_share=0.5, quarantine=tmp_path / "bad.csv"))
    assert 10 not in shown(log)["request_id"]
    kept = pl.read_csv(tmp_path / "bad.csv").row(0, named=True)
    assert kept["line"] == 2
    assert kept["reason"].startswith(reason)


def test_slate_of_the_most_items_is_read(tmp_path: Path) -> None:
    slates: list[object] = [list(range(LONGEST)), [4], [1]]
    assert shown(read_log(behaviors(tmp_path, article_ids_inview=slates))).height == LONGEST + 2


def test_torn_histories_are_set_aside(tmp_path: Path) -> None:
    folder = behaviors(tmp_path)
    for columns, reason in (
        ({"article_id_fixed": [[6], [4]]}, "'article_id_fixed' and 'impression_time_fixed' are of unequal length"),
        ({"read_time_fixed": [[1.0], [4.0]]}, "'read_time_fixed' and 'impression_time_fixed' are of unequal length"),
        ({"impression_time_fixed": [[AT, datetime(1970, 1, 1)], [AT]]}, "holds a time before 1990"),
        ({"impression_time_fixed": [[AT, None], [AT]]}, "'impression_time_fixed' is not a list of times"),
    ):
        history(folder, **columns)
        with pytest.raises(DataError, match=f"history: .* 1 of 2 .*{reason}"):
            read_log(folder)
        assert read_log(folder, options=ALL).clicks["item_id"].to_list() == [1, 4]
    history(folder, article_id_fixed=[["6", "7"], ["4"]])
    with pytest.raises(DataError, match="column 'article_id_fixed': a list of whole numbers expected, dtype List"):
        read_log(folder)


def test_several_clicks_and_gaps_in_places_are_a_loss_that_is_told(tmp_path: Path) -> None:
    several: list[object] = [[1, 2], [4], []]
    log = read_log(behaviors(tmp_path / "a", article_ids_clicked=several))
    write_log(log, tmp_path / "same", "ebnerd")
    assert_frame_equal(shown(read_log(tmp_path / "same")), shown(log))
    repeated: list[object] = [[3, 3, 1], [5, 4], [1, 6]]
    gaps = read_log(behaviors(tmp_path / "b", article_ids_inview=repeated))
    with pytest.raises(DataError, match=r"impressions\.position of 1 requests"):
        write_log(gaps, tmp_path / "other", "ebnerd")


def test_simulated_log_keeps_its_slates_and_clicks(tmp_path: Path) -> None:
    simulated = write_simulation(tmp_path, "ebnerd", SimulationConfig(users=60, days=1)).log
    log = read_log(tmp_path)
    names = ["request_id", "user_id", "requested_at", "item_id", "clicked", "position"]
    expected = shown(simulated).select(names).sort("requested_at", "request_id", "position")
    assert_frame_equal(shown(log).select(names), expected)
    assert log.clicks.height == expected["clicked"].sum() == simulated.clicks.height
    with pytest.raises(DataError, match=rf"users, items or times of {simulated.clicks.height} clicks"):
        write_log(simulated, tmp_path, "ebnerd")


REAL = os.environ.get("NEWSREC_TEST_DATA")


@pytest.mark.skipif(not REAL, reason="NEWSREC_TEST_DATA names no folder with real logs")
def test_real_week_reads_whole_and_writes_back(tmp_path: Path) -> None:
    log = read_log(Path(str(REAL)) / "ebnerd")
    assert (shown(log)["request_id"].n_unique(), shown(log).height, log.clicks.height) == (24_724, 278_139, 283_098)
    assert log.intake.rows_quarantined == 0
    labels = [(count.label, count.positives, count.negatives) for count in inspect_log(log).labels]
    assert labels == [("clicked", 24_829, 253_310), ("read", 10_338, 266_950)]
    write_log(log, tmp_path, "ebnerd")
    back = read_log(tmp_path)
    assert_frame_equal(back.clicks, log.clicks)
    assert_frame_equal(shown(back), shown(log))
