"""The Gymnasium view of writing text: the checker's contract, what a score is given for, and agents that learn on it."""

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import SyncVectorEnv
from stable_baselines3.common.env_checker import check_env as check_for_stable_baselines3
from tiny_texts import PROMPTS, RESPONSE, share_of_a, tokenizer

from envs.errors import RllabError
from language.preferences.environment import TextEnv
from rllab.agents import PPO, PPOConfig
from rllab.collect import EnvCollector
from rllab.loop_config import LoopConfig
from rllab.policies import ActorCritic
from rllab.train import Training

LETTERS = tokenizer()


def make() -> TextEnv:
    return TextEnv(
        [LETTERS.ids(p) for p in PROMPTS], share_of_a, LETTERS, maximum_new_tokens=RESPONSE, render_mode="ansi"
    )


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_it_keeps_gymnasiums_contract() -> None:
    check_env(make())


def test_stable_baselines3_takes_it() -> None:
    check_for_stable_baselines3(make())


def test_a_response_is_scored_once_where_it_ends() -> None:
    env = make()
    observation, _ = env.reset(seed=0)
    prompt = LETTERS.decode(observation["tokens"][observation["valid"] == 1].tolist())
    assert prompt in PROMPTS
    ids = LETTERS.ids("aba")
    for token in ids:
        observation, reward, terminated, truncated, _ = env.step(np.int64(token))
        assert (reward, terminated, truncated) == (0.0, False, False)
    assert env.render() == prompt + "aba"
    assert observation["tokens"][env.longest : env.longest + 4].tolist() == [*ids, 0]
    assert observation["valid"][env.longest : env.longest + 4].tolist() == [1, 1, 1, 0]
    _, reward, terminated, truncated, info = env.step(np.int64(LETTERS.vocabulary["<end>"]))
    assert (reward, terminated, truncated) == (2 / RESPONSE, True, False)
    assert info == {"prompt": prompt, "response": "aba", "stopped": True}


def test_a_response_ends_after_the_longest_without_a_stop_token() -> None:
    env = make()
    env.reset(seed=0)
    results = [env.step(np.int64(LETTERS.ids("a")[0])) for _ in range(RESPONSE)]
    assert [result[2] for result in results] == [False] * (RESPONSE - 1) + [True]
    assert results[-1][1] == 1.0
    assert results[-1][4]["stopped"] is False


def test_our_agents_learn_on_it_through_the_ordinary_collector() -> None:
    vector = SyncVectorEnv([make for _ in range(8)])
    policy = ActorCritic(vector.single_observation_space, vector.single_action_space, seed=0)
    collector = EnvCollector(vector, policy, 32, seed=0)
    agent = PPO(policy, PPOConfig(rollout_steps=32, minibatch_size=64, learning_rate=1e-2, discount=1.0))
    Training(collector, policy, agent, LoopConfig(500, evaluation_every=0), quiet=True).run()
    early = collector.recent()["return_mean"]
    Training(collector, policy, agent, LoopConfig(4_000, evaluation_every=0), quiet=True).run()
    assert early < 0.3
    assert collector.recent()["return_mean"] > 0.5


def test_what_makes_no_environment_is_refused() -> None:
    with pytest.raises(RllabError, match="at least one token"):
        TextEnv([[]], share_of_a, LETTERS)
    with pytest.raises(RllabError, match="maximum_new_tokens"):
        TextEnv([[1]], share_of_a, LETTERS, maximum_new_tokens=0)
