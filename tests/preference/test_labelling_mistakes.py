"""The labelling page, where a mistake would record what nobody said."""

# ruff: noqa: F401, F811  (fixtures of the page's other tests)

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette")
pytest.importorskip("playwright.sync_api")
from page_makers import drawn_store
from test_labelling_page import (
    CHROMIUM,
    PLAIN,
    Visit,
    answers,
    browser,
    press,
    pytestmark,
    ready,
    server,
    store,
    until,
    visit,
)  # fmt: skip

from preference.labelling import labelling_server
from preference.labelling.lookup import Lookup
from preference.labelling.serve import LabellingServer
from preference.labelling.settings import PageConfig
from preference.store import Store


@pytest.fixture
def distrustful(browser: Any) -> Iterator[Any]:
    opened = browser.browser_type.launch(
        executable_path=CHROMIUM, args=["--no-sandbox", "--host-resolver-rules=MAP labels.test 127.0.0.1"]
    )
    yield opened
    opened.close()


def ground(page: Any, side: str) -> int:
    """The grey of a clip's ground, by which the makers tell clips apart."""
    grey: int = page.evaluate(
        """side => document.getElementById(`${side}-canvas`).getContext("2d").getImageData(2, 2, 1, 1).data[0]""", side
    )
    return grey


def test_who_takes_over_sees_the_sides_that_the_server_means(
    server: LabellingServer, store: Store, visit: Visit
) -> None:
    page = visit(server.address)
    ready(page)
    page.wait_for_timeout(500)
    page.click("#person")
    page.fill("#name", "bob")
    page.click("#name-ok")
    until(page, "document.getElementById('person').textContent === 'bob'")
    seen = {}
    for _ in range(4):
        number = ready(page)
        seen[number] = ground(page, "left")
        press(page, "ArrowLeft")
    answers(store, 4, page)
    lookup = Lookup(store)
    for item in store.comparisons().added:
        (number,) = lookup.numbers([item.pair])
        meant = item.pair.second if item.answer.swapped else item.pair.first
        assert seen[number] == pytest.approx(40 + meant.int * 37 % 160, abs=4)


def test_space_after_a_click_on_an_answer_pauses_and_answers_nothing(
    server: LabellingServer, store: Store, visit: Visit
) -> None:
    page = visit(server.address)
    ready(page)
    page.click("#choose-left")
    answers(store, 1, page)
    number = ready(page)
    page.keyboard.press(" ")
    page.wait_for_timeout(300)
    assert store.progress().answered == 1
    assert int(page.get_attribute("body", "data-pair")) == number
    assert page.get_attribute("#play", "aria-label") == "Play the clips"


def test_enter_held_on_an_answer_counts_once(server: LabellingServer, store: Store, visit: Visit) -> None:
    page = visit(server.address)
    ready(page)
    page.wait_for_timeout(300)
    page.focus("#choose-left")
    for _ in range(30):
        page.keyboard.down("Enter")
        page.wait_for_timeout(30)
    page.keyboard.up("Enter")
    page.wait_for_timeout(500)
    assert store.progress().answered == 1


def test_an_undo_whose_answer_was_lost_takes_back_one_when_asked_again(
    server: LabellingServer, store: Store, visit: Visit
) -> None:
    page = visit(server.address)
    given = [press(page, "ArrowLeft") for _ in range(3)]
    answers(store, 3, page)

    def reach_and_lose(route: Any) -> None:
        route.fetch()
        route.abort()

    page.route("**/api/undo", reach_and_lose)
    page.keyboard.press("z")
    until(page, "!document.getElementById('notice').hidden")
    page.unroute("**/api/undo")
    page.keyboard.press("z")
    until(page, f"document.body.dataset.pair === '{given[2]}'")
    assert store.progress().answered == 2


def test_the_page_works_where_the_browser_does_not_trust_the_connection(tmp_path: Path, distrustful: Any) -> None:
    """Over plain HTTP at a name that is not this machine's, browsers keep some of their functions to themselves."""
    with drawn_store(tmp_path / "plain.db", 6) as store:
        config = PageConfig(port=0, second_opinions=0, repeats=0, names=("labels.test",))
        with labelling_server(store.url, config, lambda line: None) as server:
            page = distrustful.new_page()
            errors: list[str] = []
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.goto(f"http://labels.test:{server.port}/")
            assert page.evaluate("window.isSecureContext") is False
            page.fill("#name", "ann")
            page.click("#name-ok")
            number = ready(page)
            page.keyboard.press("ArrowLeft")
            page.wait_for_timeout(500)
            assert errors == []
            assert answers(store, 1, page) == [(number, "left")]
            page.close()


def test_brackets_made_with_the_option_key_change_the_speed(server: LabellingServer, visit: Visit) -> None:
    page = visit(server.address)
    ready(page)
    page.evaluate("document.dispatchEvent(new KeyboardEvent('keydown', {key: ']', altKey: true, bubbles: true}))")
    assert page.text_content("#speed") == "1.25×"


def test_a_server_that_says_nothing_does_not_hold_answers_for_ever(
    server: LabellingServer, store: Store, visit: Visit
) -> None:
    """As when a network goes without a word: nothing fails, and nothing comes."""
    page = visit(server.address)
    shorter = "{ const real = AbortSignal.timeout.bind(AbortSignal); AbortSignal.timeout = () => real(1000); }"
    page.evaluate(shorter)
    ready(page)
    page.wait_for_timeout(300)
    held: list[Any] = []
    page.route("**/api/answers", lambda route: route.continue_() if held else held.append(route))
    number = press(page, "ArrowLeft")
    assert answers(store, 1, page) == [(number, "left")]
    assert held
