"""The one supervised loop: batches, gradients, a step of the optimiser, evaluations, checkpoints.

All models are trained by it. What differs is the problem: where batches come from, what the loss is, how it is judged.
Several processes share a step's batches (see `rllab.distributed`): all of them draw all batches, each learns from its
own, so that what is learnt depends on their number by rounding and dropout alone.
"""

import math
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, Generic

import torch
from torch import Tensor, nn

from envs.errors import RllabError
from language.training.asgd import NonMonotoneAverage
from language.training.optimizers import Group, make_optimizer
from language.training.peak import peak_operations_per_second
from language.training.problem import Batch, Problem
from language.training.schedules import schedule_factor
from language.training.training_config import TrainingConfig
from rllab import distributed
from rllab.interrupt import Interrupted, deferred_signals
from rllab.metrics import MetricsWriter
from rllab.progress import Progress
from rllab.runs import Run


class DivergedError(RllabError):
    """The loss or a gradient is not finite."""


class SupervisedTraining(Generic[Batch]):
    """A training as an object, and the loop `run`."""

    def __init__(
        self,
        model: nn.Module,
        problem: Problem[Batch],
        config: TrainingConfig,
        *,
        run: Run | None = None,
        groups: Sequence[Group] | None = None,
        before_step: Callable[["SupervisedTraining[Batch]"], None] | None = None,
        quiet: bool = False,
    ) -> None:
        """Put the parts together.

        Args:
            model: what is trained.
            problem: what it learns.
            config: how.
            run: the folder on disk; without one nothing is written.
            groups: parameters by learning rate; by default all that the model has, in one.
            before_step: called before each step, such as to unfreeze layers.
            quiet: no progress line.

        Raises:
            RllabError: the batches of a step do not divide among the processes.
        """
        distributed.share(config.accumulation, "An accumulation of")
        self.model, self.problem, self.config = model, problem, config
        self.run_folder = run if distributed.is_first() else None
        """Where the first process writes."""
        self.quiet = quiet or not distributed.is_first()
        self.before_step = before_step
        self.optimizer = make_optimizer(groups or [Group(list(model.parameters()))], config)
        self.average: NonMonotoneAverage | None = None
        """Of the weights, if it is configured; evaluations and the best weights are then its."""
        if config.averaging_patience:
            self.average = NonMonotoneAverage(model.parameters(), config.averaging_patience)
        self.steps = 0
        self.tokens = 0
        self.seconds = 0.0
        self.best: float | None = None
        self.best_weights: dict[str, Tensor] | None = None
        self.disappointments = 0
        self.evaluation: dict[str, float] = {}
        """The latest."""
        self._signal: int | None = None
        self._stopping = False
        self._resumed = False
        self._progress: Progress | None = None
        self._called: Callable[..., Any] = torch.compile(model) if config.compile else model
        if run is not None:
            run.checkpoints.keep = config.keep_checkpoints
        torch.manual_seed(config.seed + distributed.rank())  # dropout differs from process to process

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def run(self) -> dict[str, float]:
        """Train until the steps are done, patience ends, or a signal arrives; the last evaluation.

        Afterwards the model has the weights of the best evaluation. Several processes call it together.

        Raises:
            Interrupted: after SIGINT (Ctrl-C) or SIGTERM, once the current step and a checkpoint are done.
            DivergedError: the loss or a gradient is not finite; the last checkpoint, if there is one, is intact.
        """
        distributed.share_weights(self.model)
        writer = None
        if self.run_folder is not None:
            resume_steps = self.steps if self._resumed else None
            writer = MetricsWriter(self.run_folder.path, resume_steps, tensorboard=self.config.tensorboard)
        shown = {
            "loss": "loss",
            f"evaluation/{self.problem.goal}": "held-out loss" if self.problem.goal == "loss" else self.problem.goal,
            "tokens_per_second": "tokens/s", "of_peak": "of peak",
        }  # fmt: skip
        self._progress = Progress(self.config.steps, start=self.steps, quiet=self.quiet, shown=shown)
        try:
            with deferred_signals(self._remember):
                while self.steps < self.config.steps and not self._patience_ended() and not self._stopping:
                    self._iterate(writer)
        finally:
            self._progress.close()
            if writer is not None:
                writer.close()
        if self._stopping:
            raise Interrupted(self._signal or signal.SIGTERM)
        if self.best_weights is not None:
            self.model.load_state_dict(self.best_weights)
        return self.evaluation

    def _iterate(self, writer: MetricsWriter | None) -> None:
        began = time.perf_counter()
        if self.before_step is not None:
            self.before_step(self)
        row = self.step()
        elapsed = time.perf_counter() - began
        row |= {
            "steps": self.steps, "seconds": self.seconds + elapsed, "tokens": self.tokens,
            "tokens_per_second": row["tokens_of_step"] / elapsed,
        }  # fmt: skip
        operations = self.problem.operations(self.model, int(row.pop("tokens_of_step")))
        if operations:
            dtype = torch.bfloat16 if self.config.precision == "bfloat16" else torch.float32
            peak = peak_operations_per_second(self.device.type, dtype, torch.get_num_threads())
            row["of_peak"] = operations / elapsed / (peak * distributed.processes())
        every = self.config.evaluation_every
        last = self.steps >= self.config.steps
        improved = False
        if last or (every and self.steps % every == 0):
            improved = self._evaluate(row)
        self.seconds += time.perf_counter() - began
        if writer is not None:
            writer.write(row)
        if self._progress is not None:
            self._progress.update(self.steps, row)
        self._stopping = distributed.any_of(self._signal is not None)
        due = self.config.checkpoint_every and self.steps % self.config.checkpoint_every == 0
        if last or improved or due or self._stopping or self._patience_ended():
            self.save(best=improved)

    def step(self) -> dict[str, float]:
        """Learn from `accumulation` batches; numbers to note, `tokens_of_step` among them.

        Raises DivergedError if the loss or the gradient is not finite; the weights are then as they were before.
        """
        config = self.config
        self.model.train()
        factor = schedule_factor(config.schedule, self.steps, config.steps, config.warmup, config.floor)
        total, count, tokens = 0.0, 0, 0
        metrics: dict[str, float] = {}
        self.optimizer.zero_grad(set_to_none=True)
        for number in range(config.accumulation):
            batch = self.problem.batch()
            if number % distributed.processes() != distributed.rank():
                continue  # another process learns from it
            with torch.autocast(self.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
                loss = self.problem.loss(self._called, batch)  # type: ignore[arg-type]
            loss.total.backward()  # type: ignore[no-untyped-call]
            total, count, tokens = total + loss.total.item(), count + loss.count, tokens + loss.tokens
            metrics |= loss.metrics
        if distributed.processes() > 1:
            distributed.sum_gradients([each for group in self.optimizer.param_groups for each in group["params"]])
            sums = distributed.sum_(torch.tensor([total, count, tokens], dtype=torch.float64)).tolist()
            total, count, tokens = sums[0], int(sums[1]), int(sums[2])
        if not count:
            raise RllabError("A batch has no targets left after filtering; look at the data, or make batches larger.")
        gradients = [p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        torch._foreach_mul_(gradients, 1.0 / count)
        norm = float(torch.nn.utils.get_total_norm(gradients))
        if not (math.isfinite(total) and math.isfinite(norm)):
            kept = None if self.run_folder is None else self.run_folder.checkpoints.latest()
            intact = "" if kept is None else f" The checkpoint of step {kept:,} is intact."
            raise DivergedError(
                f"The loss was {total / count:.4g} and the gradient's norm {norm:.4g} in step {self.steps + 1:,}: "
                f"training has diverged.{intact} Lower the learning rate, or clip gradients."
            )
        if config.clip_norm and norm > config.clip_norm:
            torch._foreach_mul_(gradients, config.clip_norm / norm)
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * factor * group["scale"]
        self.optimizer.step()
        if self.average is not None:
            self.average.after_step()
        self.steps += 1
        self.tokens += tokens
        return {
            "loss": total / count, "learning_rate": config.learning_rate * factor, "gradient_norm": norm,
            "tokens_of_step": tokens, **metrics,
        }  # fmt: skip

    def _evaluate(self, row: dict[str, float]) -> bool:
        with self.average.averaged() if self.average is not None else nullcontext():
            self.evaluation = distributed.from_first(self.judged() if distributed.is_first() else {})
            row |= {f"evaluation/{name}": value for name, value in self.evaluation.items()}
            value = self.evaluation[self.problem.goal]
            better = self.best is None or (value > self.best if self.problem.higher_is_better else value < self.best)
            improved = math.isfinite(value) and better
            if improved:
                self.best, self.disappointments = value, 0
                self.best_weights = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
            else:
                self.disappointments += 1
        if self.average is not None:
            self.average.observe(-value if self.problem.higher_is_better else value)
        return improved

    def judged(self) -> dict[str, float]:
        """Evaluate now."""
        self.model.eval()
        with torch.no_grad():
            return self.problem.evaluate(self.model)

    def _patience_ended(self) -> bool:
        return 0 < self.config.patience <= self.disappointments

    def _remember(self, signal_number: int) -> None:
        self._signal = signal_number
        if self._progress is not None:
            self._progress.note("stopping after this step, then saving a checkpoint (Ctrl-C again to stop at once)")

    def save(self, best: bool = False) -> None:
        """Write a checkpoint, if there is a run folder; all processes call it together."""
        state = None if self.run_folder is None and distributed.processes() == 1 else self.state_dict()
        if self.run_folder is not None:
            assert state is not None
            reason = "patience" if self._patience_ended() else None
            self.run_folder.checkpoints.save(self.steps, state, best=best, metadata={"stop_reason": reason})

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on exactly as if never stopped."""
        return {
            "model": self.model.state_dict(),
            "best_weights": self.best_weights,
            "optimizer": self.optimizer.state_dict(),
            "problem": self.problem.state_dict(),
            "random": torch.stack(distributed.gathered(torch.get_rng_state())),
            "average": None if self.average is None else self.average.state_dict(),
            "loop": {
                "steps": self.steps, "tokens": self.tokens, "seconds": self.seconds, "best": self.best,
                "disappointments": self.disappointments,
            },
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.model.load_state_dict(state["model"])
        self.best_weights = state["best_weights"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.problem.load_state_dict(state["problem"])
        generators = state["random"].reshape(-1, torch.get_rng_state().numel())
        if len(generators) == distributed.processes():  # of another number of processes dropout goes on otherwise
            torch.set_rng_state(generators[distributed.rank()].clone())
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        loop = state["loop"]
        self.steps, self.tokens, self.seconds = loop["steps"], loop["tokens"], loop["seconds"]
        self.best, self.disappointments = loop["best"], loop["disappointments"]
        self._resumed = True
