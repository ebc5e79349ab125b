"""What one person waits for at the labelling page, in Chromium, by the page's own marks.

A store with drawn clips (50 frames of 256 × 256) is served by the command, in a process of its own. The page is opened
several times, in a browser that runs already; then a script answers pairs by keys and takes twenty answers back, one
after the other. The limits that the page was built to are printed beside.
"""

import json
import math
import shutil
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from common import console, print_machine
from labelling import fill, serving
from playwright.sync_api import Browser, sync_playwright
from rich.table import Table

from preference.store import Store, Task

GUARD = 260
"""Milliseconds after which a new pair may be answered."""
LIMITS = {"first clip, new profile": math.nan, "first clip": 300.0, "key to the next pair": 50.0, "undo": 100.0}


@dataclass(frozen=True)
class Arguments:
    """What to measure."""

    visits: int = 10
    """How often the page is opened: the first time in a new profile, which is printed by itself."""
    answers: int = 24
    """Answers."""
    undos: int = 20
    """Answers taken back."""
    stored: int = 0
    """Answers in the store before."""


def durations(page: Any, name: str) -> list[float]:
    """The lengths of the page's measures of a name, in milliseconds."""
    entries = page.evaluate(f"JSON.stringify(performance.getEntriesByName('{name}').map(entry => entry.duration))")
    return [float(value) for value in json.loads(entries)]


def opened(browser: Browser, address: str) -> Any:
    """The page in a new profile, with its first pair shown."""
    page = browser.new_context(viewport={"width": 1200, "height": 860}).new_page()
    page.add_init_script("localStorage.setItem('rllab.annotator', 'script')")
    page.goto(address)
    page.wait_for_selector("body[data-pair]")
    return page


def main(arguments: Arguments) -> None:
    """Open, answer, take back; print."""
    print_machine("starlette", "playwright")
    times: dict[str, list[float]] = {name: [] for name in LIMITS}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder) / "store.db"
        with Store.open(path, Task("benchmark")) as store:
            fill(store, arguments.stored, arguments.answers + 40)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        with serving(path) as address:
            opened(browser, address).context.close()
            page = opened(browser, address)
            shown = "performance.getEntriesByName('pair-shown')[0].startTime"
            times["first clip, new profile"].append(page.evaluate(shown))
            for _ in range(arguments.visits - 1):
                page.goto(address)
                page.wait_for_selector("body[data-pair]")
                times["first clip"].append(page.evaluate(shown))
                page.wait_for_timeout(500)
            for key in ("ArrowLeft", "ArrowRight", "ArrowUp") * (arguments.answers // 3):
                page.wait_for_timeout(GUARD)
                page.keyboard.press(key)
            page.wait_for_timeout(1000)
            for done in range(1, arguments.undos + 1):
                page.keyboard.press("z")
                while len(durations(page, "undone")) < done:
                    page.wait_for_timeout(20)
                page.wait_for_timeout(150)  # nobody presses faster than they see
            times["key to the next pair"] = durations(page, "answer-to-drawn")
            times["undo"] = durations(page, "undone")
        browser.close()
    table = Table("milliseconds", "times", "median", "95 % within", "worst", "limit")
    for name, values in times.items():
        ordered = sorted(values)
        within = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
        table.add_row(
            name, str(len(values)), f"{statistics.median(values):.1f}", f"{within:.1f}", f"{ordered[-1]:.1f}",
            "" if math.isnan(LIMITS[name]) else f"{LIMITS[name]:.0f}",
        )  # fmt: skip
    console.print(table)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
