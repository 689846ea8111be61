"""Networks from a Python file: what is refused in one line, and the way from training to serving."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from newsrec.bundle import read_manifest
from newsrec.data import Log
from newsrec.errors import UsageError
from newsrec.rerank import SIGNATURE_FILE
from newsrec.rerankers import make, refuse_unfit, source_of
from newsrec.rerankers.own import TRIAL, read_network
from newsrec.serve import Recommender
from newsrec.split import SplitConfig
from newsrec.train import train
from newsrec.train_config import TrainConfig
from tests.conftest import FEW_TREES

GOOD = '''"""A network of somebody's own."""
from dataclasses import dataclass
import torch
from torch import nn

@dataclass
class Sizes:
    units: int = 8

class Mine(nn.Module):
    def __init__(self, shape, sizes=Sizes()):
        super().__init__()
        self.items = nn.Embedding(shape.sizes[0], sizes.units)
        self.dense = nn.Linear(shape.dense, sizes.units)
        self.last = nn.Linear(sizes.units, 1)

    def forward(self, dense, target, history, numbers, mask):
        read = (self.items(history[..., 0]) * mask[..., None]).sum(dim=1, keepdim=True)
        seen = self.items(target[..., 0]) * read / mask.sum(dim=1).clamp_min(1.0)[:, None, None]
        return self.last(torch.tanh(self.dense(dense) + seen)).squeeze(-1)

def network(shape):
    return Mine(shape)
'''


def written(tmp_path: Path, text: str = GOOD) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_is_taken_by_its_network_or_by_a_name(tmp_path: Path) -> None:
    path = written(tmp_path)
    refuse_unfit(str(path))
    for named in (str(path), f"{path}:Mine"):
        assert isinstance(make(named, TRIAL), nn.Module)
    assert make(f"{path}:Mine", TRIAL, {"sizes": SimpleNamespace(units=3)}).last.in_features == 3
    name, sha256 = source_of(f"{path}:Mine")
    assert (name, len(sha256)) == ("mine.py:Mine", 64)
    assert source_of(str(path)) == ("mine.py:network", sha256)
    assert source_of("din") == ("din", "")


def test_trying_it_out_leaves_its_weights_and_chance_as_they_were(tmp_path: Path) -> None:
    own = read_network(str(written(tmp_path)), {})
    torch.manual_seed(0)
    tried = own.make(TRIAL)
    after = torch.rand(1)
    torch.manual_seed(0)
    plain = own.factory(TRIAL)
    for name, weight in plain.state_dict().items():
        assert torch.equal(tried.state_dict()[name], weight)
    assert torch.rand(1) == after


FORWARD = "        return self.last(torch.tanh(self.dense(dense) + seen)).squeeze(-1)"
FAULTS = {
    "expected a Python file, found .*SyntaxError": "def network(:",
    "expected a Python file, found .*ModuleNotFoundError": "import nothing_of_the_kind",
    r"expected a function or class 'network' in .*found \['other'\]. Add :NAME": "def other(shape):\n    return 1",
    "expected a torch.nn.Module, found int": "def network(shape):\n    return 1",
    "expected a network for Shape.*found KeyError": "def network(shape):\n    return {}['a']",
    "expected weights to train, found none": "from torch import nn\n\ndef network(shape):\n    return nn.ReLU()",
    "expected logits for dense, target.*found TypeError": GOOD.replace("numbers, mask):", "mask):"),
    r"expected logits of shape \(requests, candidates\) = \(3, 4\), found \(3, 4, 1\)": GOOD.replace(
        ".squeeze(-1)", ""
    ),
    "expected finite logits, also for empty histories": GOOD.replace(".clamp_min(1.0)", ""),
    "expected a candidate's logit that depends on no other candidate, found a difference of": GOOD.replace(
        FORWARD, FORWARD.replace(".squeeze(-1)", ".squeeze(-1).softmax(dim=1)")
    ),
    "expected a request's logits that depend on no other request": GOOD.replace(
        FORWARD, "        dense = dense - dense.mean(dim=0)\n" + FORWARD
    ),
    "expected logits that padding of the history does not change": GOOD.replace(" * mask[..., None]", ""),
    "expected what torch can export to ONNX, found": GOOD.replace(
        FORWARD, "        if dense.sum().item() > 1e9:\n            return dense[..., 0]\n" + FORWARD
    ),
}


@pytest.mark.parametrize(("told", "text"), FAULTS.items(), ids=range(len(FAULTS)))
def test_what_breaks_a_promise_is_refused_before_the_work(told: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"^--reranker: .*{told}") as refused:
        refuse_unfit(str(written(tmp_path, text)))
    assert "\n" not in str(refused.value)


def test_absent_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"expected a Python file, found .*FileNotFoundError"):
        train(TrainConfig(out=tmp_path / "run", reranker=str(tmp_path / "none.py:Net")))
    assert not list(tmp_path.iterdir())


def killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_it_is_trained_goes_on_after_a_kill_and_is_served_like_ours(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path)
    split = SplitConfig(train_requests=800, valid_requests=500, test_requests=500)
    config = TrainConfig(out=tmp_path / "run", params=FEW_TREES, refit=False, split=split, reranker=f"{path}:Mine")
    with monkeypatch.context() as patched:
        patched.setattr("newsrec.rerankers.stage.export_network", killed)
        with pytest.raises(KeyboardInterrupt):
            train(config, log=log)
    assert sorted(each.name for each in tmp_path.iterdir()) == [".run.reranker.npz", "mine.py"]
    monkeypatch.setattr("newsrec.neural.trainer._epoch", killed)  # none is left to be made
    run = train(config, log=log).run
    assert sorted(each.name for each in tmp_path.iterdir()) == ["mine.py", "run"]
    told = read_manifest(run)["reranker"]
    assert (told["name"], told["sha256"]) == source_of(f"{path}:Mine")
    assert json.loads((run / SIGNATURE_FILE).read_text("utf-8"))["network"] == "mine.py:Mine"
    assert str(tmp_path) not in (run / "manifest.json").read_text("utf-8")
    path.unlink()  # serving needs the graph alone
    assert len(Recommender.load(run, reranker=True).recommend(log.clicks["user_id"][0], k=5)) == 5
