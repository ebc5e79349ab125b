"""Clips as videos, made from their sheets of frames when somebody asks, and kept while there is room."""

import tempfile
import threading
from collections import OrderedDict
from pathlib import Path

from envs.render import write_video
from preference.labelling.lookup import Lookup
from preference.sheets import decode_sheet

MOST_VIDEOS = 64


class Videos:
    """MP4 files by clip, in a folder of their own that goes with them."""

    def __init__(self, lookup: Lookup) -> None:
        self.lookup = lookup
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._made: OrderedDict[int, Path] = OrderedDict()
        self._lock = threading.Lock()

    def path(self, number: int) -> Path:
        """The file of a clip's video. Raises NotThere, and RllabError if its frames are damaged."""
        with self._lock:
            if number not in self._made:
                data, metadata = self.lookup.sheet(number)
                if self._folder is None:
                    self._folder = tempfile.TemporaryDirectory(prefix="rllab-clips-")
                path = Path(self._folder.name) / f"{number}.mp4"
                write_video(path, decode_sheet(data, metadata), float(metadata["fps"]))
                self._made[number] = path
            self._made.move_to_end(number)
            while len(self._made) > MOST_VIDEOS:
                _, oldest = self._made.popitem(last=False)
                oldest.unlink(missing_ok=True)
            return self._made[number]

    def close(self) -> None:
        """Remove them."""
        if self._folder is not None:
            self._folder.cleanup()
