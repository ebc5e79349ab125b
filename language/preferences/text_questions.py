"""Pairs of responses of the present policy to the same prompt, and which of them are asked about."""

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from language.preferences.learned_reward import LearnedReward
from language.preferences.policy import TextPolicy
from language.preferences.prompts import PromptOrder
from language.preferences.responses import ResponsesConfig, respond
from language.preferences.teaching_config import TeachingConfig
from language.tokenizers.tokenizer import Tokenizer
from preference.budget import Budget
from preference.clips import pair_key
from preference.comparisons import Clip, content_id
from preference.desk import Question
from preference.queries import Candidates, select

PAIRS_AT_ONCE = 64
"""Pairs that are written together."""
ROUNDS = 4
"""How often pairs are written again in place of those that cannot be asked about."""


class TextQuestions(Budget):
    """Writes pairs and chooses among them. The two responses of a pair differ, and neither is empty."""

    def __init__(
        self, config: TeachingConfig, prompts: Sequence[Sequence[int]], tokenizer: Tokenizer, drawing: ResponsesConfig,
        *, steps: int, seed: int, run: str,
    ) -> None:  # fmt: skip
        """Make it.

        Args:
            config: what is asked, and when.
            prompts: ids of each.
            tokenizer: of the policy's model.
            drawing: how responses are drawn.
            steps: of the training.
            seed: of prompts, responses and choices.
            run: a UUID that the ids of texts are made from.
        """
        super().__init__(config.schedule(steps), config.query_batch)
        self.config, self.tokenizer, self.drawing, self.run = config, tokenizer, drawing, run
        first, second = (int(state) for state in np.random.SeedSequence([seed, 0x7EAC]).generate_state(2))
        self.order, self.generator = PromptOrder(prompts, first), np.random.default_rng(second)

    def responses(self, policy: TextPolicy, count: int, per_prompt: int = 1) -> list[tuple[str, str]]:
        """Prompts with responses, `count` of them, so many one after the other to the same prompt."""
        found: list[tuple[str, str]] = []
        for start in range(0, count, 2 * PAIRS_AT_ONCE):
            some = min(2 * PAIRS_AT_ONCE, count - start)
            prompts = [row for row in self.order.take(-(-some // per_prompt)) for _ in range(per_prompt)][:some]
            seeds = self.generator.integers(2**63 - 1, size=some).tolist()
            drawn = respond(policy, self.tokenizer, prompts, seeds, self.drawing)
            found += zip(drawn.prompts, drawn.texts, strict=True)
        return found

    def choose(self, policy: TextPolicy, reward: LearnedReward, count: int, policy_step: int) -> list[Question]:
        """At most `count` pairs that were not asked about yet.

        Args:
            policy: writes them.
            reward: its members' predictions decide, once it has been fitted; before that pairs are random.
            count: how many; the budget may allow fewer, and a policy that always writes the same.
            policy_step: what the policy has been trained for.
        """
        count = min(count, self.labels - self.asked)
        mix = self.config.mix() if reward.fits else {"uniform": 1.0}
        wanted = count if mix.keys() == {"uniform"} else count * self.config.candidates
        pairs = self._written(policy, wanted, policy_step)
        if not pairs:
            return []
        differences = reward.differences(pairs)
        nowhere = np.empty((0, 0), np.float32)
        chosen = select(Candidates(differences, nowhere, nowhere), count, mix, self.generator)
        expected = (0.5 * np.tanh(0.5 * differences.astype(np.float64)) + 0.5).mean(0)
        questions = [Question(*pairs[number], strategy, float(expected[number])) for number, strategy in chosen]
        self._known.update(pair_key(question.first, question.second) for question in questions)
        self.asked += len(questions)
        return questions

    def _written(self, policy: TextPolicy, count: int, policy_step: int) -> list[tuple[Clip, Clip]]:
        """So many different pairs, if the policy writes them."""
        pairs: dict[frozenset[str], tuple[Clip, Clip]] = {}
        for _ in range(ROUNDS):
            if (missing := count - len(pairs)) < 1:
                break
            texts = [self._clip(*text, policy_step) for text in self.responses(policy, 2 * missing, per_prompt=2)]
            for first, second in zip(texts[::2], texts[1::2], strict=True):
                empty = not all(clip.details["response"].strip() for clip in (first, second))
                if not empty and first.id != second.id and (key := pair_key(first, second)) not in self._known:
                    pairs.setdefault(key, (first, second))
        return list(pairs.values())

    def _clip(self, prompt: str, response: str, policy_step: int) -> Clip:
        identity = content_id(uuid.UUID(self.run), {}, json.dumps([prompt, response]))
        return Clip(identity, {}, self.run, policy_step, {"prompt": prompt, "response": response})

    def state_dict(self) -> dict[str, Any]:
        """What was asked, the order of prompts, and the generator."""
        return {
            **super().state_dict(),
            "order": self.order.state_dict(),
            "generator": self.generator.bit_generator.state,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        super().load_state_dict(state)
        self.order.load_state_dict(state["order"])
        self.generator.bit_generator.state = state["generator"]
