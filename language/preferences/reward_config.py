"""What a reward model of text is: its members, their trunk, and what of that learns."""

from dataclasses import dataclass, field, replace
from typing import Self

from torch import nn

from envs.errors import RllabError
from language.models.causal_lm import CausalLM, CausalLMConfig
from language.models.gpt import GPTConfig
from language.models.lora import LoRAConfig
from language.preferences.reward_trunk import TrunkConfig, as_trunk
from language.preferences.text_models import text_model


def check_members(members: int, frozen_layers: int) -> None:
    """Raise RllabError for an ensemble without members, or a number of layers below 0."""
    if members < 1:
        raise RllabError(f"members must be at least 1, not {members}.")
    if frozen_layers < 0:
        raise RllabError(f"frozen_layers must be 0 (nothing is frozen) or more, not {frozen_layers}.")


@dataclass(frozen=True)
class TextRewardConfig:
    """What the reward model is."""

    gpt: GPTConfig | None = field(default_factory=GPTConfig)
    """Each member's trunk; None where it is another model."""
    members: int = 1
    """E, how many there are; the papers have one."""
    causal_lm: CausalLMConfig | None = None
    """Each member's trunk where it is a model of `transformers`, with its adapters."""
    frozen_layers: int = 0
    """Embeddings and so many layers from below do not learn."""

    def __post_init__(self) -> None:
        check_members(self.members, self.frozen_layers)
        if (self.gpt is None) == (self.causal_lm is None):
            raise RllabError("A reward model has one kind of trunk: give either gpt or causal_lm.")

    @classmethod
    def of(
        cls, language_model: nn.Module, members: int = 1, lora: LoRAConfig | None = None, frozen_layers: int = 0
    ) -> Self:  # fmt: skip
        """That of a model which `TextRewardModel.of` makes of a language model. Raises RllabError as it does."""
        lora = lora or LoRAConfig()
        trunk = as_trunk(language_model, lora)
        if frozen_layers:
            text_model(trunk).lower(frozen_layers)
        if isinstance(trunk, CausalLM):
            return cls(None, members, replace(trunk.config, lora=lora), frozen_layers)
        return cls(trunk.config, members, None, frozen_layers)

    @property
    def trunk(self) -> TrunkConfig:
        """Each member's."""
        found = self.causal_lm or self.gpt
        assert found is not None
        return found

    @property
    def vocabulary_size(self) -> int:
        """Tokens of the trunk."""
        return self.trunk.vocabulary_size

    @property
    def context(self) -> int | None:
        """The longest text, in tokens; None where there is no limit."""
        return self.trunk.context
