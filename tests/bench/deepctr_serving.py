"""One request after the other through DIN of DeepCTR-Torch: `python deepctr_serving.py SIZES_AS_JSON`.

Run by the Python of an environment with deepctr-torch; prints latency on one core and requests per second.
"""

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import numpy as np
import torch

sys.modules.setdefault("requests", ModuleType("requests"))  # it would ask the network for its own latest version
from deepctr_torch.inputs import DenseFeat, SparseFeat, VarLenSparseFeat  # noqa: E402
from deepctr_torch.models.din import DIN  # noqa: E402

SECONDS = 5.0
FIELDS = ("item_id", "category")


def main(sizes: dict) -> None:
    """Make the model, then ask it."""
    torch.set_num_threads(1)
    columns: list[object] = [DenseFeat("dense", sizes["dense"])]
    for name, codes, width in zip(FIELDS, sizes["codes"], sizes["widths"], strict=True):
        of_field = {"vocabulary_size": codes, "embedding_dim": width, "embedding_name": name}
        columns.append(SparseFeat(name, **of_field))
        columns.append(
            VarLenSparseFeat(SparseFeat(f"hist_{name}", **of_field), maxlen=sizes["history"], length_name="length")
        )
    hidden, attention = tuple(sizes["hidden"]), tuple(sizes["attention"])
    model = DIN(columns, list(FIELDS), dnn_hidden_units=hidden, att_hidden_size=attention, device="cpu")
    model.eval()
    asked = [torch.from_numpy(request(model, sizes, seed)) for seed in range(50)]

    def call(i: int) -> None:
        with torch.no_grad():
            model(asked[i % len(asked)])

    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(everywhere)})
    spent = []
    for i in range(sizes["requests"] // 10 + sizes["requests"]):
        began = time.perf_counter()
        call(i)
        spent.append(1000 * (time.perf_counter() - began))
    median, p99 = np.quantile(spent[sizes["requests"] // 10 :], [0.5, 0.99])
    os.sched_setaffinity(0, everywhere)
    end = time.perf_counter() + SECONDS

    def work(_: int) -> int:
        done = 0
        while time.perf_counter() < end:
            call(done)
            done += 1
        return done

    with ThreadPoolExecutor(sizes["cores"]) as pool:
        rate = sum(pool.map(work, range(sizes["cores"]))) / SECONDS
    told = f"p50 {median:.2f} ms, p99 {p99:.2f} ms; {rate:,.0f} requests/s on {sizes['cores']} cores"
    sys.stdout.write("\n" + told + "\n")


def request(model: DIN, sizes: dict, seed: int) -> np.ndarray:
    """One row per candidate, each with the whole history, in the order that the model wants."""
    rng, rows = np.random.default_rng(seed), sizes["candidates"]
    made = {"dense": rng.normal(size=(rows, sizes["dense"])), "length": np.full((rows, 1), sizes["history"])}
    for name, codes in zip(FIELDS, sizes["codes"], strict=True):
        made[name] = rng.integers(1, codes, (rows, 1))
        made[f"hist_{name}"] = np.repeat(rng.integers(1, codes, (1, sizes["history"])), rows, axis=0)
    placed = sorted(model.feature_index.items(), key=lambda entry: entry[1][0])
    return np.concatenate([made[name] for name, _ in placed], axis=1).astype(np.float32)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
