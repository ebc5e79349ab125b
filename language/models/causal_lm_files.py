"""Causal models of `transformers` on disk, from a .gguf file or from the hub.

A folder is one that `transformers` reads: config.json, model.safetensors (adapters merged) and the tokenizer's files;
adapter/ has the adapters alone, as `peft` keeps them.
"""

import importlib
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch

from envs.errors import RllabError
from language.models.causal_lm import CausalLM, transformers_package
from language.tokenizers.pretrained import PretrainedTokenizer
from rllab.files import explained_write_errors

ADAPTER_FOLDER = "adapter"
HUB = "hub:"
"""Before the name of a model on the Hugging Face hub."""


def is_transformers_folder(path: Path) -> bool:
    """Whether `transformers` wrote a model there."""
    try:
        return "model_type" in json.loads((path / "config.json").read_bytes())
    except (OSError, ValueError, TypeError):
        return False


def load_causal_lm(source: Path | str, device: torch.device | str = "cpu") -> tuple[CausalLM, PretrainedTokenizer]:
    """A model and its tokenizer from where `transformers` finds them, in float32 and evaluation mode.

    Args:
        source: a folder that `transformers` wrote, a .gguf file, which is dequantised, or hub:OWNER/NAME.
        device: where to.

    Raises:
        RllabError: there is none, it is damaged or no causal language model, or a package or the hub cannot be reached.
    """
    transformers = transformers_package()
    name, options = str(source).removeprefix(HUB), {}
    if name.endswith(".gguf"):
        options, name = {"gguf_file": Path(name).name}, str(Path(name).parent)
    online = str(source).startswith(HUB)
    further: dict[str, Any] = {"local_files_only": not online, **options}
    try:
        if online and not _is_hub_there():
            # The packages would try again for a minute; what was fetched before is found without the hub.
            name = importlib.import_module("huggingface_hub").snapshot_download(name, local_files_only=True)
            further["local_files_only"] = True
        if not options:
            _check_causal(source, transformers.AutoConfig.from_pretrained(name, **further))
        with _without_bars():
            model = transformers.AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32, **further)
        made = CausalLM.of(model)
        if options or online:
            tokenizer = _tokenizer_of(transformers.AutoTokenizer.from_pretrained(name, **further), made.vocabulary_size)
        else:
            tokenizer = PretrainedTokenizer.of(name, made.vocabulary_size)
    except RllabError:
        raise
    except Exception as error:  # the packages raise what they like: OSError, ValueError, SafetensorError, ...
        reason = " ".join(str(error).split())[:200]
        hint = "is it online, and is the name right?" if online else "is it whole, and are all packages there?"
        raise RllabError(
            f"transformers cannot load a causal language model from {source} ({reason}); {hint}"
        ) from error
    return made.to(device).eval(), tokenizer


def save_causal_lm(folder: Path | str, model: CausalLM, tokenizer: Any) -> None:
    """Write a folder that `transformers` reads, with adapters merged, and the adapters beside it.

    Raises RllabError if it cannot be written.
    """
    path = Path(folder)
    with explained_write_errors(path), _without_bars():
        path.mkdir(parents=True, exist_ok=True)
        model.merged().model.save_pretrained(path)
        if model.config.lora.on:
            model.body.save_pretrained(path / ADAPTER_FOLDER)
        if isinstance(tokenizer, PretrainedTokenizer):
            for name, content in tokenizer.documents().items():
                (path / name).write_text(content, encoding="utf-8")


def _check_causal(source: Path | str, config: Any) -> None:
    """Raise RllabError if a model with this configuration of `transformers` is no causal one."""
    known = transformers_package().MODEL_FOR_CAUSAL_LM_MAPPING
    if getattr(config, "is_encoder_decoder", False) or type(config) not in known:
        what = "a model with an encoder" if getattr(config, "is_encoder_decoder", False) else "another kind of model"
        raise RllabError(
            f"{source} holds a {config.model_type}, which is {what} and no causal language model; give one, such as "
            "Llama or GPT-NeoX."
        )


def _tokenizer_of(tokenizer: Any, size: int) -> PretrainedTokenizer:
    """Of a tokenizer of `transformers`, which must be a fast one."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise RllabError("The model's tokenizer has no tokenizer.json; give a model with a fast tokenizer.")
    config: dict[str, Any] = {name: token for name, token in _named(tokenizer).items() if isinstance(token, str)}
    if isinstance(template := getattr(tokenizer, "chat_template", None), str):
        config["chat_template"] = template
    return PretrainedTokenizer(json.loads(backend.to_str()), config, size)


def _named(tokenizer: Any) -> Mapping[str, Any]:
    found: Mapping[str, Any] = tokenizer.special_tokens_map
    return found


@contextmanager
def _without_bars() -> Iterator[None]:
    logging = transformers_package().utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _is_hub_there() -> bool:
    if os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy"):
        return True
    address = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    try:
        socket.getaddrinfo(address.hostname, None)
    except OSError:
        return False
    return True
