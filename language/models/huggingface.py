"""Weights in and out of the folders of Hugging Face `transformers`: GPT-1, GPT-2 and BERT.

A table says for each of our parameters where it lies there: whole, transposed, or as several that are one here.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from envs.errors import RllabError
from language.models.bert import BERTConfig, BERTForPretraining
from language.models.gpt import GPT, GPTConfig
from language.models.mixture_of_experts import MixtureOfExperts
from rllab.files import explained_write_errors, write_atomically

WEIGHTS, CONFIG = "model.safetensors", "config.json"
_ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu", "relu": "relu"}


@dataclass(frozen=True)
class Place:
    """Where a parameter lies."""

    names: tuple[str, ...]
    """Names of the other side, whose tensors are one after the other here along the first dimension."""
    transposed: bool = False
    """Whether a matrix is `[in, out]` there (GPT's Conv1D)."""


def gpt_places(config: GPTConfig) -> dict[str, Place]:
    """Of GPT-1's (norm `post`) and GPT-2's (`pre`) parameters."""
    first = config.norm == "post"
    tokens, positions = ("tokens_embed", "positions_embed") if first else ("wte", "wpe")
    places = {"tokens.weight": Place((f"{tokens}.weight",)), "positions.weight": Place((f"{positions}.weight",))}
    parts = {
        "attention.inward": "attn.c_attn", "attention.outward": "attn.c_proj", "attention_norm": "ln_1",
        "feed_forward.inward": "mlp.c_fc", "feed_forward.outward": "mlp.c_proj", "feed_forward_norm": "ln_2",
    }  # fmt: skip
    for layer in range(config.layers):
        for ours, theirs in parts.items():
            for kind in ("weight", "bias"):
                transposed = kind == "weight" and "norm" not in ours
                places[f"blocks.{layer}.{ours}.{kind}"] = Place((f"h.{layer}.{theirs}.{kind}",), transposed)
    if not first:
        places |= {f"final_norm.{kind}": Place((f"ln_f.{kind}",)) for kind in ("weight", "bias")}
    return places


def bert_places(config: BERTConfig) -> dict[str, Place]:
    """Of BERT's parameters without the heads."""
    names = {
        "tokens": "embeddings.word_embeddings", "positions": "embeddings.position_embeddings",
        "segments": "embeddings.token_type_embeddings", "embedding_norm": "embeddings.LayerNorm",
        "pooler": "pooler.dense",
    }  # fmt: skip
    places: dict[str, Place] = {}
    for ours, theirs in names.items():
        kinds = ("weight", "bias") if ours in ("embedding_norm", "pooler") else ("weight",)
        places |= {f"{ours}.{kind}": Place((f"{theirs}.{kind}",)) for kind in kinds}
    parts = {
        "attention.inward": ("attention.self.query", "attention.self.key", "attention.self.value"),
        "attention.outward": ("attention.output.dense",), "attention_norm": ("attention.output.LayerNorm",),
        "feed_forward.inward": ("intermediate.dense",), "feed_forward.outward": ("output.dense",),
        "feed_forward_norm": ("output.LayerNorm",),
    }  # fmt: skip
    for layer in range(config.layers):
        for ours, several in parts.items():
            for kind in ("weight", "bias"):
                theirs_here = tuple(f"encoder.layer.{layer}.{name}.{kind}" for name in several)
                places[f"blocks.{layer}.{ours}.{kind}"] = Place(theirs_here)
    return places


_HEADS = {
    "heads.transform.weight": "cls.predictions.transform.dense.weight",
    "heads.transform.bias": "cls.predictions.transform.dense.bias",
    "heads.transform_norm.weight": "cls.predictions.transform.LayerNorm.weight",
    "heads.transform_norm.bias": "cls.predictions.transform.LayerNorm.bias",
    "heads.token_bias": "cls.predictions.bias",
    "heads.next_sentence.weight": "cls.seq_relationship.weight",
    "heads.next_sentence.bias": "cls.seq_relationship.bias",
}


def bert_pretraining_places(config: BERTConfig) -> dict[str, Place]:
    """Of BERT's parameters with both heads."""
    encoder = {
        f"bert.{ours}": Place(tuple(f"bert.{name}" for name in place.names))
        for ours, place in bert_places(config).items()
    }
    return encoder | {ours: Place((theirs,)) for ours, theirs in _HEADS.items()}


def load_gpt(folder: Path | str) -> GPT:
    """A GPT-1 or GPT-2 from a folder that `save_pretrained` of `transformers` wrote, or `save_gpt`.

    Raises RllabError if files are missing or damaged, the model is of another kind, or weights are missing or left
    over (all are named).
    """
    document, weights = _read(Path(folder), ("gpt2", "openai-gpt"))
    first = document["model_type"] == "openai-gpt"
    config = GPTConfig(
        document["vocab_size"], document["n_positions"], document["n_layer"], document["n_head"], document["n_embd"],
        document.get("n_inner"), _activation("gelu_new" if first else document["activation_function"]),
        "post" if first else "pre", document["resid_pdrop"], document["layer_norm_epsilon"],
        document["initializer_range"],
    )  # fmt: skip
    weights = {name.removeprefix("transformer."): tensor for name, tensor in weights.items()}
    # Tied weights may be there twice, and old files have the causal mask among them.
    ignored = {
        "lm_head.weight",
        *(f"h.{i}.attn.{name}" for i in range(config.layers) for name in ("bias", "masked_bias")),
    }
    with torch.device("meta"):
        model = GPT(config)
    _assign(model, gpt_places(config), weights, ignored, folder)
    return model


def save_gpt(model: GPT, folder: Path | str) -> None:
    """Write a folder that `transformers` loads. Raises RllabError if it cannot be written."""
    config = model.config
    if any(isinstance(module, MixtureOfExperts) for module in model.modules()):
        raise RllabError("transformers' GPT has no experts; a model with them cannot be saved there.")
    first = config.norm == "post"
    if config.activation != "gelu_tanh" and first:
        raise RllabError(f"transformers' GPT-1 has gelu_tanh alone, not {config.activation}; it cannot be saved there.")
    document: dict[str, Any] = {
        "model_type": "openai-gpt" if first else "gpt2",
        "architectures": ["OpenAIGPTLMHeadModel" if first else "GPT2LMHeadModel"],
        "vocab_size": config.vocabulary_size, "n_positions": config.context, "n_embd": config.width,
        "n_layer": config.layers, "n_head": config.heads, "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout, "attn_pdrop": config.dropout, "layer_norm_epsilon": config.norm_epsilon,
        "initializer_range": config.initial_std, "tie_word_embeddings": True,
    }  # fmt: skip
    if first:
        if config.feed_forward_width not in (None, 4 * config.width):
            raise RllabError(
                "transformers' GPT-1 has feed-forward networks of 4 × width alone; it cannot be saved there."
            )
        document["afn"] = "gelu"
    else:
        document |= {"n_inner": config.feed_forward_width, "activation_function": _named(config.activation)}
    _write(Path(folder), document, model, gpt_places(config), "transformer.")


def load_bert(folder: Path | str) -> BERTForPretraining:
    """A BERT from a folder of `transformers`; heads of pre-training that are not there stay as they are made.

    Raises RllabError as `load_gpt` does.
    """
    document, weights = _read(Path(folder), ("bert",))
    config = BERTConfig(
        document["vocab_size"], document["max_position_embeddings"], document["num_hidden_layers"],
        document["num_attention_heads"], document["hidden_size"], document["intermediate_size"],
        document["type_vocab_size"], _activation(document["hidden_act"]), document["hidden_dropout_prob"],
        document["layer_norm_eps"], document["initializer_range"],
    )  # fmt: skip
    if not any(name.startswith("bert.") for name in weights):
        weights = {f"bert.{name}": tensor for name, tensor in weights.items()}
    model = BERTForPretraining(config)
    ours = bert_pretraining_places(config)
    absent = {name for name, place in ours.items() if not weights.keys() & set(place.names)}
    optional = {name for name in absent if name.startswith(("heads.", "bert.pooler."))}
    ignored = {"bert.embeddings.position_ids", "cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}
    _assign(model, {name: ours[name] for name in ours if name not in optional}, weights, ignored, folder)
    return model


def save_bert(model: BERTForPretraining, folder: Path | str) -> None:
    """Write a folder that `transformers` loads. Raises RllabError if it cannot be written."""
    config = model.config
    document = {
        "model_type": "bert", "architectures": ["BertForPreTraining"], "vocab_size": config.vocabulary_size,
        "max_position_embeddings": config.context, "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads, "hidden_size": config.width,
        "intermediate_size": config.block().feed_forward_width, "type_vocab_size": config.segments,
        "hidden_act": _named(config.activation), "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.dropout, "layer_norm_eps": config.norm_epsilon,
        "initializer_range": config.initial_std,
    }  # fmt: skip
    _write(Path(folder), document, model, bert_pretraining_places(config), "")


def _activation(name: str) -> Any:
    if name not in _ACTIVATIONS:
        raise RllabError(f"The activation '{name}' is not known here; there are {', '.join(_ACTIVATIONS)}.")
    return _ACTIVATIONS[name]


def _named(activation: str) -> str:
    return next(theirs for theirs, ours in _ACTIVATIONS.items() if ours == activation)


def _read(folder: Path, kinds: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        document = json.loads((folder / CONFIG).read_bytes())
        kind = document["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RllabError(f"{folder / CONFIG} is missing or no model's configuration ({error}).") from error
    if kind not in kinds:
        raise RllabError(f"{folder} has a model of the type '{kind}'; this loads {' and '.join(kinds)}.")
    try:
        return document, load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise RllabError(
            f"{folder / WEIGHTS} cannot be read ({error}); save the model with `safe_serialization=True`."
        ) from error


def _assign(
    model: nn.Module, places: Mapping[str, Place], weights: Mapping[str, Tensor], ignored: set[str], folder: Path | str
) -> None:
    wanted = {name for place in places.values() for name in place.names}
    missing, surplus = sorted(wanted - weights.keys()), sorted(weights.keys() - wanted - ignored)
    if missing or surplus:
        said = [f"{word} {', '.join(names)}" for word, names in (("lacks", missing), ("has also", surplus)) if names]
        raise RllabError(f"The weights in {folder} are not this model's: the file {' and '.join(said)}.")
    state = {}
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    for ours, place in places.items():
        tensor = torch.cat([weights[name] for name in place.names])
        tensor = tensor.T.contiguous() if place.transposed else tensor
        if tensor.shape != shapes[ours]:
            raise RllabError(
                f"{place.names[0]} in {folder} has the shape {list(tensor.shape)} where the configuration says "
                f"{list(shapes[ours])}; the two files do not belong together."
            )
        state[ours] = tensor.float()
    model.load_state_dict(state, strict=len(state) == len(shapes), assign=True)


def _write(folder: Path, document: dict[str, Any], model: nn.Module, places: Mapping[str, Place], prefix: str) -> None:
    weights = {}
    state = model.state_dict()
    for ours, place in places.items():
        tensor = state[ours].T if place.transposed else state[ours]
        for name, part in zip(place.names, tensor.chunk(len(place.names)), strict=True):
            weights[prefix + name] = part.detach().cpu().contiguous().clone()
    with explained_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / CONFIG, json.dumps(document, indent=2).encode() + b"\n")
        temporary = folder / f".{WEIGHTS}"
        save_file(weights, temporary, metadata={"format": "pt"})
        temporary.replace(folder / WEIGHTS)
