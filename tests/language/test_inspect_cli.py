"""`rllab language inspect`: the papers' sizes, where models look, what experts get."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from envs.errors import RllabError
from language.cli.inspect import command
from language.data.blocks import write_token_file
from language.models.attention_maps import recorded_attention
from language.models.attention_plot import plot_attention
from language.models.bert import BERTConfig, BERTForPretraining
from language.models.folder import save_model
from language.models.gpt import GPT, GPTConfig
from language.models.huggingface import save_bert, save_gpt
from language.models.mixture_of_experts import MixtureConfig, MixtureOfExperts
from language.models.moe_lstm import MoELSTM, MoELSTMConfig
from language.models.papers import PAPERS
from language.models.sizes import Part, parameter_count, parts
from language.models.transformer import Transformer, TransformerConfig
from language.tasks.attention import attention_of_text
from language.tokenizers.byte_bpe import ByteLevelBPE, ByteLevelBPEConfig
from language.tokenizers.special import SpecialTokens
from language.tokenizers.tokenizer import Tokenizer
from language.tokenizers.wordpiece import WordPiece, WordPieceConfig

TEXTS = ["I love New York", "the film was good", "the plot was bad", "it costs $5"] * 3


def words() -> Tokenizer:
    return WordPiece.train(TEXTS, WordPieceConfig(80))


def pieces() -> Tokenizer:
    return ByteLevelBPE.train(TEXTS, ByteLevelBPEConfig(290, special=SpecialTokens(begin="<s>", end="</s>")))


def gpt(size: int) -> GPT:
    return GPT(GPTConfig(size, 32, 3, 2, 8, norm="pre", initial_std=0.5)).eval()


def bert(size: int) -> BERTForPretraining:
    return BERTForPretraining(BERTConfig(size, 32, 3, 2, 8, initial_std=0.5)).eval()


def transformer(size: int) -> Transformer:
    return Transformer(TransformerConfig(size, 32, 2, 2, 8)).eval()


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("transformer-base", {"parameters": 63_082_496, "bytes_fp32": 252_329_984}),
        ("transformer-big", {"parameters": 214_245_376}),
        ("gpt-1", {"parameters": 116_534_784}),
        ("gpt-2", {"parameters": 124_439_808}),
        ("gpt-2-medium", {"parameters": 354_823_168}),
        ("gpt-2-large", {"parameters": 774_030_080}),
        ("gpt-2-xl", {"parameters": 1_557_611_200}),
        ("bert-base", {"parameters": 109_482_240, "parameters_with_heads": 110_106_428}),
        ("bert-large", {"parameters": 335_141_888}),
        ("awd-lstm", {"parameters": 24_221_600}),
        ("awd-lstm-wikitext-2", {"parameters": 33_556_078}),
        ("elmo", {"parameters": 93_600_864}),
    ],
)
def test_a_papers_model_has_the_published_size(
    name: str, facts: dict[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command([name, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert facts.items() <= document.items()
    assert sum(part["parameters"] for part in document["parts"].values()) == document["parameters"]


def test_the_parts_that_papers_count_by_themselves_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    def shown(name: str) -> dict[str, int]:
        command([name, "--json"])
        found = json.loads(capsys.readouterr().out)["parts"]
        return {part: sizes["parameters"] for part, sizes in found.items()}

    assert sum(size for part, size in shown("transformer-base").items() if part != "tokens") == 44_138_496
    assert shown("awd-lstm")["encoder.lstms"] == 20_211_600
    elmo = shown("elmo")
    assert sum(size for part, size in elmo.items() if part.startswith("words.")) == 18_037_856
    assert elmo["forward_lstms"] + elmo["backward_lstms"] == 75_563_008
    assert shown("moe-32")["mixture.experts"] == 32 * 1_048_576


def test_papers_models_are_made_without_memory() -> None:
    model = PAPERS["gpt-2-xl"].build()
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


def test_layers_of_a_stack_are_one_part() -> None:
    model = nn.Module()
    model.layers = nn.ModuleList(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)) for _ in range(4))
    model.out = nn.Linear(2, 1, bias=False)
    model.scale = nn.Parameter(torch.ones(5))
    assert parts(model) == {"scale": Part(5), "layers": Part(4 * 17, 4), "out": Part(2)}
    assert parameter_count(model) == 75


def test_a_table_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["bert-base"]) == 0
    printed = capsys.readouterr().out
    for said in ("109,482,240", "110,106,428", "437.9 MB", "blocks.feed_forward", "30,522", "Devlin"):
        assert said in printed


def recorded(model: nn.Module, *given: Any) -> list[Tensor]:
    with torch.no_grad(), recorded_attention(model) as weights:
        model(*given)
    return list(weights.values())


def test_weights_of_attention_sum_to_1_and_a_gpt_looks_at_no_later_token() -> None:
    torch.manual_seed(0)
    tokens = torch.randint(20, (2, 6))
    valid = torch.arange(6) >= torch.tensor([[0], [2]])
    for weights in (recorded(gpt(20), tokens), recorded(gpt(20), tokens, valid)):
        assert len(weights) == 3
        for layer in weights:
            assert layer.shape == (2, 2, 6, 6)
            torch.testing.assert_close(layer.sum(-1), torch.ones(2, 2, 6))
            assert torch.equal(layer, layer.tril())
    assert float(weights[0][1, :, 2:, :2].max()) == 0  # padding is not looked at


def test_weights_give_what_the_fused_attention_gives() -> None:
    torch.manual_seed(0)
    model, tokens = gpt(20), torch.randint(20, (2, 6))
    attention: Any = model.blocks[0].attention
    seen: list[tuple[Tensor, Tensor]] = []
    hook = attention.register_forward_hook(lambda _, given, output: seen.append((given[0], output)))
    weights = recorded(model, tokens)[0]
    hook.remove()
    x, output = seen[0]
    mixed = weights @ attention.queries_keys_values(x)[2]
    torch.testing.assert_close(attention.outward(mixed.transpose(1, 2).reshape(x.shape)), output)


def test_nothing_is_recorded_after_the_context_and_nothing_of_a_cached_run() -> None:
    model, tokens = gpt(20), torch.tensor([[1, 2, 3]])
    with torch.no_grad(), recorded_attention(model) as weights:
        model.begin(tokens, torch.ones_like(tokens, dtype=torch.bool), 5)
    model(tokens)
    assert weights == {}
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_gpts_and_berts_weights_are_those_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    tokens = torch.randint(20, (2, 6))
    model, other = gpt(20), bert(20)
    save_gpt(model, tmp_path / "gpt")
    save_bert(other, tmp_path / "bert")
    for ours, peer, name in ((model, "GPT2LMHeadModel", "gpt"), (other, "BertForPreTraining", "bert")):
        theirs = getattr(transformers, peer).from_pretrained(tmp_path / name, attn_implementation="eager").eval()
        with torch.no_grad():
            expected = theirs(tokens, output_attentions=True).attentions
        for one, two in zip(recorded(ours, tokens), expected, strict=True):
            torch.testing.assert_close(one, two, atol=1e-5, rtol=0)


def test_a_transformer_shows_its_encoder_decoder_and_what_is_between() -> None:
    torch.manual_seed(0)
    tokenizer = pieces()
    model = transformer(len(tokenizer))
    [alone] = attention_of_text(model, tokenizer, "the film")
    encoder, decoder, cross = attention_of_text(model, tokenizer, "the film", "it was")
    torch.testing.assert_close(alone.weights, encoder.weights)
    assert encoder.queries == encoder.keys == cross.keys
    assert encoder.keys[-1] == "</s>"
    assert decoder.queries[0] == "<s>"
    assert decoder.queries == cross.queries
    sources, targets = len(encoder.keys), len(decoder.keys)
    assert cross.weights.shape == (2, 2, targets, sources)
    assert torch.equal(decoder.weights, decoder.weights.tril())
    for found in (encoder, decoder, cross):
        torch.testing.assert_close(found.weights.sum(-1), torch.ones(found.weights.shape[:-1]))


def test_tokens_are_shown_as_they_can_be_read() -> None:
    tokenizer, other = pieces(), words()
    [found] = attention_of_text(gpt(len(tokenizer)), tokenizer, "the film ☃")
    assert "".join(found.queries[:-3]).replace("␣", " ") == "the film "
    assert found.queries[-3:] == tokenizer.encode("☃").tokens  # bytes that are no character
    [marked] = attention_of_text(bert(len(other)), other, "the film", "was good")
    assert (marked.keys[0], marked.keys[-1], marked.keys.count("[SEP]")) == ("[CLS]", "[SEP]", 2)


@pytest.mark.parametrize("kind", ["gpt", "bert", "transformer"])
def test_a_trained_model_is_described_and_its_attention_drawn(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = words() if kind == "bert" else pieces()
    model = {"gpt": gpt, "bert": bert, "transformer": transformer}[kind](len(tokenizer))
    save_model(tmp_path / "model", model, tokenizer)
    picture = tmp_path / "maps.png"
    target = ["--target", "it costs $5"] if kind != "gpt" else []
    arguments = [str(tmp_path / "model"), "--text", "the film", "--attention", str(picture), *target]
    assert command([*arguments, "--layers", "1", "--heads", "0", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["kind"] == kind
    assert document["parameters"] == parameter_count(model)
    assert document["tokenizer"]["tokens"] == len(tokenizer) == document["configuration"]["vocabulary_size"]
    assert len(document["pictures"]) == (3 if kind == "transformer" else 1)
    for path in document["pictures"]:
        assert Path(path).read_bytes().startswith(b"\x89PNG")


def test_a_picture_has_a_panel_for_each_head_of_each_layer(tmp_path: Path) -> None:
    plt = pytest.importorskip("matplotlib.image")
    weights = torch.zeros(2, 3, 4, 4)
    weights[1, 2] = torch.eye(4)
    tokens = ["a", "$b$", "_c", "d"]
    some, whole = (
        plt.imread(plot_attention(weights, tokens, tokens, tmp_path / f"{name}.png", layers=layers))
        for name, layers in (("some", [0]), ("whole", None))
    )
    assert whole.shape[0] > some.shape[0]
    assert abs(whole.shape[1] - some.shape[1]) < 5

    def dark(picture: Any) -> int:  # the colour of weight 1
        return int(((picture[..., 2] > 0.38) & (picture[..., 0] < 0.05)).sum())

    assert dark(whole) > dark(some) + 1000  # that in the bar at the right is in both


def test_the_last_evaluation_of_a_run_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from language.cli.main import command as language

    (tmp_path / "texts.txt").write_text("\n".join(f"{text} {number}" for number in range(40) for text in TEXTS))
    language([
        "pretrain", "gpt", str(tmp_path / "texts.txt"), "--out", str(tmp_path / "run"), "--quiet", "--layers", "1",
        "--heads", "2", "--width", "16", "--context", "32", "--length", "16", "--vocabulary-size", "300",
        "--batch-size", "4", "--steps", "4", "--warmup", "2", "--evaluation-every", "2", "--checkpoint-every", "2",
    ])  # fmt: skip
    capsys.readouterr()
    assert command([str(tmp_path / "run"), "--json"]) == 0
    training = json.loads(capsys.readouterr().out)["training"]
    assert training["steps"] == training["last_evaluation"]["steps"] == 4
    assert training["last_evaluation"]["perplexity"] > 1
    assert command([str(tmp_path / "run")]) == 0
    assert "(after 4 steps)" in capsys.readouterr().out


def test_experts_and_their_tokens_are_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = pieces()
    torch.manual_seed(0)
    model = MoELSTM(MoELSTMConfig(vocabulary_size=len(tokenizer), width=8, feed_forward_width=8, experts=4, k=1)).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    save_model(tmp_path / "model", model, tokenizer)
    text = "the film was good the film was bad"
    assert command([str(tmp_path), "--text", text, "--json"]) == 0
    experts = json.loads(capsys.readouterr().out)["experts"]
    assert [row["expert"] for row in experts] == [0, 1, 2, 3]
    assert sum(row["share"] for row in experts) == pytest.approx(1)
    told = {token for row in experts for token in row["tokens"]}
    assert told
    assert told <= {tokenizer.decode([token]) for token in tokenizer.ids(text)}
    write_token_file(tmp_path / "tokens" / "validation.npy", [tokenizer.ids(" ".join(TEXTS * 10))], len(tokenizer))
    assert command([str(tmp_path)]) == 0
    assert "Gets more often" in (printed := capsys.readouterr().out)
    assert "␣" in printed


def test_attention_around_experts_is_shown_too() -> None:
    tokenizer = pieces()
    config = GPTConfig(len(tokenizer), 32, 2, 2, 8)
    experts = MixtureOfExperts(MixtureConfig(8, 8, 4, 2))
    [found] = attention_of_text(GPT(config, {1: experts}).eval(), tokenizer, "the film")
    assert found.weights.shape[:2] == (2, 2)


def test_what_cannot_be_shown_is_one_sentence(tmp_path: Path) -> None:
    tokenizer = pieces()
    save_model(tmp_path / "gpt", gpt(len(tokenizer)), tokenizer)
    out = str(tmp_path / "maps.png")
    cases = {
        "did you mean gpt-2": ["gpt2"],
        "give a run": ["runs/nothing"],
        "has no weights to read": ["gpt-1", "--text", "a"],
        "give one with --text": [str(tmp_path / "gpt"), "--attention", out],
        "reads one text": [str(tmp_path / "gpt"), "--attention", out, "--text", "a", "--target", "b"],
        "no layer 3; they go from 0 to 2": [
            str(tmp_path / "gpt"), "--attention", out, "--text", "a", "--layers", "3",
        ],
        "no tokens": [str(tmp_path / "gpt"), "--attention", out, "--text", ""],
        "known format": [str(tmp_path / "gpt"), "--attention", str(tmp_path / "maps.txt"), "--text", "a"],
        "holds no trained model": [str(tmp_path)],
    }  # fmt: skip
    for said, arguments in cases.items():
        with pytest.raises(RllabError, match=said.replace("(", r"\(")):
            command(arguments)
    lstm = MoELSTM(MoELSTMConfig(vocabulary_size=len(tokenizer), width=8, feed_forward_width=8, experts=4, k=2))
    with pytest.raises(RllabError, match="MoELSTM has no attention"):
        attention_of_text(lstm, tokenizer, "a")
    with pytest.raises(RllabError, match="no head 5"):
        plot_attention(torch.ones(1, 2, 1, 1), ["a"], ["a"], out, heads=[5])
