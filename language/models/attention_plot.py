"""A picture of attention's weights: a panel for each head of each layer."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from envs.errors import RllabError
from rllab.plots import _new_figure, _save

_LARGEST = 36.0
"""Inches of a picture's side; at 150 dots an inch, what viewers still open."""


def plot_attention(
    weights: Tensor, queries: Sequence[str], keys: Sequence[str], output: Path | str, *, title: str = "",
    layers: Sequence[int] | None = None, heads: Sequence[int] | None = None,
) -> Path:  # fmt: skip
    """Draw where heads look.

    Args:
        weights: `[layers, heads, Q, K]`, rows of K that sum to 1.
        queries: the Q tokens that look, from top to bottom.
        keys: the K tokens that are looked at, from left to right.
        output: the file; its suffix is the format, such as .png or .svg.
        title: above the picture.
        layers: which to draw, counted from 0; all by default.
        heads: likewise.

    Returns the path written. Raises RllabError for layers or heads that do not exist, an unknown suffix, or a disk that
    refuses.
    """
    rows = _chosen(layers, weights.shape[0], "layer")
    columns = _chosen(heads, weights.shape[1], "head")
    # A cell of a token is as large as its label needs, unless the picture would be too large.
    sides = [min(max(0.19 * len(tokens), 1.2), (_LARGEST - 2) / count)
             for tokens, count in ((keys, len(columns)), (queries, len(rows)))]  # fmt: skip
    path = Path(output)
    margin = 0.09 * max(map(len, [*queries, *keys]))
    figure = _new_figure(path, (sides[0] * len(columns) + margin + 1.2, sides[1] * len(rows) + margin + 1.2))
    panels = figure.subplots(len(rows), len(columns), squeeze=False, sharex=True, sharey=True)
    fonts = [min(8.0, 72 * 0.8 * side / len(tokens)) for side, tokens in zip(sides, (keys, queries), strict=True)]
    for row, layer in enumerate(rows):
        for column, head in enumerate(columns):
            panel = panels[row, column]
            image = panel.imshow(
                weights[layer, head].numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest"
            )
            panel.spines[:].set_color("#BBBBBB")
            panel.tick_params(length=0)
            if row == 0:
                panel.set_title(f"head {head}", fontsize=9)
            if column == len(columns) - 1:
                panel.yaxis.set_label_position("right")
                panel.set_ylabel(f"layer {layer}", fontsize=9, rotation=270, labelpad=12)
    for panel in panels[-1]:
        panel.set_xticks(range(len(keys)), keys, rotation=90, fontsize=fonts[0], parse_math=False)
    for panel in panels[:, 0]:
        panel.set_yticks(range(len(queries)), queries, fontsize=fonts[1], parse_math=False)
    bar = figure.colorbar(image, ax=panels, shrink=min(1.0, 3 / (sides[1] * len(rows))), aspect=25, pad=0.01)
    bar.set_label("weight", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    if title:
        figure.suptitle(title, fontsize=11, parse_math=False)
    figure.supylabel("tokens that look", fontsize=9)
    figure.supxlabel("tokens that are looked at", fontsize=9)
    return _save(figure, path)


def _chosen(numbers: Sequence[int] | None, count: int, name: str) -> list[int]:
    if not numbers:
        return list(range(count))
    for number in numbers:
        if not 0 <= number < count:
            raise RllabError(f"There is no {name} {number}; they go from 0 to {count - 1}.")
    return list(numbers)
