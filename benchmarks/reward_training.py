"""Training reward models from comparisons, beside imitation: seconds an epoch, accuracy, and choosing what to ask.

Both sides learn from the same clips of Pendulum played at random, compared by an oracle, with networks of 32-32 ReLU
and minibatches of 32 pairs. An epoch is timed as a third of a fit of three (imitation's own documentation fits so), all
preparation included. The limit is the time that the epoch's matrix products take, in the shapes that they have.
"""

import statistics
import tempfile
import uuid
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import tyro
from common import Contender, Result, Sample, console, interleave, print_machine, timed
from numpy.typing import NDArray
from peer_process import PeerProcess
from rich.table import Table

from preference.comparisons import Clip
from preference.config import PreferenceConfig, QueryConfig
from preference.dataset import ComparisonData
from preference.fit import FitConfig, Fitter
from preference.inputs import StepReader
from preference.learner import PreferenceLearner
from preference.queries import select
from preference.reward_model import RewardConfig, RewardModel
from rllab.threads import single_threaded

ENV, EPISODE_STEPS, EPISODES = "Pendulum-v1", 200, 500
HIDDEN, BATCH_SIZE, EPOCHS = (32, 32), 32, 3
QUESTIONS, FACTOR = 50, 10
HELD_OUT_PAIRS = 2000


@dataclass(frozen=True)
class Arguments:
    """What to measure."""

    peer_python: Path | None = None
    """The interpreter of a virtual environment with imitation 1.0.1 (benchmarks/README.md says how to make one);
    without it only our side is measured."""
    comparisons: tuple[int, ...] = (200, 1000)
    """Sizes of the sets that are timed."""
    members: tuple[int, ...] = (1, 3)
    """Sizes of the ensembles."""
    repetitions: int = 5
    """Rounds of each timing, after one to warm up."""
    clip_steps: int = 50
    """Steps of a clip."""
    accuracy_comparisons: int = 500
    """Comparisons that the accuracy is learnt from; 0 leaves it out."""
    accuracy_epochs: int = 30
    """Passes over them."""
    seed: int = 0
    """Of the clips, the pairs and the networks."""


class Data:
    """Clips of episodes played at random, and pairs of them; training and held-out clips are of different episodes."""

    def __init__(self, arguments: Arguments) -> None:
        generator = np.random.default_rng(arguments.seed)
        training = max(*arguments.comparisons, arguments.accuracy_comparisons)
        sizes = {"training": training, "held_out": HELD_OUT_PAIRS, "candidate": QUESTIONS * FACTOR}
        pieces = [self._clips(generator, arguments.clip_steps) for _ in sizes]
        self.arrays = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
        returns = self.arrays["rewards"].sum(axis=1)
        clips, offset = len(pieces[0]["rewards"]), 0
        for name, size in sizes.items():
            # Each clip is in one pair, until all have been.
            rounds = [
                generator.permutation(clips)[: clips // 2 * 2].reshape(-1, 2) for _ in range(2 * size // clips + 1)
            ]
            pairs = offset + np.concatenate(rounds)[:size]
            self.arrays[f"{name}_pairs"] = pairs
            self.arrays[f"{name}_preferences"] = 0.5 + 0.5 * np.sign(returns[pairs[:, 0]] - returns[pairs[:, 1]])
            offset += clips
        self.clips = [
            Clip(uuid.UUID(int=i), {"observations": o[:-1], "actions": a, "rewards": r})
            for i, (o, a, r) in enumerate(
                zip(*(self.arrays[name] for name in ("observations", "actions", "rewards")), strict=True)
            )
        ]

    @staticmethod
    def _clips(generator: np.random.Generator, steps: int) -> dict[str, NDArray[np.float32]]:
        """Whole episodes cut into clips; observations `[C, L + 1, 3]`."""
        envs = gymnasium.make_vec(ENV, EPISODES, vectorization_mode="sync")
        bound = envs.single_action_space.high
        observations = [envs.reset(seed=int(generator.integers(2**31)))[0]]
        actions, rewards = [], []
        for _ in range(EPISODE_STEPS):
            actions.append(generator.uniform(-bound, bound, (EPISODES, 1)).astype(np.float32))
            step = envs.step(actions[-1])
            observations.append(step[0])
            rewards.append(step[1])
        envs.close()
        starts = np.arange(0, EPISODE_STEPS - steps + 1, steps)
        cut = {
            "observations": np.stack(observations, axis=1)[:, starts[:, None] + np.arange(steps + 1)],
            "actions": np.stack(actions, axis=1)[:, starts[:, None] + np.arange(steps)],
            "rewards": np.stack(rewards, axis=1, dtype=np.float32)[:, starts[:, None] + np.arange(steps)],
        }
        return {name: array.reshape(-1, *array.shape[2:]) for name, array in cut.items()}

    def pairs(self, name: str, count: int | None = None) -> list[tuple[Clip, Clip]]:
        """Pairs of clips."""
        return [(self.clips[a], self.clips[b]) for a, b in self.arrays[f"{name}_pairs"][:count]]


def step_reader() -> StepReader:
    """Of Pendulum."""
    env = gymnasium.make(ENV)
    return StepReader(env.observation_space, env.action_space)


class OurTraining:
    """Our reward model with its comparisons; neither held-out pairs nor weight decay, as on the other side."""

    def __init__(self, data: Data, members: int, comparisons: int, seed: int) -> None:
        reward = RewardConfig(members=members, reward_hidden_sizes=HIDDEN, reward_activation="relu")
        config = FitConfig(fit_batch_size=BATCH_SIZE, held_out=0.0, l2=0.0, l2_adapt=False)
        self.model = RewardModel(step_reader().inputs, reward, seed=seed)
        generator = np.random.default_rng(seed)
        self.fitter = Fitter(self.model, config, generator)
        self.comparisons = ComparisonData(members, generator, held_out=0.0)
        preferences = data.arrays["training_preferences"]
        for (first, second), preference in zip(data.pairs("training", comparisons), preferences, strict=False):
            self.comparisons.add(first, second, float(preference))
        numbers = self.model.numbers(self.comparisons.batch.arrays)
        self.model.observe(numbers.reshape(-1, numbers.shape[-1]))

    def epochs(self, epochs: int) -> int:
        """Train; the pairs gone through."""
        self.fitter.fit(self.comparisons, epochs)
        return epochs * len(self.comparisons)

    def accuracy(self, data: Data) -> float:
        """Of the held-out pairs, how many are ordered as the oracle does; members vote by their mean probability."""
        preferences = data.arrays["held_out_preferences"]
        difference = np.array([self.model.differences(*pair) for pair in data.pairs("held_out")]).T
        probability = (0.5 * np.tanh(0.5 * difference) + 0.5).mean(axis=0)
        return float(((probability > 0.5) == preferences)[preferences != 0.5].mean())


def matrix_products(members: int, comparisons: int, clip_steps: int) -> tuple[Contender, float]:
    """The limit: an epoch's matrix products and nothing else; and how many GFLOP they are.

    Forward, the gradients of the weights, and the gradient that flows back through the second layer. The last layer
    sees sums over clips, fifty times less than the others, and is left out.
    """
    steps = 2 * BATCH_SIZE * clip_steps
    generator = np.random.default_rng(0)

    def random(*shape: int) -> NDArray[np.float32]:
        return generator.standard_normal(shape, np.float32)

    inputs, weights = random(steps, 4), [random(members, 4, HIDDEN[0]), random(members, *HIDDEN)]
    hidden, flowing = random(members, steps, HIDDEN[0]), random(members, steps, HIDDEN[1])
    outputs, gradients = [np.empty_like(hidden), np.empty_like(flowing)], [np.empty_like(each) for each in weights]

    def multiply() -> int:
        for _ in range(EPOCHS * comparisons // BATCH_SIZE):
            np.matmul(inputs, weights[0], out=outputs[0])
            np.matmul(hidden, weights[1], out=outputs[1])
            np.matmul(hidden.swapaxes(-1, -2), flowing, out=gradients[1])
            np.matmul(flowing, weights[1].transpose(0, 2, 1), out=outputs[0])
            np.matmul(inputs.T, flowing, out=gradients[0])
        return EPOCHS * comparisons

    first, second = 4 * HIDDEN[0], HIDDEN[0] * HIDDEN[1]
    flops = 2 * (2 * first + 3 * second) * members * comparisons * 2 * clip_steps
    return Contender("matrix products", timed(multiply), side="limit"), flops / 1e9


def sgemm_rate() -> float:
    """GFLOP per second of a large product of single-precision matrices on one thread: the best of five."""
    a = np.ones((768, 768), np.float32)
    return max(2 * 768**3 / 1e9 / timed(lambda: len(a @ a))().cpu_seconds for _ in range(6))


def peer_timing(peer: PeerProcess, name: str, task: str, steps: int, **arguments: Any) -> Contender:
    """The peer's side of a contender: what it says of its own clock."""

    def measure() -> Sample:
        answer = peer.ask(task, name=name, **arguments)
        return Sample(steps, answer["seconds"], answer["cpu_seconds"])

    return Contender("imitation", measure, side="imitation")


def seconds(result: Result, divisor: int = 1) -> float:
    """The median of CPU seconds of a repetition, or of one of `divisor` equal parts."""
    return statistics.median(sample.cpu_seconds for sample in result.samples) / divisor


def time_epochs(data: Data, file: Path, peer: PeerProcess | None, arguments: Arguments) -> None:
    """Print CPU seconds an epoch."""
    table = Table(title="CPU seconds an epoch, medians", title_justify="left")
    for heading in ("members", "comparisons", "rllab", "min – max", "imitation", "min – max", "ratio", "products alone",
                    "of the limit", "GFLOP/s"):  # fmt: skip
        table.add_column(heading, justify="right")
    for members in arguments.members:
        for comparisons in arguments.comparisons:
            ours = OurTraining(data, members, comparisons, arguments.seed)
            limit, gigaflop = matrix_products(members, comparisons, arguments.clip_steps)
            contenders = [
                Contender("rllab", timed(lambda ours=ours: ours.epochs(EPOCHS)), side="rllab"),
                limit,
            ]
            if peer is not None:
                name = f"{members} {comparisons}"
                peer.ask(
                    "prepare", name=name, data=str(file), members=members, comparisons=comparisons, normalise=False,
                    seed=arguments.seed,
                )  # fmt: skip
                contenders.append(peer_timing(peer, name, "epochs", EPOCHS * comparisons, epochs=EPOCHS))
            our_result, limit_result, *peers = interleave(contenders, arguments.repetitions)
            columns = [str(members), f"{comparisons:,}", *_with_range(our_result)]
            columns += (
                [*_with_range(peers[0]), f"{seconds(peers[0]) / seconds(our_result):.1f}"] if peers else 3 * ["–"]
            )
            products = seconds(limit_result, EPOCHS)
            ours_seconds = seconds(our_result, EPOCHS)
            columns += [f"{products:.4f}", f"{products / ours_seconds:.0%}", f"{gigaflop / ours_seconds:.1f}"]
            table.add_row(*columns)
    console.print(table)
    console.print(f"A large matrix product runs at {sgemm_rate():.0f} GFLOP/s here, on one thread.\n")


def _with_range(result: Result) -> tuple[str, str]:
    each = [sample.cpu_seconds / EPOCHS for sample in result.samples]
    return f"{statistics.median(each):.4f}", f"{min(each):.4f} – {max(each):.4f}"


def measure_accuracy(data: Data, file: Path, peer: PeerProcess | None, arguments: Arguments) -> None:
    """Print the accuracy on held-out pairs after the same number of epochs over the same comparisons."""
    count, epochs = arguments.accuracy_comparisons, arguments.accuracy_epochs
    title = f"Accuracy on {HELD_OUT_PAIRS:,} held-out pairs after {epochs} epochs of {count}"
    table = Table(title=title, title_justify="left")
    for heading in ("members", "rllab", "CPU s", "imitation", "CPU s"):
        table.add_column(heading, justify="right")
    for members in arguments.members:
        ours = OurTraining(data, members, count, arguments.seed)
        sample = timed(lambda ours=ours: ours.epochs(epochs))()
        columns = [str(members), f"{ours.accuracy(data):.4f}", f"{sample.cpu_seconds:.2f}"]
        if peer is not None:
            name = f"accuracy {members}"
            peer.ask(
                "prepare", name=name, data=str(file), members=members, comparisons=count, normalise=True,
                seed=arguments.seed,
            )  # fmt: skip
            trained = peer.ask("epochs", name=name, epochs=epochs)
            columns += [f"{peer.ask('accuracy', name=name)['accuracy']:.4f}", f"{trained['cpu_seconds']:.2f}"]
        else:
            columns += 2 * ["–"]
        table.add_row(*columns)
    console.print(table)


def time_selection(data: Data, file: Path, peer: PeerProcess | None, arguments: Arguments) -> None:
    """Print CPU seconds of choosing by disagreement, the networks' passes over the candidates included."""
    reward = RewardConfig(members=3, reward_hidden_sizes=HIDDEN, reward_activation="relu")
    learner = PreferenceLearner(
        PreferenceConfig(query=QueryConfig(queries="disagreement"), reward=reward), step_reader(),
        desk=None,  # nothing is asked
        rows=1, steps=1, clip_steps=arguments.clip_steps, seed=arguments.seed, run=str(uuid.UUID(int=0)),
    )  # fmt: skip
    pairs = data.pairs("candidate")
    generator = np.random.default_rng(arguments.seed)

    def choose() -> int:
        select(learner.questions.candidates(pairs), QUESTIONS, learner.questions.mix, generator)
        return len(pairs)

    contenders = [Contender("rllab", timed(choose), side="rllab")]
    if peer is not None:
        peer.ask(
            "prepare", name="selection", data=str(file), members=3, comparisons=32, normalise=False,
            seed=arguments.seed,
        )  # fmt: skip
        contenders.append(peer_timing(peer, "selection", "select", len(pairs), count=QUESTIONS, factor=FACTOR))
    ours, *peers = interleave(contenders, arguments.repetitions)
    sentence = f"Choosing {QUESTIONS} of {len(pairs)} pairs by disagreement of 3 members: {seconds(ours):.4f} CPU s"
    if peers:
        sentence += f"; imitation {seconds(peers[0]):.4f}, {seconds(peers[0]) / seconds(ours):.0f} times as many"
    console.print(sentence + ".\n")


def main(arguments: Arguments) -> None:
    """Run all three."""
    print_machine()
    data = Data(arguments)
    with ExitStack() as stack:
        stack.enter_context(single_threaded())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        file = folder / "clips.npz"
        np.savez(file, **data.arrays)
        peer = None
        if arguments.peer_python is None:
            console.print("imitation is left out: --peer-python names the interpreter that has it.\n")
        else:
            peer = stack.enter_context(PeerProcess(arguments.peer_python, "peer_imitation.py"))
            versions = peer.ask("versions")
            console.print("The peer: " + ", ".join(f"{name} {version}" for name, version in versions.items()) + "\n")
        time_epochs(data, file, peer, arguments)
        time_selection(data, file, peer, arguments)
        if arguments.accuracy_comparisons:
            measure_accuracy(data, file, peer, arguments)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
