"""DIN of DeepCTR-Torch on arrays that `tests.bench.neural_training` wrote: `python deepctr_din.py ARRAYS.npz`.

Run by the Python of an environment with deepctr-torch; prints rows per second of training and the validation's
probabilities' file as JSON.
"""

import json
import sys
import time

import numpy as np
import torch
from deepctr_torch.inputs import SparseFeat, VarLenSparseFeat, get_feature_names
from deepctr_torch.models.din import DIN


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
    model = DIN(
        columns,
        fields,
        dnn_hidden_units=tuple(data["hidden"].tolist()),
        att_hidden_size=tuple(data["attention"].tolist()),
        att_activation="Dice",
        device="cpu",
    )
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


if __name__ == "__main__":
    main(sys.argv[1])
