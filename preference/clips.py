"""Clips: rollouts cut into short stretches of one episode each, and the pool of them that questions are drawn from."""

import uuid
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.errors import RllabError
from preference.comparisons import Clip, content_id
from preference.inputs import Reads, StepReader
from rllab.rollout import Rollout

CLIP_SECONDS = 1.5
"""How long a clip is where nothing else is said (Christiano et al. 2017, section 2.2.2: "between 1 and 2 seconds")."""

Arrays = dict[str, NDArray[Any]]
_COLUMNS = "columns"


def clip_length(fps: float, seconds: float = CLIP_SECONDS) -> int:
    """L, the steps of a clip of so many seconds in the environment's own time."""
    return max(1, round(fps * seconds))


class ClipCutter:
    """Cuts rollouts into clips, going on where the one before ended.

    Every step of an episode gets into a clip. Clips have L steps and do not overlap, but for an episode's last one,
    which reaches back to have L steps too; an episode shorter than L is one shorter clip. Columns that only reset are
    no steps.
    """

    def __init__(
        self, reader: StepReader, rows: int, length: int, *, reads: Reads = "observation_action", run: str = ""
    ) -> None:
        """`rows`: N, of the rollouts; `length`: L; `run`: a UUID that the ids are made from."""
        if length < 1:
            raise RllabError(f"clips must have at least 1 step, not {length}")
        self.reader, self.length, self.reads, self.run = reader, length, reads, run
        self._tails: list[Arrays] = [{} for _ in range(rows)]
        """The last steps of each row's running episode, at most 2L − 1."""
        self._fresh = np.zeros(rows, np.int64)
        """How many of them are in no clip yet."""
        self._columns = 0
        """Of all rollouts so far; a column is a step of the vector environment, those that only reset included."""

    def cut(self, rollout: Rollout, policy_step: int) -> list[Clip]:
        """The clips that a rollout completes, made by the policy that had trained for `policy_step` steps.

        A clip's details say where it was cut: `row`, and `column`, that of its first step among those of all rollouts.
        """
        arrays = self.reader.arrays(rollout, self.reads)
        arrays["rewards"] = rollout.environment_rewards.cpu().numpy()
        valid = rollout.valid.cpu().numpy()
        arrays[_COLUMNS] = np.broadcast_to(self._columns + np.arange(valid.shape[1]), valid.shape)
        self._columns += valid.shape[1]
        done = (rollout.terminated | rollout.truncated).cpu().numpy()
        clips: list[Clip] = []
        for row in range(len(valid)):
            columns = np.flatnonzero(valid[row])
            ends = np.flatnonzero(done[row, columns]) + 1
            start = 0
            for end in [*ends.tolist(), len(columns)]:
                piece = {name: array[row, columns[start:end]] for name, array in arrays.items()}
                over = bool(end in ends)
                clips += [self._clip(part, policy_step, row) for part in self._extend(row, piece, end - start, over)]
                start = end
        return clips

    def _extend(self, row: int, piece: Arrays, steps: int, over: bool) -> list[Arrays]:
        """Add steps to a row's episode; the clips that are complete now."""
        tail = self._tails[row]
        joined = {name: np.concatenate([tail[name], new]) if tail else new for name, new in piece.items()}
        total = len(joined["rewards"])
        fresh, complete = int(self._fresh[row]) + steps, []
        while fresh >= self.length:
            stop = total - fresh + self.length
            complete.append((stop - self.length, stop))
            fresh -= self.length
        if over:
            if fresh:
                complete.append((max(0, total - self.length), total))
            self._tails[row], self._fresh[row] = {}, 0
        else:
            keep = max(0, total - (fresh + self.length - 1))
            self._tails[row] = {name: array[keep:].copy() for name, array in joined.items()}
            self._fresh[row] = fresh
        return [{name: array[first:last].copy() for name, array in joined.items()} for first, last in complete]

    def _clip(self, arrays: Arrays, policy_step: int, row: int) -> Clip:
        details = {"row": row, "column": int(arrays.pop(_COLUMNS)[0])}
        context = f"{policy_step} {row} {details['column']}"
        identity = content_id(uuid.UUID(self.run), arrays, context) if self.run else uuid.uuid4()
        return Clip(identity, arrays, self.run, policy_step, details)

    @property
    def earliest_column(self) -> int:
        """The first column that clips to come may reach back to."""
        return min((int(tail[_COLUMNS][0]) for tail in self._tails if tail), default=self._columns)

    def forget(self) -> None:
        """Drop the running episodes, whose rest will not come."""
        self._tails = [{} for _ in self._tails]
        self._fresh[:] = 0

    def state_dict(self) -> dict[str, Any]:
        """The rows' running episodes."""
        tails = {str(row): tail for row, tail in enumerate(self._tails)}
        return {"tails": tails, "fresh": self._fresh, "columns": self._columns}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self._tails = [dict(state["tails"][str(row)]) for row in range(len(self._tails))]
        self._fresh, self._columns = np.array(state["fresh"]), int(state["columns"])


class ClipPool:
    """The newest clips, as arrays of their own: what questions are drawn from and rewards are normalised over."""

    def __init__(self, capacity: int) -> None:
        """`capacity`: how many clips are kept."""
        self.capacity = capacity
        self.clips: list[Clip] = []

    def __len__(self) -> int:
        return len(self.clips)

    def add(self, clips: Sequence[Clip]) -> None:
        """Take clips in, letting the oldest go."""
        self.clips = [*self.clips, *clips][-self.capacity :]

    @property
    def newest_policy_step(self) -> int:
        """What the policy had trained for that played the oldest clip of the newest quarter."""
        recent = self.clips[-max(2, len(self.clips) // 4) :]
        return recent[0].policy_step if recent else 0

    def draw_pairs(
        self, count: int, generator: np.random.Generator, newest: float, known: Set[frozenset[str]] = frozenset(),
        *, held_out: Callable[[Clip], bool] = lambda clip: False, share: float = 0.0,
    ) -> list[tuple[Clip, Clip]]:  # fmt: skip
        """Up to `count` random pairs of different clips, no two the same and none in `known`, whichever way round.

        A share `newest` of them is drawn among the newest quarter of the pool, and `share` among the clips that are
        `held_out`, the others among those that are not, as far as there are two of a kind. Fewer than two clips make
        no pair.
        """
        total = len(self.clips)
        if total < 2:
            return []
        recent = max(2, total // 4)
        from_recent, from_held_out = generator.random(count) < newest, generator.random(count) < share
        draws = generator.random((2, count))
        out = np.array([held_out(clip) for clip in self.clips])
        sides = [side for side in (np.flatnonzero(~out), np.flatnonzero(out)) if len(side) > 1] or [np.arange(total)]
        first, second = np.empty(count, np.int64), np.empty(count, np.int64)
        for is_recent in (False, True):
            for is_held_out in (False, True):
                chosen = (from_recent == is_recent) & (from_held_out == is_held_out)
                side = sides[min(int(is_held_out), len(sides) - 1)]
                span = side[side >= total - recent] if is_recent else side
                span = span if len(span) > 1 else side
                index = (draws[0, chosen] * len(span)).astype(np.int64)
                # Another clip of the same span: an offset of 1 … length − 1 around the circle.
                offset = 1 + (draws[1, chosen] * (len(span) - 1)).astype(np.int64)
                first[chosen], second[chosen] = span[index], span[(index + offset) % len(span)]
        pairs: dict[frozenset[str], tuple[Clip, Clip]] = {}
        for a, b in zip(first, second, strict=True):
            pair = self.clips[a], self.clips[b]
            if (key := pair_key(*pair)) not in known:
                pairs.setdefault(key, pair)
        return list(pairs.values())

    def state_dict(self) -> dict[str, Any]:
        """The clips themselves: most of them are in no store."""
        return {"clips": {str(i): clip_state(clip) for i, clip in enumerate(self.clips)}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.clips = [clip_of(state["clips"][str(i)]) for i in range(len(state["clips"]))]


def pair_key(first: Clip, second: Clip) -> frozenset[str]:
    """What a pair is known by, whichever way round."""
    return frozenset((str(first.id), str(second.id)))


def clip_state(clip: Clip) -> dict[str, Any]:
    """A clip as a state tree."""
    return {
        "id": str(clip.id), "arrays": dict(clip.arrays), "run": clip.run, "policy_step": clip.policy_step,
        "details": dict(clip.details), "created": clip.created,
    }  # fmt: skip


def clip_of(state: Mapping[str, Any]) -> Clip:
    """The inverse of `clip_state`."""
    return Clip(
        uuid.UUID(state["id"]), dict(state["arrays"]), state["run"], state["policy_step"], dict(state["details"]),
        state["created"],
    )  # fmt: skip
