"""Conversations as text: a template for turns, the prompt that a model answers, and the answer.

A template is a turn's text with `{role}` and `{content}` in it. The prompt ends where the assistant's content begins,
spaces apart: those begin the answer, as tokenizers join them to the word that follows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeGuard

from envs.errors import RllabError

DEFAULT_TEMPLATE = r"{role}: {content}\n"
"""A line `role: content` a turn."""
ASSISTANT, USER = "assistant", "user"
Message = Mapping[str, Any]
"""An object with `role` and `content`."""


@dataclass(frozen=True)
class ChatTemplate:
    """How turns are written."""

    turn: str = DEFAULT_TEMPLATE
    """One turn; `\\n` stands for a line end."""

    def __post_init__(self) -> None:
        if self.turn.count("{role}") != 1 or self.turn.count("{content}") != 1:
            raise RllabError(f"A chat template has {{role}} and {{content}} in it, once each; '{self.turn}' has not.")
        if self.turn.index("{role}") > self.turn.index("{content}"):
            raise RllabError(f"In a chat template {{role}} comes before {{content}}; '{self.turn}' has it behind.")

    @cached_property
    def _parts(self) -> tuple[str, str]:
        before, _, after = self.turn.replace("\\n", "\n").partition("{content}")
        return before, after

    def opening(self, role: str) -> str:
        """What comes before a turn's content, but for spaces right before it."""
        return self._parts[0].replace("{role}", role).rstrip(" ")

    @property
    def _space(self) -> str:
        before = self._parts[0]
        return before[len(before.rstrip(" ")) :]

    @property
    def closing(self) -> str:
        """What comes after a turn's content."""
        return self._parts[1]

    def prompt(self, messages: Sequence[Message], role: str = ASSISTANT) -> str:
        """A conversation up to where the next turn, of this role, has its content."""
        turns = [self.opening(role_of(each)) + self.answer(content_of(each)) + self.closing for each in messages]
        return "".join(turns) + self.opening(role)

    def answer(self, content: str) -> str:
        """The content of a turn as it continues the prompt; without the closing, in place of which a text ends."""
        return self._space + content


def role_of(message: Message) -> str:
    """Whose turn a message is. Raises RllabError if it does not say."""
    return _text(message, "role")


def content_of(message: Message) -> str:
    """What a message says. Raises RllabError if that is no text."""
    return _text(message, "content")


def _text(message: Message, key: str) -> str:
    found = message.get(key) if isinstance(message, Mapping) else None
    if not isinstance(found, str):
        raise RllabError(f"a message is {{'role': …, 'content': …}}, both texts, not {message!r:.60}")
    return found


def is_conversation(value: object) -> TypeGuard[Sequence[Message]]:
    """Whether something is a list of messages."""
    return isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(x, Mapping) for x in value)
