"""A trained model on disk: its kind and configuration, its weights, and the tokenizer that goes with it.

model/
  model.json          kind, configuration, version, a digest of the tokenizer's vocabulary
  model.safetensors   weights
  tokenizer/          see `language.tokenizers`

A model of `transformers` lies there as `transformers` keeps it; its own folders, too, can be loaded.
"""

import hashlib
import json
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from shlex import quote
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from envs.errors import RllabError
from language.tokenizers.files import load_tokenizer
from language.tokenizers.tokenizer import Tokenizer
from rllab.documents import rebuilt
from rllab.files import explained_write_errors, write_atomically
from rllab.runs import Run, is_run

KINDS = {
    "gpt": ("language.models.gpt", "GPT", "GPTConfig"),
    "transformer-lm": ("language.models.transformer_lm", "TransformerLM", "TransformerLMConfig"),
    "moe-lm": ("language.models.moe_lstm", "MoELSTM", "MoELSTMConfig"),
    "awd-lstm": ("language.models.awd_lstm", "AWDLSTM", "AWDLSTMConfig"),
    "elmo": ("language.models.elmo", "ELMoLanguageModel", "ELMoConfig"),
    "bert": ("language.models.bert", "BERTForPretraining", "BERTConfig"),
    "bert-tagger": ("language.models.bert_tasks", "BERTTagger", "BERTTaggerConfig"),
    "bert-spans": ("language.models.bert_tasks", "BERTSpans", "BERTSpansConfig"),
    "ulmfit": ("language.models.ulmfit", "ULMFiT", "ULMFiTConfig"),
    "gpt-classifier": ("language.models.gpt_classifier", "GPTClassifier", "GPTClassifierConfig"),
    "bert-classifier": ("language.models.bert_classifier", "BERTClassifier", "BERTClassifierConfig"),
    "elmo-classifier": ("language.models.elmo_classifier", "ELMoClassifier", "ELMoClassifierConfig"),
    "causal-lm": ("language.models.causal_lm", "CausalLM", "CausalLMConfig"),
    "text-reward": ("language.preferences.reward_model", "TextRewardModel", "TextRewardConfig"),
    "transformer": ("language.models.transformer", "Transformer", "TransformerConfig"),
    "lstm-translation": ("language.models.lstm_translation", "LSTMTranslation", "LSTMTranslationConfig"),
}
"""By name: module, class, configuration."""
MODEL_FOLDER = "model"
"""Where a run keeps its model."""
_CONFIG, _WEIGHTS, _TOKENIZER, _VERSION = "model.json", "model.safetensors", "tokenizer", 1
_VOCABULARY = "vocabulary"
"""The key of its digest in model.json."""
_CAUSAL, _CAUSAL_FILES = "causal-lm", "language.models.causal_lm_files"


def kind_of(model: nn.Module) -> str:
    """A model's name. Raises RllabError if its class has none."""
    for name, (_, model_class, _) in KINDS.items():
        if type(model).__name__ == model_class:
            return name
    raise RllabError(f"A {type(model).__name__} cannot be saved as a model; there are {', '.join(KINDS)}.")


def configuration_class(kind: str) -> type[Any]:
    """The configuration of a kind. Raises RllabError if there is no such kind."""
    module, _, config_class = _known(kind)
    found: type[Any] = getattr(import_module(module), config_class)
    return found


def make_model(kind: str, config: Any) -> nn.Module:
    """A model with random weights."""
    module, model_class, _ = _known(kind)
    found: nn.Module = getattr(import_module(module), model_class)(config)
    return found


def save_model(folder: Path | str, model: nn.Module, tokenizer: Tokenizer) -> None:
    """Write a model and its tokenizer into a folder, which is made if it is not there.

    Adapters are added to the weights.

    Raises RllabError if the kind is not known, the model has other parts than its configuration makes, or the files
    cannot be written.
    """
    path = Path(folder)
    kind = kind_of(model)
    if kind != _CAUSAL:  # which is merged when it is written
        model = getattr(model, "merged", lambda: model)()
        with torch.device("meta"):
            made = make_model(kind, model.config)
        if other := sorted(made.state_dict().keys() ^ model.state_dict().keys()):
            raise RllabError(
                f"The model has other parts than a {kind} of its configuration ({other[0]}, …), which could not be "
                "read again; keep its state_dict instead."
            )
    document = {
        "kind": kind, "version": _VERSION, "config": asdict(model.config),  # type: ignore[call-overload]
        _VOCABULARY: vocabulary_digest(tokenizer),
    }  # fmt: skip
    with explained_write_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        tokenizer.save(path / _TOKENIZER)
        if document["kind"] == _CAUSAL:
            import_module(_CAUSAL_FILES).save_causal_lm(path, model, tokenizer)
        else:
            weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
            temporary = path / f".{_WEIGHTS}"
            save_file(weights, temporary, metadata={"format": "pt"})
            temporary.replace(path / _WEIGHTS)
        write_atomically(path / _CONFIG, json.dumps(document, indent=2).encode() + b"\n")


def load_model(folder: Path | str, device: torch.device | str = "cpu") -> tuple[nn.Module, Tokenizer]:
    """The model and the tokenizer of a folder that `save_model` wrote, or of a run; in evaluation mode.

    A folder that `transformers` wrote, a .gguf file and hub:OWNER/NAME are others' models: GPT-1 and GPT-2 become a
    `GPT`, other causal models a `CausalLM`.

    Raises RllabError if there is none, it is damaged or of a newer version, or the two do not belong together.
    """
    path = _found(Path(folder))
    if is_foreign(folder):
        return _load_foreign(folder, device)
    try:
        document = json.loads((path / _CONFIG).read_bytes())
        kind, version, settings = document["kind"], document["version"], document["config"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        if _is_unfinished(Path(folder)):
            raise RllabError(
                f"{folder} has no model yet: its training has not come to its end; go on with it by "
                f"`rllab resume {quote(str(folder))}`."
            ) from error
        raise RllabError(
            f"{folder} holds no trained model ({path / _CONFIG} cannot be read); give a run of "
            "`rllab language pretrain`."
        ) from error
    if version > _VERSION:
        raise RllabError(f"{path} was written by a newer version of rllab; upgrade it.")
    if kind == _CAUSAL:
        model, _ = import_module(_CAUSAL_FILES).load_causal_lm(path, device)
        tokenizer = load_tokenizer(path / _TOKENIZER)
        check_vocabulary(tokenizer, model.vocabulary_size, document.get(_VOCABULARY))
        return model, tokenizer
    try:
        config = rebuilt(configuration_class(kind), settings)
        with torch.device("meta"):
            model = make_model(kind, config)
        weights = load_file(path / _WEIGHTS)
        model.load_state_dict(weights, assign=True)
        if any(buffer.is_meta for buffer in model.buffers()):  # which are computed, and not among the weights
            with torch.random.fork_rng(devices=[]):
                model = make_model(kind, config)
            model.load_state_dict(weights)
    except (OSError, SafetensorError, RuntimeError, TypeError) as error:
        raise RllabError(f"The model in {path} is damaged ({' '.join(str(error).split())}); train it again.") from error
    tokenizer = load_tokenizer(path / _TOKENIZER)
    check_vocabulary(tokenizer, config.vocabulary_size, document.get(_VOCABULARY))
    return model.to(device).eval(), tokenizer


def load_initial(folder: Path | str, kind: str, device: torch.device | str = "cpu") -> tuple[nn.Module, Tokenizer]:
    """What a training begins with, of which only one kind of model will do; see `load_model`.

    Raises RllabError as it does, or if the model is of another kind.
    """
    model, tokenizer = load_model(folder, device)
    if (found := kind_of(model)) != kind:
        raise RllabError(
            f"{folder} has a model of the kind {found}, and this training begins with one of the kind {kind}."
        )
    return model, tokenizer


def holds_model(folder: Path | str) -> bool:
    """Whether a folder that `save_model` wrote, or a run with a model, is there."""
    return (_found(Path(folder)) / _CONFIG).is_file()


def is_foreign(folder: Path | str) -> bool:
    """Whether it names a model of others: hub:OWNER/NAME, a .gguf file or a folder that `transformers` wrote."""
    if str(folder).startswith("hub:") or str(folder).endswith(".gguf"):
        return True
    path = Path(folder)
    if holds_model(path) or not (path / "config.json").is_file():
        return False
    found: bool = import_module(_CAUSAL_FILES).is_transformers_folder(path)
    return found


def _load_foreign(folder: Path | str, device: torch.device | str) -> tuple[nn.Module, Tokenizer]:
    path = Path(folder)
    if path.is_dir() and json.loads((path / "config.json").read_bytes())["model_type"] in ("gpt2", "openai-gpt"):
        model: nn.Module = import_module("language.models.huggingface").load_gpt(path)
        tokenizer_class = import_module("language.tokenizers.pretrained").PretrainedTokenizer
        return model.to(device).eval(), tokenizer_class.of(path, model.config.vocabulary_size)  # type: ignore[union-attr]
    loaded: tuple[nn.Module, Tokenizer] = import_module(_CAUSAL_FILES).load_causal_lm(folder, device)
    return loaded


def _is_unfinished(path: Path) -> bool:
    """Whether it is the run of a training that leaves a model at its end, and has not yet."""
    if not is_run(path) or holds_model(path):
        return False
    try:
        return "model_kind" in Run.open(path).config
    except RllabError:
        return False


def _found(path: Path) -> Path:
    """A model's folder, where a run's or its own is given."""
    return path / MODEL_FOLDER if (path / MODEL_FOLDER / _CONFIG).is_file() else path


def vocabulary_digest(tokenizer: Tokenizer) -> str:
    """SHA-256 of the tokens in the order of their ids, by which a model knows its tokenizer."""
    tokens = sorted(tokenizer.vocabulary, key=tokenizer.vocabulary.__getitem__)
    return hashlib.sha256(json.dumps(tokens).encode()).hexdigest()


def check_vocabulary(tokenizer: Tokenizer, vocabulary_size: int, digest: str | None = None) -> None:
    """Raise RllabError if a tokenizer has another number of tokens than a model, or others than those of the digest."""
    if len(tokenizer) != vocabulary_size:
        raise RllabError(
            f"The tokenizer has {len(tokenizer):,} tokens and the model {vocabulary_size:,}; use the tokenizer that "
            "the model was trained with."
        )
    if digest is not None and vocabulary_digest(tokenizer) != digest:
        raise RllabError(
            "The tokenizer has as many tokens as the model's, but other ones; use the tokenizer that the model was "
            "trained with."
        )


def _known(kind: str) -> tuple[str, str, str]:
    if kind not in KINDS:
        raise RllabError(f"There is no kind of model '{kind}'; there are {', '.join(KINDS)}.")
    return KINDS[kind]
