"""Which kernels answer a call of attention: those asked for, or what a library's dispatch takes in their place, and why."""

from __future__ import annotations

from typing import NamedTuple

from simtti.errors import unknown
from simtti.hw_configs.hardware import Hardware
from simtti.simulator.kernels.attention_math import MATH
from simtti.simulator.kernels.attention_problem import Attention
from simtti.simulator.kernels.libraries import (
    BASELINE,
    EFFICIENT,
    FLASH_2,
    KERNELS,
    LIBRARIES,
    Library,
    block_of,
    shared_memory_bytes,
)
from simtti.simulator.kernels.machine import has_wgmma


class Choice(NamedTuple):
    """asked: the library asked for, or the device's own. ran: what runs: a library, 'baseline' or 'math'. because: why it is
    another, '' if it is not."""

    asked: str
    ran: str
    because: str = ""


def choose(problem: Attention, hardware: Hardware) -> Choice:
    """What runs `problem` on a device.

    Blackwell's own library stands in for one of Hopper's; flash-attention 2 where the device lacks the tensor-core instructions;
    'efficient' for fp32, large head dims, a mask (native/transformers/cuda/sdp_utils.cpp) and devices before Ampere, as PyTorch's
    dispatch does; 'math' where the mask's rows are not dense, as T5's position bias, which no fused kernel takes
    (check_last_dim_stride_equals_1_dense in native/transformers/sdp_utils_cpp.h).

    Raises:
        InputError: no such kernel.
    """
    asked = problem.kernel or hardware.attention_kernel
    if asked in (MATH, BASELINE):
        return Choice(asked, asked)
    if asked not in KERNELS:
        raise unknown("attention kernel", asked, KERNELS)
    if problem.mask is not None and problem.mask.strides[-1] > 1:
        return Choice(asked, MATH, "the mask's rows are not dense")
    library, because = _available(LIBRARIES[asked], problem, hardware)
    return Choice(asked, library.name, because)


def _available(library: Library, problem: Attention, hardware: Hardware) -> tuple[Library, str]:
    if problem.masked and not library.takes_masks:
        return EFFICIENT, "it takes no mask"
    because = ""
    if library.on_tcgen05 and hardware.matrix_unit == "tcgen05":
        library, because = LIBRARIES[library.on_tcgen05], "the tensor cores are tcgen05"
    if library.on_mma and not has_wgmma(hardware):
        library, because = LIBRARIES[library.on_mma], "the device has no wgmma"
    elif library.on_mma and problem.head_dim % library.dim_step:
        library, because = LIBRARIES[library.on_mma], f"it has no head dim {problem.head_dim}"
    if library.wgmma and not has_wgmma(hardware):
        library, because = FLASH_2, "the device has no wgmma"
    if library is EFFICIENT:
        return library, because
    for lacking, reason in (
        (hardware.matrix_unit == "mma_registers", "the device is older than Ampere"),
        (problem.dtype == "fp32", "it takes no fp32"),
        (problem.head_dim > library.blocks[-1].head_dim, f"it has no head dim {problem.head_dim}"),
        (
            shared_memory_bytes(library, block_of(library, problem, hardware), 2)
            >= hardware.shared_memory_per_sm_bytes,
            "its blocks do not fit in shared memory",
        ),
    ):
        if lacking:
            return EFFICIENT, reason
    return library, because
