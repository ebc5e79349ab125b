"""Write with a trained model: continue a prompt as it comes, or answer lines that are typed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from envs.errors import RllabError
from language.cli.lines import answer_lines, checked_writer
from language.decoding import Decodable, DecodingConfig, generate, pad_left, stream
from language.models.folder import load_model
from language.tokenizers.tokenizer import Tokenizer
from rllab.cli.arguments import parse


@dataclass(frozen=True)
class Options:
    """Which model, and what it continues."""

    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A run of `rllab language pretrain`, or a model's folder."""
    prompt: str | None = None
    """What to continue; without it lines are read, and each is continued. An empty one begins a new text."""
    count: int = 1
    """How many texts, each drawn anew."""
    device: str = "cpu"
    """Where to compute: cpu, cuda, cuda:1, …"""


@dataclass(frozen=True)
class GenerateArguments:
    """Write with a trained model."""

    options: Options
    decoding: DecodingConfig


def command(argv: Sequence[str]) -> int:
    """`rllab language generate MODEL …`."""
    default = GenerateArguments(Options(tyro.MISSING), DecodingConfig())
    arguments: GenerateArguments = parse(
        GenerateArguments, argv, "language generate", description=__doc__, default=default
    )
    options = arguments.options
    if options.count < 1:
        raise RllabError(f"--count must be at least 1, not {options.count}.")
    model, tokenizer = load_model(options.model, options.device)
    writer = checked_writer(model, options.model)
    config = _with_end(arguments.decoding, tokenizer)
    if options.prompt is not None:
        _continue(writer, tokenizer, options.prompt, config, options.count)
        return 0
    return answer_lines(
        lambda line: _continue(writer, tokenizer, line, config, options.count),
        "Type a beginning and press Enter; an empty line ends.", empty_ends=False,
    )  # fmt: skip


def _with_end(config: DecodingConfig, tokenizer: Tokenizer) -> DecodingConfig:
    """A text ends with the tokenizer's end token, unless other stop tokens were given."""
    end = tokenizer.special.end
    if config.stop_tokens or end is None:
        return config
    return replace(config, stop_tokens=(tokenizer.vocabulary[end],))


def _continue(
    writer: Decodable, tokenizer: Tokenizer, prompt: str, config: DecodingConfig, count: int
) -> None:  # fmt: skip
    ids = tokenizer.ids(prompt)
    if not ids:
        beginning = tokenizer.special.begin or tokenizer.special.end
        if beginning is None:
            raise RllabError("An empty prompt needs a tokenizer with a begin or an end token; give some text.")
        ids = [tokenizer.vocabulary[beginning]]
    if writer.context is not None:
        # What does not fit into the context is not written, rather than refused.
        room = max(1, writer.context - len(ids))
        shortest = min(config.minimum_new_tokens, room)
        config = replace(
            config, maximum_new_tokens=min(config.maximum_new_tokens, room), minimum_new_tokens=shortest
        )  # fmt: skip
    for number in range(count):
        drawn = replace(config, seed=config.seed + number)
        print(prompt, end="", flush=True)
        if drawn.beams > 1:
            tokens, valid = pad_left([ids])
            print((generate(writer, tokens, valid, drawn, tokenizer=tokenizer).texts or ("",))[0], end="")
        else:
            for piece in stream(writer, tokenizer, ids, drawn):
                print(piece, end="", flush=True)
        print()
