"""The language model with experts between LSTMs: the paper's sizes, its layers, decoding, and what experts are sent."""

import math
from dataclasses import asdict, replace

import pytest
import torch
from torch import Tensor, nn

from envs.errors import RllabError
from language.decoding import DecodingConfig, generate, pad_left
from language.models.mixture_of_experts import MixtureReport
from language.models.moe_lstm import PAPER_MODELS, MoELSTM, MoELSTMConfig

CONFIG = MoELSTMConfig(vocabulary_size=11, width=6, feed_forward_width=5, experts=4, k=2, dropout=0.0)


def model(config: MoELSTMConfig = CONFIG) -> MoELSTM:
    """One whose experts are not chosen by chance any more."""
    torch.manual_seed(0)
    made = MoELSTM(config)
    nn.init.normal_(made.mixture.gate.clean)
    return made.eval()


TOKENS = torch.randint(11, (3, 7), generator=torch.Generator().manual_seed(1))
VALID = torch.arange(7) < torch.tensor([[7], [4], [1]])


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("MoE-1-Wide", 8.4), ("MoE-4", 8.4), ("MoE-32", 37.8), ("MoE-256", 272.9), ("MoE-256-h", 272.9),
        ("MoE-1024-h", 1079.0), ("MoE-4096-h", 4303.4), ("MoE-34M", 4313.9), ("MoE-143M", 4371.1),
    ],
)  # fmt: skip
def test_parameters_are_those_of_the_paper_s_table_7(name: str, millions: float) -> None:
    with torch.device("meta"):
        made = MoELSTM(MoELSTMConfig.paper(name))
    count = sum(part.numel() for layer in (made.first, made.mixture, made.second) for part in layer.parameters())
    assert round(count / 1e6, 1) == millions


def test_total_parameters_are_those_of_table_7_in_billions() -> None:
    for name, billions in {"MoE-4": 0.8, "MoE-32": 0.9, "MoE-256": 1.1, "MoE-4096-h": 5.1, "MoE-143M": 6.0}.items():
        with torch.device("meta"):
            made = MoELSTM(MoELSTMConfig.paper(name))
        assert round(sum(part.numel() for part in made.parameters()) / 1e9, 1) == billions


def test_every_model_with_experts_uses_four_of_them_a_token() -> None:
    for name, config in PAPER_MODELS.items():
        assert config.experts_a_token == (1 if name == "MoE-1-Wide" else 4)


def test_layers_are_appendix_c_s_with_residuals_and_a_sigmoid_after_the_experts() -> None:
    made = model()
    x = made.embedding(TOKENS)
    x = x + made.first(x)[0]
    x = x + torch.sigmoid(made.mixture(x)[0])
    x = x + made.second(x)[0]
    torch.testing.assert_close(made(TOKENS), x @ made.softmax.T + made.bias)


def test_dropout_leaves_the_input_of_each_layer_to_be_added() -> None:
    # A dropped output is 0, so that with nearly all of them dropped the logits are those of a few embedded numbers.
    made = model(replace(CONFIG, dropout=0.999999)).train()
    torch.testing.assert_close(made(TOKENS), made.bias.expand(3, 7, 11))
    torch.testing.assert_close(made.eval()(TOKENS), model()(TOKENS))


def test_a_tied_model_has_one_matrix_less() -> None:
    tied, free = (MoELSTM(replace(CONFIG, tied=tied)) for tied in (True, False))
    sizes = [sum(part.numel() for part in made.parameters()) for made in (tied, free)]
    assert sizes[1] - sizes[0] == 11 * 6
    for made in (tied, free):
        made(torch.zeros(1, 2, dtype=torch.int64)).sum().backward()
    assert tied.embedding.weight.grad[5].any()
    assert not free.embedding.weight.grad[5].any()


@pytest.mark.parametrize("tied", [False, True])
def test_weights_go_into_a_model_that_was_made_without_memory(tied: bool) -> None:
    made = model(replace(CONFIG, tied=tied))
    with torch.device("meta"):
        empty = MoELSTM(MoELSTMConfig(**asdict(made.config))).eval()
    empty.load_state_dict(made.state_dict(), assign=True)
    assert torch.equal(empty(TOKENS), made(TOKENS))
    assert empty.config == made.config


def test_right_padding_changes_no_logit_and_no_report() -> None:
    made = model()
    reports: list[MixtureReport] = []
    together = made(TOKENS, VALID, reports)
    for row, length in enumerate([7, 4, 1]):
        torch.testing.assert_close(together[row, :length], made(TOKENS[row : row + 1, :length])[0])
    assert int(reports[0].counts.sum()) == 2 * 12


def test_a_text_in_two_batches_is_the_text_in_one() -> None:
    made = model()
    first, state = made.forward_from(TOKENS[:, :3], None)
    second, _ = made.forward_from(TOKENS[:, 3:], state)
    torch.testing.assert_close(torch.cat([first, second], 1), made(TOKENS))
    assert all(part.requires_grad for pair in (state.first, state.second) for part in pair)
    ended = state.detached()
    assert not any(part.requires_grad for pair in (ended.first, ended.second) for part in pair)
    torch.testing.assert_close(made.forward_from(TOKENS[:, 3:], ended)[0], second)


def left_padded(rows: list[Tensor], columns: int) -> tuple[Tensor, Tensor]:
    tokens, valid = (
        torch.zeros(len(rows), columns, dtype=torch.int64),
        torch.zeros(len(rows), columns, dtype=torch.bool),
    )
    for number, row in enumerate(rows):
        tokens[number, columns - len(row) :], valid[number, columns - len(row) :] = row, True
    return tokens, valid


@pytest.mark.parametrize("projected", [False, True])
def test_unequal_prompts_together_are_each_alone(projected: bool) -> None:
    made = model(replace(CONFIG, lstm_width=9 if projected else None))
    rows = [TOKENS[0], TOKENS[1, :4], TOKENS[2, :1]]
    tokens, valid = left_padded([row[:-1] if len(row) > 1 else row for row in rows], 6)
    logits, state = made.begin(tokens, valid, 8)
    following = torch.tensor([row[-1] for row in rows])
    after = made.step(following, state)
    again = made.step(following, state)
    for number, row in enumerate(rows):
        prompt = row[:-1] if len(row) > 1 else row
        alone = made(torch.cat([prompt, row[-1:], row[-1:]])[None])[0]
        for ours, place in ((logits, -3), (after, -2), (again, -1)):
            torch.testing.assert_close(ours[number], alone[place])


@pytest.mark.parametrize("beams", [1, 3])
def test_what_is_generated_from_unequal_prompts_is_what_follows_each_alone(beams: int) -> None:
    made, prompts = model(), [[3, 1, 4, 1, 5], [9, 2]]
    config = DecodingConfig(maximum_new_tokens=6, temperature=0, beams=beams)
    together = generate(made, *pad_left(prompts), config).tokens
    alone = [generate(made, *pad_left([prompt]), config).tokens[0] for prompt in prompts]
    assert [list(row) for row in together] == [list(row) for row in alone]
    if beams == 1:
        text = torch.tensor([prompts[0] + list(alone[0])])
        assert made(text)[0, 4:-1].argmax(-1).tolist() == text[0, 5:].tolist()


def test_selected_rows_go_on_as_their_own() -> None:
    made = model()
    _, state = made.begin(TOKENS, torch.ones(3, 7, dtype=torch.bool), 8)
    rows = torch.tensor([2, 0, 2, 1])
    selected = made.select(state, rows)
    following = torch.tensor([1, 2, 3])
    torch.testing.assert_close(made.step(following[rows], selected), made.step(following, state)[rows])


def test_a_prompt_without_tokens_is_refused() -> None:
    with pytest.raises(RllabError, match="A prompt has no tokens"):
        model().begin(TOKENS, VALID & torch.tensor([[True], [True], [False]]), 8)


def test_it_learns_a_text_whose_next_token_needs_the_last_two() -> None:
    torch.manual_seed(0)
    made = MoELSTM(replace(CONFIG, width=16, feed_forward_width=16)).train()
    text = torch.tensor([[1, 2, 1, 3]]).repeat(4, 8)  # after 1 comes 2 or 3, by what came before it
    optimiser = torch.optim.Adam(made.parameters(), 0.02)
    for _ in range(120):
        reports: list[MixtureReport] = []
        logits = made(text[:, :-1], reports=reports)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten())
        optimiser.zero_grad()
        (loss + reports[0].auxiliary_loss).backward()
        optimiser.step()
    # From the last token alone the mean is half of ln 2; the first prediction of a row can be no better.
    assert made.eval()(text[:, :-1])[:, 3:].argmax(-1).equal(text[:, 4:])
    assert loss.item() < 0.25 * math.log(2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocabulary_size": 0}, "vocabulary_size must be at least 1"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
        ({"k": 5}, "Of 4 experts no 5 can be chosen"),
        ({"lstm_width": 5}, "lstm_width must be at least the width"),
    ],
)
def test_bad_configurations_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(RllabError, match=message):
        replace(CONFIG, **changes)


def test_unknown_names_are_told_with_the_known_ones() -> None:
    with pytest.raises(RllabError, match="no model MoE-5; choose one of MoE-1-Wide, MoE-4,"):
        MoELSTMConfig.paper("MoE-5")
