"""Decoding with a small GPT-2 of Hugging Face, against its `generate` and against itself without a cache."""

from typing import Any

import pytest
import torch

from language.decoding import Decodable, DecodingConfig, beam_search, generate, pad_left
from language.decoding.transformers_adapter import TransformersModel

PROMPTS = [[5, 6, 7, 8, 9], [3], [11, 12, 13]]
TOKENS, VALID = pad_left(PROMPTS)
PADDING = 96


@pytest.fixture(scope="module")
def gpt2() -> Any:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=97, n_positions=64, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=1
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim > 1:
                weights *= 2.5  # as it is, all logits would be nearly equal
    return model


def peer(model: Any, **options: Any) -> Any:
    return model.generate(
        TOKENS, attention_mask=VALID.long(), pad_token_id=PADDING, max_new_tokens=25, return_dict_in_generate=True,
        output_scores=True, **options,
    )  # fmt: skip


def test_the_adapter_offers_what_decoding_needs(gpt2: Any) -> None:
    model = TransformersModel(gpt2)
    assert isinstance(model, Decodable)
    assert (model.vocabulary_size, model.context) == (97, 64)


def test_prompts_in_a_batch_give_the_logits_of_each_alone_read_at_once(gpt2: Any) -> None:
    model = TransformersModel(gpt2)
    more = [[20, 21], [22, 23], [24, 25]]
    with torch.no_grad():
        logits, state = model.begin(TOKENS, VALID, 10)
        found = [logits]
        for column in zip(*more, strict=True):
            found.append(model.step(torch.tensor(column), state))
        for number, (prompt, new) in enumerate(zip(PROMPTS, more, strict=True)):
            alone = gpt2(torch.tensor([[*prompt, *new]])).logits[0, len(prompt) - 1 :]
            assert torch.allclose(torch.stack([step[number] for step in found]), alone, atol=2e-5)


def test_a_selection_of_rows_goes_on_by_itself(gpt2: Any) -> None:
    model = TransformersModel(gpt2)
    with torch.no_grad():
        _, state = model.begin(TOKENS, VALID, 10)
        chosen = model.select(state, torch.tensor([2, 0, 2]))
        whole = model.step(torch.tensor([1, 2, 3]), state)
        part = model.step(torch.tensor([3, 1, 3]), chosen)
    assert torch.allclose(part, whole[[2, 0, 2]], atol=2e-5)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {}),
        ({"stop_tokens": (54, 46)}, {"eos_token_id": [54, 46]}),
        ({"repetition_penalty": 1.3}, {"repetition_penalty": 1.3}),
        ({"banned_tokens": (37, 13)}, {"suppress_tokens": [37, 13]}),
        ({"stop_tokens": (9, 13, 37), "minimum_new_tokens": 4}, {"eos_token_id": [9, 13, 37], "min_new_tokens": 4}),
    ],
)
def test_greedy_decoding_is_hugging_faces(gpt2: Any, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    found = generate(
        TransformersModel(gpt2), TOKENS, VALID, DecodingConfig(maximum_new_tokens=25, temperature=0, **ours)
    )  # fmt: skip
    expected = peer(gpt2, do_sample=False, **({"eos_token_id": None} | theirs)).sequences[:, TOKENS.shape[1] :]
    assert torch.equal(torch.where(found.valid, found.tokens, PADDING), expected)


@pytest.mark.parametrize("penalty", [1.0, 1.3])
@pytest.mark.parametrize("alpha", [-1.0, 0.0, 0.6, 2.0])
@pytest.mark.parametrize(("stop", "early"), [("heuristic", False), ("full", True), ("exact", "never")])
def test_beam_search_is_hugging_faces(gpt2: Any, stop: Any, early: Any, alpha: float, penalty: float) -> None:
    config = DecodingConfig(
        maximum_new_tokens=25, beams=4, length_penalty=alpha, beam_stop=stop, stop_tokens=(1, 2, 3, 4),
        repetition_penalty=penalty,
    )  # fmt: skip
    found = beam_search(TransformersModel(gpt2), TOKENS, VALID, config)
    expected = peer(
        gpt2, num_beams=4, num_return_sequences=4, length_penalty=alpha, early_stopping=early, do_sample=False,
        eos_token_id=[1, 2, 3, 4], repetition_penalty=penalty,
    )  # fmt: skip
    sequences = expected.sequences[:, TOKENS.shape[1] :].view(3, 4, -1)
    length = found.tokens.shape[2]
    assert torch.equal(found.tokens, torch.where(found.valid, sequences[:, :, :length], 0))
    assert torch.allclose(found.scores, expected.sequences_scores.view(3, 4), rtol=1e-5)
