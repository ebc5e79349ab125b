"""The training loop: what it writes, when it evaluates and saves, whom it tells, and how it ends."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_tasks import Failing, MaskedObservation, Scripted, policy_for, vector_of

from envs.errors import RllabError
from rllab.agents import PPO, PPOConfig
from rllab.callbacks import Callback, StopAtReturn
from rllab.collect import EnvCollector
from rllab.evaluate import EvaluationResult
from rllab.interrupt import Interrupted
from rllab.loop_config import LoopConfig
from rllab.rollout import Rollout
from rllab.runs import Run
from rllab.train import Training

TIMES = {"seconds", "steps_per_second"}


class Recorder(Callback):
    """Writes down which hooks were called, and what they were given."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.rollouts: list[Rollout] = []
        self.metrics: list[dict[str, float]] = []
        self.count = 0

    def after_collect(self, training: Training, rollout: Rollout) -> None:
        self.calls.append("collect")
        self.rollouts.append(rollout)

    def after_update(self, training: Training, rollout: Rollout, metrics: dict[str, float]) -> None:
        self.calls.append("update")
        self.rollouts.append(rollout)
        self.metrics.append(metrics)
        metrics["seen"] = len(self.metrics)

    def after_evaluation(self, training: Training, result: EvaluationResult) -> None:
        self.calls.append("evaluation")

    def after_checkpoint(self, training: Training) -> None:
        self.calls.append("checkpoint")

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]


def training_of(
    run: Run | None = None, *callbacks: Callback, env: Any = None, loop: dict[str, Any] | None = None,
    agent: dict[str, Any] | None = None, means: list[float] | None = None, **more: Any,
) -> Training:  # fmt: skip
    """PPO on a script, 12 steps a rollout, 48 in all; evaluations find the returns `means`, in turn."""
    vector_env = env or vector_of("same_step", *(Scripted((4, 3), ("truncated", "terminated")) for _ in range(2)))
    policy = policy_for(vector_env)
    ppo = PPO(policy, PPOConfig(**{"rollout_steps": 6, "minibatch_size": 12, "learning_rate": 1e-3, **(agent or {})}))
    results = iter(means or [])

    def evaluate(_: Any) -> EvaluationResult:
        return EvaluationResult(np.array([next(results)] * 2), np.array([5, 7]))

    config = LoopConfig(
        **{
            "steps": 48,
            "evaluation_every": 12 if means else 0,
            "checkpoint_every": 0,
            "tensorboard": False,
            **(loop or {}),
        }
    )
    return Training(
        EnvCollector(vector_env, policy, 6), policy, ppo, config, run=run, callbacks=callbacks, quiet=True,
        evaluate=evaluate if means else None, **more,
    )  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Any:
    with Run.create(tmp_path / "run", {}) as run:
        yield run


def test_each_update_leaves_a_row_with_where_how_fast_and_how_well(run: Run) -> None:
    training_of(run).run()
    rows = run.read_metrics()
    assert [row["steps"] for row in rows] == [12, 24, 36, 48]
    assert [row["updates"] for row in rows] == [1, 2, 3, 4]
    promised = TIMES | {
        "return_mean", "length_mean", "policy_loss", "value_loss", "entropy", "approximate_kl", "clip_fraction",
        "explained_variance", "learning_rate", "gradient_norm",
    }  # fmt: skip
    for row in rows:
        assert promised <= row.keys()
        assert row["steps_per_second"] > 0
    assert [row["seconds"] for row in rows] == sorted(row["seconds"] for row in rows)
    assert not any(name.startswith("evaluation") for row in rows for name in row)


def test_evaluation_is_in_the_rows_where_one_took_place_and_no_other(run: Run) -> None:
    training = training_of(run, loop={"evaluation_every": 24}, means=[1.0, 5.0])
    training.run()
    evaluated = {row["steps"]: row for row in run.read_metrics() if "evaluation/return_mean" in row}
    assert {steps: row["evaluation/return_mean"] for steps, row in evaluated.items()} == {24: 1.0, 48: 5.0}
    assert evaluated[24]["evaluation/length_mean"] == 6
    assert evaluated[24]["evaluation/return_std"] == 0
    assert training.evaluation is not None
    assert training.evaluation.mean == 5.0


def test_the_last_update_is_evaluated_even_off_the_beat(run: Run) -> None:
    training_of(run, loop={"evaluation_every": 36}, means=[1.0, 2.0]).run()
    assert [row["steps"] for row in run.read_metrics() if "evaluation/return_mean" in row] == [36, 48]


def test_checkpoints_are_the_best_the_periodic_and_the_last(run: Run) -> None:
    training_of(run, means=[3.0, 9.0, 4.0, float("nan")]).run()
    assert run.checkpoints.best() == 24
    assert run.checkpoints.latest() == 48
    assert run.checkpoints.steps() == [12, 24, 48]


def test_periodic_checkpoints_come_on_the_beat_and_the_oldest_go(run: Run) -> None:
    training_of(run, loop={"checkpoint_every": 12, "keep_checkpoints": 2}).run()
    assert run.checkpoints.steps() == [36, 48]


def test_callbacks_are_told_in_the_order_of_the_loop(run: Run) -> None:
    recorder = Recorder()
    training_of(run, recorder, loop={"steps": 24}, means=[2.0, 1.0]).run()
    assert recorder.calls == ["collect", "update", "evaluation", "checkpoint"] * 2
    assert [row["seen"] for row in run.read_metrics()] == [1, 2]


def test_callbacks_state_is_saved_and_put_back(run: Run) -> None:
    recorder = Recorder()
    recorder.count = 17
    training = training_of(run, recorder)
    training.run()
    fresh = Recorder()
    _, state = run.checkpoints.load()
    training_of(None, fresh).load_state_dict(state)
    assert fresh.count == 17


@pytest.mark.parametrize("source", ["evaluation", "training"])
def test_training_stops_once_the_return_is_reached_and_saves(run: Run, source: str) -> None:
    # The script's first episodes pay 1+2+3+4 and 11+12+13.
    callback = StopAtReturn(20.0, source)
    training = training_of(run, callback, means=[1.0, 30.0, 0.0, 0.0])
    training.run()
    assert training.stop_reason is not None
    assert "20" in training.stop_reason
    assert training.steps < 48
    assert run.checkpoints.latest() == training.steps
    assert run.read_metrics()[-1]["steps"] == training.steps


def test_reward_model_changes_what_is_learned_from_and_not_what_is_reported(run: Run) -> None:
    class Tenfold:
        def relabel(self, rollout: Rollout) -> Rollout:
            return rollout.replace(rewards=10 * rollout.environment_rewards + 1)

    recorder = Recorder()
    training_of(run, recorder, loop={"steps": 24}, reward_model=Tenfold()).run()
    for before, after in zip(recorder.rollouts[::2], recorder.rollouts[1::2], strict=True):
        torch.testing.assert_close(after.rewards, 10 * before.rewards + 1)
        assert torch.equal(after.environment_rewards, before.environment_rewards)
    # Environments pay 1, 2, 3, 4, then 11, 12, 13.
    assert run.read_metrics()[0]["return_mean"] == 10


def test_scaled_rewards_leave_reported_returns_alone_and_their_scale_is_saved(run: Run) -> None:
    recorder = Recorder()
    training = training_of(run, recorder, agent={"scale_rewards": True})
    training.run()
    assert run.read_metrics()[0]["return_mean"] == 10
    last = recorder.rollouts[-1]
    assert not torch.equal(last.rewards, last.environment_rewards)
    assert bool((last.rewards.abs() <= 10).all())
    other = training_of(None, agent={"scale_rewards": True})
    other.load_state_dict(run.checkpoints.load()[1])
    assert training.policy.reward_scaling is not None
    assert other.policy.reward_scaling is not None
    saved, loaded = training.policy.reward_scaling.state_dict(), other.policy.reward_scaling.state_dict()
    assert saved.keys() == loaded.keys()
    assert all(np.array_equal(saved[name], loaded[name]) for name in saved)
    assert saved["count"] == 48


def test_columns_that_only_reset_are_not_counted_as_steps(run: Run) -> None:
    recorder = Recorder()
    training_of(
        run, recorder, env=vector_of("next_step", *(Scripted((2,)) for _ in range(2))), loop={"steps": 24}
    ).run()
    rows = run.read_metrics()
    # Of each three columns one only resets.
    assert [row["steps"] for row in rows] == [8, 16, 24]
    assert rows[-1]["steps"] == sum(int(rollout.valid.sum()) for rollout in recorder.rollouts[::2])


@pytest.mark.parametrize("fast_path", [True, False])
@pytest.mark.parametrize("toy", [MaskedObservation, Scripted])
def test_first_ratios_are_one_with_normalised_observations(toy: Any, fast_path: bool) -> None:
    """Moments that moved between acting and learning would show as a divergence before the first step."""
    env = vector_of("next_step", toy(), toy())
    policy = policy_for(env, normalise_observations=True, fast_path=fast_path)
    recorder = Recorder()
    one_step = PPO(policy, PPOConfig(rollout_steps=8, minibatch_size=16, epochs=1, learning_rate=1e-2))
    loop = LoopConfig(steps=60)
    Training(EnvCollector(env, policy, 8), policy, one_step, loop, callbacks=[recorder], quiet=True).run()
    assert len(recorder.metrics) > 3
    assert max(metrics["approximate_kl"] for metrics in recorder.metrics) < 1e-9
    assert max(metrics["clip_fraction"] for metrics in recorder.metrics) == 0


def test_learning_rate_falls_with_the_steps_and_never_to_nothing(run: Run) -> None:
    training_of(run, agent={"learning_rate_schedule": "linear"}).run()
    assert [row["learning_rate"] for row in run.read_metrics()] == pytest.approx([1e-3, 7.5e-4, 5e-4, 2.5e-4])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_training_after_the_update_with_a_checkpoint(run: Run, number: int) -> None:
    class Kill(Callback):
        def after_collect(self, training: Training, rollout: Rollout) -> None:
            if training.updates == 1:
                os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as caught:
        training_of(run, Kill()).run()
    assert caught.value.exit_code == 128 + number
    assert signal.getsignal(number) is before
    assert run.checkpoints.latest() == 24
    assert run.read_metrics()[-1]["steps"] == 24


def test_a_second_interrupt_ends_at_once(run: Run) -> None:
    class Impatient(Callback):
        def after_collect(self, training: Training, rollout: Rollout) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        training_of(run, Impatient()).run()
    assert run.checkpoints.steps() == []


def test_without_a_run_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    training = training_of(None, means=[1.0, 2.0, 3.0, 4.0])
    training.run()
    assert training.steps == 48
    assert list(tmp_path.iterdir()) == []


def test_a_rollout_that_does_not_divide_is_refused_before_training() -> None:
    with pytest.raises(RllabError, match="minibatch_size"):
        training_of(None, agent={"minibatch_size": 7})


@pytest.mark.parametrize("what", ["observation", "reward", "huge_reward", "final_observation"])
def test_what_is_not_finite_stops_training_and_names_the_environment(run: Run, what: str) -> None:
    env = vector_of("same_step", Failing("nothing"), Failing(what))
    with np.errstate(all="ignore"), pytest.raises(RllabError, match=r"environment 1 .*not finite.*checkpoint"):
        training_of(run, env=env, loop={"steps": 10_000, "checkpoint_every": 12}).run()
    step, state = run.checkpoints.load()
    assert step == run.read_metrics()[-1]["steps"] == 72
    assert all(bool(weight.isfinite().all()) for weight in state["policy"]["weights"].values())


def test_a_policy_that_left_the_finite_numbers_is_never_saved(run: Run) -> None:
    with np.errstate(all="ignore"), pytest.raises(RllabError, match="finite"):
        training_of(run, loop={"checkpoint_every": 12}, agent={"learning_rate": 1e38, "max_grad_norm": 0.0}).run()
    for step in run.checkpoints.steps():
        weights = run.checkpoints.load(step)[1]["policy"]["weights"]
        assert all(bool(weight.isfinite().all()) for weight in weights.values())


@pytest.mark.parametrize(
    "setting",
    [
        {"steps": 0},
        {"evaluation_every": -1},
        {"checkpoint_every": -1},
        {"keep_checkpoints": -1},
        {"evaluation_episodes": 0},
    ],
)
def test_numbers_that_make_no_sense_are_refused(setting: dict[str, int]) -> None:
    with pytest.raises(RllabError, match=next(iter(setting))):
        LoopConfig(**setting)  # type: ignore[arg-type]
