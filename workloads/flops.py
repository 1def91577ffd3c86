"""Floating-point operations of the operators that are matrix products: the arithmetic, not what a kernel pads to."""

import math

from simtti.workloads.trace import Operator

_PRODUCTS = {"aten::mm": 0, "aten::bmm": 0, "aten::addmm": 1, "aten::baddbmm": 1}
_CONVOLUTIONS = {"aten::convolution", "aten::_convolution", "aten::cudnn_convolution"}


def flops(operator: Operator) -> int:
    """FLOPs of a matrix product, convolution or attention, a multiply-add being two; 0 for everything else.

    Causal attention counts in full, as torch.utils.flop_counter does, and so do sliding windows, sparse masks and padding: what a kernel
    skips or adds is the kernel's business. Packed sequences count each by itself. An operator whose operands a profile did not record counts nothing.
    """
    if not operator.inputs or not operator.outputs:
        return 0
    if operator.op in _PRODUCTS:
        # addmm and baddbmm: the first operand is what is added.
        left = operator.inputs[_PRODUCTS[operator.op]]
        return 2 * operator.outputs[0].numel * left.shape[-1]
    if operator.op == "aten::linear":
        return 2 * operator.outputs[0].numel * operator.inputs[0].shape[-1]
    if operator.op in _CONVOLUTIONS:
        # The weight is (out channels, in channels / groups, *kernel), or for a transposed convolution
        # (in channels, out channels / groups, *kernel): each output (input) element meets one filter.
        image, weight = operator.inputs[:2]
        elements = image.numel if operator.attributes.get("transposed") else operator.outputs[0].numel
        return 2 * elements * math.prod(weight.shape[1:])
    if operator.op == "aten::scaled_dot_product_attention":
        query, key, value = operator.inputs[:3]
        pairs = math.prod(query.shape[:-1]) * key.shape[-2]
        if packed := operator.attributes.get("sequences"):
            pairs = math.prod(query.shape[:-2]) * sum(
                queries * keys * count for queries, keys, count in packed
            )
        return 2 * pairs * (query.shape[-1] + value.shape[-1])
    return 0
