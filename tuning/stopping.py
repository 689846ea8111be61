"""Signals that end a study: noted when they come, heeded where nothing is half-written.

A pressed key that interrupts a write leaves a lock behind, or a row without its values. So the first SIGINT or SIGTERM
only raises a flag, which is looked at between iterations and between trials.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

Asked = Callable[[], bool]
"""Whether somebody has asked to stop."""


class Stopped(Exception):
    """Raised inside a trial that is to be given back."""


@contextmanager
def heeding_signals(insist: bool = True) -> Iterator[Asked]:
    """Within the block, signals are noted; outside the main thread, which alone may do so, nothing changes.

    Args:
        insist: Whether a second SIGINT interrupts at once.
    """
    asked = threading.Event()

    def note(number: int, _: FrameType | None) -> None:
        if asked.is_set() and insist and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.set()

    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = {each: signal.signal(each, note) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
