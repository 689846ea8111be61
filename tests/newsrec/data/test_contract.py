"""What every format promises, over `FORMATS`: written logs read back, repeats and row order change nothing."""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from newsrec.data import FORMATS, WRITERS, Log, ReadOptions, log_from_frames, read_log, write_log
from newsrec.errors import DataError, UsageError

START = datetime(2024, 3, 1, tzinfo=UTC)
START_MS = 1_709_251_200_000
INTEGERS = ReadOptions(integer_ids=True)
OF_SLATES = ("ebnerd", "mind")
"""Formats of impression logs; the others hold clicks alone."""
OF_CLICKS = tuple(format for format in FORMATS if format not in OF_SLATES)


def small_log(format: str, *, embeddings: bool = True) -> Log:
    """Ties, an article without metadata, one without a creation time, and what else the format can hold."""
    if format in OF_SLATES:
        return slate_log(format)
    n = 60
    clicks = pl.DataFrame(
        {
            "user_id": [place % 7 for place in range(n)],
            "item_id": [10 + place % 11 for place in range(n)],
            "clicked_at": [1_709_251_200_000 + place // 2 * 61_003 for place in range(n)],
            "device": [place % 3 for place in range(n)],
            "os": [None if place % 5 == 0 else place % 4 for place in range(n)],
        }
    )
    ids = list(range(10, 20))
    articles = {
        "item_id": ids,
        "category": [place % 3 for place in ids],
        "created_at": [None if place == 12 else 1_709_251_200_000 - place * 1_000 for place in ids],
        "words": [place * 20 for place in ids],
    }
    table = pl.DataFrame(articles)
    if embeddings:
        vectors = pl.Series([[float(place), -0.5, 1e-7] for place in ids], dtype=pl.Array(pl.Float32, 3))
        table = table.with_columns(embedding=vectors)
    log = log_from_frames(clicks, table, format=format)
    if format == "tianchi":
        users = pl.DataFrame({"user_id": [2, 5]}, schema={"user_id": pl.Int64})
        return Log(format, log.clicks, log.articles, held_out_users=users)
    return log


def slate_log(format: str) -> Log:
    """Forty slates of five, ties in time, some without a click, and histories; ids and columns as the format has."""
    mind = format == "mind"
    shown = pl.DataFrame(
        [(place, place % 7, START_MS + place // 2 * 61_000, row, place % 3) for place in range(40) for row in range(5)],
        schema=["request_id", "user_id", "requested_at", "row", "device"],
        orient="row",
    )
    item = 10 + (pl.col("request_id") * 3 + pl.col("row") * 4) % 11
    shown = shown.select(
        "request_id",
        "user_id",
        "requested_at",
        item_id=item,
        clicked=pl.col("row") == pl.col("request_id") % 7,
        order=pl.col("row") + 1,
        device="device",
    )
    # MIND has an order and no times: the last click of each history 60 days before the log, the others by minutes.
    before = [START_MS - (60 * 24 * 60 + later) * 60_000 for later in (2, 1, 0)]
    history = pl.DataFrame(
        [(user, 10 + (user * 5 + place) % 11, at) for user in (0, 1, 3) for place, at in enumerate(before)],
        schema=["user_id", "item_id", "clicked_at"],
        orient="row",
    )
    logged = shown.filter("clicked").select("user_id", "item_id", "device", clicked_at="requested_at")
    articles = pl.DataFrame({"item_id": range(10, 20), "title": [f"title {place}" for place in range(10)]})
    if mind:
        texts = [pl.format("U{}", "user_id").alias("user_id"), pl.format("N{}", "item_id").alias("item_id")]
        shown, history, logged = (frame.with_columns(texts) for frame in (shown, history, logged))
        articles = articles.with_columns(texts[1], category=pl.lit("news"))
        shown, logged = shown.rename({"order": "slate_order"}).drop("device"), logged.drop("device")
    else:
        articles = articles.with_columns(category=pl.lit(3), created_at=pl.lit(START_MS - 5))
        shown = shown.rename({"order": "position"})
    return log_from_frames(pl.concat([history, logged], how="diagonal"), articles, shown, format=format)


def frames_of(log: Log) -> dict[str, pl.DataFrame | None]:
    return {
        "clicks": log.clicks,
        "articles": log.articles,
        "impressions": log.impressions,
        "held_out_users": log.held_out_users,
    }


def assert_same_log(left: Log, right: Log) -> None:
    for name, frame in frames_of(left).items():
        other = frames_of(right)[name]
        assert (frame is None) == (other is None), name
        if frame is not None and other is not None:
            assert_frame_equal(frame, other)


def data_files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.suffix in (".csv", ".tsv", ".parquet")]


def rewrite(path: Path, change: str) -> None:
    """Repeat or shuffle the rows of a file in place."""
    if path.suffix != ".parquet":
        lines = path.read_text().splitlines(keepends=True)
        header = lines[: path.suffix == ".csv"]
        rows = pl.Series(lines[len(header) :])
    else:
        rows = pl.read_parquet(path)
    changed = rows.clone().extend(rows) if change == "twice" else rows.sample(fraction=1.0, shuffle=True, seed=1)
    if isinstance(changed, pl.Series):
        path.write_text("".join([*header, *changed]))
    else:
        changed.write_parquet(path)


def test_every_format_can_be_written() -> None:
    assert set(WRITERS) == set(FORMATS)


@pytest.mark.parametrize("format", FORMATS)
def test_written_log_reads_back_the_same(format: str, tmp_path: Path) -> None:
    log = small_log(format)
    write_log(log, tmp_path, format)
    assert_same_log(log, read_log(tmp_path, format, options=INTEGERS))


@pytest.mark.parametrize("format", FORMATS)
def test_auto_names_the_format_of_written_files(format: str, tmp_path: Path) -> None:
    write_log(small_log(format), tmp_path, format)
    assert read_log(tmp_path).format == format


@pytest.mark.parametrize("change", ["twice", "shuffled"])
@pytest.mark.parametrize("format", FORMATS)
def test_repeated_or_shuffled_rows_change_nothing(format: str, change: str, tmp_path: Path) -> None:
    write_log(small_log(format), tmp_path, format)
    before = read_log(tmp_path, format, options=INTEGERS)
    for path in data_files(tmp_path):
        rewrite(path, change)
    after = read_log(tmp_path, format, options=INTEGERS)
    assert_same_log(before, after)
    assert before.fingerprint == after.fingerprint
    # MIND gives a user's history with every row: it is one history however often it is told.
    twice = before.clicks if format != "mind" else before.clicks.filter(pl.col("clicked_at") >= START)
    assert after.intake.duplicate_clicks == (twice.height if change == "twice" else 0)


@pytest.mark.parametrize("format", OF_CLICKS)
def test_rows_that_share_a_key_are_told_apart_by_value_not_by_place(format: str, tmp_path: Path) -> None:
    write_log(small_log(format), tmp_path, format)
    name = "train_click_log.csv" if format == "tianchi" else "clicks.parquet"
    path = tmp_path / name
    rows = pl.read_csv(path) if path.suffix == ".csv" else pl.read_parquet(path)
    device = "device" if format == "table" else "click_deviceGroup"
    other = rows.with_columns((pl.col(device) + 1).alias(device))
    for order in ([rows, other], [other, rows]):
        together = pl.concat(order)
        _ = together.write_csv(path) if path.suffix == ".csv" else together.write_parquet(path)
        read = read_log(tmp_path, format, options=INTEGERS)
        assert_frame_equal(read.clicks, small_log(format).clicks)


def test_equal_data_has_one_fingerprint_in_every_format(tmp_path: Path) -> None:
    log = small_log("table")
    prints = set()
    for format in OF_CLICKS:
        write_log(log, tmp_path / format, format)
        prints.add(read_log(tmp_path / format, format, options=INTEGERS).fingerprint)
    assert prints == {log.fingerprint}


def test_equal_impressions_have_one_fingerprint_as_table_and_as_ebnerd(tmp_path: Path) -> None:
    log = slate_log("ebnerd")
    for format in ("table", "ebnerd"):
        write_log(log, tmp_path / format, format)
        assert read_log(tmp_path / format, format, options=INTEGERS).fingerprint == log.fingerprint


@pytest.mark.parametrize("format", OF_SLATES)
def test_impressions_come_in_order_of_time_and_slate(format: str, tmp_path: Path) -> None:
    write_log(small_log(format), tmp_path, format)
    for path in data_files(tmp_path):
        rewrite(path, "shuffled")
    shown = read_log(tmp_path, format).impressions
    assert shown is not None
    order = "slate_order" if format == "mind" else "position"
    assert shown.select("requested_at", "request_id", order).equals(
        shown.select("requested_at", "request_id", order).sort("requested_at", "request_id", order)
    )
    assert shown[order].to_list() == [1, 2, 3, 4, 5] * 40


def test_any_changed_value_changes_the_fingerprint(tmp_path: Path) -> None:
    log = small_log("table", embeddings=False)
    for name in ("user_id", "item_id", "device"):
        other = log_from_frames(log.clicks.with_columns(pl.col(name) + 100 * (pl.col("user_id") == 3)), log.articles)
        assert other.fingerprint != log.fingerprint, name
    retitled = log_from_frames(log.clicks, log.articles.with_columns(title=pl.lit("ab")))
    assert (
        retitled.fingerprint != log_from_frames(log.clicks, log.articles.with_columns(title=pl.lit("ba"))).fingerprint
    )


def test_fingerprint_knows_where_one_text_ends() -> None:
    clicks = small_log("table").clicks.head(2).drop("device", "os")
    left, right = (clicks.with_columns(user_id=pl.Series(users)) for users in (["ab", "c"], ["a", "bc"]))
    assert log_from_frames(left).fingerprint != log_from_frames(right).fingerprint


def test_clicks_and_articles_come_sorted(tmp_path: Path) -> None:
    log = small_log("table")
    assert log.clicks.equals(log.clicks.sort("clicked_at", "user_id", "item_id"))
    assert log.articles["item_id"].is_sorted()


def test_what_a_format_cannot_hold_is_refused_unless_the_loss_is_allowed(tmp_path: Path) -> None:
    log = small_log("table")
    titled = log_from_frames(log.clicks, log.articles.with_columns(title=pl.lit("x")))
    with pytest.raises(DataError, match=r"articles\.title"):
        write_log(titled, tmp_path, "globo")
    write_log(titled, tmp_path, "globo", lossy=True)
    assert read_log(tmp_path, "globo").fingerprint == log.fingerprint
    with pytest.raises(DataError, match="held_out_users"):
        write_log(small_log("tianchi"), tmp_path, "globo")
    texts = log_from_frames(log.clicks.cast({"user_id": pl.String}))
    with pytest.raises(DataError, match="whole numbers expected, text found"):
        write_log(texts, tmp_path, "tianchi")
    for format in OF_SLATES:
        with pytest.raises(DataError, match="a log with impressions expected, one of clicks alone found"):
            write_log(log, tmp_path, format)


def test_unknown_format_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read_log(tmp_path, "parket")
    assert all(repr(name) in str(caught.value) for name in FORMATS)
    with pytest.raises(UsageError, match="'globo'"):
        write_log(small_log("table"), tmp_path, "parket")
