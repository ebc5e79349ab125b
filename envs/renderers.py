"""Drawing without a display: which library pygame and MuJoCo draw by, and a sentence where there is none."""

import ctypes.util
import os
import sys

from gymnasium.envs.registration import EnvSpec

from envs.errors import RllabError
from envs.registry import family_of

# What MuJoCo draws by, the library that must be there, and Debian's package of it. GLFW comes with the extra `mujoco`.
_MUJOCO_RENDERERS = {"egl": ("EGL", "libegl1"), "osmesa": ("OSMesa", "libosmesa6")}


def has_display() -> bool:
    """Whether there is a screen to draw on."""
    return sys.platform != "linux" or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ


def prepare_rendering(spec: EnvSpec, render_mode: str | None) -> None:
    """Lets pygame and MuJoCo draw off screen where there is no display, unless the user chose how already.

    Raises:
        RllabError: MuJoCo has nothing to draw by.
    """
    if render_mode is None:
        return
    if not has_display():
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    if family_of(spec).package == "mujoco":
        _prepare_mujoco(spec.id)


def _prepare_mujoco(id: str) -> None:
    chosen = os.environ.get("MUJOCO_GL", "").lower()
    installed = [name for name, (library, _) in _MUJOCO_RENDERERS.items() if ctypes.util.find_library(library)]
    if not chosen:
        if has_display():
            return
        if not installed:
            raise RllabError(
                f"'{id}' cannot be drawn: without a display MuJoCo draws by EGL or OSMesa, and neither is installed "
                "(on Debian: apt install libegl1 or libosmesa6)."
            )
        os.environ["MUJOCO_GL"] = installed[0]
    elif chosen == "glfw":
        if not has_display():
            raise RllabError(
                f"'{id}' cannot be drawn: MUJOCO_GL=glfw needs a display, and there is none: unset it, or set egl."
            )
    elif chosen not in _MUJOCO_RENDERERS:
        raise RllabError(f"MUJOCO_GL is '{chosen}', which is no renderer of MuJoCo: set egl, osmesa or glfw.")
    elif chosen not in installed:
        library, package = _MUJOCO_RENDERERS[chosen]
        raise RllabError(
            f"'{id}' cannot be drawn: MUJOCO_GL={chosen} needs the library {library}, which is not installed "
            f"(on Debian: apt install {package})."
        )
