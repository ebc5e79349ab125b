"""Word vectors to look at: a picture of their space, and files for TensorBoard's projector."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from envs.errors import RllabError
from language.embeddings.word_vectors import WordVectors
from rllab.files import explained_write_errors, write_atomically
from rllab.plots import PALETTE, _new_figure, _new_panels, _save

Projection: TypeAlias = Literal["pca", "tsne"]


def project(
    vectors: NDArray[np.float32], method: Projection = "pca", *, seed: int = 0
) -> tuple[NDArray[np.float64], tuple[float, ...]]:
    """Vectors in two dimensions.

    Args:
        vectors: `[n, d]`, n ≥ 3, d ≥ 2.
        method: the plane of the largest variance (PCA), or t-SNE's picture of neighbourhoods, both by scikit-learn.
        seed: of t-SNE.

    Returns:
        Places `[n, 2]`, and of PCA the share of the variance along each axis.

    Raises:
        RllabError: there are too few vectors, or scikit-learn is missing.
    """
    if len(vectors) < 3 or vectors.shape[1] < 2:
        raise RllabError(
            f"A picture needs at least 3 words and 2 dimensions, not {len(vectors)} and {vectors.shape[1]}."
        )
    try:
        decomposition, manifold = import_module("sklearn.decomposition"), import_module("sklearn.manifold")
    except ImportError as error:
        raise RllabError("Pictures of vectors need scikit-learn; `pip install scikit-learn`.") from error
    if method == "pca":
        pca = decomposition.PCA(2, svd_solver="full")
        return np.asarray(pca.fit_transform(vectors)), tuple(map(float, pca.explained_variance_ratio_))
    # Its neighbourhoods must be smaller than the set; 30 is the usual size.
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    model = manifold.TSNE(2, perplexity=perplexity, metric="cosine", init="random", random_state=seed)
    return np.asarray(model.fit_transform(vectors), np.float64), ()


def plot_vectors(
    vectors: WordVectors, output: Path | str, words: Sequence[str] | None = None, *, method: Projection = "pca",
    count: int = 100, title: str = "", seed: int = 0,
) -> Path:  # fmt: skip
    """Draw words where their vectors, at length 1, are in two dimensions.

    Args:
        vectors: of all words.
        output: the file; its suffix is the format, such as .png or .svg.
        words: which to draw; by default the first `count`.
        method: see `project`.
        count: how many.
        title: above the picture.
        seed: of t-SNE.

    Returns the path written. Raises RllabError for an unknown word or suffix, too few words, or a disk that refuses.
    """
    chosen = list(vectors.words[:count]) if words is None else list(dict.fromkeys(words))
    places, shares = project(vectors.directions[[vectors.place(word) for word in chosen]], method, seed=seed)
    path = Path(output)
    figure = _new_figure(path, (9.0, 7.5))
    [panel] = _new_panels(figure, 1, 1)
    panel.scatter(places[:, 0], places[:, 1], s=14, color=PALETTE[0])
    for word, place in zip(chosen, places, strict=True):
        panel.annotate(word, place, xytext=(3, 3), textcoords="offset points", fontsize=8)
    names = [f"principal component {axis + 1} ({share:.0%} of the variance)" for axis, share in enumerate(shares)]
    panel.set_xlabel(names[0] if names else "t-SNE 1")
    panel.set_ylabel(names[1] if names else "t-SNE 2")
    if title:
        panel.set_title(title)
    return _save(figure, path)


def write_projector(vectors: WordVectors, folder: Path | str, count: int = 10_000) -> Path:
    """Write the first words for TensorBoard's projector: `tensorboard --logdir FOLDER` shows them in three dimensions.

    Args:
        vectors: of all words.
        folder: gets `vectors.tsv`, `metadata.tsv` and `projector_config.pbtxt`.
        count: how many; the projector is slow beyond 10,000.

    Returns the folder. Raises RllabError if the disk refuses, or a word has a tabulator or line end in it.
    """
    folder = Path(folder)
    shown = vectors.restricted(count)
    if any(set(word) & set("\t\r\n") for word in shown.words):
        raise RllabError("A word has a tabulator or a line end in it, which the projector's files cannot hold.")
    pattern = "\t".join(["%.6g"] * shown.matrix.shape[1])
    tensors = "\n".join(pattern % tuple(row) for row in shown.matrix)
    configuration = (
        'embeddings {\n  tensor_name: "word vectors"\n  tensor_path: "vectors.tsv"\n'
        '  metadata_path: "metadata.tsv"\n}\n'
    )
    with explained_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "vectors.tsv", (tensors + "\n").encode())
        write_atomically(folder / "metadata.tsv", ("\n".join(shown.words) + "\n").encode())
        write_atomically(folder / "projector_config.pbtxt", configuration.encode())
    return folder
