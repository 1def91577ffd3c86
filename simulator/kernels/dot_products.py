"""int8 products on the CUDA cores: words of four numbers, multiplied and added up by one instruction (DP4A).

cuBLAS's int8 kernels for tensor cores take a second matrix of columns alone (its manual, cublasLtMatmul: IMMA kernels need the TN
format). One whose rows lie one after another, as torchao's safe_int_mm makes of every weight, is multiplied as fp32 is, by tiles of words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from simtti.hw_configs.hardware import Hardware
from simtti.simulator.kernel import Kernel

WORD = 4  # exact: numbers of an instruction's operands
# exact: dot products of an SM in a cycle (CUDA C++ Programming Guide, throughput of arithmetic instructions, 7.0 to 9.0)
RATE = 64


def of_words(kernels: Sequence[Kernel], hardware: Hardware) -> list[Kernel]:
    """The kernels of a product of words in fp32, with dot products instead of multiply-adds."""
    slower = hardware.fp32_flops_per_cycle_sm / 2 / RATE
    return [
        replace(kernel, fp32_flops=kernel.fp32_flops * slower, flops=kernel.flops * WORD)
        for kernel in kernels
    ]
