"""A Bradley–Terry reward model of text: a language model's trunk and one number at the last token (Ziegler et al. 2019,
section 2.1; Stiennon et al. 2020, section 3.4), as an ensemble where there are several.

Over given texts numbers are brought to mean 0 and deviation 1 before training, gain·(w·h + b) + bias, and once more
after it: preferences are predicted from the former, which learnt to, and scores are the latter, so that a reward's
scale does not depend on how sure of preferences the model is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self, cast

import torch
from torch import Tensor, nn

from envs.errors import RllabError
from language.models.attention import AttentionMask, attend
from language.models.blocks import Block, check_length, positions_of
from language.models.gpt import GPT, GPTConfig
from language.models.linear import linear
from language.models.padding import pad_right
from language.preferences.rows import batches_by_length
from language.tokenizers.tokenizer import Tokenizer
from preference.measures import ensemble_spread

TOKENS_AT_ONCE = 16_384
"""Tokens, padding included, of a pass that needs no gradient."""
_SMALLEST = 1e-6


@dataclass(frozen=True)
class TextRewardConfig:
    """What the reward model is."""

    gpt: GPTConfig = field(default_factory=GPTConfig)
    """Each member's trunk."""
    members: int = 1
    """E, how many there are; the papers have one."""

    def __post_init__(self) -> None:
        if self.members < 1:
            raise RllabError(f"members must be at least 1, not {self.members}.")

    @property
    def vocabulary_size(self) -> int:
        """Tokens of the trunk."""
        return self.gpt.vocabulary_size

    @property
    def context(self) -> int:
        """The longest text, in tokens."""
        return self.gpt.context


class RewardMember(nn.Module):
    """A trunk with a head."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.trunk = GPT(config)
        self.head = nn.Linear(config.width, 1)
        nn.init.normal_(self.head.weight, std=(config.width + 1) ** -0.5)
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens: Tensor, last: Tensor, valid: Tensor | None) -> Tensor:
        """Raw numbers `[N]` of `[N, T]`; see `TextRewardModel.logits`."""
        return linear(features_at(self.trunk, tokens, last, valid), self.head.weight, self.head.bias)[:, 0].float()


def features_at(trunk: GPT, tokens: Tensor, places: Tensor, valid: Tensor | None = None) -> Tensor:
    """What `trunk.features` gives at one place of each row, `[N, width]`; the last layer computes nothing else.

    Args:
        trunk: the GPT.
        tokens: `[N, T]`.
        places: int64 `[N]`.
        valid: bool `[N, T]`, where tokens are; None if there is no padding before a row's place.
    """
    rows, length = tokens.shape
    check_length(length, trunk.config.context)
    x = trunk._embedded(tokens, positions_of(valid, (rows, length), tokens.device))
    mask = AttentionMask.of(valid, causal=True)
    *blocks, top = trunk.blocks
    for block in blocks:
        x = block(x, mask)
    assert isinstance(top, Block)
    queries, keys, values = top.attention.queries_keys_values(x if top.post else top.attention_norm(x))
    flat = places + torch.arange(rows, device=tokens.device) * length
    queries = queries.transpose(1, 2).flatten(0, 1).index_select(0, flat)[:, :, None]
    seen = torch.arange(length, device=tokens.device) <= places[:, None]
    allowed = AttentionMask(allowed=(seen if valid is None else seen & valid)[:, None, None])
    mixed = attend(queries, keys, values, allowed, top.attention.dropout if top.training else 0.0)
    x = x.flatten(0, 1).index_select(0, flat)
    x = x + _dropped(top.attention.outward(mixed.flatten(1)), top)
    if top.post:
        x = top.attention_norm(x)
        return cast(Tensor, top.feed_forward_norm(x + _dropped(top.feed(x), top)))
    return cast(Tensor, trunk.final_norm(x + _dropped(top.feed(top.feed_forward_norm(x)), top)))


def _dropped(x: Tensor, block: Block) -> Tensor:
    return nn.functional.dropout(x, block.dropout, block.training)


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

    def __init__(self, config: TextRewardConfig) -> None:
        """With random weights; `of` takes a language model's."""
        super().__init__()
        self.config = config
        self.members = nn.ModuleList(RewardMember(config.gpt) for _ in range(config.members))
        for name, value in (("gain", 1.0), ("bias", 0.0), ("offset", 0.0), ("scale", 1.0)):
            self.register_buffer(name, torch.full((config.members,), value))
        self.register_buffer("spread", torch.ones(()))

    @classmethod
    def of(cls, language_model: nn.Module, members: int = 1) -> Self:
        """A model whose members begin with a GPT's weights and random heads.

        Raises:
            RllabError: it is no GPT; or the members, of which nothing but the heads differ, are fewer than 1.
        """
        if type(language_model) is not GPT:
            raise RllabError(
                f"A {type(language_model).__name__} cannot become a reward model; give a GPT, such as a run of "
                "`rllab language pretrain gpt` or `rllab language sft`."
            )
        made = cls(TextRewardConfig(language_model.config, members))
        for member in made.members:
            cast(RewardMember, member).trunk.load_state_dict(language_model.state_dict())
        return made.to(next(language_model.parameters()).device)

    @property
    def vocabulary_size(self) -> int:
        """Tokens that the model knows."""
        return self.config.vocabulary_size

    @property
    def context(self) -> int:
        """The longest text, in tokens."""
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
    return ids if context is None else ids[-context:]
