"""What every report's page is made of: the page itself, its head, sections of charts, the configuration."""

import json
from collections.abc import Sequence
from html import escape

from preference.report.style import STYLE
from rllab.runs import Run


def whole(title: str, sections: Sequence[str]) -> str:
    """The page of these sections, those that are empty left out. It loads nothing."""
    body = "\n".join(section for section in sections if section)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n"
        "</html>\n"
    )


def head(title: str, lead: str, facts: Sequence[tuple[str, str, str]], notes: Sequence[str] = ()) -> str:
    """What the page is about: each fact is its name, its value, and what more is to be said of it."""
    items = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(more)}</small></dd></div>"
        for name, value, more in facts
    )
    said = "".join(f'<p class="note">{escape(note)}</p>' for note in notes)
    return f'<header><h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p></header>\n<dl>{items}</dl>{said}'


def section(title: str, note: str, svgs: Sequence[str], name: str) -> str:
    """Charts side by side below a heading; nothing if there are none. `note` is HTML, `name` its id's beginning."""
    if not svgs:
        return ""
    panels = "".join(f"<div>{svg}</div>" for svg in svgs)
    return (
        f'<section aria-labelledby="{name}-heading"><h2 id="{name}-heading">{title}</h2>'
        f'<figure><div class="charts">{panels}</div><figcaption>{note}</figcaption></figure></section>'
    )


def table(names: Sequence[str], rows: str, label: str, kind: str = "") -> str:
    """A table that scrolls in its place where it is too wide, by keyboard too; `rows` is HTML, `kind` a class."""
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    return (
        f'<div class="table" role="region" tabindex="0" aria-label="{label}"><table class="{kind}">'
        f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def configuration(run: Run) -> str:
    """Everything that was chosen, and where the run comes from, to be unfolded."""
    config = escape(json.dumps(run.config, indent=2, ensure_ascii=False))
    origin = escape(json.dumps(run.provenance, indent=2, ensure_ascii=False))
    return (
        '<section aria-labelledby="configuration-heading"><h2 id="configuration-heading">Configuration</h2>'
        f"<details><summary>Everything that was chosen</summary><pre>{config}</pre></details>"
        f"<details><summary>Versions, command and commit</summary><pre>{origin}</pre></details></section>"
    )


def moment(text: str) -> str:
    """A moment as the provenance has it, to the minute."""
    return f"{text[:10]} {text[11:16]} UTC" if text.endswith("+00:00") else text
