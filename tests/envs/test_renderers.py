"""Without a display MuJoCo draws by what is installed, and where nothing is a sentence says what to install."""

import os
from typing import Any

import pytest

import envs.renderers
from envs.errors import RllabError
from envs.registry import find_spec
from envs.renderers import prepare_rendering

pytest.importorskip("mujoco")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A machine without a display, with the libraries that are named."""
    for variable in ("DISPLAY", "WAYLAND_DISPLAY", "MUJOCO_GL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(envs.renderers.sys, "platform", "linux")
    # Set first, so that what the code sets is taken back afterwards.
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")

    def installed(*libraries: str, chosen: str = "") -> None:
        monkeypatch.setenv("MUJOCO_GL", chosen)
        find = {library: f"lib{library}.so.1" for library in libraries}.get
        monkeypatch.setattr(envs.renderers.ctypes.util, "find_library", find)

    return installed


def prepare(id: str = "Hopper-v5", render_mode: str | None = "rgb_array") -> None:
    prepare_rendering(find_spec(id), render_mode)


def test_egl_comes_before_osmesa(machine: Any) -> None:
    machine("EGL", "OSMesa")
    prepare()
    assert os.environ["MUJOCO_GL"] == "egl"


def test_osmesa_serves_where_there_is_no_egl(machine: Any) -> None:
    machine("OSMesa")
    prepare()
    assert os.environ["MUJOCO_GL"] == "osmesa"


def test_without_any_renderer_the_sentence_says_what_to_install(machine: Any) -> None:
    machine()
    with pytest.raises(RllabError, match=r"'Hopper-v5' cannot be drawn.*apt install libegl1 or libosmesa6"):
        prepare()


def test_what_is_not_drawn_needs_no_renderer(machine: Any) -> None:
    machine()
    prepare(render_mode=None)
    prepare("CartPole-v1")


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        ("osmesa", r"MUJOCO_GL=osmesa needs the library OSMesa.*apt install libosmesa6"),
        ("glfw", r"MUJOCO_GL=glfw needs a display"),
        ("vulkan", r"MUJOCO_GL is 'vulkan', which is no renderer"),
    ],
)
def test_a_renderer_that_was_chosen_and_is_not_there_is_named(machine: Any, chosen: str, sentence: str) -> None:
    machine("EGL", chosen=chosen)
    with pytest.raises(RllabError, match=sentence):
        prepare()


def test_a_renderer_that_was_chosen_and_is_there_is_kept(machine: Any) -> None:
    machine("EGL", "OSMesa", chosen="osmesa")
    prepare()
    assert os.environ["MUJOCO_GL"] == "osmesa"
