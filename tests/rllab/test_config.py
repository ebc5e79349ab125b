"""Configurations: layers, conversions, suggestions, and the way through JSON."""

import json
from typing import Any

import pytest

from envs.errors import RllabError
from rllab.agents import CONFIGS
from rllab.config import TrainConfig, configure, preset_for, presets


def test_settings_find_their_part_by_name() -> None:
    config = configure(
        "trpo", "CartPole-v1", preset=False,
        settings={"max_kl": 0.02, "num_envs": 3, "hidden_sizes": [7, 5], "steps": 999, "seed": 4, "device": "cpu"},
    )  # fmt: skip
    assert config.agent_name == "trpo"
    assert config.agent.max_kl == 0.02  # type: ignore[attr-defined]
    assert (config.env.id, config.env.num_envs) == ("CartPole-v1", 3)
    assert config.policy.hidden_sizes == (7, 5)
    assert (config.loop.steps, config.seed) == (999, 4)


def test_settings_lie_over_the_preset_and_the_preset_over_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    preset = {"num_envs": 2, "learning_rate": 1}
    monkeypatch.setattr("rllab.config.presets", lambda agent: {"CartPole-v1": preset} if agent == "ppo" else {})
    default = configure("ppo", "CartPole-v1", preset=False)
    layered = configure("ppo", "CartPole-v1", {"num_envs": 5})
    assert layered.env.num_envs == 5
    assert layered.agent.learning_rate == 1.0
    assert isinstance(layered.agent.learning_rate, float)
    assert layered.agent.discount == default.agent.discount
    assert default.env.num_envs not in (2, 5)
    assert configure("ppo", "Pendulum-v1").env.num_envs == default.env.num_envs
    assert preset_for("trpo", "CartPole-v1") == {}


@pytest.mark.parametrize("agent", CONFIGS)
def test_every_preset_is_a_configuration_whose_rollouts_divide(agent: str) -> None:
    for env in presets(agent):
        config = configure(agent, env)
        config.agent.check(config.env.num_envs, config.policy.recurrence != "none")
        assert TrainConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize("agent", CONFIGS)
def test_a_configuration_comes_back_from_json_equal(agent: str) -> None:
    settings = {"hidden_sizes": (3, 4), "env_kwargs": {"size": [1, 2]}, "max_episode_steps": 9, "recurrence": "gru"}
    for config in (configure(agent, "CartPole-v1", settings), configure(agent, "Ant-v5", preset=False)):
        again = TrainConfig.from_json(json.loads(json.dumps(config.to_json())))
        assert again == config
        assert type(again.agent) is type(config.agent)


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("learning_rat", "learning_rate"), ("num_env", "num_envs"), ("hidden_size", "hidden_sizes"), ("step", "steps")],
)
def test_an_unknown_setting_is_told_with_the_nearest(wrong: str, meant: str) -> None:
    with pytest.raises(RllabError, match=rf"'{wrong}'.*did you mean.*{meant}"):
        configure("ppo", "CartPole-v1", {wrong: 1})


def test_a_setting_of_another_agent_is_unknown() -> None:
    with pytest.raises(RllabError, match="clip_range"):
        configure("trpo", "CartPole-v1", {"clip_range": 0.1})


def test_an_unknown_agent_is_told_with_those_that_are() -> None:
    with pytest.raises(RllabError, match="reinforce, ppo, trpo"):
        configure("dqn", "CartPole-v1")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_envs", "8"), ("num_envs", 2.5), ("num_envs", True), ("steps", None), ("learning_rate", "fast"),
        ("hidden_sizes", "64"), ("hidden_sizes", [64, 1.5]), ("hidden_sizes", [0]), ("recurrence", "transformer"),
        ("objective", "clipp"), ("scale_rewards", 1), ("env_kwargs", "x"), ("discount", 1.01), ("gae_lambda", -0.1),
        ("learning_rate", 0.0), ("learning_rate", float("nan")), ("learning_rate", float("inf")),
        ("rollout_steps", 0), ("epochs", 0), ("clip_range", 0.0), ("max_grad_norm", -1.0), ("recurrent_size", 0),
        ("seed", -1), ("seed", 1.5), ("seed", "1"), ("device", 3), ("adam_epsilon", -1.0),
        ("entropy_coefficient", float("nan")),
    ],
)  # fmt: skip
def test_a_value_that_does_not_fit_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(RllabError, match=name):
        configure("ppo", "CartPole-v1", {name: value}, preset=False)


@pytest.mark.parametrize(
    "damage",
    [
        lambda document: document.pop("agent_name"),
        lambda document: document.update(agent_name="sarsa"),
        lambda document: document["agent"].update(unknown=1),
        lambda document: document.pop("seed"),
        lambda document: document.update(policy=None),
    ],
)
def test_a_file_of_another_version_is_told_so(damage: Any) -> None:
    document = json.loads(json.dumps(configure("ppo", "CartPole-v1").to_json()))
    damage(document)
    with pytest.raises(RllabError, match=r"config\.json does not fit this version"):
        TrainConfig.from_json(document)


MUJOCO = (
    "HalfCheetah", "Hopper", "Walker2d", "Ant", "Humanoid", "Swimmer", "Reacher", "InvertedPendulum",
    "InvertedDoublePendulum",
)  # fmt: skip


@pytest.mark.parametrize("agent", ["ppo", "trpo"])
@pytest.mark.parametrize("name", MUJOCO)
def test_mujocos_environments_have_the_papers_settings(agent: str, name: str) -> None:
    config = configure(agent, f"{name}-v5")
    assert config.agent.rollout_steps * config.env.num_envs == 2048
    assert config.policy.normalise_observations
    assert config.agent.scale_rewards
    assert config.agent.discount == (0.9999 if name == "Swimmer" else 0.99)


@pytest.mark.parametrize("env", ["ALE/Pong-v5", "BreakoutNoFrameskip-v4", "ALE/Adventure-v5"])
def test_every_game_of_atari_has_the_papers_settings(env: str) -> None:
    config = configure("ppo", env)
    assert (config.env.num_envs, config.agent.rollout_steps) == (8, 128)
    assert preset_for("trpo", env)
    assert not config.loop.evaluation_deterministic


def test_an_environments_own_preset_comes_after_its_familys() -> None:
    assert preset_for("ppo", "Swimmer-v5") == {**preset_for("ppo", "Hopper-v5"), "discount": 0.9999}
    assert preset_for("ppo", "NoSuch-v0") == {}


def test_a_preset_is_found_whether_or_not_the_id_says_its_version_or_module() -> None:
    assert preset_for("ppo", "HalfCheetah") == preset_for("ppo", "HalfCheetah-v5") != {}
    pytest.importorskip("ale_py")
    assert preset_for("ppo", "ale_py:ALE/Pong-v5") == preset_for("ppo", "ALE/Pong-v5") != {}
