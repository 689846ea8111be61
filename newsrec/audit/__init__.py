"""Does anything know the future? Every feature and recall channel is tried on the user's own log.

`python -m newsrec.audit` and the library function `audit` do the same: poison the future (`poison`), ask what
attributes know of it (`knowledge`), and fit with and without what is suspicious (`quality`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from newsrec.audit.knowledge import (
    AUC_LIMIT,
    CORRELATION_LIMIT,
    future_correlations,
    shuffled_aucs,
    single_aucs,
    static_features,
)
from newsrec.audit.material import Material
from newsrec.audit.poison import poisoned
from newsrec.audit.quality import quality
from newsrec.bundle import write_json
from newsrec.data import Log, ReadOptions
from newsrec.errors import UsageError
from newsrec.own import read_own
from newsrec.progress import Clock, Progress, Silent

__all__ = ["AuditConfig", "AuditResult", "audit"]


@dataclass(frozen=True)
class AuditConfig:
    """What to audit."""

    data: Path | None = None
    """The log; None is the embedded simulated log."""
    format: str = "auto"
    features: Path | None = None
    """Python file with own features, see `newsrec.own`; it is executed."""
    requests: int = 200
    """Requests that are tried, >= 10."""
    seed: int = 0
    json: Path | None = None
    """File for the findings."""
    read: ReadOptions = ReadOptions()


@dataclass(frozen=True)
class AuditResult:
    """What was found."""

    verdicts: pl.DataFrame
    """`name, family, poison` (`ok`, `LEAK` or null), `reached_by`, `auc`, `future_correlation`, `canary`, `verdict`
    (`ok`, `LEAK` or `SUSPICIOUS`): features in the model's order, channels, columns of articles; the bad ones first."""
    quality: dict[str, dict[str, float]]
    """`with` and `without` what is bad -> `auc`, `mrr@5` of a quick fit."""
    seconds: dict[str, float]

    @property
    def bad(self) -> list[str]:
        """Names of all that does not pass."""
        return self.verdicts.filter(pl.col("verdict") != "ok")["name"].to_list()

    def table(self) -> pl.DataFrame:
        """The verdicts in few and short columns."""
        return self.verdicts.drop("reached_by").rename({"future_correlation": "future"})

    def lines(self) -> list[str]:
        """The findings in words."""
        found = [f"quick fit with all: {_figures(self.quality['with'])}"]
        if "without" in self.quality:
            found.append(f"quick fit without {', '.join(self.bad)}: {_figures(self.quality['without'])}")
        verdict = f"{len(self.bad)} of {len(self.verdicts)} know the future: {', '.join(self.bad)}"
        return [*found, verdict if self.bad else f"none of {len(self.verdicts)} knows the future", self._took]

    @property
    def _took(self) -> str:
        return ", ".join(f"{name} {value:.0f} s" for name, value in self.seconds.items())


def audit(
    config: AuditConfig = AuditConfig(), progress: Progress | None = None, *, log: Log | None = None
) -> AuditResult:
    """Try every feature and channel on a log.

    Args:
        config: Log, own features, size.
        progress: Told of stages; None is silent.
        log: A log that is already in memory; None reads `config.data`.

    Raises:
        NewsrecError: Bad data, a log too short to be divided, an own feature that is refused, or no place for the
            findings.
    """
    from newsrec.train import read
    from newsrec.train_config import TrainConfig

    tell, clock = progress or Silent(), Clock()
    _check(config)
    own = read_own(config.features)
    with clock.time("total"):
        log = read(TrainConfig(data=config.data, format=config.format, read=config.read)) if log is None else log
        own.refuse_unfit(log)
        material = Material(log, own, config.seed, config.requests)
        with tell.stage("audit", 4) as step:
            with clock.time("poison"):
                reached = poisoned(material)
            step(1)
            with clock.time("knowledge"):
                correlations = future_correlations(material)
                true = single_aucs(material.sample.described, material.sample.candidates)
            step(1)
            with clock.time("canary"):
                shuffled = shuffled_aucs(material)
            step(1)
            verdicts = _verdicts(material, reached, correlations, true, shuffled)
            with clock.time("quality"):
                figures = quality(material, verdicts.filter(pl.col("verdict") != "ok")["name"].to_list())
            step(1)
    result = AuditResult(verdicts, figures, {name: round(value, 2) for name, value in sorted(clock.seconds.items())})
    if config.json is not None:
        write_json(config.json, as_dict(result))
    return result


def _figures(figures: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in figures.items())


def as_dict(result: AuditResult) -> dict[str, Any]:
    """The findings for a file."""
    limits = {"future_correlation": CORRELATION_LIMIT, "auc": AUC_LIMIT}
    return {
        "bad": result.bad,
        "verdicts": result.verdicts.to_dicts(),
        "quality": result.quality,
        "limits": limits,
        "seconds": result.seconds,
    }


def _check(config: AuditConfig) -> None:
    if config.requests < 10:
        raise UsageError(f"--requests: expected at least 10, found {config.requests}.")
    if config.json is not None and (config.json.is_dir() or not config.json.parent.is_dir()):
        raise UsageError(f"--json: expected a file in a folder that exists, found '{config.json}'. Name another.")


def _verdicts(
    material: Material,
    reached: dict[str, list[str]],
    correlations: dict[str, float],
    true: dict[str, float],
    shuffled: dict[str, float],
) -> pl.DataFrame:
    static = {f.name for f in static_features(material.features)}
    families = {f.name: f.family for f in material.features}
    families |= {name: "channel" for name in reached if name not in families}
    families |= {name: "column" for name in correlations if name not in families}
    rows = []
    for name, family in families.items():
        kinds, auc, correlation = reached.get(name), true.get(name), correlations.get(name)
        suspicious = abs(correlation or 0.0) >= CORRELATION_LIMIT
        suspicious |= name in static and auc is not None and max(auc, 1 - auc) >= AUC_LIMIT
        rows.append(
            {
                "name": name,
                "family": family,
                "poison": None if kinds is None else "LEAK" if kinds else "ok",
                "reached_by": ", ".join(kinds or []) or None,
                "auc": auc,
                "future_correlation": correlation,
                "canary": shuffled.get(name),
                "verdict": "LEAK" if kinds else "SUSPICIOUS" if suspicious else "ok",
            }
        )
    kinds_of = {"reached_by": pl.String, "poison": pl.String, "future_correlation": pl.Float64, "canary": pl.Float64}
    frame = pl.DataFrame(rows, schema_overrides={**kinds_of, "auc": pl.Float64}, infer_schema_length=None)
    return frame.sort(pl.col("verdict") == "ok", maintain_order=True)
