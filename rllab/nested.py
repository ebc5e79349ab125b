"""Nested observations: one array, or dicts and tuples of them as Gymnasium's Dict and Tuple spaces give."""

from collections.abc import Callable
from typing import Any, TypeAlias

Nested: TypeAlias = Any
"""A tensor or array, or a (nested) dict or tuple whose leaves are such."""


def map_nested(function: Callable[..., Any], tree: Nested, *others: Nested) -> Nested:
    """Apply `function` to every leaf of `tree` (and the leaves at the same place in `others`)."""
    if isinstance(tree, dict):
        return {key: map_nested(function, tree[key], *(other[key] for other in others)) for key in tree}
    if isinstance(tree, tuple):
        return tuple(map_nested(function, *leaves) for leaves in zip(tree, *others, strict=True))
    return function(tree, *others)


def leaves_of(tree: Nested) -> list[Any]:
    """The leaves in a fixed order (dicts in insertion order, which Gymnasium's Dict space keeps)."""
    if isinstance(tree, dict):
        return [leaf for value in tree.values() for leaf in leaves_of(value)]
    if isinstance(tree, tuple):
        return [leaf for value in tree for leaf in leaves_of(value)]
    return [tree]


Path: TypeAlias = tuple[str | int, ...]
"""Keys and indices that lead to a leaf."""


def leaf_at(tree: Nested, path: Path) -> Any:
    """The leaf at a path."""
    for key in path:
        tree = tree[key]
    return tree
