"""The page: a Jinja2 template over what `newsrec.report.view` prepared. Called by training and the `report` verb."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from newsrec.errors import BundleError
from newsrec.report import view


def render_report(metrics: Mapping[str, Any]) -> str:
    """Make the page of one run.

    Args:
        metrics: What `metrics.json` holds. A section whose keys are absent or empty is left out; every text is escaped.

    Returns:
        A whole HTML document in UTF-8 that refers to nothing outside itself.
    """
    environment = Environment(
        loader=PackageLoader("newsrec.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = view.figure
    return environment.get_template("template.html").render(view.sections(metrics))


def write_report(run_dir: str | os.PathLike[str], out: str | os.PathLike[str] | None = None) -> Path:
    """Write the page of a run folder and say where it is.

    A bundle is never changed in place: a `report.html` that is already there is kept and its path returned. To render
    it anew, say where with `out`.

    Args:
        run_dir: Folder with `metrics.json`.
        out: File to write (and replace); by default `report.html` in the folder.

    Raises:
        BundleError: If the folder has no readable `metrics.json`.
    """
    target = Path(run_dir) / "report.html" if out is None else Path(out)
    if out is None and target.exists():
        return target
    page = render_report(_metrics(Path(run_dir) / "metrics.json"))
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    unfinished.write_text(page, encoding="utf-8")
    unfinished.replace(target)
    return target


def _metrics(path: Path) -> dict[str, Any]:
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BundleError(
            f"report: expected a run's metrics.json, cannot read {path} ({error.strerror}). "
            "Pass the folder that `newsrec.train` wrote."
        ) from None
    except ValueError as error:
        raise BundleError(f"report: {path} is no JSON ({error}). Train the run again.") from None
    if not isinstance(metrics, dict):
        raise BundleError(f"report: expected an object in {path}, found {type(metrics).__name__}. Train the run again.")
    return metrics
