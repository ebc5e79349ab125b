"""The labelling page in a real browser: keys, buttons, undo, several people, and everything that may fail under it."""

import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette")
pytest.importorskip("playwright.sync_api")
from page_makers import add_drawn, drawn_store, text_store
from playwright.sync_api import sync_playwright
from sqlalchemy import delete

from preference import schema
from preference.comparisons import Label
from preference.labelling import labelling_server
from preference.labelling.serve import LabellingServer
from preference.labelling.settings import PageConfig
from preference.store import Store

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here (Debian: apt install chromium)")
PLAIN = PageConfig(port=0, second_opinions=0, repeats=0)
SHOWN = "body[data-pair]"
GUARD_OVER = 270
"""Milliseconds after which a new pair may be answered."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


Visit = Callable[..., Any]


@pytest.fixture
def visit(browser: Any) -> Iterator[Visit]:
    """Opens the page for somebody, in a browser profile of their own; errors in the page fail the test."""
    contexts: list[Any] = []
    errors: list[str] = []

    def opened(address: str, who: str | None = "ann", path: str = "", **options: Any) -> Any:
        context = browser.new_context(viewport={"width": 1200, "height": 860}, **options)
        contexts.append(context)
        context.set_default_timeout(10_000)
        if who is not None:
            context.add_init_script(
                f"localStorage.getItem('rllab.annotator') || localStorage.setItem('rllab.annotator', {json.dumps(who)})"
            )
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address + path)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert errors == []


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with drawn_store(tmp_path / "store.db", 30) as opened:
        yield opened


@pytest.fixture
def server(store: Store) -> Iterator[LabellingServer]:
    with labelling_server(store.url, PLAIN, lambda line: None) as started:
        yield started


def until(page: Any, condition: str) -> None:
    """Wait for a condition in JavaScript. (The page's own policy forbids Playwright's way of waiting.)"""
    for _ in range(400):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(25)
    raise AssertionError(f"not within ten seconds: {condition}")


def ready(page: Any) -> int:
    """Wait until a pair is shown that may be answered; its number."""
    page.wait_for_selector(SHOWN)
    page.wait_for_timeout(GUARD_OVER)
    return int(page.get_attribute("body", "data-pair"))


def press(page: Any, key: str) -> int:
    """Answer by a key; the pair that was answered."""
    number = ready(page)
    page.keyboard.press(key)
    until(page, f"document.body.dataset.pair !== '{number}'")
    return number


def answers(store: Store, count: int, page: Any) -> list[tuple[int, str]]:
    """What is kept, as (pair, what was clicked), once there are so many."""
    from preference.labelling.lookup import Lookup
    from preference.labelling.tally import choice_of

    lookup = Lookup(store)
    for _ in range(200):
        found = store.comparisons().added
        if len(found) == count:
            break
        page.wait_for_timeout(25)
    said = [choice_of(item.answer.label, item.answer.swapped) for item in found]  # type: ignore[arg-type]
    return list(zip(lookup.numbers([item.pair for item in found]), said, strict=True))


def square(page: Any, side: str) -> float:
    """Where the orange square is on a canvas, from 0 at its left to 1."""
    where: float = page.evaluate(
        """side => {
            const canvas = document.getElementById(`${side}-canvas`);
            const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
            let sum = 0, count = 0;
            for (let i = 0; i < pixels.length; i += 4)
                if (pixels[i] > 200 && pixels[i + 1] < 140 && pixels[i + 2] < 120) { sum += (i / 4) % canvas.width; count++; }
            return count ? sum / count / canvas.width : -1;
        }""",
        side,
    )
    return where


@pytest.mark.parametrize("by", ["keys", "buttons"])
def test_every_key_and_button_says_what_it_says(server: LabellingServer, store: Store, visit: Visit, by: str) -> None:
    page = visit(server.address)
    expected = []
    for key, choice in (("ArrowLeft", "left"), ("ArrowRight", "right"), ("ArrowUp", "tie"), ("ArrowDown", "skip")):
        if by == "keys":
            expected.append((press(page, key), choice))
        else:
            number = ready(page)
            page.click(f"#choose-{choice}")
            expected.append((number, choice))
    assert answers(store, 4, page) == expected
    assert all(0.2 < (item.answer.seconds or 0) < 10 for item in store.comparisons().added)


def test_a_held_key_counts_once_and_one_too_soon_not_at_all(
    server: LabellingServer, store: Store, visit: Visit
) -> None:
    page = visit(server.address)
    first = ready(page)
    for _ in range(5):
        page.keyboard.down("ArrowLeft")  # after the first, as a keyboard's own repetition
    until(page, f"document.body.dataset.pair && document.body.dataset.pair !== '{first}'")
    page.wait_for_timeout(GUARD_OVER)
    for _ in range(3):
        page.keyboard.down("ArrowLeft")
    page.keyboard.up("ArrowLeft")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")  # within the guard of the pair that has just come
    assert [choice for _, choice in answers(store, 2, page)] == ["left", "right"]
    page.wait_for_timeout(300)
    assert store.progress().answered == 2


def test_both_clips_are_at_the_same_frame_whatever_is_done(server: LabellingServer, visit: Visit) -> None:
    page = visit(server.address)
    ready(page)

    def frame() -> int:
        return int(page.text_content("#frame").partition("/")[0])

    def together() -> None:
        left, right = square(page, "left"), square(page, "right")
        assert left == pytest.approx(right, abs=0.03)  # a frame is 0.07, what compression blurs 0.02
        # The square's middle goes from 4 to 28 pixels of 32 over twelve frames.
        assert left == pytest.approx((4 + (frame() - 1) * 24 / 11) / 32, abs=0.04)

    page.keyboard.press(" ")
    assert page.get_attribute("#play", "aria-label") == "Play the clips"
    stopped = frame()
    page.wait_for_timeout(300)
    assert frame() == stopped
    together()
    page.keyboard.press("r")
    page.keyboard.press(" ")
    for key, by in ((".", 1), (".", 1), (",", -1)):
        before = frame()
        page.keyboard.press(key)
        assert frame() == before + by
        together()
    page.evaluate("document.getElementById('scrubber').value = 9")
    page.dispatch_event("#scrubber", "input")
    assert frame() == 10
    together()
    for key, speed in (("]", "1.25×"), ("]", "1.5×"), ("]", "2×"), ("]", "2×"), *(("[", None),) * 5, ("[", "0.25×")):
        page.keyboard.press(key)
        if speed is not None:
            assert page.text_content("#speed") == speed
    page.keyboard.press("?")
    assert page.is_visible("#help-dialog")
    page.keyboard.press("ArrowLeft")  # answers nothing while the list is open
    page.keyboard.press("Escape")
    assert page.text_content("#done").startswith("0")


def test_clips_of_different_lengths_end_one_after_the_other(tmp_path: Path, visit: Visit) -> None:
    from page_makers import sheet
    from store_makers import identifier

    with drawn_store(tmp_path / "odd.db", 1) as store:
        store.set_sheet(identifier(1), *sheet(1, 4, 32))
        with labelling_server(store.url, PLAIN, lambda line: None) as server:
            page = visit(server.address)
            ready(page)
            page.keyboard.press(" ")
            page.evaluate("document.getElementById('scrubber').value = 8")
            page.dispatch_event("#scrubber", "input")
            ended = page.eval_on_selector_all(".side.ended", "sides => sides.map(side => side.id)")
            assert len(ended) == 1
            assert page.text_content("#frame") == "9 / 12"
            assert square(page, ended[0].partition("-")[0]) == pytest.approx(28 / 32, abs=0.04)


def test_undo_goes_back_more_than_twenty_answers_and_the_new_ones_count(
    server: LabellingServer, store: Store, visit: Visit
) -> None:
    page = visit(server.address)
    given = [press(page, "ArrowLeft") for _ in range(22)]
    answers(store, 22, page)
    for number in reversed(given):
        page.keyboard.press("z")
        until(page, f"document.body.dataset.pair === '{number}'")
    assert store.progress().answered == 0
    assert press(page, "ArrowRight") == given[0]
    page.wait_for_timeout(GUARD_OVER)
    page.keyboard.press("Backspace")
    until(page, f"document.body.dataset.pair === '{given[0]}'")
    page.wait_for_timeout(GUARD_OVER)
    page.keyboard.press("ArrowUp")
    assert answers(store, 1, page) == [(given[0], "tie")]


def test_two_people_at_once_never_get_the_same_pair(server: LabellingServer, store: Store, visit: Visit) -> None:
    pages = [visit(server.address, who) for who in ("ann", "bob")]
    given: list[int] = []
    for _ in range(5):
        for page in pages:
            given.append(press(page, "ArrowLeft"))
    assert len(set(given)) == 10
    assert {number for number, _ in answers(store, 10, pages[0])} == set(given)
    until(pages[0], "document.getElementById('done').textContent.startsWith('10')")


def test_a_reload_in_the_middle_goes_on_with_the_same_pair(server: LabellingServer, store: Store, visit: Visit) -> None:
    page = visit(server.address)
    press(page, "ArrowLeft")
    number = ready(page)
    page.reload()
    assert ready(page) == number
    page.keyboard.press("ArrowRight")
    assert answers(store, 2, page)[1] == (number, "right")


def test_answers_wait_while_the_server_is_away_and_none_is_lost_or_counted_twice(store: Store, visit: Visit) -> None:
    first = labelling_server(store.url, PLAIN, lambda line: None)
    first.start()
    page = visit(first.address)
    press(page, "ArrowLeft")
    ready(page)
    answers(store, 1, page)
    page.wait_for_timeout(300)  # until three pairs are ready
    first.stop()
    for _ in range(3):
        press(page, "ArrowRight")
    page.wait_for_selector("#notice:not([hidden])")
    assert "nothing is lost" in page.text_content("#notice")
    with labelling_server(store.url, PageConfig(port=first.port, second_opinions=0, repeats=0), lambda line: None):
        kept = answers(store, 4, page)
        assert [choice for _, choice in kept] == ["left", "right", "right", "right"]
        assert len({number for number, _ in kept}) == 4
        page.wait_for_selector("#notice", state="hidden")
        assert press(page, "ArrowUp")
        answers(store, 5, page)


def test_answers_kept_by_the_browser_are_sent_after_a_reload(
    server: LabellingServer, store: Store, visit: Visit
) -> None:
    page = visit(server.address)
    ready(page)
    page.wait_for_timeout(300)
    page.route("**/api/answers", lambda route: route.abort())
    number = press(page, "ArrowLeft")
    assert page.evaluate("JSON.parse(localStorage.getItem('rllab.outbox')).length") == 1
    page.unroute("**/api/answers")
    page.reload()
    assert answers(store, 1, page) == [(number, "left")]
    assert ready(page) != number


def test_an_offline_minute_is_worked_through(server: LabellingServer, store: Store, visit: Visit) -> None:
    page = visit(server.address)
    ready(page)
    page.wait_for_timeout(300)
    page.context.set_offline(True)
    given = [press(page, "ArrowLeft") for _ in range(2)]
    page.keyboard.press("z")  # of an answer that has not been sent
    until(page, f"document.body.dataset.pair === '{given[1]}'")
    press(page, "ArrowRight")
    assert store.progress().answered == 0
    page.context.set_offline(False)
    assert answers(store, 2, page) == [(given[0], "left"), (given[1], "right")]


def test_an_empty_queue_says_so_and_goes_on_by_itself(tmp_path: Path, visit: Visit) -> None:
    with (
        drawn_store(tmp_path / "few.db", 1) as store,
        labelling_server(store.url, PLAIN, lambda line: None) as server,
    ):
        page = visit(server.address)
        press(page, "ArrowLeft")
        page.wait_for_selector("#empty:not([hidden])")
        until(page, "document.getElementById('empty-reason').textContent.includes('is answered')")
        assert page.is_disabled("#choose-left")
        add_drawn(store, range(1, 2))
        ready(page)
        assert not page.is_visible("#empty")


def test_a_clip_that_is_gone_is_skipped_and_told_of(server: LabellingServer, store: Store, visit: Visit) -> None:
    pair = store.open_pairs()[0]
    page = visit(server.address, "bob")  # takes some, so that the server knows of their frames
    ready(page)
    held = store.leased("bob")
    page.context.close()
    with store.database.write() as connection:
        connection.execute(delete(schema.sheets).where(schema.sheets.c.clip == pair.first))
    assert pair.id in {each.id for each in held}
    page = visit(server.address, "bob")
    assert ready(page) != 1
    page.wait_for_selector("#notice:not([hidden])")
    assert "A question about it was left out" in page.text_content("#notice")
    assert pair.id not in {each.id for each in store.open_pairs()}


def test_pause_gives_the_pairs_to_others_and_resume_goes_on(
    server: LabellingServer, store: Store, visit: Visit
) -> None:
    page = visit(server.address)
    ready(page)
    page.wait_for_timeout(300)
    assert len(store.leased("ann")) == 4
    page.click("#pause")
    until(page, "document.getElementById('empty-reason').textContent.includes('paused')")
    page.wait_for_timeout(200)
    assert store.leased("ann") == []
    page.keyboard.press("ArrowLeft")
    page.click("#pause")
    ready(page)
    assert store.progress().answered == 0


def test_a_newcomer_is_asked_for_a_name_and_can_change_it(server: LabellingServer, store: Store, visit: Visit) -> None:
    page = visit(server.address, None)
    page.wait_for_selector("#name-dialog[open]")
    page.click("#name-ok")
    assert "Give a name" in page.text_content("#name-problem")
    page.fill("#name", "Zoë")
    page.keyboard.press("Enter")
    press(page, "ArrowLeft")
    page.click("#person")
    page.fill("#name", "yan")
    page.click("#name-ok")
    until(page, "document.getElementById('person').textContent === 'yan'")
    press(page, "ArrowLeft")
    answers(store, 2, page)
    assert set(store.progress().by_annotator) == {"Zoë", "yan"}


@pytest.mark.parametrize(("width", "height", "stacked"), [(360, 640, True), (1600, 900, False)])
def test_the_page_fits_narrow_and_wide(
    server: LabellingServer, visit: Visit, width: int, height: int, stacked: bool
) -> None:
    page = visit(server.address)
    page.set_viewport_size({"width": width, "height": height})
    ready(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    left, right = (page.locator(f"#{side}-side").bounding_box() for side in ("left", "right"))
    assert (right["y"] > left["y"]) is stacked
    assert left["width"] == pytest.approx(right["width"], abs=1)
    for choice in ("left", "tie", "skip", "right"):
        box = page.locator(f"#choose-{choice}").bounding_box()
        assert box["height"] >= 44
        assert box["width"] >= 44
        assert box["y"] + box["height"] <= height
    if stacked:
        assert page.locator("#choose-left").bounding_box()["y"] > 0.75 * height


def test_texts_are_text_whatever_they_hold(tmp_path: Path, visit: Visit) -> None:
    hostile = [
        "<img src=x onerror=\"document.title='hacked'\">", "<script>document.title='hacked'</script>\n  two  spaces",
        "</div><style>body{display:none}</style>&lt;b&gt;" + "long " * 2000,
    ]  # fmt: skip
    texts = [(hostile[0], hostile[1], hostile[2]), ("plain?", "yes", "no")]
    with (
        text_store(tmp_path / "texts.db", texts) as store,
        labelling_server(store.url, PLAIN, lambda line: None) as server,
    ):
        page = visit(server.address)
        ready(page)
        assert page.text_content("#prompt") == hostile[0]
        assert {page.text_content(f"#{side}-text") for side in ("left", "right")} == set(hostile[1:])
        assert page.eval_on_selector_all("main script, main img, main style, main b", "found => found.length") == 0
        assert not page.is_visible("#transport")
        assert page.evaluate("document.documentElement.scrollWidth") <= 1200
        left = page.text_content("#left-text")
        press(page, "ArrowLeft")
        press(page, "ArrowUp")
        answers(store, 2, page)
        first = store.comparisons().added[0]
        chosen = first.pair.first if first.answer.label is Label.FIRST else first.pair.second
        (clip,) = store.clips([chosen])
        assert clip.details["response"] == left
        page.goto(server.address + "history")
        page.wait_for_selector(".answers li")
        assert page.title() == "History · rllab"
        assert hostile[0] in page.text_content(".answers")


def test_control_characters_and_texts_from_right_to_left_come_as_they_are(tmp_path: Path, visit: Visit) -> None:
    prompt, first, second = "שלום \u202eabc\n  tail", "nul \0 and \x1b[31m\ttab", "مرحبا\n\n  world \u2067x"
    with (
        text_store(tmp_path / "texts.db", [(prompt, first, second), ("", "no prompt", "at all")]) as store,
        labelling_server(store.url, PLAIN, lambda line: None) as server,
    ):
        page = visit(server.address)
        ready(page)
        shown = {
            side: page.evaluate(f"document.getElementById('{side}-text').textContent") for side in ("left", "right")
        }
        assert page.evaluate("document.getElementById('prompt').textContent") == prompt
        assert set(shown.values()) == {first, second}
        # Directions of a text stay within it: nothing else on the page is turned round.
        assert page.evaluate("getComputedStyle(document.getElementById('prompt')).unicodeBidi") == "plaintext"
        assert page.text_content("#choose-left span:nth-child(2)") == "Left is better"
        press(page, "ArrowRight")
        ready(page)
        assert not page.is_visible("#prompt-part")
        answers(store, 1, page)
        (item,) = store.comparisons().added
        chosen = item.pair.first if item.answer.label is Label.FIRST else item.pair.second
        assert store.clips([chosen])[0].details["response"] == shown["right"]


@pytest.mark.parametrize(("width", "height", "stacked"), [(360, 740, True), (1600, 900, False)])
def test_long_texts_scroll_in_their_place_at_any_width(
    tmp_path: Path, visit: Visit, width: int, height: int, stacked: bool
) -> None:
    long = "".join(f"line {number}\n" for number in range(400))
    with (
        text_store(tmp_path / "texts.db", [("What?\n" * 60, long, "w" * 20_000)]) as store,
        labelling_server(store.url, PLAIN, lambda line: None) as server,
    ):
        page = visit(server.address)
        page.set_viewport_size({"width": width, "height": height})
        ready(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        prompt, left, right = (
            page.locator(f"#{name}").bounding_box() for name in ("prompt", "left-side", "right-side")
        )
        assert prompt["y"] + prompt["height"] <= left["y"]
        assert (right["y"] > left["y"]) is stacked
        for name in ("prompt", "left-text", "right-text"):
            box = f"document.getElementById('{name}')"
            assert page.evaluate(f"{box}.scrollHeight > {box}.clientHeight")
        # By the keyboard: a text that has the focus scrolls, and is not answered.
        page.focus("#prompt")
        page.keyboard.press("Tab")
        page.keyboard.press("PageDown")
        until(page, "document.activeElement.scrollTop > 0")
        assert store.progress().answered == 0


def test_an_answer_is_revised_on_the_page_of_answers(server: LabellingServer, store: Store, visit: Visit) -> None:
    page = visit(server.address)
    numbers = [press(page, "ArrowLeft") for _ in range(2)]
    answers(store, 2, page)
    page.goto(server.address + "history")
    newest = page.locator(".answers li").first
    newest.locator("button", has_text="Right").click()
    until(page, "document.getElementById('announce').textContent === 'Changed.'")
    assert sorted(answers(store, 2, page)) == sorted([(numbers[0], "left"), (numbers[1], "right")])
    page.reload()
    newest = page.locator(".answers li").first
    assert newest.locator("[aria-pressed=true]").text_content() == "Right ▶"
    with page.expect_download() as saved:
        newest.locator("a", has_text="left").click()
    assert Path(saved.value.path()).read_bytes()[4:8] == b"ftyp"


def test_the_footer_tells_of_the_training(server: LabellingServer, store: Store, visit: Visit) -> None:
    page = visit(server.address)
    status = {
        "phase": "training", "sentence": "The agent trains on what it has been told.", "step": 500, "steps": 1000,
        "asked": 30, "labels": 200, "next_questions": None, "accuracy": [[10, 0.5], [20, 0.75]],
        "progress": [[100, 1.0], [500, 20.5]],
    }  # fmt: skip
    store.set_status("run", status)
    until(page, "document.getElementById('trainer').textContent.includes('500 of 1,000')")
    assert "75 %" in page.text_content("#accuracy")
    assert page.text_content("#done") == "0 of 200"
    assert page.locator("#progress svg polyline").count() == 1


def test_who_wants_less_motion_starts_the_clips(server: LabellingServer, visit: Visit) -> None:
    page = visit(server.address, reduced_motion="reduce")
    ready(page)
    assert page.text_content("#frame").startswith("1 /")
    page.wait_for_timeout(300)
    assert page.text_content("#frame").startswith("1 /")
    page.keyboard.press(" ")
    until(page, "!document.getElementById('frame').textContent.startsWith('1 /')")


def test_a_long_clip_is_a_video_driven_by_the_same_clock(tmp_path: Path, visit: Visit) -> None:
    with (
        drawn_store(tmp_path / "long.db", 1, frames=160, size=64) as store,
        labelling_server(store.url, PLAIN, lambda line: None) as server,
    ):
        page = visit(server.address)
        ready(page)
        page.keyboard.press(" ")
        for frame in (100, 40):
            page.evaluate(f"document.getElementById('scrubber').value = {frame}")
            page.dispatch_event("#scrubber", "input")
            expected = (4 + frame * 56 / 159) / 64
            page.wait_for_timeout(400)
            for side in ("left", "right"):
                assert square(page, side) == pytest.approx(expected, abs=0.04)


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The source of axe-core, from npm."""
    folder = tmp_path_factory.mktemp("axe")
    if shutil.which("npm") is None:
        pytest.skip("there is no npm here to fetch axe-core with")
    done = subprocess.run(["npm", "pack", "axe-core@4"], cwd=folder, capture_output=True, text=True, timeout=60)
    if done.returncode:
        pytest.skip("axe-core cannot be fetched from npm")
    (archive,) = folder.glob("*.tgz")
    with tarfile.open(archive) as packed:
        member = packed.extractfile("package/axe.min.js")
        assert member is not None
        return member.read().decode()


def faults(page: Any, axe: str) -> list[str]:
    """What axe-core finds on the page that is serious."""
    page.evaluate(axe)
    found = page.evaluate("axe.run().then(result => result.violations)")
    return [
        f"{each['id']}: {each['help']} ({each['nodes'][0]['target']})"
        for each in found if each["impact"] in ("serious", "critical")
    ]  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault_on_any_page(
    server: LabellingServer, store: Store, visit: Visit, axe: str, scheme: str
) -> None:
    page = visit(server.address, color_scheme=scheme, bypass_csp=True)
    for _ in range(2):
        press(page, "ArrowLeft")
    answers(store, 2, page)

    assert faults(page, axe) == []
    page.keyboard.press("?")
    assert faults(page, axe) == []
    for path, there in (("stats", "#people td"), ("history", ".answers li")):
        page.goto(server.address + path)
        page.wait_for_selector(there)
        assert faults(page, axe) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault_where_texts_are_compared(
    tmp_path: Path, visit: Visit, axe: str, scheme: str
) -> None:
    texts = [("What?\n" * 60, "long\n" * 400, "short"), ("Why?", "Because.", "No.")]
    with (
        text_store(tmp_path / "texts.db", texts) as store,
        labelling_server(store.url, PLAIN, lambda line: None) as server,
    ):
        page = visit(server.address, color_scheme=scheme, bypass_csp=True)
        ready(page)
        assert faults(page, axe) == []
        page.keyboard.press("?")
        assert faults(page, axe) == []
        page.keyboard.press("Escape")
        press(page, "ArrowLeft")
        answers(store, 1, page)
        page.goto(server.address + "history")
        page.wait_for_selector(".answers li")
        assert faults(page, axe) == []
