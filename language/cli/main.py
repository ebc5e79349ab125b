"""Language: tokenizers, word vectors, models that are trained on text, write it, and learn from comparisons of it."""

from rllab.cli.subcommands import Subcommands

SUBCOMMANDS = {
    "tokenizer": "language.cli.tokenizer",
    "vectors": "language.cli.vectors",
    "pretrain": "language.cli.pretrain",
    "generate": "language.cli.generate",
    "classify": "language.cli.classify",
    "translate": "language.cli.translate",
    "sft": "language.cli.sft",
    "reward": "language.cli.reward",
    "tune": "language.cli.tune",
    "direct": "language.cli.direct",
    "compare": "language.cli.compare",
    "evaluate": "language.cli.evaluate",
    "chat": "language.cli.chat",
    "embed": "language.cli.embed",
    "inspect": "language.cli.inspect",
}
command = Subcommands(
    "language", SUBCOMMANDS, __doc__,
    "rllab language tokenizer train byte-bpe --data movie-reviews --vocabulary-size 4096 --out tokenizer",
)  # fmt: skip
