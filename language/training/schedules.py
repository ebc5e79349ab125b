"""Learning rates over the steps of a training, as factors of the highest."""

import math
from typing import Literal, TypeAlias, get_args

from envs.errors import RllabError

Schedule: TypeAlias = Literal["constant", "linear", "cosine", "noam", "slanted"]
"""After the warm-up: stay, fall in a line, as a cosine, or as the inverse root of the step; or ULMFiT's triangle."""


def schedule_factor(schedule: Schedule, step: int, steps: int, warmup: int, floor: float = 0.0) -> float:
    """What the highest learning rate is multiplied by in a step.

    `noam` is Vaswani et al. 2017, section 5.3: their rate d^-½ · min(s^-½, s·w^-1.5) is this factor times its highest,
    `noam_peak`. `slanted` is Howard and Ruder 2018, section 3.2, whose warm-up is a tenth of the steps and whose floor
    is 1/32 (their `cut_frac` and `ratio`).

    Args:
        schedule: its name.
        step: counted from 0.
        steps: of the training.
        warmup: steps in which it rises in a line from nearly 0.
        floor: the lowest factor, that of the end.
    """
    done = step + 1
    if schedule == "slanted":
        cut = max(warmup, 1)
        share = done / cut if done < cut else 1 - (done - cut) / max(steps - cut, 1)
        return floor + (1 - floor) * share
    if schedule == "noam":
        warmup = max(warmup, 1)
        return min(done / warmup, math.sqrt(warmup / done))
    if done <= warmup:
        return done / warmup
    left = 1 - (done - warmup) / max(steps - warmup, 1)
    if schedule == "constant":
        return 1.0
    if schedule == "linear":
        return floor + (1 - floor) * left
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * (1 - left)))


def noam_peak(width: int, warmup: int) -> float:
    """The highest learning rate of the paper's formula, (width · warmup)^-½: 6.99e-4 for base."""
    return float((width * warmup) ** -0.5)


def check_schedule(schedule: str, warmup: int, floor: float) -> None:
    """Raise RllabError if a schedule makes no sense."""
    if schedule not in get_args(Schedule):
        raise RllabError(f"There is no schedule '{schedule}'; there are {', '.join(get_args(Schedule))}.")
    if warmup < 0 or not 0 <= floor < 1:
        raise RllabError(
            f"A schedule needs a warm-up of 0 steps or more and a floor from 0 to below 1, not {warmup} and {floor}."
        )
