"""The one training loop: collect, relabel, update, log, evaluate, save.

Whatever is trained, from rewards or from preferences, on environments or on text, goes round here. What differs is
what is put in: a collector in front, perhaps a reward model in the middle, callbacks beside it.

Several processes (see `rllab.distributed`) each collect a share of the rows, and learn as one: callbacks are called in
all of them; evaluations, videos and what is written are the first one's.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from envs.normalise import RewardScaling
from rllab import distributed
from rllab.agents.agent import Agent, Metrics
from rllab.callbacks import Callback, StopAtReturn
from rllab.collect import Collector
from rllab.evaluate import EvaluationResult
from rllab.interrupt import Interrupted, deferred_signals
from rllab.loop_config import LoopConfig
from rllab.metrics import MetricsWriter
from rllab.policies.policy import Policy
from rllab.progress import Progress
from rllab.rollout import Rollout
from rllab.runs import Run
from rllab.threads import single_threaded


class RewardModel(Protocol):
    """Puts its own rewards in place of the environment's."""

    def relabel(self, rollout: Rollout) -> Rollout:
        """The rollout with new `rewards` `[N, T]`."""


class Training:
    """A training as an object: its parts, how far it has come, and the loop `run`.

    Callbacks see it, and may stop it by `stop(reason)`.
    """

    def __init__(
        self,
        collector: Collector,
        policy: Policy,
        agent: Agent,
        config: LoopConfig,
        *,
        run: Run | None = None,
        reward_model: RewardModel | None = None,
        evaluate: Callable[[Any], EvaluationResult] | None = None,
        film: Callable[[Any], bytes] | None = None,
        callbacks: Sequence[Callback] = (),
        quiet: bool = False,
        shown: Mapping[str, str] | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            collector: where rollouts come from.
            policy: what is trained.
            agent: what trains it.
            config: how long, and what happens beside it.
            run: the folder on disk; without one nothing is written.
            reward_model: relabels each rollout before the agent sees it.
            evaluate: plays evaluation episodes; called every `config.evaluation_every` steps.
            film: makes a GIF of the policy, for TensorBoard.
            callbacks: see `rllab.callbacks`.
            quiet: no progress line.
            shown: what the progress line shows of the metrics; see `rllab.progress.Progress`.

        Raises:
            RllabError: a rollout does not divide into the agent's minibatches.
        """
        agent.config.check(collector.num_rows, policy.rows)
        self.collector, self.policy, self.agent, self.config = collector, policy, agent, config
        self.run_folder: Run | None = None
        self.reward_model, self.evaluate, self.film = reward_model, evaluate, film
        self.callbacks, self.quiet, self._shown = list(callbacks), quiet or not distributed.is_first(), shown
        if config.stop_at is not None:
            self.callbacks.append(StopAtReturn(config.stop_at))
        if agent.config.scale_rewards:
            rows = collector.num_rows * distributed.processes()
            policy.reward_scaling = RewardScaling(rows, agent.config.discount)
        if run is not None:
            self.write_to(run)
        self.steps = self.updates = 0
        self.seconds = 0.0
        self.best: float | None = None
        self.stop_reason: str | None = None
        self.evaluation: EvaluationResult | None = None
        """The latest."""
        self.collecting = False
        """Whether a rollout is being collected: of policy and agent nothing has changed since the last update."""
        self.began_anew = False
        """Whether environments could not go on where a loaded state had them, and began new episodes."""
        self._signal: int | None = None
        self._ended_by: int | None = None
        self._ending = False
        self._resumed = False
        self._progress: Progress | None = None

    def write_to(self, run: Run) -> None:
        """Keep metrics and checkpoints in this run's folder; the first of several processes does."""
        run.checkpoints.keep = self.config.keep_checkpoints
        if distributed.is_first():
            self.run_folder = run

    def stop(self, reason: str) -> None:
        """End training after the current update, as if its steps were done."""
        self.stop_reason = reason

    @property
    def interrupted(self) -> bool:
        """Whether a signal asked for an end; long work beside the loop looks here now and then."""
        return self._signal is not None

    def note(self, message: str) -> None:
        """Tell a person something, above the progress line."""
        if self._progress is not None:
            self._progress.note(message)

    def run(self) -> None:
        """Train until the configured steps are done, a callback stops it, or a signal arrives.

        Raises:
            Interrupted: after SIGINT (Ctrl-C) or SIGTERM, once the current update and a checkpoint are done.
            RllabError: something is not finite, the disk is full, …; the last checkpoint is intact.
        """
        distributed.share_weights(self.policy.module)
        writer = None
        if self.run_folder is not None:
            resume_steps = self.steps if self._resumed else None
            writer = MetricsWriter(self.run_folder.path, resume_steps, tensorboard=self.config.tensorboard)
        self._progress = Progress(self.config.steps, start=self.steps, quiet=self.quiet, shown=self._shown)
        try:
            with deferred_signals(self._remember), single_threaded(self.policy.single_threaded):
                for callback in self.callbacks:
                    callback.before_run(self)
                self._agree()
                while not self._ending:
                    self._iterate(writer)
        finally:
            self._progress.close()
            if writer is not None:
                writer.close()
        if self._ended_by is not None:
            raise Interrupted(self._ended_by)

    def _iterate(self, writer: MetricsWriter | None) -> None:
        """Once round the loop."""
        began = time.perf_counter()
        remaining = 1.0 - self.steps / self.config.steps

        self.collecting = True
        rollout = self.collector.collect(self.policy)
        self.collecting = False
        for callback in self.callbacks:
            callback.after_collect(self, rollout)
        if self.reward_model is not None:
            rollout = self.reward_model.relabel(rollout)
        if self.policy.reward_scaling is not None:
            rollout = scale_rewards(rollout, self.policy.reward_scaling)
        metrics = self.agent.update(rollout, remaining)
        self.policy.adapt(rollout)

        before, new_steps = self.steps, sum(distributed.gathered(rollout.num_steps))
        self.steps += new_steps
        self.updates += 1
        elapsed = time.perf_counter() - began
        row: Metrics = {
            "steps": self.steps,
            "seconds": self.seconds + elapsed,
            "steps_per_second": new_steps / elapsed,
            "updates": self.updates,
            **_mean_row({**self.collector.recent(), **metrics}),
        }
        for callback in self.callbacks:
            callback.after_update(self, rollout, row)
        self._agree()

        last = self.steps >= self.config.steps or self.stop_reason is not None
        improved = False
        if self.evaluate is not None and self._due(self.config.evaluation_every, before, last):
            improved = self._evaluate(row)
            if writer is not None and self.config.histograms:
                writer.add_histograms(self._histograms(), self.steps)
        if writer is not None:
            if self.film is not None and self._due(self.config.video_every, before, last):
                writer.add_video("policy", self.film(self.policy), self.steps)
            row["seconds"] = self.seconds + time.perf_counter() - began
            writer.write(row)
        self.seconds += time.perf_counter() - began
        if self._progress is not None:
            self._progress.update(self.steps, row)
        self._agree()
        if self._ending or improved or self._due(self.config.checkpoint_every, before, last=False):
            self.save(best=improved)

    def _agree(self) -> None:
        """Whether this is the end; processes that train together all end if one of them is to."""
        if distributed.processes() > 1:
            everyone = distributed.gathered((self.stop_reason, self._signal))
            self.stop_reason = next((reason for reason, _ in everyone if reason is not None), None)
            self._signal = next((number for _, number in everyone if number is not None), None)
        # Signals come at any time: what is decided here holds until the next time.
        self._ended_by = self._signal
        self._ending = self.steps >= self.config.steps or self.stop_reason is not None or self._ended_by is not None

    def _due(self, every: int, before: int, last: bool) -> bool:
        """Whether a multiple of `every` was passed since `before`, or it is on and this is the last update."""
        return every > 0 and (last or self.steps // every > before // every)

    def _evaluate(self, row: Metrics) -> bool:
        """Evaluate, report, and tell whether this is the best so far."""
        assert self.evaluate is not None
        self.evaluation = distributed.from_first(self.evaluate(self.policy) if distributed.is_first() else None)
        assert self.evaluation is not None
        mean = self.evaluation.mean
        row["evaluation/return_mean"], row["evaluation/return_std"] = mean, self.evaluation.std
        row["evaluation/length_mean"] = self.evaluation.length_mean
        for callback in self.callbacks:
            callback.after_evaluation(self, self.evaluation)
        improved = math.isfinite(mean) and (self.best is None or mean > self.best)
        if improved:
            self.best = mean
        return improved

    def _histograms(self) -> dict[str, Any]:
        weights = {f"weights/{name}": p.detach().cpu().numpy() for name, p in self.policy.module.named_parameters()}
        gradients = {
            f"gradients/{name}": p.grad.cpu().numpy()
            for name, p in self.policy.module.named_parameters()
            if p.grad is not None
        }
        return weights | gradients

    def save(self, best: bool = False) -> None:
        """Write a checkpoint, if there is a run folder; all processes call it together."""
        state = None if self.run_folder is None and distributed.processes() == 1 else self.state_dict()
        if self.run_folder is not None:
            assert state is not None
            metadata = {"stop_reason": self.stop_reason}
            self.run_folder.checkpoints.save(self.steps, state, best=best, metadata=metadata)
            for callback in self.callbacks:
                callback.after_checkpoint(self)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on exactly as if never stopped."""
        return {
            "policy": self.policy.state_dict(),
            "agent": self.agent.state_dict(),
            "collectors": distributed.gathered(self.collector.state_dict()),
            "loop": {"steps": self.steps, "updates": self.updates, "seconds": self.seconds, "best": self.best},
            "callbacks": [callback.state_dict() for callback in self.callbacks],
        }

    def load_state_dict(self, state: dict[str, Any]) -> list[str]:
        """Take over a state; the result says in sentences what could not be restored exactly."""
        self.policy.load_state_dict(state["policy"])
        self.agent.load_state_dict(state["agent"])
        inexact = self._load_collector(state)
        loop = state["loop"]
        self.steps, self.updates, self.seconds, self.best = (
            loop["steps"], loop["updates"], loop["seconds"], loop["best"],
        )  # fmt: skip
        for callback, saved in zip(self.callbacks, state["callbacks"], strict=False):
            callback.load_state_dict(saved)
        self._resumed, self.began_anew = True, bool(inexact)
        return inexact

    def _load_collector(self, state: dict[str, Any]) -> list[str]:
        """Bring each process's collector to where that process had it."""
        states = state["collectors"] if "collectors" in state else [state["collector"]]
        if len(states) != distributed.processes():
            if getattr(self.collector, "alike", False):
                return self.collector.load_state_dict(states[0])
            return [
                f"the run was trained by {len(states)} processes and not by {distributed.processes()}, so it goes on "
                "with new episodes and no longer equals an uninterrupted one"
            ]
        return self.collector.load_state_dict(states[distributed.rank()])

    def _remember(self, signal_number: int) -> None:
        self._signal = signal_number
        self.note("stopping after this update, then saving a checkpoint (Ctrl-C again to stop at once)")


def scale_rewards(rollout: Rollout, scaling: RewardScaling) -> Rollout:
    """The rollout with its rewards divided by the running deviation of the discounted return, over all processes."""
    done = (rollout.terminated | rollout.truncated).cpu().numpy()
    own = rollout.rewards.cpu().numpy(), done, rollout.valid.cpu().numpy()
    rewards, done, valid = (np.concatenate(parts) for parts in zip(*distributed.gathered(own), strict=True))
    scaled = np.array_split(scaling(rewards, done, valid), distributed.processes())[distributed.rank()]
    return rollout.replace(rewards=torch.from_numpy(scaled).to(rollout.rewards.device))


def _mean_row(row: Metrics) -> Metrics:
    """The mean of each number over the processes that have it: NaN, as before a first episode, counts for none."""
    if distributed.processes() == 1:
        return row
    rows = distributed.gathered(row)
    found = {}
    for name in dict.fromkeys(name for each in rows for name in each):
        values = [value for each in rows if not math.isnan(value := each.get(name, math.nan))]
        found[name] = sum(values) / len(values) if values else math.nan
    return found
