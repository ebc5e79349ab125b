"""GPT-2's way of writing bytes as characters, so that every token of bytes is a readable string without spaces.

Radford et al.: Language Models are Unsupervised Multitask Learners (2019), section 2.2, and the code published with it:
bytes that print in Latin-1 stand for themselves; the others, in their order, for the characters from U+0100 on.
"""

from collections.abc import Iterable

from envs.errors import RllabError
from language.tokenizers.special import SpecialTokens

_PRINTABLE = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]

CHARACTERS = "".join(chr(0x100 + _OTHERS.index(byte)) if byte in _OTHERS else chr(byte) for byte in range(256))
"""The character of each byte."""
_BYTES = {character: byte for byte, character in enumerate(CHARACTERS)}


def utf8(text: str) -> bytes:
    """The bytes of a text. Raises RllabError if it has half a surrogate pair, which UTF-8 cannot express."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise RllabError(
            f"The text has half a surrogate pair (U+{ord(text[error.start]):04X}), which is not Unicode; replace it, "
            "as text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace') does."
        ) from None


def check_special(special: SpecialTokens) -> None:
    """Raise RllabError if a special token is written as a byte is."""
    for token in special.tokens():
        if token in _BYTES:
            raise RllabError(f"The special token '{token}' is written as a byte is; give it a longer string.")


def read_bytes(tokens: Iterable[str]) -> bytes:
    """The bytes of tokens; a token with other characters (a special one) is text, and gives its UTF-8 bytes."""
    data = bytearray()
    for token in tokens:
        try:
            data += bytes([_BYTES[character] for character in token])
        except KeyError:
            data += token.encode()
    return bytes(data)


def characters_of_bytes(word: str) -> list[int]:
    """For each byte of a word, the number of the character that it belongs to."""
    if word.isascii():
        return list(range(len(word)))
    return [number for number, character in enumerate(word) for _ in range(len(character.encode()))]
