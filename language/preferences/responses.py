"""Responses to prompts: drawn from a policy, cut where they end, as tensors and as texts."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from envs.errors import RllabError
from language.decoding import DecodingConfig, generate, pad_left
from language.decoding.text import TextStream
from language.preferences.policy import TextPolicy
from language.tokenizers.tokenizer import Tokenizer
from rllab.rollout import Batch


@dataclass(frozen=True)
class ResponsesConfig:
    """How responses are drawn.

    There is no top-k and no top-p: the probabilities of a cut distribution, which a policy gradient needs again after
    the weights have changed, are not those of the model.
    """

    maximum_new_tokens: int = 24
    """T, how many tokens a response has at most (Ziegler et al. 2019: 24)."""
    temperature: float = 1.0
    """Logits are divided by it, in sampling, learning and reference alike."""
    stop_tokens: tuple[int, ...] = ()
    """Ids that end a response; by default the tokenizer's end token."""
    truncate_after: int = 0
    """A response ends at the first stop token at or after this place, counted from 0 (Ziegler et al. 2019: 16)."""

    def __post_init__(self) -> None:
        if self.maximum_new_tokens < 1:
            raise RllabError(f"maximum_new_tokens must be at least 1, not {self.maximum_new_tokens}.")
        if not self.temperature > 0:
            raise RllabError(f"The temperature must be above 0, not {self.temperature}; greedy text has no odds.")
        if not 0 <= self.truncate_after < self.maximum_new_tokens:
            raise RllabError(
                f"truncate_after must lie from 0 to maximum_new_tokens − 1 = {self.maximum_new_tokens - 1}, not "
                f"{self.truncate_after}."
            )

    def stops(self, tokenizer: Tokenizer) -> tuple[int, ...]:
        """The ids that end a response; none where there are none."""
        end = tokenizer.special.end
        return self.stop_tokens or (() if end is None else (tokenizer.vocabulary[end],))


@dataclass(frozen=True)
class Responses:
    """N responses."""

    batch: Batch
    """As a policy evaluates them; its tensors are on the policy's device."""
    log_probs: Tensor
    """`[N, T]`, of the tokens when they were drawn; 0 where there is none."""
    finished: Tensor
    """Bool `[N]`: whether a stop token ended it."""
    prompts: list[str]
    texts: list[str]
    """Without the stop token."""

    @property
    def lengths(self) -> Tensor:
        """Tokens of each, the stop token included, int64 `[N]`."""
        return self.batch.valid.sum(1)


def respond(
    policy: TextPolicy, tokenizer: Tokenizer, prompts: Sequence[Sequence[int]], seeds: Sequence[int],
    config: ResponsesConfig,
) -> Responses:  # fmt: skip
    """Draw a response to each prompt.

    Args:
        policy: what responds. Its temperature is that of `config`.
        tokenizer: of its model.
        prompts: ids of each.
        seeds: of each response's random numbers.
        config: how.

    Raises:
        RllabError: a prompt with its response does not fit into the model's context.
    """
    tokens, valid = (part.to(policy.device) for part in pad_left(prompts))
    stops = config.stops(tokenizer)
    with torch.no_grad():
        writer, begin, begin_valid = policy.text.writer(tokens, valid)
        decoding = DecodingConfig(
            config.maximum_new_tokens, temperature=policy.temperature,
            stop_tokens=() if config.truncate_after else stops,
        )  # fmt: skip
        drawn = generate(writer, begin, begin_valid, decoding, seeds=seeds, log_probabilities=True)
    assert drawn.log_probabilities is not None
    missing = config.maximum_new_tokens - drawn.tokens.shape[1]
    actions, there, log_probs = (
        torch.nn.functional.pad(part, (0, missing)) for part in (drawn.tokens, drawn.valid, drawn.log_probabilities)
    )
    finished = drawn.finished
    if config.truncate_after:
        there, finished = truncated(actions, stops, config.truncate_after)
        actions, log_probs = actions * there, log_probs * there
    batch = Batch(
        observations={"tokens": torch.cat([tokens, actions], 1), "valid": torch.cat([valid, there], 1)},
        actions=actions,
        valid=there,
    )
    given = [tokenizer.decode(list(prompt)) for prompt in prompts]
    texts = []
    for prompt, row, kept, ended in zip(prompts, actions.cpu(), there.cpu(), finished.tolist(), strict=True):
        new = row[kept].tolist()
        if ended:
            new = new[:-1]
        if policy.text.continues:
            stream = TextStream(tokenizer, prompt)
            texts.append(stream.push(*new) + stream.finish())
        else:
            texts.append(tokenizer.decode(new))
    return Responses(batch, log_probs, finished, given, texts)


def truncated(tokens: Tensor, stops: Sequence[int], after: int) -> tuple[Tensor, Tensor]:
    """Where responses `[N, T]` have tokens if each ends at its first stop token at or after a place, `[N, T]`.

    The second result `[N]` says whether there is such a token.
    """
    ends = torch.isin(tokens, torch.tensor(list(stops), dtype=tokens.dtype, device=tokens.device))
    ends[:, :after] = False
    before = ends.int().cumsum(1) - ends.int()
    return before == 0, ends.any(1)
