"""Methods beside each other at several divergences from the model that all begin with: agents, direct methods and
best-of-n, by what they learn from and by a judge (Gao et al. 2022, "Scaling laws for reward model overoptimization").

FOLDER/
  settings.json                       what must stay as it is when the comparison goes on
  pairs.jsonl  reward/                pairs that the model wrote, labelled, and a reward model of them
  METHOD-…-seed0/ …                   a run each, of which the model is left once it was judged
  results/METHOD-…-seed0.json …       what each came to; what is there is not done again
  comparison.json  points.csv  frontier.svg  frontier.png
"""

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from envs.errors import RllabError
from language.models.folder import MODEL_FOLDER, holds_model, load_model
from language.preferences.best_of import best_of_n_kl, best_of_n_weights
from language.preferences.compare_config import BEST_OF_N, DIRECT, CompareConfig, Piece, changed
from language.preferences.data import TextsConfig
from language.preferences.direct_run import DirectTraining
from language.preferences.frontier import Baseline, Point, as_json, draw, write_csv
from language.preferences.judging import Judged, judge_rows, wins
from language.preferences.prompts import PromptOrder, read_prompts
from language.preferences.reward import RewardRun, RewardTraining, ScoringConfig
from language.preferences.rewards import TextReward, make_reward, score
from language.preferences.sampled_pairs import sampled_pairs, write_pairs
from language.preferences.sft import RowsConfig
from language.preferences.text_evaluation import read_evaluations
from language.preferences.text_models import text_model
from language.preferences.tune import BEST_FOLDER, REFERENCE_FOLDER, TuneWorkshop, resume, tune
from rllab.files import explained_write_errors, write_atomically
from rllab.runs import Run, is_run

SETTINGS, PAIRS, REWARD, RESULTS = "settings.json", "pairs.jsonl", "reward", "results"
_BASELINE = "baseline.json"
_JUDGE_SEED, _BEST_SEED = 0x10D6E, 0xBE57
_NOT_KEPT = ("checkpoints", REFERENCE_FOLDER, BEST_FOLDER, "tokens", "tokenizer", "videos")
"""Of a finished run; its configuration, metrics, evaluations and model are."""


class Comparison:
    """A comparison on disk, whose pieces are done one by one."""

    def __init__(self, config: CompareConfig, folder: Path | str) -> None:
        """Load the model and the judge, and read the prompts.

        Raises:
            RllabError: one of them cannot be had, or the folder has a comparison with other settings.
        """
        self.config, self.folder = config, Path(folder)
        self.pieces = config.pieces()
        self.model, self.tokenizer = load_model(config.model, config.device)
        text = text_model(self.model, self.tokenizer)
        self.prompts, held_out = read_prompts(config.prompts, self.tokenizer, text, config.drawing.maximum_new_tokens)
        count = config.prompts.evaluation_prompts
        self.judged_prompts = PromptOrder(held_out, 0).take(max(count, len(held_out)))[:count]
        self.gold = make_reward(config.gold, config.device)
        if config.reward:
            make_reward(config.reward, config.device)
        self._settle()

    def _settle(self) -> None:
        path, now = self.folder / SETTINGS, self.config.settled()
        if not path.exists() and self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise RllabError(f"{self.folder} is not empty and holds no comparison; choose another folder.")
        if path.exists():
            differing = changed(json.loads(path.read_text()), now)
            if differing:
                raise RllabError(
                    f"{self.folder} has a comparison with other settings ({', '.join(differing)}); leave them as they "
                    "were, or choose another folder."
                )
            return
        with explained_write_errors(path):
            (self.folder / RESULTS).mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(now, indent=2).encode() + b"\n")

    @property
    def reward_forms(self) -> tuple[str, ...]:
        """What is learnt from."""
        return self.config.reward or (f"model:{self.folder / REWARD}",)

    @cached_property
    def proxy(self) -> TextReward:
        """What is learnt from, once `prepare` has made it."""
        return make_reward(self.reward_forms, self.config.device)

    @property
    def needs_pairs(self) -> bool:
        """Whether anything learns from pairs."""
        return not self.config.reward or any(method in DIRECT for method in self.config.methods.methods)

    def prepare(self, quiet: bool = False) -> RewardRun | None:
        """Have pairs written and labelled, train the reward model, and judge the model that all begin with.

        Returns the reward model's run, if it was trained now.
        """
        config, trained = self.config, None
        with FileLock(self.folder / ".preparing.lock"):
            if self.needs_pairs and not (self.folder / PAIRS).exists():
                labelled_by = make_reward(config.reward, config.device) if config.reward else self.gold
                write_pairs(self.folder / PAIRS, sampled_pairs(
                    self.model, self.tokenizer, self.prompts, config.learning.pairs, labelled_by, config.drawing,
                    labelling=config.learning.labelling,
                ))  # fmt: skip
            if not config.reward and not holds_model(self.folder / REWARD):
                trained = self._train_reward(quiet)
                _clear(self.folder / REWARD)
            if not (self.folder / RESULTS / _BASELINE).exists():
                self._judge_baseline()
        return trained

    def _train_reward(self, quiet: bool) -> RewardRun:
        config, folder = self.config, self.folder / REWARD
        if is_run(folder):
            return RewardTraining.resume(folder, quiet=quiet)
        return RewardTraining.of(
            config.model, TextsConfig((str(self.folder / PAIRS),)),
            RowsConfig(too_long="cut", epochs=config.learning.reward_epochs),
            ScoringConfig(normalise_tokens=config.drawing.maximum_new_tokens),
            config.training(0, config.learning.reward_learning_rate), config.device,
        ).run(folder, quiet=quiet)  # fmt: skip

    def _judge_baseline(self) -> None:
        judged = [self._baseline_of(seed) for seed in range(3)]
        gold = np.concatenate([each.scores for each in judged if each.scores is not None])
        proxy = np.concatenate([score(self.proxy, each.prompts, each.responses) for each in judged])
        for name, values in (("judge", gold), ("reward", proxy)):
            if not values.std() > 0:
                raise RllabError(
                    f"The {name} gives {values[0]:g} to all of {len(values)} responses of the model, so nothing can be "
                    "compared; give another, or other prompts."
                )
        found = Baseline(
            float(proxy.mean()), float(proxy.std()), float(gold.mean()), float(gold.std()), responses=len(gold)
        )
        self._write(_BASELINE, asdict(found))

    def baseline(self) -> Baseline:
        """What the model that all begin with is worth."""
        return Baseline(**json.loads((self.folder / RESULTS / _BASELINE).read_text()))

    def _baseline_of(self, seed: int) -> Judged:
        return judge_rows(
            self.model, self.tokenizer, self.judged_prompts, self.config.drawing, reward=self.gold,
            seed=_JUDGE_SEED + seed,
        )  # fmt: skip

    def missing(self) -> list[Piece]:
        """What is not done yet."""
        return [piece for piece in self.pieces if not self._result(piece).exists()]

    def _result(self, piece: Piece) -> Path:
        return self.folder / RESULTS / f"{piece.name}.json"

    def make(self, piece: Piece, quiet: bool = False) -> list[Point]:
        """Train or draw it, going on where it was interrupted, and judge it.

        Raises:
            RllabError: a reward failed, or the run is in use.
            Interrupted: by Ctrl-C or SIGTERM, after a checkpoint; `make` goes on from it.
        """
        folder = self.folder / piece.name
        if piece.method == BEST_OF_N:
            points = self._best_of(piece)
        elif piece.method in DIRECT:
            points = [self._judged(piece, folder, self._direct(piece, folder, quiet))]
        else:
            steps = self._tune(piece, folder, quiet)
            on_the_way = [
                Point(piece.method, piece.setting, piece.seed, row["steps"], False, row["kl_response"], 0.0,
                      row["score"], row["gold"])
                for row in read_evaluations(folder)
            ]  # fmt: skip
            points = [*on_the_way, self._judged(piece, folder, steps)]
        self._write(self._result(piece).name, [asdict(point) for point in points])
        _clear(folder)
        return points

    def _tune(self, piece: Piece, folder: Path, quiet: bool) -> int:
        if is_run(folder) and Run.open(folder).checkpoints.latest() is not None:
            return resume(folder, quiet=quiet).steps
        return tune(self.config.tuning(piece, self.reward_forms), folder, overwrite=is_run(folder), quiet=quiet).steps

    def _direct(self, piece: Piece, folder: Path, quiet: bool) -> int:
        config, learning = self.config, self.config.learning
        if is_run(folder):
            DirectTraining.resume(folder, quiet=quiet)
        else:
            DirectTraining.of(
                config.model, TextsConfig((str(self.folder / PAIRS),)),
                RowsConfig(too_long="cut", epochs=learning.direct_epochs), config.direct(piece),
                config.training(piece.seed, learning.direct_learning_rate), config.device, kl_responses=0,
            ).run(folder, quiet=quiet)  # fmt: skip
        return int(Run.open(folder).read_metrics()[-1]["steps"])

    def _judged(self, piece: Piece, folder: Path, steps: int) -> Point:
        model, _ = load_model(folder / MODEL_FOLDER, self.config.device)
        judged = judge_rows(
            model, self.tokenizer, self.judged_prompts, self.config.drawing, reward=self.gold, reference=self.model,
            seed=_JUDGE_SEED + piece.seed,
        )  # fmt: skip
        assert judged.scores is not None
        rate = wins(judged, self._baseline_of(piece.seed)).rate
        proxy = float(score(self.proxy, judged.prompts, judged.responses).mean())
        return Point(
            piece.method, piece.setting, piece.seed, steps, True, *judged.kl, proxy, float(judged.scores.mean()),
            rate * len(judged.scores), len(judged.scores),
        )  # fmt: skip

    def _best_of(self, piece: Piece) -> list[Point]:
        count = int(piece.value)
        drawn = judge_rows(
            self.model, self.tokenizer, [row for row in self.judged_prompts for _ in range(count)], self.config.drawing,
            reward=self.gold, seed=_BEST_SEED + piece.seed,
        )  # fmt: skip
        other = self._baseline_of(piece.seed)
        assert drawn.scores is not None
        assert other.scores is not None
        gold = drawn.scores.reshape(-1, count)
        proxy = score(self.proxy, drawn.prompts, drawn.responses).reshape(-1, count)
        beaten = (gold > other.scores[:, None]) + 0.5 * (gold == other.scores[:, None])
        points = []
        for n in (2**power for power in range(1, count.bit_length())):
            weights = best_of_n_weights(proxy, n)
            mean_proxy, mean_gold = (float((weights * values).sum(1).mean()) for values in (proxy, gold))
            points.append(Point(
                piece.method, f"n {n}", piece.seed, n, True, best_of_n_kl(n), 0.0, mean_proxy, mean_gold,
                float((weights * beaten).sum()), len(gold),
            ))  # fmt: skip
        return points

    def points(self) -> list[Point]:
        """Of all that is done, in the order of methods, settings and seeds."""
        places = {method: place for place, method in enumerate(self.config.methods.methods)}
        order = sorted(self.pieces, key=lambda piece: (places[piece.method], piece.value, piece.seed))
        found = []
        for piece in order:
            if self._result(piece).exists():
                found += [Point(**row) for row in json.loads(self._result(piece).read_text())]
        return found

    def write(self, title: str = "", root: bool = True) -> list[Path]:
        """Write what is done as JSON, CSV and figures; their paths. Raises RllabError if nothing is done."""
        points, baseline = self.points(), self.baseline()
        figures = [draw(points, baseline, self.folder / f"frontier.{end}", title=title, root=root)
                   for end in ("svg", "png")]  # fmt: skip
        write_csv(self.folder / "points.csv", points, baseline)
        document = as_json(points, baseline, self.config.settled())
        path = self.folder / "comparison.json"
        with explained_write_errors(path):
            write_atomically(path, json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n")
        return [path, self.folder / "points.csv", *figures]

    def seconds_needed(self, pieces: Sequence[Piece]) -> float:
        """How long the agents among pieces will take here, from one rollout, update and evaluation of each."""
        total, measured = 0.0, dict[str, float]()
        for piece in pieces:
            if piece.method in DIRECT or piece.method == BEST_OF_N:
                continue
            if piece.method not in measured:
                workshop = TuneWorkshop(self.config.tuning(piece, self.reward_forms))
                workshop.collector.scale = (0.0, 1.0)  # not measured here
                began = time.perf_counter()
                rollout = workshop.collector.collect(workshop.policy)
                workshop.agent.update(rollout)
                taken = time.perf_counter()
                workshop.evaluator(workshop.policy)
                updates = self.config.learning.steps / float(rollout.valid.sum())
                measured[piece.method] = updates * (taken - began) + (self.config.learning.path_points + 2) * (
                    time.perf_counter() - taken
                )
            total += measured[piece.method]
        return total

    def _write(self, name: str, document: Any) -> None:
        path = self.folder / RESULTS / name
        with explained_write_errors(path):
            write_atomically(path, json.dumps(document, ensure_ascii=False).encode())


def _clear(folder: Path) -> None:
    """Leave of a finished run what is still looked at."""
    for name in _NOT_KEPT:
        shutil.rmtree(folder / name, ignore_errors=True)
