"""Records of preference files in the field's formats, as comparisons of two responses to a prompt.

Known are: `prompt`, `chosen`, `rejected`, as texts or lists of messages; `chosen` and `rejected` alone, whose common
beginning is the prompt (Bai et al. 2022, "Training a helpful and harmless assistant", write conversations as
"\\n\\nHuman: …\\n\\nAssistant: …"); and two responses by number with a choice or several people's votes (Ji et al.
2023, "BeaverTails"; Wang et al. 2023, "PandaLM").
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from envs.errors import RllabError
from language.preferences.chat import ASSISTANT, USER, ChatTemplate, content_of, is_conversation, role_of

Record = Mapping[str, Any]
KNOWN = (
    "prompt/chosen/rejected, chosen/rejected with a common beginning, or prompt/response_0/response_1 with choice, "
    "better_response_id or votes"
)
"""The formats, for messages."""
_TURN = "\n\nAssistant:"
_RESPONSES = (("response_0", "response_1"), ("response1", "response2"), ("response_a", "response_b"))
_CHOICES = ("choice", "better_response_id", "preference", "winner")
_TIES = ("tie", "equal", "both", "neither")


@dataclass(frozen=True)
class TextComparison:
    """Two responses to a prompt, and which is better."""

    prompt: str
    first: str
    second: str
    mu: float
    """The preference for the first: 1, 0, ½ for a tie, or the mean of several votes."""

    @property
    def preferred(self) -> str:
        """The better one; of a tie the first."""
        return self.first if self.mu >= 0.5 else self.second


@dataclass(frozen=True)
class Demonstration:
    """A prompt, which may be empty, and what is to be written after it."""

    prompt: str
    completion: str


def comparison_of(record: Record, template: ChatTemplate) -> TextComparison:
    """What a record says.

    Raises:
        RllabError: its format is not known, a response is empty, both are equal, or their prompts differ; in half a
            sentence, for the caller to say which record it is.
    """
    if "chosen" in record and "rejected" in record:
        made = TextComparison(*_chosen_and_rejected(record, template), mu=1.0)
    else:
        made = _by_number(record, template)
    for name, text in (("first", made.first), ("second", made.second)):
        if not text.strip():
            raise RllabError(f"the {name if 'chosen' not in record else _named(name)} response is empty")
    if made.first == made.second:
        raise RllabError("both responses are the same, so that neither can be preferred")
    return made


def _named(name: str) -> str:
    return {"first": "chosen", "second": "rejected"}[name]


def _chosen_and_rejected(record: Record, template: ChatTemplate) -> tuple[str, str, str]:
    chosen, rejected, prompt = record["chosen"], record["rejected"], record.get("prompt")
    if isinstance(chosen, str) and isinstance(rejected, str):
        if prompt is None:
            return split_texts(chosen, rejected)
        if is_conversation(prompt):
            return template.prompt(prompt), template.answer(chosen), template.answer(rejected)
        if isinstance(prompt, str):
            return prompt, chosen, rejected
    elif is_conversation(chosen) and is_conversation(rejected) and chosen and rejected:
        if is_conversation(prompt):
            messages = list(prompt)
        elif isinstance(prompt, str) and len(chosen) == len(rejected) == 1:
            messages = [{"role": USER, "content": prompt}]
        else:
            messages = list(chosen[:-1])
            if messages != list(rejected[:-1]):
                raise RllabError("the prompts of chosen and rejected differ: all messages but the last must agree")
            if isinstance(prompt, str) and not any(prompt.strip() in content_of(each) for each in messages):
                raise RllabError("the prompts differ: what is under 'prompt' is in no message before the last")
        role = role_of(chosen[-1])
        answers = [_answers(side, messages, prompt, template) for side in (chosen, rejected)]
        return template.prompt(messages, role), answers[0], answers[1]
    raise RllabError("chosen and rejected must both be texts, or both lists of messages")


def _answers(side: Sequence[Any], messages: list[Any], prompt: object, template: ChatTemplate) -> str:
    """The last message; with a prompt of its own, a side is one message, or the prompt and one."""
    if is_conversation(prompt) and len(side) > 1 and list(side[:-1]) != messages:
        raise RllabError("the prompts differ: a list of messages must be the prompt's and one more, or one alone")
    return template.answer(content_of(side[-1]))


def split_texts(chosen: str, rejected: str) -> tuple[str, str, str]:
    """Prompt and responses of two texts that begin alike.

    The prompt ends with the last "\\n\\nAssistant:" that both have at the same place; texts without are parted before
    the word in which they begin to differ.

    Raises:
        RllabError: they are conversations with different beginnings, or have no common one.
    """
    common = _common_beginning(chosen, rejected)
    place = common.rfind(_TURN)
    if place >= 0:
        place += len(_TURN)
    elif _TURN in chosen or _TURN in rejected:
        raise RllabError("the prompts of chosen and rejected differ: they agree up to no 'Assistant:'")
    else:
        # Where one text ends and in the other a space follows, the word is whole; its space begins the response.
        ends = {text[len(common) : len(common) + 1] for text in (chosen, rejected)}
        is_whole = all(end.isspace() for end in ends) and not common[-1:].isspace()
        place = len(common) if is_whole else max((m.start() for m in re.finditer(r"\s+", common)), default=0)
    return chosen[:place], chosen[place:], rejected[place:]


def _common_beginning(one: str, other: str) -> str:
    length = next((place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    return one[: min(len(one), len(other)) if length is None else length]


def _by_number(record: Record, template: ChatTemplate) -> TextComparison:
    names = next((pair for pair in _RESPONSES if all(name in record for name in pair)), None)
    if names is None:
        raise RllabError(f"it has {', '.join(map(str, record))}, which is no format of preferences: {KNOWN}")
    prompt, answered = prompt_of(record, template)
    first, second = (_response(record[name], template, answered) for name in names)
    return TextComparison(prompt, first, second, _mean_vote(record, names))


def _response(value: Any, template: ChatTemplate, answered: bool) -> str:
    if is_conversation(value) and value:
        return template.answer(content_of(value[-1]))
    if not isinstance(value, str):
        raise RllabError(f"a response is {value!r:.40} and not a text")
    return template.answer(value) if answered and value.strip() else value


def prompt_of(record: Record, template: ChatTemplate) -> tuple[str, bool]:
    """A record's prompt, and whether the template wrote it (then answers are written by it too).

    Raises RllabError if there is none.
    """
    prompt, instruction = record.get("prompt", record.get("question")), record.get("instruction")
    if isinstance(prompt, str):
        return prompt, False
    if is_conversation(prompt):
        return template.prompt(prompt), True
    if isinstance(instruction, str):
        further = record.get("input")
        content = f"{instruction}\n\n{further}" if isinstance(further, str) and further.strip() else instruction
        return template.prompt([{"role": USER, "content": content}], ASSISTANT), True
    raise RllabError(f"it has {', '.join(map(str, record))}, but no prompt; a text, or messages, under 'prompt'")


def _mean_vote(record: Record, names: tuple[str, str]) -> float:
    """μ of the first response."""
    votes = record.get("votes")
    if votes is None and any(re.fullmatch(r"annotator\d+", str(name)) for name in record):
        votes = [record[name] for name in record if re.fullmatch(r"annotator\d+", str(name))]
    if votes is None:
        choice = next((name for name in _CHOICES if record.get(name) is not None), None)
        if choice is None:
            raise RllabError(f"no answer is in it; give {', '.join(_CHOICES)} or votes")
        votes = [record[choice]]
    if not isinstance(votes, Sequence) or isinstance(votes, str) or not votes:
        raise RllabError(f"its votes are {votes!r:.40}; give a list of one or more")
    return sum(_vote(vote, names) for vote in votes) / len(votes)


def _vote(value: Any, names: tuple[str, str]) -> float:
    """1 for the first, 0 for the second, ½ for neither; numbers count as the responses' names do."""
    label = str(value).strip().lower()
    first, second = (name.lower().removeprefix("response").removeprefix("_") for name in names)
    if label in _TIES:
        return 0.5
    by_label = {first: 1.0, names[0].lower(): 1.0, second: 0.0, names[1].lower(): 0.0}
    if first == "1":
        by_label["0"] = 0.5
    if label.endswith(".0"):
        label = label.removesuffix(".0")
    elif label == "0.5":
        return 0.5
    if label not in by_label:
        raise RllabError(f"the answer {value!r} is none of {first}, {second} and tie")
    return by_label[label]


def demonstrations_of(record: Record, template: ChatTemplate) -> list[Demonstration]:
    """What a record shows to do: `prompt` and `completion` (or `response`, `output`), a list of `messages`, of which
    each of the assistant's is learnt, a whole `text`, or of a comparison the preferred response.

    Raises:
        RllabError: none of these is there, or what is to be written is empty; in half a sentence.
    """
    if is_conversation(messages := record.get("messages")) and messages:
        made = [
            Demonstration(template.prompt(messages[:place]), template.answer(content_of(message)))
            for place, message in enumerate(messages) if role_of(message) == ASSISTANT
        ]  # fmt: skip
        if not made:
            raise RllabError("none of its messages is the assistant's, so that there is nothing to learn")
    elif (name := next((n for n in ("completion", "response", "output") if n in record), None)) is not None:
        prompt, answered = prompt_of(record, template)
        made = [Demonstration(prompt, _response(record[name], template, answered))]
    elif isinstance(record.get("text"), str):
        made = [Demonstration("", record["text"])]
    elif ("chosen" in record and "rejected" in record) or any(pair[0] in record for pair in _RESPONSES):
        comparison = comparison_of(record, template)
        made = [Demonstration(comparison.prompt, comparison.preferred)]
    else:
        raise RllabError(
            f"it has {', '.join(map(str, record))}, which is nothing to learn from: give prompt/completion, messages, "
            "text, or a comparison"
        )
    if not all(each.completion.strip() for each in made):
        raise RllabError("what is to be written is empty")
    return made
