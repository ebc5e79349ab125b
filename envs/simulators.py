"""What simulators need for an environment to be repeatable: MuJoCo's state, Box2D's worlds, Atari's emulators."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

# After `mj_step` these lag one integration step behind positions and velocities, and environments read them
# before the next step (Ant its torso's `xpos`, Humanoid its bodies' `xipos`): computed afresh from the
# restored positions they would be a step ahead, and the first reward after a restore would differ.
_DERIVED_FIELDS = (
    "xpos",
    "xquat",
    "xmat",
    "xipos",
    "ximat",
    "geom_xpos",
    "geom_xmat",
    "site_xpos",
    "site_xmat",
    "subtree_com",
    "subtree_linvel",
    "subtree_angmom",
    "cinert",
    "cvel",
    "cacc",
    "cfrc_int",
    "cfrc_ext",
    "qacc",
    "qfrc_actuator",
    "qfrc_passive",
    "qfrc_constraint",
    "actuator_force",
    "actuator_length",
    "actuator_velocity",
    "sensordata",
    "ten_length",
    "ten_velocity",
    "energy",
)


def mujoco_simulation(env: Any) -> tuple[Any, Any] | None:
    """The environment's MuJoCo model and data, or None if it has none."""
    mujoco = sys.modules.get("mujoco")
    model, data = getattr(env, "model", None), getattr(env, "data", None)
    if mujoco is None or not isinstance(model, mujoco.MjModel) or not isinstance(data, mujoco.MjData):
        return None
    return model, data


def get_mujoco_state(model: Any, data: Any) -> dict[str, NDArray[Any]]:
    """All that the next step depends on: the integration state, and what the last step derived."""
    import mujoco

    integration = np.empty(mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_INTEGRATION))
    mujoco.mj_getState(model, data, integration, mujoco.mjtState.mjSTATE_INTEGRATION)
    derived = {name: getattr(data, name).copy() for name in _DERIVED_FIELDS}
    return {"integration": integration, **derived}


def set_mujoco_state(model: Any, data: Any, state: dict[str, NDArray[Any]]) -> None:
    """Puts back what `get_mujoco_state` read."""
    import mujoco

    mujoco.mj_setState(model, data, state["integration"], mujoco.mjtState.mjSTATE_INTEGRATION)
    mujoco.mj_forward(model, data)
    # The forward pass wrote a new warm start for the constraint solver, which is part of the state.
    mujoco.mj_setState(model, data, state["integration"], mujoco.mjtState.mjSTATE_INTEGRATION)
    for name in _DERIVED_FIELDS:
        getattr(data, name)[...] = state[name]


@contextmanager
def quiet_mujoco(needed: bool) -> Iterator[None]:
    """While a model loads, keeps MuJoCo's advice to its author off the screen and out of MUJOCO_LOG.TXT."""
    if not needed:
        yield
        return
    import mujoco

    previous = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda message: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(previous)


def get_emulator_state(env: Any) -> NDArray[np.uint8] | None:
    """The state of an environment's Atari emulator with its random generator; None if it has none.

    It lacks the action that a sticky step repeats, so it is exact only just before a reset, which forgets that action.
    """
    ale = getattr(env, "ale", None)
    if ale is None or not hasattr(ale, "cloneState"):
        return None
    return np.frombuffer(ale.cloneState(include_rng=True).serialize(), np.uint8)


def set_emulator_state(env: Any, state: NDArray[np.uint8]) -> None:
    """Puts back what `get_emulator_state` read."""
    import ale_py

    env.ale.restoreState(ale_py.ALEState(np.asarray(state).tobytes()))


def renew_box2d_world(env: Any) -> None:
    """Before a reset, gives an environment that reuses its Box2D world an empty one.

    A world that has been stepped differs from a new one after its bodies are destroyed, so that in
    BipedalWalker the same seed and actions lead elsewhere after earlier episodes than in a new environment.
    LunarLander renews its world by itself (Gymnasium issue 728).
    """
    box2d = sys.modules.get("Box2D")
    world = getattr(env, "world", None)
    if box2d is None or not isinstance(world, box2d.b2World) or not hasattr(env, "_destroy"):
        return
    env._destroy()
    env.world = box2d.b2World(gravity=world.gravity)
