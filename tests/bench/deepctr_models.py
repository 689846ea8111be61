"""A network of DeepCTR-Torch on arrays that `tests.bench.deepctr` wrote: `python deepctr_models.py ARRAYS.npz`.

Run by the Python of an environment with deepctr-torch; prints rows per second of training as JSON and leaves the
validation's probabilities beside the arrays.
"""

import json
import sys
import time

import numpy as np
import torch
from deepctr_torch.inputs import SparseFeat, VarLenSparseFeat, get_feature_names
from deepctr_torch.models.basemodel import BaseModel
from deepctr_torch.models.dien import DIEN
from deepctr_torch.models.din import DIN
from deepctr_torch.models.wdl import WDL


def main(path: str) -> None:
    """Train, time, predict."""
    data = np.load(path)
    torch.set_num_threads(int(data["threads"]))
    columns: list[object] = []
    fields = [str(name) for name in data["fields"]]
    for name, size, width in zip(fields, data["sizes"], data["widths"], strict=True):
        of_field = {"vocabulary_size": int(size), "embedding_dim": int(width), "embedding_name": name}
        columns.append(SparseFeat(name, **of_field))
        columns.append(
            VarLenSparseFeat(SparseFeat(f"hist_{name}", **of_field), maxlen=int(data["history"]), length_name="length")
        )
    model = network(str(data["model"]), columns, fields, data)
    model.compile(torch.optim.Adam(model.parameters(), float(data["learning_rate"])), "binary_crossentropy")
    names = get_feature_names(columns)
    inputs = {part: {name: data[f"{part}_{name}"] for name in names} for part in ("train", "valid")}
    epochs, batch = int(data["epochs"]), int(data["batch"])
    began = time.perf_counter()
    model.fit(inputs["train"], data["train_label"], batch_size=batch, epochs=epochs, verbose=0)
    seconds = time.perf_counter() - began
    np.save(path + ".scores.npy", model.predict(inputs["valid"], 4096).ravel())
    rows = epochs * len(data["train_label"])
    sys.stdout.write("\n" + json.dumps({"rows_per_second": rows / seconds}) + "\n")


def network(name: str, columns: list, fields: list, data: dict) -> BaseModel:
    """DIN, DIEN without its further loss, or the mean of the history in a plain network (WDL without its wide part)."""
    hidden, attention = tuple(data["hidden"].tolist()), tuple(data["attention"].tolist())
    common = {"dnn_hidden_units": hidden, "seed": int(data["seed"]), "device": "cpu"}
    if name == "din":
        return DIN(columns, fields, att_hidden_size=attention, att_activation="Dice", **common)
    if name == "dien":
        return DIEN(columns, fields, gru_type="AUGRU", att_hidden_units=attention, **common)
    return WDL([], columns, **common)


if __name__ == "__main__":
    main(sys.argv[1])
