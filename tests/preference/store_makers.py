"""Stores to test, in SQLite and in a PostgreSQL server of their own, and clips to fill them."""

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from preference.comparisons import Answer, Clip, Label, Pair
from preference.store import Store, Task

TASK = Task("CartPole-v1", "clips", {"shape": [4], "dtype": "float32"}, {"shape": [], "dtype": "int64", "n": 2})


def identifier(number: int) -> uuid.UUID:
    return uuid.UUID(int=number)


def make_clip(number: int, length: int = 5, rewards: bool = True) -> Clip:
    """A clip of random steps, whose id is its number."""
    generator = np.random.default_rng(number)
    arrays = {
        "observations": generator.standard_normal((length, 4)).astype(np.float32),
        "actions": generator.integers(0, 2, length),
    }
    if rewards:
        arrays["rewards"] = generator.standard_normal(length).astype(np.float32)
    return Clip(identifier(number), arrays, "run", 1000 * number, {"episode": number}, created=float(number))


def fill(store: Store, pairs: int, **fields: object) -> list[Pair]:
    """Ask `pairs` pairs of 2 × `pairs` clips; the first is the oldest."""
    store.add_clips(make_clip(number) for number in range(1, 2 * pairs + 1))
    asked = [
        Pair(identifier(1000 + number), identifier(2 * number + 1), identifier(2 * number + 2), "run",
             created=float(number), **fields)  # type: ignore[arg-type]
        for number in range(pairs)
    ]  # fmt: skip
    store.ask(asked)
    return asked


def say(pair: Pair, label: Label | None = Label.FIRST, annotator: str = "ann", **fields: object) -> Answer:
    return Answer(uuid.uuid4(), pair.id, annotator, label, created=1.5, **fields)  # type: ignore[arg-type]


class Unstartable(Exception):
    """Why no PostgreSQL server can be started here."""


class Server:
    """A PostgreSQL server that listens at a socket in its own folder only."""

    def __init__(self, folder: Path, programs: Path, user: Sequence[str]) -> None:
        self._folder, self._programs, self._user = folder, programs, user
        self._databases = 0

    def start(self) -> None:
        options = f"-c listen_addresses= -c unix_socket_directories={self._folder} -c fsync=off"
        self._call("pg_ctl", "-D", "data", "-w", "-l", "log", "-o", options, "start")

    def crash(self) -> None:
        """Ends it as a power cut does, without a word to its clients."""
        self._call("pg_ctl", "-D", "data", "-m", "immediate", "stop")

    def initialise(self) -> None:
        self._call("initdb", "-D", "data", "-A", "trust", "-U", "rllab", "-E", "UTF8", "--no-sync")

    def new_database(self) -> str:
        """The URL of an empty database."""
        self._databases += 1
        name = f"store{self._databases}"
        self._call("createdb", "-h", str(self._folder), "-U", "rllab", name)
        return self.url(name)

    def url(self, name: str) -> str:
        return f"postgresql://rllab@/{name}?host={self._folder}"

    def _call(self, program: str, *arguments: str) -> None:
        command = [*self._user, str(self._programs / program), *arguments]
        # Not through a pipe: the server would keep it open.
        with open(self._folder / "output", "w+") as output:
            done = subprocess.run(command, cwd=self._folder, stdout=output, stderr=subprocess.STDOUT, timeout=60)
            if done.returncode != 0:
                output.seek(0)
                raise Unstartable(f"{program} failed: {output.read()[-300:]}")


@contextmanager
def postgresql_server() -> Iterator[Server]:
    """A new server; raises Unstartable where there can be none."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if on_path := shutil.which("initdb"):
        found.append(Path(on_path).resolve().parent)
    if not found:
        raise Unstartable("PostgreSQL's server is not installed")
    user: list[str] = []
    folder = Path(tempfile.mkdtemp(prefix="rllab-pg-"))
    try:
        if os.geteuid() == 0:  # It refuses to run as root.
            try:
                owner = pwd.getpwnam("postgres")
            except KeyError as error:
                raise Unstartable("there is no user postgres to run the server as") from error
            if not (runuser := shutil.which("runuser")):
                raise Unstartable("there is no runuser to become the user postgres with")
            user = [runuser, "-u", "postgres", "--"]
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        server = Server(folder, max(found), user)
        server.initialise()
        server.start()
        try:
            yield server
        finally:
            server.crash()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
