"""What every format promises, over `FORMATS`: written logs read back, repeats and row order change nothing."""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from newsrec.data import FORMATS, WRITERS, Log, ReadOptions, log_from_frames, read_log, write_log
from newsrec.errors import DataError, UsageError

START = datetime(2024, 3, 1, tzinfo=UTC)
INTEGERS = ReadOptions(integer_ids=True)


def small_log(format: str, *, embeddings: bool = True) -> Log:
    """Ties, an article without metadata, one without a creation time, and what else the format can hold."""
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
    return [path for path in sorted(folder.iterdir()) if path.suffix in (".csv", ".parquet")]


def rewrite(path: Path, change: str) -> None:
    """Repeat or shuffle the rows of a file in place."""
    is_csv = path.suffix == ".csv"
    frame = pl.read_csv(path, infer_schema=False) if is_csv else pl.read_parquet(path)
    changed = pl.concat([frame, frame]) if change == "twice" else frame.sample(fraction=1.0, shuffle=True, seed=1)
    if is_csv:
        changed.write_csv(path)
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
    assert after.intake.duplicate_clicks == (before.clicks.height if change == "twice" else 0)


@pytest.mark.parametrize("format", FORMATS)
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
    for format in WRITERS:
        write_log(log, tmp_path / format, format)
        prints.add(read_log(tmp_path / format, format, options=INTEGERS).fingerprint)
    assert prints == {log.fingerprint}


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


def test_unknown_format_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read_log(tmp_path, "parket")
    assert all(repr(name) in str(caught.value) for name in FORMATS)
    with pytest.raises(UsageError, match="'globo'"):
        write_log(small_log("table"), tmp_path, "parket")
