"""The Transformer's decoder as a language model: positions by the paper's formula, steps equal to whole sequences."""

import math

import pytest
import torch
from torch import Tensor

from envs.errors import RllabError
from language.decoding import pad_left
from language.models.transformer_lm import TransformerLM, TransformerLMConfig

CONFIG = TransformerLMConfig(20, 12, layers=2, heads=2, width=8)


def model(config: TransformerLMConfig = CONFIG) -> TransformerLM:
    torch.manual_seed(0)
    return TransformerLM(config).eval()


def test_embeddings_are_scaled_and_positions_are_the_papers() -> None:
    made, tokens = model(), torch.tensor([[3, 3, 7]])
    heard: list[Tensor] = []
    made.blocks[0].register_forward_pre_hook(lambda _, inputs: heard.append(inputs[0]))
    made(tokens)
    for place, token in enumerate(tokens[0].tolist()):
        for number in range(8):
            rate = 10_000 ** (-(number // 2 * 2) / 8)
            position = math.sin(place * rate) if number % 2 == 0 else math.cos(place * rate)
            expected = made.tokens.weight[token, number].item() * math.sqrt(8) + position
            assert heard[0][0, place, number].item() == pytest.approx(expected, abs=1e-6)


def test_positions_are_no_weights_and_the_papers_base_has_as_many_as_its_layers_and_one_matrix() -> None:
    with torch.device("meta"):
        made = TransformerLM(TransformerLMConfig())
    layer = 4 * (512 * 512 + 512) + 2 * 512 * 2048 + 2048 + 512 + 4 * 512
    assert sum(p.numel() for p in made.parameters()) == 37_000 * 512 + 6 * layer


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_tokens_one_by_one_give_what_the_whole_gives_also_behind_padding(norm: str) -> None:
    made = model(TransformerLMConfig(20, 12, layers=2, heads=2, width=8, norm=norm))  # type: ignore[arg-type]
    prompts, further = [[1, 2, 3, 4], [5, 6]], [[7, 8], [9, 10]]
    tokens, valid = pad_left(prompts)
    logits, state = made.begin(tokens, valid, 6)
    found = [logits, *(made.step(torch.tensor(column), state) for column in zip(*further, strict=True))]
    for row, (prompt, rest) in enumerate(zip(prompts, further, strict=True)):
        whole = made(torch.tensor([prompt + rest]))[0, len(prompt) - 1 :]
        torch.testing.assert_close(torch.stack([logits[row] for logits in found]), whole, atol=1e-5, rtol=1e-5)


def test_more_positions_cost_nothing_and_too_many_tokens_are_refused() -> None:
    made = model()
    tokens = torch.arange(12)[None]
    longer = made.with_context(20)
    torch.testing.assert_close(longer.eval()(tokens), made(tokens))
    assert longer(torch.arange(20)[None]).shape == (1, 20, 20)
    with pytest.raises(RllabError, match="13 tokens is longer than the model's 12 positions"):
        made(torch.zeros(1, 13, dtype=torch.int64))
