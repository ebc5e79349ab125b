"""Several processes that train one model together, started by `torchrun`: what they tell one another.

    torchrun --nproc-per-node 4 -m rllab language pretrain gpt … --accumulation 4

Each process holds the whole model and learns from its share of the data; gradients are summed, so that all take the
same steps. The first process (rank 0) alone prints, evaluates and writes. In a process by itself everything here is
the identity.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch import distributed as dist

from envs.errors import RllabError
from rllab.launched import TOGETHER, launched_processes

Value = TypeVar("Value")


class LostError(RllabError):
    """Another process is gone."""


PATIENCE = timedelta(hours=2)
"""How long one process waits for the others, such as for the first one's evaluation."""


def processes() -> int:
    """How many train together; 1 outside of `joined`."""
    return TOGETHER.processes


def rank() -> int:
    """The number of this process among them, from 0."""
    return TOGETHER.rank


def is_first() -> bool:
    """Whether this is the process that prints, evaluates and writes."""
    return rank() == 0


@contextmanager
def joined() -> Iterator[None]:
    """Meet the other processes that torchrun started, and part from them at the end; without torchrun do nothing.

    On a machine with a GPU for each process that takes the one of its number; `cuda` then means that one.

    Raises:
        RllabError: the others cannot be met, or one of them is gone.
    """
    if launched_processes() == 1 or processes() > 1:
        yield
        return
    if dist.is_initialized():
        raise RllabError("This program has met other processes by torch.distributed already; let rllab do it alone.")
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if local < torch.cuda.device_count():
        torch.cuda.set_device(local)
    try:
        # gloo carries what lies in main memory, nccl what lies on GPUs.
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise RllabError(
            f"The processes cannot meet ({str(error).splitlines()[0]}); start them by torchrun."
        ) from error
    TOGETHER.processes, TOGETHER.rank = dist.get_world_size(), dist.get_rank()
    try:
        yield
    except RuntimeError as error:
        # How gloo and nccl tell that a process is gone; what ended that one is what matters.
        if "onnection" not in str(error):
            raise
        raise LostError("Another of the processes that train together is gone.") from error
    finally:
        TOGETHER.processes, TOGETHER.rank = 1, 0
        dist.destroy_process_group()


@contextmanager
def awaited() -> Iterator[None]:
    """What the first process finishes while the others wait in `from_first`, before all of them end."""
    try:
        yield
    finally:
        from_first(None)


@contextmanager
def announced(what: Any) -> Iterator[None]:
    """In the first process: what must be done before the others go on, which are then told `what`.

    They wait in `await_first`. An RllabError is raised there too.
    """
    try:
        yield
    except RllabError as error:
        from_first((str(error), None))
        raise
    from_first((None, what))


def await_first() -> Any:
    """In the others: wait for the end of `announced`; what the first process tells. Raises RllabError if it did."""
    failed, what = from_first((None, None))
    if failed is not None:
        raise RllabError(failed)
    return what


def require_alone(what: str) -> None:
    """Raise RllabError where there are several processes and `what` (a clause such as "X runs") needs one."""
    if processes() > 1:
        raise RllabError(f"{what} in one process; start it without torchrun.")


def share(count: int, what: str) -> int:
    """The part of `count` things that each process has. Raises RllabError if they do not divide."""
    if count % processes():
        raise RllabError(
            f"{what} {count} does not divide among {processes()} processes; choose a multiple of {processes()}."
        )
    return count // processes()


def own_seed(seed: int) -> int:
    """A seed for this process alone, for what must not be alike in all of them; without others the seed itself."""
    return int(np.random.SeedSequence([seed, rank()]).generate_state(1)[0]) if processes() > 1 else seed


def sum_(tensor: Tensor) -> Tensor:
    """Put the sum over all processes in place of a tensor, which has the same shape in all of them."""
    if processes() > 1:
        dist.all_reduce(tensor)
    return tensor


def mean_(tensor: Tensor) -> Tensor:
    """Put the mean over all processes in place of a tensor."""
    return sum_(tensor).div_(processes()) if processes() > 1 else tensor


def mean(value: float) -> float:
    """The mean of a number over all processes."""
    return float(mean_(torch.tensor(value, dtype=torch.float64))) if processes() > 1 else value


def any_of(flag: bool) -> bool:
    """Whether it is true in any process."""
    return bool(sum_(torch.tensor(int(flag)))) if processes() > 1 else flag


def gathered(value: Value) -> list[Value]:
    """Everyone's, by rank, in every process."""
    found: list[Any] = [value] * processes()
    if processes() > 1:
        dist.all_gather_object(found, value)
    return found


def from_first(value: Value) -> Value:
    """What the first process has, in every process."""
    found = [value]
    if processes() > 1:
        dist.broadcast_object_list(found, src=0)
    return found[0]


def sum_gradients(parameters: list[nn.Parameter]) -> None:
    """Put the sum of each gradient over all processes in its place; where one has none, it counts as 0.

    All gradients of a kind of number travel together: one message costs less than hundreds.
    """
    if processes() == 1 or not parameters:
        return
    exists = sum_(torch.tensor([int(each.grad is not None) for each in parameters]))
    present = [each for each, count in zip(parameters, exists.tolist(), strict=True) if count]
    for each in present:
        if each.grad is None:
            each.grad = torch.zeros_like(each)
    by_kind: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for each in present:
        assert each.grad is not None
        by_kind.setdefault((each.grad.dtype, each.grad.device), []).append(each.grad)
    for gradients in by_kind.values():
        flat = sum_(torch.cat([gradient.reshape(-1) for gradient in gradients]))
        for gradient, summed in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(summed.view_as(gradient))


def share_weights(module: nn.Module) -> None:
    """Give every process the first one's weights and buffers."""
    if processes() > 1:
        for tensor in module.state_dict().values():
            if isinstance(tensor, Tensor):
                dist.broadcast(tensor, src=0)
