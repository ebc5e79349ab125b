"""Vector environments alone, stepped by random actions: Gymnasium's two, ours, and EnvPool where it is installed.

CartPole-v1, HalfCheetah-v5 and Humanoid-v5, each × 8, environment steps a second by the wall clock (CPU seconds of
this process would miss the work of others). Ratios are to the faster of Gymnasium's SyncVectorEnv and AsyncVectorEnv,
both at their defaults. Those two, and our sync and workers, reset on the same step; native environments and EnvPool
spend a step on each reset, which is counted. Worker processes need as many quiet cores to be worth it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import gymnasium
import tyro
from common import Result, console, interleave, print_machine, stepping
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from rich.table import Table

from envs.errors import RllabError
from envs.make import EnvConfig, make_vector
from envs.registry import family_of, find_spec
from envs.simulators import quiet_mujoco
from envs.workers import available_cores

PEER = "Gymnasium's "


@dataclass(frozen=True)
class Arguments:
    """What to measure."""

    envs: tuple[str, ...] = ("CartPole-v1", "HalfCheetah-v5", "Humanoid-v5")
    """Gymnasium ids."""
    num_envs: int = 8
    """Environments side by side."""
    columns: int = 500
    """Steps of each environment in a repetition."""
    repetitions: int = 5
    """How often each contender takes its turn, after one warm-up."""
    workers: tuple[int, ...] = (0,)
    """Numbers of worker processes to try; 0: one for each core."""


def theirs(id: str, num_envs: int, kind: Callable[..., VectorEnv[Any, Any, Any]]) -> VectorEnv[Any, Any, Any]:
    """Gymnasium's own, at its defaults but for the mode of reset and the checker, which is off."""
    constructors = [partial(gymnasium.make, id, disable_env_checker=True)] * num_envs
    with quiet_mujoco(needed=family_of(find_spec(id)).package == "mujoco"):
        return kind(constructors, autoreset_mode=AutoresetMode.SAME_STEP)


def contenders(id: str, arguments: Arguments) -> dict[str, VectorEnv[Any, Any, Any]]:
    """All that can step this environment here, by name."""
    config = EnvConfig(id, arguments.num_envs, "sync", "same_step")
    made = {
        f"{PEER}SyncVectorEnv": theirs(id, arguments.num_envs, SyncVectorEnv),
        f"{PEER}AsyncVectorEnv": theirs(id, arguments.num_envs, AsyncVectorEnv),
        "rllab, sync": make_vector(config),
    }
    for workers in arguments.workers:
        several = replace(config, vectorization="workers", workers=workers)
        made[f"rllab, {min(workers or available_cores(), arguments.num_envs)} workers"] = make_vector(several)
    for name, vectorization in (("native", "native"), ("EnvPool", "envpool")):
        other = replace(config, vectorization=vectorization, autoreset="next_step")  # type: ignore[arg-type]
        try:
            made[f"rllab, {name}"] = make_vector(other)
        except RllabError as error:
            console.print(f"Not here: {error}")
    return made


def show(title: str, results: Sequence[Result]) -> None:
    """Print rates, and ratios to the faster of Gymnasium's own."""
    table = Table("", title=title, title_justify="left")
    for heading in ("steps/s, median", "min – max", "µs a step", "× Gymnasium"):
        table.add_column(heading, justify="right")
    best = max(result.median for result in results if result.contender.name.startswith(PEER))
    for result in results:
        table.add_row(
            result.contender.name,
            f"{result.median:,.0f}",
            f"{min(result.rates):,.0f} – {max(result.rates):,.0f}",
            f"{1e6 / result.median:.1f}",
            f"{result.median / best:.2f}",
        )
    console.print(table)


def main(arguments: Arguments) -> None:
    """Measure and print."""
    print_machine("mujoco", "envpool")
    for id in arguments.envs:
        made = contenders(id, arguments)
        try:
            work = [stepping(name, vector_env, arguments.columns) for name, vector_env in made.items()]
            title = f"{id} × {arguments.num_envs}: {arguments.columns} columns, {arguments.repetitions} repetitions"
            show(title, interleave(work, arguments.repetitions))
        finally:
            for vector_env in made.values():
                vector_env.close()


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
