"""What kernels are made for: exact facts of NVIDIA's SMs that every family counts with."""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

from simtti.hw_configs.hardware import Hardware
from simtti.simulator import arithmetic

ISSUE_LANES = 128  # exact: instructions of threads that an SM issues a cycle, 4 schedulers of 32 lanes, Volta to Blackwell
LANES = 32  # exact: threads of a warp
SECTOR_BYTES = 32  # exact: what L2 moves at least (CUDA C++ Best Practices Guide, coalesced access)
LINE_BYTES = 128  # exact: what L2 makes room for, of four sectors (same guide)
VECTOR_BYTES = 16  # exact: the widest load and store of a thread
FP32_BYTES = 4  # exact: of a single-precision number
REGISTER_UNIT = (
    256  # exact: registers are given to a warp in whole units of these (CUDA occupancy calculator)
)
RESERVED_SHARED_BYTES = (
    1024  # exact: of shared memory that the system takes from each CTA (CUDA C++ Programming Guide)
)
WGMMA_ROWS = 64  # exact: rows of an instruction of four warps (PTX ISA, wgmma)
TCGEN05_ROWS = 128  # exact: rows of an instruction (PTX ISA, tcgen05.mma)


class FusedMultiplyAdds(NamedTuple):
    """What the products of a matrix kernel on the CUDA cores demand: FP32 FLOPs, and instructions of threads."""

    flops: float
    slots: float

    def cycles(self, hardware: Hardware) -> float:
        """Cycles for which an SM is occupied by them."""
        products, issued = self.flops / hardware.fp32_flops_per_cycle_sm, self.slots / ISSUE_LANES
        return arithmetic.of(products).largest(products, issued)


def fused_multiply_adds(macs: float, efficiency: float, overhead: float) -> FusedMultiplyAdds:
    """`macs` products at `efficiency`, a share of the FP32 pipe's peak, with `overhead` other instructions beside each."""
    return FusedMultiplyAdds(2.0 * macs / efficiency, macs * (1 + overhead))


def has_wgmma(hardware: Hardware) -> bool:
    """Hopper and the data-centre Blackwell: tensor-core instructions of whole warpgroups, fed from shared memory."""
    return hardware.matrix_unit in ("wgmma", "tcgen05")


@functools.lru_cache(maxsize=256)
def by_warps(hardware: Hardware) -> Hardware:
    """The device to kernels that use instructions of one warp."""
    if has_wgmma(hardware):
        return dataclasses.replace(hardware, stated_matrix_unit="mma")
    return hardware
