"""A training run that starts from an earlier bundle: on its data, and where only a network is new, with its ranker.

`train --run DIR` takes data, format and seed. With `--reranker` it takes everything that shapes the ranker too, so that
the new bundle ranks as the old one did and differs by its network alone.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from newsrec.bundle import read_manifest
from newsrec.candidates import MergeConfig, SamplingConfig
from newsrec.data import Log
from newsrec.data.log import read_as
from newsrec.errors import BundleError, UsageError
from newsrec.own import own_of_bundle
from newsrec.rankers import RANKERS, Fitting
from newsrec.recall import RecallSettings
from newsrec.split import SplitConfig
from newsrec.train import read
from newsrec.train_config import DEFAULTS, KeptRanker, TrainConfig


def config_of_run(run: Path, config: TrainConfig) -> tuple[TrainConfig, Log]:
    """The same configuration on the data, format and seed of an earlier bundle, and that data.

    The data is read as it was then: its columns, ids and limit of bad rows, where `config.read` has the default. With a
    reranker the bundle's ranker is kept, and with it split, recall, sampling and features.

    Raises:
        BundleError: The bundle is damaged, or the data or the file of own features is no longer the same.
        UsageError: A setting of the ranker beside a reranker, which would contradict the bundle's.
    """
    manifest = read_manifest(run)
    data = manifest["data"]
    path = config.data or (None if data["path"] is None else Path(data["path"]))
    options = read_as(config.read, data.get("read", {}))
    taken = replace(config, data=path, format=data["format"], seed=manifest["seed"], read=options)
    if taken.reranker is not None:
        taken = _with_ranker_of(run, manifest, taken)
    log = read(taken)
    if log.fingerprint != data["fingerprint"]:
        raise BundleError(
            f"--run {run}: expected the data that this bundle was trained on (fingerprint {data['fingerprint'][:12]}), "
            f"found another (fingerprint {log.fingerprint[:12]}). Train without --run."
        )
    return taken, log


def _with_ranker_of(run: Path, manifest: Mapping[str, Any], config: TrainConfig) -> TrainConfig:
    own_of_bundle(manifest, config.features)
    recall = manifest["recall"]
    kept: dict[str, Any] = {
        "ranker": manifest["ranker"],
        "candidates": manifest["candidates"],
        "recall": tuple(recall["channels"]),
        "recall_settings": RecallSettings(**recall["settings"]),
        "list_length": recall["list_length"],
        "merge": MergeConfig(**recall.get("merge", {})),
        "merge_by": "equal",
        "split": SplitConfig(**manifest["validation"]),
        "sampling": SamplingConfig(**manifest["sampling"]),
        "refit": manifest["refit"],
        "params": {},
        "without": (),
    }
    other = sorted(name for name in kept if getattr(config, name) not in (getattr(DEFAULTS, name), kept[name]))
    if other:
        raise UsageError(
            f"--run {run} with --reranker: expected the bundle's ranker and its settings, found others for {other}. "
            "Leave them out, or train a new ranker without --run."
        )
    ranker = RANKERS[manifest["ranker"]].load(run)
    ranker.fitting = _fitting(run)
    return replace(config, **kept, kept=KeptRanker(ranker, tuple(manifest["features"])))


def _fitting(run: Path) -> Fitting:
    """What the bundle's figures tell of how its ranker was fitted."""
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    told = metrics["curves"]
    return Fitting(
        told["metric"],
        tuple(told["train"]),
        tuple(told["valid"]),
        told["best_iteration"],
        tuple(metrics["importance"]),
    )
