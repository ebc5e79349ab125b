"""Metrics are valid JSON lines and TensorBoard events, and a resumed run's are seamless."""

import io
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from envs.errors import RllabError
from rllab.metrics import MetricsWriter, read_metrics
from rllab.runs import Run


def events(folder: Path) -> EventAccumulator:
    """What TensorBoard shows of a folder."""
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0, "images": 0})
    accumulator.Reload()
    return accumulator


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events(folder).Scalars(tag)]


def test_rows_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    rows = [{"steps": 128, "return_mean": 21.5}, {"steps": 256, "loss": -0.1, "evaluation/return_mean": 30.0}]
    with MetricsWriter(tmp_path, tensorboard=False) as writer:
        for row in rows:
            writer.write(row)
            # Flushed at once: a killed process loses no row.
            assert read_metrics(tmp_path / "metrics.jsonl")[-1] == row
    assert read_metrics(tmp_path / "metrics.jsonl") == rows


def test_all_numbers_reach_tensorboard_at_the_rows_step(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path) as writer:
        writer.write({"steps": 128, "return_mean": 21.5, "loss/value": 2.0})
        writer.write({"steps": 256, "return_mean": 30.0})
    assert scalars(tmp_path, "return_mean") == [(128, 21.5), (256, 30.0)]
    assert scalars(tmp_path, "loss/value") == [(128, 2.0)]


def test_numbers_that_are_not_finite_are_null_in_json_and_nan_when_read(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path) as writer:
        writer.write({"steps": 1, "a": math.nan, "b": math.inf, "c": 1.5})
    line = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=pytest.fail)
    assert line == {"steps": 1, "a": None, "b": None, "c": 1.5}
    (row,) = read_metrics(tmp_path / "metrics.jsonl")
    assert math.isnan(row["a"])
    assert math.isnan(row["b"])
    assert math.isnan(scalars(tmp_path, "a")[0][1])


def test_scalars_of_numpy_and_torch_are_numbers(tmp_path: Path) -> None:
    row: dict[str, Any] = {"steps": np.int64(2**40), "a": np.float32(0.5), "b": torch.tensor(0.25), "c": 1e300}
    with MetricsWriter(tmp_path) as writer:
        writer.write(row)
    (read,) = read_metrics(tmp_path / "metrics.jsonl")
    assert read == {"steps": 2**40, "a": 0.5, "b": 0.25, "c": 1e300}
    assert isinstance(read["steps"], int)
    assert scalars(tmp_path, "b") == [(2**40, 0.25)]


def test_resuming_drops_the_rows_after_the_checkpoint(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path) as writer:
        for steps in (100, 200, 300, 400):
            writer.write({"steps": steps, "return_mean": float(steps)})
    uninterrupted = (tmp_path / "metrics.jsonl").read_bytes()
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write(b'{"steps": 500, "retu')
    with MetricsWriter(tmp_path, resume_steps=200) as writer:
        assert [row["steps"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [100, 200]
        for steps in (300, 400):
            writer.write({"steps": steps, "return_mean": float(steps)})
    assert (tmp_path / "metrics.jsonl").read_bytes() == uninterrupted
    assert scalars(tmp_path, "return_mean") == [(steps, float(steps)) for steps in (100, 200, 300, 400)]


def test_tensorboard_forgets_what_a_resumed_run_has_not_reached_again(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path) as writer:
        for steps in (100, 200, 300):
            writer.write({"steps": steps, "return_mean": 0.0})
    MetricsWriter(tmp_path, resume_steps=100).close()
    assert scalars(tmp_path, "return_mean") == [(100, 0.0)]


def test_resuming_before_the_first_row_starts_afresh(tmp_path: Path) -> None:
    MetricsWriter(tmp_path, resume_steps=0, tensorboard=False).close()
    assert read_metrics(tmp_path / "metrics.jsonl") == []


@pytest.mark.parametrize("cut", range(1, 20))
def test_a_last_line_cut_short_is_left_out(tmp_path: Path, cut: int) -> None:
    with MetricsWriter(tmp_path, tensorboard=False) as writer:
        writer.write({"steps": 1})
        writer.write({"steps": 2, "loss": 0.5})
    path = tmp_path / "metrics.jsonl"
    os.truncate(path, path.stat().st_size - cut)
    assert read_metrics(path) == [{"steps": 1}]


@pytest.mark.parametrize("line", ["{", "[1]", "", "7"])
def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"steps": 1}}\n{line}\n{{"steps": 3}}\n')
    with pytest.raises(RllabError, match="Line 2"):
        read_metrics(path)


def test_a_run_reads_its_own_metrics(tmp_path: Path) -> None:
    with Run.create(tmp_path, {}) as run:
        with pytest.raises(RllabError, match="cannot be read"):
            run.read_metrics()
        with MetricsWriter(run.path, tensorboard=False) as writer:
            writer.write({"steps": 1})
        assert run.read_metrics() == [{"steps": 1}]


def test_histograms_hold_every_finite_value(tmp_path: Path) -> None:
    values = np.array([[0.0, 1.0, 1.0], [4.0, np.nan, np.inf]])
    with MetricsWriter(tmp_path) as writer:
        writer.add_histograms({"weights": values, "nothing": np.array([np.nan])}, steps=7)
    assert events(tmp_path).Tags()["histograms"] == ["weights"]
    (event,) = events(tmp_path).Histograms("weights")
    histogram = event.histogram_value
    assert (event.step, histogram.num, histogram.min, histogram.max, histogram.sum) == (7, 4, 0.0, 4.0, 6.0)
    assert histogram.sum_squares == 18.0
    assert sum(histogram.bucket) == 4
    assert len(histogram.bucket) == len(histogram.bucket_limit)


def test_a_video_is_an_animated_image(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (30, 20), color) for color in ("red", "blue")]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    with MetricsWriter(tmp_path) as writer:
        writer.add_video("policy", buffer.getvalue(), steps=9)
        with pytest.raises(ValueError, match="GIF"):
            writer.add_video("policy", b"\x89PNG", steps=9)
    (event,) = events(tmp_path).Images("policy")
    assert (event.step, event.width, event.height) == (9, 30, 20)
    assert event.encoded_image_string == buffer.getvalue()


def test_without_tensorboard_no_event_file_is_written(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path, tensorboard=False) as writer:
        writer.write({"steps": 1})
        writer.add_histograms({"weights": np.zeros(3)}, 1)
        writer.add_video("policy", b"GIF89a", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_explained(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    writer = MetricsWriter(tmp_path, tensorboard=False)
    with pytest.raises(RllabError, match="disk is full"):
        writer.write({"steps": 1})


def test_a_missing_folder_is_explained(tmp_path: Path) -> None:
    with pytest.raises(RllabError, match="could not be written"):
        MetricsWriter(tmp_path / "missing")


def test_importing_the_module_brings_neither_torch_nor_tensorboard() -> None:
    script = "import sys, rllab.metrics; print({'torch', 'tensorboard'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
