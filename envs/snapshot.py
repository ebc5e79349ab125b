"""Snapshots of vector environments: everything that decides what happens next, as plain data, for exact resuming.

How a single environment's is taken is told in `envs.episode`.
"""

from typing import Any

from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import iterate

from envs.atari_vector import AtariVector
from envs.attributes import get_attributes, set_attributes
from envs.errors import RllabError
from envs.multi_agent import MultiAgentVectorEnv
from envs.plain_data import NotPlainError
from envs.pool import PoolVectorEnv
from envs.serial import SerialVectorEnv
from envs.workers import WorkerVectorEnv

_ONE_BY_ONE = SerialVectorEnv | WorkerVectorEnv | MultiAgentVectorEnv
"""Each of whose environments has a snapshot of its own."""


def capture(vector_env: VectorEnv[Any, Any, Any]) -> dict[str, Any]:
    """A snapshot of a vector environment made by `envs.make.make_vector`, all its environments included.

    Returns:
        A nested dict of JSON values and NumPy arrays. Of EnvPool's environments, and of native ones whose state is not
        plain data, there is none: it says `None`.
    """
    env = vector_env.unwrapped
    if isinstance(env, _ONE_BY_ONE):
        return {"environments": {str(index): snapshot for index, snapshot in enumerate(env.capture())}}
    if isinstance(env, PoolVectorEnv):
        return {"native": None}
    if isinstance(env, AtariVector):
        return {"native": env.get_snapshot()}
    try:
        return {"native": get_attributes(env)}
    except NotPlainError:
        return {"native": None}


def restore(vector_env: VectorEnv[Any, Any, Any], snapshot: dict[str, Any]) -> dict[int, Any]:
    """Continues from what `capture` gave, in a vector environment made alike.

    Returns:
        By index, the first observations of those environments that could not be restored exactly and have
        begun a new episode instead. Empty when all is exactly as it was.

    Raises:
        RllabError: the snapshot is of other environments, or of another number of them.
    """
    env = vector_env.unwrapped
    if isinstance(env, _ONE_BY_ONE) != ("environments" in snapshot):
        raise RllabError("Snapshots of native vector environments and of others cannot be exchanged.")
    if isinstance(env, _ONE_BY_ONE):
        snapshots = list(snapshot["environments"].values())
        count = len(env.matches) if isinstance(env, MultiAgentVectorEnv) else env.num_envs
        if len(snapshots) != count:
            raise RllabError(f"A snapshot of {len(snapshots)} environments cannot be restored into {count}.")
        return env.restore(snapshots)
    if snapshot["native"] is None:
        observations, _ = vector_env.reset()
        return dict(enumerate(iterate(vector_env.observation_space, observations)))
    if isinstance(env, AtariVector):
        return env.set_snapshot(snapshot["native"])
    set_attributes(env, snapshot["native"])
    return {}
