"""Stores with drawn clips and with texts, for the labelling page."""

import uuid
from pathlib import Path

import numpy as np
from store_makers import TASK, identifier, make_clip

from preference.comparisons import Clip, Pair
from preference.sheets import encode_sheet
from preference.store import Store, Task

TEXTS = Task("", "texts", question="Which answer is **kinder**?")


def drawn_store(path: Path, pairs: int, frames: int = 12, size: int = 32) -> Store:
    """Pairs of clips of which each has frames: a square that moves to the right, on a ground of the clip's own grey."""
    store = Store.open(path, TASK)
    add_drawn(store, range(pairs), frames, size)
    return store


def add_drawn(store: Store, numbers: range, frames: int = 12, size: int = 32) -> list[Pair]:
    """Pairs with these numbers: of the clips 2n + 1 and 2n + 2."""
    clips = [make_clip(2 * number + side) for number in numbers for side in (1, 2)]
    store.add_clips(clips)
    for clip in clips:
        store.set_sheet(clip.id, *sheet(clip.id.int, frames, size))
    asked = [
        Pair(identifier(10_000 + n), identifier(2 * n + 1), identifier(2 * n + 2), "run", created=float(n))
        for n in numbers
    ]
    store.ask(asked)
    return asked


def sheet(seed: int, frames: int, size: int) -> tuple[bytes, dict[str, object]]:
    """A sheet of frames that can be told apart."""
    pictures = np.full((frames, size, size, 3), 40 + seed * 37 % 160, np.uint8)
    for i, picture in enumerate(pictures):
        x = round(i * (size - 8) / max(1, frames - 1))
        picture[size // 2 : size // 2 + 8, x : x + 8] = (250, 80, 20)
    return encode_sheet(pictures, fps=10.0)


def text_store(path: Path, texts: list[tuple[str, str, str]]) -> Store:
    """Pairs of responses, as (prompt, first, second)."""
    store = Store.open(path, TEXTS)
    for number, (prompt, *responses) in enumerate(texts):
        clips = [
            Clip(uuid.UUID(int=2 * number + i), {}, details={"prompt": prompt, "response": response})
            for i, response in enumerate(responses, start=1)
        ]
        store.add_clips(clips)
        store.ask([Pair(identifier(10_000 + number), clips[0].id, clips[1].id, created=float(number))])
    return store
