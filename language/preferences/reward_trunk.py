"""What a reward model stands on: a GPT of this package or a causal model of `transformers`, read at one place a row.

The members of an ensemble have copies of the same language model. What is frozen in them, as their lower layers are, or
all but the adapters, is the same memory in all copies.
"""

import copy
from collections.abc import Sequence
from typing import TypeAlias, cast

import torch
from torch import Tensor, nn

from envs.errors import RllabError
from language.models.attention import AttentionMask, attend
from language.models.blocks import Block, check_length, positions_of
from language.models.causal_lm import CausalLM, CausalLMConfig
from language.models.gpt import GPT, GPTConfig
from language.models.lora import LoRAConfig
from language.preferences.text_models import text_model

Trunk: TypeAlias = GPT | CausalLM
TrunkConfig: TypeAlias = GPTConfig | CausalLMConfig


def as_trunk(language_model: nn.Module, lora: LoRAConfig) -> Trunk:
    """The model itself.

    Raises RllabError if no reward model can stand on it, or it cannot have the adapters that are asked for.
    """
    if type(language_model) is not GPT and not isinstance(language_model, CausalLM):
        raise RllabError(
            f"A {type(language_model).__name__} cannot become a reward model; give a GPT, such as a run of "
            "`rllab language pretrain gpt` or `rllab language sft`, or a causal model of transformers."
        )
    if lora.on and not isinstance(language_model, CausalLM):
        raise RllabError("Adapters are for models of transformers; leave --lora-rank out, and use --frozen-layers.")
    return language_model


def new_trunk(config: TrunkConfig) -> Trunk:
    """With random weights."""
    return GPT(config) if isinstance(config, GPTConfig) else CausalLM(config)


def copies(model: CausalLM, count: int, lora: LoRAConfig, frozen_layers: int = 0) -> list[CausalLM]:
    """Trunks with a model's weights; what does not learn, as so many layers from below, is the model's own memory.

    Adapters are drawn from torch's generator. The model is not changed.
    """
    frozen = list(model.parameters()) if lora.on else model.lower(frozen_layers) if frozen_layers else []
    shared = {id(parameter): nn.Parameter(parameter.detach(), requires_grad=False) for parameter in frozen}
    made = []
    for _ in range(count):
        other = copy.deepcopy(model, dict(shared))
        if lora.on:
            other = other.adapted(lora, int(torch.randint(2**31, ())))
        else:
            for parameter in other.parameters():
                parameter.requires_grad_(True)  # those of a policy with frozen layers are copies here
        made.append(other)
    return made


def freeze(trunks: Sequence[Trunk], layers: int) -> None:
    """Freeze embeddings and so many layers from below; what is frozen becomes the first trunk's memory in all.

    Raises RllabError if there are fewer layers.
    """
    for trunk in trunks:
        for parameter in text_model(trunk).lower(layers) if layers else []:
            parameter.requires_grad_(False)
    first, *others = trunks
    for name, parameter in first.named_parameters(remove_duplicate=False):
        if not parameter.requires_grad:
            place, _, last = name.rpartition(".")
            for other in others:
                setattr(other.get_submodule(place), last, parameter)


def features_at(trunk: Trunk, tokens: Tensor, places: Tensor, valid: Tensor | None = None) -> Tensor:
    """The trunk's last hidden states at one place of each row, `[N, width]`.

    Args:
        trunk: of a GPT the last layer computes nothing else.
        tokens: `[N, T]`.
        places: int64 `[N]`.
        valid: bool `[N, T]`, where tokens are; None if there is no padding before a row's place.

    Raises:
        RllabError: a row is longer than the context.
    """
    return _of_gpt(trunk, tokens, places, valid) if isinstance(trunk, GPT) else _of_causal(trunk, tokens, places, valid)


def _of_causal(trunk: CausalLM, tokens: Tensor, places: Tensor, valid: Tensor | None) -> Tensor:
    rows, length = tokens.shape
    if valid is not None:  # it reads rows from their first tokens
        columns, first = torch.arange(length, device=tokens.device), valid.int().argmax(1)
        tokens, places = tokens.gather(1, (columns + first[:, None]) % length), places - first
        tokens = tokens[:, : int(places.max()) + 1]
    if trunk.context is not None:
        check_length(tokens.shape[1], trunk.context)
    features = trunk.features(tokens)
    flat = places + torch.arange(rows, device=tokens.device) * tokens.shape[1]
    return features.flatten(0, 1).index_select(0, flat)


def _of_gpt(trunk: GPT, tokens: Tensor, places: Tensor, valid: Tensor | None) -> Tensor:
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
