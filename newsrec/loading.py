"""What a bundle's folder holds, checked and read: the first half of serving, and all of it that touches files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl

from features.events import EventStore
from features.vocabulary import Vocabulary
from newsrec.bundle import read_manifest
from newsrec.calibration import CALIBRATION, Calibrator, load_calibrator
from newsrec.errors import BundleError, UsageError
from newsrec.own import OwnFeatures, own_of_bundle
from newsrec.rankers import RANKERS, Ranker
from newsrec.rerank import Reranker
from newsrec.state import read_state

NEEDED: Final = ("candidates", "features", "protocol", "ranker", "recall", "seed", "validation")
"""Facts of the manifest that serving and evaluation cannot do without."""


@dataclass(frozen=True)
class BundleParts:
    """A bundle in memory."""

    manifest: dict[str, Any]
    ranker: Ranker
    vocabulary: Vocabulary
    store: EventStore
    own: OwnFeatures
    reranker: Reranker | None
    """The network where it is to order the top."""
    calibrator: Calibrator | None
    """Of the order that is served; None where the bundle has none."""


def load_parts(folder: Path, features: str | Path | None = None, reranker: bool | None = None) -> BundleParts:
    """Check and read a bundle; arguments and errors as in `newsrec.serve.Recommender.load`."""
    manifest = read_manifest(folder)
    _refuse_incomplete(manifest, folder)
    own = own_of_bundle(manifest, features)
    ranker = RANKERS[manifest["ranker"]].load(folder)
    vocabulary = Vocabulary(pl.read_parquet(folder / "vocabulary.parquet"))
    network = _reranker(manifest, folder, reranker)
    served = "rank" if network is None else "rerank"
    calibrator = load_calibrator(folder, served) if CALIBRATION in manifest["files"] else None
    return BundleParts(manifest, ranker, vocabulary, read_state(folder), own, network, calibrator)


def _reranker(manifest: dict[str, Any], folder: Path, wanted: bool | None) -> Reranker | None:
    """The network where it is to order the top, checked also where it is not."""
    facts = manifest.get("reranker")
    if facts is None:
        if wanted:
            raise UsageError("--reranker on: expected a bundle with a reranker, found none in this one. Leave it out.")
        return None
    reranker = Reranker.load(folder, facts)
    return reranker if (reranker.settings.on if wanted is None else wanted) else None


def _refuse_incomplete(manifest: dict[str, Any], folder: Path) -> None:
    missing = [name for name in NEEDED if name not in manifest]
    if missing:
        raise BundleError(f"{folder}: expected a manifest with {missing}, found none of these. Train again.")
    if manifest["ranker"] not in sorted(RANKERS):
        raise BundleError(
            f"{folder}: expected a ranker of {sorted(RANKERS)}, found {manifest['ranker']!r}. "
            "Train again, or use the newsrec that wrote it."
        )
