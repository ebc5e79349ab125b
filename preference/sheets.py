"""Sprite sheets: all frames of a clip side by side in one WebP image, which a page can step through by itself."""

import math
from collections.abc import Mapping
from io import BytesIO
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from envs.errors import RllabError

Frames: TypeAlias = NDArray[np.uint8]
"""`[L, height, width, 3]`, red, green and blue."""
Sheet: TypeAlias = tuple[bytes, dict[str, Any]]
"""A WebP image, and its metadata: `width` and `height` of a frame, `count`, `columns` (frames in a row), and `fps`."""

LARGEST_SIDE = 16_383
"""Pixels, of a WebP image."""
_METHOD = 2
"""Effort of WebP's encoder, 0 to 6."""


def encode_sheet(frames: Frames, quality: int = 75, fps: float = 30.0) -> Sheet:
    """One image of all frames, row by row, as nearly square as they allow.

    Args:
        frames: `[L, height, width, 3]`, L ≥ 1.
        quality: WebP's, 0 to 100; 75 is its own default.
        fps: frames a second, for the metadata.

    Raises:
        RllabError: there are no frames, or more than fit into an image.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or len(frames) == 0:
        raise RllabError(f"A sheet is made of frames [L, height, width, 3] of bytes, not {list(frames.shape)}.")
    count, height, width = frames.shape[:3]
    most = LARGEST_SIDE // width if width <= LARGEST_SIDE else 0
    columns = min(most, max(1, round(math.sqrt(count * height / width))))
    if columns and math.ceil(count / columns) * height > LARGEST_SIDE:
        columns = min(most, math.ceil(count / max(1, LARGEST_SIDE // height)))
    rows = math.ceil(count / columns) if columns else 0
    if not columns or rows * height > LARGEST_SIDE:
        raise RllabError(
            f"{count} frames of {width} × {height} do not fit into an image of {LARGEST_SIDE} × {LARGEST_SIDE}: make "
            "the clip shorter or its frames smaller."
        )
    sheet = np.zeros((rows * columns, height, width, 3), np.uint8)
    sheet[:count] = frames
    sheet = sheet.reshape(rows, columns, height, width, 3).swapaxes(1, 2).reshape(rows * height, columns * width, 3)
    buffer = BytesIO()
    Image.fromarray(sheet).save(buffer, format="WEBP", quality=quality, method=_METHOD)
    metadata = {"width": width, "height": height, "count": count, "columns": columns, "fps": fps}
    return buffer.getvalue(), metadata


def decode_sheet(data: bytes, metadata: Mapping[str, Any]) -> Frames:
    """The frames of a sheet, as the image's compression left them.

    Raises:
        RllabError: it is no image, or not one that the metadata describes.
    """
    try:
        width, height, count = int(metadata["width"]), int(metadata["height"]), int(metadata["count"])
        columns = int(metadata["columns"])
        with Image.open(BytesIO(data)) as image:
            pixels: Frames = np.asarray(image.convert("RGB"))
        rows = math.ceil(count / columns)
        sheet = pixels.reshape(rows, height, columns, width, 3).swapaxes(1, 2)
        return sheet.reshape(rows * columns, height, width, 3)[:count].copy()
    except (OSError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise RllabError(f"The frames of a clip are damaged ({str(error) or type(error).__name__}).") from error
