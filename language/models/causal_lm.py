"""Any causal language model of `transformers`, with or without adapters, as one of this package's models."""

import copy
import json
from dataclasses import dataclass, field, replace
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from envs.errors import RllabError
from language.decoding.transformers_adapter import TransformersModel
from language.models.lora import LoRAConfig, with_adapters


@dataclass(frozen=True)
class CausalLMConfig:
    """What the model is."""

    settings: dict[str, Any]
    """What its config.json says, `model_type` and sizes."""
    lora: LoRAConfig = field(default_factory=LoRAConfig)
    """Its adapters."""

    def made(self) -> Any:
        """As `transformers` has it. Raises RllabError if it knows no such model, or is missing."""
        transformers = transformers_package()
        try:
            return transformers.AutoConfig.for_model(**self.settings)
        except (KeyError, ValueError, TypeError) as error:
            raise RllabError(
                f"transformers {transformers.__version__} knows no such model as "
                f"'{self.settings.get('model_type')}'; upgrade it."
            ) from error

    @property
    def vocabulary_size(self) -> int:
        """Rows of the output."""
        return int(self.made().vocab_size)

    @property
    def context(self) -> int | None:
        """The longest sequence; None where there is no limit."""
        return getattr(self.made(), "max_position_embeddings", None)


class CausalLM(nn.Module):
    """A causal model of `transformers`. It is a `Decodable`.

    Its state has no frozen weights where there are adapters: they are those of the model that it was made of.
    """

    def __init__(self, config: CausalLMConfig, model: nn.Module | None = None, seed: int = 0) -> None:
        """Make it.

        Args:
            config: what it is.
            model: of `transformers`, without adapters; by default one with random weights.
            seed: of the adapters.

        Raises:
            RllabError: it is unknown, or a package is missing.
        """
        super().__init__()
        self.config = config
        if model is None:
            model = transformers_package().AutoModelForCausalLM.from_config(config.made(), dtype=torch.float32)
        self.body: Any = with_adapters(model, config.lora, seed) if config.lora.on else model
        self._decoder = TransformersModel(self.model)
        if config.lora.on:
            self.register_state_dict_post_hook(_without_frozen)  # type: ignore[no-untyped-call]
            self.register_load_state_dict_pre_hook(_with_frozen)  # type: ignore[no-untyped-call]

    @classmethod
    def of(cls, model: nn.Module) -> Self:
        """Around a model of `transformers`, whose weights it takes over.

        Raises:
            RllabError: its logits are not made of its last hidden states by one matrix.
        """
        settings = json.loads(cast(Any, model).config.to_json_string())
        if settings.pop("quantization_config", None) is not None:  # what was dequantised still says that it is not
            made = cls(CausalLMConfig(settings))
            made.model.load_state_dict(model.state_dict())
        else:
            made = cls(CausalLMConfig(settings), model.float())
        made.eval()
        with torch.no_grad():
            tokens = torch.arange(min(3, made.vocabulary_size), device=next(model.parameters()).device)[None]
            features = made.features(tokens)
            earlier = made.features(tokens[:, :-1]) if len(tokens[0]) > 1 else features[:, :-1]
            ours, theirs = nn.functional.linear(features, *made.output()), made.model(tokens).logits
        if not torch.allclose(features[:, :-1], earlier, rtol=1e-3, atol=1e-3):
            raise RllabError(
                f"A {type(model).__name__} looks at tokens that come later, so that it is no causal language model; "
                "give one, such as Llama or GPT-NeoX."
            )
        if ours.shape != theirs.shape or not torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3):
            raise RllabError(
                f"A {type(model).__name__} scales or cuts its logits, which fine-tuning from preferences does not "
                "know; give another model."
            )
        return made

    @property
    def model(self) -> Any:
        """The model of `transformers`; adapters are in it."""
        return self.body.base_model.model if self.config.lora.on else self.body

    @property
    def vocabulary_size(self) -> int:
        """How many tokens there are."""
        return self._decoder.vocabulary_size

    @property
    def context(self) -> int | None:
        """The longest sequence; None where there is no limit."""
        return self._decoder.context

    @property
    def width(self) -> int:
        """Numbers of a hidden state."""
        return int(self.output()[0].shape[1])

    def forward(self, tokens: Tensor, valid: Tensor | None = None) -> Tensor:
        """Logits `[N, T, V]` of rows `[N, T]` that are padded on the right."""
        return nn.functional.linear(self.features(tokens), *self.output())

    def features(self, tokens: Tensor) -> Tensor:
        """The last hidden states `[N, T, width]` of rows `[N, T]` that are padded on the right."""
        # No token looks at padding behind it, so no mask is needed.
        hidden: Tensor = self.model.base_model(input_ids=tokens, use_cache=False).last_hidden_state
        return hidden

    def output(self) -> tuple[Tensor, Tensor | None]:
        """The matrix `[V, width]` and the bias `[V]` that make logits of hidden states."""
        head = self.model.get_output_embeddings()
        return head.weight, getattr(head, "bias", None)

    def drop_output(self) -> None:
        """Forget what makes logits, where hidden states alone are wanted."""
        head = self.model.get_output_embeddings()
        for module in list(self.model.modules()):
            for name in [name for name, child in module.named_children() if child is head]:
                setattr(module, name, None)

    def begin(self, tokens: Tensor, valid: Tensor, capacity: int) -> tuple[Tensor, Any]:
        """See `Decodable`."""
        return self._decoder.begin(tokens, valid, capacity)

    def step(self, tokens: Tensor, state: Any) -> Tensor:
        """See `Decodable`."""
        return self._decoder.step(tokens, state)

    def select(self, state: Any, rows: Tensor) -> Any:
        """See `Decodable`."""
        return self._decoder.select(state, rows)

    def lower(self, layers: int) -> list[nn.Parameter]:
        """The parameters of the embeddings and of so many layers from below.

        Raises:
            RllabError: there are fewer layers.
        """
        base, count = self.model.base_model, int(self.model.config.num_hidden_layers)
        if not 0 <= layers <= count:
            raise RllabError(f"frozen_layers is {layers}, but the model has {count} layers; give at most so many.")
        blocks = next(m for m in base.modules() if isinstance(m, nn.ModuleList) and len(m) == count)
        within = {id(module) for module in blocks.modules()}
        embeddings = [m for m in base.modules() if isinstance(m, nn.Embedding) and id(m) not in within]
        return [p for module in (*embeddings, *blocks[:layers]) for p in module.parameters()]

    def adapted(self, lora: LoRAConfig, seed: int = 0) -> "CausalLM":
        """The same weights, frozen, with new adapters; the model itself is used up.

        Raises:
            RllabError: there are adapters already, `peft` is missing, or no module has such a name.
        """
        if self.config.lora.on:
            raise RllabError("The model has adapters already; save it, which merges them, and load it again.")
        return CausalLM(replace(self.config, lora=lora), self.body, seed).eval()

    def unadapted(self) -> "CausalLM":
        """The model as it was without its adapters, which are lost; its weights are the same tensors."""
        if not self.config.lora.on:
            return self
        return CausalLM(replace(self.config, lora=LoRAConfig()), self.body.unload()).eval()

    def merged(self) -> "CausalLM":
        """A copy in which adapters are added to the weights."""
        other = copy.deepcopy(self)
        if not self.config.lora.on:
            return other
        return CausalLM(replace(self.config, lora=LoRAConfig()), other.body.merge_and_unload()).eval()


def _frozen(module: CausalLM) -> dict[str, nn.Parameter]:
    named = module.named_parameters(remove_duplicate=False)
    return {name: parameter for name, parameter in named if "lora_" not in name}


def _without_frozen(module: Any, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    for name in _frozen(module):
        state.pop(prefix + name, None)


def _with_frozen(module: Any, state: dict[str, Any], prefix: str, *further: Any) -> None:
    for name, parameter in _frozen(module).items():
        state.setdefault(prefix + name, parameter.detach())


def transformers_package() -> Any:
    """The package, which is imported when it is needed first. Raises RllabError if it is missing."""
    try:
        import transformers
    except ImportError as error:
        raise RllabError("Models of transformers need the package: `pip install 'rllab[transformers]'`.") from error
    return transformers
