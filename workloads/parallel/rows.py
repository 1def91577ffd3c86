"""Where the rows of an image that GPUs share are in a denoiser's tensors, followed from operator to operator.

A dimension is that of the rows, of rows and columns as tokens, or of several images' tokens; views of a storage have it elsewhere
(`regions.Cut`). What mixes rows in another way than convolutions, norms and attention do is not known.
"""

from __future__ import annotations

import dataclasses

from simtti.errors import InputError
from simtti.workloads.parallel.regions import Cut, cut_of
from simtti.workloads.trace import ITEM_BYTES, Operator, TensorUse

_PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::linear")


class Rows:
    """The rows' dimension of each storage that is divided among `ranks` GPUs."""

    def __init__(self, workload: str, ranks: int) -> None:
        self.workload, self.ranks = workload, ranks
        self._cuts: dict[int, Cut] = {}

    def __contains__(self, use: TensorUse) -> bool:
        """Whether its storage is divided."""
        return use.tensor in self._cuts

    def unknown(self, operator: Operator) -> InputError:
        """What is to be raised where an operator mixes rows in a way that is not known."""
        return InputError(
            f"{self.workload}: {operator.op} of {operator.module} needs rows of several patches in a way that is not known; patches "
            "must be 1"
        )

    def band(self, use: TensorUse) -> TensorUse:
        """A GPU's part; the whole of what is not divided."""
        axis = self.axis(use)
        return use if axis is None else self._cuts[use.tensor].share(use, axis, self.ranks)

    def axis(self, use: TensorUse) -> int | None:
        """The dimension that is divided; None if there is none."""
        return self._cuts[use.tensor].axis(use) if use.tensor in self._cuts else None

    def divide(self, like: TensorUse, axis: int, out: TensorUse, where: int) -> None:
        """`out` has along `where` what `like` has along `axis`: so many rows or tokens of an image."""
        each = self._cuts[like.tensor].span // (like.strides[axis] * ITEM_BYTES[like.dtype])
        stride = out.strides[where] * ITEM_BYTES[out.dtype]
        self._cuts[out.tensor] = Cut(stride, stride * each)

    def begin(self, operator: Operator, use: TensorUse) -> None:
        """Divide an image, (images, channels, rows, columns), that `operator` makes.

        Raises:
            InputError: it is no image, or has rows that cannot be divided.
        """
        if len(use.shape) != 4:
            raise self.unknown(operator)
        if use.shape[-2] % self.ranks:
            raise InputError(
                f"{self.workload} has an image of {use.shape[-2]} rows in {operator.module}, which patches {self.ranks} does not divide"
            )
        self._cuts[use.tensor] = cut_of(use, 2)

    def follow(self, operator: Operator, divided: list[tuple[TensorUse, int]]) -> None:
        """Divide what an operator makes of its operands; divided: those that are, with the dimension.

        Raises:
            InputError: it mixes rows.
        """
        read = {use.tensor for use in operator.inputs}
        outputs = [use for use in operator.outputs if use.tensor not in read]
        like, axis = divided[0]
        if operator.is_view:
            if any(self.axis(use) is None for use in operator.outputs) or outputs:
                raise self.unknown(operator)
        elif operator.op == "aten::upsample_nearest2d":
            for use in outputs:
                self.begin(operator, use)
        elif operator.op in _PRODUCTS:
            if len(divided) > 1 or axis == len(like.shape) - 1:
                raise self.unknown(operator)
            self.divide(like, axis, outputs[0], axis)
        elif operator.op == "aten::native_layer_norm":
            if axis >= len(like.shape) - len(operator.attributes["normalized_shape"]):
                raise self.unknown(operator)
            for use in outputs:
                self.divide(like, axis, use, axis)
        elif operator.category in ("Elementwise", "Memory"):
            back = axis - len(like.shape)
            if any(each - len(use.shape) != back for use, each in divided) or (
                operator.op == "aten::cat" and operator.attributes.get("dim", 0) in (axis, back)
            ):
                raise self.unknown(operator)
            whole = [use for use in operator.inputs if use.tensor not in self._cuts]
            if any(len(use.shape) >= -back and use.shape[back] > 1 for use in whole):
                raise self.unknown(operator)
            for use in outputs:
                self.divide(like, axis, use, len(use.shape) + back)
        else:
            raise self.unknown(operator)

    def share(self, operator: Operator) -> Operator:
        """A GPU's part of an operator that works on each row or token alone."""
        return dataclasses.replace(
            operator,
            inputs=tuple(map(self.band, operator.inputs)),
            outputs=tuple(map(self.band, operator.outputs)),
        )
