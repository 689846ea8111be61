"""Services that embed a bundle's models without newsrec: they reproduce the worked examples and answer as we do."""

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from newsrec.errors import BundleError
from newsrec.neural.ranker_onnx import RANKER_MODEL, RANKER_SIGNATURE
from newsrec.neural.signature import ATOL, RTOL
from newsrec.rerank import MODEL_FILE, SIGNATURE_FILE
from newsrec.rerankers.int8 import INT8_MODEL, INT8_SIGNATURE
from newsrec.serve import Recommender
from newsrec.sessions import open_session
from newsrec.train import TrainResult

HERE = Path(__file__).parent
NODE = HERE / "node"
ALONE = ("numpy", "numpy.libs", "onnxruntime")
Ask = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def models(reranked: TrainResult, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What another service gets: three models, each with its signature."""
    folder = tmp_path_factory.mktemp("models")
    for name in (MODEL_FILE, SIGNATURE_FILE, RANKER_MODEL, RANKER_SIGNATURE, INT8_MODEL, INT8_SIGNATURE):
        shutil.copy(reranked.run / name, folder)
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages with numpy and onnxruntime, and nothing else."""
    folder = tmp_path_factory.mktemp("packages")
    for name in ALONE[::2]:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.submodule_search_locations is not None
        package = Path(next(iter(spec.submodule_search_locations)))
        for part in ALONE:
            if (package.parent / part).is_dir() and not (folder / part).exists():
                (folder / part).symlink_to(package.parent / part)
    return folder


def python(
    alone: Path, models: Path, lines: str = "", service: Path = HERE / "service.py"
) -> subprocess.CompletedProcess[str]:
    """Python without site packages, the environment and our folder."""
    code = (
        f"import runpy, sys; sys.path.append({str(alone)!r}); sys.argv = ['service.py', {str(models)!r}];"
        f"runpy.run_path({str(service)!r}, run_name='__main__')"
    )
    return run([sys.executable, "-I", "-S", "-c", code], lines)


def node(package: str, models: Path, lines: str = "") -> subprocess.CompletedProcess[str]:
    """Node.js with one of the two packages."""
    if shutil.which("node") is None:
        pytest.skip("Node.js is not installed")
    if not (NODE / "node_modules" / package).is_dir():
        pytest.skip(f"{package} is not installed: npm install --ignore-scripts {package} in tests/consumers/node")
    return run(["node", str(NODE / "service.mjs"), str(models)], lines, ORT_PACKAGE=package)


def run(command: list[str], lines: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {"PATH": "/usr/local/bin:/usr/bin:/bin", **environment}
    return subprocess.run(
        command, input=lines, capture_output=True, text=True, timeout=60, check=False, env=variables, cwd=HERE
    )


CONSUMERS = ("python", "onnxruntime-node", "onnxruntime-web")


@pytest.fixture(params=CONSUMERS)
def ask(request: pytest.FixtureRequest, alone: Path) -> Callable[[Path, str], subprocess.CompletedProcess[str]]:
    if request.param == "python":
        return lambda models, lines="": python(alone, models, lines)
    return lambda models, lines="": node(request.param, models, lines)


def example(models: Path, signature: str) -> dict:
    return json.loads((models / signature).read_text(encoding="utf-8"))["example"]


def test_all_worked_examples_are_reproduced(ask: Ask, models: Path) -> None:
    done = ask(models, "")
    assert done.returncode == 0, done.stderr
    told = [line.split(": example reproduced")[0] for line in done.stderr.splitlines() if "example reproduced" in line]
    assert told == [RANKER_MODEL, INT8_MODEL, MODEL_FILE]


def test_requests_are_answered_as_we_answer(ask: Ask, models: Path, reranked: TrainResult) -> None:
    served = Recommender.load(reranked.run, reranker=False)
    features = served.features(served.store.users[3], served.store.items[:7].to_list()).to_numpy()
    rows = [[None if np.isnan(value) else float(value) for value in row] for row in features]
    whole = example(models, SIGNATURE_FILE)["inputs"]
    # One request, one candidate, an article and clicks that nobody knows; then the same reader without any click.
    one = {name: [values[0] if "history" in name else values[0][:1]] for name, values in whole.items()}
    strange = one | {"item_id": [[-5]], "history_item_id": [[2**40 for _ in whole["history_item_id"][0]]]}
    empty = one | {name: [[]] for name in whole if "history" in name}
    asked = [(RANKER_MODEL, {"features": rows}), *((MODEL_FILE, inputs) for inputs in (one, strange, empty))]
    done = ask(models, "".join(json.dumps({"model": name, "inputs": inputs}) + "\n" for name, inputs in asked))
    assert done.returncode == 0, done.stderr
    found = [json.loads(line)["scores"] for line in done.stdout.splitlines()]
    np.testing.assert_allclose(found[0], served.rank(served.store.users[3], served.store.items[:7].to_list()), RTOL)
    session = open_session((models / MODEL_FILE).read_bytes())
    kinds = {each.name: np.int64 if "int64" in each.type else np.float32 for each in session.get_inputs()}
    kinds |= {each.name: object for each in session.get_inputs() if "string" in each.type}
    for scores, inputs in zip(found[1:], (one, strange, empty), strict=True):
        wanted = session.run(None, {name: np.array(values, kinds[name]) for name, values in inputs.items()})[0]
        np.testing.assert_allclose(scores, wanted, RTOL, ATOL)
    assert found[1] != found[2]


def test_lists_without_candidates_have_no_scores(alone: Path, models: Path) -> None:
    """In Python only: onnxruntime 1.30, the latest for Node.js, refuses a matrix product over no candidates."""
    whole = example(models, SIGNATURE_FILE)["inputs"]
    none = {name: values if "history" in name else [[] for _ in values] for name, values in whole.items()}
    done = python(alone, models, json.dumps({"model": MODEL_FILE, "inputs": none}))
    assert json.loads(done.stdout)["scores"] == [[] for _ in whole["item_id"]]


def test_a_model_that_was_swapped_does_not_pass_its_example(ask: Ask, models: Path, tmp_path: Path) -> None:
    swapped = Path(shutil.copytree(models, tmp_path / "swapped"))
    told = json.loads((swapped / RANKER_SIGNATURE).read_text(encoding="utf-8"))
    told["example"]["scores"] = [score + 0.01 for score in told["example"]["scores"]]
    (swapped / RANKER_SIGNATURE).write_text(json.dumps(told), encoding="utf-8")
    done = ask(swapped, "")
    assert done.returncode != 0
    assert f"{RANKER_MODEL}: example reproduced" not in done.stderr


def test_the_python_service_has_nothing_but_numpy_and_onnxruntime(alone: Path, tmp_path: Path) -> None:
    assert {path.name for path in alone.iterdir()} <= set(ALONE)
    curious = tmp_path / "curious.py"
    for name in ("newsrec", "lightgbm", "polars", "torch", "onnx"):
        curious.write_text(f"import numpy, onnxruntime, {name}", encoding="utf-8")
        done = python(alone, tmp_path, service=curious)
        assert f"No module named '{name}'" in done.stderr


def test_a_bundle_with_a_swapped_network_is_refused(reranked: TrainResult, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(reranked.run, tmp_path / "damaged"))
    shutil.copy(damaged / RANKER_MODEL, damaged / MODEL_FILE)
    with pytest.raises(BundleError, match=r"'reranker.onnx' with \d+ bytes instead of \d+"):
        Recommender.load(damaged)
