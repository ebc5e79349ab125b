"""Writing an export so that it is there as a whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from envs.errors import RllabError
from rllab.files import synchronise


@contextmanager
def new_export(path: Path) -> Iterator[Path]:
    """Gives a path beside `path` to write a file or a folder at, which is synced and renamed when the block is left.

    Raises:
        RllabError: something is at `path` already, or it cannot be written.
    """
    if path.exists():
        raise RllabError(f"{path} is there already; give another path, or remove it first.")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        for written in [temporary, *temporary.rglob("*")]:
            synchronise(written)
        os.rename(temporary, path)
        synchronise(path.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise RllabError(
            f"{path} could not be written ({reason}); check the path and the space on the disk."
        ) from error
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
