"""What a run measures, as it goes: one JSON object a line in `metrics.jsonl`, and TensorBoard events.

A row is a flat dict of numbers with at least "steps", the environment steps so far. JSON has no NaN and no
infinity: both are written as null, and read back as NaN.
"""

import json
import math
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt

from envs.errors import RllabError
from rllab.files import explained_write_errors, write_atomically

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary

METRICS_FILE = "metrics.jsonl"


class MetricsWriter:
    """Appends the rows of one run, flushed one by one, so that a killed process loses none.

    Args:
        run_path: the run's folder.
        resume_steps: the step of the checkpoint that the run goes on from. Rows of later steps are dropped
            and TensorBoard is told to forget them, as if the run had never gone further.
        tensorboard: whether to write TensorBoard events too.

    Raises RllabError, here and in every method, when the disk is full or not writable.
    """

    def __init__(self, run_path: Path | str, resume_steps: int | None = None, tensorboard: bool = True) -> None:
        self._path = Path(run_path) / METRICS_FILE
        with explained_write_errors(self._path):
            if resume_steps is not None and self._path.exists():
                _drop_rows_after(self._path, resume_steps)
            self._file = open(self._path, "ab")  # noqa: SIM115 (until close)
        self._events = EventFile(Path(run_path), resume_steps) if tensorboard else None

    def write(self, row: Mapping[str, float]) -> None:
        """Append one row; `row["steps"]` is its place on TensorBoard's horizontal axis."""
        try:
            line = json.dumps(row, allow_nan=False)
        except (TypeError, ValueError):
            line = json.dumps({name: _json_number(value) for name, value in row.items()}, allow_nan=False)
        with explained_write_errors(self._path):
            self._file.write(line.encode() + b"\n")
            self._file.flush()
        if self._events is not None:
            self._events.add_scalars(row, int(row["steps"]))

    def add_histograms(self, histograms: Mapping[str, npt.NDArray[Any]], steps: int) -> None:
        """Add the distribution of each array's finite values to TensorBoard."""
        if self._events is not None:
            self._events.add_histograms(histograms, steps)

    def add_video(self, tag: str, gif: bytes, steps: int) -> None:
        """Add an animated GIF to TensorBoard, which plays it under Images."""
        if self._events is not None:
            self._events.add_gif(tag, gif, steps)

    def close(self) -> None:
        """Close both files; what was written is on its way to the disk already."""
        with explained_write_errors(self._path):
            self._file.close()
        if self._events is not None:
            self._events.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class EventFile:
    """One file of TensorBoard events.

    Each call writes one record through TensorBoard's own protocol buffers and record format, and flushes it.
    `SummaryWriter` would write a record for each number and `EventFileWriter` hands records to a thread: for
    a row of 25 numbers this takes two thirds of the latter's time, and a full disk is noticed at once.
    """

    def __init__(self, folder: Path, resume_steps: int | None = None) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        # TensorBoard reads a folder's files in the order of their names, hence the time first.
        name = f"events.out.tfevents.{time.time():017.6f}.{socket.gethostname()}.{os.getpid()}"
        self._path = folder / name
        with explained_write_errors(self._path):
            file: BinaryIO = open(self._path, "xb")  # noqa: SIM115 (until close)
        self._file = file
        self._records = RecordWriter(file)
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        if resume_steps is not None:
            # TensorBoard forgets what it has at this step and after; the checkpoint's own row stays.
            start = SessionLog(status=SessionLog.START)
            self._write(Event(wall_time=time.time(), step=resume_steps + 1, session_log=start))

    def add_scalars(self, row: Mapping[str, float], steps: int) -> None:
        """Write all numbers of a row as one record."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in row.items() if name != "steps"]
        self._write_summary(Summary(value=values), steps)

    def add_histograms(self, histograms: Mapping[str, npt.NDArray[Any]], steps: int) -> None:
        """Write the distributions of several arrays as one record, without those that have no finite value."""
        from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary

        values = []
        for name, array in histograms.items():
            finite = np.asarray(array, dtype=np.float64).ravel()
            finite = finite[np.isfinite(finite)]
            if finite.size == 0:
                continue
            counts, edges = np.histogram(finite, bins=64)
            histogram = HistogramProto(
                min=finite.min(),
                max=finite.max(),
                num=finite.size,
                sum=finite.sum(),
                sum_squares=float(finite @ finite),
                # A bucket is known by its right edge: an empty first one tells where the second begins.
                bucket_limit=edges,
                bucket=[0, *counts],
            )
            values.append(Summary.Value(tag=name, histo=histogram))
        self._write_summary(Summary(value=values), steps)

    def add_gif(self, tag: str, gif: bytes, steps: int) -> None:
        """Write an animated GIF as an image. Raises ValueError when the bytes are not a GIF."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        if gif[:4] != b"GIF8" or len(gif) < 10:
            raise ValueError("the bytes of a video for TensorBoard must be a GIF")
        width, height = int.from_bytes(gif[6:8], "little"), int.from_bytes(gif[8:10], "little")
        image = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=gif)
        self._write_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), steps)

    def close(self) -> None:
        """Close the file."""
        with explained_write_errors(self._path):
            self._file.close()

    def _write_summary(self, summary: "Summary", steps: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._write(Event(wall_time=time.time(), step=steps, summary=summary))

    def _write(self, event: Any) -> None:
        with explained_write_errors(self._path):
            self._records.write(event.SerializeToString())
            self._file.flush()


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Read the rows of a `metrics.jsonl`; numbers that were not finite are NaN.

    A last line cut short, as a killed process or a copy of a running run can have, is left out. Raises
    RllabError when the file is missing or another line is damaged.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise RllabError(f"{path} cannot be read ({error.strerror}); has the run written any row yet?") from error
    rows = []
    # What follows the last newline is empty or cut short.
    for number, line in enumerate(lines[:-1], start=1):
        try:
            row = json.loads(line)
            rows.append({name: math.nan if value is None else value for name, value in row.items()})
        except (ValueError, AttributeError) as error:
            raise RllabError(f"Line {number} of {path} is damaged; remove that line to read the others.") from error
    return rows


def _drop_rows_after(path: Path, steps: int) -> None:
    """Rewrite the file without rows of later steps, byte for byte otherwise."""
    lines = path.read_bytes().splitlines(keepends=True)
    rows = read_metrics(path)
    kept = [line for line, row in zip(lines, rows, strict=False) if row["steps"] <= steps]
    write_atomically(path, b"".join(kept))


def _json_number(value: float) -> float | None:
    """A number that JSON can hold: NumPy's and torch's scalars as Python's, None for what is not finite."""
    if isinstance(value, int | np.integer):
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else None
