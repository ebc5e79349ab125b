"""Tiny random models of `transformers`, with a tokenizer of letters, for tests of tuning such models."""

import json
from pathlib import Path
from typing import Any

import torch
from tiny_texts import tokenizer

from language.models.causal_lm import CausalLM
from rllab.rollout import Experience, Rollout

KINDS = ("llama", "gpt2", "gpt_neox")


def hugging_face(kind: str = "llama", seed: int = 0) -> Any:
    """A causal model of `transformers` whose tokens have clearly different probabilities."""
    import transformers

    sizes: dict[str, Any] = {
        "llama": {
            "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "max_position_embeddings": 32, "tie_word_embeddings": True,
        },
        "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32},
        "gpt_neox": {
            "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
            "max_position_embeddings": 32,
        },
    }[kind]  # fmt: skip
    config = transformers.AutoConfig.for_model(
        kind, vocab_size=len(tokenizer()), initializer_range=0.3, bos_token_id=1, eos_token_id=1, pad_token_id=None,
        **sizes,
    )  # fmt: skip
    torch.manual_seed(seed)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def causal_lm(kind: str = "llama", seed: int = 0) -> CausalLM:
    """The same as one of this package's models."""
    return CausalLM.of(hugging_face(kind, seed))


def folder_of(path: Path, kind: str = "llama") -> Path:
    """What `transformers` writes of such a model and its tokenizer."""
    hugging_face(kind).save_pretrained(path)
    document = tokenizer().to_huggingface()
    (path / "tokenizer.json").write_text(json.dumps(document))
    settings = {"eos_token": "<end>", "unk_token": "<unk>", "tokenizer_class": "PreTrainedTokenizerFast"}
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    return path


def batch_of(rollout: Rollout) -> Experience:
    """A rollout as a policy evaluates it."""
    return rollout.experience(rollout.rewards, rollout.rewards)
