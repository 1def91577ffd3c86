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
    FLEX,
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
    asked = library.on(hardware)
    if asked.value_bytes:
        return _eight_bit(library, asked, problem, hardware)
    if problem.block_share < 1 and not library.sparse:
        library, because = _available(FLEX, problem, hardware)
        return library, because or "it takes no mask of blocks"
    if problem.masked and not library.takes_masks:
        return EFFICIENT, "it takes no mask"
    if problem.sliding is not None and not library.windows:
        library, because = _available(FLASH_2, problem, hardware)
        return library, because or "it takes no sliding window"
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
    reason = _lacking(library, problem, hardware)
    return (EFFICIENT, reason) if reason else (library, because)


def _eight_bit(
    library: Library, kernels: Library, problem: Attention, hardware: Hardware
) -> tuple[Library, str]:
    """A library of eight-bit attention, or what PyTorch takes for a call that it does not: only the model's own code that calls it decides
    what it is called for, and leaves the rest as it is."""
    reason = "it takes no mask" if problem.masked else _lacking(kernels, problem, hardware)
    if problem.sliding is not None:
        reason = "it takes no sliding window"
    if not reason:
        return library, ""
    usual = LIBRARIES[hardware.attention_kernel]
    if usual.on(hardware).value_bytes:
        usual = FLASH_2
    found, because = _available(usual, problem, hardware)
    return found, reason if because in ("", reason) else f"{reason}; {usual.name}: {because}"


def _lacking(library: Library, problem: Attention, hardware: Hardware) -> str:
    """Why a library's kernels do not take a call, '' where they do."""
    if hardware.matrix_unit == "mma_registers":
        return "the device is older than Ampere"
    if problem.dtype == "fp32":
        return "it takes no fp32"
    if problem.head_dim > library.blocks[-1].head_dim:
        return f"it has no head dim {problem.head_dim}"
    block = block_of(library, problem, hardware)
    needed = shared_memory_bytes(library, block, library.bytes_of(problem))
    if needed >= hardware.shared_memory_per_sm_bytes:
        return "its blocks do not fit in shared memory"
    return ""
