"""Talk with a model: turns by a template, the earlier ones as far as they fit into the context."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from envs.errors import RllabError
from language.cli.lines import answer_lines, checked_writer
from language.decoding import Decodable, DecodingConfig, stream
from language.models.folder import load_model
from language.preferences.chat import ASSISTANT, DEFAULT_TEMPLATE, USER, ChatTemplate, Message
from language.preferences.responses import ResponsesConfig
from language.tokenizers.tokenizer import Tokenizer
from rllab.cli.arguments import parse


@dataclass(frozen=True)
class Options:
    """Which model, and how turns are written."""

    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A run of `rllab language sft`, `tune` or `direct`, or a model's folder."""
    template: str = DEFAULT_TEMPLATE
    """How a turn is written, with {role} and {content}, as in the data it learnt from; \\n is a line end."""
    system: str = ""
    """What is said first, in the role `system`; it is never cut off."""
    device: str = "cpu"
    """Where to compute: cpu, cuda, cuda:1, …"""


@dataclass(frozen=True)
class ChatArguments:
    """Talk with a model."""

    options: Options
    decoding: DecodingConfig


def command(argv: Sequence[str]) -> int:
    """`rllab language chat MODEL`."""
    default = ChatArguments(Options(tyro.MISSING), DecodingConfig(maximum_new_tokens=200))
    arguments: ChatArguments = parse(ChatArguments, argv, "language chat", description=__doc__, default=default)
    options = arguments.options
    model, tokenizer = load_model(options.model, options.device)
    writer = checked_writer(model, options.model)
    talk = Conversation(writer, tokenizer, ChatTemplate(options.template), arguments.decoding, options.system)

    def answer(line: str) -> None:
        for piece in talk.answer(line.strip()):
            print(piece, end="", flush=True)
        print()

    return answer_lines(answer, "Say something and press Enter; an empty line ends.", empty_ends=True)


class Conversation:
    """Turns so far."""

    def __init__(
        self, model: Decodable, tokenizer: Tokenizer, template: ChatTemplate, decoding: DecodingConfig, system: str = ""
    ) -> None:  # fmt: skip
        """Begin one. Raises RllabError if it is to be decoded by beams."""
        if decoding.beams > 1:
            raise RllabError("A conversation is written as it comes, which beam search cannot do; leave --beams at 1.")
        self.model, self.tokenizer, self.template = model, tokenizer, template
        self.system: list[Message] = [{"role": "system", "content": system}] if system else []
        self.turns: list[Message] = []
        # A model without an end token, or one that does not use it, would go on with the user's next turn.
        stops = tuple(dict.fromkeys((*decoding.stop_strings, f"\n{template.opening(USER).lstrip()}")))
        ends = ResponsesConfig(stop_tokens=decoding.stop_tokens).stops(tokenizer)
        self.decoding = replace(decoding, stop_tokens=ends, stop_strings=stops)

    def answer(self, content: str) -> Iterator[str]:
        """The pieces of what the model says to this; it is remembered once it is said.

        Raises RllabError if what was said does not fit into the context.
        """
        self.turns.append({"role": USER, "content": content})
        ids = self.prompt()
        seeded = replace(self.decoding, seed=self.decoding.seed + len(self.turns))
        if self.model.context is not None:
            room = max(1, self.model.context - len(ids))
            seeded = replace(
                seeded, maximum_new_tokens=min(seeded.maximum_new_tokens, room),
                minimum_new_tokens=min(seeded.minimum_new_tokens, room),
            )  # fmt: skip
        text = ""
        for piece in stream(self.model, self.tokenizer, ids, seeded):
            shown = piece if text else piece.lstrip()
            text += shown
            if shown:
                yield shown
        self.turns.append({"role": ASSISTANT, "content": text.rstrip()})

    def prompt(self) -> list[int]:
        """The ids of as many of the last turns as leave room for an answer, and of what the system says.

        Raises RllabError if the last turn alone does not fit.
        """
        context = self.model.context
        room = None if context is None else context - min(self.decoding.maximum_new_tokens, context // 2)
        for first in range(len(self.turns)):
            ids = self.tokenizer.ids(self.template.prompt([*self.system, *self.turns[first:]]))
            if room is None or len(ids) <= room:
                return ids
        raise RllabError(f"What was said has more tokens than the model's context of {context} holds; say less.")
