"""An end that a signal asks for: long work finishes what it is at, saves, and then stops."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(Exception):
    """Training was asked to stop by a signal, and has saved a checkpoint."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(signal_number).name}")
        self.exit_code = 128 + signal_number


@contextmanager
def deferred_signals(remember: Callable[[int], None]) -> Iterator[None]:
    """Let the first SIGINT or SIGTERM be remembered and no more; a second SIGINT raises KeyboardInterrupt at once.

    Args:
        remember: told the signal's number. It is called between two operations of Python.
    """
    seen = False

    def handle(number: int, _frame: FrameType | None) -> None:
        nonlocal seen
        if seen and number == signal.SIGINT:
            raise KeyboardInterrupt
        seen = True
        remember(number)

    try:
        before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: signals are somebody else's affair
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
