"""What long work tells while it runs: bars on a terminal, plain lines elsewhere, nothing in a library call."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

Step = Callable[[int], None]
"""Called with how many units of work were just done."""
Show = Callable[[int, str], None]
"""Called with how many units are done in all, and a few words on how it stands."""


class Progress(Protocol):
    """Where stages report to."""

    def say(self, line: str) -> None:
        """One line for the reader."""
        ...

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Step]:
        """A stretch of work of `total` units."""
        ...

    @contextmanager
    def tally(self, title: str, total: int) -> Iterator[Show]:
        """Work that others may do too: how many of `total` units are done is looked up, not counted."""
        ...


class Silent:
    """Reports nothing: the default of every library function."""

    def say(self, line: str) -> None:
        """Drop the line."""

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Step]:
        """Drop the steps."""
        yield lambda _: None

    @contextmanager
    def tally(self, title: str, total: int) -> Iterator[Show]:
        """Drop the counts."""
        yield lambda *_: None


class Clock:
    """Seconds per stage, added up over all its stretches."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Add the time of the block to the stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - start
