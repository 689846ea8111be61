"""Parameters by name, as a JSON file gives them, become a frozen dataclass; what does not fit is told at once."""

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from typing import Any, TypeVar

from newsrec.errors import UsageError

Settings = TypeVar("Settings")


def settings_of(kind: type[Settings], given: Mapping[str, Any], where: str) -> Settings:
    """A dataclass with some of its fields given, the defaults filling in.

    Args:
        kind: A dataclass whose fields all have defaults; it checks ranges itself.
        given: Values by field name; a list stands for a tuple.
        where: What the error names first.

    Raises:
        UsageError: Unknown names, or values of another kind, all at once.
    """
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise UsageError(f"{where}: expected parameters of {sorted(known)}, found {unknown}.")
    faults = [fault for name, value in sorted(given.items()) if (fault := _fault(known[name], value))]
    if faults:
        raise UsageError(f"{where}: expected {'; '.join(faults)}.")
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in given.items()})


def _fault(field: "Field[Any]", value: object) -> str | None:
    """What was expected and found, or None where the value is of the default's kind."""
    assert field.default is not MISSING
    kind = type(field.default)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is None and "None" in str(field.type):
        return None
    if kind is float:
        good, wanted = number, "a number"
    elif kind is int:
        good, wanted = number and isinstance(value, int), "a whole number"
    elif kind is tuple:
        good = isinstance(value, list | tuple) and all(type(each) is int for each in value)
        wanted = "a list of whole numbers"
    else:
        good, wanted = type(value) is kind, {bool: "true or false", str: "a text"}[kind]
    return None if good else f"{field.name}: {wanted}, found {value!r}"
