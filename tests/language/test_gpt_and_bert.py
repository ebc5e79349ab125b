"""GPT and BERT: the published sizes, the outputs of `transformers` for equal weights, caches, masks and gradients."""

import json
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn

from envs.errors import RllabError
from language.models.attention import AttentionMask, SelfAttention, attend, reference_attention
from language.models.bert import BERT, BERTConfig, BERTForPretraining, sentence_vectors
from language.models.blocks import Block, sinusoids
from language.models.gpt import GPT, GPTConfig, next_token_loss, token_log_probabilities
from language.models.huggingface import load_bert, load_gpt, save_bert, save_gpt
from language.models.linear import _onednn_works, linear, takes_onednn

TINY = GPTConfig(37, 12, 2, 2, 16, norm="pre", dropout=0.0)


def count(make: Any) -> int:
    """Parameters of what is made, without memory for them."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in make().parameters())


Model = TypeVar("Model", bound=nn.Module)


def scattered(model: Model, seed: int = 0) -> Model:
    """The model with weights that are all different and large enough to tell."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.3, generator=generator)
    return model.eval()


def tokens(rows: int, length: int, vocabulary: int = 37, seed: int = 1) -> Tensor:
    return torch.randint(vocabulary, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (GPTConfig.gpt_1(), 116_534_784),
        (GPTConfig.gpt_2(), 124_439_808),
        (GPTConfig.gpt_2("medium"), 354_823_168),
        (GPTConfig.gpt_2("large"), 774_030_080),
        (GPTConfig.gpt_2("xl"), 1_557_611_200),
    ],
)
def test_gpts_have_the_published_sizes(config: GPTConfig, parameters: int) -> None:
    assert count(lambda: GPT(config)) == parameters


def test_berts_have_the_published_sizes() -> None:
    assert count(lambda: BERT(BERTConfig.base())) == 109_482_240
    assert count(lambda: BERTForPretraining(BERTConfig.base())) == 110_106_428
    assert count(lambda: BERT(BERTConfig.large())) == 335_141_888


@pytest.mark.parametrize("causal", [False, True])
def test_the_fused_attention_is_the_papers_formula(causal: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    queries, keys, values = torch.randn(3, 2, 3, 7, 8, generator=generator).unbind(0)
    valid = torch.arange(7) >= torch.tensor([[0], [3]])
    for mask in (AttentionMask(causal), AttentionMask.of(valid, causal)):
        allowed = mask.allowed
        if allowed is None and causal:
            allowed = torch.ones(7, 7, dtype=torch.bool).tril()
        expected = reference_attention(queries, keys, values, allowed)
        assert torch.isfinite(expected).all()
        torch.testing.assert_close(attend(queries, keys, values, mask), expected)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_by_products_is_the_papers_formula_and_has_its_derivatives(
    causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(torch.nn.functional, "scaled_dot_product_attention")
    generator = torch.Generator().manual_seed(0)
    rounded = torch.randn(3, 2, 3, 7, 8, generator=generator).bfloat16()
    upstream = torch.randn(2, 3, 7, 8, generator=generator).bfloat16()
    valid = torch.arange(7) >= torch.tensor([[0], [3]])
    for mask in (AttentionMask(causal), AttentionMask.of(valid, causal)):
        allowed = mask.allowed
        if allowed is None and causal:
            allowed = torch.ones(7, 7, dtype=torch.bool).tril()
        inputs, exact = rounded.clone().requires_grad_(), rounded.double().requires_grad_()
        ours, expected = attend(*inputs.unbind(0), mask), reference_attention(*exact.unbind(0), allowed)
        assert ours.dtype == torch.bfloat16
        torch.testing.assert_close(ours.double(), expected, atol=0.02, rtol=0.02)
        found = torch.autograd.grad(ours, inputs, upstream)[0]
        wanted = torch.autograd.grad(expected, exact, upstream.double())[0]
        torch.testing.assert_close(found.double(), wanted, atol=0.05, rtol=0.02)


def test_attention_by_products_drops_weights() -> None:
    values = torch.eye(64).bfloat16().expand(200, 1, 64, 64).requires_grad_()
    flat = torch.zeros_like(values)  # every weight is 1/64, and what comes out are the weights themselves
    torch.manual_seed(0)
    weights = attend(flat.requires_grad_(), flat, values, AttentionMask(), dropout=0.25).float() * 64
    assert weights.unique().tolist() == [0.0, pytest.approx(4 / 3, rel=0.01)]
    assert (weights == 0).float().mean().item() == pytest.approx(0.25, abs=0.005)


def test_attention_by_heads_is_torchs() -> None:
    ours = SelfAttention(16, 4)
    scattered(ours)
    theirs = nn.MultiheadAttention(16, 4, batch_first=True)
    theirs.load_state_dict({
        "in_proj_weight": ours.inward.weight, "in_proj_bias": ours.inward.bias,
        "out_proj.weight": ours.outward.weight, "out_proj.bias": ours.outward.bias,
    })  # fmt: skip
    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(ours(x, AttentionMask()), theirs(x, x, x)[0])


def test_positions_are_sines_and_cosines_of_the_papers_wavelengths() -> None:
    table = sinusoids(11, 6)
    place, rate = 7, 10_000 ** (-2 / 6)
    expected = torch.tensor([place, place, place * rate, place * rate], dtype=torch.float64)
    assert table.shape == (11, 6)
    torch.testing.assert_close(table[place, 0].double(), expected[0].sin(), atol=1e-6, rtol=0)
    torch.testing.assert_close(table[place, 1].double(), expected[1].cos(), atol=1e-6, rtol=0)
    torch.testing.assert_close(table[place, 2].double(), expected[2].sin(), atol=1e-6, rtol=0)
    torch.testing.assert_close(table[place, 3].double(), expected[3].cos(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_a_block_is_torchs_encoder_layer(norm: str) -> None:
    config = GPTConfig(5, 5, 1, 2, 8, activation="gelu", norm=norm, dropout=0.0)  # type: ignore[arg-type]
    ours = scattered(Block(config.block()))
    theirs = nn.TransformerEncoderLayer(8, 2, 32, 0.0, "gelu", batch_first=True, norm_first=norm == "pre")
    names = {
        "attention.inward.weight": "self_attn.in_proj_weight", "attention.inward.bias": "self_attn.in_proj_bias",
        "attention.outward": "self_attn.out_proj", "attention_norm": "norm1", "feed_forward_norm": "norm2",
        "feed_forward.inward": "linear1", "feed_forward.outward": "linear2",
    }  # fmt: skip
    state = {}
    for name, tensor in ours.state_dict().items():
        ours_name = next(known for known in names if name.startswith(known))
        state[names[ours_name] + name.removeprefix(ours_name)] = tensor
    theirs.load_state_dict(state)
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(ours(x, AttentionMask()), theirs(x))


@pytest.mark.skipif(not _onednn_works(), reason="this torch has no oneDNN product")
def test_products_by_onednn_and_their_gradients_are_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight, bias, seed = (
        torch.randn(*shape, generator=generator) for shape in ((3, 40, 9), (7, 9), (7,), (3, 40, 7))
    )
    results = []
    for onednn in (True, False):
        monkeypatch.setattr("language.models.linear.takes_onednn", lambda chosen=onednn: chosen)
        leaves = [tensor.clone().requires_grad_() for tensor in (x, weight, bias)]
        out = linear(*leaves)
        assert (out.grad_fn is not None and "OneDNN" in out.grad_fn.name()) == onednn
        results.append([out, *torch.autograd.grad(out, leaves, seed)])
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize(("variable", "processor", "taken"), [
    ("", "vendor_id : AuthenticAMD", True), ("", "vendor_id : GenuineIntel", False), ("", "arm", False),
    ("torch", "vendor_id : AuthenticAMD", False), ("onednn", "vendor_id : GenuineIntel", True),
])  # fmt: skip
def test_the_machine_and_never_timing_chooses_the_product(
    variable: str, processor: str, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLLAB_LINEAR", variable)
    monkeypatch.setattr("language.models.linear._processor", lambda: processor)
    assert takes_onednn.__wrapped__() == (taken and _onednn_works())


def test_products_have_second_and_forward_derivatives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("language.models.linear.takes_onednn", _onednn_works)
    generator = torch.Generator().manual_seed(0)
    x, weight, other = (torch.randn(*shape, generator=generator) for shape in ((80, 3), (2, 3), (2, 3)))

    def energy(matrix: Tensor) -> Tensor:
        return (linear(x, matrix) ** 2).sum()

    leaf = weight.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(energy(leaf), leaf, create_graph=True)
    (product,) = torch.autograd.grad((gradient * other).sum(), leaf)
    torch.testing.assert_close(product, 2 * other @ x.T @ x, rtol=1e-4, atol=1e-4)
    slope = torch.func.jvp(energy, (weight,), (other,))[1]
    torch.testing.assert_close(slope, (gradient.detach() * other).sum(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_padding_on_either_side_changes_nothing(norm: str) -> None:
    model = scattered(GPT(GPTConfig(37, 12, 2, 2, 16, norm=norm, dropout=0.0)))  # type: ignore[arg-type]
    row = tokens(1, 5)
    alone = model(row)[0]
    for before, after in ((3, 0), (0, 4), (2, 2)):
        padded = torch.cat([tokens(1, before, seed=5), row, tokens(1, after, seed=6)], 1)
        valid = torch.zeros_like(padded, dtype=torch.bool)
        valid[:, before : before + 5] = True
        torch.testing.assert_close(model(padded, valid)[0, before : before + 5], alone)


def test_no_token_sees_what_comes_after_it() -> None:
    model = scattered(GPT(TINY))
    row = tokens(1, 8)
    changed = row.clone()
    changed[0, 5:] = (changed[0, 5:] + 1) % 37
    before, after = model(row), model(changed)
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:])


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("padded", [False, True])
def test_step_by_step_with_a_cache_gives_what_the_whole_sequence_does(norm: str, padded: bool) -> None:
    model = scattered(GPT(GPTConfig(37, 12, 2, 2, 16, norm=norm, dropout=0.0)))  # type: ignore[arg-type]
    rows = tokens(3, 9)
    valid = torch.ones(3, 9, dtype=torch.bool)
    if padded:
        valid[:, :4] = torch.arange(4) >= torch.tensor([[0], [2], [3]])
    whole = model(rows, valid)
    logits, state = model.begin(rows[:, :4], valid[:, :4], 9)
    torch.testing.assert_close(logits, whole[:, 3])
    for column in range(4, 9):
        logits = model.step(rows[:, column], state)
        torch.testing.assert_close(logits, whole[:, column])


def test_selected_rows_go_on_by_themselves() -> None:
    model = scattered(GPT(TINY))
    rows = tokens(2, 4)
    _, state = model.begin(rows, torch.ones(2, 4, dtype=torch.bool), 6)
    chosen = model.select(state, torch.tensor([1, 1, 0]))
    after = model.step(torch.tensor([3, 4, 5]), chosen)
    expected = model(torch.cat([rows[[1, 1, 0]], torch.tensor([[3], [4], [5]])], 1))[:, -1]
    torch.testing.assert_close(after, expected)


def test_the_loss_is_the_mean_over_real_targets() -> None:
    model = scattered(GPT(TINY))
    rows = tokens(2, 6)
    valid = torch.tensor([[True] * 6, [True] * 3 + [False] * 3])
    log_probabilities = torch.log_softmax(model(rows), -1)
    chosen = [log_probabilities[0, i, rows[0, i + 1]] for i in range(5)]
    chosen += [log_probabilities[1, i, rows[1, i + 1]] for i in range(2)]
    torch.testing.assert_close(next_token_loss(model, rows, valid), -torch.stack(chosen).mean())


def test_log_probabilities_of_tokens_are_the_same_in_pieces_and_so_are_their_gradients() -> None:
    model = scattered(GPT(TINY))
    rows = tokens(3, 7)
    expected = torch.log_softmax(model(rows)[:, :-1] / 0.7, -1).gather(2, rows[:, 1:, None]).squeeze(2)
    found = token_log_probabilities(model, rows, temperature=0.7, rows_at_once=4)
    torch.testing.assert_close(found, expected)
    ours, theirs = (torch.autograd.grad(value.square().sum(), list(model.parameters())) for value in (found, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(RllabError, match="3 heads do not divide a width of 16"):
        GPTConfig(heads=3, width=16)
    with pytest.raises(RllabError, match="longer than the model's 12 positions"):
        GPT(TINY)(tokens(1, 13))
    with pytest.raises(RllabError, match="longer than the model's 12 positions"):
        GPT(TINY).begin(tokens(1, 4), torch.ones(1, 4, dtype=torch.bool), 13)


@pytest.mark.parametrize("kind", ["gpt2", "openai-gpt"])
def test_transformers_gives_the_same_from_the_same_weights_both_ways(tmp_path: Path, kind: str) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 37, "n_positions": 12, "n_embd": 16, "n_layer": 2, "n_head": 2}
    if kind == "gpt2":
        theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes))
    else:
        theirs = transformers.OpenAIGPTLMHeadModel(transformers.OpenAIGPTConfig(**sizes))
    scattered(theirs)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load_gpt(tmp_path / "theirs").eval()
    rows = tokens(2, 9)
    with torch.no_grad():
        torch.testing.assert_close(ours(rows), theirs(rows).logits, atol=1e-5, rtol=1e-5)
        save_gpt(scattered(ours, 5), tmp_path / "ours")
        back = type(theirs).from_pretrained(tmp_path / "ours").eval()
        torch.testing.assert_close(ours(rows), back(rows).logits, atol=1e-5, rtol=1e-5)


def test_transformers_bert_gives_the_same_from_the_same_weights_both_ways(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=37, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=12,
    )  # fmt: skip
    theirs = scattered(transformers.BertForPreTraining(config))
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load_bert(tmp_path / "theirs").eval()
    rows, segments = tokens(2, 9), torch.tensor([[0] * 4 + [1] * 5] * 2)
    valid = torch.tensor([[True] * 9, [True] * 6 + [False] * 3])

    def compare(peer: Any) -> None:
        with torch.no_grad():
            expected = peer(rows, attention_mask=valid.long(), token_type_ids=segments)
            words, follows = ours(rows, valid, segments)
        torch.testing.assert_close(words[valid], expected.prediction_logits[valid], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(follows, expected.seq_relationship_logits, atol=1e-5, rtol=1e-5)

    compare(theirs)
    save_bert(scattered(ours, 5), tmp_path / "ours")
    compare(transformers.BertForPreTraining.from_pretrained(tmp_path / "ours").eval())


def test_weights_that_are_missing_or_left_over_are_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_gpt(GPT(TINY), tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["transformer.extra"] = weights.pop("transformer.h.1.ln_2.bias")
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(RllabError, match=r"lacks h\.1\.ln_2\.bias and has also extra"):
        load_gpt(tmp_path)
    document = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(document | {"model_type": "t5"}))
    with pytest.raises(RllabError, match="type 't5'"):
        load_gpt(tmp_path)
    with pytest.raises(RllabError, match="missing or no model's configuration"):
        load_gpt(tmp_path / "nowhere")


def test_sentence_vectors_are_means_over_real_tokens() -> None:
    features = torch.arange(12.0).view(1, 3, 4)
    valid = torch.tensor([[True, True, False]])
    assert sentence_vectors(features, valid).tolist() == [[2.0, 3.0, 4.0, 5.0]]
