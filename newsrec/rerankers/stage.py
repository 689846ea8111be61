"""Stage 7 where it is trained: lists from the ranker's top, a network, its export, the blend and the verdict.

The ranker's score of a training list is out of fold in time: the list is scored by a ranker that was fitted on earlier
requests only (`FOLDS`). Validation stops the training early, chooses the blend, and says whether it is better than the
ranker's order (`newsrec.rerankers.blending`). Only then it is switched on.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from features.windows import Ints
from newsrec.assembly import Assembly, Described
from newsrec.errors import UsageError
from newsrec.evaluation.comparison import Difference
from newsrec.neural.checkpoint import Checkpoint
from newsrec.neural.curves import Curves
from newsrec.neural.export import export_network
from newsrec.neural.model import Model
from newsrec.neural.settings import settings_of
from newsrec.neural.trainer import METRIC, Fitted, TrainerConfig, fit, score_tasks
from newsrec.neural.vocabulary import IdVocabulary
from newsrec.progress import Progress
from newsrec.rankers import Ranker, RankingData
from newsrec.rerank import MODEL_FILE, Blend, Reranker, RerankSettings, log_odds, top_lists
from newsrec.rerankers import history_of, make, source_of
from newsrec.rerankers.base import Shape
from newsrec.rerankers.blending import fit_blend, judge
from newsrec.rerankers.int8 import int8_files
from newsrec.tasks import CLICK, EXPOSED
from newsrec.tensors import Batch, Fields, Lists, concatenated, padded, raw

FOLDS: Final = 3
"""Stretches of the training time; lists of each but the first are scored by a ranker fitted on the earlier ones."""
TRAIN_LISTS: Final = 60_000
"""Training lists at most, of the newest stretches: whole lists cost memory, and each stretch a ranker's training."""
EARLIER_REQUESTS: Final = 60_000
"""Requests at most, the newest, that the ranker of a stretch is fitted on: it has to err as the served one does."""
PARTS: Final = ("trainer", "network")
"""Of the parameters that a user gives."""
EXAMPLE: Final = (2, 3, 4)
"""Requests, candidates and clicks of the worked example."""

Score = Callable[[pl.DataFrame], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class RerankConfig:
    """What to train."""

    name: str
    """Name in `newsrec.rerankers.RERANKERS`, or `FILE.py:NAME` of an own network."""
    top: int = 20
    """The ranker's first so many of each list are ordered again, >= 2."""
    trainer: TrainerConfig = TrainerConfig()
    int8: bool = False
    """Whether to keep the network also with weights of eight bits."""
    tasks: tuple[str, ...] = ()
    """Labels beside the click, see `newsrec.tasks`; for networks of several tasks."""
    network: Mapping[str, Any] = field(default_factory=dict)
    """Parameters of the network that differ from its defaults."""
    checkpoint: Path | None = None
    """File that keeps each epoch, so that a killed training goes on; None keeps none."""

    @classmethod
    def of(cls, name: str, top: int, params: Mapping[str, Any], seed: int, checkpoint: Path | None = None) -> Self:
        """With parameters by name: `trainer` (fields of `TrainerConfig`) and `network`, each optional.

        Raises:
            UsageError: Unknown names, or values that do not fit.
        """
        unknown = sorted(set(params) - set(PARTS))
        wrong = sorted(part for part in PARTS if not isinstance(params.get(part, {}), Mapping))
        given = dict(params.get("trainer", {})) if not wrong else {}
        if unknown or wrong or "seed" in given:
            found = unknown or wrong or ["seed: use --seed"]
            raise UsageError(f"--rerank-params: expected an object with {list(PARTS)}, each an object, found {found}.")
        trainer = settings_of(TrainerConfig, given, "--rerank-params trainer")
        return cls(name, top, replace(trainer, seed=seed), network=params.get("network", {}), checkpoint=checkpoint)


@dataclass(frozen=True)
class TrainedReranker:
    """What training gave."""

    reranker: Reranker
    curves: Curves
    gain: Difference
    """MRR@5 of the ranker's order and of the blend on validation, each request judged by what other users chose."""
    files: Mapping[str, bytes]
    """The network and its signature by name."""
    config: RerankConfig
    tasks: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Task, the click first -> figures on validation, see `task_figures`; empty where the click is the only one."""

    @property
    def on(self) -> bool:
        """Whether the bundle's final order is the blend."""
        return self.reranker.settings.on

    def save(self, folder: Path) -> None:
        """Write the files into an existing folder."""
        for name, content in self.files.items():
            (folder / name).write_bytes(content)

    def figures(self) -> dict[str, Any]:
        """For `metrics.json`."""
        settings = self.reranker.settings
        return {
            "name": settings.name,
            "on": settings.on,
            "top": settings.top,
            "weight": settings.blend.weight,
            "gain": {"metric": METRIC, **asdict(self.gain)},
            "curves": {"metric": METRIC, **asdict(self.curves)},
            "overfitting": self.curves.verdict(),
            "tasks": {name: dict(figures) for name, figures in self.tasks.items()},
            "params": {"trainer": asdict(self.config.trainer), "network": dict(self.config.network)},
        }


def train_reranker(
    config: RerankConfig,
    assembly: Assembly,
    ranker: Ranker,
    rows: RankingData,
    requests: pl.DataFrame,
    valid: Sequence[Described],
    positives: pl.DataFrame,
    tell: Progress,
    labels: pl.DataFrame | None = None,
) -> TrainedReranker:
    """Train, export, blend, judge.

    Args:
        config: What.
        assembly: Channels and features.
        ranker: Fitted on `rows`.
        rows: Its training rows, for the rankers of the folds.
        requests: Of `rows`.
        valid: Whole lists of the validation requests.
        positives: `request_id, item_id`.
        tell: Told of stages and of the verdict.
        labels: Of the tasks beside the click, `newsrec.tasks.task_labels` of both parts; None where there are none.
    """
    seed = config.trainer.seed
    settings = settings_before(config, assembly)
    name, sha256 = settings.name, settings.sha256
    train = weighed(training_tops(settings, assembly, ranker, rows, requests, positives, seed, tell), rows)
    watched = tops_of(assembly, settings, ranker.score, valid)
    if labels is not None:
        train, watched = (with_tasks(lists, labels) for lists in (train, watched))
    with assembly.clock.time("rerank"):
        with tell.stage("rerank", 0) as step:
            of = f"{name} {sha256} {dict(config.network)}"
            checkpoint = None if config.checkpoint is None else Checkpoint(config.checkpoint, of)
            model, fitted, files = train_network(config, settings, train, watched, lambda _: step(1), checkpoint)
        gain = judge(watched, fitted.logits, pl.concat(each.requests for each in valid), seed)
        made = partial(Reranker, model=files[MODEL_FILE])
        blend = fit_blend(watched, log_odds(made(settings).probabilities(watched)))
    settings = replace(settings, blend=blend, on=gain.low > 0 and blend.weight > 0)
    of_tasks = task_figures(model, IdVocabulary.of(train).coded(watched)) if watched.further else {}
    tell.say(f"reranker {name}: {fitted.curves.verdict()}")
    for task, told in of_tasks.items():
        tell.say(f"task {task}: auc {told['auc']:.4f} over {told['positives']:,.0f} of {told['rows']:,.0f} candidates")
    tell.say(_verdict(settings, gain))
    if config.int8:
        files |= int8_files(made(settings), files, watched)
    return TrainedReranker(made(settings), fitted.curves, gain, files, config, of_tasks)


def train_network(
    config: RerankConfig,
    settings: RerankSettings,
    train: Lists,
    valid: Lists,
    on_epoch: Callable[[float], None],
    checkpoint: Checkpoint | None = None,
) -> tuple[Model, Fitted, dict[str, bytes]]:
    """Train on lists of raw ids; the trained model, what training told, and the network's files."""
    vocabulary, model, fitted = fit_raw(config, settings, train, valid, on_epoch, checkpoint)
    facts = {"network": settings.name, "loss": config.trainer.loss}
    with tempfile.TemporaryDirectory() as folder:
        export_network(model, vocabulary, settings.fields, _example(valid), Path(folder) / MODEL_FILE, facts)
        return model, fitted, {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def fit_raw(
    config: RerankConfig,
    settings: RerankSettings,
    train: Lists,
    valid: Lists,
    on_epoch: Callable[[float], None] = lambda _: None,
    checkpoint: Checkpoint | None = None,
) -> tuple[IdVocabulary, Model, Fitted]:
    """Train on lists of raw ids, as `newsrec.neural.trainer.fit` does, whose errors it raises.

    Returns:
        The vocabulary of the training lists, the model, and what training told.
    """
    vocabulary, fields, tasks = IdVocabulary.of(train), settings.fields, (CLICK, *train.further)
    exposed = tasks.index(EXPOSED) if EXPOSED in tasks else 0
    shape = Shape(len(fields.dense), vocabulary.sizes, len(fields.numbers), len(tasks), exposed)
    coded = vocabulary.coded(train), vocabulary.coded(valid)
    return vocabulary, *fit_network(config, shape, *coded, on_epoch, checkpoint)


def fit_network(
    config: RerankConfig,
    shape: Shape,
    train: Lists,
    valid: Lists,
    on_epoch: Callable[[float], None],
    checkpoint: Checkpoint | None = None,
) -> tuple[Model, Fitted]:
    """Train a new network on coded lists; see `newsrec.neural.trainer.fit`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.trainer.seed)
        model = Model(make(config.name, shape, config.network), shape.dense, shape.numbers)
        return model, fit(model, train, valid, config.trainer, on_epoch, checkpoint)


def settings_before(config: RerankConfig, assembly: Assembly) -> RerankSettings:
    """What the manifest will keep, before a blend was chosen and judged."""
    fields = Fields.of(assembly.store, tuple(f.name for f in assembly.features))
    name, sha256 = source_of(config.name)
    return RerankSettings(name, False, config.top, history_of(config.name), Blend(0.0, 1.0, 1.0), fields, sha256)


def training_tops(
    settings: RerankSettings,
    assembly: Assembly,
    ranker: Ranker,
    rows: RankingData,
    requests: pl.DataFrame,
    positives: pl.DataFrame,
    seed: int,
    tell: Progress,
) -> Lists:
    """Tops of training requests, each scored by a ranker that was fitted on earlier ones only."""
    return concatenated(
        [
            tops_of(assembly, settings, earlier.score, assembly.described(fold, positives, tell, "tops"))
            for earlier, fold in _forward(ranker, rows, requests, assembly, seed)
        ]
    )


def weighed(lists: Lists, rows: RankingData) -> Lists:
    """Each list as its click weighs in the ranker's rows, by its exposure; 1 where the ranker had no such row."""
    clicked = rows.label == 1
    known = pl.DataFrame({"request": rows.request[clicked], "weight": rows.weight[clicked]}).unique("request")
    asked = pl.DataFrame({"request": lists.request_id}).join(known, on="request", how="left", maintain_order="left")
    return replace(lists, weight=asked["weight"].fill_null(1.0).cast(pl.Float32).to_numpy())


def with_tasks(lists: Lists, labels: pl.DataFrame) -> Lists:
    """Lists of raw ids with the labels of further tasks: 0 for what was not clicked (`exposed`: not shown), NaN where
    nobody knows.

    Args:
        lists: Whose label is the click.
        labels: `newsrec.tasks.task_labels` of these requests.
    """
    tasks = labels.columns[2:]
    ids = lists.ids["item_id"]
    rows = pl.DataFrame({"request_id": lists.request_id[lists.row_request], "item_id": ids})
    known = labels.with_columns(pl.Series("item_id", raw(labels["item_id"])).cast(rows["item_id"].dtype))
    found = rows.join(known, on=["request_id", "item_id"], how="left", maintain_order="left")
    told = {task: found[task].cast(pl.Float32).fill_null(np.nan).to_numpy() for task in tasks}
    answers = {task: np.isfinite(each) if task == EXPOSED else lists.label == 1 for task, each in told.items()}
    return replace(lists, further={task: np.where(answers[task], each, np.float32(0)) for task, each in told.items()})


def task_figures(model: Model, lists: Lists) -> dict[str, dict[str, float]]:
    """Per task, the click first: `auc` of `auc_of_lists` over candidates whose label is known, `positives` and `rows`.

    Args:
        model: Of several tasks, trained.
        lists: Coded.
    """
    logits = score_tasks(model, lists)
    labels = {CLICK: lists.label.astype(np.float32), **lists.further}
    told = {}
    for place, (task, label_of) in enumerate(labels.items()):
        known = np.isfinite(label_of)
        clicked = label_of[known] == 1
        told[task] = {
            "auc": auc_of_lists(logits[known, place], clicked, lists.row_request[known]),
            "positives": float(clicked.sum()),
            "rows": float(known.sum()),
        }
    return told


def auc_of_lists(scores: npt.NDArray[Any], positive: npt.NDArray[np.bool_], of: Ints) -> float:
    """Chance that a positive candidate scores above another of its list, ties half: the mean over lists with both.

    A loss over lists leaves a constant of each list free, so candidates of different lists are not compared.

    Args:
        scores: (n_rows,).
        positive: (n_rows,).
        of: The list of each row, (n_rows,).

    Returns:
        0..1; NaN where no list has both.
    """
    rows = pl.DataFrame({"list": of, "score": scores, "positive": positive})
    counted = (
        rows.with_columns(rank=pl.col("score").rank().over("list"))
        .group_by("list", maintain_order=True)
        .agg(pl.col("rank").filter("positive").sum(), n=pl.col("positive").sum().cast(pl.Float64), rows=pl.len())
    )
    both = counted.filter(pl.col("n") > 0, pl.col("n") < pl.col("rows"))
    area = (pl.col("rank") - pl.col("n") * (pl.col("n") + 1) / 2) / (pl.col("n") * (pl.col("rows") - pl.col("n")))
    found = both.select(area.mean()).item()
    return float("nan") if found is None else float(found)


def tops_of(assembly: Assembly, settings: RerankSettings, score: Score, lists: Iterable[Described]) -> Lists:
    """The ranker's top of each request, whole lists being scored."""
    parts = []
    for each in lists:
        with assembly.clock.time("rank"):
            scored = each.candidates.with_columns(pl.Series("score", each.scored_by(score).score))
        parts.append(top_lists(each.features, scored, each.requests, assembly.store, settings))
    return concatenated(parts)


def _forward(
    ranker: Ranker, rows: RankingData, requests: pl.DataFrame, assembly: Assembly, seed: int
) -> Iterator[tuple[Ranker, pl.DataFrame]]:
    """Stretches of the training time, the newest first, each with a ranker that was fitted on what lies before it."""
    time = requests["requested_at"].to_physical()
    borders = [time.sort()[len(time) * i // FOLDS] for i in range(1, FOLDS)]
    fold = np.searchsorted(borders, time.to_numpy(), side="right")
    rng, categorical, wanted = np.random.default_rng(seed), assembly.categorical, TRAIN_LISTS
    for i in reversed(range(1, FOLDS)):
        if wanted == 0:
            return
        newest = requests.filter(fold < i).sort("requested_at", "request_id").tail(EARLIER_REQUESTS)
        earlier = np.isin(rows.request, newest["request_id"].to_numpy())
        drawn = np.sort(rng.permutation(np.flatnonzero(fold == i))[:wanted])
        with assembly.clock.time("rank"):
            fitted = ranker.refit(rows.take(earlier), categorical=categorical, seed=seed, share=float(earlier.mean()))
        yield fitted, requests[drawn]
        wanted -= len(drawn)


def _verdict(settings: RerankSettings, gain: Difference) -> str:
    found = f"{METRIC} {gain.first:.4f} -> {gain.second:.4f}, gain {gain.low:+.4f} .. {gain.high:+.4f}"
    if settings.on:
        return f"reranker {settings.name}: on ({found} on validation, half of the users judging what the others chose)"
    return (
        f"reranker {settings.name}: switched off, the final order is the ranker's ({found} on validation, half of the "
        "users judging what the others chose: the interval is not above zero); recommend --reranker on uses it all the "
        "same"
    )


def _example(lists: Lists) -> Batch:
    """Two of the lists with the longest histories, cut to a size that a person can read."""
    longest = np.lexsort((-lists.history_length, -lists.length))
    same = longest[lists.length[longest] == lists.length[longest[0]]]
    whole = padded(lists, np.resize(same, EXAMPLE[0]))
    candidates, clicks = (slice(size) for size in EXAMPLE[1:])
    return Batch(
        whole.dense[:, candidates],
        {name: ids[:, candidates] for name, ids in whole.ids.items()},
        {name: ids[:, clicks] for name, ids in whole.history_ids.items()},
        {name: values[:, clicks] for name, values in whole.history_numbers.items()},
        whole.mask[:, clicks],
        whole.rows[:, candidates],
    )
