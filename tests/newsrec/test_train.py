"""One run from log to bundle: what it promises to leave, what it repeats, what it refuses."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from features.columns import TIME
from features.events import EventStore
from features.vocabulary import Vocabulary
from newsrec import train_output
from newsrec.artefacts import DETECTORS
from newsrec.assembly import BASELINES, training_data
from newsrec.bundle import read_manifest, sha256
from newsrec.candidates import MergeConfig
from newsrec.data import FORMATS, SLATE_FORMATS, Log, ReadOptions, read_log, write_log
from newsrec.earlier import config_of_run
from newsrec.errors import BundleError, DataError, UsageError
from newsrec.own import OwnFeatures
from newsrec.params import load_params
from newsrec.progress import Clock, Silent, Step
from newsrec.rankers import RANKERS, RankingData
from newsrec.recall import CHANNELS, DEFAULT_CHANNELS
from newsrec.serve import Recommender
from newsrec.simulate import SimulationConfig, simulate
from newsrec.split import SplitConfig, split_log
from newsrec.train import TrainResult, assembly_of, read, train
from newsrec.train_config import TrainConfig
from tests.conftest import FEW_TREES
from tests.factories import Heard, clicks_of, equipped, log_of, requests_of, rich_log, small_log

QUICK = TrainConfig(
    params={"trees": 3, "min_data_in_leaf": 2, "models": 1, "threads": 1},
    split=SplitConfig(test_days=0.5, valid_days=0.5, warmup_hours=2),
)
"""A run over `small_log` in well under a second."""
PERIODS = ("train", "valid", "test")
HALF_DAYS = SplitConfig(test_days=0.5, valid_days=0.5)
FIGURES = {"mrr@5", "hit@5", "ndcg@5", "ndcg@10", "auc", "gauc"}
FILES = {
    *("manifest.json", "features.json", "vocabulary.parquet", "lambdarank.txt", "params.json", "metrics.json"),
    *("calibration.json", "report.html", "per_request.parquet", "state/clicks.parquet", "state/articles.parquet"),
    *("state/impressions.parquet", "lambdarank.onnx", "lambdarank.signature.json"),
    *(f"recall/{name}.parquet" for name in DEFAULT_CHANNELS),
}


def quick(out: Path, log: Log | None = None, **changes: Any) -> TrainResult:
    return train(replace(QUICK, out=out, **changes), log=log or small_log(1))


def loaded(run: Path, name: str) -> Any:
    return json.loads((run / name).read_text(encoding="utf-8"))


def until(result: TrainResult, period: str, time: str = "clicked_at") -> pl.Expr:
    return pl.col(time) < datetime.fromisoformat(result.metrics["protocol"][f"{period}_from"])


class TestWhatARunLeaves:
    def test_metrics_have_the_promised_keys(self, trained: TrainResult) -> None:
        metrics = loaded(trained.run, "metrics.json")
        protocol = {"format", "validation", "train_requests", "test_requests", "candidates", "seed"}
        assert protocol <= set(metrics["protocol"])
        assert set(metrics["recall"]) == {*DEFAULT_CHANNELS, "merged"}
        assert all({"hit@5", "hit@50", "unique@50"} <= set(metrics["recall"][name]) for name in DEFAULT_CHANNELS)
        assert {"hit@5", "hit@50"} <= set(metrics["recall"]["merged"])
        assert {"popularity", "recall_order"} <= set(metrics["baselines"]) == set(BASELINES)
        assert all(set(figures) >= FIGURES for figures in (metrics["rank"], *metrics["baselines"].values()))
        assert {"read", "recall", "features", "rank", "total"} <= set(metrics["seconds"])
        assert metrics["peak_rss_mb"] > 10
        assert metrics["refit"] is True

    def test_metrics_of_the_result_are_those_of_the_file(self, trained: TrainResult) -> None:
        assert loaded(trained.run, "metrics.json") == json.loads(json.dumps(trained.metrics))
        assert trained.metrics["run"] == trained.run.name

    def test_ranker_beats_its_baselines(self, trained: TrainResult) -> None:
        rank, baselines = trained.metrics["rank"], trained.metrics["baselines"]
        assert all(rank["mrr@5"] > figures["mrr@5"] for figures in baselines.values())
        low, high = trained.metrics["intervals"]["mrr@5"]
        assert low < rank["mrr@5"] < high

    def test_calibration_is_truer_than_the_bare_score_and_keeps_the_figures(self, trained: TrainResult) -> None:
        told = trained.metrics["calibration"]
        assert told["after"]["ece"] < 0.1 * told["before"]["ece"]
        assert told["after"]["normalised_entropy"] < 1 < told["before"]["normalised_entropy"]
        assert told["after"]["mean_probability"] == pytest.approx(told["after"]["click_rate"], rel=0.3)
        assert loaded(trained.run, "calibration.json")["of"] == "rank"
        assert "<h2>Calibration</h2>" in (trained.run / "report.html").read_text(encoding="utf-8")

    def test_every_file_is_there_and_in_the_manifest_with_its_hash(self, trained: TrainResult) -> None:
        there = {str(path.relative_to(trained.run)) for path in trained.run.rglob("*") if path.is_file()}
        assert there == FILES
        manifest = read_manifest(trained.run)
        assert set(manifest["files"]) == FILES - {"manifest.json"}
        for name, facts in manifest["files"].items():
            path = trained.run / name
            assert facts == {"sha256": sha256(path), "size": path.stat().st_size}

    def test_manifest_says_what_was_done(self, trained: TrainResult, log: Log) -> None:
        manifest = loaded(trained.run, "manifest.json")
        data = {"path": None, "format": "simulated", "fingerprint": log.fingerprint}
        reading = {"columns": {}, "integer_ids": False, "max_bad_share": 0.01}
        assert manifest["data"] == data | {"read": reading}
        assert (manifest["ranker"], manifest["seed"], manifest["refit"]) == ("lgbm", 0, True)
        assert manifest["recall"]["channels"] == list(DEFAULT_CHANNELS)
        assert manifest["candidates"] == "recall"
        assert manifest["protocol"] == loaded(trained.run, "metrics.json")["protocol"]
        assert manifest["validation"]["validation"] == "temporal"
        assert {"lightgbm", "numpy", "polars"} <= set(manifest["packages"])

    def test_features_page_has_the_parts_of_the_model_in_order(self, trained: TrainResult) -> None:
        page = loaded(trained.run, "features.json")
        names = [row["name"] for row in page]
        assert names == loaded(trained.run, "manifest.json")["features"]
        model = (trained.run / "lambdarank.txt").read_text(encoding="utf-8")
        assert next(line for line in model.splitlines() if line.startswith("feature_names=")).split("=")[1] == " ".join(
            names
        )
        assert {row["dtype"] for row in page} == {"Float32"}
        assert all(row["meaning"] for row in page)

    def test_artefacts_of_the_log_are_in_the_metrics(self, trained: TrainResult) -> None:
        found = trained.metrics["artefacts"]
        assert [row["name"] for row in found] == [detect.__name__ for detect in DETECTORS]
        assert all({"found", "share", "explanation"} <= set(row) for row in found)

    def test_report_shows_the_run(self, trained: TrainResult) -> None:
        page = (trained.run / "report.html").read_text(encoding="utf-8")
        assert f"{trained.metrics['rank']['mrr@5']:.4f}" in page

    def test_parameters_are_kept_with_the_trees_that_validation_chose(self, trained: TrainResult) -> None:
        kept = load_params(trained.run / "params.json", "lgbm").params
        chosen = FEW_TREES | {"trees": trained.metrics["curves"]["best_iteration"]}
        assert {name: kept[name] for name in FEW_TREES} == chosen

    def test_probabilities_get_a_logloss(self, tmp_path: Path, trained: TrainResult) -> None:
        result = quick(tmp_path / "run", params={**QUICK.params, "objective": "binary"})
        assert 0 < result.metrics["rank"]["logloss"] < 1
        assert "logloss" not in trained.metrics["rank"]


class TestEveryChannel:
    def test_that_works_is_asked_kept_and_served(self, tmp_path: Path) -> None:
        merge = MergeConfig(quotas={"popular": 3}, weights={"usercf": 2.0})
        result = quick(tmp_path / "run", equipped(small_log(1)), recall=("all",), merge=merge)
        assert set(result.metrics["recall"]) == {*CHANNELS, "merged"}
        recall = read_manifest(result.run)["recall"]
        assert recall["channels"] == list(CHANNELS)
        assert recall["merge"] == {"quotas": {"popular": 3}, "weights": {"usercf": 2.0}}
        files = {name.removeprefix("recall/") for name in read_manifest(result.run)["files"] if "recall/" in name}
        tower = {"two_tower.onnx", "two_tower.signature.json"}
        assert files == {*(f"{name}.parquet" for name in CHANNELS), *tower}
        served = Recommender.load(result.run)
        assert len(served.recommend(1, k=5)) == 5
        asked = requests_of([(1, 3_600.0, 3_600.0)])
        lists, _ = served._live.assembly(asked).lists(asked)
        assert lists["popular_rank"].max() == 3

    def test_that_lacks_its_data_is_left_out_with_a_line(self, tmp_path: Path) -> None:
        told = Heard()
        result = train(replace(QUICK, out=tmp_path / "run", recall=("all",)), told, log=small_log(1))
        assert set(CHANNELS) - set(result.metrics["recall"]) == {"content"}
        assert "recall content is left out: it needs articles with embeddings" in told.lines


class TestShownLists:
    def test_files_are_the_same_without_tables_of_recall(self, on_slates: TrainResult) -> None:
        there = {str(path.relative_to(on_slates.run)) for path in on_slates.run.rglob("*") if path.is_file()}
        assert there == {name for name in FILES if not name.startswith("recall/")}
        manifest = read_manifest(on_slates.run)
        assert (manifest["candidates"], manifest["recall"]["channels"]) == ("slate", [])

    def test_metrics_have_no_recall_and_the_ranker_beats_its_baselines(self, on_slates: TrainResult) -> None:
        metrics = on_slates.metrics
        assert metrics["recall"] == {}
        assert set(metrics["baselines"]) == {"popularity", "click_rate", "recency"}
        assert all(metrics["rank"]["auc"] > figures["auc"] for figures in metrics["baselines"].values())

    @pytest.mark.parametrize("format", FORMATS)
    def test_they_are_the_default_of_formats_that_are_made_for_them(self, tmp_path: Path, format: str) -> None:
        result = quick(tmp_path / "run", replace(rich_log(2), format=format), split=HALF_DAYS)
        chosen = "slate" if format in SLATE_FORMATS else "recall"
        assert read_manifest(result.run)["candidates"] == chosen
        assert set(result.metrics["recall"]) == ({*DEFAULT_CHANNELS, "merged"} if chosen == "recall" else set())

    def test_channels_may_describe_them(self, tmp_path: Path) -> None:
        result = quick(tmp_path / "run", rich_log(2), candidates="slate", recall=("popular",), split=HALF_DAYS)
        assert (result.run / "recall" / "popular.parquet").is_file()
        assert "popular_rank" in read_manifest(result.run)["features"]
        assert result.metrics["protocol"]["candidates"] == "the whole list that was shown, described by recall popular"

    def test_recall_can_be_asked_of_them(self, tmp_path: Path) -> None:
        log = replace(rich_log(2), format="mind")
        result = quick(tmp_path / "run", log, candidates="recall", split=HALF_DAYS)
        assert result.metrics["protocol"]["candidates"].startswith("recall itemcf+popular,")

    @pytest.mark.parametrize(
        ("log", "changes", "message"),
        [
            (small_log(1), {}, "--candidates slate: expected a log with impressions, found clicks only"),
            (rich_log(2), {"split": SplitConfig("last-click")}, "--validation last-click: expected a click log, found"),
        ],
    )
    def test_what_they_cannot_be_asked_is_refused(
        self, tmp_path: Path, log: Log, changes: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(UsageError, match=message):
            quick(tmp_path / "run", log, candidates="slate", **changes)
        assert not list(tmp_path.iterdir())


class TestState:
    def state(self, result: TrainResult) -> pl.DataFrame:
        return pl.read_parquet(result.run / "state" / "clicks.parquet")

    def test_refit_holds_every_event(self, trained: TrainResult, log: Log) -> None:
        assert self.state(trained).equals(log.clicks)
        assert pl.read_parquet(trained.run / "state" / "articles.parquet").equals(log.articles)
        assert pl.read_parquet(trained.run / "state" / "impressions.parquet").equals(log.impressions)

    def test_no_refit_holds_nothing_of_the_test_period(self, measured: TrainResult, log: Log) -> None:
        state = self.state(measured)
        assert state.equals(log.clicks.filter(until(measured, "test")))
        assert 0 < len(state) < len(log.clicks)
        shown = pl.read_parquet(measured.run / "state" / "impressions.parquet")
        assert shown.equals(log.impressions.filter(until(measured, "test", "requested_at")))
        assert 0 < len(shown) < len(log.impressions)
        assert measured.metrics["refit"] is False

    def test_click_at_the_first_instant_of_the_test_period_is_not_held(self, tmp_path: Path) -> None:
        log = small_log(1)
        border = split_log(log, EventStore(log.clicks, log.articles), QUICK.split).known_until
        at_border = log.clicks[:1].with_columns(pl.lit(border).cast(TIME).alias("clicked_at"))
        result = quick(tmp_path / "run", log_of(pl.concat([log.clicks, at_border]), log.articles), refit=False)
        assert self.state(result).equals(log.clicks.filter(pl.col("clicked_at") < pl.lit(border).cast(TIME)))

    def test_figures_do_not_depend_on_the_refit_but_the_model_does(
        self, trained: TrainResult, measured: TrainResult
    ) -> None:
        assert trained.metrics["rank"] == measured.metrics["rank"]
        assert len({sha256(result.run / "lambdarank.txt") for result in (trained, measured)}) == 2

    def test_the_model_that_serves_learned_from_the_requests_of_all_periods(self, tmp_path: Path) -> None:
        log = small_log(1)
        config = QUICK.settled(log)
        result = train(replace(QUICK, out=tmp_path / "run"), log=log)
        store = EventStore(log.clicks, log.articles, log.impressions)
        split = split_log(log, store, config.split)
        assembly = assembly_of(config, log, store, split, Clock(), OwnFeatures())
        rows = [training_data(assembly, split.part(name), split.positives, config.sampling) for name in PERIODS]
        watched = training_data(assembly, split.part("valid"), split.positives, None)
        ranker = RANKERS["lgbm"].of(config.params).fit(rows[0], watched, categorical=assembly.categorical)
        ranker.refit(RankingData.concat(rows), categorical=assembly.categorical).save(tmp_path)
        assert (tmp_path / "lambdarank.txt").read_text() == (result.run / "lambdarank.txt").read_text()

    def test_no_refit_of_last_clicks_holds_all_but_what_was_asked_for(self, tmp_path: Path) -> None:
        log = simulate(SimulationConfig(users=120, days=2)).log
        split = SplitConfig("last-click", warmup_hours=2)
        result = quick(tmp_path / "run", log, refit=False, split=split)
        gone = log.clicks.join(self.state(result), on=["user_id", "item_id", "clicked_at"], how="anti")
        last = log.clicks.filter(pl.col("clicked_at") == pl.col("clicked_at").max().over("user_id"))
        assert len(gone) >= result.metrics["protocol"]["test_requests"] > 5
        assert gone.join(last, on=["user_id", "item_id", "clicked_at"], how="anti").is_empty()
        assert gone["user_id"].n_unique() == result.metrics["protocol"]["test_requests"]

    def test_codes_of_context_are_learned_before_validation(self, trained: TrainResult, log: Log) -> None:
        kept = pl.read_parquet(trained.run / "vocabulary.parquet")
        assert kept.equals(Vocabulary.of(log.clicks.filter(until(trained, "valid"))).table)
        assert not kept.equals(Vocabulary.of(log.clicks).table)


class TestRepeats:
    TIMES = ("run", "created_at", "seconds", "peak_rss_mb")

    def test_same_seed_gives_the_same_model_text_and_figures(self, tmp_path: Path) -> None:
        one, same, other = (quick(tmp_path / name, seed=seed) for name, seed in (("a", 5), ("b", 5), ("c", 6)))
        for name in FILES - {"manifest.json", "metrics.json", "report.html", "state/impressions.parquet"}:
            assert (one.run / name).read_bytes() == (same.run / name).read_bytes(), name
        figures = [{k: v for k, v in r.metrics.items() if k not in self.TIMES} for r in (one, same, other)]
        assert figures[0] == figures[1] != figures[2]
        assert sha256(one.run / "lambdarank.txt") != sha256(other.run / "lambdarank.txt")
        assert other.metrics["protocol"]["seed"] == loaded(other.run, "manifest.json")["seed"] == 6


class Stopper(Silent):
    """Somebody presses a key in the middle of a stage."""

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Step]:
        if title == "score":
            raise KeyboardInterrupt
        yield lambda _: None


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"ranker": "oracle"}, r"--ranker: expected one of \['lgbm'\], found 'oracle'"),
            ({"list_length": 9}, "--list-length: expected 10 to 10000 candidates, found 9"),
            ({"list_length": 10_001}, "found 10001"),
            ({"recall": ("psychic",)}, "--recall: expected channels of"),
            ({"recall": ()}, "--recall: expected channels of .* found none"),
            ({"candidates": "all"}, r"--candidates: expected one of \['recall', 'slate'\], found 'all'"),
            ({"params": {"leaves": 3}}, r"found \['leaves'\]"),
            ({"split": SplitConfig("random")}, "--validation: expected one of"),
        ],
    )
    def test_wrong_settings_leave_nothing_behind(self, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(UsageError, match=message):
            quick(tmp_path / "run", **changes)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("length", [10, 10_000])
    def test_shortest_and_longest_lists_are_taken(self, tmp_path: Path, length: int) -> None:
        assert f"at most {length}," in quick(tmp_path / "run", list_length=length).metrics["protocol"]["candidates"]

    def test_log_too_short_leaves_nothing_behind(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="found none for train, valid"):
            quick(tmp_path / "run", log_of(clicks_of([(1, 1, 0.0), (1, 2, 5.0)])))
        assert not list(tmp_path.iterdir())

    def test_stopped_run_leaves_nothing_behind(self, tmp_path: Path) -> None:
        with pytest.raises(KeyboardInterrupt):
            train(replace(QUICK, out=tmp_path / "run"), Stopper(), log=small_log(1))
        assert not list(tmp_path.iterdir())

    def test_failure_while_writing_leaves_the_old_bundle(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        old = quick(tmp_path / "run")

        def full(*_: object) -> str:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(train_output, "render_report", full)
        with pytest.raises(UsageError, match=r"--out: expected a place to write .* No space left"):
            quick(tmp_path / "run", overwrite=True, seed=1)
        assert [path.name for path in tmp_path.iterdir()] == ["run"]
        assert read_manifest(old.run)["seed"] == 0

    def test_bundle_is_replaced_only_where_told(self, tmp_path: Path) -> None:
        quick(tmp_path / "run")
        with pytest.raises(UsageError, match="or --overwrite"):
            train(replace(QUICK, out=tmp_path / "run", seed=1), Stopper(), log=small_log(1))  # before any work
        assert read_manifest(tmp_path / "run")["seed"] == 0
        quick(tmp_path / "run", seed=1, overwrite=True)
        assert read_manifest(tmp_path / "run")["seed"] == 1

    def test_without_out_a_fresh_folder_under_artifacts(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        results = [train(QUICK, log=small_log(1)) for _ in range(2)]
        assert len({result.run for result in results}) == 2
        assert {result.run.parent.resolve() for result in results} == {tmp_path / "artifacts"}


class TestRunAgain:
    def bundle_of(self, bundle: Path, tables: Path) -> Path:
        """The bundle as if it had been trained on these files."""
        manifest = loaded(bundle, "manifest.json")
        data = {"path": str(tables), "format": "table", "fingerprint": read_log(tables).fingerprint}
        (bundle / "manifest.json").write_text(json.dumps(manifest | {"data": data, "seed": 9}), encoding="utf-8")
        return bundle

    def test_takes_data_format_and_seed_and_reads_once(self, bundle: Path, tables: Path) -> None:
        asked = TrainConfig(list_length=50, seed=3)
        config, log = config_of_run(self.bundle_of(bundle, tables), asked)
        assert config == replace(asked, data=tables, format="table", seed=9)
        assert log.fingerprint == read_log(tables).fingerprint

    def test_refuses_other_data(self, bundle: Path, tables: Path, tmp_path: Path, log: Log) -> None:
        other = tmp_path / "other"
        write_log(replace(log, clicks=log.clicks[1:]), other, "table")
        with pytest.raises(BundleError, match=r"expected the data .*fingerprint \w{12}\), found another"):
            config_of_run(self.bundle_of(bundle, tables), TrainConfig(data=other))

    def test_same_data_elsewhere_is_the_same(self, bundle: Path, tables: Path, tmp_path: Path, log: Log) -> None:
        moved = tmp_path / "moved"
        frames = {"clicks": log.clicks, "impressions": log.impressions}
        shuffled = {name: frame.sample(fraction=1, shuffle=True, seed=0) for name, frame in frames.items()}
        write_log(replace(log, **shuffled), moved, "table")
        assert config_of_run(self.bundle_of(bundle, tables), TrainConfig(data=moved))[0].data == moved

    @pytest.fixture
    def mapped(self, tmp_path: Path) -> TrainConfig:
        """A run over a file with names of its own, whole numbers as ids, and a bad row in thirty."""
        names = {"user_id": "reader", "item_id": "story", "clicked_at": "when"}
        rows = small_log(1).clicks.select(list(names)).rename(names)
        bad = rows[::30].with_columns(reader=None)
        pl.concat([rows, bad]).write_csv(tmp_path / "mapped.csv")
        read = ReadOptions(names, integer_ids=True, max_bad_share=0.1)
        return replace(QUICK, data=tmp_path / "mapped.csv", format="table", read=read, out=tmp_path / "run", seed=2)

    def test_reads_as_the_bundle_was_read(self, mapped: TrainConfig, tmp_path: Path) -> None:
        first = train(mapped)
        again, log = config_of_run(first.run, replace(QUICK, out=tmp_path / "again"))
        assert again == replace(mapped, out=tmp_path / "again")
        assert log.clicks.schema["user_id"] == pl.Int64
        assert train(again, log=log).metrics["rank"] == first.metrics["rank"]
        assert loaded(tmp_path / "again", "manifest.json")["data"] == loaded(first.run, "manifest.json")["data"]

    def test_what_is_asked_for_goes_before_what_was(self, mapped: TrainConfig, tmp_path: Path) -> None:
        """The same clicks in a file with other names."""
        run = train(mapped).run
        other = {"user_id": "u", "item_id": "i", "clicked_at": "t"}
        rows = pl.read_csv(mapped.data).rename({source: other[name] for name, source in mapped.read.columns.items()})
        rows.write_csv(tmp_path / "other.csv")
        asked = replace(QUICK, data=tmp_path / "other.csv", read=ReadOptions(other, quarantine=tmp_path / "bad.csv"))
        found = config_of_run(run, asked)[0].read
        assert found == replace(mapped.read, columns=other, quarantine=tmp_path / "bad.csv")

    def test_bundle_of_before_is_read_as_asked(self, bundle: Path, tables: Path) -> None:
        """Its manifest does not say how it was read."""
        with pytest.raises(BundleError, match="found another"):
            config_of_run(self.bundle_of(bundle, tables), TrainConfig(read=ReadOptions(integer_ids=True)))

    def test_refuses_a_damaged_bundle(self, bundle: Path) -> None:
        (bundle / "lambdarank.txt").write_text("no model", encoding="utf-8")
        with pytest.raises(BundleError, match=r"lambdarank\.txt"):
            config_of_run(bundle, TrainConfig())


def test_format_without_data_is_refused() -> None:
    with pytest.raises(UsageError, match="--format tianchi: expected --data with it"):
        read(TrainConfig(format="tianchi"))
