"""TRL's side of `text_tuning.py`, for `peer_process`: PPO (TRL 1.12, the last release that had it) and GRPO steps."""

import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel, PreTrainedTokenizerFast


def tokenizer_of(vocabulary: int) -> Any:
    """Words t0, t1, … with an end token that also pads."""
    words = {f"t{number}": number for number in range(vocabulary - 1)} | {"<end>": vocabulary - 1}
    raw = Tokenizer(models.WordLevel(words, unk_token="t0"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<end>", pad_token="<end>", unk_token="t0")
    made.padding_side = "left"
    return made


def config_of(task: dict[str, Any]) -> GPT2Config:
    """The size of all models."""
    return GPT2Config(
        vocab_size=task["vocabulary"], n_positions=task["context"], n_embd=task["width"], n_layer=task["layers"],
        n_head=task["heads"], resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, num_labels=1,
        bos_token_id=task["vocabulary"] - 1, eos_token_id=task["vocabulary"] - 1, pad_token_id=task["vocabulary"] - 1,
    )  # fmt: skip


def common(task: dict[str, Any], folder: str) -> dict[str, Any]:
    """Arguments of every trainer: nothing is saved or reported, and nothing runs in another precision."""
    return {
        "output_dir": folder, "report_to": [], "save_strategy": "no", "logging_strategy": "no", "use_cpu": True,
        "bf16": False, "gradient_checkpointing": False, "disable_tqdm": True, "learning_rate": 1e-5,
        "per_device_train_batch_size": task["responses"], "gradient_accumulation_steps": 1,
        "dataloader_pin_memory": False, "seed": 0,
    }  # fmt: skip


def ppo(task: dict[str, Any], folder: str) -> Any:
    """A trainer of so many updates."""
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    words, config = tokenizer_of(task["vocabulary"]), config_of(task)
    chosen = random.Random(0)
    rows = [
        [chosen.randrange(task["vocabulary"] - 1) for _ in range(chosen.randint(*task["prompt"]))]
        for _ in range(task["responses"] * task["updates"])
    ]
    arguments = PPOConfig(
        **common(task, folder), num_ppo_epochs=task["epochs"], num_mini_batches=1,
        total_episodes=task["responses"] * task["updates"], response_length=task["new"], temperature=1.0,
        num_sample_generations=0, kl_coef=0.05,
    )  # fmt: skip
    value, reward = (GPT2ForSequenceClassification(config) for _ in range(2))
    policy, reference = GPT2LMHeadModel(config), GPT2LMHeadModel(config)
    data = Dataset.from_dict({"input_ids": rows})
    return PPOTrainer(
        args=arguments, processing_class=words, model=policy, ref_model=reference, reward_model=reward,
        value_model=value, train_dataset=data, eval_dataset=data.select(range(1)),
    )  # fmt: skip


def grpo(task: dict[str, Any], folder: str) -> Any:
    """A trainer of so many steps."""
    from trl import GRPOConfig, GRPOTrainer

    words, config = tokenizer_of(task["vocabulary"]), config_of(task)
    chosen = random.Random(0)
    texts = [
        " ".join(f"t{chosen.randrange(task['vocabulary'] - 1)}" for _ in range(chosen.randint(*task["prompt"])))
        for _ in range(task["responses"])
    ]
    arguments = GRPOConfig(
        **common(task, folder), num_generations=task["group"], max_completion_length=task["new"], beta=0.05,
        temperature=1.0, max_steps=task["updates"],
    )  # fmt: skip

    def reward(completions: list[str], **_: Any) -> list[float]:
        return [float(len(text) % 7) for text in completions]

    # Its reference is loaded from where the model came from.
    path = f"{folder}/model"
    GPT2LMHeadModel(config).save_pretrained(path)
    words.save_pretrained(path)
    return GRPOTrainer(
        model=GPT2LMHeadModel.from_pretrained(path), reward_funcs=reward, args=arguments, processing_class=words,
        train_dataset=Dataset.from_dict({"prompt": texts}),
    )  # fmt: skip


def answer_tasks(makers: dict[str, Callable[[dict[str, Any], str], Any]]) -> None:
    """Until the input ends: make the trainer that a line asks for, by name, and time its training."""
    torch.set_num_threads(1)
    answers = sys.stdout
    sys.stdout = sys.stderr  # what trainers print is no answer
    for line in sys.stdin:
        task = json.loads(line)
        try:
            torch.manual_seed(0)
            with tempfile.TemporaryDirectory() as folder:
                trainer = makers[task["task"]](task, folder)
                if task.get("cached"):
                    trainer.get_train_dataloader()  # where DPO computes the reference's log-probabilities
                began, cpu = time.perf_counter(), time.process_time()
                trainer.train()
                answer = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    answer_tasks({"ppo": ppo, "grpo": grpo})
