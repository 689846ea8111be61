"""Memory of the process: what is told of it, what is kept and what is given back."""

import platform
import subprocess
import sys

import pytest

from newsrec.process import peak_rss_mb, pool_memory, trim_memory

CLEARED = """
import resource
import numpy as np
from newsrec.process import pool_memory
if {told}:
    assert pool_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    [np.ones({values}) for _ in range(4)]
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
HELD = """
import numpy as np
from newsrec.process import pool_memory
assert pool_memory()
arrays = [np.ones(5_000_000) for _ in range(10)]
last = np.ones(10)
del arrays
print(open("/proc/self/status").read().split("VmRSS:")[1].split()[0])
"""
glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep their own rules")


def run(code: str) -> int:
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def test_peak_is_megabytes() -> None:
    peak = peak_rss_mb()
    assert peak is None or 20 < peak < 100_000


@glibc
def test_freed_arrays_serve_again() -> None:
    # Pages of 200 arrays of 8 MB.
    cleared = [run(CLEARED.format(told=told, values=1_000_000)) for told in (False, True)]
    assert cleared[1] < cleared[0] / 5


@glibc
def test_large_arrays_go_back_to_the_system() -> None:
    assert run(HELD) < 200_000  # KB, of 400 MB


@glibc
def test_what_is_pooled_goes_back_when_asked() -> None:
    code = """
import numpy as np
from newsrec.process import pool_memory, trim_memory
def held():
    return int(open("/proc/self/status").read().split("VmRSS:")[1].split()[0])
pool_memory()
arrays = [np.ones(200_000) for _ in range(100)]
last = np.ones(10)
del arrays
before = held()
trim_memory()
print(before - held())
"""
    assert run(code) > 100_000  # KB, of 160 MB


def test_elsewhere_it_has_no_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    assert not pool_memory()
    trim_memory()
