"""A Bradley–Terry reward model of text: a language model's trunk and one number at the last token (Ziegler et al. 2019,
section 2.1; Stiennon et al. 2020, section 3.4), as an ensemble where there are several.

Over given texts numbers are brought to mean 0 and deviation 1 before training, gain·(w·h + b) + bias, and once more
after it: preferences are predicted from the former, which learnt to, and scores are the latter, so that a reward's
scale does not depend on how sure of preferences the model is.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Self, cast

import torch
from torch import Tensor, nn

from envs.errors import RllabError
from language.models.causal_lm import CausalLM
from language.models.linear import linear
from language.models.lora import LoRAConfig
from language.models.padding import pad_right
from language.preferences.reward_config import TextRewardConfig
from language.preferences.reward_trunk import Trunk, copies, features_at, freeze, new_trunk
from language.preferences.rows import batches_by_length
from language.preferences.text_models import text_model
from language.tokenizers.pretrained import PretrainedTokenizer
from language.tokenizers.tokenizer import Tokenizer
from preference.measures import ensemble_spread

__all__ = ["RewardMember", "TextRewardConfig", "TextRewardModel", "features_at", "text_row", "text_rows"]
TOKENS_AT_ONCE = 16_384
"""Tokens, padding included, of a pass that needs no gradient."""
_SMALLEST = 1e-6


class RewardMember(nn.Module):
    """A trunk with a head."""

    def __init__(self, trunk: Trunk) -> None:
        """Put a new head on a trunk, which loses what makes logits if it has that apart."""
        super().__init__()
        width = text_model(trunk).width
        self.trunk = trunk
        self.head = nn.Linear(width, 1)
        nn.init.normal_(self.head.weight, std=(width + 1) ** -0.5)
        nn.init.zeros_(self.head.bias)
        if isinstance(trunk, CausalLM):
            trunk.drop_output()

    def forward(self, tokens: Tensor, last: Tensor, valid: Tensor | None) -> Tensor:
        """Raw numbers `[N]` of `[N, T]`; see `TextRewardModel.logits`."""
        return linear(features_at(self.trunk, tokens, last, valid), self.head.weight, self.head.bias)[:, 0].float()


class TextRewardModel(nn.Module):
    """Scores texts.

    Attributes:
        gain, bias: `[E]`, what makes logits of a member's raw numbers.
        offset, scale: `[E]`, mean and deviation of a member's logits over what scores are normalised on.
        spread: `[]`, the deviation of the members' mean there.
    """

    gain: Tensor
    bias: Tensor
    offset: Tensor
    scale: Tensor
    spread: Tensor

    def __init__(self, config: TextRewardConfig, trunks: Sequence[Trunk] | None = None) -> None:
        """With new heads on these trunks; by default on such of random weights. `of` takes a language model's.

        Raises RllabError if the trunks have not as many layers as are to be frozen.
        """
        super().__init__()
        self.config = config
        # One after the other, each before its head: so many random numbers are drawn in this order.
        given = trunks or (new_trunk(config.trunk) for _ in range(config.members))
        self.members = nn.ModuleList(RewardMember(trunk) for trunk in given)
        freeze([member.trunk for member in self._all()], config.frozen_layers)
        for name, value in (("gain", 1.0), ("bias", 0.0), ("offset", 0.0), ("scale", 1.0)):
            self.register_buffer(name, torch.full((config.members,), value))
        self.register_buffer("spread", torch.ones(()))

    @classmethod
    def of(
        cls, language_model: nn.Module, members: int = 1, lora: LoRAConfig | None = None, frozen_layers: int = 0
    ) -> Self:  # fmt: skip
        """A model whose members begin with a language model's weights and random heads.

        Args:
            language_model: a GPT or a `CausalLM`; it is not changed.
            members: of which nothing but the heads differ, and adapters, which are nothing at first.
            lora: adapters, of a `CausalLM`, that learn in place of its weights, which stay its own memory.
            frozen_layers: embeddings and so many layers from below do not learn, and are the same memory in all
                members.

        Raises:
            RllabError: it is none of these, cannot have adapters or has fewer layers, or there are no members.
        """
        lora = lora or LoRAConfig()
        config = TextRewardConfig.of(language_model, members, lora, frozen_layers)
        device = next(language_model.parameters()).device
        if isinstance(language_model, CausalLM):
            return cls(config, copies(language_model, members, lora, frozen_layers)).to(device)
        made = cls(config)
        for member in made._all():
            member.trunk.load_state_dict(language_model.state_dict())
        return made.to(device)

    def merged(self) -> "TextRewardModel":
        """The model itself; where it has adapters, a copy in which they are added to the weights."""
        if self.config.causal_lm is None or not self.config.causal_lm.lora.on:
            return self
        trunks = {id(member.trunk): cast(CausalLM, member.trunk).merged() for member in self._all()}
        other = copy.deepcopy(self, trunks)
        other.config = replace(self.config, causal_lm=replace(self.config.causal_lm, lora=LoRAConfig()))
        return other

    def _all(self) -> list[RewardMember]:
        return [cast(RewardMember, member) for member in self.members]

    @property
    def vocabulary_size(self) -> int:
        """Tokens that the model knows."""
        return self.config.vocabulary_size

    @property
    def context(self) -> int | None:
        """The longest text, in tokens; None where there is no limit."""
        return self.config.context

    def logits(self, tokens: Tensor, valid: Tensor | None = None) -> Tensor:
        """Every member's number at each row's last token; a preference's logit is the difference of two of them.

        Args:
            tokens: `[N, T]`.
            valid: bool `[N, T]`, where tokens are; padding may be on either side.

        Returns:
            `[E, N]`.

        Raises:
            RllabError: a row is longer than the context, or has no token.
        """
        last, valid = _last_places(tokens, valid)
        raw = torch.stack([member(tokens, last, valid) for member in self.members])
        return self.gain[:, None] * raw + self.bias[:, None]

    def forward(self, tokens: Tensor, valid: Tensor | None = None) -> Tensor:
        """Every member's logits `[E, N]`; see `logits`."""
        return self.logits(tokens, valid)

    def score(self, tokens: Tensor, valid: Tensor | None = None) -> Tensor:
        """Scores `[N]` of texts `[N, T]`: the mean of the members', each normalised by itself, normalised once more."""
        members = (self.logits(tokens, valid) - self.offset[:, None]) / self.scale[:, None]
        return members.mean(0) / self.spread

    @torch.no_grad()
    def all_logits(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Every member's logits `[E, len(rows)]` of many texts, on the CPU."""
        found = torch.empty(self.config.members, len(rows))
        device = self.gain.device
        for numbers in batches_by_length([len(row) for row in rows], TOKENS_AT_ONCE):
            found[:, numbers] = self.logits(*pad_right([rows[number] for number in numbers], device)).cpu()
        return found

    def all_scores(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """The scores of many texts, `[len(rows)]`, on the CPU."""
        return self._members(rows).mean(0) / self.spread.cpu()

    def disagreement(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """How far members are apart: their population standard deviation for each text, `[len(rows)]`, as scores."""
        members = self._members(rows) / self.spread.cpu()
        return torch.from_numpy(ensemble_spread(members.numpy()))

    def _members(self, rows: Sequence[Sequence[int]]) -> Tensor:
        return (self.all_logits(rows) - self.offset.cpu()[:, None]) / self.scale.cpu()[:, None]

    @torch.no_grad()
    def normalise_logits_on(self, rows: Sequence[Sequence[int]]) -> None:
        """Choose gains and biases so that over these texts each member's logits have mean 0 and deviation 1.

        Raises:
            RllabError: a member gives all of them the same number, or one that is not finite.
        """
        self.gain.fill_(1.0)
        self.bias.fill_(0.0)
        mean, deviation = _moments(self.all_logits(rows))
        self.gain.copy_(1 / deviation)
        self.bias.copy_(-mean / deviation)

    @torch.no_grad()
    def normalise_scores_on(self, rows: Sequence[Sequence[int]]) -> None:
        """Choose what scores are shifted and divided by so that over these texts they have mean 0 and deviation 1.

        Raises:
            RllabError: as `normalise_logits_on`.
        """
        logits = self.all_logits(rows)
        mean, deviation = _moments(logits)
        self.offset.copy_(mean)
        self.scale.copy_(deviation)
        average = ((logits.double() - mean[:, None]) / deviation[:, None]).mean(0)
        self.spread.copy_(average.std(correction=0).clamp_min(_SMALLEST))


def _moments(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each member's numbers `[E, texts]`. Raises RllabError if they do not differ."""
    logits = logits.double()
    mean, deviation = logits.mean(1), logits.std(1, correction=0)
    if not bool((deviation > _SMALLEST * logits.abs().amax(1)).all() and logits.isfinite().all()):
        raise RllabError(
            f"The reward model gives all of {logits.shape[1]} texts about the same number, so it cannot be normalised; "
            "give more texts, or train it otherwise."
        )
    return mean, deviation


def _last_places(tokens: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Where each row's last token is `[N]`, and the mask if one is needed: no token looks at padding behind it."""
    if valid is None:
        return torch.full((len(tokens),), tokens.shape[1] - 1, device=tokens.device), None
    if not bool(valid.any(1).all()):
        raise RllabError("A text without tokens cannot be scored; leave it out, or end it with an end token.")
    columns = torch.arange(tokens.shape[1], device=tokens.device)
    last = torch.where(valid, columns, -1).amax(1)
    is_right_padded = torch.equal(valid, columns <= last[:, None])
    return last, None if is_right_padded else valid


def text_row(tokenizer: Tokenizer, prompt: str, response: str, context: int | None = None) -> list[int]:
    """What the model reads of a prompt and a response: both and the end token, of long ones the last `context` tokens.

    A begin token that the tokenizer of a pretrained model puts before every text stands before these, too.

    Raises RllabError if that is nothing.
    """
    return _row(tokenizer, tokenizer.ids(prompt), tokenizer.ids(response), context)


def text_rows(
    tokenizer: Tokenizer, prompts: Sequence[str], responses: Sequence[str], context: int | None = None
) -> list[list[int]]:  # fmt: skip
    """`text_row` of many."""
    encoded = tokenizer.encode_batch([*prompts, *responses])
    halves = zip(encoded[: len(prompts)], encoded[len(prompts) :], strict=True)
    return [_row(tokenizer, *half, context) for half in halves]


def _row(tokenizer: Tokenizer, prompt: list[int], response: list[int], context: int | None) -> list[int]:
    end = tokenizer.special.end
    ids = [*prompt, *response, *([] if end is None else [tokenizer.vocabulary[end]])]
    if not ids:
        raise RllabError("A text without tokens cannot be scored; use a tokenizer with an end token.")
    prefix = tokenizer.prefix if isinstance(tokenizer, PretrainedTokenizer) else []
    if not prefix or ids[: len(prefix)] == prefix:
        prefix = []
    return [*prefix, *(ids if context is None else ids[-max(1, context - len(prefix)) :])]
