"""The fingerprint of a log: one sha256 over the content of its canonical frames, whatever files it came from."""

import hashlib
from typing import Protocol

import numpy as np
import polars as pl

from newsrec.errors import DataError


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...


def fingerprint(frames: dict[str, pl.DataFrame | None]) -> str:
    """Hash frames by name, column name, values and nulls; integer and float widths do not count.

    Args:
        frames: Canonical frames, sorted, by name. None and an absent frame are the same.

    Returns:
        64 hexadecimal digits.

    >>> narrow, wide = (pl.DataFrame({"n": [1, None]}, schema={"n": dtype}) for dtype in (pl.Int32, pl.Int64))
    >>> fingerprint({"clicks": narrow}) == fingerprint({"clicks": wide})
    True
    """
    digest = hashlib.sha256()
    for name, frame in sorted(frames.items()):
        if frame is None:
            continue
        digest.update(f"frame {name} {frame.height}\n".encode())
        for column in sorted(frame.columns):
            _add(digest, frame[column])
    return digest.hexdigest()


def _add(digest: _Hash, values: pl.Series) -> None:
    digest.update(f"column {values.name} {_family(values.dtype)} {len(values)}\n".encode())
    nulls = values.is_null()
    if nulls.any():
        digest.update(np.packbits(nulls.to_numpy()).tobytes())
    if values.dtype == pl.String:
        # Lengths first, so that 'ab', 'c' is not 'a', 'bc'. Polars' own `str.join` aborts on literals in 1.30.
        digest.update(values.str.len_bytes().fill_null(0).cast(pl.UInt32).to_numpy().tobytes())
        digest.update("".join(values.fill_null("").to_list()).encode())
    elif isinstance(values.dtype, pl.Array):
        digest.update(str(values.dtype.size).encode())
        digest.update(_bytes(values.drop_nulls().explode()))
    else:
        digest.update(_bytes(values))


def _bytes(values: pl.Series) -> bytes:
    if values.dtype.is_float():
        return values.cast(pl.Float64).fill_null(0.0).to_numpy().tobytes()
    return values.to_physical().cast(pl.Int64).fill_null(0).to_numpy().tobytes()


def _family(dtype: pl.DataType) -> str:
    if dtype == pl.String:
        return "text"
    if isinstance(dtype, pl.Array):
        return "vector"
    if isinstance(dtype, pl.Datetime):
        return "time"
    if dtype == pl.Boolean:
        return "flag"
    if dtype.is_integer():
        return "integer"
    if dtype.is_float():
        return "float"
    raise DataError(f"a canonical dtype expected, {dtype} found; cast the column to text, a number or a time")
