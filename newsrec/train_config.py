"""What a training run is told, and what follows from it before the first row is read."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from newsrec.assembly import LIST_LENGTH
from newsrec.candidates import ALIKE, MergeConfig, SamplingConfig
from newsrec.data import SHUFFLED_FORMATS, SLATE_FORMATS, Log, ReadOptions
from newsrec.errors import UsageError
from newsrec.exposure import PROPENSITIES
from newsrec.merging import MERGES
from newsrec.rankers import RANKERS, Ranker
from newsrec.recall import DEFAULT_CHANNELS, RecallSettings
from newsrec.rerankers import learns_tasks, refuse_unfit, refuse_unknown
from newsrec.sampling import parse
from newsrec.slates import SPLITS
from newsrec.split import EMBEDDED_REQUESTS, LOG_REQUESTS, SplitConfig, divides_by_time
from newsrec.state import Memory
from newsrec.tasks import EXPOSED, refuse_unknown_tasks, tasks_in


@dataclass(frozen=True)
class KeptRanker:
    """The ranker of an earlier bundle, which a run takes as it is; see `newsrec.earlier`."""

    ranker: Ranker
    features: tuple[str, ...]
    """Its columns in order."""


@dataclass(frozen=True)
class TrainConfig:
    """One training run. The defaults are those of the command line."""

    data: Path | None = None
    """Folder or file of the log; None is the embedded simulated log."""
    format: str = "auto"
    ranker: str = "lgbm"
    """Name in `newsrec.rankers.RANKERS`."""
    params: Mapping[str, Any] = field(default_factory=dict)
    """Parameters of the ranker that differ from its defaults."""
    tuned_on: tuple[str, ...] = ()
    """Fingerprints of the data that parameters were tuned on; the run tells where it trains on other data."""
    out: Path | None = None
    """The bundle's folder; None is a fresh one under `artifacts/`."""
    overwrite: bool = False
    candidates: str | None = None
    """`slate` (the lists that were shown) or `recall`; None is what the format is made for."""
    recall: tuple[str, ...] | None = None
    """Names in `newsrec.recall.CHANNELS`, or `all` alone; None is `DEFAULT_CHANNELS`, and none for shown lists."""
    without: tuple[str, ...] = ()
    """Features and families of features to leave out."""
    recall_settings: RecallSettings = RecallSettings()
    merge: MergeConfig = ALIKE
    merge_by: str = "equal"
    """`equal`: channels count by `merge.weights`; `learned`: by what finds most on validation (`newsrec.merging`)."""
    list_length: int = LIST_LENGTH
    """Candidates per request at most, 10..10000."""
    split: SplitConfig = SplitConfig()
    sampling: SamplingConfig = SamplingConfig()
    refit: bool = True
    """Fit again on all requests and let the state hold every event."""
    seed: int = 0
    read: ReadOptions = ReadOptions()
    features: Path | None = None
    """Python file with own features, see `newsrec.own`; it is executed."""
    keep_days: int | None = None
    """The state keeps events of so many days whole and folds earlier ones, see `newsrec.state`; None keeps all."""
    reranker: str | None = None
    """Name in `newsrec.rerankers.RERANKERS`, or `FILE.py:NAME` of an own network; None trains no network."""
    rerank_top: int = 20
    """The network orders the ranker's first so many of each list, 2..1000."""
    tasks: tuple[str, ...] = ()
    """Labels beside the click for a network of several tasks, see `newsrec.tasks`; none is all that the log has."""
    int8: bool = False
    """Keep the network also with weights of eight bits, for other services; ours uses the exact one."""
    rerank_params: Mapping[str, Any] = field(default_factory=dict)
    """What differs from the defaults of `trainer` and `network`, see `newsrec.rerankers.stage.RerankConfig.of`."""
    kept: KeptRanker | None = None
    """Of an earlier bundle: no ranker is fitted anew; `ranker` and what shapes it are that bundle's."""

    def refuse_contradictions(self) -> None:
        """Find out before the work what cannot be done.

        Raises:
            UsageError: With the setting that is unknown or out of range.
        """
        if self.candidates not in (None, *SPLITS):
            raise UsageError(f"--candidates: expected one of {sorted(SPLITS)}, found {self.candidates!r}.")
        if self.ranker not in RANKERS:
            raise UsageError(f"--ranker: expected one of {sorted(RANKERS)}, found {self.ranker!r}.")
        if not 10 <= self.list_length <= 10_000:
            raise UsageError(f"--list-length: expected 10 to 10000 candidates, found {self.list_length}.")
        if self.merge_by not in MERGES or (self.merge_by == "learned" and self.merge.weights):
            raise UsageError(
                f"--merge: expected one of {list(MERGES)}, and learned without weights of one's own, found "
                f"{self.merge_by!r} and weights {dict(self.merge.weights)}."
            )
        parse(self.sampling.sampler)
        if not 0 < self.sampling.ratio < float("inf"):
            raise UsageError(f"--negative-ratio: expected a number above 0, found {self.sampling.ratio}.")
        if self.sampling.exposure not in PROPENSITIES or not 1 <= self.sampling.exposure_clip < float("inf"):
            raise UsageError(
                f"--exposure: expected one of {list(PROPENSITIES)} and a largest weight of 1 or more, found "
                f"{self.sampling.exposure!r} and {self.sampling.exposure_clip}."
            )
        if not 2 <= self.rerank_top <= 1_000:
            raise UsageError(f"--rerank-top: expected 2 to 1000 candidates, found {self.rerank_top}.")
        Memory.of(self.keep_days, self.recall_settings)
        self._refuse_reranker()
        RANKERS[self.ranker].of(self.params)

    def _refuse_reranker(self) -> None:
        if self.int8 and self.reranker is None:
            raise UsageError("--int8: expected --reranker with it, found none. Name a network, or leave it out.")
        if self.reranker is not None:
            refuse_unknown(self.reranker)
            from newsrec.rerankers.stage import RerankConfig  # only now it is known that torch is there

            chosen = RerankConfig.of(self.reranker, self.rerank_top, self.rerank_params, self.seed)
            refuse_unfit(chosen.name, chosen.network)
            if self.tasks and not learns_tasks(self.reranker):
                raise UsageError(f"--task: expected a network of several tasks, found {self.reranker!r}. Take mmoe.")
            if chosen.network.get("given_shown") and EXPOSED not in self.tasks:
                raise UsageError("--rerank-params: expected --task exposed with given_shown, found none. Add it.")
        elif self.tasks:
            raise UsageError("--task: expected --reranker with it, found none. Name mmoe or ple.")
        elif self.rerank_params:
            raise UsageError("--rerank-params: expected --reranker with it, found none. Name the network.")

    def settled(self, log: Log) -> "TrainConfig":
        """With what was left to the log chosen: candidates, channels and the number of training requests.

        Raises:
            UsageError: Positions are asked of a format whose lists were shuffled afterwards, or the log lacks a label
                that a network of several tasks is to learn.
            DataError: Such a label says nothing.
        """
        tasks = self.tasks
        candidates = self.candidates or ("slate" if log.format in SLATE_FORMATS else "recall")
        if self.reranker is not None and learns_tasks(self.reranker):
            tasks = tasks or tasks_in(log)
            if not tasks:
                raise UsageError(
                    f"--reranker {self.reranker}: expected a second label, found none in the '{log.format}' log. Name "
                    "one by --task, such as dwell:30 where clicks have dwell_seconds, or take a network of one task."
                )
            refuse_unknown_tasks(log, tasks, exposable=candidates == "recall" and divides_by_time(self.split))
        if self.params.get("position_bias") and log.format in SHUFFLED_FORMATS:
            raise UsageError(
                f"--position-bias: expected the places that readers saw, found a '{log.format}' log, whose lists were "
                "shuffled by the publisher. Leave it out."
            )
        channels: tuple[str, ...] = DEFAULT_CHANNELS if candidates == "recall" else ()
        # The embedded log is a first look: it should take a minute, not show how much a machine can take.
        most = EMBEDDED_REQUESTS if log.format == "simulated" else LOG_REQUESTS
        split = self.split if self.split.train_requests is not None else replace(self.split, train_requests=most)
        channels = channels if self.recall is None else self.recall
        return replace(self, candidates=candidates, recall=channels, split=split, tasks=tasks)

    @property
    def candidates_in_words(self) -> str:
        """For the protocol of the settled configuration."""
        channels = "+".join(self.recall or ())
        if self.candidates == "slate":
            return "the whole list that was shown" + (f", described by recall {channels}" if channels else "")
        return f"recall {channels}, at most {self.list_length}, never sampled"


DEFAULTS = TrainConfig()
"""Of the command line, and of `newsrec.train.train`."""
