"""What all cells of an experiment share: the log, its division, and whole described lists, made once."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from features.events import EventStore
from features.vocabulary import Vocabulary
from newsrec.assembly import BASELINES, Assembly
from newsrec.candidates import whole_lists
from newsrec.data import SLATE_FORMATS, Log, read_log
from newsrec.errors import UsageError
from newsrec.experiment.config import Cell, ExperimentConfig
from newsrec.progress import Progress
from newsrec.rankers import RankingData
from newsrec.recall import DEFAULT_CHANNELS, RecallSettings
from newsrec.sampling import parse
from newsrec.simulate import Simulation, SimulationConfig, simulate
from newsrec.slates import SPLITS
from newsrec.split import Split, SplitConfig


@dataclass(frozen=True)
class DescribedLists:
    """Whole lists of some requests.

    `rows`: `request_id, item_id, label, recall_rank` (where lists were shown: the place by the best baseline);
    `features` of the same rows; `requests`: canonical.
    """

    rows: pl.DataFrame
    features: pl.DataFrame
    requests: pl.DataFrame

    def data(self, marked: pl.DataFrame, weighted: bool) -> RankingData:
        """The rows that a sampler kept."""
        kept = np.flatnonzero(marked["kept"].to_numpy())
        rows = marked[kept]
        weight = 1.0 / rows["sampling_probability"] if weighted else pl.ones(len(rows), eager=True)
        request = rows["request_id"].to_numpy()
        return RankingData(self.features[kept], rows["label"].to_numpy(), request, weight.to_numpy())

    def without_misses(self) -> RankingData:
        """The lists that hold a click and another article, to stop early by."""
        return self.data(whole_lists(self.rows), weighted=True)


@dataclass(frozen=True)
class Material:
    """Everything before the ranker."""

    config: ExperimentConfig
    log: Log
    split: Split
    assembly: Assembly
    train: DescribedLists
    valid: DescribedLists
    test: DescribedLists
    truth: npt.NDArray[np.float64] | None
    """True chance of a click of each test row, given that its list was clicked; known of simulated lists only."""

    @classmethod
    def of(cls, config: ExperimentConfig, tell: Progress) -> Self:
        """Read, divide, recall and describe."""
        simulation, log, split, assembly = prepared(config)
        lists = {name: _described(assembly, split, name, tell) for name in ("train", "valid", "test")}
        exposures = simulation.truth.exposures if simulation and split.slates is not None else None
        truth = None if exposures is None else _truth(lists["test"], exposures)
        return cls(config, log, split, assembly, **lists, truth=truth)

    @property
    def protocol(self) -> dict[str, Any]:
        """Of every figure."""
        shown = "the whole list that was shown" if self.split.slates is not None else "recall, never sampled"
        return {**self.split.protocol, "candidates": shown}

    @property
    def counts(self) -> dict[str, Any]:
        """Clicked and other rows: of what was shown in the log, and of the training lists before sampling."""
        shown = self.log.impressions
        raw = None if shown is None else (int(shown["clicked"].sum()), len(shown))
        clicked, rows = int(self.train.rows["label"].sum()), len(self.train.rows)
        return {
            "raw": None if raw is None else {"clicked": raw[0], "others": raw[1] - raw[0]},
            "after_recall": {"clicked": clicked, "others": rows - clicked},
        }

    def can(self, cell: Cell, say: Callable[[str], None]) -> bool:
        """Whether the log has what the cell's sampler looks at; else a line says that it is left out."""
        names = set(parse(cell.sampler))
        no_lists = "exposed" in names and self.log.impressions is None
        no_dwell = "short_dwell" in names and "dwell_seconds" not in self.log.clicks.columns
        if no_lists or no_dwell:
            say(f"left out: {cell.sampler}, as the log has no {'impressions' if no_lists else 'dwell_seconds'}")
        return not (no_lists or no_dwell)


def prepared(config: ExperimentConfig) -> tuple[Simulation | None, Log, Split, Assembly]:
    """Read and divide the log, and fit its channels; the simulation where the log is the embedded one.

    Raises:
        UsageError: An unknown kind of candidates.
    """
    simulation, log, store, split = divided(config)
    channels = DEFAULT_CHANNELS if split.slates is None else ()
    clicks, shown = _before(log, split.learn_until)
    vocabulary = Vocabulary.of(clicks, impressions=shown)
    assembly = Assembly.of(store, channels, RecallSettings(), vocabulary, slates=split.slates)
    return simulation, log, split, assembly


def divided(config: ExperimentConfig) -> tuple[Simulation | None, Log, EventStore, Split]:
    """Read and divide the log; arguments and errors of `prepared`."""
    simulation = simulate(SimulationConfig()) if config.data is None else None
    log = simulation.log if simulation else read_log(config.data, config.format, options=config.read)  # type: ignore[arg-type]
    store = EventStore(log.clicks, log.articles, log.impressions)
    candidates = config.candidates or ("slate" if log.format in SLATE_FORMATS else "recall")
    if candidates not in SPLITS:
        raise UsageError(f"--candidates: expected one of {sorted(SPLITS)}, found {candidates!r}.")
    periods = SplitConfig(
        test_days=config.test_days,
        valid_days=config.valid_days,
        train_requests=config.train_requests,
        valid_requests=config.valid_requests,
        test_requests=config.test_requests,
    )
    return simulation, log, store, SPLITS[candidates](log, store, periods)


def _before(log: Log, until: int | None) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    """Clicks and impressions that codes of context values are learned from."""
    if until is None:
        return log.clicks, log.impressions
    shown = log.impressions
    earlier = None if shown is None else shown.filter(pl.col("requested_at").to_physical() < until)
    return log.clicks.filter(pl.col("clicked_at").to_physical() < until), earlier


def _described(assembly: Assembly, split: Split, name: str, tell: Progress) -> DescribedLists:
    requests = split.part(name)
    rows, features = [], []
    for each in assembly.described(requests, split.positives, tell, f"{name} lists"):
        rows.append(_with_place(each.candidates, each.features))
        features.append(each.features)
    return DescribedLists(pl.concat(rows), pl.concat(features), requests)


def _with_place(candidates: pl.DataFrame, described: pl.DataFrame) -> pl.DataFrame:
    """What cells need of the rows; shown lists get the places of the first baseline that the log allows."""
    kept = candidates.select("request_id", "item_id", "label")
    if "recall_rank" in candidates.columns:
        return kept.with_columns(candidates["recall_rank"])
    orders = (BASELINES[name](described) for name in ("click_rate", "popularity"))
    order = next(made for made in orders if made is not None)
    score = described.select(order.alias("score"))["score"].fill_null(-1.0)
    place = pl.col("score").rank("ordinal", descending=True).over("request_id").cast(pl.UInt16)
    return kept.with_columns(score).with_columns(place.alias("recall_rank")).drop("score")


def _truth(test: DescribedLists, exposures: pl.DataFrame) -> npt.NDArray[np.float64]:
    """At most one article of a list is clicked, so given a click its chance is its share of the list's."""
    chances = exposures.select(pl.col("request_id").alias("impression_id"), "item_id", "click_probability")
    asked = test.rows.join(test.requests.select("request_id", "impression_id"), on="request_id", maintain_order="left")
    known = asked.join(chances, on=["impression_id", "item_id"], how="left", maintain_order="left")
    share = pl.col("click_probability") / pl.col("click_probability").sum().over("request_id")
    return known.select(share.cast(pl.Float64))["click_probability"].to_numpy()
