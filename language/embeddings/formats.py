"""Word vectors as files: word2vec's text and binary formats, and GloVe's text format.

word2vec's text has a first line `V d`, then a line for each word; GloVe's lacks the first line; word2vec's binary has
the same first line, then each word, a space, d little-endian float32, and a line end.
"""

import mmap
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from envs.errors import RllabError
from language.embeddings.word_vectors import WordVectors
from rllab.files import explained_write_errors, write_atomically

Format: TypeAlias = Literal["word2vec-text", "word2vec-binary", "glove"]
Table: TypeAlias = tuple[list[str], NDArray[np.float32]]
"""Words, and their vectors `[V, d]`."""
FORMATS: tuple[Format, ...] = ("word2vec-text", "word2vec-binary", "glove")


def save_vectors(vectors: WordVectors, path: Path | str, format: Format | None = None) -> None:
    """Write vectors to a file, whole or not at all. Numbers in text have the nine digits that a float32 needs.

    Args:
        vectors: which.
        path: where to.
        format: by default word2vec's binary for the suffix .bin, else its text.

    Raises:
        RllabError: a word has a space or line end in it, which no format can hold, or the disk refuses.
    """
    path = Path(path)
    format = format or ("word2vec-binary" if path.suffix == ".bin" else "word2vec-text")
    for word in vectors.words:
        if not word or any(space in word for space in " \n"):
            raise RllabError(f"The word {word!r} has a space in it, or nothing; files of vectors cannot hold it.")
    matrix = np.ascontiguousarray(vectors.matrix, "<f4")
    count, dimensions = matrix.shape
    parts = [] if format == "glove" else [f"{count} {dimensions}\n".encode()]
    if format == "word2vec-binary":
        parts += [b"%s %s\n" % (word.encode(), row.tobytes()) for word, row in zip(vectors.words, matrix, strict=True)]
    else:
        pattern = " ".join(["%.9g"] * dimensions)
        parts += [f"{word} {pattern % tuple(row)}\n".encode() for word, row in zip(vectors.words, matrix, strict=True)]
    with explained_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, b"".join(parts))


def load_vectors(path: Path | str, format: Format | None = None) -> WordVectors:
    """Read vectors from a file. Of equal words the first counts.

    Args:
        path: the file.
        format: by default seen from its beginning: a first line of two numbers is word2vec's.

    Raises:
        RllabError: the file is not there, is truncated, or is something else.
    """
    path = Path(path)
    try:
        if not path.stat().st_size:
            raise RllabError(f"{path} is empty; give a file of vectors.")
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            words, matrix = _read(data, path, format)
    except OSError as error:
        raise RllabError(f"{path} cannot be read ({error.strerror or error}); check the path.") from error
    if not np.isfinite(matrix).all():
        raise RllabError(f"{path} has numbers that are not finite; it is damaged, or of another format.")
    distinct = dict(zip(reversed(words), range(len(words) - 1, -1, -1), strict=True))
    if len(distinct) < len(words):
        kept = sorted(distinct.values())
        words, matrix = [words[place] for place in kept], matrix[kept]
    return WordVectors(tuple(words), matrix)


def _read(data: mmap.mmap, path: Path, format: Format | None) -> Table:
    first = data.readline().split()
    header = (int(first[0]), int(first[1])) if len(first) == 2 and all(part.isdigit() for part in first) else None
    if header is not None and format != "glove":
        format = format or _guess(data, header)
        if format == "word2vec-binary":
            return _read_binary(data, path, *header)
        return _read_text(data, path, *header)
    if format in ("word2vec-text", "word2vec-binary") or len(first) < 2:
        raise RllabError(f"{path} does not begin with the numbers of words and of dimensions; give another format.")
    data.seek(0)
    return _read_text(data, path, None, len(first) - 1)


def _guess(data: mmap.mmap, header: tuple[int, int]) -> Format:
    """Text if the next line is a word and numbers, else binary."""
    start = data.tell()
    line = data.readline()
    data.seek(start)
    try:
        cells = line.decode().rstrip("\n").rsplit(" ", header[1])
        numbers = [float(cell) for cell in cells[1:]]
    except ValueError:
        return "word2vec-binary"
    return "word2vec-text" if len(numbers) == header[1] else "word2vec-binary"


def _read_text(data: mmap.mmap, path: Path, count: int | None, dimensions: int) -> Table:
    words: list[str] = []
    rows: list[NDArray[np.float32]] = []
    before = 1 if count is None else 2
    while line := data.readline():
        try:
            # From the right, since GloVe's large files have words with spaces in them.
            word, *numbers = line.decode("utf-8").rstrip("\r\n").rstrip(" ").rsplit(" ", dimensions)
            row = np.array(numbers, np.float32)
        except ValueError as error:
            line_number = len(words) + before
            raise RllabError(f"Line {line_number:,} of {path} is not a word and numbers; it is damaged.") from error
        if len(row) != dimensions:
            raise RllabError(
                f"Line {len(words) + before:,} of {path} has {len(row)} numbers instead of {dimensions}; it is damaged."
            )
        words.append(word)
        rows.append(row)
    if count is not None and len(words) != count:
        raise RllabError(f"{path} has {len(words):,} words instead of {count:,}; it is truncated or damaged.")
    return words, np.stack(rows)


def _read_binary(data: mmap.mmap, path: Path, count: int, dimensions: int) -> Table:
    size = 4 * dimensions
    # A header that promises more than the file can hold must not cost memory first.
    if count * (size + 2) > len(data):
        raise RllabError(f"{path} is too short for {count:,} words; it is truncated or of another format.")
    matrix = np.empty((count, dimensions), np.float32)
    words: list[str] = []
    place = data.tell()
    for number in range(count):
        end = data.find(b" ", place)
        if end < 0 or end + 1 + size > len(data):
            raise RllabError(f"{path} ends after {number:,} of {count:,} words; it is truncated.")
        try:
            words.append(data[place:end].lstrip(b"\n").decode("utf-8"))
        except UnicodeDecodeError as error:
            raise RllabError(f"Word {number + 1:,} of {path} is not UTF-8; it is damaged.") from error
        matrix[number] = np.frombuffer(data[end + 1 : end + 1 + size], "<f4")
        place = end + 1 + size
    return words, matrix
