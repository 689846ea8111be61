"""Everybody gets an answer in the form that the community expects; a failure leaves no file behind."""

import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import polars as pl
import pytest

from features.columns import TIME
from newsrec.data import Log, ReadOptions
from newsrec.data.write import write_log
from newsrec.errors import DataError, UsageError
from newsrec.recommend import PREDICTIONS, RecommendConfig, recommend
from newsrec.serve import Recommender
from newsrec.split import SplitConfig
from newsrec.train import TrainResult, train
from newsrec.train_config import TrainConfig
from tests.conftest import FEW_TREES
from tests.factories import Heard, bits

INTEGERS = ReadOptions(integer_ids=True)
HEADER = "user_id,article_1,article_2,article_3,article_4,article_5"
NEW_USER, NEW_ARTICLE = 1_000_000, 2_000_000
IN_WORDS = r"\w+ = (unknown|[-+.e\d]+) \([A-Z][^;]+\) [+-]\d"
"""A feature with its value, what it means, and what it added to the score."""
T2017 = 1_507_000_000_000


@pytest.fixture(scope="module")
def tianchi(log: Log, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of the competition: every twentieth user is a test user, and so is one who read one unknown article."""
    users = log.clicks["user_id"].unique().sort()
    held_out = users.gather_every(20).to_frame()
    folder = tmp_path_factory.mktemp("tianchi")
    write_log(replace(log, held_out_users=held_out), folder, "tianchi", lossy=True)
    with (folder / "testA_click_log.csv").open("a") as file:
        last = log.clicks["clicked_at"].dt.timestamp("ms").max()
        file.write(f"{NEW_USER},{NEW_ARTICLE},{last},4,1,17,1,13,1\n")
    return folder


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A competition with three articles, years before those that the bundle knows exist."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    header = "user_id,click_article_id,click_timestamp,click_environment\n"
    (folder / "train_click_log.csv").write_text(header + f"1,10,{T2017},4\n1,11,{T2017 + 5},4\n2,12,{T2017 + 7},4\n")
    (folder / "testA_click_log.csv").write_text(header + f"9,10,{T2017 + 60_000},4\n")
    return folder


def test_tianchi_submission_has_five_new_articles_for_every_test_user(
    trained: TrainResult, tianchi: Path, tmp_path: Path
) -> None:
    out = tmp_path / "submission.csv"
    recommend(RecommendConfig(trained.run, tianchi, out))
    lines = out.read_text().splitlines()
    assert lines[0] == HEADER
    rows = [[int(value) for value in line.split(",")] for line in lines[1:]]
    asked = pl.read_csv(tianchi / "testA_click_log.csv")
    assert [row[0] for row in rows] == sorted(set(asked["user_id"]))
    assert rows[-1][0] == NEW_USER
    for user, *items in rows:
        assert len(items) == len(set(items)) == 5
        assert not set(items) & set(asked.filter(pl.col("user_id") == user)["click_article_id"])
    assert [path.name for path in tmp_path.iterdir()] == ["submission.csv"]


def test_tianchi_user_is_asked_the_instant_after_the_own_last_click(
    trained: TrainResult, tianchi: Path, log: Log, tmp_path: Path
) -> None:
    answers = recommend(RecommendConfig(trained.run, tianchi, tmp_path / "s.csv"))
    bundle = Recommender.load(trained.run)
    over = bundle.with_log(*_read(tianchi))
    for user in answers["user_id"].unique().sort().head(4):
        last = log.clicks.filter(pl.col("user_id") == user)["clicked_at"].max()
        assert isinstance(last, datetime)
        own = replayed(over, user, last + timedelta(milliseconds=1))
        assert bits(answers.filter(pl.col("user_id") == user)) == bits(own)


def replayed(bundle: Recommender, user: object, at: datetime) -> pl.DataFrame:
    """What one user got at any moment of the log."""
    asked = bundle.requests(pl.Series("user_id", [user]), round(at.timestamp() * 1_000))
    return bundle.recommend_many(asked).drop("request_id")


def _read(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    from newsrec.data import read_log

    log = read_log(folder)
    return log.clicks, log.articles


def test_tianchi_file_holds_the_answers_in_order_of_rank(trained: TrainResult, tianchi: Path, tmp_path: Path) -> None:
    answers = recommend(RecommendConfig(trained.run, tianchi, tmp_path / "s.csv"))
    lines = [line.split(",") for line in (tmp_path / "s.csv").read_text().splitlines()[1:]]
    assert [item for line in lines for item in line[1:]] == [str(item) for item in answers["item_id"]]
    assert answers["rank"].to_list() == [1, 2, 3, 4, 5] * len(lines)


@pytest.mark.parametrize("k", [1, 4, 6])
def test_tianchi_takes_no_other_number_than_five(trained: TrainResult, tianchi: Path, tmp_path: Path, k: int) -> None:
    with pytest.raises(UsageError, match=f"--k: a Tianchi submission has 5 articles per user, found {k}"):
        recommend(RecommendConfig(trained.run, tianchi, tmp_path / "s.csv", k=k))
    assert list(tmp_path.iterdir()) == []


def test_submission_that_cannot_be_filled_is_refused_and_leaves_nothing(
    trained: TrainResult, tiny: Path, tmp_path: Path
) -> None:
    out = tmp_path / "s.csv"
    with pytest.raises(DataError, match="submission: expected 5 articles for every user, found too few"):
        recommend(RecommendConfig(trained.run, tiny, out, explain=True))
    assert list(tmp_path.iterdir()) == [tiny]
    out.write_text("the last good one")
    with pytest.raises(DataError, match="submission: expected 5 articles"):
        recommend(RecommendConfig(trained.run, tiny, out))
    assert out.read_text() == "the last good one"


def test_other_formats_get_parquet_at_the_instant_after_the_last_event(
    trained: TrainResult, tables: Path, log: Log, tmp_path: Path
) -> None:
    out = tmp_path / "best.parquet"
    answers = recommend(RecommendConfig(trained.run, tables, out, k=3, read=INTEGERS))
    assert bits(pl.read_parquet(out)) == bits(answers)
    assert answers.columns == ["user_id", "item_id", "rank", "score"]
    users = log.clicks["user_id"].unique().sort()
    assert answers["user_id"].to_list() == [user for user in users for _ in range(3)]
    last = log.clicks["clicked_at"].max()
    assert isinstance(last, datetime)
    own = Recommender.load(trained.run).recommend(users[7], at=last + timedelta(milliseconds=1), k=3)
    assert bits(answers[21:24].drop("user_id")) == bits(own)


def test_moment_can_be_given_and_needs_a_time_zone(
    trained: TrainResult, tables: Path, log: Log, day_before_last: datetime, tmp_path: Path
) -> None:
    config = RecommendConfig(trained.run, tables, tmp_path / "b.parquet", at=day_before_last, read=INTEGERS)
    answers = recommend(config)
    user = answers["user_id"][0]
    own = replayed(Recommender.load(trained.run), user, day_before_last)
    assert bits(answers[:5]) == bits(own)
    other_zone = day_before_last.astimezone(UTC) + timedelta(hours=8)
    shifted = datetime.fromisoformat(f"{other_zone:%Y-%m-%dT%H:%M:%S}+08:00")
    assert bits(recommend(replace(config, at=shifted))) == bits(answers)
    with pytest.raises(UsageError, match="--at: expected a time zone, found '2025-03-06 00:00:00'"):
        recommend(replace(config, at=datetime(2025, 3, 6)))


def test_frozen_keeps_the_statistics_of_the_bundle_and_the_users_own_clicks(
    measured: TrainResult, tables: Path, log: Log, tmp_path: Path
) -> None:
    """The bundle ends a day before the log: frozen, no article gains from that day, and nobody gets one read then."""
    config = RecommendConfig(measured.run, tables, tmp_path / "b.parquet", k=20, read=INTEGERS)
    live, frozen = recommend(config), recommend(replace(config, frozen=True))
    bundle = Recommender.load(measured.run)
    over = bundle.with_log(log.clicks, log.articles, log.impressions)
    users = live["user_id"].unique().sort()
    own = over.recommend_many(over.requests(users, over.known_until, bundle.known_until), 20)
    assert bits(frozen) == bits(own.drop("request_id"))
    assert frozen["item_id"].to_list() != live["item_id"].to_list()
    assert frozen.join(log.clicks, on=["user_id", "item_id"], how="semi").is_empty()


def test_explanations_stand_beside_the_answers(trained: TrainResult, tables: Path, tmp_path: Path) -> None:
    out = tmp_path / "best.parquet"
    answers = recommend(RecommendConfig(trained.run, tables, out, explain=True, read=INTEGERS))
    told = pl.read_parquet(tmp_path / "best.parquet.explain.parquet")
    assert told.columns == ["user_id", "item_id", "rank", "score", "channels", "because"]
    assert bits(told.drop("channels", "because")) == bits(answers)
    assert set(told["channels"].drop_nulls().str.split(", ").explode()) == {"itemcf", "popular"}
    assert told["because"].drop_nulls().str.count_matches(IN_WORDS).unique().to_list() == [3]
    assert len(list(tmp_path.iterdir())) == 2


def test_text_ids_for_a_bundle_of_numbers_are_refused(trained: TrainResult, tmp_path: Path) -> None:
    path = tmp_path / "clicks.csv"
    path.write_text("user_id,item_id,clicked_at\n1,10,2025-03-08T00:00:00Z\n")
    config = RecommendConfig(trained.run, path, tmp_path / "b.parquet")
    with pytest.raises(DataError, match="found user_id: Int64 in the bundle, String in the data"):
        recommend(config)
    assert len(recommend(replace(config, read=INTEGERS))) == 5


def test_place_that_cannot_be_written_is_told_before_the_work(tmp_path: Path) -> None:
    """Neither the bundle nor the data is there: the place is looked at first."""
    config = RecommendConfig(tmp_path / "no bundle", tmp_path / "no data", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="--out: expected a file, found the folder"):
        recommend(config)
    for out in (tmp_path / "absent" / "b.parquet", tmp_path / "file" / "b.parquet"):
        with pytest.raises(UsageError, match=r"--out: expected a folder to write into, found .* absent"):
            recommend(replace(config, out=out))


def test_old_answers_are_replaced(trained: TrainResult, tables: Path, tmp_path: Path) -> None:
    out = tmp_path / "b.parquet"
    out.write_text("old")
    answers = recommend(RecommendConfig(trained.run, tables, out, k=1, read=INTEGERS))
    assert len(pl.read_parquet(out)) == len(answers)


LINE = re.compile(r"(\d+) \[(\d+(?:,\d+)*)\]")


@pytest.fixture(scope="module")
def written(log: Log, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """The simulated log as files of a format with shown lists, and a bundle trained on them by default."""

    @cache
    def of(format: str) -> tuple[Path, Path]:
        folder = write_log(log, tmp_path_factory.mktemp(format), format, lossy=True)
        out = tmp_path_factory.mktemp("runs") / format
        return folder, train(TrainConfig(data=folder, out=out, params=FEW_TREES | {"trees": 3}, refit=False)).run

    return of


def in_view(folder: Path, format: str) -> dict[int, list[str]]:
    """Number of each impression -> its items as they stand in the file, read without the library."""
    if format == "ebnerd":
        rows = pl.read_parquet(folder / "behaviors.parquet").select("impression_id", "article_ids_inview")
        return {number: [str(item) for item in items] for number, items in rows.rows()}
    lines = (line.split("\t") for line in (folder / "behaviors.tsv").read_text(encoding="utf-8").splitlines())
    return {int(line[0]): [token.split("-")[0] for token in line[4].split()] for line in lines}


def predictions(out: Path) -> dict[int, list[int]]:
    """Number of each impression -> the ranks of its line; every line has the form of the competitions."""
    found: dict[int, list[int]] = {}
    for line in out.read_text(encoding="utf-8").splitlines():
        match = LINE.fullmatch(line)
        assert match, line
        assert int(match[1]) not in found
        found[int(match[1])] = [int(rank) for rank in match[2].split(",")]
    return found


def check_predictions(out: Path, answers: pl.DataFrame, shown: dict[int, list[str]]) -> None:
    """A line for each impression of the file, with a permutation of 1..n in the file's order that follows the score."""
    found = predictions(out)
    assert set(found) == set(shown)
    own = answers.select("impression_id", pl.col("item_id").cast(pl.String), "rank", "score")
    ranked = {key: frame for (key,), frame in own.partition_by("impression_id", as_dict=True).items()}
    for number, items in shown.items():
        ranks = found[number]
        assert sorted(ranks) == list(range(1, len(items) + 1))
        frame = ranked[number]
        assert frame["item_id"].to_list() == items
        assert frame["rank"].to_list() == ranks
        scores = frame.sort("rank")["score"].to_list()
        assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("format", PREDICTIONS)
def test_predictions_rank_every_list_of_the_file_in_its_order(
    written: Callable[[str], tuple[Path, Path]], log: Log, tmp_path: Path, format: str
) -> None:
    folder, run = written(format)
    out = tmp_path / "predictions.txt"
    answers = recommend(RecommendConfig(run, folder, out))
    shown = in_view(folder, format)
    assert len(shown) == log.impressions["request_id"].n_unique() > 5_000
    check_predictions(out, answers, shown)
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.txt"]


@pytest.mark.parametrize("format", PREDICTIONS)
def test_explained_predictions_are_the_same_with_reasons_beside_them(
    written: Callable[[str], tuple[Path, Path]], tmp_path: Path, format: str
) -> None:
    folder, run = written(format)
    config = RecommendConfig(run, folder, tmp_path / "p.txt")
    plain, lines = recommend(config), (tmp_path / "p.txt").read_bytes()
    answers = recommend(replace(config, explain=True))
    assert (tmp_path / "p.txt").read_bytes() == lines
    assert bits(answers) == bits(plain)
    told = pl.read_parquet(tmp_path / "p.txt.explain.parquet")
    assert told.columns == [*plain.columns, "channels", "because"]
    assert bits(told.drop("channels", "because")) == bits(plain)
    assert told["because"].str.count_matches(IN_WORDS).unique().to_list() == [3]
    assert told["because"].n_unique() > 1_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.txt", "p.txt.explain.parquet"]


@pytest.mark.parametrize("format", PREDICTIONS)
def test_predictions_rank_whole_lists_at_their_own_moments(
    written: Callable[[str], tuple[Path, Path]], tmp_path: Path, format: str
) -> None:
    folder, run = written(format)
    config = RecommendConfig(run, folder, tmp_path / "p.txt", explain=True)
    with pytest.raises(UsageError, match=r"--at: expected no moment, as the bundle ranks shown lists.* found '2025"):
        recommend(replace(config, at=datetime(2025, 3, 6, tzinfo=UTC)))
    assert list(tmp_path.iterdir()) == []
    told = Heard()
    answers = recommend(replace(config, k=5, explain=False), told)
    assert f"note: --k 5 has no effect: predictions for '{format}' rank whole lists" in told.lines
    assert answers["rank"].max() > 5  # type: ignore[operator]
    check_predictions(tmp_path / "p.txt", answers, in_view(folder, format))


def test_lists_of_a_test_set_without_labels_are_ranked(
    written: Callable[[str], tuple[Path, Path]], tmp_path: Path
) -> None:
    folder, run = written("mind")
    bare = tmp_path / "test"
    bare.mkdir()
    lines = (folder / "behaviors.tsv").read_text(encoding="utf-8").splitlines()[-300:]
    (bare / "behaviors.tsv").write_text(re.sub(r"-[01]\b", "", "\n".join(lines) + "\n"), encoding="utf-8")
    answers = recommend(RecommendConfig(run, bare, tmp_path / "prediction.txt"))
    assert len(answers["impression_id"].unique()) == 300
    check_predictions(tmp_path / "prediction.txt", answers, in_view(bare, "mind"))


def test_rank_of_a_list_is_that_of_serving_at_its_moment(
    on_slates: TrainResult, tables: Path, log: Log, tmp_path: Path
) -> None:
    """A format without a form of its own gets Parquet. Items that score the same stand in the order of the list."""
    out = tmp_path / "ranked.parquet"
    answers = recommend(RecommendConfig(on_slates.run, tables, out, read=INTEGERS))
    assert bits(pl.read_parquet(out)) == bits(answers)
    assert answers.columns == ["impression_id", "user_id", "item_id", "score", "rank"]
    assert len(answers) == len(log.impressions)
    bundle = Recommender.load(on_slates.run)
    for number in (17, 4_000, 5_700):
        shown = log.impressions.filter(request_id=number)
        user, at = shown.row(0, named=True)["user_id"], shown.row(0, named=True)["requested_at"]
        before = [pl.col(name) < pl.lit(at).cast(TIME) for name in ("clicked_at", "requested_at")]
        past = bundle.with_log(log.clicks.filter(before[0]), log.articles, log.impressions.filter(before[1]))
        own = answers.filter(impression_id=number)
        assert own["item_id"].to_list() == shown["item_id"].to_list()
        assert own["score"].to_list() == past.rank(user, shown["item_id"].to_list(), at=at).tolist()
        order = sorted(range(len(own)), key=lambda place: -own["score"][place])
        assert own["rank"].to_list() == [order.index(place) + 1 for place in range(len(own))]


def test_best_of_each_list_are_kept_where_a_number_is_given(
    on_slates: TrainResult, tables: Path, tmp_path: Path
) -> None:
    config = RecommendConfig(on_slates.run, tables, tmp_path / "r.parquet", read=INTEGERS)
    whole, best = recommend(config), recommend(replace(config, k=2, explain=True))
    assert bits(best) == bits(whole.filter(pl.col("rank") <= 2))
    assert bits(pl.read_parquet(tmp_path / "r.parquet")) == bits(best)
    told = pl.read_parquet(tmp_path / "r.parquet.explain.parquet")
    assert bits(told.drop("channels", "because")) == bits(best)


def test_frozen_lists_know_nothing_of_articles_after_the_bundle(
    on_slates: TrainResult, tables: Path, log: Log, tmp_path: Path
) -> None:
    config = RecommendConfig(on_slates.run, tables, tmp_path / "r.parquet", read=INTEGERS)
    live, frozen = recommend(config), recommend(replace(config, frozen=True))
    until = Recommender.load(on_slates.run).known_until
    early = log.impressions.filter(pl.col("requested_at").to_physical() <= until)["request_id"].unique()
    known = pl.col("impression_id").is_in(early.implode())
    assert bits(live.filter(known)) == bits(frozen.filter(known))
    assert live.filter(~known)["rank"].to_list() != frozen.filter(~known)["rank"].to_list()


def test_bundle_of_lists_needs_lists(on_slates: TrainResult, log: Log, tmp_path: Path) -> None:
    log.clicks.write_parquet(tmp_path / "clicks.parquet")
    config = RecommendConfig(on_slates.run, tmp_path / "clicks.parquet", tmp_path / "p.txt", read=INTEGERS)
    with pytest.raises(DataError, match="expected impressions, as the bundle ranks shown lists, found clicks only"):
        recommend(config)
    assert not (tmp_path / "p.txt").exists()


REAL = os.environ.get("NEWSREC_TEST_DATA")


@pytest.mark.skipif(not REAL, reason="NEWSREC_TEST_DATA names no folder with real logs")
@pytest.mark.parametrize(("format", "lists"), [("ebnerd", 24_724), ("mind", 5_000)])
def test_predictions_of_real_logs(format: str, lists: int, tmp_path: Path) -> None:
    folder = Path(str(REAL)) / format
    split = SplitConfig(train_requests=2_000, valid_requests=500, test_requests=500)
    config = TrainConfig(data=folder, out=tmp_path / "run", params=FEW_TREES | {"trees": 3}, split=split, refit=False)
    run = train(config).run
    out = tmp_path / "predictions.txt"
    answers = recommend(RecommendConfig(run, folder, out))
    shown = in_view(folder / "train" if format == "ebnerd" else folder, format)
    assert len(out.read_text(encoding="utf-8").splitlines()) == len(shown) == lists
    check_predictions(out, answers, shown)


FULL = """
import resource, signal, sys
from pathlib import Path
from newsrec.data import ReadOptions
from newsrec.errors import UsageError
from newsrec.recommend import PREDICTIONS, RecommendConfig, recommend
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))
run, data, out = map(Path, sys.argv[1:])
try:
    recommend(RecommendConfig(run, data, out, explain=True, read=ReadOptions(integer_ids=True)))
except UsageError as error:
    print(error)
"""


def test_full_disk_keeps_the_old_answers_and_leaves_nothing_else(
    trained: TrainResult, tables: Path, tmp_path: Path, python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    pytest.importorskip("resource", reason="file size limits are those of POSIX")
    out = tmp_path / "b.parquet"
    out.write_text("old")
    done = python("-c", FULL, trained.run, tables, out)
    assert done.stdout.startswith("--out: expected a place to write"), done.stderr
    assert done.stdout.count("\n") == 1
    assert out.read_text() == "old"
    assert list(tmp_path.iterdir()) == [out]
