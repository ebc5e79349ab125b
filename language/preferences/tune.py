"""Fine-tuning a language model from rewards, as a run on disk: begin, go on, end as a model.

runs/NAME/
  config.json  metrics.jsonl  checkpoints/     as the agents' runs
  reference/                                   the model as it was, with its tokenizer
  evaluations.jsonl                            scores on held-out prompts, and samples
  model/  best/                                the model at the end, and the best by evaluation
  comparisons.sqlite  reward/                  where the reward is learnt from comparisons: they, and its model
"""

import copy
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any

from torch import nn

from envs.errors import RllabError
from language.models.folder import MODEL_FOLDER, holds_model, save_model
from language.models.mixture_of_experts import MixtureOfExperts
from language.preferences.collect import KLRunawayError, TextCollector
from language.preferences.lora import load_adapted
from language.preferences.policy import TextPolicy
from language.preferences.prompts import read_prompts
from language.preferences.rewards import RewardFailedError, make_reward
from language.preferences.teaching import TextTeaching
from language.preferences.text_evaluation import FILE, KeepEvaluations, TextEvaluation, TextEvaluator
from language.preferences.tuning_config import RUN_KIND, TuneConfig
from language.tokenizers.tokenizer import Tokenizer
from rllab.agents import AGENTS
from rllab.callbacks import Callback
from rllab.distributed import awaited, from_first, is_first, processes
from rllab.experiment import go_on, new_run, run_to_go_on
from rllab.runs import Run
from rllab.train import Training

REFERENCE_FOLDER, BEST_FOLDER, REWARD_FOLDER = "reference", "best", "reward"
EVALUATION_SEED = 0x5EED
"""Added to the run's seed, so that evaluations draw other responses than training does."""


@dataclass(frozen=True)
class TunedRun:
    """What `tune` and `resume` give back."""

    path: Path
    """The run's folder."""
    config: TuneConfig
    policy: TextPolicy
    """As it was when training ended."""
    tokenizer: Tokenizer
    steps: int
    """Tokens of responses it learnt from."""
    stop_reason: str | None
    """Why training ended before its configured steps, if it did."""
    evaluation: TextEvaluation | None
    """The last one."""


class TuneWorkshop:
    """The live parts that a configuration asks for."""

    def __init__(self, config: TuneConfig, folder: Path | str | None = None) -> None:
        """Load the model and the rewards, read the prompts, make policy, agent and collector.

        Args:
            config: everything.
            folder: of the model, in place of the configuration's.

        Raises:
            RllabError: one of them cannot be had, or they do not go together.
        """
        self.config = config
        model, self.tokenizer = load_adapted(folder or config.model, config.lora, config.device, config.seed)
        stops = config.drawing.stops(self.tokenizer)
        if not stops and (config.drawing.truncate_after or config.rewarding.no_stop_score is not None):
            raise RllabError(
                "The tokenizer has no end token, so that no response could be ended; give --stop-tokens, or leave out "
                "truncate_after and no_stop_score."
            )
        if config.method == "trpo" and any(isinstance(module, MixtureOfExperts) for module in model.modules()):
            raise RllabError("TRPO needs second derivatives, which experts do not have; tune with ppo or reinforce.")
        self.policy = TextPolicy(
            model, config.whole_policy(), tokenizer=self.tokenizer, temperature=config.drawing.temperature,
            device=config.device,
        )  # fmt: skip
        prompts, held_out = read_prompts(
            config.prompts, self.tokenizer, self.policy.text, config.drawing.maximum_new_tokens
        )
        gold = make_reward(config.gold, config.device) if config.gold else None
        self.teaching: TextTeaching | None = None
        if config.teaching.on:
            self.teaching = TextTeaching(
                config.teaching, self.policy, self.tokenizer, prompts, config.drawing, steps=config.loop.steps,
                seed=config.seed, run=config.run_id, device=config.device,
            )  # fmt: skip
            gold = gold or self.teaching.gold
        reward = make_reward(config.reward, config.device) if self.teaching is None else self.teaching.reward
        self.agent = AGENTS[config.method](self.policy, config.whole_agent(), config.seed)
        self.collector = TextCollector(
            prompts, reward, self.tokenizer, responses=config.batch.responses, group_size=config.group_size,
            drawing=config.drawing, rewarding=config.rewarding, seed=config.seed,
        )  # fmt: skip
        self.evaluator = TextEvaluator(
            held_out, reward, self.tokenizer, config.drawing, gold=gold,
            responses=config.prompts.evaluation_prompts, seed=config.seed + EVALUATION_SEED,
        )  # fmt: skip

    def training(self, folder: Path, callbacks: Sequence[Callback] = (), quiet: bool = False) -> Training:
        """The loop over these parts; evaluations are kept in a run's folder."""
        loop = self.config.loop.loop()
        # Before the first evaluation there must be a reward.
        taught = [] if self.teaching is None else [self.teaching]
        return Training(
            self.collector, self.policy, self.agent, loop, evaluate=self.evaluator if loop.evaluation_every else None,
            callbacks=[*taught, KeepEvaluations(folder), *callbacks], quiet=quiet,
            shown={"return_mean": "score", "kl_response": "KL"},
        )  # fmt: skip


def tune(
    config: TuneConfig, out: Path | str, *, callbacks: Sequence[Callback] = (), overwrite: bool = False,
    quiet: bool = False,
) -> TunedRun:  # fmt: skip
    """Fine-tune a model, leaving a run folder.

    Args:
        config: everything that determines it.
        out: the run's folder.
        callbacks: see `rllab.callbacks`.
        overwrite: replace a run that lies in `out`.
        quiet: no progress line.

    Raises:
        RllabError: bad input; a reward that fails or is not finite; a policy that left the reference too far
            (`kl_limit`): then the run keeps the last checkpoint from before, and the model of that.
        Interrupted: by Ctrl-C or SIGTERM, after a checkpoint; `resume` goes on from it.
    """
    folder = Path(out)
    workshop = TuneWorkshop(config)
    # The folder is made last: input that cannot work leaves nothing behind.
    training = workshop.training(folder, callbacks, quiet)
    if workshop.teaching is not None:
        workshop.teaching.check(folder, overwrite)
    with new_run(folder, config.to_json(), overwrite) as run, ExitStack() as stack:
        if is_first():
            for name in (REFERENCE_FOLDER, MODEL_FOLDER, BEST_FOLDER, REWARD_FOLDER):
                shutil.rmtree(folder / name, ignore_errors=True)  # of a run that is overwritten
            (folder / FILE).unlink(missing_ok=True)
            _keep_reference(run, workshop)
        if workshop.teaching is not None:
            workshop.teaching.open(folder, training, stack, quiet)
        training.write_to(run)
        training.save()
        return _finish(training, run, workshop)


def resume(
    path: Path | str, *, steps: int | None = None, callbacks: Sequence[Callback] = (), quiet: bool = False
) -> TunedRun:  # fmt: skip
    """Go on with an interrupted run from its latest good checkpoint, exactly as if it had never stopped.

    Args:
        path: the run's folder.
        steps: a new number of steps to train for in all; schedules are then relative to it.
        callbacks: those that the run was started with, in the same order.
        quiet: no progress line.

    Raises:
        RllabError: no run of this kind, no good checkpoint, or the run is in use.
    """
    with run_to_go_on(path) as run, ExitStack() as stack:
        if run.config.get("kind") != RUN_KIND:
            raise RllabError(f"{path} is no fine-tuning from rewards; `rllab resume {path}` goes on with it.")
        config = TuneConfig.from_json(run.config)
        if steps is not None:
            config = replace(config, loop=replace(config.loop, steps=steps))
            if is_first():
                run.update_config({**run.config, **config.to_json()})
        reference = run.path / REFERENCE_FOLDER
        workshop = TuneWorkshop(config, reference if holds_model(reference) else None)
        if is_first():
            _keep_reference(run, workshop)
        training = workshop.training(run.path, callbacks, quiet)
        if workshop.teaching is not None:
            workshop.teaching.open(run.path, training, stack, quiet)
        training.write_to(run)
        go_on(training, run)
        return _finish(training, run, workshop)


def _keep_reference(run: Run, workshop: TuneWorkshop) -> None:
    """Write the model as it was, so that the run depends on no other folder; once."""
    folder = run.path / REFERENCE_FOLDER
    if not holds_model(folder):
        save_model(folder, workshop.policy.reference.text.module, workshop.tokenizer)


def _finish(training: Training, run: Run, workshop: TuneWorkshop) -> TunedRun:
    """Run the loop to its end, and write the models."""
    try:
        training.run()
    except KLRunawayError as error:
        if not is_first():
            from_first(None)  # the first one saves, and must not be ended meanwhile
            raise
        with awaited():
            step = _go_back(training, run, workshop)
            _write_models(run, workshop)
        raise KLRunawayError(f"{error} {run.path} keeps the model of step {step:,}.") from error
    except RewardFailedError as error:
        # Of several processes the others may not have failed, and would not come to save theirs.
        if training.collecting and processes() == 1 and run.checkpoints.latest() != training.steps:
            training.save()  # the collector is as it was before the rollout, so nothing is lost
        step = run.checkpoints.latest() or 0
        raise RewardFailedError(
            f"{error} Training stopped; `rllab resume {quote(str(run.path))}` goes on from step {step:,}."
        ) from error
    if is_first():
        _write_models(run, workshop)
    from_first(None)  # which is awaited
    evaluation = training.evaluation
    assert evaluation is None or isinstance(evaluation, TextEvaluation)
    return TunedRun(
        run.path, workshop.config, workshop.policy, workshop.tokenizer, training.steps, training.stop_reason, evaluation
    )


def _go_back(training: Training, run: Run, workshop: TuneWorkshop) -> int:
    """Take over the last checkpoint from before the policy ran away; its step."""
    checkpoints = run.checkpoints
    # What was saved after the last update is the very policy whose responses were too far away.
    earlier = [step for step in checkpoints.steps() if step < training.steps]
    if earlier and checkpoints.latest() == training.steps:
        shutil.rmtree(checkpoints.folder / str(training.steps))
    step, state = checkpoints.load("latest")
    workshop.policy.load_state_dict(state["policy"])
    return step


def _write_models(run: Run, workshop: TuneWorkshop) -> None:
    """The policy as it is, and the best by evaluation."""
    module = workshop.policy.text.module
    save_model(run.path / MODEL_FOLDER, module, workshop.tokenizer)
    if workshop.teaching is not None and workshop.teaching.reward.model is not None:
        save_model(run.path / REWARD_FOLDER, workshop.teaching.reward.model, workshop.tokenizer)
    if run.checkpoints.best() is not None:
        _, state = run.checkpoints.load("best")
        save_model(run.path / BEST_FOLDER, _with_weights(module, state["policy"]["weights"]), workshop.tokenizer)


def _with_weights(module: nn.Module, weights: dict[str, Any]) -> nn.Module:
    """A copy of a policy's model with its weights of a checkpoint."""
    other = copy.deepcopy(module)
    prefix = "model."
    other.load_state_dict(
        {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    )
    return other
