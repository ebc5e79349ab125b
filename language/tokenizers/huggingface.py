"""The document of a `tokenizer.json`, as Hugging Face `tokenizers` reads it."""

from typing import Any

Part = dict[str, Any]
"""A normaliser, pre-tokeniser, decoder or model: its `type`, and its settings."""


def tokenizer_document(
    model: Part,
    special_ids: dict[str, int],
    *,
    normaliser: Part | None = None,
    pretokeniser: Part | None = None,
    decoder: Part | None = None,
) -> dict[str, Any]:
    """Put the parts together; the special tokens are matched in the text as given, and never split."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": token_id, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
                "normalized": False, "special": True,
            }
            for token, token_id in sorted(special_ids.items(), key=lambda item: item[1])
        ],
        "normalizer": normaliser,
        "pre_tokenizer": pretokeniser,
        "post_processor": None,
        "decoder": decoder,
        "model": model,
    }  # fmt: skip


def sequence(*parts: Part | None) -> Part | None:
    """Several pre-tokenisers one after another, leaving out those that are None."""
    given = [part for part in parts if part is not None]
    if len(given) < 2:
        return given[0] if given else None
    return {"type": "Sequence", "pretokenizers": given}


def read_merges(model: Part) -> list[tuple[str, str]]:
    """The merges of a BPE model, which are pairs, or texts with a space between the two in older documents."""
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    return [(first, second) for first, second in pairs]
