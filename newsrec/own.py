"""Features that somebody adds in a Python file of their own: read, checked, and joined to the catalogue for one run.

Each public function of the file takes nothing and returns a `pl.Expr` over facts (`features.catalog.FACTS`) and own
columns (`article_<column>`, `request_<column>`); its name is the feature's name and its docstring says what it means.
The file is the user's: it is executed. A bundle keeps only its name and hash, so nothing in a bundle ever is.
"""

import ast
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from inspect import Parameter, isfunction, signature
from pathlib import Path
from typing import Any, Final

import polars as pl

from features import build
from features.catalog import Feature, features_for, parts_of
from features.own_columns import RESERVED, is_own, source_of
from newsrec.data.log import Log
from newsrec.errors import BundleError, UsageError
from newsrec.own_probe import fault_of_values
from newsrec.recall import CHANNELS

FAMILY: Final = "own"
ALONG_TIME: Final = (
    "cum",
    "rolling",
    "shift",
    "diff",
    "pctchange",
    "ewm",
    "interpolate",
    "backwardfill",
    "forwardfill",
)
"""How operations that look at other rows by their place begin, in an expression's serialised form."""
OUTSIDE: Final = ("anonymous", "python", "udf", "selector", "random", "eval")
"""What cannot be checked, or depends on more than the values: Python code, columns by pattern, chance."""


@dataclass(frozen=True)
class OwnFeatures:
    """What a file of own features gave."""

    path: Path | None = None
    sha256: str = ""
    features: tuple[Feature, ...] = ()

    @property
    def facts(self) -> dict[str, Any] | None:
        """What a bundle's manifest keeps; None without a file."""
        if self.path is None:
            return None
        return {"file": self.path.name, "sha256": self.sha256, "names": [f.name for f in self.features]}

    def refuse_unfit(self, log: Log) -> None:
        """Find out before the work whether the log can have these features, and whether their values are sound.

        Raises:
            UsageError: Parts that the log lacks, a column of the impressions that differs inside a list, values that
                are no numbers, or values that depend on other requests or on the order of rows.
        """
        has = parts_of(log.clicks, log.articles, log.impressions)
        for feature in self.features:
            missing = sorted(feature.requires - has)
            if missing:
                raise _refused(self.path, feature.name, f"expected a log with what it reads, found none of {missing}")
            columns = {name: _values_of(name, log) for name in feature.roots if is_own(name)}
            torn = [name for name in sorted(columns) if _is_torn(name, log)]
            if torn:
                raise _refused(self.path, feature.name, f"expected one value per list in {torn}, found several")
            if fault := fault_of_values(feature, columns):
                raise _refused(self.path, feature.name, fault)

    def with_columns(self, requests: pl.DataFrame, impressions: pl.DataFrame | None) -> pl.DataFrame:
        """The requests with the columns of their impressions that these features read. Rows and order kept."""
        roots = frozenset[str]().union(*(f.roots for f in self.features))
        found = sorted({source_of(name)[1] for name in roots if is_own(name) and source_of(name)[0] == "impressions"})
        wanted = [name for name in found if name not in requests.columns]
        if impressions is None or not wanted or "impression_id" not in requests.columns:
            return requests
        there = [name for name in wanted if name in impressions.columns]
        told = impressions.group_by("request_id").agg(pl.col(there).first()).rename({"request_id": "impression_id"})
        return requests.join(told, on="impression_id", how="left", maintain_order="left")


NONE: Final = OwnFeatures()


def read_own(path: Path | None) -> OwnFeatures:
    """Execute a file of own features and take its functions in their order; None is no file.

    Functions whose name begins with an underscore are helpers.

    Raises:
        UsageError: No such file, no Python, or a function that is no feature, with its name.
    """
    if path is None:
        return NONE
    try:
        source = path.read_bytes()
        tree = ast.parse(source, str(path))
        space: dict[str, Any] = {"__name__": path.stem, "__file__": str(path)}
        exec(compile(source, str(path), "exec"), space)  # the user's own code, named on the command line
    except Exception as error:
        raise UsageError(f"--features: expected a Python file, found '{path}' ({_told(error)}).") from error
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]
    functions = {name: space[name] for name in names if isfunction(space.get(name))}
    if not functions:
        raise UsageError(f"--features: expected functions that return expressions, found none in '{path}'.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise _refused(path, twice[0], "expected each name once, found it twice")
    features = tuple(_feature(path, name, function) for name, function in functions.items())
    return OwnFeatures(path, hashlib.sha256(source).hexdigest(), features)


def own_of_bundle(manifest: Mapping[str, Any], path: str | Path | None) -> OwnFeatures:
    """The own features that a bundle was trained with, from the file that is handed over; checked before it is run.

    Raises:
        BundleError: The bundle needs a file and none is given, another file, or it needs none.
    """
    kept = manifest.get("own_features")
    if kept is None:
        if path is not None:
            raise BundleError(f"--features: expected a bundle with own features for '{path}', found one without any.")
        return NONE
    wanted = f"'{kept['file']}' with sha256 {kept['sha256'][:12]}"
    if path is None:
        raise BundleError(
            f"--features: expected the file of own features that this bundle needs, {wanted}; none given."
        )
    try:
        found = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise BundleError(f"--features: expected {wanted}, found '{path}': {error.strerror}.") from error
    if found != kept["sha256"]:
        raise BundleError(
            f"--features: expected {wanted}, found '{path}' with sha256 {found[:12]}. Give the same file."
        )
    return read_own(Path(path))


def _feature(path: Path, name: str, function: Callable[[], object]) -> Feature:
    # A positional argument with a default could be left out, but then the name would not say what it is.
    arguments: list[Parameter] = list(signature(function).parameters.values())
    if arguments:
        raise _refused(path, name, f"expected no arguments, found {[a.name for a in arguments]}; helpers start with _")
    taken = {f.name for f in features_for(CHANNELS)} | {"request_id", "item_id"}
    if name in taken:
        raise _refused(path, name, "expected a new name, found one of the catalogue")
    text = " ".join((function.__doc__ or "").split())
    if not text:
        raise _refused(path, name, "expected a docstring that says what it means, found none")
    try:
        expression = function()
    except Exception as error:
        raise _refused(path, name, f"expected an expression, found {_told(error)}") from error
    if not isinstance(expression, pl.Expr):
        raise _refused(path, name, f"expected an expression (pl.Expr), found {type(expression).__name__}")
    tree = _serialised(path, name, expression)
    if fault := next(_faults(tree, inside=False), None):
        raise _refused(path, name, fault)
    _refuse_roots(path, name, set(expression.meta.root_names()))
    return Feature(
        name,
        FAMILY,
        _finite(expression),
        (function.__doc__ or "").strip().splitlines()[0],
        needs=tuple(sorted(".".join(source_of(root)) for root in expression.meta.root_names() if is_own(root))),
        text=text,
        whole_list="Over" in _keys(tree),
    )


def _finite(expression: pl.Expr) -> pl.Expr:
    """Null where it is not finite: the catalogue promises that nothing is infinite."""
    value = expression.cast(pl.Float32, strict=False)
    return pl.when(value.is_finite()).then(value)


def _serialised(path: Path, name: str, expression: pl.Expr) -> Any:
    """The expression as the tree that Polars writes."""
    try:
        return json.loads(expression.meta.serialize(format="json"))
    except Exception as error:
        raise _refused(path, name, f"expected an expression of Polars alone, found one with {_told(error)}") from error


def _faults(node: Any, inside: bool) -> Iterator[str]:
    """What the serialised form holds that a feature may not: one line each."""
    if isinstance(node, list):
        for part in node:
            yield from _faults(part, inside)
    if isinstance(node, str):
        yield from _fault_of_word(node)
    if not isinstance(node, dict):
        return
    for key, value in node.items():
        if key == "Column" and value == "request_id":
            yield "expected the request's id in .over only, found it as a value"
        if key in ("Literal", "Column"):
            continue
        yield from _fault_of_word(key)
        if key == "Over":
            if value["partition_by"] != [{"Column": "request_id"}] or value["order_by"] is not None:
                yield 'expected .over("request_id") alone, found another .over'
            yield from _faults(value["function"], inside=True)
            continue
        if key in ("Agg", "Len") and not inside:
            yield 'expected a sum or count to stand in .over("request_id"), found one over all rows'
        yield from _faults(value, inside)


def _fault_of_word(word: str) -> Iterator[str]:
    plain = word.lower().replace("_", "")
    if plain.startswith(ALONG_TIME):
        yield f"expected no operation along time or row order, found {word}"
    if plain.startswith(OUTSIDE):
        yield f"expected an expression over named columns and nothing else, found {word}"


def _keys(node: Any) -> set[str]:
    parts = list(node.values()) if isinstance(node, dict) else node if isinstance(node, list) else []
    own = set(node) if isinstance(node, dict) else set()
    return own.union(*(_keys(part) for part in parts))


def _refuse_roots(path: Path, name: str, roots: set[str]) -> None:
    roots -= {"request_id"}
    reserved = sorted(root for root in roots if is_own(root) and source_of(root)[1] in RESERVED)
    unknown = sorted(root for root in roots if not is_own(root) and root not in build.FACT_NAMES)
    if unknown or reserved or not roots:
        found = unknown or reserved or "no column"
        raise _refused(path, name, f"expected facts, article_<column> or request_<column>, found {found}")


def _values_of(name: str, log: Log) -> pl.Series:
    frame, column = source_of(name)
    return (log.articles if frame == "articles" else log.impressions)[column]  # type: ignore[index]


def _is_torn(name: str, log: Log) -> bool:
    """Whether a column of the impressions has several values in a list: it then tells of the articles, or what came."""
    frame, column = source_of(name)
    if frame == "articles" or log.impressions is None:
        return False
    several = log.impressions.group_by("request_id").agg(pl.col(column).n_unique().alias("n"))
    return bool((several["n"] > 1).any())


def _refused(path: Path | None, name: str, found: str) -> UsageError:
    return UsageError(f"--features: {name} in '{path}': {found}.")


def _told(error: Exception) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
