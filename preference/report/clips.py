"""Clips in a report: their frames as a strip that the page plays, or what was observed and done, step by step."""

import base64
from collections.abc import Sequence
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from envs.errors import RllabError
from preference.report.charts import svg_of
from preference.report.record import RankedClip, Record
from preference.sheets import Frames, decode_sheet
from rllab.plots import PALETTE, _new_figure, _new_panels

HEIGHT = 150
"""Of the frames, in pixels."""
_MOST_PIXELS = 16_000
"""Width of a strip: WebP's own limit is 16,383."""
_MOST_LINES = 4
"""Numbers of an observation, or of an action, that are drawn."""


def cards(record: Record, clips: Sequence[RankedClip], name: str) -> str:
    """HTML of some clips beside each other; `name` keeps their ids apart."""
    lines = _lines(record)
    return "\n".join(_card(record, ranked, f"{name}{number}", lines) for number, ranked in enumerate(clips))


def has_films(record: Record) -> bool:
    """Whether any clip moves."""
    return any(_frames(ranked) is not None for ranked in (*record.best, *record.worst))


def observation_note(record: Record) -> str:
    """Which numbers of the observations are drawn, where not all are; else nothing."""
    shown = [*record.best, *record.worst]
    if not shown or all(_frames(ranked) is not None for ranked in shown):
        return ""
    size = _flat(shown[0].clip.arrays["observations"]).shape[1]
    if size <= _MOST_LINES:
        return ""
    return f"Of the {size} numbers of an observation the {_MOST_LINES} that vary most in these clips are drawn."


def _card(record: Record, ranked: RankedClip, name: str, lines: NDArray[np.int64]) -> str:
    clip = ranked.clip
    facts = [f"learned reward <b>{_number(ranked.mean)}</b> a step"]
    if "rewards" in clip.arrays:
        true = "true reward" if record.config.sees_rewards else "the environment's own"
        facts.append(f"{true} {_number(float(clip.arrays['rewards'].mean()))}")
    facts.append(f"{clip.length} steps of the policy at step {clip.policy_step:,}")
    frames = _frames(ranked)
    title = f"Clip with a mean learned reward of {ranked.mean:.3g} a step"
    picture = "" if frames is None else _film(frames, record.fps, title)
    traces = _traces(record, ranked, name, title, lines, only_reward=frames is not None)
    return f'<figure class="clip">{picture}{traces}<figcaption>{" · ".join(facts)}</figcaption></figure>'


def _frames(ranked: RankedClip) -> Frames | None:
    """What a clip looks like: its drawn frames, or its observations if those are images."""
    if ranked.sheet is not None:
        try:
            return decode_sheet(*ranked.sheet)
        except RllabError:  # a damaged sheet must not cost the whole report
            return None
    observations = ranked.clip.arrays["observations"]
    if observations.dtype != np.uint8 or observations.ndim != 4:
        return None
    channels_last = observations.shape[3] < observations.shape[1]
    newest = observations[..., -3:] if channels_last and observations.shape[3] == 3 else None
    if newest is None:
        grey = observations[..., -1] if channels_last else observations[:, -1]
        newest = np.repeat(grey[..., None], 3, axis=3)
    return newest


def _film(frames: Frames, fps: float, title: str) -> str:
    """A strip of all frames side by side, which the page's style moves through a window of one."""
    width = max(1, round(frames.shape[2] * HEIGHT / frames.shape[1]))
    stride = -(-len(frames) * width // _MOST_PIXELS)
    kept = frames[::stride]
    images = [np.asarray(Image.fromarray(frame).resize((width, HEIGHT))) for frame in kept]
    buffer = BytesIO()
    Image.fromarray(np.concatenate(images, axis=1)).save(buffer, format="WEBP", quality=70, method=4)
    data = base64.b64encode(buffer.getvalue()).decode()
    seconds = len(frames) / max(fps, 1e-6)
    style = (
        f"width:{width}px;height:{HEIGHT}px;--strip:-{width * len(images)}px;"
        f"background-image:url(data:image/webp;base64,{data});"
        f"background-size:{width * len(images)}px {HEIGHT}px;"
        f"animation-duration:{seconds:.3g}s;animation-timing-function:steps({len(images)})"
    )
    return f'<div class="film" role="img" aria-label="{escape(title)}" style="{style}"></div>'


def _lines(record: Record) -> NDArray[np.int64]:
    """The numbers of an observation that vary most over the clips that are shown, in their order."""
    shown = [*record.best, *record.worst]
    if not shown:
        return np.empty(0, np.int64)
    values = np.concatenate([_flat(ranked.clip.arrays["observations"]) for ranked in shown])
    chosen: NDArray[np.int64] = np.sort(np.argsort(-values.std(axis=0), kind="stable")[:_MOST_LINES])
    return chosen


def _traces(
    record: Record, ranked: RankedClip, name: str, title: str, lines: NDArray[np.int64], only_reward: bool
) -> str:
    """The learned reward of each step, and above it what was observed and done; every clip to the same scale."""
    shown = [*record.best, *record.worst]
    panels: list[tuple[str, list[NDArray[Any]], NDArray[Any], list[str]]] = []
    if not only_reward:
        observed = [_flat(other.clip.arrays["observations"])[:, lines] for other in shown]
        names = [f"o{index}" for index in lines]
        panels.append(("observation", observed, _flat(ranked.clip.arrays["observations"])[:, lines], names))
        acted = [_flat(other.clip.arrays["actions"])[:, :_MOST_LINES] for other in shown]
        own = _flat(ranked.clip.arrays["actions"])[:, :_MOST_LINES]
        panels.append(("action", acted, own, [f"a{index}" for index in range(own.shape[1])]))
    means = [other.rewards.T for other in shown]
    panels.append(("learned reward", means, ranked.rewards.T, []))
    figure = _new_figure(Path("x.svg"), (3.6, 0.35 + 1.1 * len(panels)))
    drawn = _new_panels(figure, len(panels), 1)
    for panel, (label, everyone, values, names) in zip(drawn, panels, strict=True):
        together = np.concatenate([other.reshape(-1) for other in everyone])
        low, high = float(together.min()), float(together.max())
        margin = 0.06 * (high - low) or 0.5
        panel.set_ylim(low - margin, high + margin)
        panel.set_xlim(0, max(len(other) for other in everyone) - 1 or 1)
        if names:
            for column, line in enumerate(values.T):
                style = "steps-post" if np.issubdtype(values.dtype, np.integer) else "default"
                panel.plot(line, color=PALETTE[column], linewidth=1.3, label=names[column], drawstyle=style)
            if len(names) > 1:
                panel.legend(fontsize=7, frameon=False, ncols=len(names), loc="upper right", borderaxespad=0,
                             handlelength=1.0, columnspacing=0.8)  # fmt: skip
        else:
            steps = np.arange(len(values))
            panel.fill_between(steps, values.min(axis=1), values.max(axis=1), color=PALETTE[2], alpha=0.25, linewidth=0)
            panel.plot(steps, values.mean(axis=1), color=PALETTE[2], linewidth=1.6)
            panel.axhline(0, color="#8A8A8A", linewidth=0.8, linestyle="--")
        panel.set_ylabel(label, fontsize=8)
        panel.tick_params(labelsize=7)
        if panel is not drawn[-1]:
            panel.set_xticklabels([])
    drawn[-1].set_xlabel("step", fontsize=8)
    figure.align_ylabels(drawn)
    return svg_of(figure, name, title)


def _number(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")


def _flat(values: NDArray[Any]) -> NDArray[Any]:
    """Steps `[L, *shape]` as `[L, F]`."""
    return values.reshape(len(values), -1)
