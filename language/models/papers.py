"""The papers' models by name: which configuration each has, and where it is written.

Nothing is trained here. `build` makes a model on torch's "meta" device, where weights have shapes and no memory, so
that the largest is as quick as the smallest.
"""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import torch
from torch import nn

from envs.errors import RllabError
from language.models.awd_lstm import AWDLSTM, AWDLSTMConfig
from language.models.bert import BERT, BERTConfig, BERTForPretraining
from language.models.elmo import ELMo, ELMoConfig, ELMoLanguageModel
from language.models.gpt import GPT, GPTConfig
from language.models.moe_lstm import PAPER_MODELS, MoELSTM
from language.models.transformer import Transformer, TransformerConfig


@dataclass(frozen=True)
class PaperModel:
    """A model that was published."""

    model: Callable[[Any], nn.Module]
    """Its class."""
    config: Any
    """Its size."""
    source: str
    """Where that is written."""
    with_heads: Callable[[Any], nn.Module] | None = None
    """The class of the whole that was pre-trained, where it is more than what the paper counts."""

    def build(self) -> nn.Module:
        """The model, without memory for its weights."""
        with torch.device("meta"):
            return self.model(self.config)

    def build_with_heads(self) -> nn.Module | None:
        """The same with what it was pre-trained by, where there is more."""
        if self.with_heads is None:
            return None
        with torch.device("meta"):
            return self.with_heads(self.config)


_TRANSFORMER = "Vaswani et al. 2017, table 3; 37,000 tokens (section 5.1)"
_GPT_2 = "Radford et al. 2019, table 2"
_BERT = "Devlin et al. 2018, section 3; 30,522 tokens of the released vocabulary"
_AWD_LSTM = "Merity et al. 2017, section 5"
PAPERS: dict[str, PaperModel] = {
    "transformer-base": PaperModel(Transformer, TransformerConfig.base(), _TRANSFORMER),
    "transformer-big": PaperModel(Transformer, TransformerConfig.big(), _TRANSFORMER),
    "gpt-1": PaperModel(GPT, GPTConfig.gpt_1(), "Radford et al. 2018, section 4.1"),
    "gpt-2": PaperModel(GPT, GPTConfig.gpt_2(), _GPT_2),
    "gpt-2-medium": PaperModel(GPT, GPTConfig.gpt_2("medium"), _GPT_2),
    "gpt-2-large": PaperModel(GPT, GPTConfig.gpt_2("large"), _GPT_2),
    "gpt-2-xl": PaperModel(GPT, GPTConfig.gpt_2("xl"), _GPT_2),
    "bert-base": PaperModel(BERT, BERTConfig.base(), _BERT, BERTForPretraining),
    "bert-large": PaperModel(BERT, BERTConfig.large(), _BERT, BERTForPretraining),
    "awd-lstm": PaperModel(AWDLSTM, AWDLSTMConfig.penn_treebank(), f"{_AWD_LSTM}; 10,000 words of the Penn Treebank"),
    "awd-lstm-wikitext-2": PaperModel(AWDLSTM, AWDLSTMConfig.wikitext_2(), f"{_AWD_LSTM}; WikiText-2's 33,278 words"),
    "elmo": PaperModel(ELMo, ELMoConfig(), "Peters et al. 2018, section 3.4", ELMoLanguageModel),
    "elmo-small": PaperModel(ELMo, ELMoConfig.small(), "the smallest that Peters et al. released", ELMoLanguageModel),
    **{
        name.lower(): PaperModel(MoELSTM, config, "Shazeer et al. 2017, table 7")
        for name, config in PAPER_MODELS.items()
    },
}
"""By the name that `rllab language inspect` knows."""


def paper_model(name: str) -> PaperModel:
    """A model by its name. Raises RllabError if there is none so named."""
    if name not in PAPERS:
        near = get_close_matches(name, PAPERS, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(PAPERS)}."
        raise RllabError(f"There is no model of a paper named '{name}'; {hint}")
    return PAPERS[name]
