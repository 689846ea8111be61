"""What the running process costs, and how it costs less."""

import ctypes
import sys
from contextlib import suppress
from typing import Final

BIG_BLOCK: Final = 32 << 20
"""Bytes from which on a block of memory goes back to the system when it is freed; the most that glibc pools."""
SPARE: Final = 256 << 20
"""Freed bytes that are kept for what is asked for next."""
_M_MMAP_THRESHOLD: Final = -3
_M_TRIM_THRESHOLD: Final = -1


def pool_memory() -> bool:
    """Let freed arrays serve again, and large ones go back at once; True where the C library can be told so (glibc).

    New memory is dear, as the system clears each page of it: a network whose tensors are new in every step trains half
    as fast. By itself glibc raises the border between the two with what was freed so far and keeps twice that
    (`man mallopt`, M_MMAP_THRESHOLD).
    """
    try:
        tell = ctypes.CDLL(None).mallopt
        return bool(tell(_M_MMAP_THRESHOLD, BIG_BLOCK)) and bool(tell(_M_TRIM_THRESHOLD, SPARE))
    except (OSError, AttributeError, TypeError):
        return False


def trim_memory() -> None:
    """Let all that is pooled go back to the system, before what needs the most of it; nothing where it cannot be."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def peak_rss_mb() -> float | None:
    """Largest resident memory of this process so far, MB; None where the system does not tell (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / 1e6 if sys.platform == "darwin" else peak / 1e3, 1)
