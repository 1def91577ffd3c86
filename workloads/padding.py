"""How many keys a mask hides as padding, carried from where a recording still has its values to where attention takes it.

On the meta device a mask has no values. Those that come from a tokenizer, or are given to a module of one's own, have: how many tokens of
a sequence they hide, on average over the batch, is noted there and goes along with whatever is computed from them: views, casts,
comparisons, what is added or joined. Where masks are joined the hidden keys add up. Importable without torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

# A mask is not looked at beyond so many elements; no tokenizer's is that long.
_MOST_ELEMENTS = 1 << 22
_HIDES = "_simtti_hidden_keys"  # of a meta tensor that stands for one with values
_COMPUTED = ("Elementwise", "Memory", "Other", "View")  # what carries: no product, no norm
_JOINED = "aten::cat"


class Padding:
    """Hidden keys by the address of a mask's storage."""

    def __init__(self) -> None:
        self._hidden: dict[int, float] = {}

    def of(self, address: int, tensor: Any) -> float:
        """Keys that a mask hides of each sequence; 0 where nothing is known of it."""
        return self._hidden.get(address, getattr(tensor, _HIDES, 0.0))

    def carry(
        self, op: str, category: str, read: Iterable[tuple[int, Any]], made: Iterable[tuple[int, Any]]
    ) -> None:
        """What is known of the tensors read goes over to those made; real values among them are looked at."""
        if category not in _COMPUTED:
            return
        known = [self.of(*each) or hidden_keys(each[1]) for each in read]
        found = sum(known) if op == _JOINED else max(known, default=0.0)
        for address, _ in made if found else ():
            self._hidden.setdefault(address, found)

    def forget(self, address: int) -> None:
        """Its storage is gone."""
        self._hidden.pop(address, None)


def hidden_keys(tensor: Any) -> float:
    """Of a mask with values, (..., keys) of zeros and ones or truth values: the zeros of a row, on average; 0 where it is no such mask.

    Ones come first or last in a row, as padding has it; token ids, images and schedules are none.
    """
    if type(tensor).__name__ != "Tensor" or tensor.device.type == "meta" or tensor.is_complex():
        return 0.0  # a fake tensor's values cannot be asked for
    if not 1 <= tensor.dim() <= 2 or not 1 < tensor.numel() <= _MOST_ELEMENTS:
        return 0.0
    rows = tensor.detach().reshape(-1, tensor.shape[-1])
    ones = rows == 1
    if not bool((ones | (rows == 0)).all()) or not bool(ones.any()):
        return 0.0
    changes = (ones[:, 1:] != ones[:, :-1]).sum(-1)
    return 0.0 if int(changes.max()) > 1 else float((~ones).sum(-1).float().mean())


def remember(tensor: Any, on_meta: Any) -> Any:
    """`on_meta`, which stands for `tensor`, with what its values say of padding."""
    if found := hidden_keys(tensor):
        setattr(on_meta, _HIDES, found)
    return on_meta
