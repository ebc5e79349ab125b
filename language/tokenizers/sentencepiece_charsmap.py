"""The character maps of sentencepiece's models: which characters become which, as a trie in a double array.

A map replaces, from left to right, the longest string that it knows by another. The trie has the layout of darts-clone
(Yata), which sentencepiece uses; its values are places in a list of the replacements.
"""

import re
import struct
import sys
import unicodedata
from collections.abc import Mapping
from functools import cache

import numpy as np

from envs.errors import RllabError
from language.tokenizers.normalisation import Aligned

_NO_UNIT = 1 << 31  # matches no byte, since that bit is part of what is compared
_ROOT = 0


class Charsmap:
    """What a model does to characters."""

    def __init__(self, data: bytes) -> None:
        """Use the map of a model, not empty. Raises RllabError if it is damaged."""
        try:
            [size] = struct.unpack_from("<I", data)
            self.data = data
            self._units: list[int] = np.frombuffer(data, "<u4", size // 4, offset=4).tolist()
            self._values = data[4 + size :]
            self._values.decode()
        except (struct.error, ValueError) as error:
            raise RllabError(f"The model's map of characters is damaged ({error}).") from error
        # Characters with which no key begins, found while going along.
        self._inert = {chr(code) for code in range(128) if self._walk(chr(code)) is None}
        changed = [chr(code) for code in range(128) if self._longest_at(chr(code), 0) is not None]
        # Where a replacement may begin: most characters of English text are passed over by the pattern.
        self._candidate = re.compile(
            rf"[{re.escape(''.join(changed))}\x80-\U0010ffff]|.(?=[\x80-\U0010ffff])", re.DOTALL
        )

    def __call__(self, text: str) -> str:
        """The text after the replacements."""
        return self.aligned(text).text if self._candidate.search(text) else text

    def aligned(self, text: str) -> Aligned:
        """The text after the replacements, and where each of its characters comes from."""
        parts: list[str] = []
        starts: list[int] = []
        ends: list[int] = []
        position = kept = 0
        while match := self._candidate.search(text, position):
            begin = match.start()
            found = None if text[begin] in self._inert else self._longest_at(text, begin)
            position = begin + 1
            if found is None:
                continue
            replacement, position = found
            parts += [text[kept:begin], replacement]
            starts += [*range(kept, begin), *([begin] * len(replacement))]
            ends += [*range(kept + 1, begin + 1), *([position] * len(replacement))]
            kept = position
        parts.append(text[kept:])
        starts += range(kept, len(text))
        ends += range(kept + 1, len(text) + 1)
        return Aligned("".join(parts), starts, ends)

    def _longest_at(self, text: str, begin: int) -> tuple[str, int] | None:
        """What becomes of the longest key that `text` has at a place, and where it ends."""
        node, found = self._base(_ROOT), None
        for end in range(begin, len(text)):
            step = self._walk(text[end], node)
            if step is None:
                if end == begin:
                    self._inert.add(text[begin])
                break
            node, value = step
            if value is not None:
                found = value, end + 1
        return found

    def _walk(self, character: str, node: int | None = None) -> tuple[int, str | None] | None:
        """Go on by a character from a node (by default the root): the next one, and the value of a key ending there."""
        units, place, unit = self._units, 0, 0
        base = self._base(_ROOT) if node is None else node
        for byte in character.encode("utf-8", "surrogatepass"):
            place = base ^ byte
            if byte == 0 or place >= len(units) or units[place] & (_NO_UNIT | 0xFF) != byte:
                return None
            unit = units[place]
            base = self._base(place)
        if not unit >> 8 & 1:
            return base, None
        value = units[base] & (_NO_UNIT - 1) if base < len(units) else len(self._values)
        end = self._values.find(b"\0", value)
        if end < 0:
            raise RllabError("The model's map of characters is damaged (a value lies outside of it).")
        return base, self._values[value:end].decode(errors="replace")

    def _base(self, place: int) -> int:
        unit = self._units[place]
        return place ^ (unit >> 10) << ((unit & 1 << 9) >> 6)


class _Node(dict[int, "_Node"]):
    """A node of a trie: its children by their bytes, and its value if a key ends there."""

    value: int | None = None
    base = 0

    def labels(self) -> list[int]:
        """The bytes of its children, and 0 if a key ends there."""
        return sorted(self) if self.value is None else [0, *sorted(self)]


def build_charsmap(replacements: Mapping[str, str]) -> bytes:
    """The bytes of a map, as a model has them.

    Args:
        replacements: what each string becomes.
    """
    values, places = bytearray(), {}
    for replacement in sorted(set(replacements.values())):
        places[replacement] = len(values)
        values += replacement.encode() + b"\0"
    root = _Node()
    nodes = [root]
    for key, replacement in sorted(replacements.items()):
        node = root
        for byte in key.encode():
            if byte not in node:
                nodes.append(node.setdefault(byte, _Node()))
            node = node[byte]
        node.value = places[replacement]
    size = _place(nodes)
    units = [_NO_UNIT] * size
    units[_ROOT] = 0
    pending = [(_ROOT, root)]
    while pending:
        place, node = pending.pop()
        units[place] |= (place ^ node.base) << 10 | (0 if node.value is None else 1 << 8)
        if node.value is not None:
            units[node.base] = _NO_UNIT | node.value
        for byte, child in node.items():
            units[node.base ^ byte] = byte
            pending.append((node.base ^ byte, child))
    trie = np.array(units, "<u4").tobytes()
    return struct.pack("<I", len(trie)) + trie + bytes(values)


def _place(nodes: list[_Node]) -> int:
    """Give each node a base such that no two children get the same place; returns how many places there are."""
    taken = bytearray(b"\1") + bytearray(255)  # the root has the first place
    bases = {0}  # which sentencepiece takes for damage in the root
    slot = size_before = 0
    # Nodes of many children first, which need the most room; those of few fill the gaps.
    for node in sorted(nodes, key=lambda node: -len(node.labels())):
        labels = node.labels()
        if len(labels) != size_before:
            size_before, slot = len(labels), 1
        while True:
            if slot + 256 > len(taken):
                taken += bytearray(256)
            base = slot ^ labels[0]
            if base not in bases and not any(taken[base ^ label] for label in labels):
                break
            slot += 1
        node.base = base
        bases.add(base)
        for label in labels:
            taken[base ^ label] = 1
    return len(taken)


@cache
def nfkc_charsmap() -> bytes:
    """Unicode's normal form NFKC as the map of a model: of each character, and of those that compose with marks.

    What a map cannot say is left out: marks in another order than the canonical one, and marks that block one another.
    """
    replacements: dict[str, str] = {}
    for code in range(sys.maxunicode + 1):
        if 0xD800 <= code < 0xE000:
            continue
        character = chr(code)
        normal = unicodedata.normalize("NFKC", character)
        if normal != character:
            replacements[character] = normal
        for sequence in _compositions(character):
            if (normal := unicodedata.normalize("NFKC", sequence)) != sequence:
                replacements[sequence] = normal
    return build_charsmap(replacements)


def _compositions(character: str) -> list[str]:
    """What Unicode composes to a character: it taken apart once, or wholly."""
    whole = unicodedata.normalize("NFD", character)
    if whole == character:
        return []
    once = unicodedata.normalize("NFC", whole[:-1]) + whole[-1]
    return [sequence for sequence in (whole, once) if len(sequence) > 1]
