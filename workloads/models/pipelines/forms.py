"""What a call returned, without its tensors, so that nobody keeps them who would not: what is done again can return their like.

    kept = form(result, operands(args, kwargs))
    ...
    made_again(kept, operands(other_args, other_kwargs), recording)

A decoder's result holds its caches of frames. Kept as they are, those of every call that was recorded would be on the device to the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils._pytree import tree_leaves, tree_map

from simtti.workloads.recording import Recording


class _Made(NamedTuple):
    """A tensor that a call made: its sizes and strides in elements."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype


class _Given(NamedTuple):
    """A tensor that a call was given, and returned: its place among the operands."""

    at: int


def operands(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """All that a call is given, however deep in lists, tuples and dicts."""
    return list(tree_leaves((tuple(args), dict(kwargs))))


def form(value: Any, given: Sequence[Any]) -> Any:
    """What a call with the operands `given` returned, without its tensors."""
    places = {id(leaf): at for at, leaf in enumerate(given) if isinstance(leaf, torch.Tensor)}

    def of(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        at = places.get(id(leaf))
        return _Given(at) if at is not None else _Made(tuple(leaf.shape), leaf.stride(), leaf.dtype)

    return tree_map(of, value)


def made_again(kept: Any, given: Sequence[Any], recording: Recording) -> Any:
    """The same of a call with like operands that is not done: their own, and tensors that it would have made."""

    def of(leaf: Any) -> Any:
        if isinstance(leaf, _Made):
            return recording.made(*leaf)
        return given[leaf.at] if isinstance(leaf, _Given) else leaf

    return tree_map(of, kept, is_leaf=lambda leaf: isinstance(leaf, (_Made, _Given)))
