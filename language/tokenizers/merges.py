"""Byte-pair encoding's core: merges learned from the counts of pairs, and applied to the symbols of a word.

Sennrich, Haddow, Birch: Neural Machine Translation of Rare Words with Subword Units (2016), section 3.2. Symbols are
ids here, so the same code serves characters, bytes, and characters with a prefix or suffix.
"""

import heapq
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TypeAlias

from language.tokenizers.tokenizer import Progress

Pair: TypeAlias = tuple[int, int]
"""The ids of two neighbours."""
MergeTable: TypeAlias = dict[Pair, tuple[int, int]]
"""For each pair that is merged: its place in the order of merges, and the id of what it becomes."""

_MERGES_BETWEEN_REPORTS = 100


class CountedPairs:
    """The words of a corpus as lists of symbols, with the count of each pair kept up to date while merges are made."""

    def __init__(self, words: Sequence[list[int]], counts: Sequence[int]) -> None:
        """Count the pairs.

        Args:
            words: the symbols of each different word; changed in place.
            counts: how often each word occurs.
        """
        self.words, self.word_counts = words, counts
        self.counts: defaultdict[Pair, int] = defaultdict(int)
        """How often each pair occurs. That of a merged pair stays what it was (see `learn_merges`)."""
        self.places: defaultdict[Pair, set[int]] = defaultdict(set)
        """The words that hold each pair, and some that do no more."""
        for index, (word, count) in enumerate(zip(words, counts, strict=True)):
            for pair in pairwise(word):
                self.counts[pair] += count
                self.places[pair].add(index)

    def merge(self, pair: Pair, merged: int) -> tuple[set[Pair], int]:
        """Put the symbol `merged` in place of a pair everywhere.

        Gives the pairs that have come about by it, and how often it was done.
        """
        first, second = pair
        counts, places = self.counts, self.places
        new_pairs: set[Pair] = set()
        done = 0
        for index in places.pop(pair, ()):
            word, count = self.words[index], self.word_counts[index]
            position = -1
            try:
                while True:
                    position = word.index(first, position + 1)
                    if position + 1 == len(word) or word[position + 1] != second:
                        continue
                    word[position : position + 2] = (merged,)
                    done += count
                    if position > 0:
                        before = word[position - 1]
                        counts[before, first] -= count
                        left = (before, merged)
                        counts[left] += count
                        places[left].add(index)
                        new_pairs.add(left)
                    if position + 1 < len(word):
                        after = word[position + 1]
                        counts[second, after] -= count
                        right = (merged, after)
                        counts[right] += count
                        places[right].add(index)
                        new_pairs.add(right)
            except ValueError:  # `first` is nowhere in the rest of the word
                continue
        return new_pairs, done


def learn_merges(
    pairs: CountedPairs,
    tokens: list[str],
    size: int,
    join: Callable[[str, str], str],
    minimum_count: int = 1,
    progress: Progress | None = None,
) -> list[Pair]:
    """Merge the most frequent pair, again and again; of equally frequent ones the smallest pair of ids.

    The order, with what follows from it, is that of Hugging Face `tokenizers`: a heap has the counts as they were when
    a pair last grew, and one that has shrunk since goes back with its new count. Two pairs may give the same token
    (`ab c` and `a bc`). Where a pair that was merged before comes about again in that way, its old count is still
    there and it is merged anew, at once; its place in the order is then the later one.

    Args:
        pairs: the words of the corpus; changed.
        tokens: the token of each id so far; new ones are added.
        size: how many tokens there may be.
        join: the token made of two.
        minimum_count: pairs that occur less often are not merged.
        progress: told the number of tokens.

    Returns:
        The merged pairs in their order.
    """
    ids = {token: token_id for token_id, token in enumerate(tokens)}
    merges: dict[Pair, None] = {}
    counts = pairs.counts
    heap = [(-count, pair) for pair, count in counts.items() if count > 0]
    heapq.heapify(heap)
    while len(tokens) < size and heap:
        negative_count, pair = heapq.heappop(heap)
        count = counts[pair]
        if count != -negative_count:
            if count > 0:
                heapq.heappush(heap, (-count, pair))
            continue
        if count < minimum_count:
            break
        if pair not in pairs.places:  # there was a second entry for this pair, which has done everything
            continue
        token = join(tokens[pair[0]], tokens[pair[1]])
        merged = ids.setdefault(token, len(tokens))
        if merged == len(tokens):
            tokens.append(token)
        merges.pop(pair, None)
        merges[pair] = None
        new_pairs, _ = pairs.merge(pair, merged)
        for new_pair in new_pairs:
            if (count := counts[new_pair]) > 0:
                heapq.heappush(heap, (-count, new_pair))
        if progress is not None and len(tokens) % _MERGES_BETWEEN_REPORTS == 0:
            progress("merging pairs", len(tokens), size)
    return list(merges)


def merge_table(
    merges: Sequence[tuple[str, str]], vocabulary: Mapping[str, int], join: Callable[[str, str], str]
) -> MergeTable:
    """What `apply_merges` needs, from merges as tokens. Raises KeyError with a token that the vocabulary lacks."""
    return {
        (vocabulary[first], vocabulary[second]): (rank, vocabulary[join(first, second)])
        for rank, (first, second) in enumerate(merges)
    }


def apply_merges(symbols: Sequence[int], merges: MergeTable) -> list[tuple[int, int]]:
    """Merge the pair that was learned first, wherever it stands leftmost, until there is none to merge.

    Takes time n log n for n symbols, so that text without any space does no harm.

    Args:
        symbols: the ids that a word begins as.
        merges: the pairs that are merged.

    Returns:
        The ids that it ends as, and how many of the symbols each covers.
    """
    count = len(symbols)
    ids = list(symbols)
    following = list(range(1, count + 1))  # a linked list: where the next symbol is
    preceding = list(range(-1, count - 1))
    heap = [
        (merges[pair][0], position)
        for position, pair in enumerate(pairwise(ids))
        if pair in merges
    ]  # fmt: skip
    heapq.heapify(heap)
    while heap:
        rank, position = heapq.heappop(heap)
        after = following[position]
        if ids[position] < 0 or after == count:
            continue
        found = merges.get((ids[position], ids[after]))
        if found is None or found[0] != rank:  # one of the two has gone into another merge
            continue
        merged = ids[position] = found[1]
        ids[after] = -1
        beyond = following[position] = following[after]
        if beyond < count:
            preceding[beyond] = position
            if found := merges.get((merged, ids[beyond])):
                heapq.heappush(heap, (found[0], position))
        before = preceding[position]
        if before >= 0 and (found := merges.get((ids[before], merged))):
            heapq.heappush(heap, (found[0], before))
    return [
        (token_id, following[position] - position) for position, token_id in enumerate(ids) if token_id >= 0
    ]  # fmt: skip
