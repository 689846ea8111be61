"""What every trial learns from, described once and laid on disk, so that all workers map the same pages.

A log goes in, a folder comes out: the training rows in order of time (a fold trains on the first so many of them), and
for each fold the whole lists of its validation period. The test period is in none of them.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from features.columns import TIME
from features.events import EventStore
from newsrec.assembly import Assembly, training_data
from newsrec.candidates import SamplingConfig, label, whole_lists
from newsrec.data import Log
from newsrec.errors import DataError, UsageError
from newsrec.own import read_own
from newsrec.progress import Clock, Progress
from newsrec.rankers import RankingData
from newsrec.rankers.lgbm import group_lengths
from newsrec.slates import FOLDS
from newsrec.split import Split
from newsrec.train import assembly_of
from newsrec.train_config import TrainConfig

FACTS: Final = "frames.json"
ROWS_AT_ONCE: Final = 100_000
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class FoldFacts:
    """One fold: what it trains on and when it validates."""

    rows: int
    """Its training rows are the first so many."""
    requests: int
    """Its training requests (groups) are the first so many."""
    valid_from: str
    """First moment of its validation period, ISO 8601."""
    valid_until: str
    """The moment after it."""
    valid_requests: int
    """Validation requests, those included that recall missed."""


@dataclass(frozen=True)
class FramesFacts:
    """What lies in a folder of frames."""

    features: tuple[str, ...]
    categorical: tuple[str, ...]
    folds: tuple[FoldFacts, ...]


@dataclass(frozen=True)
class Frames:
    """A folder of frames. Arrays are mapped read-only, never read into the process's own memory."""

    folder: Path
    facts: FramesFacts

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read what `write_frames` wrote."""
        told = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        folds = tuple(FoldFacts(**fold) for fold in told["folds"])
        return cls(folder, FramesFacts(tuple(told["features"]), tuple(told["categorical"]), folds))

    def array(self, name: str) -> Array:
        """`train`, `valid-<fold>` (rows, features; Float32), `label`, `weight` (rows,) or `group` (requests,)."""
        mapped: Array = np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        return mapped

    def rows(self, fold: int) -> pl.DataFrame:
        """`request_id, item_id, label` of each validation row, in the order of `valid-<fold>`."""
        return pl.read_parquet(self.folder / f"rows-{fold}.parquet")

    def requests(self, fold: int) -> pl.DataFrame:
        """`request_id, user_id, positives` of the fold's validation requests, those included that recall missed."""
        return pl.read_parquet(self.folder / f"requests-{fold}.parquet")


@dataclass(frozen=True)
class Divided:
    """A log whose training time is divided into folds."""

    config: TrainConfig
    """Settled."""
    splits: Sequence[Split]
    """Of `newsrec.split.rolling_folds`; the first validates on the latest period."""
    described: Assembly
    """Its codes are learned before the earliest validation period begins, so that it serves every fold."""

    def assembly(self, fold: int) -> Assembly:
        """With the lists that were shown to the fold's requests."""
        return replace(self.described, slates=self.splits[fold].slates)

    @property
    def sampling(self) -> SamplingConfig:
        """Of the training requests."""
        return replace(self.config.sampling, seed=self.config.seed)


def divided(config: TrainConfig, log: Log, folds: int) -> Divided:
    """Divide, recall and get ready to describe; see `write_frames`."""
    config = config.settled(log)
    own = read_own(config.features)
    own.refuse_unfit(log)
    store = EventStore(log.clicks, log.articles, log.impressions)
    splits = FOLDS[config.candidates or ""](log, store, replace(config.split, seed=config.seed), folds)
    splits = [replace(s, requests=own.with_columns(s.requests, log.impressions)) for s in splits]
    return Divided(config, splits, assembly_of(config, log, store, splits[-1], Clock(), own))


def before(requests: pl.DataFrame, split: Split) -> pl.DataFrame:
    """The requests before a fold's validation period."""
    return requests.filter(pl.col("requested_at") < pl.lit(split.learn_until).cast(TIME))


def moment(ms: int | None) -> str:
    """ISO 8601."""
    return str(pl.Series([ms]).cast(TIME)[0].isoformat())


@contextmanager
def telling_of_room(folder: Path) -> Iterator[None]:
    """Turns a disk that is full into one line.

    Raises:
        UsageError: With what the system found.
    """
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"--storage: expected room beside it for the described rows, found: {error.strerror or error} in "
            f"'{folder}'. Free some, or ask for fewer --train-requests."
        ) from error


def write_frames(config: TrainConfig, log: Log, folds: int, folder: Path, tell: Progress) -> Frames:
    """Recall, describe and lay down.

    Args:
        config: What `train` would be told; settled here.
        log: The whole log; its test period is left alone.
        folds: Number of folds, >= 1.
        folder: An existing, empty folder.
        tell: Told of stages.

    Raises:
        NewsrecError: A log too short for so many folds, settings that contradict each other, or a disk that is full.
    """
    parts = divided(config, log, folds)
    with telling_of_room(folder):
        return Frames(folder, _write_all(parts, folder, tell))


def training_rows(parts: Divided, tell: Progress) -> RankingData:
    """Training rows of the latest fold, in order of time; the earlier folds train on the first of them.

    Raises:
        DataError: There are none.
    """
    first = parts.splits[0]
    rows = training_data(parts.assembly(0), first.part("train"), first.positives, parts.sampling, tell)
    if not len(rows):
        raise DataError("tuning: expected rows to learn from, found none: recall proposed no clicked article.")
    return rows


def _write_all(parts: Divided, folder: Path, tell: Progress) -> FramesFacts:
    train = training_rows(parts, tell)
    _write_array(folder / "train.npy", train.features.iter_slices(ROWS_AT_ONCE), train.features.shape)
    group = group_lengths(train.request)
    for name, values in (("label", train.label), ("weight", train.weight), ("group", group)):
        np.save(folder / f"{name}.npy", values.astype(np.float32 if name != "group" else np.int32))
    asked = pl.DataFrame({"request_id": train.request[np.cumsum(group) - group]}).join(
        parts.splits[0].requests.select("request_id", "requested_at"), on="request_id", maintain_order="left"
    )
    facts = []
    for number, split in enumerate(parts.splits):
        requests = len(before(asked, split))
        rows = int(group[:requests].sum())
        if not rows:
            raise DataError(f"fold {number}: expected rows to learn from, found none. Ask for fewer --folds.")
        valid = _write_valid(parts.assembly(number), split, number, folder, tell)
        facts.append(FoldFacts(rows, requests, moment(split.learn_until), moment(split.known_until), valid))
    found = FramesFacts(tuple(train.features.columns), tuple(parts.described.categorical), tuple(facts))
    (folder / FACTS).write_text(json.dumps(asdict(found)) + "\n", encoding="utf-8")
    return found


def _write_valid(assembly: Assembly, split: Split, number: int, folder: Path, tell: Progress) -> int:
    """Whole lists of a validation period, those that hold a click and another article."""
    requests = split.part("valid")
    described, rows = [], []
    with tell.stage(f"fold {number + 1}", len(requests)) as step:
        for chunk, lists in assembly.recalled(requests):
            marked = whole_lists(label(assembly.cut(lists), split.positives))
            described.append(assembly.describe(marked, chunk))
            rows.append(marked.filter("kept").select("request_id", "item_id", "label"))
            step(len(chunk))
    height = sum(len(part) for part in described)
    if not height:
        raise DataError(f"fold {number}: expected clicked articles among the candidates, found none. Use more recall.")
    parts = (piece for part in described for piece in part.iter_slices(ROWS_AT_ONCE))
    _write_array(folder / f"valid-{number}.npy", parts, (height, len(assembly.features)))
    pl.concat(rows).write_parquet(folder / f"rows-{number}.parquet")
    kept = requests.select("request_id", "user_id", "positives")
    kept.write_parquet(folder / f"requests-{number}.parquet")
    return len(requests)


def _write_array(path: Path, parts: Iterable[pl.DataFrame], shape: tuple[int, int]) -> None:
    """Rows as one Float32 array. Written, never mapped for writing: on a full disk that would kill the process."""
    with path.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            file.write(np.ascontiguousarray(part.to_numpy(), np.float32).data)
