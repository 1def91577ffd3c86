"""Numbers in memory that is asked for unwritten: what a model reads must be values that a real inference could have.

On a GPU `torch.empty` gives what was there before: zeros, which cost less energy to compute with, NaN, or token ids
beyond the vocabulary, which end the process. Between the steps of a capture (never within one, where a mode would cost the
host time) floating-point memory gets Gaussian noise, and whole numbers and truth values get zero, which is an id of every
vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack, _pop_mode, _push_mode

# Weights of this size keep activations finite in half precision, where a class leaves weights as they come.
WEIGHTS_STD = 0.02

# Other floating-point types (8 bits) have no generator, and get zero.
_DRAWN = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
_UNWRITTEN = {torch.empty, torch.empty_like, torch.empty_strided, torch.Tensor.new_empty}


def _put_back(taken: list[Any]) -> None:
    for mode in reversed(taken):
        _push_mode(mode)


class Noise(TorchFunctionMode):
    """Fills what is made unwritten."""

    def __init__(self) -> None:
        super().__init__()
        self.std = 1.0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if func in _UNWRITTEN and made.device.type != "meta":  # which has no values
            with torch.no_grad():
                if made.dtype in _DRAWN:
                    made.normal_(0.0, self.std)
                else:
                    made.zero_()
        return made

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Off the stack of modes, from wherever it is there: nothing of it stands between a model and torch."""
        above = self._above()
        _pop_mode()
        _put_back(above)
        try:
            yield
        finally:
            above = [_pop_mode() for _ in above]
            _push_mode(self)
            _put_back(above)

    def _above(self) -> list[Any]:
        """Takes the modes above it off, the last first: on a meta device those that answer for values."""
        taken: list[Any] = []
        while (stack := _get_current_function_mode_stack()) and stack[-1] is not self:
            taken.append(_pop_mode())
        assert stack, "steps begin within the run"
        return taken

    @contextmanager
    def of_weights(self) -> Iterator[None]:
        """While a module is built."""
        before, self.std = self.std, WEIGHTS_STD
        try:
            yield
        finally:
            self.std = before
