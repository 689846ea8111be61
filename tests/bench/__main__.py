"""Benchmarks: `python -m tests.bench [name ...] [--data FOLDER]`. Ratios against a reference in the same run.

Without `--data` they run on the simulated log. Let nothing else run meanwhile.
"""

import argparse
from pathlib import Path

from tests.bench import (
    exported,
    features,
    folding,
    independent,
    itemcf,
    networks,
    neural_training,
    offpolicy,
    planted,
    recall,
    reranking,
    serving,
    training,
    tuning,
    two_tower,
)

BENCHMARKS = {
    "onnx": exported.run,
    "features": features.run,
    "folding": folding.run,
    "independent": independent.run,
    "itemcf": itemcf.run,
    "networks": networks.run,
    "neural_training": neural_training.run,
    "offpolicy": offpolicy.run,
    "planted": planted.run,
    "recall": recall.run,
    "reranking": reranking.run,
    "serving": serving.run,
    "training": training.run,
    "tuning": tuning.cost,
    "tuning-workers": tuning.workers,
    "two_tower": two_tower.run,
}


def main() -> None:
    """Run the named benchmarks, all by default, and print their lines."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument(
        "--data", type=Path, help="a log that newsrec reads, or for serving a bundle; the simulated log without it"
    )
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(BENCHMARKS))
    if unknown:
        parser.error(f"expected names of {sorted(BENCHMARKS)}, found {unknown}")
    for name in arguments.names or BENCHMARKS:
        for line in BENCHMARKS[name](arguments.data):
            print(f"{name}: {line}", flush=True)


if __name__ == "__main__":
    main()
