"""How progress and results look: bars and tables on a terminal, plain lines in a log file."""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import polars as pl
from rich import box
from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress
from rich.table import Table

from newsrec.evaluation import Difference, protocol_line
from newsrec.progress import Show, Step

LINE_EVERY_SECONDS = 15.0
SIDES = ("", "_low", "_high")
EXPERIMENT_TABLES = {
    "figures, and paired against the baseline": (
        *("auc", "auc_gain", "auc_low", "auc_high", "gauc", "gauc_gain", "gauc_low", "gauc_high"),
        *("mrr@5", "mrr@5_gain", "mrr@5_low", "mrr@5_high"),
    ),
    "hard and easy negatives, and what sampled test lists would wrongly say": (
        *("auc", "auc_hard", "auc_easy", "auc_sampled", "mrr@5", "mrr@5_sampled"),
    ),
    "calibration (errors by the click rate)": (
        *("ece_before", "ece_after", "true_ece_before", "true_ece_after", "closed_form", "normalised_entropy"),
    ),
    "against pooling": tuple(
        f"{name}{end}" for name in ("mrr@5", "auc") for end in ("", *(f"_over_pooling{side}" for side in SIDES))
    ),
    "against the ranker": tuple(
        f"{name}_over_ranker{side}" for name in ("mrr@5", "auc", "blend_mrr@5") for side in SIDES
    ),
    "clicks among the first of the merged list": (
        *("articles", "hit@5", "hit@20", "hit@50", "hit@100", "hit@200", "ceiling", "fit_seconds", "recall_seconds"),
    ),
    "against the default channels, and what no other channel has": (
        *("hit@50", "hit@50_gain", "hit@50_low", "hit@50_high", "hit@100", "hit@100_gain", "hit@100_low"),
        *("hit@100_high", "alone@50", "alone@200"),
    ),
    "training": (
        *("negatives_per_click", "seconds", "trees", "seconds_to_baseline", "gap", "gain_in_common"),
        *("parameters", "epochs", "p50_ms", "p99_ms", "kilobytes"),
    ),
}
"""Titles and columns of what an experiment shows."""
EXPERIMENT_CELLS = ("negatives", "ratio", "weighted", "params", "network", "loss", "channels", "quota")
"""Columns that say what a cell is."""
SHOWN = ("mrr@5", "hit@5", "ndcg@5", "ndcg@10", "auc", "gauc")


class Console:
    """A `newsrec.progress.Progress` for people. Results go to stdout, progress to stderr."""

    def __init__(self) -> None:
        self._out = RichConsole(highlight=False, soft_wrap=True)
        self._err = RichConsole(stderr=True, highlight=False, soft_wrap=True)
        self._bars: RichProgress | None = None
        self._start = time.perf_counter()

    def __enter__(self) -> Self:
        if self._err.is_terminal:
            self._bars = RichProgress(
                SpinnerColumn(),
                TextColumn("{task.description:>10}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=self._err,
                transient=True,
            )
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def say(self, line: str) -> None:
        """Print one line to stdout; markup in data stays text."""
        self._out.print(line, markup=False)

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Step]:
        """A bar, or a line at the beginning, every quarter of a minute, and at the end. A total of 0 is unknown."""
        if self._bars is not None:
            task = self._bars.add_task(title, total=total or None)
            yield lambda done: self._bars.advance(task, done) if self._bars else None
            self._bars.remove_task(task)
            return
        began = told = time.perf_counter()
        count = 0

        def step(done: int) -> None:
            nonlocal count, told
            count += done
            if time.perf_counter() - told > LINE_EVERY_SECONDS:
                told = time.perf_counter()
                self._log(f"{title}: {_count(count, total)}")

        yield step
        self._log(f"{title}: {_count(count, total)} in {time.perf_counter() - began:.1f} s")

    @contextmanager
    def tally(self, title: str, total: int) -> Iterator[Show]:
        """A bar with words beside it, or a line whenever one of them changes."""
        if self._bars is not None:
            task = self._bars.add_task(title, total=total)
            yield (
                lambda done, words: (
                    self._bars.update(task, completed=done, description=f"{title} {words}".strip())
                    if self._bars
                    else None
                )
            )
            self._bars.remove_task(task)
            return
        last: tuple[int, str] | None = None

        def show(done: int, words: str) -> None:
            nonlocal last
            if (done, words) != last:
                last = done, words
                self._log(f"{title}: {_count(done, total)}{f', {words}' if words else ''}")

        yield show

    def table(self, metrics: Mapping[str, Any], run: Path) -> None:
        """The way's table: each stage with its score, the baselines beside it, seconds, and where everything is."""
        self.say(protocol_line(metrics["protocol"]))
        table = Table(box=box.SIMPLE_HEAD)
        table.add_column("stage")
        for name in SHOWN:
            table.add_column(name, justify="right")
        for title, figures in stages(metrics).items():
            cells = [f"{figures[name]:.4f}" if figures.get(name) is not None else "-" for name in SHOWN]
            table.add_row(title, *cells)
        self._out.print(table)
        if metrics["recall"]:
            self._recall(metrics["recall"])
        for line in _off_policy(metrics.get("off_policy")):
            self.say(line)
        seconds = ", ".join(f"{name} {value:.0f} s" for name, value in metrics["seconds"].items())
        memory = metrics.get("peak_rss_mb")
        self.say(f"{seconds}{f'; peak memory {memory / 1000:.1f} GB' if memory else ''}")
        self.say(f"run: {run}")

    def _recall(self, figures: Mapping[str, Mapping[str, float]]) -> None:
        """What each channel found."""
        recall = Table(box=box.SIMPLE_HEAD)
        names = ("hit@5", "hit@50", "hit@100", "unique@50")
        for name in ("recall", *names):
            recall.add_column(name, justify="left" if name == "recall" else "right")
        for channel, found in figures.items():
            recall.add_row(channel, *(f"{found[name]:.4f}" if name in found else "-" for name in names))
        self._out.print(recall)

    def frame(self, frame: pl.DataFrame, title: str) -> None:
        """A small table."""
        table = Table(title=title, box=box.SIMPLE_HEAD)
        for name in frame.columns:
            table.add_column(name, overflow="fold")  # a name cut short names nothing
        for row in frame.iter_rows():
            table.add_row(
                *(
                    "-" if value is None else f"{value:,.3f}" if isinstance(value, float) else str(value)
                    for value in row
                )
            )
        self._out.print(table)

    def experiment(self, table: pl.DataFrame, protocol: Mapping[str, Any]) -> None:
        """The cells of an experiment: what they are in one table, and beside it what they gained, cost and say."""
        self.say(protocol_line(protocol))
        cell = [name for name in EXPERIMENT_CELLS if name in table.columns and table[name].null_count() < len(table)]
        for title, names in EXPERIMENT_TABLES.items():
            known = [name for name in names if name in table.columns and table[name].null_count() < len(table)]
            if known:
                self.frame(table.select(*cell, *known), title)

    def differences(self, found: Mapping[str, Difference]) -> None:
        """The paired comparison of two runs."""
        table = Table(box=box.SIMPLE_HEAD)
        for name in ("metric", "first", "second", "difference", "95 % interval", "clear"):
            table.add_column(name)
        for metric, d in found.items():
            table.add_row(
                metric,
                f"{d.first:.4f}",
                f"{d.second:.4f}",
                f"{d.difference:+.4f}",
                f"{d.low:+.4f} .. {d.high:+.4f}",
                "yes" if d.clear else "no",
            )
        self._out.print(table)

    def _log(self, line: str) -> None:
        sys.stderr.write(f"{time.perf_counter() - self._start:7.1f} s  {line}\n")


def stages(metrics: Mapping[str, Any]) -> dict[str, Mapping[str, float]]:
    """Rows of the way's table: baselines first, then each model stage."""
    baselines = {f"baseline {name}": figures for name, figures in metrics["baselines"].items()}
    models = {name: metrics[name] for name in ("rank", "rerank_alone", "rerank") if name in metrics}
    return baselines | models


def _off_policy(found: Mapping[str, Any] | None) -> list[str]:
    """One line per estimator: the value with its interval, and how many decisions it rests on."""
    if found is None:
        return []
    estimates = {name: each for name, each in found.items() if isinstance(each, Mapping)}
    return [f"off-policy: {found['policy']}; as logged {found['logged']:.4f}"] + [
        f"  {name:<6}{e['value']:.4f} ({e['low']:.4f} to {e['high']:.4f}), {e['effective']:,.0f} effective decisions "
        f"of {e['decisions']:,}"
        for name, e in estimates.items()
    ]


def _count(count: int, total: int) -> str:
    return f"{count:,} of {total:,}" if total else f"{count:,}"
