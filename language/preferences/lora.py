"""Models that learn by adapters (`language.models.lora`) for supervised fine-tuning, rewards and direct methods."""

from pathlib import Path

import torch
from torch import nn

from envs.errors import RllabError
from language.models.causal_lm import CausalLM
from language.models.causal_lm_files import load_causal_lm
from language.models.folder import is_foreign, load_model
from language.models.lora import LoRAConfig
from language.tokenizers.tokenizer import Tokenizer


def load_adaptable(
    folder: Path | str, lora: LoRAConfig, device: torch.device | str = "cpu"
) -> tuple[nn.Module, Tokenizer]:  # fmt: skip
    """A model and its tokenizer as `load_model` finds them, to which adapters can be given if there are to be any.

    Args:
        folder: see `load_model`; GPT-2 of `transformers` stays theirs where it gets adapters.
        lora: which adapters.
        device: where to.

    Raises:
        RllabError: there is no model, or it is none of `transformers` and cannot have adapters.
    """
    if not lora.on:
        return load_model(folder, device)
    model, tokenizer = load_causal_lm(folder, device) if is_foreign(folder) else load_model(folder, device)
    if not isinstance(model, CausalLM):
        raise RllabError(
            f"{folder} holds a {type(model).__name__}, and adapters are for models of transformers; leave --lora-rank "
            "out, and use --frozen-layers where there is one."
        )
    return model, tokenizer


def load_adapted(
    folder: Path | str, lora: LoRAConfig, device: torch.device | str = "cpu", seed: int = 0
) -> tuple[nn.Module, Tokenizer]:  # fmt: skip
    """`load_adaptable`, with new adapters if there are to be any, drawn by this seed."""
    model, tokenizer = load_adaptable(folder, lora, device)
    return (model.adapted(lora, seed).to(device) if lora.on and isinstance(model, CausalLM) else model), tokenizer
