"""A language model in miniature: a causal transformer as a `Policy` of whole rows, and a collector of responses.

Nothing here is known to `rllab`: what it trains are rows of tokens, through the contracts alone.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from rllab.policies.distributions import Categorical
from rllab.policies.policy import Policy
from rllab.rollout import Batch, Rollout
from rllab.whole import evaluate_rows

VOCABULARY = 8
STOP = 0
"""The token that ends a response."""
PAD = VOCABULARY
"""Fills rows up: before short prompts and after the stop token. It is no action."""
PROMPT, RESPONSE = 4, 8
"""P and T, the widths of prompts and of responses."""


class Block(nn.Module):
    """Pre-norm causal self-attention and a two-layer MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        """`x` `[B, L, width]`; `visible` bool `[B, 1, L, L]`, which positions each may look at."""
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(self.norms[0](x)).chunk(3, -1)
        )
        x = x + self.out(scaled_dot_product_attention(q, k, v, attn_mask=visible).transpose(1, 2).flatten(2))
        return x + self.down(gelu(self.up(self.norms[1](x))))


class TinyTransformer(nn.Module):
    """Two blocks, a head over the vocabulary and a value head on the same features."""

    def __init__(self, width: int = 32, heads: int = 2) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(VOCABULARY + 1, width), nn.Embedding(PROMPT + RESPONSE, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(2))
        self.norm = nn.LayerNorm(width)
        self.head, self.critic = nn.Linear(width, VOCABULARY), nn.Linear(width, 1)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def features(self, tokens: Tensor) -> Tensor:
        """Features `[B, L, width]` of tokens `[B, L]`; padding is seen by nobody and takes no position."""
        exists = tokens != PAD
        order = (exists.cumsum(-1) - 1).clamp_min(0)
        causal = torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool, device=tokens.device).tril()
        itself = torch.eye(tokens.shape[1], dtype=torch.bool, device=tokens.device)
        visible = (causal & exists.unsqueeze(1)) | itself
        x = self.tokens(tokens) + self.positions(order)
        for block in self.blocks:
            x = block(x, visible.unsqueeze(1))
        normed: Tensor = self.norm(x)
        return normed

    def forward(self, batch: Batch, actor: bool = True, critic: bool = True) -> tuple[Tensor | None, Tensor | None]:
        # A critic fitted alone must not move the features that the actor stands on.
        with torch.set_grad_enabled(actor and torch.is_grad_enabled()):
            # The token at position p is chosen, and its value told, by what stands before it.
            features = self.features(batch.observations)[:, -batch.actions.shape[1] - 1 : -1]
        return self.head(features) if actor else None, self.critic(features).squeeze(-1) if critic else None


class TokenPolicy(Policy):
    """Whole rows in one pass: observations `[N, P + T]`, actions `[N, T]`."""

    rows = True

    def __init__(self, seed: int = 0) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = TinyTransformer()
        super().__init__(module, list(module.critic.parameters()))

    def distribution(self, parameters: Tensor, action_mask: Tensor | None = None) -> Categorical:
        return Categorical(parameters, action_mask)

    @torch.no_grad()
    def next_token(self, tokens: Tensor, noise: NDArray[np.float32]) -> Tensor:
        """One token `[N]` after each row of `tokens` `[N, L]`."""
        logits = self.module.head(self.module.features(tokens)[:, -1])  # type: ignore[operator]
        return self.distribution(logits).sample(torch.from_numpy(noise))


class TokenCollector:
    """Draws prompts, samples responses token by token, and scores them whole: the reward is the last token's."""

    def __init__(self, score: Callable[[NDArray[np.int64]], float], rows: int = 32, seed: int = 0) -> None:
        self.score, self.num_rows = score, rows
        self.generator = np.random.default_rng(seed)
        self.last_mean = float("nan")

    def collect(self, policy: TokenPolicy) -> Rollout:
        rows = self.num_rows
        prompts = self.generator.integers(1, VOCABULARY, (rows, PROMPT))
        lengths = self.generator.integers(1, PROMPT + 1, rows)
        prompts[np.arange(PROMPT) < PROMPT - lengths[:, None]] = PAD
        tokens = torch.full((rows, PROMPT + RESPONSE), PAD)
        tokens[:, :PROMPT] = torch.from_numpy(prompts)
        valid = torch.zeros(rows, RESPONSE, dtype=torch.bool)
        noise = self.generator.gumbel(size=(RESPONSE, rows, VOCABULARY)).astype(np.float32)
        going_on = torch.ones(rows, dtype=torch.bool)
        for t in range(RESPONSE):
            chosen = policy.next_token(tokens[:, : PROMPT + t], noise[t])
            tokens[:, PROMPT + t] = torch.where(going_on, chosen, PAD)
            valid[:, t] = going_on
            going_on = going_on & (chosen != STOP)
        responses = tokens[:, PROMPT:]
        last = valid & ~torch.cat([valid[:, 1:], torch.zeros(rows, 1, dtype=torch.bool)], dim=1)
        scores = np.array([self.score(row[row != PAD]) for row in responses.numpy()])
        rewards = last * torch.from_numpy(scores).float().unsqueeze(1)
        actions = torch.where(valid, responses, STOP)
        log_probs, values = evaluate_rows(policy, Batch(observations=tokens, actions=actions, valid=valid))
        self.last_mean = float(scores.mean())
        return Rollout(
            observations=tokens, actions=actions, rewards=rewards, terminated=last,
            truncated=torch.zeros_like(last), valid=valid, log_probs=log_probs, values=values,
            next_values=torch.cat([values[:, 1:], torch.zeros(rows, 1)], dim=1), environment_rewards=rewards,
            episode_returns=scores, episode_lengths=valid.sum(1).numpy(),
        )  # fmt: skip

    def recent(self) -> dict[str, float]:
        return {"return_mean": self.last_mean}

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.bit_generator.state, "last_mean": self.last_mean}

    def load_state_dict(self, state: dict[str, Any]) -> list[str]:
        self.generator.bit_generator.state = state["generator"]
        self.last_mean = state["last_mean"]
        return []

    def close(self) -> None:
        """There is nothing to let go."""


def target_score(response: NDArray[np.int64], target: int = 3) -> float:
    """How many tokens of a response are the target, of all it might have had: 1/8 for a uniform policy at best."""
    return float((response == target).sum()) / RESPONSE
