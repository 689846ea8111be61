"""What is in a log, before anything is trained on it: sizes, times, concentration, labels, and traces of its making."""

from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from features.columns import DAY, HOUR
from newsrec.artefacts import Artefact, Trace, artefacts, look_for_all
from newsrec.candidates import SamplingConfig
from newsrec.data.log import Log
from newsrec.errors import DataError
from newsrec.split import LOG_REQUESTS

__all__ = ["Artefact", "LabelCount", "Profile", "artefacts", "inspect_log"]

QUANTILES: Final = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
HEAD: Final = 1_000
"""Items whose share of all clicks is told."""
COLUMNS: Final = 150
"""Float32 features per row assumed for the estimate."""
COPIES: Final = 2
"""Feature frame and matrix at the same time."""
MIB: Final = 2**20


@dataclass(frozen=True)
class LabelCount:
    """Positives and negatives of one label at one stage."""

    label: str
    stage: str
    """`shown`: what impressions say. `candidates`: a click-only log, where recall and sampling decide the negatives."""
    positives: int
    negatives: int | None
    """None where the log cannot say."""


@dataclass(frozen=True)
class Profile:
    """The figures of one log. Quantiles are keyed by their level in percent, '50' being the median."""

    format: str
    fingerprint: str
    clicks: int
    users: int
    items: int
    articles: int
    """Rows of metadata, clicked or not."""
    impressions: int
    """Rows of what was shown; 0 for a click-only log."""
    held_out_users: int
    first_click: str
    last_click: str
    days: float
    clicks_per_user: dict[str, float]
    head_share: float
    """Share of clicks on the 1,000 items with the most clicks, in [0, 1]."""
    age_at_click_hours: dict[str, float]
    """Empty without creation times."""
    labels: tuple[LabelCount, ...]
    training_memory_mb: float
    """A rough estimate for training with the default sampling, or on all that was shown."""
    rows_read: int
    rows_quarantined: int
    duplicate_clicks: int
    notes: tuple[str, ...]
    artefacts: tuple[Artefact, ...]

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The same for a reader, one fact a line."""
        rows = [
            ("format", self.format),
            ("clicks", f"{self.clicks:,} of {self.users:,} users on {self.items:,} items"),
            ("span", f"{self.first_click} to {self.last_click} ({self.days:.1f} days)"),
            ("articles", f"{self.articles:,} with metadata"),
            ("impressions", f"{self.impressions:,} rows shown" if self.impressions else "none: a click-only log"),
            ("held-out users", f"{self.held_out_users:,}"),
            ("clicks per user", _spread(self.clicks_per_user)),
            ("concentration", f"{self.head_share:.1%} of clicks on the {HEAD:,} most clicked items"),
            ("age at click, h", _spread(self.age_at_click_hours) or "unknown: no creation times"),
            *((f"label '{count.label}'", _ratio(count)) for count in self.labels),
            ("memory to train", f"about {self.training_memory_mb:,.0f} MiB with the default sampling"),
            (
                "rows",
                f"{self.rows_read:,} read, {self.rows_quarantined:,} bad, {self.duplicate_clicks:,} repeated clicks",
            ),
            *(("note", note) for note in self.notes),
            *((f"artefact {a.name}", f"{'FOUND' if a.found else 'no'}: {a.explanation}") for a in self.artefacts),
            ("fingerprint", self.fingerprint),
        ]
        width = max(len(name) for name, _ in rows)
        return [f"{name:<{width}}  {value}" for name, value in rows]


def inspect_log(log: Log) -> Profile:
    """Describe a log.

    Args:
        log: Any log; a few seconds for some million clicks.

    Returns:
        Its figures, artefacts among them.

    Raises:
        DataError: The log has no click, as slates without labels and without a history.
    """
    if not log.clicks.height:
        raise DataError(
            f"clicks: at least one expected to profile a log, none found beside {log.intake.rows_read} rows read; "
            "add the users' history, or slates with labels"
        )
    trace = Trace(log)
    time = trace.time
    per_item = log.clicks.group_by("item_id").len()["len"].sort(descending=True)
    first, last = log.clicks["clicked_at"].dt.strftime("%Y-%m-%d %H:%M:%S").gather([0, -1])
    return Profile(
        format=log.format,
        fingerprint=log.fingerprint,
        clicks=log.clicks.height,
        users=len(trace.clicks_of_user),
        items=len(per_item),
        articles=log.articles.height,
        impressions=0 if log.impressions is None else log.impressions.height,
        held_out_users=0 if log.held_out_users is None else log.held_out_users.height,
        first_click=f"{first} UTC",
        last_click=f"{last} UTC",
        days=float(time.max() - time.min()) / DAY,
        clicks_per_user=_quantiles(trace.clicks_of_user),
        head_share=float(per_item.head(HEAD).sum() / log.clicks.height),
        age_at_click_hours=_quantiles(trace.ages / HOUR),
        labels=_labels(log),
        training_memory_mb=_memory(log, len(trace.gaps)),
        rows_read=log.intake.rows_read,
        rows_quarantined=log.intake.rows_quarantined,
        duplicate_clicks=log.intake.duplicate_clicks,
        notes=log.intake.notes,
        artefacts=tuple(look_for_all(trace)),
    )


def _quantiles(values: npt.NDArray[np.float64] | npt.NDArray[np.int64]) -> dict[str, float]:
    if not len(values):
        return {}
    found = np.quantile(values, QUANTILES)
    return {f"{level * 100:g}": round(float(value), 3) for level, value in zip(QUANTILES, found, strict=True)}


def _labels(log: Log) -> tuple[LabelCount, ...]:
    """Every Boolean column of the impressions is a label; clicks alone know no negatives."""
    if log.impressions is None:
        return (LabelCount("clicked", "candidates", log.clicks.height, None),)
    shown = log.impressions
    names = [name for name, dtype in shown.schema.items() if dtype == pl.Boolean]
    positives = {name: int(shown[name].sum() or 0) for name in names}
    known = {name: shown.height - shown[name].null_count() for name in names}
    return tuple(LabelCount(name, "shown", positives[name], known[name] - positives[name]) for name in names)


def _memory(log: Log, requests: int) -> float:
    """MiB: the frames, and features of every candidate of every request."""
    sampling = SamplingConfig()
    recalled = min(requests, LOG_REQUESTS) * (1 + sampling.top + sampling.others)
    rows = recalled if log.impressions is None else log.impressions.height
    frames = (log.clicks, log.articles, log.impressions)
    held = sum(frame.estimated_size() for frame in frames if frame is not None)
    return round((held + rows * COLUMNS * 4 * COPIES) / MIB, 1)


def _spread(quantiles: dict[str, float]) -> str:
    return ", ".join(f"{value:g} ({level} %)" for level, value in quantiles.items())


def _ratio(count: LabelCount) -> str:
    if count.negatives is None:
        return f"{count.positives:,} positives; the log shows no negatives, candidates decide"
    share = f", 1 to {count.negatives / count.positives:.1f}" if count.positives else ""
    return f"{count.positives:,} positives, {count.negatives:,} negatives {count.stage}{share}"


if __name__ == "__main__":
    from newsrec.cli import run_verb

    run_verb("inspect")
