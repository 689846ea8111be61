"""Who may import whom: `features` <- `newsrec` <- `tuning`, stages in their order, serving with few packages only."""

import ast
import sys
import tomllib
from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from subprocess import CompletedProcess
from typing import Final

import pytest

from newsrec import api
from newsrec.train import TrainResult

ROOT = Path(__file__).parents[1]
OURS: Final = ("features", "newsrec", "tuning")

STAGES: Final = (
    "errors",
    "frames",
    "progress",
    "process",
    "sessions",
    "metrics",
    "calibration",
    "data",
    "simulate",
    "artefacts",
    "split",
    "slates",
    "tasks",
    "recall",
    "state",
    "candidates",
    "stories",
    "sampling",
    "exposure",
    "own_probe",
    "own",
    "inspect",
    "rankers",
    "ahead",
    "assembly",
    "evaluation",
    "tensors",
    "rerank",
    "neural",
    "rerankers",
    "report",
    "bundle",
    "params",
    "merging",
    "train_config",
    "train_output",
    "train",
    "earlier",
    "audit",
    "asked",
    "explain",
    "fallback",
    "history",
    "diversity",
    "live",
    "answers",
    "loading",
    "serve",
    "evaluate",
    "recommend",
    "drift",
    "update",
    "experiment",
    "api",
    "console",
    "cli",
)
"""Modules and folders of `newsrec`; each imports only those before it. Only the `__main__` of a verb calls the last."""

SERVING: Final = ("newsrec.serve", "newsrec.recommend")
SERVING_PACKAGES: Final = {"numpy", "polars", "scipy", "lightgbm", "onnxruntime", "usearch"}
"""scipy comes with lightgbm; usearch is loaded where a channel has an index."""
NEVER_SERVING: Final = ("torch", "usearch", "optuna", "matplotlib", "plotly", "typer", "rich", "jinja2")
NETWORKS: Final = {
    *(f"newsrec.neural.{name}" for name in ("balance", "checkpoint", "export", "losses", "model", "trainer")),
    *(f"newsrec.rerankers.{name}" for name in ("base", "layers", "own", "stage")),
    *(f"newsrec.rerankers.{name}" for name in ("din", "pooling", "lr", "wide_deep", "deepfm", "youtube_dnn")),
    *(
        f"newsrec.rerankers.{name}"
        for name in ("sequences", "transformer", "dien", "dsin", "sim", "experts", "mmoe", "ple")
    ),
}
"""Modules of training that import torch; `newsrec.rerankers` itself names networks without it."""
WITH_ONNX: Final = {
    *(f"newsrec.neural.{name}" for name in ("export", "ranker_onnx", "tower_onnx")),
    "newsrec.rerankers.int8",
}
"""Modules of training that import onnx; those of the ranker and of recall work without torch."""
ONLY_IN: Final = {
    "typer": {
        "newsrec.cli",
        *(f"newsrec.cli.{name}" for name in ("bundles", "experiments", "logs", "options", "training")),
    },
    "rich": {"newsrec.console"},
    "jinja2": {"newsrec.report.page"},
    "markupsafe": {"newsrec.report.charts", "newsrec.report.view"},
    "lightgbm": {"newsrec.rankers.lgbm"},
    "optuna": set(),
    "torch": NETWORKS,
    "onnx": WITH_ONNX,
    "onnxruntime": {"newsrec.sessions", "newsrec.rerankers.int8"},
    "scipy": {
        "newsrec.rerankers.blending",
        *(f"newsrec.recall.{name}" for name in ("dense", "item2vec", "itemcf", "neighbours", "swing", "towers")),
        *(f"newsrec.recall.{name}" for name in ("usercf", "windows")),
    },
    "usearch": {"newsrec.recall.vectors"},
    "plotly": set(),
    "matplotlib": set(),
    "sklearn": set(),
    "pyarrow": set(),
}
"""Modules of `features` and `newsrec` that may import a package; those not named here may stand anywhere."""
OPTIONAL: Final = {"usearch"}
"""What is imported where it is installed; an extra of its own declares it."""
PICKLES: Final = {"pickle", "cPickle", "_pickle", "joblib", "dill", "cloudpickle", "shelve", "marshal"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PATHS: Final = {module_name(path): path for package in OURS for path in sorted((ROOT / package).rglob("*.py"))}
TREES: Final = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in PATHS.items()}


def statements(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those behind `if __name__ == "__main__"` and `if TYPE_CHECKING`: those import nothing."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and any(word in ast.dump(node.test) for word in ("__main__", "TYPE_CHECKING")):
            continue
        yield node
        yield from statements(node)


def imports(name: str) -> set[str]:
    """Dotted names that a module imports anywhere, our submodules spelled out."""
    found = set()
    for node in statements(TREES[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import"
            parts = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = parts & set(PATHS)
            found |= modules if len(modules) == len(parts) else {str(node.module)} | modules
    return found


IMPORTS: Final = {name: imports(name) for name in PATHS}
GRAPH: Final = {
    name: {found for found in IMPORTS[name] if found in PATHS} for name in PATHS if not name.endswith("__main__")
}


def third_party(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - set(OURS)


def reached_from(name: str) -> set[str]:
    """The module and all of ours that it loads, at once or later, their packages included."""
    reached, waiting = set(), [name]
    while waiting:
        module = waiting.pop()
        if module not in reached:
            reached.add(module)
            parents = {module.rsplit(".", n)[0] for n in range(1, module.count(".") + 1)}
            waiting += [*GRAPH[module], *parents]
    return reached


def test_modules_were_found_and_read() -> None:
    """Else the tests below would look at nothing."""
    assert {"features.catalog", "newsrec.recall.itemcf", "newsrec.report", "tuning"} <= set(PATHS)
    assert {"features.catalog", "newsrec.candidates", "polars"} <= IMPORTS["newsrec.assembly"]
    assert "features.item" in IMPORTS["features.catalog"]
    assert "newsrec.train" in IMPORTS["newsrec.evaluate"]  # inside a function
    assert not {name for name in IMPORTS["newsrec.train"] if name.startswith("newsrec.cli")}


def test_every_name_that_is_imported_from_us_is_a_module() -> None:
    unknown = {n for found in IMPORTS.values() for n in found if n.split(".")[0] in OURS and n not in PATHS}
    assert not unknown


@pytest.mark.parametrize("name", [n for n in PATHS if n.split(".")[0] == "features"])
def test_features_import_nothing_of_ours(name: str) -> None:
    assert not {found for found in IMPORTS[name] if found.split(".")[0] in ("newsrec", "tuning")}


def test_nobody_imports_tuning() -> None:
    others = {name: found for name, found in IMPORTS.items() if not name.startswith("tuning")}
    assert not [name for name, found in others.items() if any(each.split(".")[0] == "tuning" for each in found)]


def test_every_module_has_its_stage() -> None:
    assert {name.split(".")[1] for name in PATHS if name.startswith("newsrec.")} == set(STAGES)


@pytest.mark.parametrize("name", [n for n in GRAPH if n.startswith("newsrec.")])
def test_modules_import_earlier_stages_only(name: str) -> None:
    own = STAGES.index(name.split(".")[1])
    found = {each.split(".")[1] for each in GRAPH[name] if each.startswith("newsrec.")}
    assert not {stage for stage in found if STAGES.index(stage) > own}


def test_no_cycles() -> None:
    order = list(TopologicalSorter(GRAPH).static_order())
    assert len(order) == len(GRAPH)
    with pytest.raises(CycleError):
        list(TopologicalSorter(GRAPH | {"newsrec.errors": {"newsrec.cli"}}).static_order())


@pytest.mark.parametrize("name", PATHS)
def test_nothing_is_pickled_and_nothing_printed(name: str) -> None:
    assert not {found.split(".")[0] for found in IMPORTS[name]} & PICKLES
    calls = [node for node in ast.walk(TREES[name]) if isinstance(node, ast.Call)]
    assert not [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]
    given = {(k.arg, getattr(k.value, "value", None)) for call in calls for k in call.keywords}
    assert not [value for arg, value in given if arg == "allow_pickle" and value is not False]


@pytest.mark.parametrize("name", SERVING)
def test_serving_reaches_few_packages_only(name: str) -> None:
    reached = reached_from(name)
    assert {"newsrec.assembly", "features.build", "newsrec.rankers.lgbm", "newsrec.bundle"} <= reached
    assert third_party(set().union(*(IMPORTS[module] for module in reached))) <= SERVING_PACKAGES


@pytest.mark.parametrize("package", ONLY_IN)
def test_packages_have_their_place(package: str) -> None:
    users = {name for name in PATHS if package in third_party(IMPORTS[name]) and not name.startswith("tuning")}
    assert users == ONLY_IN[package]


def test_what_is_imported_is_declared() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    names = {line.split(">")[0] for line in declared}
    imported = set().union(*(IMPORTS[n] for n in PATHS if not n.startswith("tuning") and n not in NETWORKS | WITH_ONNX))
    assert third_party(imported) <= names | OPTIONAL


def test_what_networks_import_is_declared_as_the_neural_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = [*project["dependencies"], *project["optional-dependencies"]["neural"]]
    assert third_party(set().union(*(IMPORTS[n] for n in NETWORKS | WITH_ONNX))) <= {
        line.split(">")[0] for line in declared
    }


def test_what_tuning_imports_is_declared_as_its_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = [*project["dependencies"], *project["optional-dependencies"]["tuning"]]
    networks = "tuning.reranking"  # imported for --reranker only, which asks for the extra neural
    assert third_party(IMPORTS[networks]) - {"numpy", "polars"} == {"torch"}
    imported = third_party(set().union(*(IMPORTS[n] for n in PATHS if n.startswith("tuning") and n != networks)))
    assert {"optuna", "plotly"} <= imported <= {line.split(">")[0] for line in declared}


def test_recommending_loads_nothing_heavy(trained: TrainResult, python: Callable[..., CompletedProcess[str]]) -> None:
    code = (
        "import sys; from newsrec.serve import Recommender;"
        f"found = Recommender.load({str(trained.run)!r}).recommend(1, k=3);"
        f"print(len(found), sorted(set({NEVER_SERVING!r}) & set(sys.modules)))"
    )
    done = python("-W", "error", "-c", code)
    assert (done.returncode, done.stdout) == (0, "3 []\n"), done.stderr


def test_public_api_is_typed_and_named() -> None:
    for package in OURS:
        assert (ROOT / package / "py.typed").is_file()
    assert sorted(api.__all__) == sorted(name for name in vars(api) if not name.startswith("_"))
