"""What the running process costs, and how it costs less."""

import ctypes
import sys
from typing import Final

BIG_BLOCK: Final = 1 << 20
"""Bytes from which on a block of memory goes back to the system when it is freed."""
_M_MMAP_THRESHOLD: Final = -3


def return_big_blocks() -> bool:
    """Let freed arrays go back to the system at once; True where the C library can be told so (glibc).

    By itself glibc raises its border to the largest array that was freed so far and keeps what lies below: a run over
    millions of candidates then holds a gigabyte that nobody uses (`man mallopt`, M_MMAP_THRESHOLD).
    """
    try:
        return bool(ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, BIG_BLOCK))
    except (OSError, AttributeError, TypeError):
        return False


def peak_rss_mb() -> float | None:
    """Largest resident memory of this process so far, MB; None where the system does not tell (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / 1e6 if sys.platform == "darwin" else peak / 1e3, 1)
