"""The labelling page's server under eight people at once, with an empty store and with 100,000 answers in it.

Each labeller is a thread that does what the page does, over HTTP on this machine: it takes pairs ahead, loads both
sheets, answers after a while, and now and then takes an answer back. The number of
requests is bounded, and the server is a process of its own that ends with this one. The limits that the page was
built to: 95 % of the requests within 20 ms, an undo within 100 ms.
"""

import json
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from common import console, print_machine
from rich.table import Table

from preference.comparisons import Answer, Clip, Label, Pair
from preference.sheets import encode_sheet
from preference.store import Store, Task

LIMITS = {"undo": 100.0}
LIMIT = 20.0
"""Milliseconds within which 95 % of the requests are to be answered."""
CLIPS = 200
GUARD = 0.25


@dataclass(frozen=True)
class Arguments:
    """What to measure."""

    labellers: int = 8
    """People at once."""
    answers: int = 60
    """Answers of each."""
    think: float = 1.0
    """Seconds between a pair and its answer, in the mean: the page's guard of 0.25 s, and the rest at random."""
    stored: tuple[int, ...] = (0, 100_000)
    """Answers in the store before."""


def fill(store: Store, answered: int, open_pairs: int) -> None:
    """Clips with frames, pairs that three people have answered, and pairs that wait."""
    generator = np.random.default_rng(0)
    # A chequered ground, and something that moves over it: some 40 KiB, as real clips have.
    squares = generator.integers(90, 130, (1, 32, 32, 1), np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    frames = squares.repeat(50, axis=0).repeat(3, axis=3)
    for number, frame in enumerate(frames):
        frame[100:140, 4 * number : 4 * number + 40] = (220, 60, 40)
    sheet = encode_sheet(frames, fps=30.0)
    arrays = {"observations": np.zeros((50, 4), np.float32), "actions": np.zeros(50, np.int64)}
    clips = [Clip(uuid.UUID(int=number + 1), arrays, "run", details={"number": number}) for number in range(CLIPS)]
    store.add_clips(clips)
    for clip in clips:
        store.set_sheet(clip.id, *sheet)
    labels = list(Label)
    for start in range(0, answered + open_pairs, 5000):
        numbers = range(start, min(start + 5000, answered + open_pairs))
        chosen = generator.integers(0, CLIPS, len(numbers))
        pairs = [
            Pair(uuid.UUID(int=10**6 + n), clips[c].id, clips[(c + 1 + n % (CLIPS - 1)) % CLIPS].id, "run")
            for n, c in zip(numbers, chosen, strict=True)
        ]
        store.ask(pairs)
        store.answer([
            Answer(
                uuid.UUID(int=10**9 + n), pair.id, f"person {n % 3}", labels[int(generator.integers(4))],
                bool(n % 2), 2.0 + n % 5,
            )
            for n, pair in zip(numbers, pairs, strict=True) if n < answered
        ])  # fmt: skip


@contextmanager
def serving(store: Path) -> Iterator[str]:
    """The command, in a process of its own; its address."""
    program = "import sys; from rllab.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-u", "-c", program, "preference", "label", "--store", str(store), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split()[-1].rstrip("/")
    finally:
        process.terminate()
        process.wait()


class Labeller(threading.Thread):
    """One person."""

    def __init__(self, number: int, address: str, arguments: Arguments) -> None:
        super().__init__()
        self.name_, self.arguments = f"labeller-{number}", arguments
        self.random = np.random.default_rng(number)
        self.place = address.removeprefix("http://")
        # The standard library's client: eight of a fuller one in one process would mostly measure themselves.
        self.client = HTTPConnection(self.place, timeout=30)
        self.times: dict[str, list[float]] = defaultdict(list)

    def _timed(self, route: str, method: str, path: str, **document: object) -> Any:
        body = json.dumps({"annotator": self.name_, **document}) if method == "POST" else None
        began = time.perf_counter()
        self.client.request(method, path, body, {"content-type": "application/json"} if body else {})
        response = self.client.getresponse()
        content = response.read()
        self.times[route].append(1000 * (time.perf_counter() - began))
        if response.status != 200:
            raise RuntimeError(f"{path}: {response.status} {content[:200]!r}")
        return None if route == "sheet" else json.loads(content)

    def run(self) -> None:
        """Answer."""
        ready: list[dict[str, dict[str, str]]] = []
        loaded: set[str] = set()
        listening = HTTPConnection(self.place, timeout=30)
        listening.request("GET", f"/api/events?annotator={self.name_}")
        with listening.getresponse() as stream:
            for count in range(self.arguments.answers):
                have = [pair["pair"] for pair in ready]
                ready += self._timed("next", "POST", "/api/next", want=4, have=have)["pairs"]
                for pair in ready:
                    for side in ("left", "right"):
                        if pair[side]["sheet"] not in loaded:  # a browser keeps them
                            loaded.add(pair[side]["sheet"])
                            self._timed("sheet", "GET", pair[side]["sheet"])
                time.sleep(GUARD + self.random.exponential(max(0.0, self.arguments.think - GUARD)))
                answer = {"id": str(uuid.uuid4()), "pair": ready.pop(0)["pair"], "choice": "left", "seconds": 1.0}
                self._timed("answers", "POST", "/api/answers", answers=[answer])
                if count % 10 == 9:
                    back = self._timed("undo", "POST", "/api/undo", id=str(uuid.uuid4()))["pair"]
                    if back is not None:
                        ready.insert(0, back)
                    self._timed("stats", "GET", "/api/stats")
                    self._timed("history", "GET", f"/api/history?annotator={self.name_}")
                if count % 10 == 0:
                    stream.readline()
        listening.close()


def measure(stored: int, arguments: Arguments) -> None:
    """One store, all labellers."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.db"
        task = Task("Toy-v0", "clips", {"shape": [4], "dtype": "float32"}, {"shape": [], "dtype": "int64"})
        with Store.open(path, task) as store:
            fill(store, stored, 2 * arguments.labellers * arguments.answers)
        began = time.perf_counter()
        with serving(path) as address:
            started = time.perf_counter() - began
            labellers = [Labeller(number, address, arguments) for number in range(arguments.labellers)]
            began = time.perf_counter()
            for labeller in labellers:
                labeller.start()
            for labeller in labellers:
                labeller.join()
            seconds = time.perf_counter() - began
    times: dict[str, list[float]] = defaultdict(list)
    for labeller in labellers:
        for route, each in labeller.times.items():
            times[route] += each
    count = arguments.labellers * arguments.answers
    title = (
        f"{stored:,} answers in the store; {arguments.labellers} labellers, {count / seconds:.0f} answers/s together"
    )
    table = Table(title=title, title_justify="left")
    for heading in ("request", "number", "median ms", "95 % within ms", "worst ms", "limit ms", "of the limit"):
        table.add_column(heading, justify="right")
    for route, each in sorted(times.items()):
        limit, tail = LIMITS.get(route, LIMIT), float(np.percentile(each, 95))
        table.add_row(
            route, str(len(each)), f"{np.median(each):.1f}", f"{tail:.1f}", f"{max(each):.1f}", f"{limit:.0f}",
            f"{tail / limit:.0%}",
        )  # fmt: skip
    console.print(table)
    console.print(f"The server answered {started:.1f} s after it was started.\n")


def main(arguments: Arguments) -> None:
    """Each store in turn."""
    print_machine("starlette", "uvicorn", "sqlalchemy")
    for stored in arguments.stored:
        measure(stored, arguments)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
