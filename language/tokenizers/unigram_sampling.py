"""Subword regularisation: other segmentations of a text than the best, drawn at random or in order.

Kudo: Subword Regularization (2018), sections 3.2 and 3.3: a segmentation is drawn with probability proportional to
P(segmentation)^alpha, from all there are (forward filtering, backward sampling) or from the best few.
"""

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from envs.errors import RllabError
from language.tokenizers.pipeline import Piece, Splitting
from language.tokenizers.special import SpecialTokenMatcher
from language.tokenizers.unigram_model import Edge, UnigramModel

Scored = tuple[float, tuple[int, ...]]
"""The log-probability of a segmentation, and its ids."""


def best_segmentations(edges: Sequence[Sequence[Edge]], count: int) -> list[tuple[float, list[Piece]]]:
    """The `count` most probable paths through a lattice, the best first, with their log-probabilities."""
    # For each place: score, place before, rank of the path there, id.
    paths: list[list[tuple[float, int, int, int]]] = [[(0.0, 0, 0, 0)]]
    for ending in edges:
        candidates = [
            (score + edge.score, edge.begin, rank, edge.token_id)
            for edge in ending
            for rank, (score, _, _, _) in enumerate(paths[edge.begin])
        ]
        paths.append(sorted(candidates, key=lambda candidate: -candidate[0])[:count])
    found = []
    for final, (score, _, _, _) in enumerate(paths[-1]):
        pieces, end, rank = [], len(edges), final
        while end:
            _, begin, before, token_id = paths[end][rank]
            pieces.append((token_id, begin, end))
            end, rank = begin, before
        found.append((score, pieces[::-1]))
    return found


def sampled_segmentation(
    edges: Sequence[Sequence[Edge]], generator: np.random.Generator, alpha: float
) -> list[Piece]:  # fmt: skip
    """A path through a lattice, drawn with probability proportional to its own to the power `alpha`."""
    forward = [0.0]
    shares: list[list[float]] = []
    for ending in edges:
        values = [forward[edge.begin] + alpha * edge.score for edge in ending]
        highest = max(values, default=-math.inf)
        if highest == -math.inf:
            forward.append(-math.inf)
            shares.append([])
            continue
        weights = [math.exp(value - highest) for value in values]
        total = math.fsum(weights)
        forward.append(highest + math.log(total))
        shares.append([weight / total for weight in weights])
    pieces, end = [], len(edges)
    while end:
        chance = generator.random()
        for edge, share in zip(edges[end - 1], shares[end - 1], strict=True):
            chance -= share
            chosen = edge
            if chance < 0:
                break
        pieces.append((chosen.token_id, chosen.begin, end))
        end = chosen.begin
    return pieces[::-1]


@dataclass(frozen=True)
class Regulariser:
    """Segmentations of texts other than the best."""

    model: UnigramModel
    """The pieces."""
    splitting: Splitting
    """How texts become words."""
    matcher: SpecialTokenMatcher
    """Finds special tokens, of which there is always one segmentation."""
    express: Callable[[str, list[Piece]], list[Piece]]
    """Puts tokens in place of unknown characters, given the word."""

    def _stretches(self, text: str) -> list[str | int]:
        """The words of a text, and the ids of special tokens between them."""
        found: list[str | int] = []
        for start, end, special in self.matcher.split(text):
            found += self.splitting.words(text[start:end]) if special is None else [special]
        return found

    def _ids(self, word: str, pieces: list[Piece]) -> tuple[int, ...]:
        return tuple(token_id for token_id, _, _ in self.express(word, pieces))

    def best(self, text: str, count: int) -> list[tuple[list[int], float]]:
        """The `count` most probable segmentations, the best first: ids, and the log-probability.

        Raises RllabError if `count` is not positive.
        """
        if count < 1:
            raise RllabError(f"The number of segmentations must be at least 1, not {count}.")
        texts: list[Scored] = [(0.0, ())]
        known: dict[str, list[Scored]] = {}
        for part in self._stretches(text):
            if isinstance(part, int):
                texts = [(score, (*ids, part)) for score, ids in texts]
                continue
            if part not in known:
                segmentations = best_segmentations(self.model.edges(part), count)
                known[part] = [(score, self._ids(part, pieces)) for score, pieces in segmentations]
            pairs = [
                (before + score, a, b)
                for a, (before, _) in enumerate(texts)
                for b, (score, _) in enumerate(known[part])
            ]  # fmt: skip
            chosen = heapq.nsmallest(count, pairs, key=lambda pair: -pair[0])
            texts = [(score, texts[a][1] + known[part][b][1]) for score, a, b in chosen]
        return [(list(ids), score) for score, ids in texts]

    def sample(
        self, text: str, generator: np.random.Generator, alpha: float, candidates: int | None = None
    ) -> list[int]:
        """The ids of a segmentation that is drawn at random.

        Args:
            text: what to encode.
            generator: the source of randomness.
            alpha: 1 draws by the model's own probabilities, 0 all alike, a large one nearly always the best.
            candidates: draw from so many of the most probable segmentations; by default from all.

        Raises:
            RllabError: `alpha` is negative, or `candidates` not positive.
        """
        if not 0 <= alpha < math.inf:
            raise RllabError(f"alpha must not be negative, but it is {alpha}; 0.1 to 0.5 is usual.")
        if candidates is not None:
            best = self.best(text, candidates)
            weights = np.exp(alpha * (np.array([score for _, score in best]) - best[0][1]))
            return best[generator.choice(len(best), p=weights / weights.sum())][0]
        ids: list[int] = []
        for part in self._stretches(text):
            if isinstance(part, int):
                ids.append(part)
            else:
                ids += self._ids(part, sampled_segmentation(self.model.edges(part), generator, alpha))
        return ids
