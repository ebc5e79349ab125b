"""The learner in the training loop, small: what is asked when, who sees which reward, what is left in the folder."""

import json
import uuid
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

from envs.errors import RllabError
from preference.comparisons import Answer, Clip, Label
from preference.config import PreferenceConfig, QueryConfig
from preference.experiment import learn, load_reward_model, resume
from preference.fit import FitConfig
from preference.fitting import slope_of
from preference.horizon import constant_horizon
from preference.learner import PreferenceLearner
from preference.reward_model import RewardConfig
from preference.store import Store
from preference.teachers import TEACHERS
from rllab.callbacks import Callback
from rllab.policies import ActorCritic
from rllab.rollout import Batch, Rollout
from rllab.train import Training

SMALL = {
    "steps": 1500, "num_envs": 4, "rollout_steps": 64, "minibatch_size": 64, "epochs": 2, "evaluation_every": 0,
    "checkpoint_every": 0, "tensorboard": False, "quiet": True,
}  # fmt: skip


def preference(labels: int = 20, **settings: object) -> PreferenceConfig:
    query = QueryConfig(labels=labels, clip_steps=10, query_batch=5)
    reward = RewardConfig(members=2, reward_hidden_sizes=(8,), reads=settings.pop("reads", "observation_action"))  # type: ignore[arg-type]
    return PreferenceConfig(query=query, reward=reward, fit=FitConfig(fit_epochs=2), **settings)  # type: ignore[arg-type]


class Spy(Callback):
    """Keeps what the agent was given."""

    def __init__(self) -> None:
        self.rollouts: list[Rollout] = []

    def after_update(self, training: Training, rollout: Rollout, metrics: dict[str, float]) -> None:
        self.rollouts.append(rollout)


@pytest.mark.parametrize("agent", ["ppo", "trpo", "reinforce"])
def test_every_agent_learns_from_the_models_rewards_alone(agent: str, tmp_path: Path) -> None:
    spy = Spy()
    settings = SMALL | ({} if agent == "ppo" else {"minibatch_size": 64} if agent == "trpo" else {})
    if agent != "ppo":
        settings = {name: value for name, value in settings.items() if name != "epochs"}
    if agent == "reinforce":
        del settings["minibatch_size"]
    run = learn(agent, "Pendulum-v1", preference(), out=tmp_path / "run", callbacks=[spy], **settings)
    last = spy.rollouts[-1]
    reader = run.reward_model.reader
    assert reader is not None
    expected = run.reward_model.reward(**reader.arrays(last, "observation_action"))
    scaled = 1.0 if run.policy.reward_scaling is None else None
    if scaled:
        np.testing.assert_allclose(last.rewards, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(last.rewards - last.environment_rewards).mean() > 0.1


def test_labels_are_asked_for_by_the_schedule_and_all_of_them_lie_in_the_store(tmp_path: Path) -> None:
    run = learn("ppo", "Pendulum-v1", preference(), out=tmp_path / "run", **SMALL)
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    asked = [row["reward/asked"] for row in rows]
    assert asked[0] < 20
    assert asked == sorted(asked)
    assert asked[-1] == 20
    with Store.open(run.path / "comparisons.sqlite") as store:
        progress, changes = store.progress(), store.comparisons()
    assert progress.pairs == progress.answered == 20
    assert progress.by_annotator == {"oracle": 20}
    # A quarter before anything was learnt, at random; then what the ensemble disagrees on.
    assert [item.pair.strategy for item in changes.added] == ["uniform"] * 5 + ["disagreement"] * 15
    clips = {item.pair.first for item in changes.added} | {item.pair.second for item in changes.added}
    assert progress.clips == len(clips)


def test_the_steps_of_the_first_questions_count_as_steps(tmp_path: Path) -> None:
    run = learn("ppo", "Pendulum-v1", preference(), out=tmp_path / "run", **SMALL)
    assert run.steps < 1500 + 256
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["steps"] >= 2 * 5 * 10 + 256


def test_the_reward_model_in_the_folder_is_the_one_that_was_learnt(tmp_path: Path) -> None:
    run = learn("ppo", "Pendulum-v1", preference(), out=tmp_path / "run", **SMALL)
    again = load_reward_model(run.path)
    observations, actions = np.random.default_rng(0).standard_normal((2, 50, 4)).astype(np.float32)
    size = run.reward_model.inputs.observation_shape[0]
    arguments = (observations[:, :size], actions[:, :1])
    np.testing.assert_array_equal(again.reward(*arguments), run.reward_model.reward(*arguments))


def test_rewards_have_the_deviation_that_was_asked_for(tmp_path: Path) -> None:
    run = learn("ppo", "Pendulum-v1", preference(), out=tmp_path / "run", **SMALL)
    model = run.reward_model
    generator = np.random.default_rng(0)
    observations = generator.standard_normal((4, 30, model.inputs.observation_shape[0])).astype(np.float32)
    arrays = {"observations": observations, "actions": generator.uniform(-2, 2, (4, 30, 1)).astype(np.float32)}
    valid = generator.random((4, 30)) < 0.8
    model.normalise_over(arrays, valid)
    rewards = model.reward(**arrays)[valid]
    assert rewards.mean() == pytest.approx(0, abs=1e-4)
    assert rewards.std() == pytest.approx(1, abs=1e-3)


def test_next_observations_can_be_read(tmp_path: Path) -> None:
    run = learn(
        "ppo", "CartPole-v1", preference(reads="observation_action_next"), out=tmp_path / "run",
        **(SMALL | {"vectorization": "auto"}),
    )  # fmt: skip
    assert run.reward_model.inputs.size("observation_action_next") == 5 + 2 + 5


@pytest.mark.parametrize("teacher", [name for name in TEACHERS if name != "oracle"])
def test_every_teacher_teaches(teacher: str, tmp_path: Path) -> None:
    config = preference(teacher=teacher, judgement=TEACHERS[teacher])
    run = learn("ppo", "CartPole-v1", config, out=tmp_path / "run", **SMALL)
    with Store.open(run.path / "comparisons.sqlite") as store:
        assert store.progress().answered == 20


def test_a_carried_critic_is_the_old_one_stretched() -> None:
    space = gymnasium.spaces.Box(-1, 1, (3,), np.float32)
    policy = ActorCritic(space, gymnasium.spaces.Box(-1, 1, (1,), np.float32))
    batch = Batch(observations=torch.randn(7, 3), actions=torch.zeros(7, 1), valid=torch.ones(7, dtype=torch.bool))
    before = policy.value(batch).detach().clone()
    policy.map_values(-2.0, 0.5)
    torch.testing.assert_close(policy.value(batch).detach(), -2 * before + 0.5)


def test_horizons_are_chosen_by_what_the_environment_allows() -> None:
    assert constant_horizon("Hopper-v5") == "ignored"
    assert constant_horizon("CartPole-v1") == "absorbing"
    assert constant_horizon("PongNoFrameskip-v4") == "restart"


def test_a_store_of_another_environment_is_refused_and_nothing_is_left_behind(tmp_path: Path) -> None:
    learn("ppo", "Pendulum-v1", preference(), out=tmp_path / "run", **SMALL)
    config = preference(store=str(tmp_path / "run" / "comparisons.sqlite"))
    with pytest.raises(RllabError, match="of another task"):
        learn("ppo", "CartPole-v1", config, out=tmp_path / "other", **SMALL)


def test_overwriting_a_run_keeps_answers_that_people_gave(tmp_path: Path) -> None:
    run = learn("ppo", "Pendulum-v1", preference(), out=tmp_path / "run", **SMALL)
    with Store.open(run.path / "comparisons.sqlite") as store:
        pair = store.comparisons().added[0].pair
        store.answer(Answer(uuid.uuid4(), pair.id, "ada", Label.FIRST))
    with pytest.raises(RllabError, match="answers of ada"):
        learn("ppo", "Pendulum-v1", preference(), out=tmp_path / "run", overwrite=True, **SMALL)
    assert (run.path / "reward" / "model.json").exists()


def test_what_would_leave_too_little_to_learn_from_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    config = PreferenceConfig(query=QueryConfig(labels=700))
    with pytest.raises(
        RllabError,
        match="700 questions are to be asked about clips of 188 steps, of which the 100,000 steps are only 531",
    ):
        learn("ppo", "Hopper-v5", config, out=tmp_path / "run", quiet=True, steps=100_000)
    assert not (tmp_path / "run").exists()


def test_a_missing_file_of_answers_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    config = preference(teacher="file", answers=str(tmp_path / "none.jsonl"))
    with pytest.raises(RllabError):
        learn("ppo", "Pendulum-v1", config, out=tmp_path / "run", **SMALL)
    assert not (tmp_path / "run").exists()


def test_answers_of_one_run_in_a_file_teach_the_next_the_same(tmp_path: Path) -> None:
    first = learn("ppo", "Pendulum-v1", preference(), out=tmp_path / "first", **SMALL)
    with Store.open(first.path / "comparisons.sqlite") as store:
        lines = [
            json.dumps({"first": str(item.pair.first), "second": str(item.pair.second), "label": item.answer.label})
            for item in store.comparisons().added
        ]
    (tmp_path / "answers.jsonl").write_text("\n".join(lines))
    config = preference(teacher="file", answers=str(tmp_path / "answers.jsonl"))
    second = learn("ppo", "Pendulum-v1", config, out=tmp_path / "second", **SMALL)
    assert torch.equal(first.reward_model.flat, second.reward_model.flat)
    assert torch.equal(first.policy.flat, second.policy.flat)


def test_a_single_model_is_not_asked_to_disagree_with_itself() -> None:
    with pytest.raises(RllabError, match="nobody to disagree with"):
        PreferenceConfig(query=QueryConfig(queries="disagreement"), reward=RewardConfig(members=1))
    assert QueryConfig().mix(1) == {"uniform": 1.0}
    assert QueryConfig().mix(3) == {"disagreement": 1.0}


def test_a_critics_slope_is_that_of_its_rewards() -> None:
    before = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    assert slope_of(before, 3 * before + 0.2) == pytest.approx(3, rel=1e-4)
    assert slope_of(before, -before) == 0
    assert slope_of(np.zeros(5, np.float32), np.ones(5, np.float32)) == 1


def test_after_environments_began_anew_no_clip_spans_two_episodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(Callback):
        def after_update(self, training: Training, rollout: Rollout, metrics: dict[str, float]) -> None:
            training.stop("enough")

    class Look(Callback):
        def __init__(self) -> None:
            self.pool: list[Clip] = []

        def after_update(self, training: Training, rollout: Rollout, metrics: dict[str, float]) -> None:
            learner = next(each for each in training.callbacks if isinstance(each, PreferenceLearner))
            self.pool = [
                clip for clip in learner.questions.pool.clips if clip.policy_step >= training.steps - rollout.num_steps
            ]

    # 64 steps are no multiple of the clips' 10, so each row is in the middle of one when the run stops.
    learn("ppo", "Pendulum-v1", preference(), out=tmp_path / "run", callbacks=[Stop()], **SMALL)
    monkeypatch.setattr("rllab.collect.restore", lambda env, state: dict(enumerate(env.reset(seed=1)[0])))
    look = Look()
    resume(tmp_path / "run", steps=5000, callbacks=[look, Stop()], quiet=True)
    assert look.pool
    for clip in look.pool:
        cosine, sine, velocity = clip.arrays["observations"].T
        turned = np.angle(np.exp(1j * np.diff(np.arctan2(sine, cosine))))
        # Pendulum's own arithmetic: the angle moves by the new velocity times 0.05.
        np.testing.assert_allclose(turned, 0.05 * velocity[1:], atol=1e-4)


def test_a_killed_save_leaves_the_reward_model_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = learn("ppo", "Pendulum-v1", preference(), out=tmp_path / "run", **SMALL)
    before = {file.name: file.read_bytes() for file in (tmp_path / "run" / "reward").iterdir()}

    def fail(folder: Path, tree: object) -> None:
        (folder / "arrays.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("preference.reward_model.save_state", fail)
    with pytest.raises(RllabError, match="disk is full"):
        run.reward_model.save(tmp_path / "run" / "reward")
    assert {file.name: file.read_bytes() for file in (tmp_path / "run" / "reward").iterdir()} == before
