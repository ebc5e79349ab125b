"""Adapters: they begin as nothing, alone learn, share what is frozen, go on exactly, and can be taken elsewhere."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_preferences import model_folder, records, written
from tiny_texts import PROMPTS, RESPONSE, collector, tokenizer

pytest.importorskip("transformers")
pytest.importorskip("peft")

from tiny_transformers import KINDS, batch_of, causal_lm, folder_of, hugging_face

from envs.errors import RllabError
from language.cli.direct import command as direct
from language.cli.sft import command as sft
from language.cli.tune import command as tune_command
from language.models.causal_lm import CausalLM
from language.models.folder import load_model, save_model
from language.models.lora import LoRAConfig
from language.preferences.lora import load_adapted
from language.preferences.policy import TextPolicy, TextPolicyConfig, ValueHead
from language.preferences.tune import resume
from language.tokenizers.pretrained import PretrainedTokenizer
from rllab.agents import PPO, TRPO, PPOConfig, Reinforce, ReinforceConfig, TRPOConfig
from rllab.experiment import resume as resume_run
from rllab.runs import Run

each_kind = pytest.mark.parametrize("kind", KINDS)
LORA = LoRAConfig(2)
COMMON: dict[str, Any] = {"rollout_steps": RESPONSE, "discount": 1.0, "minibatch_size": 8 * RESPONSE}
AGENTS: tuple[tuple[Any, Any], ...] = (
    (PPO, PPOConfig(**COMMON, learning_rate=1e-2)), (TRPO, TRPOConfig(**COMMON)),
    (Reinforce, ReinforceConfig(**COMMON, learning_rate=1e-2)),
)  # fmt: skip
TOKENS = torch.tensor([[3, 5, 4, 2, 9, 6, 7, 1]])


def adapted_policy(kind: str = "llama", value_head: ValueHead = "separate") -> TextPolicy:
    model = causal_lm(kind).adapted(LORA)
    return TextPolicy(model, TextPolicyConfig(value_head), tokenizer=tokenizer())


def moved(policy: TextPolicy, by: float = 0.3) -> CausalLM:
    """A policy's model whose adapters are not nothing any more."""
    torch.manual_seed(1)
    with torch.no_grad():
        policy.flat.add_(torch.randn_like(policy.flat), alpha=by)
    module = policy.text.module
    assert isinstance(module, CausalLM)
    return module


def own(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """The weights that are no adapters'."""
    return ((name, p) for name, p in module.named_parameters() if "lora_" not in name)


@each_kind
def test_new_adapters_change_nothing(kind: str) -> None:
    torch.testing.assert_close(
        causal_lm(kind).adapted(LORA)(TOKENS), hugging_face(kind)(TOKENS).logits, rtol=1e-5, atol=1e-5
    )


@each_kind
def test_the_ratio_is_1_on_the_first_minibatch(kind: str) -> None:
    policy = adapted_policy(kind)
    moved(policy, 0.1)
    batch = batch_of(collector(16).collect(policy))
    difference = (policy.evaluate(batch, parameters=False).log_prob - batch.log_probs)[batch.valid]
    assert float(difference.abs().max()) < 3e-6  # float32's rounding of log-probabilities up to 10


@each_kind
@pytest.mark.parametrize(("agent", "config"), AGENTS, ids=["ppo", "trpo", "reinforce"])
def test_adapters_and_value_head_alone_learn_by_every_agent(kind: str, agent: Any, config: Any) -> None:
    policy = adapted_policy(kind)
    before = {name: p.detach().clone() for name, p in policy.module.named_parameters()}
    agent(policy, config, 0).update(collector(32).collect(policy), 1.0)
    changed = {name for name, p in policy.module.named_parameters() if not torch.equal(p, before[name])}
    assert changed
    assert all("lora_" in name or name.startswith("value.") for name in changed)
    assert any(name.startswith("model.") for name in changed)
    expected, kept = hugging_face(kind)(TOKENS).logits, policy.reference.text.module(TOKENS)
    torch.testing.assert_close(kept, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(policy.text.module(TOKENS), expected, atol=1e-6)


def test_a_trust_region_is_kept_with_adapters() -> None:
    policy = adapted_policy()
    moved(policy)
    config = TRPOConfig(**COMMON)
    metrics = TRPO(policy, config, 0).update(collector(32).collect(policy), 1.0)
    assert 0 < metrics["kl"] <= config.max_kl


@each_kind
def test_fisher_products_through_adapters_are_those_of_the_explicit_matrix(kind: str) -> None:
    policy = adapted_policy(kind, "none")
    moved(policy)
    batch = batch_of(collector(3).collect(policy))
    product, rows = policy.fisher(batch), []
    with torch.enable_grad(), torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        logits = policy.module(batch, critic=False)[0][batch.valid]
        for logit in logits.flatten():
            pieces = torch.autograd.grad(logit, policy._actor, retain_graph=True)
            rows.append(torch.cat([piece.flatten() for piece in pieces]))
    jacobian = torch.stack(rows).view(*logits.shape, -1)
    p = logits.detach().softmax(-1)
    of_logits = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    fisher = torch.einsum("svi,svw,swj->ij", jacobian, of_logits, jacobian) / len(p)
    vector = torch.randn(policy.actor_size, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(product(vector), fisher @ vector, rtol=1e-3, atol=1e-4)


@each_kind
@pytest.mark.parametrize("value_head", ["separate", "shared"])
def test_what_is_frozen_is_the_same_memory_in_policy_reference_and_critic(kind: str, value_head: ValueHead) -> None:
    policy = adapted_policy(kind, value_head)
    modules = [policy.text.module, policy.reference.text.module]
    modules += [policy.module.critic] if policy.module.critic is not None else []
    assert len(modules) == (3 if value_head == "separate" else 2)
    first, *others = ({p.data_ptr() for _, p in own(module)} for module in modules)
    assert all(other == first for other in others)
    assert not any("lora_" in name for name, _ in policy.reference.text.module.named_parameters())


def test_a_policys_state_has_no_frozen_weights_and_restores_it() -> None:
    policy, other = adapted_policy(), adapted_policy()
    moved(policy)
    state = policy.state_dict()
    assert all("lora_" in name or name.startswith("value.") for name in state["weights"])
    other.load_state_dict(state)
    torch.testing.assert_close(other.flat, policy.flat, rtol=0, atol=0)


@each_kind
def test_adapters_and_merged_weights_give_the_same_logits_elsewhere(kind: str, tmp_path: Path) -> None:
    import peft
    import transformers

    model = moved(adapted_policy(kind))
    expected = model(TOKENS)
    save_model(tmp_path / "tuned", model, PretrainedTokenizer.of(folder_of(tmp_path / "base", kind)))
    torch.testing.assert_close(model(TOKENS), expected, rtol=0, atol=0)
    close: dict[str, float] = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(load_model(tmp_path / "tuned")[0](TOKENS), expected, **close)
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "tuned")
    torch.testing.assert_close(merged(TOKENS).logits, expected, **close)
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    with_adapters = peft.PeftModel.from_pretrained(base, tmp_path / "tuned" / "adapter")
    torch.testing.assert_close(with_adapters(TOKENS).logits, expected, **close)


def arguments(folder: Path, out: Path, *more: str) -> list[str]:
    (folder / "prompts.txt").write_text("\n".join([*PROMPTS, "gab", "hh", "fed a", "bade"]) + "\n")
    return [
        str(folder), "--reward", "python:tiny_texts:share_of_a", "--prompts", str(folder / "prompts.txt"),
        "--prompt-tokens", "0", "--maximum-new-tokens", str(RESPONSE), "--responses", "8", "--minibatch-responses", "4",
        "--evaluation-every", "100", "--checkpoint-every", "60", "--no-tensorboard", "--lora-rank", "2", "--quiet",
        "--out", str(out), *more,
    ]  # fmt: skip


def test_tuning_leaves_what_transformers_reads(tmp_path: Path) -> None:
    import transformers

    base = folder_of(tmp_path / "base")
    assert tune_command(arguments(base, tmp_path / "whole", "--steps", "240")) == 0
    again = resume(tmp_path / "whole", quiet=True)
    whole = load_model(tmp_path / "whole")[0](TOKENS)
    torch.testing.assert_close(again.policy.text.module(TOKENS), whole, rtol=1e-4, atol=1e-4)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "whole" / "model")
    torch.testing.assert_close(theirs(TOKENS).logits, whole)
    assert (tmp_path / "whole" / "model" / "adapter" / "adapter_model.safetensors").is_file()
    reference = load_model(tmp_path / "whole" / "reference")[0]
    torch.testing.assert_close(reference(TOKENS), hugging_face()(TOKENS).logits)


def test_an_interrupted_tuning_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    import shutil

    base = folder_of(tmp_path / "base")
    assert tune_command(arguments(base, tmp_path / "whole", "--steps", "240", "--keep-checkpoints", "0")) == 0
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    checkpoints = Run.open(tmp_path / "cut").checkpoints
    steps = checkpoints.steps()
    assert len(steps) >= 3
    for step in steps[1:]:
        shutil.rmtree(checkpoints.folder / str(step))
    ended = resume(tmp_path / "cut", quiet=True)
    expected = resume(tmp_path / "whole", quiet=True)
    torch.testing.assert_close(ended.policy.flat, expected.policy.flat, rtol=0, atol=0)


def test_direct_methods_and_demonstrations_teach_adapters(tmp_path: Path) -> None:
    base, pairs = folder_of(tmp_path / "base"), written(tmp_path / "pairs.jsonl", records())
    common = ["--lora-rank", "2", "--lora-targets", "all-linear", "--batch-size", "8", "--steps", "30", "--no-tensorboard", "--quiet"]  # fmt: skip
    assert direct([str(base), str(pairs), "--out", str(tmp_path / "dpo"), *common, "--learning-rate", "1e-2", "--kl-responses", "4", "--kl-tokens", "6"]) == 0  # fmt: skip
    rows = Run.open(tmp_path / "dpo").read_metrics()
    assert rows[0]["loss"] == pytest.approx(0.6931, abs=1e-3)
    assert rows[-1]["evaluation/accuracy"] > 0.9
    texts = written(
        tmp_path / "texts.jsonl", [{"prompt": row["prompt"], "completion": row["chosen"]} for row in records()]
    )
    assert sft([str(base), str(texts), "--out", str(tmp_path / "sft"), *common, "--learning-rate", "1e-2"]) == 0
    for name in ("dpo", "sft"):
        assert (tmp_path / name / "model" / "adapter" / "adapter_config.json").is_file()
        tuned = load_model(tmp_path / name)[0]
        assert not torch.allclose(tuned(TOKENS), hugging_face()(TOKENS).logits, atol=1e-3)
    document = json.loads((tmp_path / "dpo" / "config.json").read_text())
    assert document["lora"]["lora_rank"] == 2


@pytest.mark.parametrize("kind", ["direct", "sft"])
def test_adapters_that_are_gone_on_with_end_as_those_taught_without_a_break(kind: str, tmp_path: Path) -> None:
    base, pairs = folder_of(tmp_path / "base"), written(tmp_path / "pairs.jsonl", records())
    more = ["--kl-responses", "4", "--kl-tokens", "6"] if kind == "direct" else ["--lora-dropout", "0.2"]
    common = [
        str(base), str(pairs), "--lora-rank", "2", "--batch-size", "8", "--learning-rate", "1e-2", "--schedule", "constant",
        "--warmup", "0", "--checkpoint-every", "2", "--no-tensorboard", "--quiet", *more,
    ]  # fmt: skip
    command = direct if kind == "direct" else sft
    assert command([*common, "--steps", "3", "--out", str(tmp_path / "short")]) == 0
    resume_run(tmp_path / "short", steps=6, quiet=True)
    assert command([*common, "--steps", "6", "--out", str(tmp_path / "long")]) == 0
    found, expected = (load_model(tmp_path / name)[0].state_dict() for name in ("short", "long"))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_bad_adapters_are_refused_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RllabError, match="there are down_proj, gate_proj, k_proj"):
        causal_lm().adapted(LoRAConfig(2, lora_targets=("nothing",)))
    with pytest.raises(RllabError, match="adapters are for models of transformers"):
        load_adapted(model_folder(tmp_path), LORA)
    with pytest.raises(RllabError, match="add --lora-rank"):
        LoRAConfig(lora_targets=("q_proj",))
    with pytest.raises(RllabError, match="has adapters already"):
        causal_lm().adapted(LORA).adapted(LORA)
