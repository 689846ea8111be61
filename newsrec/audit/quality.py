"""What suspicious features are worth: a quick fit with them and without, on the same requests."""

from collections.abc import Collection
from dataclasses import replace
from typing import Final

from newsrec.assembly import Assembly, score_lists, training_data
from newsrec.audit.material import Material
from newsrec.candidates import SamplingConfig
from newsrec.metrics import METRICS, per_request, summarise
from newsrec.rankers import RANKERS

QUICK_TREES: Final = {"trees": 30, "min_data_in_leaf": 50, "num_leaves": 15, "models": 1, "threads": 1}
"""One thread: so small a fit loses more than it gains by sharing."""
SHOWN: Final = ("auc", "mrr@5")


def quality(material: Material, without: Collection[str]) -> dict[str, dict[str, float]]:
    """Test AUC and MRR@5 of a small LightGBM fit, with all features and without the given ones.

    Args:
        material: The log; its quick split gives the requests.
        without: Suspicious features; with none there is one fit.

    Returns:
        `with` and, where something is left out, `without` -> `auc`, `mrr@5`.
    """
    whole = material.assembly
    found = {"with": _fit(material, whole)}
    kept = [f for f in whole.features if f.name not in set(without)]
    if len(kept) < len(whole.features):
        found["without"] = _fit(material, replace(whole, features=kept))
    return found


def _fit(material: Material, assembly: Assembly) -> dict[str, float]:
    split, sampling = material.split, SamplingConfig(seed=material.seed)
    rows = training_data(assembly, split.part("train"), split.positives, sampling)
    categorical = assembly.categorical
    ranker = RANKERS["lgbm"].of(QUICK_TREES).fit(rows, None, categorical=categorical, seed=material.seed)
    test = split.part("test")
    scored = score_lists(assembly, assembly.described(test, split.positives), ranker.score)
    figures = summarise(per_request(scored.rows.select("request_id", "item_id", "label", "score"), test, METRICS))
    return {name: round(figures[name], 4) for name in SHOWN}
