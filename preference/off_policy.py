"""Learning from preferences with a replay buffer: Stable-Baselines3's SAC, TD3 and DQN in the one training loop.

Lee, Smith, Abbeel 2021 ("PEBBLE: Feedback-efficient interactive reinforcement learning via relabeling experience and
unsupervised pre-training"), algorithms 1 and 2: after each fit of the reward model every step in the replay buffer gets
its new reward; before the first questions the agent may explore by state entropy. Asking and fitting are those of
`preference.learner`.
"""

import os
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from envs.errors import RllabError

try:
    from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
except ModuleNotFoundError as error:
    raise RllabError(
        "SAC, TD3 and DQN are those of Stable-Baselines3, which is not installed: pip install 'rllab[sb3]'"
    ) from error

from envs.atari import game_of
from envs.make import EnvConfig, checks_bounds, make_vector
from envs.registry import ATARI, family_of, find_spec
from envs.render import gif_bytes
from preference.beside import Surroundings, Voice
from preference.config import PreferenceConfig
from preference.entropy import StateEntropy
from preference.experiment import STORE_FILE, check_budget, clear_store, save_reward, task_of
from preference.horizon import constant_horizon
from preference.inputs import StepReader
from preference.labelling import check_page
from preference.learner import PreferenceLearner
from preference.off_policy_agents import ALGORITHMS, make_agent
from preference.off_policy_config import AGENT_DEFAULTS, OffPolicyConfig, OffPolicyRunConfig
from preference.replay import ReplayAgent, ReplayCollector, ReplayPolicy
from preference.replay_buffer import ReplayBufferView
from preference.replay_learner import ReplayLearner
from preference.reward_model import RewardModel
from preference.store import Store
from preference.vec_env import GymnasiumVecEnv
from rllab.callbacks import Callback
from rllab.distributed import require_alone
from rllab.evaluate import EvaluationResult, Evaluator, film
from rllab.experiment import Checkpoint, go_on
from rllab.files import explained_write_errors
from rllab.loop_config import LoopConfig
from rllab.runs import Run, default_folder
from rllab.train import Training
from rllab.workshop import EVALUATION_SEED, VIDEO_FRAMES

KIND = "preference-off-policy"
"""Of these runs, in their config.json."""
AGENT_FILE = "agent.zip"
"""The agent as Stable-Baselines3 itself saves it."""


@dataclass(frozen=True)
class OffPolicyRun:
    """What `learn_off_policy` gives back."""

    path: Path
    """The run's folder."""
    config: OffPolicyRunConfig
    agent: OffPolicyAlgorithm
    """Stable-Baselines3's own, as it was when training ended."""
    reward_model: RewardModel
    steps: int
    stop_reason: str | None
    """Why training ended before its configured steps, if it did."""
    evaluation: EvaluationResult | None
    """The last one during training."""


def learn_off_policy(
    agent: str,
    env: str | EnvConfig,
    preference: PreferenceConfig | None = None,
    *,
    config: OffPolicyConfig | None = None,
    loop: LoopConfig | None = None,
    steps: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    out: Path | str | None = None,
    callbacks: Sequence[Callback] = (),
    overwrite: bool = False,
    quiet: bool = False,
) -> OffPolicyRun:
    """Train SAC, TD3 or DQN on a reward that is learnt from comparisons, leaving a run folder.

    Args:
        agent: sac, td3 (continuous actions), or dqn (discrete ones).
        env: a Gymnasium id, stepped once and with a constant horizon, as `preference.experiment.learn` has it; or a
            configuration.
        preference: who answers, what is asked, what the reward model is.
        config: how the agent learns.
        loop: how long, and what happens beside it.
        steps: in place of the loop's.
        seed: of everything.
        device: where the networks live and learn.
        out, callbacks, overwrite, quiet: as in `rllab.train`.

    Raises:
        RllabError: bad input, in one sentence.
        Interrupted: by Ctrl-C or SIGTERM, after a checkpoint; `resume` goes on from it.
    """
    require_alone("A reward that is learnt from comparisons meanwhile is trained")
    loop = loop or LoopConfig()
    loop = loop if steps is None else replace(loop, steps=steps)
    if isinstance(env, str):
        OffPolicyRunConfig(agent, EnvConfig(env))  # a wrong agent is told before a wrong environment
        env = EnvConfig(env, num_envs=1, termination=constant_horizon(env))
    run_config = OffPolicyRunConfig(agent, env, config or OffPolicyConfig(), loop, seed, device)
    preference = preference or PreferenceConfig()
    run_id = str(uuid.uuid4())
    document = {**run_config.to_json(), "kind": KIND, "run_id": run_id, "preference": asdict(preference)}
    folder = default_folder(env.id, f"{agent}-preference", seed) if out is None else Path(out)
    with ExitStack() as stack:
        # The folder is made last: input that cannot work leaves nothing behind.
        workshop = stack.enter_context(_Workshop(run_config))
        if preference.teacher == "human" and preference.serve:
            check_page(preference.page)
        check_budget(loop.steps, preference, task_of(env, workshop.reader.inputs).fps)
        if overwrite:
            clear_store(folder)
        run = stack.enter_context(Run.create(folder, document, overwrite))
        training, learner = workshop.training(run, preference, run_id, callbacks, quiet, stack)
        training.save()
        return _finish(training, learner, workshop)


def resume(
    path: Path | str, *, steps: int | None = None, callbacks: Sequence[Callback] = (), quiet: bool = False
) -> OffPolicyRun:
    """Go on with an interrupted run from its latest good checkpoint, as `rllab.resume` does with others."""
    require_alone("A reward that is learnt from comparisons meanwhile is trained")
    with Run.open(path, lock=True) as run, ExitStack() as stack:
        config = OffPolicyRunConfig.from_json(run.config)
        if steps is not None:
            config = replace(config, loop=replace(config.loop, steps=steps))
            run.update_config({**run.config, **config.to_json()})
        preference = PreferenceConfig.from_json(run.config["preference"])
        workshop = stack.enter_context(_Workshop(config))
        training, learner = workshop.training(run, preference, run.config["run_id"], callbacks, quiet, stack)
        go_on(training, run)
        return _finish(training, learner, workshop)


def load_agent(path: Path | str) -> OffPolicyAlgorithm:
    """The agent of a run as Stable-Baselines3 saved it beside the newest checkpoint.

    Its file holds pickles: load only what you trust.

    Raises RllabError if the folder is not such a run.
    """
    run = Run.open(path)
    if run.config.get("kind") != KIND:
        raise RllabError(f"{path} is not a run of {', '.join(AGENT_DEFAULTS)} from preferences")
    file = run.path / AGENT_FILE
    if not file.exists():
        raise RllabError(f"{path} has no {AGENT_FILE} yet: it was stopped before its first checkpoint")
    agent: OffPolicyAlgorithm = ALGORITHMS[run.config["agent_name"]].load(file, device="cpu")
    return agent


def load_with_config(path: Path | str, checkpoint: Checkpoint = "best") -> tuple[ReplayPolicy, OffPolicyRunConfig, int]:
    """The policy of a run's checkpoint, the run's configuration, and the checkpoint's step, as rllab has it.

    Raises RllabError if there is no good checkpoint, or the run is of another version.
    """
    run = Run.open(path)
    config = OffPolicyRunConfig.from_json(run.config)
    if checkpoint == "best" and run.checkpoints.best() is None:
        checkpoint = "latest"
    step, state = run.checkpoints.load(checkpoint)
    # Only its actor is of use here, so the replay buffer is as small as it can be.
    small = replace(config.agent, buffer_size=config.env.num_envs * config.agent.rollout_steps)
    with _Workshop(replace(config, agent=small)) as workshop:
        workshop.model.set_parameters(state["agent"]["parameters"], exact_match=True, device=workshop.model.device)
        return ReplayPolicy(workshop.model), config, step


class _Workshop:
    """The live parts that a configuration asks for, and their closing."""

    def __init__(self, config: OffPolicyRunConfig) -> None:
        self.config = config
        self.vector_env = make_vector(replace(config.env, autoreset="same_step"))
        try:
            env_seed = int(np.random.SeedSequence([config.seed, 0x0FF]).generate_state(1)[0])
            self.env = GymnasiumVecEnv(self.vector_env, env_seed)
            self.model = make_agent(config, self.env)
            config.agent.check(config.env.num_envs, False)
            spec = find_spec(config.env.id)
            game = game_of(spec) if family_of(spec) is ATARI else None
            self.reader = StepReader(self.model.observation_space, self.model.action_space, game=game)
            if config.agent.pretraining_steps and self.reader.inputs.image:
                raise RllabError("state entropy is measured between vectors, not images: set pretraining_steps to 0")
            self.view = ReplayBufferView(self.model)
            self.collector = ReplayCollector(
                self.model, self.env, self.view, config.agent.rollout_steps, config.loop.steps,
                check_bounds=checks_bounds(config.env),
            )  # fmt: skip
        except BaseException:
            self.vector_env.close()
            raise
        self.evaluator: Evaluator | None = None

    def training(
        self, run: Run, preference: PreferenceConfig, run_id: str, callbacks: Sequence[Callback], quiet: bool,
        stack: ExitStack,
    ) -> tuple[Training, PreferenceLearner]:  # fmt: skip
        """The training loop with learner and agent in it; what `stack` holds is closed at the end."""
        config, reader = self.config, self.reader
        task = task_of(config.env, reader.inputs, preference.question)
        store = stack.enter_context(Store.open(preference.store or run.path / STORE_FILE, task))
        voice = Voice(quiet)
        beside = Surroundings(self, reader, run, preference, run_id, store, voice, stack)
        learner = PreferenceLearner(
            preference, reader, beside.desk, rows=config.env.num_envs, steps=config.loop.steps,
            clip_steps=preference.query.length(task.fps),
            seed=config.seed, run=run_id, games=config.env.termination == "restart", note=voice,
            fitting=beside.fitting(), tell=beside.tell,
        )  # fmt: skip
        # The loop asks of an agent and a policy no more than these have.
        agent: Any = ReplayAgent(self.model, config.agent, self.view, config.agent_name)
        policy: Any = ReplayPolicy(self.model)
        replay = ReplayLearner(learner, agent, StateEntropy(config.agent.entropy_neighbours))
        if config.loop.evaluation_every:
            self.evaluator = Evaluator(
                config.env, config.loop.evaluation_episodes, seed=config.seed + EVALUATION_SEED,
                deterministic=config.loop.evaluation_deterministic,
            )  # fmt: skip
        saver = _Saver(self.model, learner, config.env.id)
        training = Training(
            self.collector, policy, agent, config.loop, run=run, reward_model=replay, evaluate=self.evaluator,
            film=self._film, callbacks=[voice, replay, saver, *beside.callbacks, *callbacks], quiet=quiet,
        )  # fmt: skip
        beside.surround(training, learner)
        return training, learner

    def _film(self, policy: Any) -> bytes:
        deterministic = self.config.loop.evaluation_deterministic
        return gif_bytes(
            film(policy, self.config.env, seed=EVALUATION_SEED, max_steps=VIDEO_FRAMES, deterministic=deterministic)
        )

    def __enter__(self) -> "_Workshop":
        return self

    def __exit__(self, *error: object) -> None:
        self.vector_env.close()
        if self.evaluator is not None:
            self.evaluator.close()


class _Saver(Callback):
    """Beside each checkpoint: the agent in Stable-Baselines3's own form, and the reward model."""

    def __init__(self, model: OffPolicyAlgorithm, learner: PreferenceLearner, environment: str) -> None:
        self.model, self.learner, self.environment = model, learner, environment

    def after_checkpoint(self, training: Training) -> None:
        assert training.run_folder is not None
        path = training.run_folder.path
        with explained_write_errors(path / AGENT_FILE):
            temporary = path / f".{AGENT_FILE}.tmp.zip"
            self.model.save(temporary)
            os.replace(temporary, path / AGENT_FILE)
        save_reward(training, self.learner, self.environment)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """It has none."""


def _finish(training: Training, learner: PreferenceLearner, workshop: _Workshop) -> OffPolicyRun:
    """Run the loop to its end."""
    training.run()
    assert training.run_folder is not None
    return OffPolicyRun(
        training.run_folder.path, workshop.config, workshop.model, learner.model, training.steps, training.stop_reason,
        training.evaluation,
    )  # fmt: skip
