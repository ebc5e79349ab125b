"""Evaluation of a policy of texts: the same held-out prompts and random numbers each time, scored by a judge."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from language.decoding.noise import row_seeds
from language.preferences.collect import distinct_pairs
from language.preferences.policy import TextPolicy
from language.preferences.prompts import PromptOrder
from language.preferences.responses import ResponsesConfig, respond
from language.preferences.rewards import TextReward, score
from language.tokenizers.tokenizer import Tokenizer
from rllab.callbacks import Callback
from rllab.distributed import is_first
from rllab.evaluate import EvaluationResult
from rllab.files import explained_write_errors, write_atomically

if TYPE_CHECKING:
    from rllab.train import Training

FILE = "evaluations.jsonl"
"""In a run's folder: a row an evaluation, samples included."""
SAMPLES = 4
"""Texts that are kept of each evaluation."""


@dataclass(frozen=True)
class TextEvaluation(EvaluationResult):
    """What held-out responses were worth: `returns` are the judge's scores, `lengths` are in tokens."""

    measures: dict[str, float]
    """`score` and `gold` (means and, with `_std`, deviations), `kl_response`, `length`, `share_without_stop`,
    `distinct_2`."""
    samples: list[dict[str, Any]]
    """The first prompts with their responses and scores."""


class TextEvaluator:
    """Lets a policy respond to held-out prompts."""

    def __init__(
        self,
        prompts: Sequence[Sequence[int]],
        reward: TextReward,
        tokenizer: Tokenizer,
        drawing: ResponsesConfig,
        *,
        gold: TextReward | None = None,
        responses: int = 64,
        seed: int = 0,
    ) -> None:
        """Choose what is evaluated.

        Args:
            prompts: ids of each.
            reward: what the policy learns from.
            tokenizer: of the policy's model.
            drawing: how responses are drawn.
            gold: the judge; without one it is the reward.
            responses: how many; prompts that are fewer are answered several times.
            seed: of the responses.
        """
        self.prompts = PromptOrder(prompts, 0).take(max(responses, len(prompts)))[:responses]
        self.reward, self.gold, self.tokenizer, self.drawing = reward, gold, tokenizer, drawing
        self.seeds = row_seeds(seed, len(self.prompts))

    def __call__(self, policy: TextPolicy) -> TextEvaluation:
        """Respond and score. Raises RllabError as `score`."""
        responses = respond(policy, self.tokenizer, self.prompts, self.seeds, self.drawing)
        scores = score(self.reward, responses.prompts, responses.texts)
        judged = scores if self.gold is None else score(self.gold, responses.prompts, responses.texts)
        reference = policy.reference.log_probs(responses.batch)
        divergence = ((responses.log_probs - reference) * responses.batch.valid).sum(1)
        lengths = responses.lengths.cpu().numpy()
        measures = {
            "score": float(scores.mean()),
            "score_std": float(scores.std()),
            "gold": float(judged.mean()),
            "gold_std": float(judged.std()),
            "kl_response": float(divergence.mean()),
            "length": float(lengths.mean()),
            "share_without_stop": 1 - float(responses.finished.float().mean()),
            "distinct_2": distinct_pairs(responses),
        }
        samples = [
            {"prompt": responses.prompts[row], "response": responses.texts[row], "score": float(judged[row])}
            for row in range(min(SAMPLES, len(judged)))
        ]
        return TextEvaluation(judged, lengths, measures, samples)


class KeepEvaluations(Callback):
    """Writes `evaluations.jsonl` into a run's folder; the first row is of the model as it began."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE

    def before_run(self, training: "Training") -> None:
        """Of a run that goes on, forget what came after the checkpoint; of a new one, evaluate the model."""
        if not is_first():
            return
        rows = [row for row in read_evaluations(self.path.parent) if row["steps"] <= training.steps]
        if self.path.exists():
            with explained_write_errors(self.path):
                write_atomically(self.path, "".join(map(_line, rows)).encode())
        # Interrupted before there was a first answer, there may be no reward yet.
        if training.steps == 0 and not rows and training.evaluate is not None and not training.interrupted:
            self.after_evaluation(training, training.evaluate(training.policy))

    def after_evaluation(self, training: "Training", result: EvaluationResult) -> None:
        """Add a row."""
        if not is_first():
            return
        assert isinstance(result, TextEvaluation)
        row = {"steps": training.steps, **result.measures, "samples": result.samples}
        with explained_write_errors(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(_line(row))


def read_evaluations(folder: Path | str) -> list[dict[str, Any]]:
    """The evaluations of a run, the earliest first; a line cut short is left out."""
    path = Path(folder) / FILE
    rows: list[dict[str, Any]] = []
    # Not by splitlines: texts may have marks in them, such as U+0085, that end a line there and not in JSON lines.
    for line in path.read_text("utf-8").split("\n")[:-1] if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"
