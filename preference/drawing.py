"""Clips that people are asked about are drawn by a process of their own, and their frames put into the store.

Where a clip comes from is written down before it is asked about, and kept until its frames are in the store: whatever
dies in between, a resumed run draws it.
"""

import contextlib
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from envs.errors import RllabError
from preference.comparisons import Clip
from preference.desk import Patience
from preference.frame_worker import FrameWorker
from preference.origins import Origin
from preference.store import Store, StoreUnavailable
from rllab.files import explained_write_errors, write_atomically

QUALITY = 75
"""Of the images, WebP's own default."""
ATTEMPTS = 2
"""How often a clip is tried: the process that draws may have been killed for another reason."""
LAST_SECONDS = 120.0
"""How long the end of a training waits for the drawing that is left, as long as it gets on."""


class Drawing:
    """Draws the clips that it is given, and puts them into the store as they are done.

    A clip that cannot be drawn is told of, and the open questions about it are withdrawn: nobody could answer them.
    """

    def __init__(
        self, store: Store, run: str, origin_of: Callable[[Clip], Origin], folder: Path, patience: Patience, *,
        checked: bool = True, height: int = 256,
    ) -> None:  # fmt: skip
        """Go on with what an earlier process left in the folder.

        Args:
            store: gets the sheets (`preference.sheets`).
            run: whose questions these are.
            origin_of: where a clip comes from; raises RllabError if that is not known.
            folder: keeps the origins of clips that are not drawn yet.
            patience: with the store.
            checked: hold what is drawn against the clip's observations (not if those are kept in another form).
            height: of the frames, in pixels.
        """
        self.store, self.run, self.origin_of, self.folder, self.patience = store, run, origin_of, folder, patience
        self.checked = checked
        self.worker = FrameWorker(height, QUALITY)
        self._attempts: dict[uuid.UUID, int] = {}
        self._failures: set[uuid.UUID] = set()
        self._hopeless: list[uuid.UUID] = []
        """Clips that failed, whose questions are yet to be withdrawn."""
        self._left = sorted(folder.glob("*.origin")) if folder.is_dir() else []
        """Origins that an earlier process left."""

    def deliver(self, clips: Sequence[Clip]) -> None:
        """Have clips drawn that are about to be asked about.

        Raises:
            RllabError: the folder cannot be written.
        """
        for clip in clips:
            if clip.id in self._attempts:
                if clip.id in self._failures:
                    self._hopeless.append(clip.id)
                continue
            try:
                origin = self.origin_of(clip)
            except RllabError as error:
                self._attempts[clip.id] = ATTEMPTS
                self._give_up(clip.id, str(error))
                continue
            with explained_write_errors(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                write_atomically(self._path(clip.id), origin.to_bytes())
            self._submit(clip, origin)

    def collect(self) -> None:
        """Put into the store what has been drawn since the last call, without waiting.

        Raises:
            StoreUnavailable: the training is to end while the store cannot be used.
        """
        if self._left:
            self._take_up()
        for clip_id, result in self.worker.poll():
            failure = self._keep(clip_id, *result) if isinstance(result, tuple) else str(result)
            if failure is not None:
                self._try_again(clip_id, failure)
        if self._hopeless:
            self._withdraw()

    def _keep(self, clip_id: uuid.UUID, data: bytes, metadata: Mapping[str, Any]) -> str | None:
        """Put a sheet into the store; why it could not be, or None."""
        try:
            self.patience(partial(self.store.set_sheet, clip_id, data, metadata))
        except StoreUnavailable:
            raise
        except RllabError as error:
            return str(error)
        self._path(clip_id).unlink(missing_ok=True)
        return None

    def _take_up(self) -> None:
        """Have drawn what an earlier process left."""
        left, self._left = self._left, []
        for path in left:
            self._attempts[uuid.UUID(path.stem)] = 0
            if not self._resubmit(uuid.UUID(path.stem)):
                # Killed before the clip was in the store: it will be asked about again, or never.
                path.unlink(missing_ok=True)
                del self._attempts[uuid.UUID(path.stem)]

    def _try_again(self, clip_id: uuid.UUID, sentence: str) -> None:
        if self._attempts[clip_id] >= ATTEMPTS or not self._resubmit(clip_id):
            self._path(clip_id).unlink(missing_ok=True)
            self._give_up(clip_id, sentence)

    def _resubmit(self, clip_id: uuid.UUID) -> bool:
        """Have a clip drawn by what is written down; whether that could be read."""
        try:
            (clip,) = self.patience(partial(self.store.clips, [clip_id]))
            self._submit(clip, Origin.from_bytes(self._path(clip_id).read_bytes()))
        except StoreUnavailable:
            raise
        except (RllabError, OSError):
            return False
        return True

    def _submit(self, clip: Clip, origin: Origin) -> None:
        self._attempts[clip.id] = self._attempts.get(clip.id, 0) + 1
        self.worker.submit(clip.id, origin, clip.arrays["observations"] if self.checked else None)

    def _give_up(self, clip_id: uuid.UUID, sentence: str) -> None:
        self._failures.add(clip_id)
        self._hopeless.append(clip_id)
        self.patience.note(f"{sentence} (Questions about clip {clip_id} are withdrawn.)")

    def _withdraw(self) -> None:
        """Ask no more about clips that nobody will see."""
        hopeless, self._hopeless = set(self._hopeless), []
        asked = self.patience(partial(self.store.open_pairs, self.run))
        pairs = [pair.id for pair in asked if hopeless & {pair.first, pair.second}]
        if pairs:
            self.patience(partial(self.store.withdraw, pairs))

    def _path(self, clip_id: uuid.UUID) -> Path:
        return self.folder / f"{clip_id}.origin"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """At a training's regular end, wait for what is left as long as it gets on; then end the process."""
        try:
            if kind is None:
                with contextlib.suppress(KeyboardInterrupt):
                    self._finish()
        finally:
            self.worker.close()

    def _finish(self) -> None:
        self.collect()
        progress, pending = time.monotonic(), self.worker.pending
        while self.worker.pending and time.monotonic() - progress < LAST_SECONDS:
            time.sleep(0.05)
            self.collect()
            if self.worker.pending < pending:
                progress, pending = time.monotonic(), self.worker.pending
