"""Texts into sentences by rules, for pre-training on pairs of them (Devlin et al. 2018, section 3.1).

Good enough to know what follows what. Names with full stops that are not in the list below are cut.
"""

import re

ABBREVIATIONS = frozenset({
    "mr", "mrs", "ms", "dr", "prof", "st", "jr", "sr", "vs", "etc", "e.g", "i.e", "cf", "vol", "gen", "col", "capt",
    "lt", "sgt", "rev", "inc", "ltd", "corp", "dept", "u.s", "u.k", "a.m", "p.m",
})  # fmt: skip
"""Words after whose full stop a sentence goes on, without their last full stop, in small letters."""
_BREAK = re.compile(r"([.!?…]+)[\"'”’)\]]*\s+(?=[\"'“‘(\[¿¡]*(\w))")


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, in their order, without white space around them.

    A sentence ends at the end of a line, or at `.`, `!`, `?` or `…` (and quotation marks and brackets after them) where
    white space and a capital letter or a digit follow, unless the word before a single full stop is an initial or one
    of `ABBREVIATIONS`. What is only white space is no sentence.
    """
    sentences = []
    for line in text.splitlines():
        first = 0
        for match in _BREAK.finditer(line):
            following = match[2]
            if not (following.isupper() or following.isdigit()):
                continue
            if match[1] == "." and _abbreviated(line[first : match.start()]):
                continue
            sentences.append(line[first : match.end()])
            first = match.end()
        sentences.append(line[first:])
    return [sentence for part in sentences if (sentence := part.strip())]


def _abbreviated(before: str) -> bool:
    words = before.split()
    word = words[-1].lstrip("\"'“‘([") if words else ""
    return word.lower() in ABBREVIATIONS or (len(word) == 1 and word.isupper() and word != "I")
