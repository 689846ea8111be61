"""What a simulated log can be asked for. The command line and tests make it; every module here reads it."""

import math
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Final

import numpy as np

from newsrec.errors import UsageError

STREAMS: Final = ("articles", "users", "traffic", "clicks", "ids")


@dataclass(frozen=True)
class SimulationConfig:
    """Size and planted strengths of a simulated log. Equal configurations give equal logs.

    The defaults give about 130,000 clicks. Strengths are on the scale of log odds; 0 switches that signal off.
    """

    users: int = 15_000
    """Readers who may visit, >= 1. The few who never click are absent from the clicks."""
    days: int = 7
    """Length of the log in days, >= 1."""
    seed: int = 0
    """Any integer >= 0; another seed is another world."""
    articles_per_day: int = 320
    """Mean number of articles published each day, >= 20."""
    categories: int = 32
    """Number of categories, >= 2; their sizes follow Zipf's law."""
    embedding_dim: int = 16
    """Length of an article's embedding, >= 2."""
    slate_size: float = 12.6
    """Mean number of articles that a request asks for, > 5; the slate is a few per cent shorter, see `exposure`."""
    clicks_per_user: float = 4.0
    """Scale of the heavy-tailed activity: about the median number of clicks of a user, > 0."""
    exploration: float = 0.05
    """Share of each slate drawn evenly from all living articles, in (0, 1]; bounds propensities from below."""
    quality_strength: float = 1.0
    """Spread of what articles are worth to everybody, >= 0."""
    interest_strength: float = 4.0
    """How much a reader's own interests count, >= 0."""
    sequence_strength: float = 2.5
    """How much the last click pulls towards its own story and category, >= 0."""
    start: datetime = datetime(2025, 3, 3, tzinfo=UTC)
    """First moment of the log, with a time zone; midnight keeps the daily rhythm in UTC hours."""

    def __post_init__(self) -> None:
        """Refuse what cannot be simulated.

        Raises:
            UsageError: with one line that names every field out of range.
        """
        faults = sorted(_faults(self))
        if faults:
            raise UsageError(f"simulation: expected {'; '.join(faults)}. Change these values.")


_LEAST: Final[dict[str, float]] = {
    "users": 1,
    "days": 1,
    "seed": 0,
    "articles_per_day": 20,
    "categories": 2,
    "embedding_dim": 2,
    "quality_strength": 0,
    "interest_strength": 0,
    "sequence_strength": 0,
}
_ABOVE: Final[dict[str, float]] = {"slate_size": 5, "clicks_per_user": 0, "exploration": 0}


def _faults(config: SimulationConfig) -> list[str]:
    faults = []
    for name in (field.name for field in fields(config)):
        value = getattr(config, name)
        if name == "start":
            if not isinstance(value, datetime) or value.tzinfo is None:
                faults.append(f"'start' with a time zone, got {value!r}")
        elif isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            faults.append(f"a number for '{name}', got {value!r}")
        elif SimulationConfig.__dataclass_fields__[name].type is int and not isinstance(value, int):
            faults.append(f"a whole number for '{name}', got {value!r}")
        elif name in _LEAST and value < _LEAST[name]:
            faults.append(f"'{name}' >= {_LEAST[name]:g}, got {value!r}")
        elif name in _ABOVE and value <= _ABOVE[name]:
            faults.append(f"'{name}' > {_ABOVE[name]:g}, got {value!r}")
        elif name == "exploration" and value > 1:
            faults.append(f"'exploration' <= 1, got {value!r}")
    return faults


def generator(config: SimulationConfig, stream: str) -> np.random.Generator:
    """The random numbers of one part of the world: a change in one part leaves the draws of the others as they were."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([config.seed, STREAMS.index(stream)])))
