"""Episodes of equal length: how long one lasts then says nothing of how good it was (Christiano et al., appendix A)."""

from envs.registry import ATARI, constructor_arguments, family_of, find_spec
from envs.termination import TerminationName


def constant_horizon(env: str) -> TerminationName:
    """How episodes are made equally long: a game goes on with the next; MuJoCo's walkers may fall, if they have a
    switch for that; elsewhere the end is an absorbing state. Where there is no time limit, "episode"."""
    spec = find_spec(env)
    if family_of(spec) is ATARI:
        return "restart"
    name: TerminationName = "ignored" if "terminate_when_unhealthy" in constructor_arguments(spec) else "absorbing"
    return name if spec.max_episode_steps is not None else "episode"
