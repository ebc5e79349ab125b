"""Comparisons of texts as programs that learn from them read them: prompt, chosen and rejected, a line each."""

import json
from collections.abc import Iterable
from pathlib import Path

from envs.errors import RllabError
from preference.comparisons import Label
from preference.exchange.contents import Entry
from preference.task import Task


def write_chosen(path: Path, task: Task, entries: Iterable[Entry]) -> None:
    """Write a line for every answer that counts and says which text is better.

    Raises:
        RllabError: the task is of clips, or there is no such answer.
        OSError: the file cannot be written.
    """
    if task.kind != "texts":
        raise RllabError("Clips are no texts with a prompt: export them as jsonl, parquet or minari.")
    lines = 0
    with open(path, "w", encoding="ascii") as file:
        for entry in entries:
            taken_back = {answer.supersedes for _, answer in entry.answers}
            first, second = (clip.details for clip in entry.clips)
            for _, answer in entry.answers:
                if answer.id in taken_back or answer.label not in (Label.FIRST, Label.SECOND):
                    continue
                better, worse = (first, second) if answer.label is Label.FIRST else (second, first)
                document = {"prompt": first["prompt"], "chosen": better["response"], "rejected": worse["response"]}
                file.write(json.dumps(document) + "\n")
                lines += 1
    if not lines:
        raise RllabError("No answer says which text is better: label some pairs first.")
