"""What twice the training requests cost: three sizes, each in a process of its own."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

TREES = 100


def run(data: Path | None) -> Iterator[str]:
    """Seconds and peak memory of a training without refit for n, 2n and 4n requests, with the same number of trees."""
    smallest = 15_000 if data is None else 40_000
    with tempfile.TemporaryDirectory() as folder:
        params = Path(folder) / "params.json"
        params.write_text(json.dumps({"trees": TREES, "patience": TREES}))
        previous = None
        for requests in (smallest, 2 * smallest, 4 * smallest):
            metrics = _train(data, requests, Path(folder) / f"run-{requests}", params)
            total = metrics["seconds"]["total"]
            ratio = f", {total / previous:.2f} times the half" if previous else ""
            previous = total
            asked = metrics["protocol"]["train_requests"]
            yield f"{asked:,} training requests: {total:.1f} s{ratio}; peak memory {metrics['peak_rss_mb']:,.0f} MB"


def _train(data: Path | None, requests: int, out: Path, params: Path) -> dict:
    command = [sys.executable, "-m", "newsrec.train", "--no-refit", "--out", str(out), "--params", str(params)]
    command += ["--train-requests", str(requests), "--test-requests", "5000"]
    command += [] if data is None else ["--data", str(data)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads((out / "metrics.json").read_text())
