"""A convolution as an operator of a trace or a row of a table asks for it, whatever runs it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from simtti.dtypes import ITEM_BYTES
from simtti.simulator.kernel import Access

RESULT_SLOT = 3  # exact: the tensors of the operator are input, weights, bias and result, in this order
SQUARE_3X3 = (3, 3)  # exact: the filters that Winograd's kernels are made for


def output_size(size: int, kernel: int, stride: int, padding: int, dilation: int, transposed: bool) -> int:
    """Length of one spatial dimension of the result (without output padding)."""
    reach = dilation * (kernel - 1)
    if transposed:
        return (size - 1) * stride - 2 * padding + reach + 1
    return (size + 2 * padding - reach - 1) // stride + 1


@dataclass(frozen=True, slots=True)
class Convolution:
    """An `aten::convolution` over (h, w) or (d, h, w).

    n, c, spatial: samples, channels and size of the input. oc: channels of the result. kernel, stride, padding, dilation: as
    long as spatial. layout: of the activations, 'nchw' (or NCDHW) or 'nhwc'. out_spatial: the result's size where it is known,
    as with output padding; None works it out.

    source, weight, bias_tensor, target: slots of the tensors. workspace: slot of the first workspace; others are the numbers
    below it.
    """

    n: int
    c: int
    spatial: tuple[int, ...]
    oc: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    dtype: str
    layout: str = "nchw"
    bias: bool = True
    transposed: bool = False
    out_spatial: tuple[int, ...] | None = None
    source: int = 0
    weight: int = 1
    bias_tensor: int = 2
    target: int = RESULT_SLOT
    workspace: int = -1

    @property
    def out(self) -> tuple[int, ...]:
        """The result's size."""
        if self.out_spatial is not None:
            return self.out_spatial
        each = zip(self.spatial, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        return tuple(output_size(*dimension, self.transposed) for dimension in each)

    @property
    def positions(self) -> int:
        """Elements of a channel of the result."""
        return math.prod(self.out)

    @property
    def in_positions(self) -> int:
        """Elements of a channel of the input."""
        return math.prod(self.spatial)

    @property
    def taps(self) -> int:
        return math.prod(self.kernel)

    @property
    def work_taps(self) -> int:
        """Taps of an output position. A transposed convolution gathers, for each of them, the taps that fall on an input
        position."""
        return max(1, self.taps // math.prod(self.stride)) if self.transposed else self.taps

    @property
    def item_bytes(self) -> int:
        return ITEM_BYTES[self.dtype]

    @property
    def is_pointwise(self) -> bool:
        """Whether a GEMM of the tensors as they lie does it."""
        steps = all(step == 1 for step in self.stride)
        return self.groups == 1 and self.taps == 1 and steps and not any(self.padding)

    @property
    def is_depthwise(self) -> bool:
        return self.groups > 1 and self.groups in (self.c, self.oc) and self.c // self.groups == 1

    @property
    def is_winograd(self) -> bool:
        """Whether it is a 3x3 convolution with stride 1, which Winograd can do."""
        steps = {*self.stride, *self.dilation} == {1}
        return self.kernel == SQUARE_3X3 and steps and self.groups == 1 and not self.transposed

    @property
    def data(self) -> Access:
        """The input."""
        return Access(self.source, float(self.n * self.c * self.in_positions * self.item_bytes))

    @property
    def filters(self) -> Access:
        """The weights."""
        nbytes = self.oc * (self.c // self.groups) * self.taps * self.item_bytes
        return Access(self.weight, float(nbytes))

    @property
    def result(self) -> Access:
        return Access(self.target, float(self.n * self.oc * self.positions * self.item_bytes))
