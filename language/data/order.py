"""Deterministic orders and splits of texts: by a seed, the same on every machine and in every process."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np

from envs.errors import RllabError

Item = TypeVar("Item")


def shuffled(items: Sequence[Item], seed: int) -> list[Item]:
    """The items in an order that the seed decides, each order equally probable."""
    return [items[index] for index in np.random.default_rng(seed).permutation(len(items))]


def shuffled_stream(items: Iterable[Item], seed: int, buffer: int = 10_000) -> Iterator[Item]:
    """The items of a stream, each exchanged for a random one of a buffer: an item moves forward by `buffer` at most.

    Args:
        items: any iterable, which need not fit into memory.
        seed: decides the order.
        buffer: how many items are held.

    Raises:
        RllabError: the buffer holds nothing.
    """
    if buffer < 1:
        raise RllabError(f"The buffer of a shuffle must hold at least 1 item, not {buffer}.")
    generator = np.random.default_rng(seed)
    held: list[Item] = []
    for item in items:
        if len(held) < buffer:
            held.append(item)
            continue
        place = int(generator.integers(buffer))
        yield held[place]
        held[place] = item
    for index in generator.permutation(len(held)):
        yield held[index]


def split_of(text: str, shares: Mapping[str, float], seed: int = 0) -> str:
    """The part that a text belongs to, by a hash of its content and the seed.

    So equal texts are never on both sides of a split, and texts that are added later move no other.

    Args:
        text: what is hashed.
        shares: parts by name, and their shares, which add up to 1.
        seed: another seed is another, independent split.

    Raises:
        RllabError: the shares are not positive, or do not add up to 1.
    """
    if not shares or min(shares.values()) < 0 or abs(sum(shares.values()) - 1) > 1e-9:
        raise RllabError(f"The shares of a split must be at least 0 and add up to 1, not {dict(shares)}.")
    content = text.encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(content, digest_size=8, key=str(seed).encode()).digest()
    position = int.from_bytes(digest, "big") / 2**64
    reached = 0.0
    for name, share in shares.items():
        reached += share
        if position < reached:
            return name
    return max(shares, key=shares.__getitem__)  # the shares' sum was rounded below 1


def split(
    items: Iterable[Item], shares: Mapping[str, float], seed: int = 0, *, text_of: Callable[[Item], str] = str
) -> dict[str, list[Item]]:
    """Items by the part that `split_of` gives each, in their order.

    Args:
        items: texts, or anything that has one.
        shares: parts by name, and their shares, which add up to 1; each part's size is near its share.
        seed: another seed is another, independent split.
        text_of: the text of an item that decides, such as `lambda review: review.text`.

    Raises:
        RllabError: the shares are not positive, or do not add up to 1.
    """
    parts: dict[str, list[Item]] = {name: [] for name in shares}
    for item in items:
        parts[split_of(text_of(item), shares, seed)].append(item)
    return parts
