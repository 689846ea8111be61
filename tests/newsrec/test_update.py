"""Rolling a bundle forward: the same model, a newer state, a bundle of its own, and nothing where it fails."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from newsrec import update as module
from newsrec.bundle import read_manifest
from newsrec.cli import main
from newsrec.data import Log, write_log
from newsrec.errors import BundleError, DataError, UsageError
from newsrec.evaluate import EvaluateConfig, evaluate
from newsrec.serve import Recommender
from newsrec.train import TrainResult, train
from newsrec.train_config import TrainConfig
from newsrec.update import UpdateConfig, UpdateResult, update
from tests.conftest import FEW_TREES

ANYWHERE = Path("log")


def part(log: Log, keep: Callable[[pl.Expr], pl.Expr]) -> Log:
    """The events of a log whose time is to be kept."""
    assert log.impressions is not None
    return replace(
        log,
        clicks=log.clicks.filter(keep(pl.col("clicked_at"))),
        impressions=log.impressions.filter(keep(pl.col("requested_at"))),
    )


@pytest.fixture(scope="module")
def later(log: Log, measured: TrainResult) -> Log:
    """What the bundle `measured` does not know: the log's last day."""
    last = pl.Series([Recommender.load(measured.run).known_until - 1]).cast(pl.Datetime("ms", "UTC"))[0]
    return part(log, lambda time: time > last)


@pytest.fixture(scope="module")
def updated(measured: TrainResult, later: Log, tmp_path_factory: pytest.TempPathFactory) -> UpdateResult:
    out = tmp_path_factory.mktemp("runs") / "updated"
    return update(UpdateConfig(measured.run, ANYWHERE, out), log=later)


def answers(recommender: Recommender, at: datetime | None = None) -> list[pl.DataFrame]:
    return [recommender.recommend(user, at, k=10) for user in (1, 2, 3, 17, 44, 300, 10**7)]


class TestTheNewBundle:
    def test_answers_as_one_that_observed_the_events(
        self, updated: UpdateResult, measured: TrainResult, later: Log
    ) -> None:
        live, rolled = Recommender.load(measured.run), Recommender.load(updated.run)
        live.observe(later.clicks, later.impressions, later.articles)
        assert live.known_until == rolled.known_until
        for one, other in zip(answers(live), answers(rolled), strict=True):
            assert one.equals(other)
            assert len(one) == 10

    def test_answers_otherwise_than_the_old_one(self, updated: UpdateResult, measured: TrainResult) -> None:
        at = datetime.fromisoformat(updated.updated_from["new_last_event"]) + timedelta(seconds=1)
        old, new = (answers(Recommender.load(run), at) for run in (measured.run, updated.run))
        assert sum(not one.equals(other) for one, other in zip(old, new, strict=True)) > 3

    def test_keeps_model_vocabulary_parameters_and_figures(self, updated: UpdateResult, measured: TrainResult) -> None:
        old, new = read_manifest(measured.run), read_manifest(updated.run)
        same = {name for name in old["files"] if not name.startswith(("state/", "recall/"))}
        assert {"lambdarank.txt", "vocabulary.parquet", "metrics.json", "params.json", "features.json"} <= same
        assert all(new["files"][name] == old["files"][name] for name in same)
        assert set(new["files"]) - set(old["files"]) == {"drift.json"}
        assert {name for name in old["files"] if new["files"][name] != old["files"][name]} >= {
            "state/clicks.parquet",
            "state/impressions.parquet",
            "recall/itemcf.parquet",
            "recall/popular.parquet",
        }
        facts = set(old) - {"files", "created_at"}
        assert {name: new[name] for name in facts} == {name: old[name] for name in facts}

    def test_says_where_it_came_from(self, updated: UpdateResult, measured: TrainResult, later: Log) -> None:
        facts = read_manifest(updated.run)["updated_from"]
        assert facts == updated.updated_from
        assert facts["run"] == measured.run.name
        assert later.impressions is not None
        lists = later.impressions["request_id"].n_unique()
        assert (facts["new_clicks"], facts["new_lists"]) == (len(later.clicks), lists)
        assert facts["new_events"] == len(later.clicks) + lists
        old, new = Recommender.load(measured.run), Recommender.load(updated.run)
        for name, recommender in (("old_last_event", old), ("new_last_event", new)):
            assert datetime.fromisoformat(facts[name]).timestamp() * 1000 == pytest.approx(recommender.known_until - 1)

    def test_leaves_the_old_one_as_it_was(self, updated: UpdateResult, measured: TrainResult) -> None:
        assert "updated_from" not in read_manifest(measured.run)
        assert not (measured.run / "drift.json").exists()

    def test_is_updated_again_from_there(self, updated: UpdateResult, later: Log, tmp_path: Path) -> None:
        days = timedelta(days=1)
        tomorrow = replace(
            later,
            clicks=later.clicks.with_columns(pl.col("clicked_at") + days),
            impressions=later.impressions.with_columns(  # type: ignore[union-attr]
                pl.col("requested_at") + days, pl.col("request_id") + 10**6
            ),
        )
        second = update(UpdateConfig(updated.run, ANYWHERE, tmp_path / "second"), log=tomorrow)
        assert second.updated_from["run"] == "updated"
        assert second.updated_from["new_clicks"] == len(later.clicks)
        assert json.loads((second.run / "drift.json").read_text(encoding="utf-8")) == second.drift

    def test_is_measured_on_what_it_does_not_know_yet(
        self, updated: UpdateResult, tables: Path, log: Log, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("newsrec.train.read", lambda config: log)
        with pytest.raises(DataError, match="found none"):
            evaluate(EvaluateConfig(updated.run, tables))


class TestTheData:
    def test_that_overlaps_stands_alone(self, measured: TrainResult, log: Log, tmp_path: Path) -> None:
        middle = log.clicks["clicked_at"][len(log.clicks) // 2]
        late = part(log, lambda time: time >= middle)
        result = update(UpdateConfig(measured.run, ANYWHERE, tmp_path / "new"), log=late)
        state = Recommender.load(result.run).store
        assert len(state.clicks) == len(late.clicks)
        known = Recommender.load(measured.run).store.clicks
        assert (
            result.updated_from["new_clicks"]
            == late.clicks.join(known, on=["user_id", "item_id", "clicked_at"], how="anti").height
        )

    def test_known_to_both_counts_once(self, measured: TrainResult, later: Log, log: Log, tmp_path: Path) -> None:
        """Where lists decide, clicks may repeat what is known."""
        both = replace(later, clicks=log.clicks)
        result = update(UpdateConfig(measured.run, ANYWHERE, tmp_path / "new"), log=both)
        assert len(Recommender.load(result.run).store.clicks) == len(log.clicks)

    def test_without_a_new_event_is_refused(self, measured: TrainResult, later: Log, tmp_path: Path) -> None:
        known = Recommender.load(measured.run).store
        old = replace(later, clicks=known.clicks, impressions=known.impressions)
        with pytest.raises(DataError, match=r"expected events that the bundle .* does not know, found none"):
            update(UpdateConfig(measured.run, ANYWHERE, tmp_path / "new"), log=old)
        assert not list(tmp_path.iterdir())

    def test_with_a_null_leaves_what_was_known_of_an_article(
        self, measured: TrainResult, later: Log, tmp_path: Path
    ) -> None:
        told = later.articles.with_columns(pl.when(pl.col("item_id") > 5).then("words").alias("words"))
        result = update(UpdateConfig(measured.run, ANYWHERE, tmp_path / "new"), log=replace(later, articles=told))
        articles = Recommender.load(result.run).store.articles
        assert articles["words"].equals(later.articles["words"])


class TestDrift:
    def test_is_told_of_every_feature_and_kept(self, updated: UpdateResult) -> None:
        page = json.loads((updated.run / "drift.json").read_text(encoding="utf-8"))
        assert page == updated.drift
        names = read_manifest(updated.run)["features"]
        assert {row["feature"] for row in page["features"]} == set(names)
        assert page["requests"]["old"] > 100
        assert page["requests"]["new"] > 100
        assert page["psi_limit"] == 0.25
        assert updated.table.columns[:3] == ["feature", "family", "psi"]

    def test_finds_days_that_are_alike_alike(self, updated: UpdateResult) -> None:
        """An hour of the day does not drift; totals that only ever grow may."""
        calm = updated.table.filter(pl.col("feature").is_in(["item_words", "hour", "item_clicks_1h_slate_share"]))
        assert calm["psi"].max() < 0.25  # type: ignore[operator]

    def test_marks_what_moved(self, measured: TrainResult, later: Log, tmp_path: Path) -> None:
        long = later.articles.with_columns((pl.col("words") * 10 + 5_000).alias("words"))
        result = update(UpdateConfig(measured.run, ANYWHERE, tmp_path / "new"), log=replace(later, articles=long))
        assert "item_words" in result.drift["drifted"]
        assert any("item_words" in line for line in result.lines())

    def test_tells_events_per_day(self, updated: UpdateResult, later: Log) -> None:
        days = updated.drift["events_per_day"]
        seconds = [datetime.fromisoformat(updated.updated_from[f"{n}_last_event"]).timestamp() for n in ("old", "new")]
        assert days["new"]["clicks"] == pytest.approx(len(later.clicks) * 86_400 / (seconds[1] - seconds[0]), abs=0.01)
        assert set(days["old"]) == {"clicks", "lists"}


class TestThePlace:
    def test_is_not_the_bundle_itself(self, bundle: Path, later: Log) -> None:
        before = read_manifest(bundle)
        with pytest.raises(UsageError, match="expected another folder than --run"):
            update(UpdateConfig(bundle, ANYWHERE, bundle / "state" / "..", overwrite=True), log=later)
        assert read_manifest(bundle) == before

    def test_that_is_taken_is_refused_and_replaced_on_demand(
        self, measured: TrainResult, bundle: Path, later: Log
    ) -> None:
        with pytest.raises(UsageError, match="--overwrite"):
            update(UpdateConfig(measured.run, ANYWHERE, bundle), log=later)
        assert "updated_from" not in read_manifest(bundle)
        update(UpdateConfig(measured.run, ANYWHERE, bundle, overwrite=True), log=later)
        assert read_manifest(bundle)["updated_from"]["run"] == measured.run.name

    def test_holds_nothing_after_a_run_that_was_killed(
        self, measured: TrainResult, later: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def killed(*arguments: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(module, "write_manifest", killed)
        with pytest.raises(KeyboardInterrupt):
            update(UpdateConfig(measured.run, ANYWHERE, tmp_path / "new"), log=later)
        assert not list(tmp_path.iterdir())

    def test_of_a_damaged_bundle_is_not_filled(self, bundle: Path, later: Log, tmp_path: Path) -> None:
        (bundle / "lambdarank.txt").write_text("tree", encoding="utf-8")
        with pytest.raises(BundleError, match="lambdarank"):
            update(UpdateConfig(bundle, ANYWHERE, tmp_path / "new"), log=later)
        assert not (tmp_path / "new").exists()


class TestOwnFeatures:
    def test_are_handed_over_again(self, log: Log, later: Log, tmp_path: Path) -> None:
        file = tmp_path / "own.py"
        file.write_text(
            'import polars as pl\n\n\ndef size():\n    """Size."""\n    return pl.col("article_words") * 2\n',
            encoding="utf-8",
        )
        config = TrainConfig(out=tmp_path / "run", params=FEW_TREES, refit=False, features=file)
        run = train(config, log=log).run
        with pytest.raises(BundleError, match="--features"):
            update(UpdateConfig(run, ANYWHERE, tmp_path / "new"), log=later)
        result = update(UpdateConfig(run, ANYWHERE, tmp_path / "new", features=file), log=later)
        assert read_manifest(result.run)["own_features"] == read_manifest(run)["own_features"]
        assert "size" in result.table["feature"].to_list()
        recommender = Recommender.load(result.run, features=file)
        assert recommender.features(1, [1])["size"][0] == 2 * log.articles["words"][0]


def test_on_shown_lists_describes_these_lists(on_slates: TrainResult, later: Log, tmp_path: Path) -> None:
    result = update(UpdateConfig(on_slates.run, ANYWHERE, tmp_path / "new"), log=later)
    rolled, live = Recommender.load(result.run), Recommender.load(on_slates.run)
    live.observe(later.clicks, later.impressions, later.articles)
    assert (rolled.rank(1, [1, 2, 3]) == live.rank(1, [1, 2, 3])).all()
    assert result.drift["requests"]["new"] > 100


def test_command_line_writes_the_bundle_and_prints_the_table(
    measured: TrainResult, later: Log, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = write_log(later, tmp_path / "later", "table"), tmp_path / "new"
    words = ["update", "--run", measured.run, "--data", data, "--integer-ids", "--out", out]
    assert main([str(word) for word in words]) == 0
    told = capsys.readouterr().out
    assert told.rstrip().endswith(f"bundle: {out}")
    assert "features drifted (PSI over 0.25)" in told
    assert "clicks per day" in told
    assert main([str(word) for word in words]) == 2
    assert capsys.readouterr().err.count("\n") == 1
