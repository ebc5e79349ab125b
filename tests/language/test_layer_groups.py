"""Layers of language models that learn at different rates."""

from typing import Any

import pytest
from torch import nn

from envs.errors import RllabError
from language.models.awd_lstm import AWDLSTM, AWDLSTMConfig
from language.models.bert import BERTConfig, BERTForPretraining
from language.models.elmo import ELMoConfig, ELMoLanguageModel
from language.models.gpt import GPT, GPTConfig
from language.models.moe_lstm import MoELSTM, MoELSTMConfig
from language.models.transformer_lm import TransformerLM, TransformerLMConfig
from language.training.pretraining import layer_groups

BLOCKS: dict[str, Any] = {"layers": 2, "heads": 2, "width": 8}
EXPERTS: dict[str, Any] = {"width": 8, "feed_forward_width": 8, "experts": 4, "k": 2, "vocabulary_size": 20}


@pytest.mark.parametrize(
    ("model", "count", "highest"),
    [
        (GPT(GPTConfig(20, 8, **BLOCKS, norm="pre")), 4, "tokens.weight"),
        (GPT(GPTConfig(20, 8, **BLOCKS, norm="post")), 4, "tokens.weight"),
        (TransformerLM(TransformerLMConfig(20, 8, **BLOCKS)), 3, "tokens.weight"),
        (BERTForPretraining(BERTConfig(20, 8, **BLOCKS)), 4, "bert.tokens.weight"),
        (AWDLSTM(AWDLSTMConfig(20, width=8, layers=2, hidden_width=8, tied=True)), 3, "bias"),
        (AWDLSTM(AWDLSTMConfig(20, width=8, layers=2, hidden_width=8, tied=False)), 4, "bias"),
        (MoELSTM(MoELSTMConfig(**EXPERTS, tied=True)), 4, "embedding.weight"),
        (MoELSTM(MoELSTMConfig(**EXPERTS, tied=False)), 5, "softmax"),
        (
            ELMoLanguageModel(
                ELMoConfig(20, characters_a_word=6, filters=((1, 4), (2, 4)), highways=1, width=8, lstm_width=8)
            ),
            4,
            "softmax",
        ),
    ],
)
def test_every_parameter_is_in_one_layer_and_the_output_in_the_last(model: nn.Module, count: int, highest: str) -> None:
    groups = layer_groups(model)
    flat = [id(parameter) for group in groups for parameter in group]
    assert sorted(flat) == sorted(map(id, model.parameters()))
    assert len(groups) == count
    assert any(parameter is model.get_parameter(highest) for parameter in groups[-1])


def test_a_model_that_does_not_say_its_layers_is_refused() -> None:
    with pytest.raises(RllabError, match="A Linear has no layers that could learn at different rates"):
        layer_groups(nn.Linear(2, 2))
