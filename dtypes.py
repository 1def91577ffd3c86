"""The data types: what they are called, how many bytes they take, which of a device's rates they run at.

A new one is an entry here and its rate in the device files (docs/extend.md).
"""

from __future__ import annotations

from typing import NamedTuple


class DType(NamedTuple):
    """A data type.

    item_bytes: of one element as it is stored; of a packed type, of the `packed` numbers in it. tensor_rate: the datasheet's
    number of tensor-core FLOPs a cycle and SM it is multiplied at; '' where tensor cores do not take it. predicted: whether a
    table of single operators of any family may name it. only_with: another such number, which a device needs as well.
    """

    item_bytes: int
    tensor_rate: str = ""
    predicted: bool = False
    packed: int = 1
    only_with: str = ""


# fp32 means TF32 on tensor cores, as cuDNN does by default (and every measured fp32 pipeline on an Ampere: see kernels/gemm.py).
DTYPES: dict[str, DType] = {
    "fp64": DType(8),
    "fp32": DType(4, "tensor_tf32_flops_per_cycle_sm", predicted=True),
    "bf16": DType(2, "tensor_fp16_flops_per_cycle_sm", predicted=True),
    "fp16": DType(2, "tensor_fp16_flops_per_cycle_sm", predicted=True),
    "fp8": DType(1, "tensor_fp8_flops_per_cycle_sm"),  # one scale a tensor, or a row
    "fp8_block": DType(
        1, "tensor_fp8_flops_per_cycle_sm"
    ),  # one a block of 128 x 128 of the weight and of 1 x 128 of the input
    # e2m1 in pairs (torch.float4_e2m1fn_x2), an fp8 scale for each 16 numbers.
    "int4": DType(
        1, "tensor_int4_flops_per_cycle_sm", packed=2
    ),  # in pairs, a scale of 16 bits for each 64 numbers
    "nvfp4": DType(1, "tensor_fp4_flops_per_cycle_sm", packed=2),
    # fp8 with a power of two for each 32 numbers (E8M0; OCP Microscaling Formats 1.0), which the tensor cores apply: those that
    # take fp4 do
    "mxfp8": DType(1, "tensor_fp8_flops_per_cycle_sm", only_with="tensor_fp4_flops_per_cycle_sm"),
    "fp8_e8m0": DType(1),  # its scales
    "fp8_e4m3": DType(1, "tensor_fp8_flops_per_cycle_sm"),
    "fp8_e5m2": DType(1, "tensor_fp8_flops_per_cycle_sm"),
    "complex64": DType(8),
    "complex128": DType(16),
    "int64": DType(8),
    "int32": DType(4),
    "int16": DType(2),
    "int8": DType(1, "tensor_int8_flops_per_cycle_sm"),
    "uint8": DType(1),
    "bool": DType(1),
}
ITEM_BYTES = {name: each.item_bytes for name, each in DTYPES.items()}
HALF_TYPES = ("fp16", "bf16")
# Of which no device's datasheet here has a rate of products: there is no kernel model of them.
WITHOUT_PRODUCTS = ("fp64", "complex64", "complex128")


def predicted() -> tuple[str, ...]:
    """The types that a table of single operators may name."""
    return tuple(sorted(name for name, each in DTYPES.items() if each.predicted))
