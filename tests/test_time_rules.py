"""Only one module of features and recall looks along time."""

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TIME_RULES = "windows.py"
MODULES = sorted(p for folder in ("features", "newsrec/recall") for p in (ROOT / folder).rglob("*.py"))


def time_operations(source: str, names: dict[str, object]) -> list[str]:
    """Calls that look along time, and `.over` of anything but the request."""
    found = []
    for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        if name in {"join_asof", "shift", "group_by_dynamic", "upsample"} or name.startswith(
            ("rolling", "cum_", "ewm_")
        ):
            found.append(f"{call.lineno}: {name}")
        elif name == "over":
            keys = [names.get(a.id) if isinstance(a, ast.Name) else getattr(a, "value", None) for a in call.args]
            if keys != ["request_id"] or call.keywords:
                found.append(f"{call.lineno}: over {keys}")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_one_module_looks_along_time(path: Path) -> None:
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
    if path.name != TIME_RULES:
        assert not time_operations(path.read_text(encoding="utf-8"), vars(module))


@pytest.mark.parametrize(
    "call",
    [
        "a.join_asof(b)",
        "pl.col('a').shift(1)",
        "pl.col('a').rolling_sum_by('t', '1h')",
        "a.rolling('t')",
        "pl.cum_sum('a')",
        "pl.col('a').over('user_id')",
        "pl.col('a').over(USER)",
        "pl.col('a').over('request_id', 'item_id')",
        "pl.col('a').over('request_id', order_by='t')",
    ],
)
def test_call_that_looks_along_time_would_be_found(call: str) -> None:
    assert len(time_operations(call, {"USER": "user_id"})) == 1


def test_over_the_request_is_allowed() -> None:
    assert not time_operations("pl.col('a').sum().over('request_id'); b.over(R)", {"R": "request_id"})
