"""An agent taught live through the labelling page: a real browser, in which a script looks and presses keys.

`rllab preference learn ENV --teacher human` runs as a user would run it, and serves its page. A script opens that page
in Chromium, and for each pair that is shown presses the key for the clip with the higher true return, which it reads in
the store by the numbers that the page shows; equal ones are ties. Nothing else passes between the two. At the end the
last policy plays 100 episodes of the true environment. It also prints how long the page took from a key to the next
pair, by its own marks.
"""

import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from common import console, print_machine
from playwright.sync_api import Page, sync_playwright

from preference.experiment import STORE_FILE
from preference.labelling.lookup import Lookup
from preference.store import Store
from rllab.experiment import evaluate
from rllab.runs import Run

RLLAB = "import sys; from rllab.cli.main import main; sys.exit(main(sys.argv[1:]))"
KEYS = {"left": "ArrowLeft", "right": "ArrowRight", "tie": "ArrowUp"}


@dataclass(frozen=True)
class Arguments:
    """What to teach."""

    env: str = "CartPole-v1"
    """A Gymnasium id."""
    labels: int = 200
    """Answers."""
    seed: int = 0
    """Of the training."""
    out: Path = Path("runs/labelling-live")
    """The run's folder."""
    figure: Path | None = None
    """A plot to write of the true return and the answers over the steps."""
    screenshot: Path | None = None
    """A picture of the page in the middle of it."""


def better(store: Store, lookup: Lookup, pair: int, left: int) -> str:
    """Which side has the higher true return."""
    asked = lookup.pair(pair)
    clips = store.clips([asked.first, asked.second])
    returns = [float(clip.arrays["rewards"].sum()) for clip in clips]
    if lookup.clip_id(left) != asked.first:
        returns.reverse()
    return "tie" if returns[0] == returns[1] else "left" if returns[0] > returns[1] else "right"


def teach(page: Page, address: str, arguments: Arguments, process: "subprocess.Popen[str]") -> int:
    """Answer until the training ends; how many answers that were."""
    count = 0
    with Store.open(arguments.out / STORE_FILE) as store:
        lookup = Lookup(store)
        # The page says which pair it shows; which clip is on which side is in what the server sent.
        sides: dict[int, int] = {}

        def note(response: object) -> None:
            if response.url.endswith("/api/next"):  # type: ignore[attr-defined]
                sides.update({p["pair"]: p["left"]["clip"] for p in response.json()["pairs"]})  # type: ignore[attr-defined]

        page.on("response", note)
        page.goto(address)
        while process.poll() is None:
            number = page.get_attribute("body", "data-pair")
            if number is None or int(number) not in sides:
                page.wait_for_timeout(50)
                continue
            page.wait_for_timeout(260)  # the guard
            page.keyboard.press(KEYS[better(store, lookup, int(number), sides[int(number)])])
            count += 1
            if arguments.screenshot is not None and count == arguments.labels // 2:
                page.wait_for_timeout(800)
                page.screenshot(path=str(arguments.screenshot))
    return count


def draw(run: Run, path: Path) -> None:
    """The true return of the training's episodes, and the answers that had come by then."""
    from matplotlib.figure import Figure

    from rllab.plots import PALETTE

    rows = run.read_metrics()
    steps = [row["steps"] / 1000 for row in rows]
    figure = Figure(figsize=(7, 3.6), layout="constrained", dpi=120)
    left = figure.subplots()
    left.plot(steps, [row.get("return_mean", np.nan) for row in rows], color=PALETTE[0])
    left.set(xlabel="thousand environment steps", ylabel="true return, last 100 episodes")
    left.grid(alpha=0.3)
    right = left.twinx()
    right.step(steps, [row["reward/labels"] for row in rows], where="post", color=PALETTE[1], linestyle="--")
    right.set(ylabel="comparisons learnt from (dashed)", ylim=(0, None))
    figure.savefig(path)


def main(arguments: Arguments) -> None:
    """Train, teach, evaluate."""
    print_machine("starlette", "playwright")
    command = [
        sys.executable, "-u", "-c", RLLAB, "preference", "learn", arguments.env, "--teacher", "human", "--labels",
        str(arguments.labels), "--seed", str(arguments.seed), "--out", str(arguments.out), "--port", "0",
        "--second-opinions", "0", "--repeats", "0", "--evaluation-every", "0",
    ]  # fmt: skip
    began = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        assert process.stderr is not None
        address = next(line.split()[-1] for line in process.stderr if "labelling page" in line)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1200, "height": 860})
            page.add_init_script("localStorage.setItem('rllab.annotator', 'script')")
            count = teach(page, address, arguments, process)
            marks = json.loads(
                page.evaluate(
                    "JSON.stringify(performance.getEntriesByName('answer-to-drawn').map(entry => entry.duration))"
                )
            )
            first = page.evaluate("performance.getEntriesByName('pair-shown')[0].startTime")
            browser.close()
    finally:
        process.terminate()
        process.wait()
    seconds = time.perf_counter() - began
    result = evaluate(arguments.out, episodes=100, checkpoint="latest")
    run = Run.open(arguments.out)
    console.print(
        f"{arguments.env}, seed {arguments.seed}: {count} answers in {seconds:.0f} s, then {result.mean:.1f} ± "
        f"{result.std:.1f} over 100 episodes; training ended at {run.read_metrics()[-1]['return_mean']:.1f}."
    )
    console.print(f"From opening the page to its first clip: {first:.0f} ms, the wait for a drawn one included.")
    if marks:
        console.print(
            f"From a key to the next pair: median {np.median(marks):.1f} ms, 95 % within "
            f"{np.percentile(marks, 95):.1f}, worst {max(marks):.1f} of {len(marks)} (limit 50)."
        )
    if arguments.figure is not None:
        draw(run, arguments.figure)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
