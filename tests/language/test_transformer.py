"""The Transformer and its LSTM peer: the paper's sizes, torch's and transformers' outputs, masks, decoding with a cache."""

from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn

from envs.errors import RllabError
from language.decoding import Decodable, DecodingConfig, beam_search, pad_left
from language.models.lstm_translation import LSTMTranslation, LSTMTranslationConfig
from language.models.transformer import Transformer, TransformerConfig
from language.training.schedules import noam_peak

TINY = TransformerConfig(23, 16, 2, 2, 16, dropout=0.0)
LSTM = LSTMTranslationConfig(23, 16, 2, 12, 0.0)
MODELS: list[TransformerConfig | LSTMTranslationConfig] = [
    TINY,
    TransformerConfig(23, 16, 2, 2, 16, norm="pre", dropout=0.0),
    LSTM,
]
TranslationModel = Transformer | LSTMTranslation
Model = TypeVar("Model", bound=nn.Module)


def make(config: TransformerConfig | LSTMTranslationConfig) -> TranslationModel:
    model = Transformer(config) if isinstance(config, TransformerConfig) else LSTMTranslation(config)
    return scattered(model)


def scattered(model: Model) -> Model:
    """The model with weights that are all different and large enough to tell."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.3, generator=generator)
    return model.eval()


def tokens(rows: int, length: int, seed: int = 1) -> Tensor:
    return torch.randint(1, 23, (rows, length), generator=torch.Generator().manual_seed(seed))


def mask(*lengths: int) -> Tensor:
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


def test_base_and_big_have_the_papers_sizes() -> None:
    with torch.device("meta"):
        base, big = Transformer(TransformerConfig.base()), Transformer(TransformerConfig.big())
        theirs = nn.Transformer()
    count = sum(parameter.numel() for parameter in base.parameters())
    body = count - base.tokens.weight.numel()
    assert (count, body) == (63_082_496, 44_138_496)
    final_norms = 2 * 2 * 512
    assert sum(parameter.numel() for parameter in theirs.parameters()) == body + final_norms == 44_140_544
    of_attention = (
        "attention.inward.bias",
        "query.bias",
        "key_value.bias",
        "attention.outward.bias",
        "cross.outward.bias",
    )
    biases = sum(p.numel() for name, p in base.named_parameters() if name.endswith(of_attention))
    assert count - biases == 63_045_632
    assert sum(parameter.numel() for parameter in big.parameters()) == 214_245_376
    assert f"{noam_peak(base.config.width, 4000):.2e}" == "6.99e-04"


def torchs(model: Transformer) -> nn.Transformer:
    """torch's with the same weights, and no final norms where the paper has none."""
    config = model.config
    pre = config.norm == "pre"
    theirs = nn.Transformer(
        config.width, config.heads, config.layers, config.layers, 4 * config.width, 0.0, "relu",
        layer_norm_eps=config.norm_epsilon, batch_first=True, norm_first=pre,
    )  # fmt: skip
    if not pre:
        theirs.encoder.norm = theirs.decoder.norm = None
    names = {
        "attention.inward.": "self_attn.in_proj_", "attention.outward": "self_attn.out_proj",
        "attention_norm": "norm1", "cross_norm": "norm2", "feed_forward.inward": "linear1",
        "feed_forward.outward": "linear2", "cross.outward": "multihead_attn.out_proj",
    }  # fmt: skip
    state: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        side, _, rest = name.partition(".")
        if side in ("tokens", "positions") or "cross.query" in rest:
            continue
        if side.endswith("_norm"):
            state[f"{side.removesuffix('_norm')}.norm.{rest}"] = tensor
            continue
        if "cross.key_value." in rest:  # torch has queries, keys and values in one
            layer, part = rest.split(".")[0], rest.rsplit(".")[-1]
            query = model.state_dict()[f"decoder.{layer}.cross.query.{part}"]
            state[f"decoder.layers.{layer}.multihead_attn.in_proj_{part}"] = torch.cat([query, tensor])
            continue
        for ours, other in names.items():
            rest = rest.replace(ours, other)
        rest = rest.replace("feed_forward_norm", "norm2" if side == "encoder" else "norm3")
        state[f"{side}.layers.{rest}"] = tensor
    theirs.load_state_dict(state)
    return theirs.eval()


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_the_transformer_is_torchs_between_embeddings_and_output(norm: str) -> None:
    ours = scattered(Transformer(TransformerConfig(23, 16, 2, 2, 16, norm=norm, dropout=0.0)))  # type: ignore[arg-type]
    theirs = torchs(ours)
    source, target, valid = tokens(3, 6), tokens(3, 5, 2), mask(6, 4, 2)
    table = ours.tokens.weight
    places = ours.positions
    with torch.no_grad():
        found = theirs(
            table[source] * 4 + places[:6], table[target] * 4 + places[:5],
            tgt_mask=nn.Transformer.generate_square_subsequent_mask(5), tgt_is_causal=True,
            src_key_padding_mask=~valid, memory_key_padding_mask=~valid,
        )  # fmt: skip
        torch.testing.assert_close(ours(source, target, valid), found @ table.T, atol=1e-5, rtol=1e-5)


def test_the_transformer_is_marian_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    ours = scattered(Transformer(TINY))
    settings = transformers.MarianConfig(
        vocab_size=23, d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=16,
        activation_function="relu", scale_embedding=True, pad_token_id=0, dropout=0.0, decoder_start_token_id=0,
    )  # fmt: skip
    theirs = transformers.MarianMTModel(settings).eval()
    state = theirs.state_dict()
    for name, tensor in marians(ours).items():
        assert state[name].shape == tensor.shape
        state[name] = tensor
    for side in ("encoder", "decoder"):
        # Marian has sines first and cosines after them: another order of the same numbers.
        state[f"model.{side}.embed_positions.weight"] = ours.positions
    theirs.load_state_dict(state)
    for module in theirs.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = TINY.norm_epsilon
    source, target, valid = tokens(3, 6), tokens(3, 5, 2), mask(6, 4, 2)
    with torch.no_grad():
        found = theirs(input_ids=source, attention_mask=valid.long(), decoder_input_ids=target).logits
        torch.testing.assert_close(ours(source, target, valid), found, atol=1e-5, rtol=1e-5)


def marians(model: Transformer) -> dict[str, Tensor]:
    """Marian's names, and queries, keys and values apart."""
    names = {
        "attention.outward": "self_attn.out_proj", "cross.outward": "encoder_attn.out_proj",
        "cross.query": "encoder_attn.q_proj", "attention_norm": "self_attn_layer_norm",
        "cross_norm": "encoder_attn_layer_norm", "feed_forward.inward": "fc1", "feed_forward.outward": "fc2",
        "feed_forward_norm": "final_layer_norm",
    }  # fmt: skip
    tied = ("model.shared", "model.encoder.embed_tokens", "model.decoder.embed_tokens", "lm_head")
    state: dict[str, Tensor] = {f"{name}.weight": model.tokens.weight for name in tied}
    joined = {"attention.inward": ("self_attn", "qkv"), "cross.key_value": ("encoder_attn", "kv")}
    for name, tensor in model.state_dict().items():
        side, _, rest = name.partition(".")
        if side not in ("encoder", "decoder"):
            continue
        layer, _, rest = rest.partition(".")
        inner, _, part = rest.rpartition(".")
        prefix = f"model.{side}.layers.{layer}"
        if inner in joined:
            attention, letters = joined[inner]
            for letter, piece in zip(letters, tensor.chunk(len(letters)), strict=True):
                state[f"{prefix}.{attention}.{letter}_proj.{part}"] = piece
        else:
            state[f"{prefix}.{names[inner]}.{part}"] = tensor
    return state


@pytest.mark.parametrize("config", MODELS)
def test_padding_changes_nothing(config: TransformerConfig | LSTMTranslationConfig) -> None:
    model = make(config)
    source, target, valid = tokens(3, 6), tokens(3, 5, 2), mask(6, 4, 2)
    together = model(source, target, valid)
    for row, length in enumerate((6, 4, 2)):
        alone = model(source[row : row + 1, :length], target[row : row + 1, : 5 - row])
        torch.testing.assert_close(together[row, : 5 - row], alone[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("config", MODELS)
def test_the_decoder_never_sees_ahead_and_always_sees_the_source(
    config: TransformerConfig | LSTMTranslationConfig,
) -> None:
    model = make(config)
    source, target = tokens(1, 6), tokens(1, 5, 2)
    changed = target.clone()
    changed[0, 3] = changed[0, 3] % 22 + 1
    before, after = model(source, target), model(source, changed)
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.isclose(before[:, 3:], after[:, 3:]).all()
    other = source.clone()
    other[0, 5] = other[0, 5] % 22 + 1
    assert not torch.isclose(before[:, 0], model(other, target)[:, 0]).any()


@pytest.mark.parametrize("config", MODELS)
@torch.no_grad()
def test_decoding_step_by_step_is_the_whole_pass_for_unequal_sources_and_prompts(
    config: TransformerConfig | LSTMTranslationConfig,
) -> None:
    model = make(config)
    source, valid = tokens(3, 6), mask(6, 4, 2)
    target = tokens(3, 7, 2)
    lengths = (1, 3, 2)
    prompts, given = pad_left([target[row, :length].tolist() for row, length in enumerate(lengths)])
    bound: Decodable = model.bound(source, valid)
    whole = model(source, target, valid)
    logits, state = bound.begin(prompts, given, 3 + 4)
    for done in range(5):
        expected = torch.stack([whole[row, length + done - 1] for row, length in enumerate(lengths)])
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
        if done < 4:
            following = torch.stack([target[row, length + done] for row, length in enumerate(lengths)])
            logits = bound.step(following, state)


@pytest.mark.parametrize("config", MODELS)
@torch.no_grad()
def test_a_selected_state_goes_on_as_its_rows_would(config: TransformerConfig | LSTMTranslationConfig) -> None:
    model = make(config)
    bound: Decodable = model.bound(tokens(3, 6), mask(6, 4, 2))
    prompts, following = tokens(3, 2, 2), tokens(3, 1, 3)[:, 0]
    _, state = bound.begin(prompts, torch.ones_like(prompts, dtype=torch.bool), 4)
    for rows in ([2, 0, 0, 1], [0, 0], [2], [0, 1, 2]):
        order = torch.tensor(rows)
        chosen = bound.select(state, order)
        # The original must not change where its copy goes on.
        found = bound.step(following[order], chosen)
        again = bound.step(following, bound.select(state, torch.arange(3)))
        torch.testing.assert_close(found, again[order], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("config", MODELS)
@torch.no_grad()
def test_beam_search_with_all_hypotheses_finds_the_likeliest_translation(
    config: TransformerConfig | LSTMTranslationConfig,
) -> None:
    model = make(config)
    source, valid = tokens(2, 5), mask(5, 3)
    prompts = torch.ones(2, 1, dtype=torch.int64)
    settings = DecodingConfig(
        maximum_new_tokens=2, beams=23, stop_tokens=(2,), length_penalty=0.6, length_norm="gnmt", beam_stop="exact"
    )
    found = beam_search(model.bound(source, valid), prompts, None, settings)
    for row in range(2):
        # By hand: the end at once, or any token and then any.
        alone = source[row : row + 1, : 5 - 2 * row]
        every = torch.cat([torch.ones(23, 1, dtype=torch.int64), torch.arange(23)[:, None]], 1)
        log_probabilities = model(alone.expand(23, -1), every).log_softmax(-1)
        of_two = (log_probabilities[0, 0, :, None] + log_probabilities[:, 1]) / (7 / 6) ** 0.6
        of_two[2] = -torch.inf
        best = max(float(of_two.max()), float(log_probabilities[0, 0, 2] / (6 / 6) ** 0.6))
        assert float(found.scores[row, 0]) == pytest.approx(best, abs=1e-5)


def test_embeddings_begin_with_unit_variance_and_maps_as_glorots() -> None:
    torch.manual_seed(0)
    model = Transformer(TransformerConfig(500, 8, 1, 4, 128))
    embedded = model.tokens.weight * 128**0.5
    assert float(embedded.detach().std()) == pytest.approx(1, abs=0.02)
    bound = (6 / (128 + 128)) ** 0.5  # for each of queries, keys and values, not for the three together
    weights = dict(model.named_parameters())
    for name in ("encoder.0.attention.inward.weight", "decoder.0.cross.key_value.weight"):
        assert 0.98 * bound < float(weights[name].detach().abs().max()) <= bound


def test_an_lstm_of_a_transformers_size_is_within_a_percent_of_it() -> None:
    with torch.device("meta"):
        wanted = sum(p.numel() for p in Transformer(TransformerConfig(4_096, 128, 3, 4, 256)).parameters())
    config = LSTMTranslationConfig(4_096, 128, 2).sized(wanted)
    assert config.parameters() == pytest.approx(wanted, rel=0.01)
    for other in (config.width - 2, config.width + 2):
        difference = abs(LSTMTranslationConfig(4_096, 128, 2, other).parameters() - wanted)
        assert difference >= abs(config.parameters() - wanted)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(RllabError, match="3 heads do not divide a width of 16"):
        TransformerConfig(width=16, heads=3)
    with pytest.raises(RllabError, match="must be even"):
        LSTMTranslationConfig(width=7)
    for config in MODELS:
        model = make(config)
        with pytest.raises(RllabError, match="longer than the model's 16 positions"):
            model(tokens(1, 17), tokens(1, 3))
        with pytest.raises(RllabError, match="longer than the model's 16 positions"):
            model(tokens(1, 3), tokens(1, 17))
        bound = model.bound(tokens(2, 3))
        with pytest.raises(RllabError, match="3 prompts for 2 sources"):
            bound.begin(tokens(3, 1), torch.ones(3, 1, dtype=torch.bool), 4)
        with pytest.raises(RllabError, match="longer than the model's 16 positions"):
            bound.begin(tokens(2, 1), torch.ones(2, 1, dtype=torch.bool), 17)
