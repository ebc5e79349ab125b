"""Where Atari's games show scores and lives: what neither a person nor a reward model may read.

Christiano et al. 2017 (appendix A) blanked the score, lest the reward be learned from the digits. The places were found
by looking at the games' frames. Where a moving thing shares the place (Space Invaders' saucer), it is hidden too.
"""

import math
import warnings
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

HEIGHT, WIDTH = 210, 160
"""Of the console's picture, in whose pixels the regions are given here."""

Region = tuple[int, int, int, int]
"""Top, bottom, left and right; bottom and right exclusive."""

_REGIONS: dict[str, list[Region]] = {
    "alien": [(174, 195, 0, 160)],
    "amidar": [(173, 187, 0, 160)],
    "assault": [(0, 13, 0, 160), (190, 203, 0, 92)],
    "asterix": [(167, 200, 0, 160)],
    "bank_heist": [(177, 188, 0, 160), (12, 37, 80, 148)],
    "battle_zone": [(178, 198, 0, 160)],
    "beam_rider": [(7, 31, 0, 160), (31, 43, 0, 40), (181, 191, 20, 75)],
    "boxing": [(3, 15, 0, 160)],
    "breakout": [(0, 17, 0, 160)],
    "chopper_command": [(15, 35, 0, 160)],
    "crazy_climber": [(12, 42, 0, 160)],
    "demon_attack": [(3, 18, 0, 160), (187, 195, 10, 75)],
    "enduro": [(160, 193, 0, 160)],
    "freeway": [(4, 15, 0, 160)],
    "frostbite": [(7, 32, 0, 160)],
    "gopher": [(8, 21, 0, 160)],
    "hero": [(151, 189, 0, 160)],
    "jamesbond": [(13, 24, 0, 160), (182, 191, 0, 160)],
    "kangaroo": [(181, 204, 0, 160)],
    "kung_fu_master": [(8, 40, 0, 160)],
    "montezuma_revenge": [(3, 22, 0, 160)],
    "ms_pacman": [(172, 210, 0, 160)],
    "name_this_game": [(179, 192, 0, 160)],
    "pong": [(0, 24, 0, 160)],
    "qbert": [(3, 17, 0, 160), (17, 31, 0, 66)],
    "riverraid": [(163, 175, 0, 160), (190, 202, 48, 70)],
    "seaquest": [(7, 32, 0, 160)],
    "space_invaders": [(8, 21, 0, 160)],
    "tennis": [(4, 15, 0, 160)],
    "up_n_down": [(3, 16, 0, 160), (194, 210, 0, 60)],
}

GAMES = frozenset(_REGIONS)
"""Those whose regions are known, by the names of their ROMs, such as `ms_pacman`."""


class UnknownGameWarning(UserWarning):
    """It is not known where a game shows its score."""


def missing_regions(game: str) -> str | None:
    """A warning for a game whose score cannot be hidden, since nobody has said where it is; None for the others."""
    if game in _REGIONS:
        return None
    return (
        f"Where '{game}' shows its score is not known here, so that people and reward models can read it: add its "
        "regions to preference/score_regions.py."
    )


@cache
def visible(game: str, height: int = 84, width: int = 84) -> NDArray[np.bool_]:
    """Which pixels of the whole screen, shrunk or stretched to a size, show no part of the score `[height, width]`.

    All of an unknown game's do.
    """
    mask = np.ones((height, width), np.bool_)
    for top, bottom, left, right in _REGIONS.get(game, ()):
        rows = slice(math.floor(top * height / HEIGHT), math.ceil(bottom * height / HEIGHT))
        columns = slice(math.floor(left * width / WIDTH), math.ceil(right * width / WIDTH))
        mask[rows, columns] = False
    mask.flags.writeable = False
    return mask


def blank(frames: NDArray[np.uint8], game: str) -> NDArray[np.uint8]:
    """Frames `[..., height, width, 3]` of the whole screen with scores and lives painted over in black, copied.

    Of a game whose regions are not known they are the same, and a warning says so.
    """
    _warn_of_unknown(game)
    masked: NDArray[np.uint8] = frames * visible(game, *frames.shape[-3:-1])[..., None]
    return masked


def blank_observations(observations: NDArray[Any], game: str) -> NDArray[Any]:
    """Grey observations `[..., height, width]` of the whole screen, such as stacks of 84 × 84, painted over by zeros.

    Of an unknown game, as `blank`.
    """
    _warn_of_unknown(game)
    masked: NDArray[Any] = observations * visible(game, *observations.shape[-2:])
    return masked


def _warn_of_unknown(game: str) -> None:
    if (sentence := missing_regions(game)) is not None:
        warnings.warn(sentence, UnknownGameWarning, stacklevel=3)
