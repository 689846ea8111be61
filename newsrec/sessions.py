"""ONNX files where they are used: refused unless they stand alone, then opened in onnxruntime. No `onnx` is needed.

onnxruntime itself reads tensors of a model from other files, and finds custom operators that a process has registered.
Both are looked for in the bytes, field by field as protobuf lays them out (onnx.proto, IR version 10).
"""

import re
from collections.abc import Iterator
from typing import Final

import onnxruntime as ort

from newsrec.errors import BundleError

DOMAINS: Final = ("", "ai.onnx", "ai.onnx.ml")
"""Of operators that every onnxruntime has."""
_INSIDE: Final[dict[str, dict[int, str]]] = {
    "model": {7: "graph", 25: "function"},
    "function": {7: "node"},
    "graph": {1: "node", 5: "tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph"},
    "tensor": {},
}
"""Message -> number of a field -> the message in it. What is not named here holds neither tensors nor operators."""
_REFUSED: Final[dict[tuple[str, int], str]] = {
    ("tensor", 13): "external data",
    ("graph", 15): "sparse tensors",
    ("attribute", 22): "sparse tensors",
    ("attribute", 23): "sparse tensors",
    ("model", 20): "training information",
}
_DOMAIN: Final = ("node", 7)
_LOCATION: Final = ("tensor", 14)
# Integers of an attribute stand one by one, each with its tag: a vocabulary or a forest has a million.
_INTEGERS: Final = re.compile(rb"(?:\x40[\x80-\xff]{0,9}[\x00-\x7f])++")
_VARINT: Final = re.compile(rb"[\x80-\xff]{0,9}[\x00-\x7f]")
_FIXED: Final = {1: 8, 5: 4}


def open_session(model: bytes, name: str = "the model", threads: int = 1) -> ort.InferenceSession:
    """A session, on one thread by default: a request is small, and a service has threads of its own.

    Args:
        model: The file's bytes.
        name: What messages call it.
        threads: Of one call, >= 1.

    Raises:
        BundleError: It needs other files or operators of unknown domains, or onnxruntime does not take it.
    """
    try:
        faults = sorted(set(_faults(model)))
    except ValueError as error:
        raise _unloadable(name, error) from error
    if faults:
        raise BundleError(
            f"{name}: expected an ONNX file that stands alone with operators of {', '.join(DOMAINS[1:])}, found "
            f"{', '.join(faults[:3])}. Use only files that train wrote."
        )
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise _unloadable(name, error) from error


def _unloadable(name: str, error: Exception) -> BundleError:
    told = (str(error).splitlines() or [""])[0]
    return BundleError(
        f"{name}: expected an ONNX model, found one that does not load ({told}). Train or copy it again."
    )


def _faults(model: bytes) -> Iterator[str]:
    """What a file that stands alone does not have.

    Raises:
        ValueError: The bytes are no protobuf.
    """
    waiting = [("model", 0, len(model))]
    while waiting:
        message, start, end = waiting.pop()
        for number, value, stop in _fields(model, message, start, end):
            place = (message, number)
            if place in _REFUSED:
                yield _REFUSED[place]
            elif place == _LOCATION and model[value:stop] != b"\0":
                yield "external data"
            elif place == _DOMAIN and (domain := model[value:stop].decode(errors="replace")) not in DOMAINS:
                yield f"an operator of domain '{domain}'"
            elif number in _INSIDE[message]:
                waiting.append((_INSIDE[message][number], value, stop))


def _fields(model: bytes, message: str, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, start and end of the value of each field."""
    while at < end:
        if message == "attribute" and (run := _INTEGERS.match(model, at, end)):
            at = run.end()
            continue
        tag, at = _varint(model, at, end)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            start, (_, at) = at, _varint(model, at, end)
        elif kind == 2:
            length, start = _varint(model, at, end)
            at = start + length
        elif kind in _FIXED:
            start, at = at, at + _FIXED[kind]
        else:
            raise ValueError(f"no protobuf at byte {at}")
        if at > end:
            raise ValueError(f"cut short at byte {end}")
        yield number, start, at


def _varint(model: bytes, at: int, end: int) -> tuple[int, int]:
    """The number there and the place behind it."""
    found = _VARINT.match(model, at, end)
    if found is None:
        raise ValueError(f"no protobuf at byte {at}")
    value = 0
    for place, byte in enumerate(found[0]):
        value |= (byte & 0x7F) << (7 * place)
    return value, found.end()
