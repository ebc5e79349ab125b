"""Serving the page: alone, or in a thread beside a training."""

import errno
import socket
import threading
import time
from collections.abc import Callable
from ipaddress import ip_address

import uvicorn

from envs.errors import RllabError
from preference.labelling.app import create_app
from preference.labelling.office import Office
from preference.labelling.security import Door
from preference.labelling.settings import PageConfig
from preference.store import Store

LOOPBACK_NAMES = {"localhost", "127.0.0.1", "::1"}


class LabellingServer:
    """The page of a store, in a thread of its own; a context manager."""

    def __init__(self, store: str, config: PageConfig, say: Callable[[str], None] = print) -> None:
        """Open the store and take the port; `say` tells where the page is.

        Raises:
            RllabError: there is no such store, or the port is taken or not allowed.
        """
        self.config, self._say = config, say
        self.store = Store.open(store)
        try:
            self._socket = listen(config)
        except BaseException:
            self.store.close()
            raise
        self.port: int = self._socket.getsockname()[1]
        named = socket.gethostname() if config.host in ("0.0.0.0", "::") else config.host
        host = f"[{named}]" if ":" in named else named
        self.address = f"http://{host}:{self.port}/"
        door = None if config.loopback else Door(self._announce)
        app = create_app(Office(self.store, config), _hosts(config), door)
        self._bulletins = app.state.bulletins
        settings = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=2,
            timeout_keep_alive=75,
            lifespan="on",
        )
        self._server = uvicorn.Server(settings)
        self._thread = threading.Thread(target=self._run, name="labelling page", daemon=True)
        if door is None:
            say(f"The labelling page: {self.address}")

    def _announce(self, token: str) -> None:
        self._say(f"For the next person, once: {self.address}?token={token}")

    def _run(self) -> None:
        self._server.run(sockets=[self._socket])

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            time.sleep(0.005)
        if not self._server.started:
            raise RllabError("The labelling page could not be started; standard error says why.")

    def wait(self) -> None:
        """Until it ends; Ctrl-C reaches the caller."""
        while self._thread.is_alive():
            self._thread.join(0.2)

    def stop(self) -> None:
        """End all connections, and close the store."""
        self._bulletins.ending = True
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join()
        self._socket.close()
        self.store.close()

    def __enter__(self) -> "LabellingServer":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


def listen(config: PageConfig) -> socket.socket:
    """A socket at the address. Raises RllabError if it cannot be had."""
    try:
        family, _, _, _, address = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)[0]
        # Told that it is TCP, asyncio sends each answer at once (TCP_NODELAY), and not after the 40 ms that small
        # pieces are held back for otherwise.
        taken = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(address)
        taken.listen(128)
        return taken
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise RllabError(
                f"Port {config.port} is in use by another program; choose another with --port, or 0 for any that is "
                "free."
            ) from error
        if error.errno == errno.EACCES:
            raise RllabError(f"Port {config.port} is not allowed to you; choose one above 1023 with --port.") from error
        raise RllabError(f"The page cannot be served at {config.host} ({error.strerror}); check --host.") from error


def _hosts(config: PageConfig) -> Callable[[str], bool]:
    """Whether a host name is the server's own: another one's page could otherwise be pointed here by its DNS."""
    known = set(LOOPBACK_NAMES)
    if not config.loopback:
        name = socket.gethostname()
        known |= {config.host.lower(), name.lower(), socket.getfqdn().lower()}
        known |= {str(entry[4][0]) for entry in _addresses(name)}
    known |= {host.lower() for host in config.names}
    # What a page elsewhere can point here by its DNS is a name; an address can only be this machine's own.
    return lambda host: host.lower() in known or (not config.loopback and _is_address(host))


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _addresses(name: str) -> list[tuple[int, int, int, str, tuple[str | int, ...]]]:
    try:
        return list(socket.getaddrinfo(name, None))  # type: ignore[arg-type]
    except OSError:
        return []
