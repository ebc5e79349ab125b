"""imitation's side of the benchmarks of preference learning, run by an interpreter that has it (see README.md).

It wants older versions of Gymnasium, Stable-Baselines3 and NumPy than ours, so nothing of ours is imported here. Tasks
come as JSON on standard input, a line each, and answers go out so (`peer_process.py`).
"""

# mypy: ignore-errors
import importlib.metadata
import json
import sys
import time

import gymnasium
import numpy as np
import torch
from imitation.algorithms import preference_comparisons
from imitation.data import types
from imitation.policies.base import FeedForward32Policy, NormalizeFeaturesExtractor
from imitation.rewards import reward_nets
from imitation.util import logger as imitation_logger
from imitation.util import networks, util
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy

ENV = "Pendulum-v1"


class RewardTraining:
    """A reward network of 32-32 ReLU, or an ensemble of them, with its trainer and its comparisons."""

    def __init__(self, data, members, comparisons, normalise, seed):
        env = gymnasium.make(ENV)
        layer = networks.RunningNorm if normalise else None
        torch.manual_seed(seed)
        self.generator = np.random.default_rng(seed)
        quiet = imitation_logger.configure(format_strs=[])

        def network():
            return reward_nets.BasicRewardNet(
                env.observation_space, env.action_space, hid_sizes=(32, 32), normalize_input_layer=layer
            )

        self.ensemble = members > 1
        members = [network() for _ in range(members)]
        net = (
            reward_nets.RewardEnsemble(env.observation_space, env.action_space, members)
            if self.ensemble
            else members[0]
        )
        kind = preference_comparisons.EnsembleTrainer if self.ensemble else preference_comparisons.BasicRewardTrainer
        self.model = preference_comparisons.PreferenceModel(net)
        loss = preference_comparisons.CrossEntropyRewardLoss()
        self.trainer = kind(self.model, loss, rng=self.generator, batch_size=32, epochs=1, custom_logger=quiet)
        self.arrays = dict(np.load(data))  # an opened archive would read the file anew at each access
        self.dataset = preference_comparisons.PreferenceDataset()
        pairs, preferences = self.arrays["training_pairs"][:comparisons], self.arrays["training_preferences"]
        self.dataset.push(self.fragments(pairs), preferences[:comparisons].astype(np.float32))

    def fragments(self, pairs):
        """Pairs of fragments as imitation has them; one trajectory object a clip, whatever it takes part in."""
        arrays = self.arrays
        trajectories = {
            clip: types.TrajectoryWithRew(
                obs=arrays["observations"][clip], acts=arrays["actions"][clip], infos=None, terminal=False,
                rews=arrays["rewards"][clip],
            )
            for clip in np.unique(pairs)
        }  # fmt: skip
        return [(trajectories[first], trajectories[second]) for first, second in pairs]

    def epochs(self, epochs):
        wall, cpu = time.perf_counter(), time.process_time()
        self.trainer.train(self.dataset, epoch_multiplier=epochs)
        return {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}

    def accuracy(self):
        """Of the held-out pairs, how many are ordered as the oracle does; members vote by their mean probability."""
        pairs, preferences = self.arrays["held_out_pairs"], self.arrays["held_out_preferences"]
        self.model.eval()
        models = self.model.member_pref_models if self.ensemble else [self.model]
        fragments = self.fragments(pairs)
        with torch.no_grad():
            probabilities = np.mean([model(fragments)[0].numpy() for model in models], axis=0)
        sided = preferences != 0.5
        return {"accuracy": float(((probabilities > 0.5) == preferences)[sided].mean())}

    def select(self, count, factor):
        """Choose `count` of `factor` times as many pairs by the variance of the predicted probability."""
        training = self

        class Given(preference_comparisons.Fragmenter):
            """Gives the same candidates each time, so that what is timed is the selection."""

            def __call__(self, trajectories, fragment_length, num_pairs):
                return candidates

        candidates = training.fragments(self.arrays["candidate_pairs"][: count * factor])
        fragmenter = preference_comparisons.ActiveSelectionFragmenter(
            self.model, Given(), factor, uncertainty_on="probability"
        )
        wall, cpu = time.perf_counter(), time.process_time()
        fragmenter([], candidates[0][0].acts.shape[0], count)
        return {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}


def learn(steps, labels, iterations, seed, episodes):
    """Its documentation's "Learn a reward function using preference comparisons", as it stands there but for `seed`."""
    started = time.process_time()
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    quiet = imitation_logger.configure(format_strs=[])
    venv = util.make_vec_env(ENV, rng=rng)
    reward_net = reward_nets.BasicRewardNet(
        venv.observation_space, venv.action_space, normalize_input_layer=networks.RunningNorm
    )
    fragmenter = preference_comparisons.RandomFragmenter(warning_threshold=0, rng=rng)
    gatherer = preference_comparisons.SyntheticGatherer(rng=rng)
    preference_model = preference_comparisons.PreferenceModel(reward_net)
    reward_trainer = preference_comparisons.BasicRewardTrainer(
        preference_model=preference_model, loss=preference_comparisons.CrossEntropyRewardLoss(), epochs=3, rng=rng
    )
    agent = PPO(
        policy=FeedForward32Policy,
        policy_kwargs={
            "features_extractor_class": NormalizeFeaturesExtractor,
            "features_extractor_kwargs": {"normalize_class": networks.RunningNorm},
        },
        env=venv, seed=seed, n_steps=2048 // venv.num_envs, batch_size=64, ent_coef=0.01, learning_rate=2e-3,
        clip_range=0.1, gae_lambda=0.95, gamma=0.97, n_epochs=10,
    )  # fmt: skip
    trajectory_generator = preference_comparisons.AgentTrainer(
        algorithm=agent, reward_fn=reward_net, venv=venv, exploration_frac=0.05, rng=rng
    )
    preferences = preference_comparisons.PreferenceComparisons(
        trajectory_generator, reward_net, num_iterations=iterations, fragmenter=fragmenter,
        preference_gatherer=gatherer, reward_trainer=reward_trainer, fragment_length=100, transition_oversampling=1,
        initial_comparison_frac=0.1, allow_variable_horizon=False, initial_epoch_multiplier=4,
        query_schedule="hyperbolic", custom_logger=quiet,
    )  # fmt: skip
    preferences.train(total_timesteps=steps, total_comparisons=labels)
    trained = time.process_time() - started
    fresh = util.make_vec_env(ENV, rng=np.random.default_rng(seed + 1000))
    mean, _ = evaluate_policy(agent.policy, fresh, n_eval_episodes=episodes, deterministic=True)
    return {"cpu_seconds": trained, "return": float(mean), "steps": int(agent.num_timesteps)}


def main():
    """Answer until standard input ends."""
    torch.set_num_threads(1)
    answers, sys.stdout = sys.stdout, sys.stderr  # its libraries print
    trainings = {}
    for line in sys.stdin:
        request = json.loads(line)
        task, name = request.pop("task"), request.pop("name", None)
        try:
            if task == "versions":
                packages = ("imitation", "stable-baselines3", "gymnasium", "numpy", "torch")
                answer = {package: importlib.metadata.version(package) for package in packages}
            elif task == "prepare":
                trainings[name] = RewardTraining(**request)
                answer = {}
            elif task == "learn":
                answer = learn(**request)
            else:
                answer = getattr(trainings[name], task)(**request)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
