"""Writing to disk so that a killed process or a full disk never leaves half a file behind."""

import errno
import hashlib
import os
import shutil
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


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """Gives a new folder to write in, which takes the place of `path` when the block is left without an error.

    A process killed at any moment leaves the old folder or the new one, but for the instant between two renames, where
    the old one lies beside as `.NAME.PID.old`. Raises OSError.
    """
    temporary, aside = (path.with_name(f".{path.name}.{os.getpid()}.{end}") for end in ("tmp", "old"))
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for written in [*temporary.rglob("*"), temporary]:
            synchronise(written)
        if path.is_dir():
            os.rename(path, aside)
        os.rename(temporary, path)
        synchronise(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(aside, ignore_errors=True)


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
