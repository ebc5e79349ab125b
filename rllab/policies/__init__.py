"""Policies: distributions, networks, and the actor-critic that puts them together."""

from rllab.policies.actor_critic import ActorCritic
from rllab.policies.modules import PolicyConfig
from rllab.policies.policy import Evaluation, Policy

__all__ = ["ActorCritic", "Evaluation", "Policy", "PolicyConfig"]
