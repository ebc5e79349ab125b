"""The labelling page: people compare clips, or texts, in a browser, while the agent trains."""

from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING

from envs.errors import RllabError
from preference.labelling.settings import PageConfig

if TYPE_CHECKING:
    from preference.labelling.serve import LabellingServer


def labelling_server(store: str, config: PageConfig, say: Callable[[str], None] = print) -> "LabellingServer":
    """The page of a store, served in a thread once it is entered as a context.

    Args:
        store: a file, or a database's URL.
        config: where it is served, and what people are asked for.
        say: tells people where the page is.

    Raises:
        RllabError: there is no such store, the port is taken, or what serves pages is not installed.
    """
    server: LabellingServer = _serve().LabellingServer(store, config, say)
    return server


def check_page(config: PageConfig) -> None:
    """Raise RllabError if the page cannot be served: its port is taken, or what serves pages is not installed."""
    _serve().listen(config).close()


def _serve() -> ModuleType:
    try:
        from preference.labelling import serve
    except ModuleNotFoundError as error:
        raise RllabError(
            f"The labelling page needs {error.name}, which is not installed: pip install 'rllab[labelling]'"
        ) from error
    return serve
