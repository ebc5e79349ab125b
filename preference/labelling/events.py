"""The stream of how it stands: one look at the store a second for all who listen."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.concurrency import run_in_threadpool

from preference.labelling.office import Office
from preference.store import StoreUnavailable

EVERY_SECONDS = 1.0
HURRY_SECONDS = 0.25
"""After an answer people see at once that it has arrived, but many answers at once make one look."""
SILENCE_SECONDS = 15.0
"""After which a comment keeps the connection alive."""


class Bulletins:
    """Gives every listener the status when it has changed."""

    def __init__(self, office: Office) -> None:
        self.office = office
        self.ending = False
        """Ends all streams, so that a server can stop."""
        self._shared: dict[str, Any] | None = None
        self._looked = 0.0
        self._due = 0.0
        self._lock: asyncio.Lock | None = None

    def hurry(self) -> None:
        """Something has changed: look soon."""
        self._due = min(self._due, self._looked + HURRY_SECONDS)

    async def _look(self) -> dict[str, Any] | None:
        """The shared status, at most a second old."""
        loop = asyncio.get_running_loop()
        if self._lock is None:
            self._lock = asyncio.Lock()
        async with self._lock:
            if loop.time() >= self._due or self._shared is None:
                try:
                    self._shared = await run_in_threadpool(self.office.shared)
                except StoreUnavailable as error:
                    if self._shared is not None:
                        self._shared = {**self._shared, "problems": [str(error)]}
                self._looked = loop.time()
                self._due = self._looked + EVERY_SECONDS
        return self._shared

    async def stream(self, annotator: str) -> AsyncIterator[str]:
        """Server-sent events for one person, until they go."""
        loop = asyncio.get_running_loop()
        last, spoken = "", loop.time()
        while not self.ending:
            shared = await self._look()
            if shared is not None:
                data = json.dumps({**shared, **self.office.personal(annotator)})
                if data != last:
                    last, spoken = data, loop.time()
                    yield f"event: status\ndata: {data}\n\n"
            if loop.time() - spoken > SILENCE_SECONDS:
                spoken = loop.time()
                yield ": still here\n\n"
            await asyncio.sleep(HURRY_SECONDS)
