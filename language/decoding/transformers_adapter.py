"""Any causal language model of Hugging Face `transformers` as a `Decodable`, with its cache of keys and values."""

import copy
import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass
class _State:
    cache: Any
    """A `DynamicCache`."""
    mask: Tensor
    """int64 `[N, capacity]`, 1 where a token is; 1 too where none is yet."""
    positions: Tensor
    """int64 `[N, 1]`, of the token that comes next."""
    length: int
    """How many columns there are."""


class TransformersModel:
    """A causal model, such as `GPT2LMHeadModel` or `AutoModelForCausalLM`, that takes position ids."""

    def __init__(self, model: nn.Module) -> None:
        """`model` is a causal model of `transformers`, in evaluation mode."""
        self.model = model
        self._config: Any = model.config
        # Older releases call it past_key_values.
        named = inspect.signature(model.forward).parameters
        self._cache_name = "cache" if "cache" in named else "past_key_values"

    @property
    def vocabulary_size(self) -> int:
        """How many tokens there are."""
        return int(self._config.vocab_size)

    @property
    def context(self) -> int | None:
        """The longest sequence; None where the configuration has no limit."""
        return getattr(self._config, "max_position_embeddings", None)

    @property
    def training(self) -> bool:
        """Whether the model is in training mode."""
        return self.model.training

    def begin(self, tokens: Tensor, valid: Tensor, capacity: int) -> tuple[Tensor, _State]:
        from transformers import DynamicCache

        rows, length = tokens.shape
        mask = torch.ones(rows, capacity, dtype=torch.int64, device=tokens.device)
        mask[:, :length] = valid
        positions = (mask[:, :length].cumsum(-1) - 1).clamp_min(0)
        state = _State(DynamicCache(config=self._config), mask, positions[:, -1:] + 1, length)
        return self._read(tokens, positions, state), state

    def step(self, tokens: Tensor, state: _State) -> Tensor:
        state.length += 1
        logits = self._read(tokens[:, None], state.positions, state)
        state.positions = state.positions + 1
        return logits

    def select(self, state: _State, rows: Tensor) -> _State:
        cache = copy.copy(state.cache)
        cache.layers = [copy.copy(layer) for layer in cache.layers]
        cache.batch_select_indices(rows)  # which gives the copies new tensors
        return _State(cache, state.mask[rows], state.positions[rows], state.length)

    def _read(self, tokens: Tensor, positions: Tensor, state: _State) -> Tensor:
        output = self.model(
            tokens, attention_mask=state.mask[:, : state.length], position_ids=positions, use_cache=True,
            logits_to_keep=1, **{self._cache_name: state.cache},
        )  # fmt: skip
        logits: Tensor = output.logits[:, -1]
        return logits
