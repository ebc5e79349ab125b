"""A reward of texts that is learnt from comparisons again and again, while a policy learns from it.

Each fit begins with the language model's own weights and learns from all comparisons so far; afterwards scores have
mean 0 and deviation 1 over the same responses of that model (Ziegler et al. 2019, section 2.1), so that a fit does not
shift or stretch what the agent is given.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from envs.errors import RllabError
from language.models.lora import LoRAConfig
from language.preferences.comparing import Comparing, encode
from language.preferences.formats import TextComparison
from language.preferences.reward_measures import EncodedComparison
from language.preferences.reward_model import TextRewardConfig, TextRewardModel, text_rows
from language.preferences.teaching_config import TeachingConfig
from language.tokenizers.tokenizer import Tokenizer
from preference.comparisons import Clip
from preference.dataset import ComparisonData


class LearnedReward:
    """A `TextReward`, once it has been fitted.

    Attributes:
        model: the newest reward model; None before the first fit.
        fits: how often it has been fitted.
    """

    def __init__(
        self, language_model: nn.Module, tokenizer: Tokenizer, config: TeachingConfig, seed: int,
        lora: LoRAConfig | None = None,
    ) -> None:  # fmt: skip
        """Prepare for fits.

        Args:
            language_model: a GPT or a causal model of `transformers`, with whose weights each fit begins; it is not
                changed.
            tokenizer: of that model.
            config: how the reward is learnt.
            seed: of heads, adapters, minibatches and dropout.
            lora: adapters that learn in place of the model's weights, which are then the same memory in the reward.

        Raises:
            RllabError: the model is none of these.
        """
        self.lora = lora or LoRAConfig()
        self.context = TextRewardConfig.of(language_model, config.reward_members, self.lora).context
        self.language_model, self.tokenizer, self.config, self.seed = language_model, tokenizer, config, seed
        self.device = next(language_model.parameters()).device
        self.model: TextRewardModel | None = None
        self.fits = 0
        self.normalising: list[list[int]] = []
        """Tokens of the texts that scores are normalised over."""

    def normalise_over(self, prompts: Sequence[str], responses: Sequence[str]) -> None:
        """Let scores have mean 0 and deviation 1 over these texts after every fit."""
        self.normalising = self._rows(prompts, responses)

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
        """Scores `[N]`. Raises RllabError before the first fit."""
        if self.model is None:
            raise RllabError("The reward has not been learnt yet, as nothing has been answered.")
        found: list[float] = self.model.all_scores(self._rows(prompts, responses)).tolist()
        return found

    def differences(self, pairs: Sequence[tuple[Clip, Clip]]) -> NDArray[np.float32]:
        """By how much each member thinks the first better, in logits, `[E, pairs]`; 0 before the first fit."""
        if self.model is None:
            return np.zeros((self.config.reward_members, len(pairs)), np.float32)
        texts = [clip.details for side in zip(*pairs, strict=True) for clip in side]
        rows = self._rows([text["prompt"] for text in texts], [text["response"] for text in texts])
        logits = self.model.all_logits(rows)
        difference: NDArray[np.float32] = (logits[:, : len(pairs)] - logits[:, len(pairs) :]).numpy()
        return difference

    def fit(self, data: ComparisonData) -> dict[str, float]:
        """Learn from these comparisons of texts; what the fit came to, named as metrics are.

        Raises:
            RllabError: nothing can be learnt from them, or the loss is not finite; the model is then as it was.
        """
        encoded = encode([_comparison(data, number) for number in range(len(data))], self.tokenizer, self.context)
        learnt, held_out = sides(data)
        on_cuda = [self.device] if self.device.type == "cuda" else []
        # Heads and dropout draw from torch's own generator, which nothing else here may notice.
        with torch.random.fork_rng(devices=on_cuda):
            torch.manual_seed(int(np.random.SeedSequence([self.seed, self.fits, 0xF175]).generate_state(1)[0]))
            model = self._new()
            model.normalise_logits_on(self.normalising)
            problem = self._problem(encoded, learnt, held_out, data.counts())
            loss = self._descend(model.train(), problem)
        model.eval()
        model.normalise_scores_on(self.normalising)
        self.model, self.fits = model, self.fits + 1
        measures = {"reward/training_loss": loss, "reward/fits": float(self.fits)}
        if held_out.any():
            found = problem.predictions(model)
            measures |= found.measures.to_metrics("reward/held_out_")
            measures["reward/held_out_loss"] = found.loss
        return measures

    def _problem(
        self, encoded: Sequence[EncodedComparison], learnt: NDArray[np.bool_], held_out: NDArray[np.bool_],
        counts: NDArray[np.float32],
    ) -> Comparing:  # fmt: skip
        training = [each for each, chosen in zip(encoded, learnt, strict=True) if chosen]
        judged = [each for each, chosen in zip(encoded, held_out, strict=True) if chosen]
        problem = Comparing(
            training, judged or training, min(self.config.reward_batch, len(training)),
            members=self.config.reward_members, bootstrap=False, seed=self.seed, device=self.device,
        )  # fmt: skip
        problem.weights = torch.from_numpy(counts[:, learnt])
        return problem

    def _descend(self, model: TextRewardModel, problem: Comparing) -> float:
        """Adam with a rate that falls to 0; the mean loss of the last epoch, in nats."""
        steps = self.config.reward_epochs * problem.epoch_batches
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimiser = torch.optim.Adam(parameters, self.config.reward_learning_rate)
        decay = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / steps)
        total, count = 0.0, 0
        for step in range(steps):
            loss = problem.loss(model, problem.batch())
            optimiser.zero_grad()
            (loss.total / loss.count).backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            decay.step()
            if step >= steps - problem.epoch_batches:
                total, count = total + float(loss.total.detach()), count + loss.count
        if not np.isfinite(total):
            raise RllabError("The reward model's loss is not finite; lower --reward-learning-rate.")
        return total / count

    def _new(self) -> TextRewardModel:
        """A reward model that has learnt nothing."""
        return TextRewardModel.of(self.language_model, self.config.reward_members, self.lora).eval()

    def _rows(self, prompts: Sequence[str], responses: Sequence[str]) -> list[list[int]]:
        return text_rows(self.tokenizer, prompts, responses, self.context)

    def state_dict(self) -> dict[str, Any]:
        """The newest model's weights, and what scores are normalised over."""
        return {
            "model": None if self.model is None else dict(self.model.state_dict()),
            "fits": self.fits,
            "normalising": np.array([token for row in self.normalising for token in row], np.int64),
            "normalising_lengths": np.array([len(row) for row in self.normalising], np.int64),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        ends = np.cumsum(state["normalising_lengths"])
        self.normalising = [part.tolist() for part in np.split(np.array(state["normalising"]), ends)[:-1]]
        self.fits, self.model = state["fits"], None
        if state["model"] is not None:
            self.model = self._new()
            self.model.load_state_dict(state["model"])


def sides(data: ComparisonData) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which comparisons are learnt from and which are measured on, bool `[P]` both.

    Where those to learn from say nothing, as when they are few, all are learnt from.
    """
    learnt, held_out = data.training(), data.held_out()
    if (np.array(data.preferences)[learnt] == 0.5).all():
        return np.ones(len(data), bool), np.zeros(len(data), bool)
    return learnt, held_out


def _comparison(data: ComparisonData, number: int) -> TextComparison:
    first, second = (data.clips[index].details for index in data.pairs[number])
    return TextComparison(first["prompt"], first["response"], second["response"], data.preferences[number])
