"""The line that tells how a training is getting on: live in a terminal, now and then in a log."""

import math
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

_FRAME = 0.1  # seconds between two drawings in a terminal
_BAR = 16  # characters
_RATE_WINDOW = 30.0  # seconds that steps/s is averaged over


class Progress:
    """Steps done, percent, steps/s, mean return, elapsed and remaining time.

    Args:
        total: the environment steps at which the training ends.
        start: the steps done before, by the run that this one resumes.
        quiet: say nothing at all.
        shown: which numbers of the rows are shown, and the word before each; a narrow terminal leaves out the last.
        interval: seconds between two lines where there is no terminal.
        stream: where to write; by default the standard error if it is a terminal, else the standard output.
        clock: seconds that only go forward.

    `update` may be called at any rate: between two drawings it only remembers its arguments.
    """

    def __init__(
        self,
        total: int,
        *,
        start: int = 0,
        quiet: bool = False,
        shown: Mapping[str, str] | None = None,
        interval: float = 10.0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total = total
        self._quiet = quiet
        self._shown = {"return_mean": "return"} if shown is None else shown
        self._stream = stream or (sys.stderr if sys.stderr.isatty() else sys.stdout)
        self._clock = clock
        self._started = clock()
        self._steps = start
        self._row: dict[str, float] = {}
        self._drawn_steps: int | None = None
        self._history = deque([(self._started, start)])
        self._live: RichProgress | None = None
        self._room = 80
        if not quiet and self._stream.isatty():
            self._live = self._start_live()
        self._period = _FRAME if self._live is not None else interval
        self._next_draw = math.inf if quiet else self._started + self._period

    def update(self, steps: int, row: Mapping[str, float] | None = None) -> None:
        """Say that `steps` steps are done; `row` is the metrics' row, of which some numbers are shown.

        Numbers that it has not stay as they were: what is measured now and then is shown until it is measured again.
        """
        self._steps = steps
        if row is not None:
            self._row.update((name, row[name]) for name in self._shown if name in row)
        now = self._clock()
        if now >= self._next_draw:
            self._draw(now)

    def note(self, message: str) -> None:
        """Print a line that stays, above the live one."""
        if self._quiet:
            return
        if self._live is not None:
            self._live.console.print(message, markup=False, highlight=False)
        else:
            print(message, file=self._stream, flush=True)

    def close(self) -> None:
        """Draw the final state and give the terminal back; further calls do nothing."""
        if self._quiet:
            return
        if self._drawn_steps != self._steps:
            self._draw(self._clock())
        if self._live is not None:
            self._live.stop()
        self._quiet = True
        self._next_draw = math.inf

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _draw(self, now: float) -> None:
        self._next_draw = now + self._period
        self._drawn_steps = self._steps
        self._history.append((now, self._steps))
        while len(self._history) > 2 and self._history[1][0] < now - _RATE_WINDOW:
            self._history.popleft()
        if self._live is not None:
            self._live.update(self._live.task_ids[0], completed=self._steps, text=self._text(now, self._room))
            self._live.refresh()
        else:
            print(self._text(now), file=self._stream, flush=True)

    def _text(self, now: float, width: float = math.inf) -> str:
        """The line, of so many characters if that is possible; a wide terminal puts a bar before it."""
        then, steps_then = self._history[0]
        rate = (self._steps - steps_then) / (now - then) if now > then else 0.0
        percent = 100 * self._steps / max(self._total, 1)
        head = [
            f"{format_count(self._steps)}/{format_count(self._total)} steps",
            f"{percent:.0f} %",
            f"{format_count(rate)} steps/s",
        ]
        values = [(word, self._row.get(name, math.nan)) for name, word in self._shown.items()]
        numbers = [
            f"{word} {format_count(value) if value >= 10_000 else f'{value:.4g}'}"
            for word, value in values
            if math.isfinite(value)
        ]
        tail = [f"{format_duration(now - self._started)} elapsed"]
        if rate > 0 and self._steps < self._total:
            tail.append(f"{format_duration((self._total - self._steps) / rate)} left")
        while numbers and len("  ".join([*head, *numbers, *tail])) > width:
            numbers.pop()
        return "  ".join([*head, *numbers, *tail])

    def _start_live(self) -> "RichProgress":
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress

        console = Console(file=self._stream)
        # A narrow terminal needs its room for the numbers.
        bar = [BarColumn(bar_width=_BAR)] if console.width >= 100 else []
        self._room = console.width - (_BAR + 1 if bar else 0)
        live = RichProgress(
            *bar,
            TextColumn("{task.fields[text]}", markup=False),
            console=console,
            auto_refresh=False,  # drawn by `update`: no thread competes with the training
        )
        live.add_task("", total=self._total, completed=self._steps, text="")
        live.start()
        return live


def format_count(number: float) -> str:
    """A number in three figures: 999, 12.3k, 1.23M, 4.57G."""
    for unit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        # From where three figures of the smaller unit would round up to a thousand.
        if abs(number) >= unit * 0.9995:
            return f"{float(f'{number / unit:.3g}'):g}{suffix}"
    return f"{number:.3g}" if abs(number) < 100 else f"{number:.0f}"


def format_duration(seconds: float) -> str:
    """A time in its two largest units: 42s, 3m 05s, 1h 02m, 2d 03h."""
    whole = round(max(seconds, 0.0))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d {whole % 86400 // 3600:02d}h"
