"""TRL's side of `preference_steps.py`, for `peer_process`: steps of DPO, of a reward model, of supervised tuning."""

from typing import Any

from datasets import Dataset
from peer_trl import answer_tasks, common, config_of, tokenizer_of
from transformers import GPT2ForSequenceClassification, GPT2LMHeadModel


def words(ids: list[int]) -> str:
    """A text that its tokenizer makes these ids of."""
    return " ".join(f"t{number}" for number in ids)


def settings(task: dict[str, Any], folder: str) -> dict[str, Any]:
    """Arguments of every trainer, and what it may not cut or report."""
    found = common({**task, "responses": task["batch"]}, folder)
    return {**found, "max_steps": task["steps"], "max_length": task["context"], "remove_unused_columns": True}


def dpo(task: dict[str, Any], folder: str) -> Any:
    """A trainer of so many steps; the reference's log-probabilities are computed at each, or before and not timed."""
    from trl import DPOConfig, DPOTrainer

    config = config_of(task)
    rows = [
        {"prompt": words(p), "chosen": " " + words(c), "rejected": " " + words(r)} for p, c, r in task["pairs"]
    ]  # fmt: skip
    model = GPT2LMHeadModel(config)
    arguments = DPOConfig(**settings(task, folder), beta=0.1, precompute_ref_log_probs=task["cached"])
    return DPOTrainer(
        model=model, ref_model=GPT2LMHeadModel(config), args=arguments, train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer_of(task["vocabulary"]),
    )  # fmt: skip


def reward(task: dict[str, Any], folder: str) -> Any:
    """A trainer of so many steps."""
    from trl import RewardConfig, RewardTrainer

    rows = [
        {"chosen": f"{words(p)} {words(c)}", "rejected": f"{words(p)} {words(r)}"} for p, c, r in task["pairs"]
    ]  # fmt: skip
    arguments = RewardConfig(**settings(task, folder))
    return RewardTrainer(
        model=GPT2ForSequenceClassification(config_of(task)), args=arguments, train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer_of(task["vocabulary"]),
    )  # fmt: skip


def sft(task: dict[str, Any], folder: str) -> Any:
    """A trainer of so many steps, with the loss on completions only."""
    from trl import SFTConfig, SFTTrainer

    rows = [{"prompt": words(p), "completion": " " + words(c)} for p, c, _ in task["pairs"]]
    arguments = SFTConfig(**settings(task, folder), completion_only_loss=True)
    return SFTTrainer(
        model=GPT2LMHeadModel(config_of(task)), args=arguments, train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer_of(task["vocabulary"]),
    )  # fmt: skip


if __name__ == "__main__":
    answer_tasks({"dpo": dpo, "reward": reward, "sft": sft})
