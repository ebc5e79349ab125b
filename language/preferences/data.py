"""Comparisons of texts, and prompts with what is to be written after them, from files and from the Hub.

JSON lines, JSON (a list of records), Parquet, CSV and TSV, also with .gz, and `hub:OWNER/NAME[/SPLIT]`; the formats of
records are those of `language.preferences.formats`.
"""

import gzip
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from envs.errors import RllabError
from language.data.records import read_records, read_texts
from language.preferences.chat import DEFAULT_TEMPLATE, ChatTemplate, is_conversation
from language.preferences.formats import Demonstration, TextComparison, comparison_of, demonstrations_of, prompt_of

__all__ = [
    "Demonstration", "Found", "TextComparison", "TextsConfig", "folds_by_prompt", "prompt_key", "read_comparisons",
    "read_demonstrations", "read_prompt_texts", "split_by_prompt",
]  # fmt: skip
Item = TypeVar("Item")
Faulty: TypeAlias = Literal["refuse", "drop"]
HUB, _PROMPT = "hub:", "prompt"
_TEXTS = (".txt", ".md", "")


@dataclass(frozen=True)
class TextsConfig:
    """Which texts, and how conversations are written."""

    sources: tuple[str, ...] = ()
    """Files, or hub:OWNER/NAME[/SPLIT]."""
    template: str = DEFAULT_TEMPLATE
    """How a turn of a conversation is written, with {role} and {content}."""
    faulty: Faulty = "refuse"
    """What becomes of a record that cannot be learnt from: it is refused with a sentence, or dropped and counted."""


@dataclass(frozen=True)
class Found(Generic[Item]):
    """What was read."""

    items: list[Item]
    dropped: int
    """Records that were left out because they cannot be learnt from."""
    first_fault: str | None
    """What was wrong with the first of them."""


def read_comparisons(config: TextsConfig) -> Found[TextComparison]:
    """All comparisons.

    Raises:
        RllabError: there are none, a source cannot be read, or (unless faulty ones are to be dropped) a record's format
            is not known, its prompts differ, a response is empty, or both are the same; it names the record.
    """
    template = ChatTemplate(config.template)
    return _read(config, lambda record: [comparison_of(record, template)], "comparison")


def read_demonstrations(config: TextsConfig) -> Found[Demonstration]:
    """All prompts with what is to be written after them; each line of a plain text file is a text of its own.

    Raises:
        RllabError: as `read_comparisons`.
    """
    template = ChatTemplate(config.template)
    return _read(config, lambda record: demonstrations_of(record, template), "text", plain=True)


def read_prompt_texts(config: TextsConfig, field: str = _PROMPT) -> Found[str]:
    """The prompts of all records, in their order: what is under the field; under `prompt` it may also be messages, an
    instruction, what a comparison's responses begin with, or a whole text.

    Raises:
        RllabError: as `read_comparisons`; or a record has none of these.
    """
    template = ChatTemplate(config.template)

    def parse(record: dict[str, Any]) -> list[str]:
        if isinstance(found := record.get(field), str):
            return [found]
        if field == _PROMPT and "chosen" in record and "rejected" in record:
            return [comparison_of(record, template).prompt]
        if field == _PROMPT and (is_conversation(record.get(field)) or "instruction" in record):
            return [prompt_of(record, template)[0]]
        if field == _PROMPT and isinstance(found := record.get("text"), str):
            return [found]
        raise RllabError(f"it has no text under '{field}', but {', '.join(map(str, record))}")

    return _read(config, parse, "prompt", plain=True)


def _read(
    config: TextsConfig, parse: Callable[[dict[str, Any]], list[Item]], what: str, *, plain: bool = False
) -> Found[Item]:  # fmt: skip
    if not config.sources:
        raise RllabError("Give files, or hub:OWNER/NAME.")
    items: list[Item] = []
    dropped, first_fault = 0, None
    for source in config.sources:
        for number, record in enumerate(_records(source, plain), 1):
            try:
                items += parse(record)
            except RllabError as error:
                fault = f"Record {number:,} of {source} is of no use: {error}."
                if config.faulty == "refuse":
                    raise RllabError(f"{fault} Mend or remove it, or drop such records by --faulty drop.") from error
                dropped, first_fault = dropped + 1, first_fault or fault
    if not items:
        raise RllabError(first_fault or f"There is no {what} in {', '.join(config.sources)}; give other files.")
    return Found(items, dropped, first_fault)


def _records(source: str, plain: bool) -> Iterator[dict[str, Any]]:
    if source.startswith(HUB):
        yield from hub_records(source)
        return
    path = Path(source)
    if not path.is_file():
        raise RllabError(f"There is no file {path}; check the path.")
    suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if suffix.lower() == ".json":
        yield from _json_list(path)
    elif plain and suffix.lower() in _TEXTS:
        yield from ({"text": text} for text in read_texts(path))
    else:
        yield from read_records(path)


def _json_list(path: Path) -> Iterator[dict[str, Any]]:
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        records = json.loads(content)
    except (OSError, EOFError) as error:
        raise RllabError(f"{path} cannot be read ({error}); check the path.") from error
    except ValueError as error:
        raise RllabError(
            f"{path} is not JSON ({error}); mend it, or name it .jsonl if each line is a record."
        ) from error
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise RllabError(f"{path} is not a list of JSON objects; write it as [{{…}}, …].")
    yield from records


def hub_records(name: str) -> Iterator[dict[str, Any]]:
    """The records of `hub:OWNER/NAME[/SPLIT]`, streamed, or of a local copy `hub:FOLDER`; needs `datasets`.

    Raises RllabError if the package is missing, the Hub out of reach, or the data set not there.
    """
    rest = name.removeprefix(HUB)
    if Path(rest).is_dir():
        place, split = rest, "train"
    else:
        owner, _, further = rest.partition("/")
        title, _, split = further.partition("/")
        place = f"{owner}/{title}"
        if not (owner and title):
            raise RllabError(f"'{name}' names no data set of the Hub; write hub:OWNER/NAME or hub:OWNER/NAME/SPLIT.")
    try:
        datasets = import_module("datasets")
    except ImportError as error:
        raise RllabError("Data sets of the Hub need the package datasets; `pip install datasets`.") from error
    try:
        yield from datasets.load_dataset(place, split=split or "train", streaming=True)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error).split())
        raise RllabError(f"The data set {place} cannot be read ({reason}); check its name.") from error


def split_by_prompt(keys: Sequence[str], share: float, seed: int = 0) -> NDArray[np.bool_]:
    """Which items are held out, `[items]`: those of some prompts, so that no prompt is on both sides.

    Args:
        keys: each item's prompt.
        share: of the items, about; at least one prompt is on each side.
        seed: decides which.

    Raises:
        RllabError: all items have the same prompt, or the share is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise RllabError(f"The held-out share must lie between 0 and 1, not {share}.")
    held_out: NDArray[np.bool_] = folds_by_prompt(keys, max(2, round(1 / share)), seed) == 0
    return held_out


def folds_by_prompt(keys: Sequence[str], folds: int, seed: int = 0) -> NDArray[np.int64]:
    """The fold of each item, `[items]`, from 0; all items of a prompt are in one, and folds are about equally large.

    Raises:
        RllabError: there are fewer prompts than two, or folds are fewer than two.
    """
    if folds < 2:
        raise RllabError(f"Cross-validation needs 2 folds at least, not {folds}.")
    groups: dict[str, list[int]] = {}
    for number, key in enumerate(keys):
        groups.setdefault(key, []).append(number)
    if len(groups) < 2:
        raise RllabError("All texts have the same prompt, so that none can be held out; give others too.")
    members = list(groups.values())
    sizes, found = np.zeros(min(folds, len(groups))), np.empty(len(keys), np.int64)
    for group in np.random.default_rng(seed).permutation(len(members)):
        fold = int(sizes.argmin())
        found[members[group]] = fold
        sizes[fold] += len(members[group])
    return found


def prompt_key(item: TextComparison | Demonstration) -> str:
    """What decides on which side of a split an item is: its prompt, or without one its texts."""
    if item.prompt.strip():
        return item.prompt
    return item.completion if isinstance(item, Demonstration) else "\0".join(sorted((item.first, item.second)))
