"""AWD-LSTM: published sizes, torch's own LSTM as oracle, every dropout, penalties, reading on, decoding."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence

from envs.errors import RllabError
from language.decoding import DecodingConfig, generate
from language.decoding.protocol import Decodable
from language.models.awd_lstm import AWDLSTM, AWDLSTMConfig, activation_penalties
from language.models.dropout import EmbeddingDropout, VariationalDropout, WeightDroppedLSTM
from language.models.lstm import LSTM, bfloat16_lstm_works
from language.models.padding import aligned_left, check_right_padded, reversed_rows

CONFIG = AWDLSTMConfig(11, width=4, layers=3, hidden_width=6)
TOKENS = torch.randint(11, (3, 7), generator=torch.Generator().manual_seed(1))
LENGTHS = torch.tensor([7, 4, 1])
VALID = torch.arange(7) < LENGTHS[:, None]


def model(config: AWDLSTMConfig = CONFIG) -> AWDLSTM:
    torch.manual_seed(0)
    return AWDLSTM(config).eval()


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def torch_stack(made: AWDLSTM, tokens: Tensor) -> list[Tensor]:
    """The outputs of torch's LSTMs with the same weights."""
    x, outputs = made.encoder.tokens.weight[tokens], []
    for ours in made.encoder.lstms:
        theirs = nn.LSTM(ours.input_size, ours.hidden_size, batch_first=True)
        theirs.load_state_dict(ours.state_dict())
        x = theirs(x)[0]
        outputs.append(x)
    return outputs


@pytest.mark.parametrize(
    ("config", "parameters"),
    [(AWDLSTMConfig.penn_treebank(), 24_221_600), (AWDLSTMConfig.wikitext_2(), 33_556_078)],
)
def test_parameters_are_those_that_were_published(config: AWDLSTMConfig, parameters: int) -> None:
    with torch.device("meta"):
        made = AWDLSTM(config)
    assert count(made) == parameters
    assert count(made.encoder.lstms) == 20_211_600


def test_without_dropout_it_is_a_stack_of_torch_s_lstms_and_the_embedding_transposed() -> None:
    for made in (model(), model(replace(CONFIG, dropout=0.0)).train()):
        outputs = torch_stack(made, TOKENS)
        result = made.forward_from(TOKENS, None)
        for ours, theirs in zip(result.raw_outputs, outputs, strict=True):
            torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(made(TOKENS), outputs[-1] @ made.encoder.tokens.weight.T + made.bias)


def test_an_untied_model_has_a_matrix_more() -> None:
    free = model(replace(CONFIG, tied=False))
    assert count(free) - count(model()) == 11 * 4
    assert free.softmax is not free.encoder.tokens.weight
    tied = model()
    assert tied.softmax is tied.encoder.tokens.weight


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("low", [True, False])
def test_under_bfloat16_what_goes_on_from_batch_to_batch_stays_in_float32(
    training: bool, low: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not low:
        monkeypatch.setattr("language.models.dropout.bfloat16_lstm_works", lambda: False)
    made = model(replace(CONFIG, dropout=0.9)).train(training)
    with torch.autocast("cpu", torch.bfloat16):
        result = made.forward_from(TOKENS, None)
        made.forward_from(TOKENS, result.state.detached())
    assert {output.dtype for output in result.raw_outputs} == {torch.float32}
    result.logits.float().sum().backward()


@pytest.mark.parametrize("packed", [True, False])
def test_without_an_lstm_in_bfloat16_one_in_float32_takes_its_place(
    packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("language.models.lstm.bfloat16_lstm_works", lambda: False)
    lstm = LSTM(8, 8, batch_first=True)
    x: Any = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    state = (torch.zeros(1, 2, 8), torch.zeros(1, 2, 8))
    if packed:
        x = pack_padded_sequence(x, torch.tensor([3, 2]), batch_first=True)
    with torch.autocast("cpu", torch.bfloat16):
        outputs, (h, _) = lstm(x, state)
    assert outputs.data.dtype == h.dtype == torch.float32
    torch.testing.assert_close(outputs.data, lstm(x.float(), state)[0].data)


def test_the_trial_of_an_lstm_in_bfloat16_draws_no_random_numbers() -> None:
    before = torch.get_rng_state()
    bfloat16_lstm_works.cache_clear()
    bfloat16_lstm_works()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.skipif(not bfloat16_lstm_works(), reason="this processor has no LSTM in bfloat16")
@pytest.mark.parametrize("training", [True, False])
def test_an_lstm_in_bfloat16_is_that_in_float32_but_for_rounding(training: bool) -> None:
    lstm = WeightDroppedLSTM(24, 32, 0.0).train(training)
    x = torch.randn(3, 20, 24, generator=torch.Generator().manual_seed(0))
    state = (torch.full((1, 3, 32), 0.5), torch.full((1, 3, 32), -0.5))
    with torch.autocast("cpu", torch.bfloat16):
        low, (h, c) = lstm(x, state)
    exact, memory = lstm(x, state)
    assert not torch.equal(low, exact)
    torch.testing.assert_close((low, (h, c)), (exact, memory), atol=0.02, rtol=0.02)
    if training:
        found, wanted = (
            torch.autograd.grad(outputs.square().sum(), list(lstm.parameters())) for outputs in (low, exact)
        )
        for one, other in zip(found, wanted, strict=True):
            assert (one - other).norm() <= 0.02 * other.norm()


def test_weights_that_are_put_into_an_empty_model_work_and_stay_tied() -> None:
    made = model()
    with torch.device("meta"):
        empty = AWDLSTM(CONFIG)
    empty.load_state_dict(made.state_dict(), assign=True)
    torch.testing.assert_close(empty.eval()(TOKENS), made(TOKENS))
    empty.train()(TOKENS).sum().backward()
    assert empty.softmax is empty.encoder.tokens.weight
    assert empty.encoder.lstms[0].weight_hh_l0.grad is not None


def test_a_text_read_in_pieces_gives_what_it_gives_as_a_whole() -> None:
    made = model()
    first = made.forward_from(TOKENS[:, :3], None)
    second = made.forward_from(TOKENS[:, 3:], first.state.detached())
    torch.testing.assert_close(torch.cat([first.logits, second.logits], 1), made(TOKENS))


def test_derivatives_end_where_the_state_is_detached() -> None:
    for detached in (True, False):
        made = model()
        state = made.forward_from(torch.tensor([[1]]), None).state
        logits = made.forward_from(torch.tensor([[2]]), state.detached() if detached else state).logits
        logits[0, 0, 5].backward()
        assert bool(made.encoder.tokens.weight.grad[1].any()) != detached


def test_a_variational_mask_is_the_same_at_all_times_and_another_for_each_row() -> None:
    torch.manual_seed(0)
    dropout = VariationalDropout(0.4)
    x = torch.rand(40, 5, 50) + 1
    dropped = dropout(x)
    kept = dropped != 0
    assert bool((kept == kept[:, :1]).all())
    assert not bool((kept[0] == kept[1]).all())
    torch.testing.assert_close(dropped[kept], x[kept] / 0.6)
    assert kept[:, 0].float().mean().item() == pytest.approx(0.6, abs=0.04)  # 2000 coins, three deviations
    torch.testing.assert_close(dropout.eval()(x), x)


def test_embedding_dropout_takes_whole_words_and_enlarges_the_others() -> None:
    torch.manual_seed(0)
    tokens = torch.arange(3000).repeat(2, 1)
    vectors = torch.rand(2, 3000, 4) + 1
    dropout = EmbeddingDropout(3000, 0.25)
    dropped = dropout(vectors, tokens)
    kept = dropped.any(-1)
    assert torch.equal(kept[0], kept[1])
    assert bool((dropped[~kept] == 0).all())
    torch.testing.assert_close(dropped[kept], vectors[kept] / 0.75)
    assert kept.float().mean().item() == pytest.approx(0.75, abs=0.024)
    assert torch.equal(dropout.eval()(vectors, tokens), vectors)


def test_a_dropped_word_is_zero_wherever_it_occurs() -> None:
    made = model(replace(CONFIG, embedding_dropout=0.5, input_dropout=0.0, hidden_dropout=0.0, weight_dropout=0.0))
    seen = []
    made.encoder.input_dropout.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    tokens = torch.tensor([[1, 2, 3, 1, 2, 3, 4, 5]])
    torch.manual_seed(1)
    made.train()(tokens)
    zero = (seen[0] == 0).all(-1)[0]
    assert zero[:3].tolist() == zero[3:6].tolist()
    assert 0 < int(zero.sum()) < 8


def test_weight_drop_is_torch_s_lstm_on_weights_under_one_mask() -> None:
    torch.manual_seed(0)
    ours, theirs = WeightDroppedLSTM(3, 5, 0.4), nn.LSTM(3, 5, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 6, 3)
    torch.manual_seed(7)
    mask = functional.dropout(torch.ones(20, 5), 0.4)
    with torch.no_grad():
        theirs.weight_hh_l0 *= mask
    torch.manual_seed(7)
    output, (h, c) = ours(x)
    expected, (their_h, their_c) = theirs(x)
    for found, wanted in ((output, expected), (h, their_h), (c, their_c)):
        torch.testing.assert_close(found, wanted)
    output.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(ours.weight_hh_l0.grad, theirs.weight_hh_l0.grad * mask)
    torch.testing.assert_close(ours.weight_ih_l0.grad, theirs.weight_ih_l0.grad)
    assert 0.3 < (mask == 0).float().mean().item() < 0.5


def test_weight_drop_draws_a_new_mask_for_each_call_and_none_in_evaluation() -> None:
    layer, x = WeightDroppedLSTM(3, 5, 0.5), torch.randn(2, 6, 3)
    assert not torch.equal(layer(x)[0], layer(x)[0])
    layer.eval()
    assert torch.equal(layer(x)[0], layer(x)[0])


def test_dropout_of_outputs_is_seen_by_the_softmax_and_by_the_first_penalty_alone() -> None:
    made = model(replace(CONFIG, output_dropout=0.5)).train()
    result = made.forward_from(TOKENS, None)
    raw, dropped = result.raw_outputs[-1], result.dropped_outputs[-1]
    gone = dropped == 0
    assert bool(gone.any())
    assert not bool((raw == 0).any())
    torch.testing.assert_close(dropped[~gone], 2 * raw[~gone])
    torch.testing.assert_close(result.logits, dropped @ made.softmax.T + made.bias)
    expected = 2 * dropped.pow(2).mean() + (raw[:, 1:] - raw[:, :-1]).pow(2).mean()
    torch.testing.assert_close(activation_penalties(result), expected)


def test_penalties_by_hand() -> None:
    encoded = model().encoder(TOKENS[:1, :3])
    raw = torch.tensor([[[1.0, 0.0], [3.0, 0.0], [3.0, 4.0]]])
    encoded = encoded._replace(raw_outputs=[raw], dropped_outputs=[2 * raw])
    # Squares 4·(1 + 9 + 9 + 16) over 6 numbers, changes 4 + 16 over 4.
    assert activation_penalties(encoded, 1.0, 0.0).item() == pytest.approx(140 / 6)
    assert activation_penalties(encoded, 0.0, 1.0).item() == pytest.approx(5.0)
    assert activation_penalties(encoded).item() == pytest.approx(2 * 140 / 6 + 5)
    single = encoded._replace(raw_outputs=[raw[:, :1]], dropped_outputs=[raw[:, :1]])
    assert activation_penalties(single).item() == pytest.approx(1.0)  # one step has no change


def test_a_backward_model_is_a_forward_one_on_reversed_rows() -> None:
    ahead, back = model(), model(replace(CONFIG, backward=True))
    logits = back(TOKENS, VALID)
    for row, length in enumerate(LENGTHS.tolist()):
        alone = ahead(TOKENS[row : row + 1, :length].flip(1)).flip(1)
        torch.testing.assert_close(logits[row : row + 1, :length], alone)


def test_right_padding_changes_no_logit() -> None:
    together = model()(TOKENS, VALID)
    for row, length in enumerate(LENGTHS.tolist()):
        torch.testing.assert_close(together[row, :length], model()(TOKENS[row : row + 1, :length])[0])


def test_unequal_prompts_are_continued_as_each_alone() -> None:
    made = model()
    assert isinstance(made, Decodable)
    prompts, valid = TOKENS, VALID.flip(1)
    logits, state = made.begin(prompts, valid, 9)
    further = torch.tensor([[1, 2, 3], [4, 5, 6]]).T
    steps = [logits, made.step(further[:, 0], state), made.step(further[:, 1], state)]
    for row, length in enumerate(LENGTHS.tolist()):
        whole = made(torch.cat([prompts[row, 7 - length :], further[row]])[None])[0]
        torch.testing.assert_close(torch.stack([step[row] for step in steps]), whole[length - 1 :])


def test_selected_rows_go_on_apart_from_the_others() -> None:
    made = model()
    _, state = made.begin(TOKENS, torch.ones_like(VALID), 8)
    chosen = made.select(state, torch.tensor([2, 0, 2]))
    next_tokens = torch.tensor([1, 2, 3])
    logits = made.step(next_tokens, chosen)
    expected = made(torch.cat([TOKENS[[2, 0, 2]], next_tokens[:, None]], 1))[:, -1]
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(made.step(next_tokens, state)[0], made(torch.cat([TOKENS[:1], next_tokens[:1, None]], 1))[0, -1])  # fmt: skip


def test_greedy_text_is_that_of_repeated_forward_passes() -> None:
    made = model()
    tokens = TOKENS[:, :2]
    for _ in range(4):
        tokens = torch.cat([tokens, made(tokens)[:, -1].argmax(-1, keepdim=True)], 1)
    found = generate(made, TOKENS[:, :2], None, DecodingConfig(temperature=0.0, maximum_new_tokens=4))
    assert found.tokens.tolist() == tokens[:, 2:].tolist()


@pytest.mark.parametrize("tied", [True, False])
def test_layer_groups_have_every_parameter_once_and_the_softmax_last(tied: bool) -> None:
    made = model(replace(CONFIG, tied=tied))
    groups = made.layer_groups()
    flat = [id(parameter) for group in groups for parameter in group]
    assert sorted(flat) == sorted(id(parameter) for parameter in made.parameters())
    assert any(parameter is made.softmax for parameter in groups[-1])
    assert len(groups) == (4 if tied else 5)


def test_rows_are_reversed_and_aligned_each_by_its_own_length() -> None:
    x = torch.tensor([[1, 2, 3], [4, 5, 0]])
    valid = torch.tensor([[True, True, True], [True, True, False]])
    assert reversed_rows(x, valid).tolist() == [[3, 2, 1], [5, 4, 0]]
    assert reversed_rows(x).tolist() == [[3, 2, 1], [0, 5, 4]]
    left = torch.tensor([[1, 2, 3], [0, 4, 5]])
    assert aligned_left(left, valid.flip(1)).tolist() == x.tolist()
    with pytest.raises(RllabError, match="padding before a token"):
        check_right_padded(valid.flip(1))


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"layers": 0}, "layers must be at least 1"),
        ({"width": -1}, "width must be at least 1"),
        ({"weight_dropout": 1.0}, "weight_dropout times dropout must be at least 0 and below 1"),
        ({"dropout": 2.5}, "input_dropout times dropout"),
        ({"dropout": -1.0}, "dropout must be at least 0"),
    ],
)
def test_configurations_that_make_no_sense_are_refused(wrong: dict[str, float], sentence: str) -> None:
    with pytest.raises(RllabError, match=sentence):
        replace(CONFIG, **wrong)


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(RllabError, match="has no tokens"):
        model().begin(TOKENS, torch.zeros_like(VALID), 8)
