"""Writing to disk so that a killed process or a full disk never leaves half a file behind."""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from envs.errors import RllabError


def write_atomically(path: Path, data: bytes) -> None:
    """Replace the content of `path`: readers see the old bytes or the new ones, never a mixture.

    The bytes are written beside the file, synced, then renamed over it. Raises OSError, after removing
    what had been written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    synchronise(path.parent)


def synchronise(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk itself."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """The SHA-256 digest of a file's content, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def explained_write_errors(path: Path) -> Iterator[None]:
    """Turn an OSError met while writing at `path` into an RllabError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RllabError(
                f"The disk is full: {path} could not be written; free some space, then go on from the "
                "last checkpoint with `rllab resume`."
            ) from error
        raise RllabError(
            f"{path} could not be written ({error.strerror or error}); check the path and its permissions."
        ) from error
