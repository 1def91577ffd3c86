"""What is answered for values that meta tensors do not have, where a pipeline or a model asks for them."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from simtti.workloads.recording import Recording


class HostCopies(TorchFunctionMode):
    """Records `tensor.cpu()`, which a meta tensor cannot do, and returns a tensor of as many dimensions.

    Lengths that a pipeline asks for as a list are `kept`. counts: where what is asked for was counted, how much of it there was:
    each number gets the same share.
    """

    def __init__(self, recording: Recording, kept: int | None, counts: WeakTensorKeyDictionary):
        super().__init__()
        self.recording = recording
        self.kept = kept
        self.counts = counts

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.cpu and args[0].device.type == "meta":
            self.recording.copy_to_host(args[0])
            with self.recording.paused():
                if args[0] in self.counts:
                    return _evenly(self.counts[args[0]], args[0].numel())
                whole = None if args[0].is_floating_point() else args[0].dtype
                return torch.zeros([1] * args[0].dim(), dtype=whole)
        if func is torch.Tensor.tolist and args[0].device.type == "meta" and self.kept is not None:
            self.recording.copy_to_host(args[0])
            return [self.kept] * args[0].numel()
        return func(*args, **(kwargs or {}))


@contextmanager
def no_autocast() -> Iterator[None]:
    """torch.autocast refuses the meta device. Where models ask for it, their operands have its dtype already."""
    original = torch.autocast
    torch.autocast = lambda *_, **__: nullcontext()
    try:
        yield
    finally:
        torch.autocast = original


class ReadValues(TorchDispatchMode):
    """Answers `tensor.item()` by dtype, since meta tensors have no values: 0 for those not named.

    kept: how many rows the mask of one prompt selects; its complement selects the others. experts: how many numbers are counted
    where a mixture of experts asks how often it chose each.
    """

    def __init__(self, values: dict[torch.dtype, Any], kept: int | None = None, experts: int = 0):
        super().__init__()
        self.values = values
        self.kept = kept
        self.experts = experts
        self.complements = WeakTensorKeyDictionary()
        self.counts = WeakTensorKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and args[0].device.type == "meta":
            return self.values.get(args[0].dtype, 0)
        if func is torch.ops.aten.index.Tensor and self.kept is not None and _is_mask(args[1]):
            (mask,) = args[1]
            kept = mask.numel() - self.kept if mask in self.complements else self.kept
            return args[0].new_empty((kept, *args[0].shape[1:]))
        if func is torch.ops.aten.bitwise_not.default and self.kept is not None:
            result = func(*args, **(kwargs or {}))
            self.complements[result] = True
            return result
        if func is torch.ops.aten.bincount.default and args[0].device.type == "meta":
            result = args[0].new_empty((self.experts,))
            self.counts[result] = args[0].numel()
            return result
        return func(*args, **(kwargs or {}))


def _evenly(count: int, shares: int) -> torch.Tensor:
    """So many whole numbers, as alike as can be, whose sum is the count."""
    each, left = divmod(count, shares)
    return torch.tensor([each + (number < left) for number in range(shares)])


def _is_mask(indices: Any) -> bool:
    """Whether what stands in brackets is the mask of one prompt."""
    return len(indices) == 1 and indices[0].dtype == torch.bool and indices[0].dim() == 1
