"""ELMo: published sizes, its LSTM against torch's, words as characters, both directions, the layers' mix, contexts."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace

import pytest
import torch
from torch import Tensor, nn

from envs.errors import RllabError
from language.models.character_encoder import CharacterEncoder, Highway
from language.models.characters import CHARACTERS, characters_of, encode_sentences
from language.models.contextual_vectors import ContextIndex, contextual_vectors
from language.models.elmo import ELMo, ELMoConfig, ELMoLanguageModel, LayerMix
from language.models.projected_lstm import ProjectedLSTM

CONFIG = ELMoConfig(
    9, character_width=4, characters_a_word=8, filters=((1, 3), (3, 5)), highways=1, width=6, lstm_width=10, dropout=0.0
)
SENTENCES = [["a", "river", "bank"], ["money"], ["the", "bank", "lends", "money"]]


def elmo(config: ELMoConfig = CONFIG) -> ELMo:
    torch.manual_seed(0)
    return ELMo(config).eval()


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def encoded(sentences: Sequence[Sequence[str]] = SENTENCES) -> tuple[Tensor, Tensor]:
    return encode_sentences(sentences, CONFIG.characters_a_word)


def test_parameters_are_those_of_the_released_model() -> None:
    with torch.device("meta"):
        made = ELMo(ELMoConfig())
    assert count(made.words) == 18_037_856
    assert count(made.forward_lstms) + count(made.backward_lstms) == 75_563_008
    assert count(made) == 93_600_864


@pytest.mark.parametrize(("lstm_width", "width", "millions"), [(1024, 128, 13.6), (2048, 256, 28.0)])
def test_the_smaller_released_models_have_their_sizes(lstm_width: int, width: int, millions: float) -> None:
    with torch.device("meta"):
        made = ELMo(ELMoConfig(lstm_width=lstm_width, width=width, highways=1))
    assert round(count(made) / 1e6, 1) == millions


def test_without_clipping_the_lstm_is_torch_s_with_a_projection() -> None:
    torch.manual_seed(0)
    ours, theirs = ProjectedLSTM(3, 7, 4).double(), nn.LSTM(3, 7, proj_size=4, batch_first=True).double()
    with torch.no_grad():
        ours.bias.normal_()
        for theirs_weight, weight in (
            (theirs.weight_ih_l0, ours.weight_ih), (theirs.weight_hh_l0, ours.weight_hh),
            (theirs.bias_ih_l0, ours.bias), (theirs.weight_hr_l0, ours.weight_hr),
        ):  # fmt: skip
            theirs_weight.copy_(weight)
        theirs.bias_hh_l0.zero_()
    x, h, c = (torch.randn(shape, dtype=torch.float64) for shape in ((2, 5, 3), (2, 4), (2, 7)))
    x.requires_grad_()
    output, (last_h, last_c) = ours(x, (h, c))
    expected, (their_h, their_c) = theirs(x, (h[None], c[None]))
    for found, wanted in ((output, expected), (last_h, their_h[0]), (last_c, their_c[0])):
        torch.testing.assert_close(found, wanted)
    weights = torch.randn_like(output)
    found = torch.autograd.grad((output * weights).sum() + last_c.sum(), [x, *ours.parameters()])
    wanted = torch.autograd.grad(
        (expected * weights).sum() + their_c.sum(),
        [x, theirs.weight_ih_l0, theirs.weight_hh_l0, theirs.bias_ih_l0, theirs.weight_hr_l0],
    )
    for mine, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, other)


def plain(layer: ProjectedLSTM, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """The layer step by step, its derivatives left to torch."""
    outputs = []
    for step in range(x.shape[1]):
        i, f, g, o = (x[:, step] @ layer.weight_ih.T + h @ layer.weight_hh.T + layer.bias).chunk(4, 1)
        c = (f.sigmoid() * c + i.sigmoid() * g.tanh()).clamp(-layer.cell_clip, layer.cell_clip)
        h = ((o.sigmoid() * c.tanh()) @ layer.weight_hr.T).clamp(-layer.projection_clip, layer.projection_clip)
        outputs.append(h)
    return torch.stack(outputs, 1), c


def test_clipping_is_that_of_the_plain_loop_and_so_are_derivatives() -> None:
    torch.manual_seed(0)
    layer = ProjectedLSTM(3, 7, 4, cell_clip=0.4, projection_clip=0.12).double()
    x, h, c = (torch.randn(shape, dtype=torch.float64).requires_grad_() for shape in ((2, 6, 3), (2, 4), (2, 7)))
    output, (_, cell) = layer(x, (h, c))
    expected, expected_cell = plain(layer, x, h, c)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(cell, expected_cell)
    for numbers, limit in ((output, 0.12), (cell, 0.4)):
        assert 0.1 < (numbers.abs() == limit).double().mean().item() < 0.9
    weights, cell_weights = torch.randn_like(output), torch.randn_like(cell)
    inputs = [x, h, c, *layer.parameters()]
    found = torch.autograd.grad((output * weights).sum() + (cell * cell_weights).sum(), inputs)
    wanted = torch.autograd.grad((expected * weights).sum() + (expected_cell * cell_weights).sum(), inputs)
    for mine, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, other)


def test_a_configuration_is_the_same_after_json() -> None:
    assert ELMoConfig(**json.loads(json.dumps(asdict(CONFIG)))) == CONFIG


def test_a_word_is_its_bytes_between_marks() -> None:
    # A byte's id is one higher than the byte; 259 and 260 begin and end a word, 261 follows it.
    assert characters_of("bank", 8) == [259, 99, 98, 111, 108, 260, 261, 261]
    assert characters_of("é", 8) == [259, 0xC3 + 1, 0xA9 + 1, 260, 261, 261, 261, 261]
    assert characters_of("lengthy", 5) == [259, 109, 102, 111, 260]
    assert len(characters_of("x" * 80)) == 50


def test_a_sentence_stands_between_two_marks_and_is_padded_by_zeros() -> None:
    ids, valid = encode_sentences([["a"], []], 5)
    assert ids.tolist() == [
        [[259, 257, 260, 261, 261], [259, 98, 260, 261, 261], [259, 258, 260, 261, 261]],
        [[259, 257, 260, 261, 261], [259, 258, 260, 261, 261], [0, 0, 0, 0, 0]],
    ]
    assert valid.tolist() == [[True, True, True], [True, True, False]]
    assert int(ids.max()) < CHARACTERS


def test_a_word_s_vector_is_the_largest_of_each_filter_through_highways() -> None:
    torch.manual_seed(0)
    made = CharacterEncoder(CHARACTERS, 4, ((1, 3), (3, 5)), 2, 6)
    ids = torch.tensor(characters_of("bank", 8))
    x = made.embedding.weight[ids]
    features = []
    for convolution in made.convolutions:
        seen = convolution.kernel_size[0]
        windows = [(convolution.weight * x[i : i + seen].T).sum((1, 2)) + convolution.bias for i in range(9 - seen)]
        features.append(torch.stack(windows).relu().amax(0))
    vector = torch.cat(features)
    for highway in made.highways:
        both = highway.both.weight @ vector + highway.both.bias
        share = both[8:].sigmoid()
        vector = share * vector + (1 - share) * both[:8].relu()
    expected = made.projection.weight @ vector + made.projection.bias
    torch.testing.assert_close(made(ids[None])[0], expected)
    torch.testing.assert_close(made(ids.expand(2, 3, 8)), expected.expand(2, 3, 6))


def test_a_highway_carries_most_through_at_first() -> None:
    torch.manual_seed(0)
    x = torch.randn(200, 32)
    layer = Highway(32)
    carried = torch.sigmoid(layer.both(x)[:, 32:])
    assert carried.mean().item() == pytest.approx(1 / (1 + math.exp(-1)), abs=0.05)
    nn.init.constant_(layer.both.bias[32:].data, 50.0)
    torch.testing.assert_close(layer(x), x)


def test_layers_are_the_word_twice_then_lstms_with_a_residual_from_the_second_on() -> None:
    made = elmo()
    characters, valid = encoded([["a", "river", "bank"]])
    layers = made(characters, valid)
    assert layers.shape == (1, 3, 5, 12)
    words = made.words(characters)
    first, _ = made.forward_lstms[0](words)
    second, _ = made.forward_lstms[1](first)
    back, _ = made.backward_lstms[0](words.flip(1))
    further, _ = made.backward_lstms[1](back)
    torch.testing.assert_close(layers[:, 0], torch.cat([words, words], -1))
    torch.testing.assert_close(layers[:, 1], torch.cat([first, back.flip(1)], -1))
    torch.testing.assert_close(layers[:, 2], torch.cat([second + first, (further + back).flip(1)], -1))


def test_padding_changes_nothing_in_either_direction() -> None:
    made = elmo()
    characters, valid = encoded()
    together = made(characters, valid)
    filled = characters.where(valid[..., None], characters[0, 1])
    for layers in (together, made(filled, valid)):
        for row, sentence in enumerate(SENTENCES):
            torch.testing.assert_close(layers[row : row + 1, :, : len(sentence) + 2], made(*encoded([sentence])))


def test_one_half_sees_what_comes_before_and_the_other_what_comes_after() -> None:
    made = elmo()
    one, other = (made(*encoded([["a", word, "bank", "lends"]]))[0] for word in ("river", "money"))
    differs = ((one - other).abs() > 1e-7).any(-1).tolist(), (one[..., :6] != other[..., :6]).any(-1).tolist()
    # Columns: begin, a, WORD, bank, lends, end.
    assert differs[1] == [[False, False, True, False, False, False]] + [[False, False, True, True, True, True]] * 2
    backward = (one[..., 6:] != other[..., 6:]).any(-1).tolist()
    assert backward == [[False, False, True, False, False, False]] + [[True, True, True, False, False, False]] * 2


def language_model() -> ELMoLanguageModel:
    torch.manual_seed(0)
    return ELMoLanguageModel(CONFIG).eval()


WORDS = torch.tensor([[0, 2, 3, 4, 1, 8], [0, 5, 1, 8, 8, 8], [0, 6, 4, 7, 5, 1]])


def test_a_language_model_has_one_softmax_for_both_directions() -> None:
    made = language_model()
    forward, backward = made(*encoded())
    layers = made.encoder(*encoded())
    torch.testing.assert_close(forward, layers[:, -1, :, :6] @ made.softmax.T + made.bias)
    torch.testing.assert_close(backward, layers[:, -1, :, 6:] @ made.softmax.T + made.bias)
    assert count(made) - count(made.encoder) == 9 * 6 + 9


def test_the_loss_is_of_the_next_words_and_of_the_previous_ones() -> None:
    made = language_model()
    characters, valid = encoded()
    forward, backward = (logits.log_softmax(-1) for logits in made(characters, valid))
    loss = made.loss(characters, WORDS, valid)
    ahead, back = 0.0, 0.0
    for row, length in enumerate([5, 3, 6]):
        for place in range(length - 1):
            ahead -= forward[row, place, WORDS[row, place + 1]].item()
            back -= backward[row, place + 1, WORDS[row, place]].item()
    assert loss.words == 4 + 2 + 5
    assert loss.forward.item() == pytest.approx(ahead, rel=1e-5)
    assert loss.backward.item() == pytest.approx(back, rel=1e-5)


def test_padding_gets_no_derivative_and_everything_else_learns() -> None:
    made = language_model().train()
    loss = made.loss(encoded()[0], WORDS, encoded()[1])
    (loss.forward + loss.backward).backward()
    assert bool((made.encoder.words.embedding.weight.grad[0] == 0).all())
    assert all(bool(parameter.grad.any()) for parameter in made.parameters())


def test_under_bfloat16_the_lstms_stay_in_float32() -> None:
    made = language_model()
    exact = made.loss(encoded()[0], WORDS, encoded()[1])
    with torch.autocast("cpu", torch.bfloat16):
        assert made.encoder.forward_lstms[0](torch.randn(2, 3, 6).bfloat16())[0].dtype == torch.float32
        loss = made.loss(encoded()[0], WORDS, encoded()[1])
    (loss.forward + loss.backward).backward()
    assert loss.forward.item() == pytest.approx(exact.forward.item(), rel=0.01)


def test_dropout_is_for_training_alone() -> None:
    made = elmo(replace(CONFIG, dropout=0.5))
    assert torch.equal(made(*encoded()), made(*encoded()))
    made.train()
    assert not torch.equal(made(*encoded()), made(*encoded()))


def test_a_mix_begins_as_the_mean_of_the_layers() -> None:
    layers = torch.randn(2, 3, 5, 4)
    mix = LayerMix(3)
    torch.testing.assert_close(mix(layers), layers.mean(1))
    assert mix.penalty(0.1).item() == 0.0


def test_a_mix_by_hand() -> None:
    layers = torch.stack([torch.full((1, 2), value) for value in (1.0, 10.0, 100.0)])[None]
    mix = LayerMix(3)
    with torch.no_grad():
        mix.weights.copy_(torch.tensor([0.0, math.log(2), math.log(5)]))
        mix.gamma.fill_(2.0)
    torch.testing.assert_close(mix(layers), torch.full((1, 1, 2), 2 * (1 / 8 + 20 / 8 + 500 / 8)))
    assert mix.penalty(0.5).item() == pytest.approx(0.5 * (math.log(2) ** 2 + math.log(5) ** 2))


def test_a_normalising_mix_gives_every_vector_mean_0_and_deviation_1() -> None:
    mixed = LayerMix(1, normalise=True)(torch.randn(2, 1, 3, 400) * 7 + 3)
    torch.testing.assert_close(mixed.mean(-1), torch.zeros(2, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(mixed.var(-1, correction=0), torch.ones(2, 3), atol=1e-3, rtol=0)


def test_vectors_are_those_of_each_sentence_alone_without_its_marks() -> None:
    made = elmo(replace(CONFIG, dropout=0.5)).train()
    found = contextual_vectors(made, SENTENCES * 15)
    assert made.training
    made.eval()
    for vectors, sentence in zip(found, SENTENCES * 15, strict=True):
        torch.testing.assert_close(vectors, made(*encoded([sentence]))[0, -1, 1:-1])
    mix = LayerMix(3)
    mixed = contextual_vectors(made, SENTENCES, mix)
    torch.testing.assert_close(mixed[1], made(*encoded([["money"]]))[0, :, 1:-1].mean(0))


def test_the_first_layer_does_not_know_the_sentence_and_the_others_do() -> None:
    made = elmo()
    for layer, same in ((0, True), (1, False), (2, False)):
        found = contextual_vectors(made, SENTENCES, layer)
        assert torch.allclose(found[0][2], found[2][1]) == same


def test_nearest_uses_are_by_cosine_and_may_be_of_one_word() -> None:
    made = elmo()
    index = ContextIndex.of(made, SENTENCES)
    vectors = contextual_vectors(made, SENTENCES)
    best = index.nearest(vectors[0][2], 8)
    assert (best[0].sentence, best[0].place) == (0, 2)
    assert len(best) == 8
    for similarity, sentence, place in best:
        assert similarity == pytest.approx(
            torch.cosine_similarity(vectors[0][2], vectors[sentence][place], 0).item(), abs=1e-5
        )
    assert [neighbour.similarity for neighbour in best] == sorted((n.similarity for n in best), reverse=True)
    banks = index.nearest(vectors[0][2], 5, word="bank")
    assert [(neighbour.sentence, neighbour.place) for neighbour in banks] == [(0, 2), (2, 1)]
    with pytest.raises(RllabError, match="does not have the word 'loan'"):
        index.nearest(vectors[0][2], word="loan")


def test_uses_of_a_word_are_told_apart_by_a_model_that_has_learnt() -> None:
    """A bank of a river or of money: what comes after it depends on the word before it."""
    generator = torch.Generator().manual_seed(0)
    words = ["<s>", "</s>", "river", "money", "bank", "floods", "lends", "the", "old", "new"]

    def sentence(kind: int) -> list[str]:
        adjective = ["old", "new"][int(torch.randint(2, (1,), generator=generator))]
        return ["the", adjective, ["river", "money"][kind], "bank", ["floods", "lends"][kind]]

    torch.manual_seed(0)
    made = ELMoLanguageModel(
        replace(CONFIG, vocabulary_size=len(words), width=12, lstm_width=24, filters=((1, 12), (2, 12)))
    )
    optimizer = torch.optim.Adam(made.parameters(), 0.01)
    for step in range(60):
        text = [sentence((step + row) % 2) for row in range(8)]
        ids = torch.tensor([[0, *map(words.index, sentence), 1] for sentence in text])
        loss = made.loss(*encode_sentences(text, 8)[:1], ids)
        optimizer.zero_grad()
        ((loss.forward + loss.backward) / loss.words).backward()
        optimizer.step()
    text = [sentence(row % 2) for row in range(20)]
    index = ContextIndex.of(made.encoder, text)
    query = contextual_vectors(made.encoder, [["the", "old", "river", "bank", "floods"]])[0][3]
    nearest = index.nearest(query, 10, word="bank")
    assert {text[neighbour.sentence][2] for neighbour in nearest} == {"river"}
    # By itself the word is the same everywhere.
    assert index.nearest(query, 11, word="bank")[-1].similarity < nearest[-1].similarity - 0.01


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"layers": 0}, "layers must be at least 1"),
        ({"highways": -1}, "highways must be at least 0"),
        ({"filters": ()}, "at least one convolution"),
        ({"filters": ((9, 4),)}, "between 1 and 8 characters"),
        ({"filters": ((2, 0),)}, "each of them a filter"),
        ({"cell_clip": 0.0}, "cell_clip must be above 0"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
    ],
)
def test_configurations_that_make_no_sense_are_refused(wrong: dict[str, object], sentence: str) -> None:
    with pytest.raises(RllabError, match=sentence):
        replace(CONFIG, **wrong)  # type: ignore[arg-type]


def test_bad_sentences_are_refused() -> None:
    made = elmo()
    characters, valid = encoded()
    with pytest.raises(RllabError, match="have 8 characters, the model's 50"):
        elmo(replace(CONFIG, characters_a_word=50))(characters)
    with pytest.raises(RllabError, match="pad batches on the right"):
        made(characters, valid.flip(1))
    with pytest.raises(RllabError, match="nothing to predict"):
        language_model().loss(characters, WORDS, torch.arange(6) < torch.tensor([[1], [0], [1]]))
    with pytest.raises(RllabError, match="A word has no characters"):
        encode_sentences([["a", ""]])
    with pytest.raises(RllabError, match="There is no sentence"):
        encode_sentences([])
    with pytest.raises(RllabError, match="There is no sentence"):
        contextual_vectors(made, [])
    with pytest.raises(RllabError, match="There is no layer 3"):
        contextual_vectors(made, SENTENCES, 3)
    with pytest.raises(RllabError, match="room for a character"):
        encode_sentences(SENTENCES, 2)
    with pytest.raises(RllabError, match="at least one layer"):
        LayerMix(0)
