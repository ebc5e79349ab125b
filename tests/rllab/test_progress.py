"""Progress is told often in a terminal, seldom in a log, and at next to no cost."""

import io
import math

import pytest

from rllab.progress import Progress, format_count, format_duration


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_gets_a_line_an_interval_and_a_final_one() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress(100_000, stream=stream, clock=clock, interval=10.0) as progress:
        for second in range(1, 26):
            clock.now += 1.0
            progress.update(second * 2000, {"return_mean": second * 1.5})
    assert stream.getvalue().splitlines() == [
        "20k/100k steps  20 %  2k steps/s  return 15  10s elapsed  40s left",
        "40k/100k steps  40 %  2k steps/s  return 30  20s elapsed  30s left",
        "50k/100k steps  50 %  2k steps/s  return 37.5  25s elapsed  25s left",
    ]


def test_a_finished_training_has_no_time_left() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress(1000, stream=stream, clock=clock, interval=10.0) as progress:
        clock.now += 10.0
        progress.update(1000, {"return_mean": math.nan})
    # Drawn once, though the interval and the end fall together; no return is claimed without an episode.
    assert stream.getvalue() == "1k/1k steps  100 %  100 steps/s  10s elapsed\n"


def test_a_resumed_run_counts_its_own_steps_for_its_speed() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress(1000, start=500, stream=stream, clock=clock) as progress:
        clock.now += 10.0
        progress.update(600)
    assert stream.getvalue() == "600/1k steps  60 %  10 steps/s  10s elapsed  40s left\n"


def test_speed_is_that_of_the_last_half_minute() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = Progress(100_000, stream=stream, clock=clock, interval=10.0)
    steps = 0
    for rate in [10] * 20 + [1000] * 8:
        clock.now += 10.0
        steps += rate * 10
        progress.update(steps)
    assert "1k steps/s" in stream.getvalue().splitlines()[-1]


def test_the_row_last_given_is_remembered() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress(100, stream=stream, clock=clock) as progress:
        progress.update(50, {"return_mean": 7.0})
        progress.update(60)
    assert "return 7" in stream.getvalue()


def test_what_is_measured_now_and_then_stays_until_it_is_measured_again() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress(100, stream=stream, clock=clock, shown={"loss": "loss", "held_out": "held out"}) as progress:
        progress.update(50, {"loss": 3.0, "held_out": 4.0})
        progress.update(60, {"loss": 2.0})
    assert "loss 2  held out 4  " in stream.getvalue()


@pytest.mark.parametrize(
    ("columns", "numbers"), [(90, "loss 2  held out 4  tokens/s 5  "), (80, "loss 2  held out 4  ")]
)
def test_a_narrow_terminal_leaves_out_the_last_numbers_whole(
    columns: int, numbers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    stream, clock = Terminal(), Clock()
    shown = {"loss": "loss", "held_out": "held out", "speed": "tokens/s", "peak": "of peak"}
    with Progress(1000, stream=stream, clock=clock, shown=shown) as progress:
        clock.now += 10.0
        progress.update(500, {"loss": 2.0, "held_out": 4.0, "speed": 5.0, "peak": 0.123456})
    line = f"500/1k steps  50 %  50 steps/s  {numbers}10s elapsed  10s left"
    assert line in stream.getvalue()
    assert len(line) <= columns


def test_a_terminal_is_drawn_at_most_ten_times_a_second() -> None:
    stream, clock = Terminal(), Clock()
    with Progress(10_000, stream=stream, clock=clock) as progress:
        for step in range(1, 1001):
            clock.now += 0.002
            progress.update(step)
    drawings = stream.getvalue().count("elapsed")
    assert 15 <= drawings <= 25
    assert "1k/10k steps" in stream.getvalue()


@pytest.mark.parametrize("make_stream", [io.StringIO, Terminal])
def test_a_note_is_printed_as_it_is(make_stream: type[io.StringIO]) -> None:
    stream = make_stream()
    with Progress(100, stream=stream, clock=Clock()) as progress:
        progress.note("saved [bold]checkpoints/100[/bold]")
    assert "saved [bold]checkpoints/100[/bold]\n" in stream.getvalue()


@pytest.mark.parametrize("make_stream", [io.StringIO, Terminal])
def test_quiet_says_nothing(make_stream: type[io.StringIO]) -> None:
    stream, clock = make_stream(), Clock()
    with Progress(100, quiet=True, stream=stream, clock=clock) as progress:
        clock.now += 100.0
        progress.update(50, {"return_mean": 1.0})
        progress.note("anything")
    assert stream.getvalue() == ""


@pytest.mark.parametrize("make_stream", [io.StringIO, Terminal])
def test_nothing_is_drawn_after_closing(make_stream: type[io.StringIO]) -> None:
    stream, clock = make_stream(), Clock()
    progress = Progress(100, stream=stream, clock=clock)
    progress.update(100)
    progress.close()
    written = stream.getvalue()
    clock.now += 100.0
    progress.update(100)
    progress.close()
    assert stream.getvalue() == written


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (3.14159, "3.14"),
        (999, "999"),
        (999.4, "999"),
        (999.6, "1k"),
        (12_345, "12.3k"),
        (100_000, "100k"),
        (999_499, "999k"),
        (999_500, "1M"),
        (1_234_567, "1.23M"),
        (4_567_000_000, "4.57G"),
        (-12_345, "-12.3k"),
    ],
)
def test_counts_have_three_figures(number: float, text: str) -> None:
    assert format_count(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (59.4, "59s"),
        (59.6, "1m 00s"),
        (185, "3m 05s"),
        (3599.6, "1h 00m"),
        (3725, "1h 02m"),
        (183_600, "2d 03h"),
        (-1, "0s"),
    ],
)
def test_durations_have_two_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
