"""What the term for random answers is worth where a tenth of them is wrong (Christiano et al. 2017, section 2.2.3).

Reward models learn from comparisons of Pendulum's clips of which each is turned round with probability 0.1, with ε = 0
and with ε = 0.1, and are measured on held-out pairs without mistakes: accuracy, and negative log-likelihood in nats.
"""

import statistics
from dataclasses import dataclass

import numpy as np
import tyro
from common import console, print_machine
from reward_training import Arguments as ClipArguments
from reward_training import Data, step_reader
from rich.table import Table

from preference.dataset import ComparisonData
from preference.fit import FitConfig, Fitter
from preference.measures import PreferenceMeasures
from preference.reward_model import RewardConfig, RewardModel
from rllab.threads import single_threaded

NOISES = (0.0, 0.1)


@dataclass(frozen=True)
class Arguments:
    """What to measure."""

    seeds: int = 5
    """Seeds 0, 1, … of clips, mistakes and networks."""
    comparisons: int = 500
    """Comparisons that are learnt from."""
    mistakes: float = 0.1
    """Share of them that is turned round."""
    epochs: int = 100
    """Passes over them."""
    members: int = 1
    """Networks of the ensemble."""


def measures(data: Data, noise: float, l2_adapt: bool, seed: int, arguments: Arguments) -> tuple[float, float]:
    """Accuracy and negative log-likelihood of one reward model."""
    config = FitConfig(answer_noise=noise, l2=1e-4 if l2_adapt else 0.0, l2_adapt=l2_adapt)
    reward = RewardConfig(members=arguments.members, reward_hidden_sizes=(32, 32), reward_activation="relu")
    model = RewardModel(step_reader().inputs, reward, seed=seed)
    generator = np.random.default_rng(seed)
    preferences = data.arrays["training_preferences"][: arguments.comparisons]
    wrong = generator.random(len(preferences)) < arguments.mistakes
    comparisons = ComparisonData(arguments.members, generator)
    for pair, preference in zip(
        data.pairs("training", len(preferences)), np.where(wrong, 1 - preferences, preferences), strict=True
    ):
        comparisons.add(*pair, float(preference))
    numbers = model.numbers(comparisons.batch.arrays)
    model.observe(numbers.reshape(-1, numbers.shape[-1]))
    Fitter(model, config, generator).fit(comparisons, arguments.epochs)
    differences = np.array([model.differences(*pair) for pair in data.pairs("held_out")], np.float64)
    probabilities = (0.5 * np.tanh(0.5 * differences) + 0.5).mean(axis=1)
    result = PreferenceMeasures.of(probabilities, data.arrays["held_out_preferences"])
    return result.accuracy, result.negative_log_likelihood


def main(arguments: Arguments) -> None:
    """Print the means over the seeds, and in how many of them the term helped."""
    print_machine()
    title = f"{arguments.comparisons} comparisons, {arguments.mistakes:.0%} wrong, means over {arguments.seeds} seeds"
    table = Table(title=title, title_justify="left")
    for heading in ("L2", "ε", "accuracy", "NLL", "better than ε = 0 in accuracy, NLL"):
        table.add_column(heading, justify="right")
    clips = [Data(ClipArguments(comparisons=(arguments.comparisons,), seed=seed)) for seed in range(arguments.seeds)]
    for l2_adapt in (False, True):
        results = {
            noise: [measures(data, noise, l2_adapt, seed, arguments) for seed, data in enumerate(clips)]
            for noise in NOISES
        }
        for noise, each in results.items():
            accuracy, nll = (statistics.mean(values) for values in zip(*each, strict=True))
            better = [
                sum(a > b for (a, _), (b, _) in zip(each, results[0.0], strict=True)),
                sum(a < b for (_, a), (_, b) in zip(each, results[0.0], strict=True)),
            ]
            count = f"{better[0]}, {better[1]} of {arguments.seeds}" if noise else ""
            table.add_row("adapted" if l2_adapt else "off", f"{noise:g}", f"{accuracy:.3f}", f"{nll:.3f}", count)
    console.print(table)


if __name__ == "__main__":
    with single_threaded():
        main(tyro.cli(Arguments, description=__doc__))
