"""Decoding a GPT token by token by its stepper: the same as the modules and as the whole sequence."""

import pytest
import torch
from torch import Tensor, nn

from language.decoding import DecodingConfig, generate
from language.models import gpt_step
from language.models.gpt import GPT, GPTConfig
from language.models.gpt_step import can_step
from language.models.mixture_of_experts import MixtureConfig, MixtureOfExperts


def model_of(norm: str, dtype: torch.dtype = torch.float32, experts: bool = False) -> GPT:
    """With weights that are all different and large enough to tell, in evaluation mode."""
    config = GPTConfig(37, 48, 3, 2, 16, norm=norm, dropout=0.1)  # type: ignore[arg-type]
    parts: dict[int, nn.Module] = {1: MixtureOfExperts(MixtureConfig(16, 24, experts=4, k=2))} if experts else {}
    model = GPT(config, parts)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.3, generator=generator)
    return model.to(dtype).eval()


def rows_of(rows: int, length: int) -> Tensor:
    return torch.randint(37, (rows, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("experts", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize(("rows", "padded"), [(1, False), (3, False), (3, True)])
def test_the_stepper_gives_what_the_whole_sequence_does(
    norm: str, dtype: torch.dtype, experts: bool, rows: int, padded: bool
) -> None:
    model = model_of(norm, dtype, experts)
    tokens = rows_of(rows, 45)
    valid = torch.ones_like(tokens, dtype=torch.bool)
    if padded:
        valid[:, :4] = torch.arange(4) >= torch.tensor([[0], [2], [3]])
    whole = model(tokens, valid)
    _, state = model.begin(tokens[:, :4], valid[:, :4], 45)
    assert state.stepper is not None
    for column in range(4, 45):
        torch.testing.assert_close(model.step(tokens[:, column], state), whole[:, column], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_rows_that_were_selected_with_padding_go_on_by_themselves(norm: str) -> None:
    model = model_of(norm)
    tokens = rows_of(3, 6)
    valid = torch.ones(3, 6, dtype=torch.bool)
    valid[1, :4] = False
    _, state = model.begin(tokens, valid, 40)
    rows, more = torch.tensor([1, 1, 2, 0]), torch.tensor([[3, 4], [5, 6], [7, 8], [9, 10]])
    chosen = model.select(state, rows)
    model.step(more[:, 0], chosen)
    found = model.step(more[:, 1], chosen)
    expected = model(torch.cat([tokens[rows], more], 1), torch.cat([valid[rows], torch.ones(4, 2).bool()], 1))[:, -1]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("copied", [False, True])
def test_a_copied_layout_of_the_weights_changes_nothing(copied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpt_step, "_STEPS_OF_A_COPY", 1 if copied else 1000)
    model = model_of("pre")
    tokens = rows_of(2, 9)
    _, state = model.begin(tokens[:, :8], torch.ones(2, 8, dtype=torch.bool), 20)
    assert state.stepper is not None
    assert (state.stepper._output.matrix.data_ptr() != model.tokens.weight.data_ptr()) == copied
    torch.testing.assert_close(model.step(tokens[:, 8], state), model(tokens)[:, -1], atol=1e-5, rtol=1e-5)


def test_weights_that_change_between_two_generations_are_the_new_ones_in_the_second() -> None:
    model = model_of("pre")
    tokens = rows_of(1, 5)
    config = DecodingConfig(maximum_new_tokens=40, temperature=0)
    before = generate(model, tokens, config=config).tokens
    for parameter in model.parameters():
        parameter.data.mul_(-1.5)
    after = generate(model, tokens, config=config).tokens
    assert not torch.equal(before, after)
    text = tokens
    for _ in range(40):
        text = torch.cat([text, model(text)[:, -1].argmax(-1, keepdim=True)], 1)
    assert torch.equal(after, text[:, 5:])


def test_a_model_with_dropout_hooks_or_other_parts_is_called_by_its_modules() -> None:
    model = model_of("pre")
    assert can_step(model)
    assert not can_step(model.train())
    handle = model.eval().blocks[0].register_forward_hook(lambda module, inputs, output: output + 1)
    assert not can_step(model)
    tokens = rows_of(2, 6)
    whole = model(tokens)
    _, state = model.begin(tokens[:, :5], torch.ones(2, 5, dtype=torch.bool), 6)
    torch.testing.assert_close(model.step(tokens[:, 5], state), whole[:, -1], atol=1e-5, rtol=1e-5)
    handle.remove()
    assert can_step(model)
    attention = model.get_submodule("blocks.1.attention")
    attention.outward = nn.Sequential(model.get_submodule("blocks.1.attention.outward"))
    assert not can_step(model)
