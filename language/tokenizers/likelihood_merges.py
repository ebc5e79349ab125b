"""WordPiece's own choice of merges: the pair that is most frequent for how frequent its two parts are.

Schuster, Nakajima: Japanese and Korean Voice Search (2012), section 3, merges the pair that raises the likelihood of
the corpus most. The usual reading of it, followed here, scores a pair by freq(pair) / (freq(first) · freq(second)).
"""

import heapq
from collections import defaultdict
from collections.abc import Callable

from language.tokenizers.merges import CountedPairs, Pair
from language.tokenizers.tokenizer import Progress

_MERGES_BETWEEN_REPORTS = 100


def learn_likelihood_merges(
    pairs: CountedPairs,
    tokens: list[str],
    size: int,
    join: Callable[[str, str], str],
    minimum_count: int = 1,
    progress: Progress | None = None,
) -> None:
    """Merge the pair of the highest score, again and again; of equal ones the smallest pair of ids.

    A merge changes the scores of all pairs that its two parts are in, upwards too. These go on the heap again, and
    entries with a score of before are passed over.

    Args:
        pairs: the words of the corpus; changed.
        tokens: the token of each id so far; new ones are added.
        size: how many tokens there may be.
        join: the token made of two.
        minimum_count: pairs that occur less often are not merged.
        progress: told the number of tokens.
    """
    ids = {token: token_id for token_id, token in enumerate(tokens)}
    counts = pairs.counts
    frequency: defaultdict[int, int] = defaultdict(int)
    for word, count in zip(pairs.words, pairs.word_counts, strict=True):
        for symbol in word:
            frequency[symbol] += count
    pairs_of: defaultdict[int, set[Pair]] = defaultdict(set)
    for pair in counts:
        for symbol in pair:
            pairs_of[symbol].add(pair)

    def score(pair: Pair) -> float:
        # The quotient of two whole numbers is rounded once, so equal scores are equal exactly.
        return counts[pair] / (frequency[pair[0]] * frequency[pair[1]])

    heap = [(-score(pair), pair) for pair in counts]
    heapq.heapify(heap)
    while len(tokens) < size and heap:
        negative_score, pair = heapq.heappop(heap)
        if counts[pair] < minimum_count or counts[pair] <= 0 or score(pair) != -negative_score:
            continue
        token = join(tokens[pair[0]], tokens[pair[1]])
        merged = ids.setdefault(token, len(tokens))
        if merged == len(tokens):
            tokens.append(token)
        new_pairs, done = pairs.merge(pair, merged)
        counts[pair] -= done
        frequency[merged] += done
        for symbol in pair:
            frequency[symbol] -= done
        for new_pair in new_pairs:
            for symbol in new_pair:
                pairs_of[symbol].add(new_pair)
        for symbol in {*pair, merged}:
            pairs_of[symbol] = {other for other in pairs_of[symbol] if counts[other] > 0}
            for other in pairs_of[symbol]:
                heapq.heappush(heap, (-score(other), other))
        if progress is not None and len(tokens) % _MERGES_BETWEEN_REPORTS == 0:
            progress("merging pairs", len(tokens), size)
