"""What need not wait: the next item of a loop, calls beside each other, lists of requests whose turn comes later."""

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from math import inf
from time import perf_counter
from typing import Final, TypeVar, cast

import polars as pl

T = TypeVar("T")


def ahead(made: Iterator[T]) -> Iterator[T]:
    """The same in the same order, each next one being made in a thread of its own while the present one is in use.

    What `made` raises is raised where that item is asked for.
    """
    end: Final = object()
    with ThreadPoolExecutor(1) as beside:
        coming = beside.submit(next, made, end)
        while (present := coming.result()) is not end:
            coming = beside.submit(next, made, end)
            yield cast(T, present)


class Beside:
    """Calls that are made again and again, some at once: what took longest the last time begins first.

    Args:
        threads: How many at once, >= 1; None is one per core.
    """

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads or os.cpu_count()
        self._seconds: dict[str, float] = {}

    def __call__(self, calls: Mapping[str, Callable[[], T]]) -> dict[str, T]:
        """What each call gives, in the order of the calls; what one of them raises is raised when all have ended."""
        longest_first = sorted(calls, key=lambda name: -self._seconds.get(name, inf))
        with ThreadPoolExecutor(self._threads) as pool:
            begun = {name: pool.submit(self._timed, name, calls[name]) for name in longest_first}
        return {name: begun[name].result() for name in calls}

    def _timed(self, name: str, call: Callable[[], T]) -> T:
        start = perf_counter()
        result = call()
        self._seconds[name] = perf_counter() - start
        return result


class Aside:
    """Lists that were proposed beside others of their time, until they are asked for."""

    def __init__(self) -> None:
        self._lists: list[pl.DataFrame] = []
        self._requests: list[pl.Series] = []

    def put(self, requests: pl.DataFrame, lists: pl.DataFrame) -> None:
        """Keep the lists of some requests, both in the order of `chunks`."""
        self._lists.append(lists)
        self._requests.append(requests["request_id"])

    def take(self, requests: pl.DataFrame) -> pl.DataFrame | None:
        """The lists of requests in the order of `chunks`, which are then forgotten; None where some are not here."""
        wanted = requests["request_id"]
        if not self._requests or not wanted.is_in(pl.concat(self._requests).implode()).all():
            return None
        taken = [each.filter(pl.col("request_id").is_in(wanted.implode())) for each in self._lists]
        self._lists = [each.filter(~pl.col("request_id").is_in(wanted.implode())) for each in self._lists]
        self._requests = [each.filter(~each.is_in(wanted.implode())) for each in self._requests]
        return pl.concat(taken)
