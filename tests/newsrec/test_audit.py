"""The audit: honest features pass, planted leaks are named and nothing else is."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from features import build
from features.columns import SECOND, TIME
from features.facts import FactGroup, Facts, Rows
from newsrec.audit import AuditConfig, AuditResult, audit, material
from newsrec.audit.knowledge import (
    AUC_LIMIT,
    CORRELATION_LIMIT,
    columns_behind,
    future_of,
    learned,
    partial_rank_correlation,
    ranks,
    single_aucs,
    static_features,
)
from newsrec.audit.material import Material, Sample
from newsrec.audit.poison import POISONS, Cut, appended, bits, changed, cuts, deleted, poisoned
from newsrec.cli import main
from newsrec.data import Log, write_log
from newsrec.errors import DataError, UsageError
from newsrec.own import NONE, read_own
from newsrec.recall import CHANNELS, working
from newsrec.split import SplitConfig
from tests.factories import (
    articles_of,
    clicks_of,
    instant,
    log_of,
    requests_of,
    rich_log,
    small_log,
    store_of,
)
from tests.futures import Bestseller

LEAKY = '''import polars as pl


def favourite():
    """Clicks of the article in the whole log."""
    return pl.col("article_total_clicks")


def long_read():
    """Whether the article is long."""
    return pl.col("words") > 300
'''
REQUESTS = 60


def lightly(patch: pytest.MonkeyPatch) -> None:
    """Two channels and a smaller fit, for what is asked of features alone; an honest log is tried on all of it."""
    patch.setattr(material, "working", lambda store: ("itemcf", "popular"))
    patch.setattr(material, "QUICK", SplitConfig(train_requests=500, valid_requests=150, test_requests=400))


def with_totals(log: Log) -> Log:
    """Each article with its clicks of the whole log, as an export made afterwards has them."""
    total = log.clicks.group_by("item_id").agg(pl.len().alias("total_clicks"))
    articles = log.articles.join(total, on="item_id", how="left", maintain_order="left")
    return replace(log, articles=articles.with_columns(pl.col("total_clicks").fill_null(0)))


def file_of(folder: Path, text: str) -> Path:
    path = folder / "own.py"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def honest(log: Log) -> AuditResult:
    return audit(AuditConfig(requests=REQUESTS), log=log)


@pytest.fixture(scope="module")
def leaky(log: Log, tmp_path_factory: pytest.TempPathFactory) -> AuditResult:
    path = file_of(tmp_path_factory.mktemp("own"), LEAKY)
    with pytest.MonkeyPatch.context() as patch:
        lightly(patch)
        return audit(AuditConfig(features=path, requests=REQUESTS), log=with_totals(log))


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    lightly(monkeypatch)


def row(result: AuditResult, name: str) -> Mapping[str, object]:
    return result.verdicts.row(by_predicate=pl.col("name") == name, named=True)


class TestAnHonestLog:
    def test_passes(self, honest: AuditResult) -> None:
        assert honest.bad == []
        assert set(honest.verdicts["verdict"]) == {"ok"}
        assert honest.lines()[-2] == f"none of {len(honest.verdicts)} knows the future"

    def test_is_tried_on_every_feature_channel_and_column(self, honest: AuditResult, log: Log) -> None:
        material = Material(log, NONE, 0, REQUESTS)
        names = [f.name for f in material.features]
        columns = ["category", "created_at", "embedding", "publisher", "words"]
        assert columns_behind(material.features) == columns
        assert honest.verdicts["name"].to_list() == [
            *names,
            *(f"recall:{name}" for name in working(material.store)),
            *(f"articles.{name}" for name in columns),
        ]
        assert (
            honest.verdicts.filter(pl.col("poison") == "ok")["name"].to_list() == honest.verdicts["name"].to_list()[:-5]
        )

    def test_stays_well_below_the_limits(self, honest: AuditResult) -> None:
        assert honest.verdicts["future_correlation"].abs().max() < CORRELATION_LIMIT / 1.5  # type: ignore[operator]
        assert honest.verdicts["auc"].max() < AUC_LIMIT - 0.05  # type: ignore[operator]

    def test_loses_what_it_knows_when_times_are_shuffled(self, honest: AuditResult) -> None:
        clicks = row(honest, "item_clicks_1h")
        assert isinstance(clicks["auc"], float)
        assert isinstance(clicks["canary"], float)
        assert clicks["auc"] > 0.65
        assert abs(clicks["canary"] - 0.5) < (clicks["auc"] - 0.5) / 2

    def test_is_never_asked_later_than_it_was(self, honest: AuditResult) -> None:
        """Later, the user has clicked the answer."""
        assert row(honest, "user_item_clicks")["canary"] == 0.5

    def test_without_lists_or_metadata_passes_too(self, log: Log) -> None:
        bare = replace(log, impressions=None, articles=log.articles.select("item_id"))
        bare = replace(bare, clicks=log.clicks.select("user_id", "item_id", "clicked_at"))
        result = audit(AuditConfig(requests=REQUESTS), log=bare)
        assert result.bad == []
        assert "item_exposures_log_1h" not in result.verdicts["name"]


class TestATotalOfTheWholeLog:
    def test_is_named_and_nothing_else(self, leaky: AuditResult) -> None:
        assert leaky.bad == ["favourite"]
        found = row(leaky, "favourite")
        assert (found["family"], found["poison"], found["verdict"]) == ("own", "ok", "SUSPICIOUS")
        assert row(leaky, "long_read")["verdict"] == "ok"

    @pytest.mark.usefixtures("light")
    def test_is_the_same_again(self, leaky: AuditResult, log: Log, tmp_path: Path) -> None:
        again = audit(AuditConfig(features=file_of(tmp_path, LEAKY), requests=REQUESTS), log=with_totals(log))
        assert again.verdicts.equals(leaky.verdicts)

    def test_keeps_its_order_when_times_are_shuffled(self, leaky: AuditResult) -> None:
        found = row(leaky, "favourite")
        assert found["canary"] == pytest.approx(found["auc"], abs=0.06)

    def test_is_fitted_with_and_without(self, leaky: AuditResult, honest: AuditResult) -> None:
        assert set(leaky.quality) == {"with", "without"}
        assert set(honest.quality) == {"with"}
        assert all(0.5 < figures["auc"] < 1 for figures in (*leaky.quality.values(), *honest.quality.values()))
        assert any(line.startswith("quick fit without favourite: auc 0.") for line in leaky.lines())
        assert leaky.lines()[-2] == f"1 of {len(leaky.verdicts)} know the future: favourite"


LATE = "import polars as pl\n\n\ndef late():\n    '''Late.'''\n    return pl.col('late_clicks')\n"


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fact that counts the article's clicks up to a second after the request."""

    def compute(rows: Rows, wanted: tuple[str, ...]) -> Facts:
        at = rows.statistics_of_row + SECOND
        return {"late_clicks": rows.store.index("item").counts(rows.item, at, (None,))[0]}

    monkeypatch.setattr(build, "FACTS", (*build.FACTS, FactGroup(("late_clicks",), compute)))
    monkeypatch.setattr(build, "FACT_NAMES", build.FACT_NAMES | {"late_clicks"})


@pytest.mark.usefixtures("late")
@pytest.mark.usefixtures("light")
def test_fact_that_counts_one_second_too_late_is_named_and_nothing_else(log: Log, tmp_path: Path) -> None:
    result = audit(AuditConfig(features=file_of(tmp_path, LATE), requests=REQUESTS), log=log)
    assert result.bad == ["late"]
    assert row(result, "late")["verdict"] == "LEAK"
    assert set(str(row(result, "late")["reached_by"]).split(", ")) >= {"appended", "changed"}


class TestPoison:
    def test_finds_a_channel_that_counts_the_whole_log(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Rowed(Bestseller):
            def recall(self, requests: object) -> pl.DataFrame:
                found = super().recall(requests)  # type: ignore[arg-type]
                rows = pl.DataFrame({"row": np.arange(len(requests.user), dtype=np.uint32)})  # type: ignore[attr-defined]
                rank = pl.int_range(1, pl.len() + 1).over("row").cast(pl.UInt16).alias("rank")
                kinds = [pl.col("score").cast(pl.Float32), pl.col("item").cast(pl.Int64)]
                return rows.join(found, how="cross").with_columns(rank, *kinds)

        monkeypatch.setitem(CHANNELS, "bestseller", Rowed)  # type: ignore[arg-type]
        log = rich_log(0)
        material = Material(log, NONE, 0, 30)
        reached = {name: kinds for name, kinds in poisoned(small_split(material)).items() if kinds}
        # The channel itself, its columns, and the order that all channels make together.
        assert set(reached) == {"recall:bestseller", "bestseller_score", "bestseller_rank", "recall_rank"}

    def test_leaves_the_past_alone_and_changes_the_future(self, log: Log) -> None:
        for cut in cuts(Material(log, NONE, 0, REQUESTS)):
            for poison in POISONS.values():
                other = poison(cut)
                for name, time in (("clicks", "clicked_at"), ("impressions", "requested_at")):
                    before, after = (getattr(one, name) for one in (cut.log, other))
                    past = pl.col(time) < cut.moment
                    keys = [c for c in before.columns if c != "dwell_seconds"]
                    assert before.filter(past).select(keys).equals(after.filter(past).select(keys))
                    assert not before.equals(after)

    def test_deletes_readings_that_are_not_over(self) -> None:
        cut = reading_at(10.0)
        assert deleted(cut).clicks["dwell_seconds"].to_list() == [60.0, None]
        assert changed(cut).clicks["dwell_seconds"].to_list()[:2] == [60.0, 4_800.0]

    def test_appends_every_candidate_at_the_very_instant(self, log: Log) -> None:
        cut = cuts(Material(log, NONE, 0, REQUESTS))[0]
        clicks = appended(cut).clicks.filter(pl.col("clicked_at") == cut.moment)
        wanted = cut.requests.select("request_id", "user_id").join(cut.candidates, on="request_id")
        assert set(wanted.select("user_id", "item_id").rows()) <= set(clicks.select("user_id", "item_id").rows())

    def test_moves_later_events_into_the_first_second(self, log: Log) -> None:
        cut = cuts(Material(log, NONE, 0, REQUESTS))[0]
        later = changed(cut).clicks.filter(pl.col("clicked_at") >= cut.moment)["clicked_at"].to_physical()
        assert cut.at <= later.min() <= later.max() < cut.at + SECOND  # type: ignore[operator]

    def test_cuts_stand_at_instants_of_events_and_know_their_candidates(self, log: Log) -> None:
        found = cuts(Material(log, NONE, 0, REQUESTS))
        assert len(found) == 5
        assert log.impressions is not None
        for cut in found:
            assert len(log.impressions.filter(pl.col("requested_at") == cut.moment))
            assert set(cut.requests["requested_at"].to_physical()) == {cut.at}
            created = cut.candidates.join(log.articles, on="item_id")["created_at"]
            assert created.to_physical().max() < cut.at  # type: ignore[operator]
            assert cut.candidates["request_id"].n_unique() == len(cut.requests) == REQUESTS // 5

    def test_tells_null_from_zero(self) -> None:
        null, zero = (pl.DataFrame({"x": [value]}, schema={"x": pl.Float32}) for value in (None, 0))
        assert bits(null) != bits(zero)


def small_split(material: Material) -> Material:
    """Short logs are divided by hours."""
    assert len(material.split.requests)
    return material


def reading_at(minutes: float) -> Cut:
    """Two readings: one is over at the cut."""
    log = small_log(0)
    clicks = log.clicks.head(2).with_columns(
        pl.Series("clicked_at", [instant(0), instant(1)]).cast(TIME), pl.Series("dwell_seconds", [60.0, 600.0])
    )
    at = int(instant(minutes).timestamp() * 1000)
    return Cut(at, replace(log, clicks=clicks), pl.DataFrame(), pl.DataFrame({"item_id": [1, 2]}))


class TestKnowledge:
    def test_auc_by_hand(self) -> None:
        candidates = pl.DataFrame({"request_id": [1, 1, 1, 2, 2], "label": [1, 0, 0, 0, 1]})
        described = pl.DataFrame({"a": [3.0, 2.0, 1.0, 5.0, 4.0], "b": [1.0] * 5, "c": [None, 2.0, 1.0, None, 1.0]})
        assert single_aucs(described, candidates) == {"a": 0.5, "b": 0.5, "c": 0.5}
        assert single_aucs(described[:3], candidates[:3]) == {"a": 1.0, "b": 0.5, "c": 0.0}

    def test_partial_correlation_sees_what_the_controls_do_not(self) -> None:
        rng = np.random.default_rng(0)
        past, hidden, noise = rng.normal(size=(3, 4_000))
        group, y = np.arange(4_000) // 100, past + hidden
        assert partial_rank_correlation(hidden, y, {"past": past}, group) > 0.9
        assert abs(partial_rank_correlation(noise, y, {"past": past}, group)) < 0.06
        assert partial_rank_correlation(past**3, y, {"past": past}, group) == 0.0
        assert partial_rank_correlation(np.ones(4_000), y, {"past": past}, group) == 0.0

    def test_future_past_and_age_by_hand(self) -> None:
        clicks = clicks_of([(1, 1, 0), (2, 1, 60), (3, 1, 90), (1, 2, 120)])
        store = store_of(log_of(clicks, articles_of([1, 2], created=[-60.0, None])))
        requests = requests_of([(9, 60, 60), (9, 180, 180)])
        pairs = requests.select("request_id").join(pl.DataFrame({"item_id": [1, 2]}), how="cross")
        future, controls, item = future_of(Sample(requests, pairs, pl.DataFrame()), store)
        assert future.tolist() == [2, 1, 0, 0]
        assert controls["past"].tolist() == [1, 0, 3, 1]
        assert controls["age"].tolist() == [2, -1, 4, 1]
        assert item.tolist() == [0, 1, 0, 1]

    def test_ranks_are_inside_the_group(self) -> None:
        assert ranks(np.array([9.0, 1.0, 2.0, 2.0]), np.array([0, 0, 1, 1])).tolist() == [0.5, -0.5, 0.0, 0.0]

    def test_category_is_learned_on_other_articles(self) -> None:
        item = np.array([0, 1, 2, 3])
        values = pl.Series("category", ["a", "a", "b", "b"])
        assert learned(values, np.array([1.0, 3.0, 5.0, 7.0]), item).tolist() == [3.0, 1.0, 7.0, 5.0]
        assert learned(pl.Series("words", [1, None, 3, 4]), item * 1.0, item).tolist() == [1.0, 0.0, 3.0, 4.0]

    def test_embedding_that_holds_the_answer_is_seen(self) -> None:
        rng = np.random.default_rng(0)
        target = rng.normal(size=300)
        vectors = np.column_stack([target, rng.normal(size=(300, 3))])
        column = pl.Series("embedding", vectors.astype(np.float32), dtype=pl.Array(pl.Float32, 4)).set(
            pl.Series(np.arange(300) == 7), None
        )
        guess = learned(column, target, np.arange(300))
        assert guess[7] == 0
        assert np.corrcoef(guess, target)[0, 1] > 0.8

    def test_static_features_are_those_of_attributes_and_own_columns(self, log: Log, tmp_path: Path) -> None:
        own = read_own(file_of(tmp_path, LEAKY))
        names = {f.name for f in static_features(Material(with_totals(log), own, 0, REQUESTS).features)}
        assert {"favourite", "long_read", "item_words", "item_age_hours"} <= names
        assert not {"item_clicks_1h", "user_clicks"} & names


class TestTheCommandLine:
    @pytest.mark.usefixtures("light")
    def test_exits_1_and_names_the_leak(self, log: Log, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        folder, found = write_log(with_totals(log), tmp_path / "log", "table"), tmp_path / "found.json"
        words = ["audit", "--data", folder, "--integer-ids", "--column", "total_clicks=total_clicks", "--requests", 40]
        words += ["--features", file_of(tmp_path, LEAKY), "--json", found]
        assert main([str(word) for word in words]) == 1
        out = capsys.readouterr().out
        assert "know the future: favourite" in out
        assert json.loads(found.read_text(encoding="utf-8"))["bad"] == ["favourite"]

    @pytest.mark.usefixtures("light")
    def test_exits_0_where_nothing_leaks(self, tables: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["audit", "--data", str(tables), "--integer-ids", "--requests", "40"]) == 0
        assert "knows the future" in capsys.readouterr().out

    @pytest.mark.parametrize("words", [["--requests", "9"], ["--features", "none.py"], ["--json", "/none/found.json"]])
    def test_exits_2_on_misuse(self, words: list[str], tables: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["audit", "--data", str(tables), *words]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_library_refuses_what_the_command_line_refuses(log: Log) -> None:
    with pytest.raises(UsageError, match="--requests: expected at least 10, found 3"):
        audit(AuditConfig(requests=3), log=log)


def test_log_too_short_to_divide_is_refused(log: Log) -> None:
    with pytest.raises(DataError, match="split: expected requests"):
        audit(AuditConfig(requests=10), log=replace(log, clicks=log.clicks.head(3), impressions=None))
