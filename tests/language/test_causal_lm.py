"""Causal models of `transformers`: equal to themselves, padded or not, as policies, and through folders."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_texts import PROMPTS, RESPONSE, collector, tokenizer

pytest.importorskip("transformers")

from tiny_transformers import KINDS, batch_of, causal_lm, folder_of, hugging_face

from envs.errors import RllabError
from language.decoding import DecodingConfig, generate, pad_left
from language.models.causal_lm import CausalLM
from language.models.folder import load_model, save_model
from language.models.gpt import GPT
from language.preferences.policy import TextPolicy, TextPolicyConfig
from language.preferences.text_models import text_model
from language.tokenizers.files import load_tokenizer
from language.tokenizers.pretrained import PretrainedTokenizer
from rllab.agents import PPO, TRPO, PPOConfig, Reinforce, ReinforceConfig, TRPOConfig

each_kind = pytest.mark.parametrize("kind", KINDS)
COMMON: dict[str, Any] = {"rollout_steps": RESPONSE, "discount": 1.0, "minibatch_size": 8 * RESPONSE}
IDS = [[3, 5, 4, 2, 9, 9, 1], [7], [2, 2, 9]]


@each_kind
def test_features_and_output_make_the_models_own_logits(kind: str) -> None:
    theirs, ours = hugging_face(kind), text_model(causal_lm(kind))
    tokens = torch.tensor([[3, 5, 4, 2, 9, 6, 7, 1]])
    features = ours.features(tokens, torch.ones_like(tokens, dtype=torch.bool), 3)
    expected = theirs(tokens).logits[:, 2:-1]
    torch.testing.assert_close(torch.nn.functional.linear(features, *ours.output()), expected)
    torch.testing.assert_close(causal_lm(kind)(tokens), theirs(tokens).logits)


@each_kind
def test_padding_changes_no_feature(kind: str) -> None:
    ours = text_model(causal_lm(kind))
    prompts, responses = [[3, 5, 4, 2], [7], [2, 2, 9]], [[4, 1], [5, 6, 7, 3, 1], [8]]
    tokens, valid = torch.full((3, 9), 8), torch.zeros(3, 9, dtype=torch.bool)
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        tokens[row, 4 - len(prompt) : 4 + len(response)] = torch.tensor(prompt + response)
        valid[row, 4 - len(prompt) : 4 + len(response)] = True
    together = ours.features(tokens, valid, 4)
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        alone = torch.tensor([prompt + response])
        expected = ours.features(alone, torch.ones_like(alone, dtype=torch.bool), len(prompt))
        torch.testing.assert_close(together[row, : len(response)], expected[0])


@each_kind
def test_greedy_continuations_of_unequal_prompts_are_those_of_transformers_for_each_alone(kind: str) -> None:
    theirs, ours = hugging_face(kind), causal_lm(kind)
    tokens, valid = pad_left(IDS)
    together = generate(ours, tokens, valid, DecodingConfig(10, temperature=0.0))
    for row, prompt in enumerate(IDS):
        expected = theirs.generate(
            torch.tensor([prompt]), max_new_tokens=10, do_sample=False, eos_token_id=-1, pad_token_id=0
        )[0, len(prompt) :]
        alone = generate(ours, torch.tensor([prompt]), None, DecodingConfig(10, temperature=0.0))
        assert together.tokens[row].tolist() == alone.tokens[0].tolist() == expected.tolist()


@each_kind
def test_the_ratio_is_1_on_the_first_minibatch(kind: str) -> None:
    policy = TextPolicy(causal_lm(kind), tokenizer=tokenizer())
    batch = batch_of(collector(16).collect(policy))
    difference = (policy.evaluate(batch, parameters=False).log_prob - batch.log_probs)[batch.valid]
    assert float(difference.abs().max()) < 3e-6  # float32's rounding of log-probabilities up to 10


@each_kind
def test_every_agent_moves_the_policy_and_not_the_reference(kind: str) -> None:
    agents = (
        (PPO, PPOConfig(**COMMON, learning_rate=1e-3)), (TRPO, TRPOConfig(**COMMON)),
        (Reinforce, ReinforceConfig(**COMMON, learning_rate=1e-3)),
    )  # fmt: skip
    for agent, config in agents:
        policy = TextPolicy(causal_lm(kind), tokenizer=tokenizer())
        before = policy.flat.detach().clone()
        texts = collector(32)
        metrics = agent(policy, config, 0).update(texts.collect(policy), 1.0)  # type: ignore[operator]
        assert not torch.equal(before, policy.flat)
        kept = dict(policy.reference.text.module.named_parameters())
        for name, parameter in causal_lm(kind).named_parameters():
            torch.testing.assert_close(kept[name], parameter, rtol=0, atol=0)
        if agent is TRPO:
            assert 0 < metrics["kl"] <= config.max_kl  # type: ignore[attr-defined]


@each_kind
def test_frozen_layers_are_the_same_tensors_in_policy_reference_and_critic(kind: str) -> None:
    policy = TextPolicy(causal_lm(kind), TextPolicyConfig(frozen_layers=1), tokenizer=tokenizer())
    critic = policy.module.critic
    assert critic is not None
    modules = (policy.text.module, policy.reference.text.module, critic)
    lower = [{p.data_ptr() for p in text_model(module).lower(1)} for module in modules]
    assert lower[0] == lower[1] == lower[2]
    assert len(lower[0]) > 1
    with pytest.raises(RllabError, match="the model has 2 layers"):
        TextPolicy(causal_lm(kind), TextPolicyConfig(frozen_layers=3), tokenizer=tokenizer())


def test_a_folder_of_transformers_is_a_model_with_its_tokenizer(tmp_path: Path) -> None:
    model, found = load_model(folder_of(tmp_path))
    assert isinstance(model, CausalLM)
    assert found.special.end == "<end>"
    texts = ["dead beef", "", "a<end>b", "xyz"]
    assert found.encode_batch(texts) == tokenizer().encode_batch(texts) == [found.ids(text) for text in texts]
    assert found.decode(found.ids("dead beef")) == "dead beef"


def test_a_folder_of_gpt_2_is_a_gpt(tmp_path: Path) -> None:
    model, _ = load_model(folder_of(tmp_path, "gpt2"))
    assert isinstance(model, GPT)
    tokens = torch.tensor([IDS[0]])
    torch.testing.assert_close(model(tokens), hugging_face("gpt2")(tokens).logits)


@each_kind
def test_what_is_saved_can_be_loaded_here_and_by_transformers(kind: str, tmp_path: Path) -> None:
    import transformers

    model = causal_lm(kind)
    save_model(tmp_path, model, PretrainedTokenizer.of(folder_of(tmp_path / "given", kind)))
    tokens = torch.tensor([IDS[0]])
    ours, texts = load_model(tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(ours(tokens), model(tokens), rtol=0, atol=0)
    torch.testing.assert_close(theirs(tokens).logits, model(tokens))
    encoder = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert encoder("dead beef")["input_ids"] == texts.ids("dead beef") == tokenizer().ids("dead beef")
    assert encoder.eos_token == "<end>"


def test_what_begins_every_text_begins_prompts_once(tmp_path: Path) -> None:
    document = tokenizer().to_huggingface()
    document["post_processor"] = {
        "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<end>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<end>": {"id": "<end>", "ids": [1], "tokens": ["<end>"]}},
    }  # fmt: skip
    letters = PretrainedTokenizer(document, {"bos_token": "<end>"})
    text = text_model(causal_lm(), letters)
    plain = tokenizer().ids("cab")
    assert letters.ids("cab") == plain
    assert text.prompt(plain) == [1, *plain] == text.prompt([1, *plain])


def test_ids_that_only_the_model_has_are_tokens_without_text(tmp_path: Path) -> None:
    letters = PretrainedTokenizer(tokenizer().to_huggingface(), {"eos_token": "<end>"}, size=16)
    assert len(letters) == 16
    assert letters.decode([*letters.ids("face"), 15]) == "face"
    letters.save(tmp_path)
    assert load_tokenizer(tmp_path).vocabulary == letters.vocabulary
    with pytest.raises(RllabError, match="The tokenizer has 11 tokens and the model 8"):
        PretrainedTokenizer(tokenizer().to_huggingface(), size=8)


def test_what_cannot_be_loaded_is_said_in_one_sentence(tmp_path: Path) -> None:
    (folder_of(tmp_path) / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(RllabError, match="transformers cannot load a causal language model from"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "no such kind"}))
    with pytest.raises(RllabError, match="cannot load"):
        load_model(tmp_path)
    (folder_of(tmp_path) / "tokenizer.json").unlink()
    with pytest.raises(RllabError, match=r"tokenizer\.json is missing"):
        load_model(tmp_path)


def test_a_model_that_cuts_its_logits_is_refused() -> None:
    import transformers

    config = transformers.Gemma2Config(
        vocab_size=11, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, max_position_embeddings=32, final_logit_softcapping=0.5, initializer_range=0.5,
    )  # fmt: skip
    with pytest.raises(RllabError, match="scales or cuts its logits"):
        CausalLM.of(transformers.AutoModelForCausalLM.from_config(config))


def test_prompts_of_the_collector_fit(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    model, letters = load_model(folder)
    assert [letters.ids(prompt) for prompt in PROMPTS] == [tokenizer().ids(prompt) for prompt in PROMPTS]
    assert text_model(model, letters).context == 32
