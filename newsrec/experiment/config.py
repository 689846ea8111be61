"""What an experiment is told, and what one of its cells is."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, Self

from newsrec.data import ReadOptions
from newsrec.errors import UsageError
from newsrec.rerankers import RERANKERS, refuse_unfit, refuse_unknown
from newsrec.sampling import ALONE, parse

SAMPLERS = ("random", "popular", "exposed", "hard", "semi_hard", "random+hard", "random+popular+hard")

RANKER = "ranker"
"""Stands for no network: the ranker's own order."""


class AnyCell(Protocol):
    """What is trained and measured on its own."""

    @property
    def key(self) -> str:
        """Name of its files."""
        ...

    def with_seed(self, seed: int) -> Self:
        """The same with another seed."""
        ...

    def facts(self) -> dict[str, Any]:
        """Columns of the table."""
        ...


@dataclass(frozen=True)
class NetworkCell:
    """One network with one loss."""

    network: str
    """Name in `newsrec.rerankers.RERANKERS`, `FILE.py:NAME`, or `RANKER`."""
    loss: str = ""
    alone: bool = False
    """One such network per label of the log, each trained on that label alone; no row of its own in the table."""
    tasks: tuple[str, ...] = ()
    """Labels beside the click that were named for it; a folder may hold the same network with others."""
    seed: int = 0

    @property
    def key(self) -> str:
        """Name of its files."""
        told = [self.loss] if self.loss else []
        told += [*(["alone"] if self.alone else []), *self.tasks]
        return "-".join([*(re.sub(r"[^\w.]+", "_", word) for word in (self.network, *told)), f"seed{self.seed}"])

    def with_seed(self, seed: int) -> "NetworkCell":
        """The same with another seed of weights and of what is drawn."""
        return replace(self, seed=seed)

    def facts(self) -> dict[str, Any]:
        """Columns of the table."""
        return {"network": self.network, "loss": self.loss or None}


@dataclass(frozen=True)
class RecallCell:
    """Some recall channels, merged."""

    name: str
    only: tuple[str, ...] = ()
    """Channels; none means every one that the log has the data for."""
    without: tuple[str, ...] = ()
    quota: int | None = None
    """Articles of each channel at most."""
    seed: int = 0

    @property
    def key(self) -> str:
        """Name of its files."""
        return "-".join(
            [self.name.replace(" ", "_"), *([f"quota{self.quota}"] if self.quota else []), f"seed{self.seed}"]
        )

    def with_seed(self, seed: int) -> "RecallCell":
        """The same; channels draw nothing anew."""
        return replace(self, seed=seed)

    def facts(self) -> dict[str, Any]:
        """Columns of the table."""
        return {"channels": self.name, "quota": self.quota}


@dataclass(frozen=True)
class Cell:
    """One way of training."""

    sampler: str
    """Name in `newsrec.sampling.SAMPLERS`, or a mixture."""
    ratio: float | None = None
    """Negatives per click; None where the sampler has a size of its own."""
    weighted: bool = True
    """Rows weigh one by their sampling probability."""
    params: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    @property
    def key(self) -> str:
        """Name of its files."""
        told = "_".join(f"{name}={value}" for name, value in sorted(self.params.items()))
        parts = [self.sampler.replace(":", "="), "own" if self.ratio is None else f"{self.ratio:g}"]
        return "-".join(
            [*parts, "weighted" if self.weighted else "bare", *([told] if told else []), f"seed{self.seed}"]
        )

    def with_seed(self, seed: int) -> "Cell":
        """The same with another seed of sampling and fitting."""
        return replace(self, seed=seed)

    def facts(self) -> dict[str, Any]:
        """Columns of the table."""
        changed = ", ".join(f"{name}={value}" for name, value in self.params.items())
        return {"negatives": self.sampler, "ratio": self.ratio, "weighted": self.weighted, "params": changed or None}


@dataclass(frozen=True)
class ExperimentConfig:
    """One experiment. The defaults are those of the command line."""

    name: str
    """Name in `newsrec.experiment.EXPERIMENTS`."""
    data: Path | None = None
    """Folder or file of the log; None is the embedded simulated log."""
    format: str = "auto"
    out: Path | None = None
    """Folder for what is found; None is `artifacts/experiment-<name>-<fingerprint>`."""
    candidates: str | None = None
    """`slate` or `recall`; None is what the format is made for."""
    train_requests: int = 10_000
    """At most; their whole lists are kept in memory, so 1..100000."""
    valid_requests: int = 3_000
    test_requests: int = 10_000
    test_days: float = 1.0
    valid_days: float = 1.0
    seeds: int = 1
    """Each cell is drawn and fitted so often, >= 1."""
    samplers: tuple[str, ...] = SAMPLERS
    """`negatives`: names in `newsrec.sampling.SAMPLERS`, or mixtures."""
    ratios: tuple[float, ...] = (4.0, 10.0)
    """`negatives`: negatives per clicked article, > 0."""
    models: tuple[str, ...] = ()
    """`rerankers`: names in `newsrec.rerankers.RERANKERS`, or `FILE.py:NAME`; none is all of them."""
    losses: tuple[str, ...] = ("softmax",)
    """`rerankers`: names in `newsrec.neural.losses.LOSSES`."""
    tasks: tuple[str, ...] = ()
    """`rerankers`: labels beside the click, see `newsrec.tasks`; none is all that the log has."""
    rerank_top: int = 20
    """`rerankers`: the ranker's first so many of each list are ordered again, >= 2."""
    params: Mapping[str, Any] = field(default_factory=dict)
    """Parameters of the ranker that differ from its defaults."""
    read: ReadOptions = ReadOptions()

    @property
    def networks(self) -> tuple[str, ...]:
        """The networks to compare; `pooling` always, as the others are compared with it."""
        named = self.models or tuple(RERANKERS)
        return tuple(dict.fromkeys(("pooling", *named)))

    def refuse_contradictions(self) -> None:
        """Find out before the work what cannot be done.

        Raises:
            UsageError: With the setting that is unknown or out of range.
        """
        for spec in self.samplers:
            if set(parse(spec)) & set(ALONE):
                raise UsageError(f"--samplers: expected none of {list(ALONE)}, which always run, found {spec!r}.")
        if not self.samplers or not self.ratios or not all(0 < ratio < float("inf") for ratio in self.ratios):
            raise UsageError(f"--ratios: expected samplers and numbers above 0, found {self.samplers}, {self.ratios}.")
        if self.name == "rerankers":
            self._refuse_unknown_networks()
        if self.name == "recall" and self.seeds > 1:
            raise UsageError(f"--seeds: expected 1 for recall, which draws nothing anew, found {self.seeds}.")
        if self.seeds < 1 or not 1 <= self.train_requests <= 100_000:
            raise UsageError(
                f"experiment: expected at least 1 seed and 1 to 100000 training requests, found {self.seeds} and "
                f"{self.train_requests}."
            )

    def _refuse_unknown_networks(self) -> None:
        for name in self.networks:
            refuse_unknown(name)
            refuse_unfit(name)
        from newsrec.neural.losses import LOSSES

        unknown = sorted(set(self.losses) - set(LOSSES))
        if unknown or not self.losses:
            raise UsageError(f"--losses: expected some of {sorted(LOSSES)}, found {unknown or 'none'}.")
        if self.rerank_top < 2:
            raise UsageError(f"--rerank-top: expected 2 or more, found {self.rerank_top}.")

    def facts(self) -> dict[str, Any]:
        """What must be the same where a stopped experiment goes on; further seeds, samplers and the like may join."""
        return {"name": self.name, "params": dict(self.params)}
