"""A classifier of texts that counts words: TF-IDF of words and pairs of words, and logistic regression upon it.

It is trained in seconds and knows nothing of order beyond neighbours; Wang and Manning 2012, "Baselines and Bigrams:
Simple, Good Sentiment and Topic Classification", show how far that goes. Here it is a baseline, and a teacher and judge
of texts that stands in for a person.

folder/
  words.json          configuration, classes, columns, version
  words.safetensors   weights, biases, the rarity of each column
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy.optimize import minimize
from scipy.special import log_softmax, logsumexp
from torch import Tensor

from envs.errors import RllabError
from language.embeddings.counted import Sparse, bag_of_words, first_seen, ngrams_between, rarity, weighted_rows
from language.embeddings.vocabulary import words_of
from language.models.documents import Form
from language.tasks.classifying import Verdict, verdicts
from language.tasks.document_readers import Texts
from rllab.documents import rebuilt
from rllab.files import explained_write_errors, write_atomically

CONFIG, _WEIGHTS, _VERSION = "words.json", "words.safetensors", 1


@dataclass(frozen=True)
class CountedWordsConfig:
    """What is counted, and how freely it is weighed."""

    longest: int = 2
    """The longest n-grams: 2 counts words and pairs of neighbours, 1 words alone."""
    minimum_documents: int = 3
    """How many documents must have an n-gram."""
    maximum_columns: int = 200_000
    """Of those the most frequent so many are kept."""
    sublinear: bool = True
    """Count k occurrences as 1 + log k."""
    strength: float = 8.0
    """C: the larger, the less weights are held near to 0 (½‖w‖² + C · Σ loss)."""

    def __post_init__(self) -> None:
        for name in ("longest", "minimum_documents", "maximum_columns"):
            if getattr(self, name) < 1:
                raise RllabError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if not self.strength > 0:
            raise RllabError(f"strength must be above 0, not {self.strength}.")


@dataclass(frozen=True)
class CountedWords:
    """A trained one, with the interface of `language.tasks.classifying.Classifier`."""

    config: CountedWordsConfig
    classes: tuple[str, ...]
    """Their names, in alphabetical order."""
    columns: tuple[str, ...]
    """The n-grams that count."""
    rarity: NDArray[np.float32]
    """The inverse document frequency of each, `[V]`."""
    weights: NDArray[np.float32]
    """`[classes, V]`; of two classes only that of the second."""
    biases: NDArray[np.float32]
    """`[classes]`, or `[1]`."""

    @property
    def form(self) -> Form:
        """An input is one text."""
        return "classification"

    @classmethod
    def train(cls, texts: Sequence[str], labels: Sequence[str], config: CountedWordsConfig | None = None) -> Self:
        """Learn from texts and the names of their classes.

        Raises:
            RllabError: there are fewer than two classes, or no n-gram is in enough documents.
        """
        config = config or CountedWordsConfig()
        classes = tuple(sorted(set(labels)))
        if len(classes) < 2:
            raise RllabError(f"A classifier needs documents of two classes at least, not of {len(classes)}.")
        columns, counts = _counted(texts, config)
        rare = rarity(counts)
        features = _features(counts, rare, config)
        places = np.array([classes.index(label) for label in labels])
        weights, biases = logistic_regression(features, places, len(classes), config.strength)
        single = (part.astype(np.float32) for part in (rare, weights, biases))
        return cls(config, classes, columns, *single)

    def log_odds(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """log p − log(1 − p) of each class, `[texts, classes]`; of a text without known words those of the biases."""
        logits = self._logits(texts)
        if len(self.classes) == 2:
            return np.concatenate([-logits, logits], 1)
        return np.stack([
            logits[:, place] - logsumexp(np.delete(logits, place, 1), axis=1) for place in range(len(self.classes))
        ], 1)  # fmt: skip

    def probabilities(self, inputs: Sequence[Texts]) -> Tensor:
        """Of each class, float32 `[inputs, classes]`, of inputs of one text each."""
        if not inputs:
            return torch.empty(0, len(self.classes))
        logits = self._logits([text for (text,) in inputs])
        if len(self.classes) == 2:
            logits = np.concatenate([np.zeros_like(logits), logits], 1)
        return torch.from_numpy(np.exp(log_softmax(logits, axis=1))).float()

    def classify(self, inputs: Sequence[Texts]) -> list[Verdict]:
        """The likeliest class of each input, of one text each."""
        return verdicts(self.classes, self.probabilities(inputs))

    def _logits(self, texts: Sequence[str]) -> NDArray[np.float64]:
        documents = [_ngrams(text, self.config) for text in texts]
        # Of some texts only few columns are looked at: all of them would take longer than the texts.
        known = [gram for gram in first_seen(documents) if gram in self._places]
        if not known:
            return np.tile(self.biases.astype(np.float64), (len(texts), 1))
        places = [self._places[gram] for gram in known]
        features = _features(bag_of_words(documents, known), self.rarity[places], self.config)
        return np.asarray(features @ self.weights[:, places].T.astype(np.float64) + self.biases)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {gram: place for place, gram in enumerate(self.columns)}

    def save(self, folder: Path | str) -> None:
        """Write it into a folder, which is made if it is not there."""
        path = Path(folder)
        document = {
            "version": _VERSION, "config": asdict(self.config), "classes": self.classes, "columns": self.columns,
        }  # fmt: skip
        arrays = {"rarity": self.rarity, "weights": self.weights, "biases": self.biases}
        with explained_write_errors(path):
            path.mkdir(parents=True, exist_ok=True)
            temporary = path / f".{_WEIGHTS}"
            save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, temporary)
            temporary.replace(path / _WEIGHTS)
            write_atomically(path / CONFIG, json.dumps(document, ensure_ascii=False).encode())

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Read what `save` wrote. Raises RllabError if there is none, or it is damaged or of a newer version."""
        path = Path(folder)
        try:
            document = json.loads((path / CONFIG).read_bytes())
            if document["version"] > _VERSION:
                raise RllabError(f"{path} was written by a newer version of rllab; upgrade it.")
            arrays = load_file(path / _WEIGHTS)
            return cls(
                rebuilt(CountedWordsConfig, document["config"]), tuple(document["classes"]),
                tuple(document["columns"]), arrays["rarity"], arrays["weights"], arrays["biases"],
            )  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise RllabError(
                f"{folder} holds no classifier that counts words ({' '.join(str(error).split())}); give a folder of "
                "`rllab language classify train words`."
            ) from error

    @staticmethod
    def is_in(folder: Path | str) -> bool:
        """Whether `save` wrote one there."""
        return (Path(folder) / CONFIG).is_file()


def logistic_regression(
    features: Sparse, places: NDArray[np.int64], classes: int, strength: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights `[K, V]` and biases `[K]` that make ½‖w‖² + C · Σ loss least, by L-BFGS; biases are free.

    K is the number of classes, or 1 of two: then the logit is the second's, and the loss logistic.

    Args:
        features: `[documents, V]`.
        places: the class of each, `[documents]`.
        classes: how many.
        strength: C.
    """
    documents, width = features.shape
    outputs = 1 if classes == 2 else classes
    wanted = np.zeros((documents, outputs))
    if outputs == 1:
        wanted[:, 0] = places
    else:
        wanted[np.arange(documents), places] = 1
    transposed = features.T.tocsr()

    def objective(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights, biases = flat[:-outputs].reshape(outputs, width), flat[-outputs:]
        logits = features @ weights.T + biases
        if outputs == 1:
            losses = np.logaddexp(0, logits) - wanted * logits
            error = 1 / (1 + np.exp(-logits)) - wanted
        else:
            log_probs = log_softmax(logits, axis=1)
            losses, error = -wanted * log_probs, np.exp(log_probs) - wanted
        gradient = np.concatenate([(weights + strength * (transposed @ error).T).ravel(), strength * error.sum(0)])
        return float(0.5 * np.square(weights).sum() + strength * losses.sum()), gradient

    start = np.zeros(outputs * (width + 1))
    found = minimize(
        objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 500, "ftol": 1e-9, "maxcor": 10}
    )
    return found.x[:-outputs].reshape(outputs, width), found.x[-outputs:]


def _ngrams(text: str, config: CountedWordsConfig) -> list[str]:
    return ngrams_between(words_of(text), 1, config.longest)


def _counted(texts: Sequence[str], config: CountedWordsConfig) -> tuple[tuple[str, ...], Sparse]:
    """The columns, and how often each text has each."""
    documents = [_ngrams(text, config) for text in texts]
    frequency: Counter[str] = Counter()
    for document in documents:
        frequency.update(set(document))
    kept = [gram for gram, count in frequency.items() if count >= config.minimum_documents]
    if not kept:
        raise RllabError(
            f"No word is in {config.minimum_documents} documents; give more, or lower --minimum-documents."
        )
    kept = sorted(kept, key=lambda gram: (-frequency[gram], gram))[: config.maximum_columns]
    return tuple(kept), bag_of_words(documents, kept)


def _features(counts: Sparse, rare: NDArray[np.floating], config: CountedWordsConfig) -> Sparse:
    if config.sublinear:
        counts = counts.copy()
        counts.data = 1 + np.log(counts.data)
    return weighted_rows(counts, np.asarray(rare, np.float64))
