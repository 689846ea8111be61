"""Memory of the process: what is told of it and what is given back."""

import platform
import subprocess
import sys

import pytest

from newsrec.process import peak_rss_mb, return_big_blocks

HELD = """
import numpy as np
from newsrec.process import return_big_blocks
if {told}:
    assert return_big_blocks()
np.ones(3_000_000)  # freed at once: left to itself, glibc now keeps what is smaller
arrays = [np.ones(200_000) for _ in range(400)]
last = np.ones(200_000)
del arrays
print(open("/proc/self/status").read().split("VmRSS:")[1].split()[0])
"""


def test_peak_is_megabytes() -> None:
    peak = peak_rss_mb()
    assert peak is None or 20 < peak < 100_000


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep their own rules")
def test_freed_arrays_go_back_to_the_system() -> None:
    def held(told: bool) -> int:
        code = HELD.format(told=told)
        return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)

    # 400 arrays of 1.6 MB.
    assert held(told=False) - held(told=True) > 400_000


def test_elsewhere_it_has_no_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    assert not return_big_blocks()
