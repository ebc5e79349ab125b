"""Turn text into numbers: tokenizers and word vectors."""

from rllab.cli.subcommands import Subcommands

SUBCOMMANDS = {
    "tokenizer": "language.cli.tokenizer",
    "vectors": "language.cli.vectors",
}
command = Subcommands(
    "language", SUBCOMMANDS, __doc__,
    "rllab language tokenizer train byte-bpe --data movie-reviews --vocabulary-size 4096 --out tokenizer",
)  # fmt: skip
