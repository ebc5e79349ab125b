"""LoRA: a frozen model learns through a product of two thin matrices beside each of some of its own (Hu et al. 2021,
"LoRA: Low-rank adaptation of large language models"), by the package `peft`.

y = Wx + (α/r)·BAx, with B = 0 at first, so that the model begins as it was (section 4.1).
"""

import warnings
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from envs.errors import RllabError

ALL = "all-linear"


@dataclass(frozen=True)
class LoRAConfig:
    """Which adapters there are."""

    lora_rank: int = 0
    """r, of the adapters that learn in place of a `transformers` model's own weights (Hu et al. 2021: 4 for GPT-2, 8
    for larger ones); 0: all weights learn."""
    lora_alpha: float = 32.0
    """α: adapters are multiplied by α/r (Hu et al. 2021, appendix D: 32 for GPT-2)."""
    lora_dropout: float = 0.0
    """Of what adapters read, in supervised fine-tuning and reward models alone (Hu et al. 2021: 0.1 for GPT-2)."""
    lora_targets: tuple[str, ...] = ()
    """Names of the modules that get adapters, or all-linear; by default what `peft` knows of the kind of model: the
    projections of queries and values, as in Hu et al. (section 4.2)."""

    def __post_init__(self) -> None:
        if self.lora_rank < 0:
            raise RllabError(f"lora_rank must be 0 (off) or more, not {self.lora_rank}.")
        if not self.lora_alpha > 0:
            raise RllabError(f"lora_alpha must be above 0, not {self.lora_alpha}.")
        if not 0 <= self.lora_dropout < 1:
            raise RllabError(f"lora_dropout must lie in [0, 1), not {self.lora_dropout}.")
        if not self.lora_rank and (self.lora_targets or self.lora_dropout):
            raise RllabError("Options about adapters need adapters: add --lora-rank 8.")

    @property
    def on(self) -> bool:
        """Whether there are any."""
        return self.lora_rank > 0


def with_adapters(model: nn.Module, config: LoRAConfig, seed: int = 0) -> Any:
    """A `peft` model around a model of `transformers`, whose own weights are frozen from then on.

    Args:
        model: what gets adapters, in place.
        config: which.
        seed: of the matrices A; torch's own generator is not touched.

    Raises:
        RllabError: `peft` is missing, or the model has no module of these names.
    """
    try:
        import peft
    except ImportError as error:
        raise RllabError("Adapters need the package peft: `pip install 'rllab[transformers]'`.") from error
    targets: Any = list(config.lora_targets) or None
    kind = getattr(model.config, "model_type", "")
    if config.lora_targets == (ALL,) or (targets is None and kind not in _known_kinds()):
        targets = ALL
    settings = peft.LoraConfig(
        r=config.lora_rank, lora_alpha=cast(Any, config.lora_alpha), lora_dropout=config.lora_dropout,
        target_modules=targets, task_type="CAUSAL_LM",
    )  # fmt: skip
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # Of peft, about names of transformers that will change, and layers that it knows how to treat.
            warnings.simplefilter("ignore")
            torch.manual_seed(seed)
            return peft.get_peft_model(model, settings)
    except ValueError as error:
        names = sorted({name.rpartition(".")[2] for name, module in model.named_modules() if _takes_adapter(module)})
        raise RllabError(
            f"The model has no module that is called {' or '.join(config.lora_targets)}; there are {', '.join(names)}."
        ) from error


def _takes_adapter(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def _known_kinds() -> dict[str, Any]:
    from peft import utils

    return dict(utils.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING)
