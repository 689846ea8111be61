"""Own features: what a file may hold, what is refused in one line, and the way from training to serving."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from features.catalog import FEATURES
from newsrec.cli import main
from newsrec.data import Log
from newsrec.errors import BundleError, UsageError
from newsrec.evaluate import EvaluateConfig, evaluate
from newsrec.own import NONE, OwnFeatures, read_own
from newsrec.own_probe import fault_of_values
from newsrec.serve import Recommender
from newsrec.train import TrainResult, train
from newsrec.train_config import TrainConfig
from tests.conftest import FEW_TREES
from tests.factories import bits, rich_log, small_log

HEAD = "import polars as pl\n\n"
GOOD = (
    HEAD
    + '''
def _half(name):
    return pl.col(name) / 2


def clicks_per_hour_of_age():
    """Readers of the last hour for each hour of age. Clicks, >= 0.

    More text.
    """
    return pl.col("item_clicks_1h") / ((pl.col("requested_ms") - pl.col("created_ms")) / 3_600_000)


def mood_rank():
    """Rank of the article's mood in its list. 1 is the best."""
    return pl.col("article_mood").rank("min", descending=True).over("request_id")


def rainy():
    """Whether it rained at the request. 0 or 1."""
    return (pl.col("request_weather") == "rain") & (_half("words") > 0)
'''
)


def file_of(folder: Path, text: str, name: str = "own.py") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def one(body: str, name: str = "mine", docstring: str = '"""Mine."""') -> str:
    return f"{HEAD}def {name}():\n    {docstring}\n    return {body}\n"


def with_own_columns(log: Log) -> Log:
    """The log with a mood for most articles and the weather of each list."""
    mood = pl.when(pl.col("item_id") % 5 > 0).then(pl.col("item_id") * 7 % 11).cast(pl.Float64)
    weather = pl.when(pl.col("request_id") % 3 == 0).then(pl.lit("rain")).otherwise(pl.lit("sun"))
    assert log.impressions is not None
    return replace(
        log,
        articles=log.articles.with_columns(mood.alias("mood")),
        impressions=log.impressions.with_columns(weather.alias("weather")),
    )


@pytest.fixture(scope="module")
def moody(log: Log) -> Log:
    return with_own_columns(log)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return file_of(tmp_path_factory.mktemp("own"), GOOD)


@pytest.fixture(scope="module")
def own_run(moody: Log, file: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """Lists that were shown, so that requests bring their weather along."""
    out = tmp_path_factory.mktemp("runs") / "own"
    config = TrainConfig(out=out, params=FEW_TREES, refit=False, candidates="slate", features=file)
    return train(config, log=moody)


class TestAFile:
    def test_gives_its_functions_in_their_order_without_helpers(self, file: Path) -> None:
        found = read_own(file)
        assert [f.name for f in found.features] == ["clicks_per_hour_of_age", "mood_rank", "rainy"]
        assert {f.family for f in found.features} == {"own"}
        first = found.features[0]
        assert first.meaning == "Readers of the last hour for each hour of age. Clicks, >= 0."
        assert first.text.endswith("More text.")
        assert first.roots == {"item_clicks_1h", "requested_ms", "created_ms"}

    def test_says_what_the_log_must_have(self, file: Path) -> None:
        of_age, mood, rainy = read_own(file).features
        assert of_age.requires == {"articles.created_at"}
        assert mood.requires == {"articles.mood"}
        assert rainy.requires == {"impressions.weather", "articles.words"}
        assert (of_age.of_slate, mood.of_slate) == (False, True)

    def test_that_is_none_gives_none(self) -> None:
        assert read_own(None) is NONE
        assert NONE.facts is None

    def test_turns_what_is_not_finite_into_null(self, tmp_path: Path) -> None:
        (feature,) = read_own(file_of(tmp_path, one('pl.col("words") / pl.col("user_clicks")'))).features
        rows = pl.DataFrame({"words": [1.0, 0.0, 3.0], "user_clicks": [0.0, 0.0, 2.0]})
        assert rows.select(feature.expression).to_series().to_list() == [None, None, 1.5]


REFUSED = {
    "without docstring": (one('pl.col("words")', docstring="pass"), "mine in .*expected a docstring"),
    "of the catalogue's name": (one('pl.col("words")', "item_words"), "item_words in .*expected a new name"),
    "of a channel's name": (one('pl.col("words")', "itemcf_score"), "itemcf_score in .*expected a new name"),
    "that is no expression": (one("7"), r"mine in .*expected an expression \(pl.Expr\), found int"),
    "that fails": (one("1 / 0"), "mine in .*found ZeroDivisionError"),
    "of an unknown fact": (one('pl.col("wrods")'), r"mine in .*found \['wrods'\]"),
    "of the label": (one('pl.col("label")'), r"mine in .*found \['label'\]"),
    "of the outcome": (one('pl.col("request_clicked")'), r"mine in .*found \['request_clicked'\]"),
    "of what the split wrote": (one('pl.col("request_positives")'), r"mine in .*found \['request_positives'\]"),
    "of nothing": (one("pl.lit(1.0)"), "mine in .*found no column"),
    "of the request's id": (one('pl.col("request_id") + pl.col("words")'), "expected the request's id in .over only"),
    "over the user": (one('pl.col("words").sum().over("user_clicks")'), "found another .over"),
    "over the request and more": (one('pl.col("words").sum().over("request_id", "item_clicks_1h")'), "another .over"),
    "over an order": (one('pl.col("words").sum().over("request_id", order_by="words")'), "another .over"),
    "with a running sum": (one('pl.col("words").cum_sum()'), "mine in .*along time or row order, found CumSum"),
    "with a running sum in the list": (one('pl.col("words").cum_sum().over("request_id")'), "found CumSum"),
    "with a rolling mean": (one('pl.col("words").rolling_mean(3)'), "found RollingExpr"),
    "with a rolling sum by time": (one('pl.col("words").rolling_sum_by("requested_ms", "2i")'), "found RollingExprBy"),
    "with a shift": (one('pl.col("words").shift(-1)'), "found Shift"),
    "with a difference": (one('pl.col("words").diff()'), "found Diff"),
    "with a sum over all rows": (one('pl.col("words") / pl.col("words").sum()'), "found one over all rows"),
    "with Python inside": (one('pl.col("words").map_batches(lambda s: s)'), "mine in .*expected an expression"),
    "with chance": (one('pl.col("words").shuffle()'), "found Random"),
    "with a pattern of columns": (one('pl.col("^item_.*$")'), "mine in .*found Selector"),
    "with an argument": (one('pl.col("words")').replace("mine()", "mine(a)"), r"expected no arguments, found \['a'\]"),
    "told twice": (one('pl.col("words")') + one('pl.col("user_clicks")'), "mine in .*expected each name once"),
    "that is none": ("x = 1\n", "expected functions that return expressions, found none"),
    "that is no Python": ("def mine(:\n", r"expected a Python file, found .*\(SyntaxError"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_function_is_refused_in_one_line(what: str, tmp_path: Path) -> None:
    text, message = REFUSED[what]
    path = file_of(tmp_path, text)
    with pytest.raises(UsageError, match=message) as told:
        read_own(path)
    assert str(path) in str(told.value)
    assert "\n" not in str(told.value)


def test_file_that_is_absent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--features: expected a Python file, found '.*none\.py'"):
        read_own(tmp_path / "none.py")


def unfit(folder: Path, body: str, log: Log) -> str:
    with pytest.raises(UsageError) as told:
        read_own(file_of(folder, one(body))).refuse_unfit(log)
    return str(told.value)


class TestTheLog:
    def test_must_have_the_own_column(self, tmp_path: Path) -> None:
        assert "none of ['articles.mood']" in unfit(tmp_path, 'pl.col("article_mood")', rich_log())
        assert "none of ['impressions.weather']" in unfit(tmp_path, 'pl.col("request_weather")', rich_log())

    def test_must_have_what_the_facts_need(self, tmp_path: Path) -> None:
        assert "mine in" in unfit(tmp_path, 'pl.col("item_exposures_1h")', small_log())
        assert "['impressions']" in unfit(tmp_path, 'pl.col("item_exposures_1h")', small_log())

    def test_must_have_one_value_per_list(self, tmp_path: Path) -> None:
        log = rich_log()
        assert log.impressions is not None
        log = replace(log, impressions=log.impressions.with_columns(pl.col("item_id").alias("place")))
        assert "one value per list in ['request_place'], found several" in unfit(
            tmp_path, 'pl.col("request_place")', log
        )

    def test_must_have_numbers(self, tmp_path: Path) -> None:
        log = rich_log()
        assert "expected numbers" in unfit(tmp_path, 'pl.col("article_publisher")', log)

    @pytest.mark.parametrize(
        ("body", "fault"),
        [
            ('pl.col("words").rank()', "depend on others"),
            ('pl.col("words").fill_null(strategy="forward").over("request_id")', "order of rows"),
            ('pl.col("words").first().over("request_id")', "order of rows"),
            ('pl.col("words").drop_nulls()', "one value per candidate|expected values"),
            ('pl.col("words").str.len_chars()', "expected values, found"),
        ],
    )
    def test_shows_values_that_depend_on_more_than_their_list(self, body: str, fault: str, tmp_path: Path) -> None:
        (feature,) = read_own(file_of(tmp_path, one(body))).features
        found = fault_of_values(feature, {})
        assert found is not None
        assert any(part in found for part in fault.split("|")), found

    @pytest.mark.parametrize(
        "body",
        [
            'pl.col("words") / pl.col("words").sum().over("request_id")',
            'pl.col("words").rank("min").over("request_id")',
            'pl.col("words").log1p() * pl.len().over("request_id")',
            'pl.when(pl.col("words") > 5).then(pl.col("user_clicks")).otherwise(0)',
        ],
    )
    def test_shows_nothing_wrong_with_sound_values(self, body: str, tmp_path: Path) -> None:
        (feature,) = read_own(file_of(tmp_path, one(body))).features
        assert fault_of_values(feature, {}) is None


class TestARun:
    def test_lists_own_features_last_with_their_meaning(self, own_run: TrainResult) -> None:
        page = json.loads((own_run.run / "features.json").read_text(encoding="utf-8"))
        assert [row["name"] for row in page[-3:]] == ["clicks_per_hour_of_age", "mood_rank", "rainy"]
        assert {row["family"] for row in page[-3:]} == {"own"}
        assert page[-1]["meaning"] == "Whether it rained at the request. 0 or 1."
        assert {f.name for f in FEATURES} >= {row["name"] for row in page[:-3]}

    def test_keeps_name_and_hash_of_the_file_and_not_the_file(self, own_run: TrainResult, file: Path) -> None:
        manifest = json.loads((own_run.run / "manifest.json").read_text(encoding="utf-8"))
        assert manifest["own_features"] == read_own(file).facts
        assert not list(own_run.run.rglob("*.py"))

    def test_keeps_no_such_fact_without_a_file(self, trained: TrainResult) -> None:
        assert "own_features" not in json.loads((trained.run / "manifest.json").read_text(encoding="utf-8"))

    def test_is_loaded_with_the_same_file_under_any_name(self, own_run: TrainResult, tmp_path: Path) -> None:
        other = file_of(tmp_path, GOOD, "renamed.py")
        assert len(Recommender.load(own_run.run, features=other).own.features) == 3

    def test_is_not_loaded_without_the_file(self, own_run: TrainResult) -> None:
        with pytest.raises(BundleError, match=r"--features: expected .*'own.py' with sha256 [0-9a-f]{12}; none given"):
            Recommender.load(own_run.run)

    def test_is_not_loaded_with_another_file_and_does_not_run_it(self, own_run: TrainResult, tmp_path: Path) -> None:
        mark = tmp_path / "executed"
        other = file_of(tmp_path, f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n{GOOD}")
        with pytest.raises(BundleError, match="Give the same file"):
            Recommender.load(own_run.run, features=other)
        assert not mark.exists()
        with pytest.raises(BundleError, match=r"none\.py': No such file"):
            Recommender.load(own_run.run, features=tmp_path / "none.py")

    def test_without_own_features_takes_no_file(self, trained: TrainResult, file: Path) -> None:
        with pytest.raises(BundleError, match="expected a bundle with own features"):
            Recommender.load(trained.run, features=file)

    def test_may_leave_them_out(self, moody: Log, file: Path, tmp_path: Path) -> None:
        config = TrainConfig(out=tmp_path / "run", params=FEW_TREES, features=file, without=("own",))
        result = train(replace(config, refit=False), log=moody)
        page = json.loads((result.run / "features.json").read_text(encoding="utf-8"))
        assert "own" not in {row["family"] for row in page}


class TestServing:
    def test_knows_the_article_and_the_request(self, own_run: TrainResult, file: Path) -> None:
        recommender = Recommender.load(own_run.run, features=file)
        items = [1, 2, 3, 5, 10**9]
        moods: list[float | None] = [i * 7 % 11 if i % 5 else None for i in items[:4]]
        ranks = [1.0 + sum(m is not None and m > mood for m in moods) for mood in moods if mood is not None]
        for weather, rained in (("rain", 1.0), ("sun", 0.0)):
            found = recommender.features(1, items, context={"weather": weather})
            assert found["mood_rank"].to_list() == [*ranks, None, None]
            assert found["rainy"].to_list()[:4] == [rained] * 4
        assert recommender.features(1, items)["rainy"].null_count() == 5

    def test_replayed_requests_have_the_bits_of_training(self, own_run: TrainResult, file: Path, moody: Log) -> None:
        recommender = Recommender.load(own_run.run, features=file)
        clicks, lists = moody.clicks, moody.impressions
        assert lists is not None
        later = lists.filter(pl.col("requested_at") > pl.lit(recommender.known_until).cast(pl.Datetime("ms", "UTC")))
        shown = later.filter(pl.col("request_id") == later["request_id"][len(later) // 2])
        at: datetime = shown["requested_at"][0]
        context = {name: shown[name][0] for name in ("weather", "device") if name in shown.columns}
        batch = recommender.with_log(clicks, moody.articles, lists)
        asked = batch.requests(shown["user_id"][:1], int(at.timestamp() * 1000 + 0.5))
        asked = asked.with_columns(pl.lit(value).alias(name) for name, value in context.items())
        slate = shown.select(pl.lit(0, pl.Int64).alias("request_id"), "item_id")
        expected = replace(batch.assembly(asked), slates=slate).describe(slate, asked)
        recommender.observe(
            clicks.filter(pl.col("clicked_at") < at), lists.filter(pl.col("requested_at") < at), moody.articles
        )
        live = recommender.features(shown["user_id"][0], shown["item_id"].to_list(), at.astimezone(UTC), context)
        names = ["clicks_per_hour_of_age", "mood_rank", "rainy"]
        assert bits(live.select(names)) == bits(expected.select(names))
        assert live["mood_rank"].null_count() < len(live)

    def test_learns_of_a_new_mood(self, own_run: TrainResult, file: Path) -> None:
        recommender = Recommender.load(own_run.run, features=file)
        assert recommender.features(1, [1, 5])["mood_rank"].to_list() == [1.0, None]
        recommender.observe(articles=pl.DataFrame({"item_id": [5, 7_777_777], "mood": [99.0, 98.0]}))
        assert recommender.features(1, [1, 5, 7_777_777])["mood_rank"].to_list() == [3.0, 1.0, 2.0]

    def test_evaluation_reads_the_weather_of_the_lists(
        self, own_run: TrainResult, file: Path, moody: Log, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[np.ndarray] = []
        score = Recommender.load(own_run.run, features=file).ranker.score
        monkeypatch.setattr("newsrec.train.read", lambda config: moody)
        monkeypatch.setattr(
            "newsrec.rankers.lgbm.LgbmRanker.score", lambda self, f: seen.append(f["rainy"].to_numpy()) or score(f)
        )
        figures = evaluate(EvaluateConfig(own_run.run, test_requests=200, features=file))
        assert figures["protocol"]["test_requests"] == 200
        assert set(np.unique(np.concatenate(seen)[~np.isnan(np.concatenate(seen))])) == {0.0, 1.0}


def test_command_line_says_what_is_wrong_in_one_line(
    tmp_path: Path, tables: Path, own_run: TrainResult, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = file_of(tmp_path, one('pl.col("words").shift(1)'))
    words = ["train", "--data", str(tables), "--features", str(bad), "--out", str(tmp_path / "run")]
    assert main(words) == 2
    assert f"mine in '{bad}'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main(["recommend", "--run", str(own_run.run), "--data", str(tables), "--out", str(tmp_path / "o")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_own_features_are_values() -> None:
    assert OwnFeatures() == NONE
