"""Products of a matrix and a vector: cuBLAS's GEMV kernels, which run on the CUDA cores.

A CTA of four warps takes some outputs (columns of the weights) and reads their weights in 16-byte loads, some in flight a
thread. What is fitted stands in hw_configs/families/gemm.yaml (group gemm_vector).
"""

from __future__ import annotations

from simtti.hw_configs.hardware import Hardware
from simtti.simulator.closed_form import lone_time_s
from simtti.simulator.kernel import Kernel
from simtti.simulator.kernels.machine import FP32_BYTES, VECTOR_BYTES

COLUMNS = (1, 4, 16)  # exact: outputs of a CTA that are tried
THREADS = 128  # exact: of a CTA (kernel names: gemv2T_kernel_val<.., 128, 16, 4, 4, ..>)
REGISTERS = 64  # exact: of a thread, few enough that CTAs fill an SM's threads


def gemv(columns: int, outputs: int, k: int, size: float, hbm_bytes: float, hardware: Hardware) -> Kernel:
    """`outputs` dot products of length `k`, `columns` a CTA, without its tensors. size: bytes of an element. hbm_bytes: in a
    benchmark that repeats it."""
    style = hardware.gemm_vector
    conversions = style.conversion_flops if size < FP32_BYTES else 0.0
    in_flight = THREADS * VECTOR_BYTES * style.loads_in_flight
    return Kernel(
        name=f"gemv{columns}",
        family="gemm",
        grid=-(-outputs // columns),
        threads=THREADS,
        registers=REGISTERS,
        fp32_flops=(2.0 + conversions) * columns * k,
        l2_bytes=(1.0 + columns) * k * size,
        latency_s=style.latency_cycles / hardware.clock_hz,
        bytes_in_flight=float(min(in_flight, k * columns * size)),
        memory_efficiency=style.efficiency,
        repeated_hbm_bytes=hbm_bytes,
        flops=2.0 * outputs * k,
    )


def fastest_columns(
    outputs: int, k: int, size: float, hbm_bytes: float, hardware: Hardware
) -> tuple[float, None, int]:
    """A plan of `gemm_choice`: the least time, no tile, and the number of columns a CTA takes for it."""
    times = [(lone_time_s(gemv(c, outputs, k, size, hbm_bytes, hardware), hardware), c) for c in COLUMNS]
    time_s, columns = min(times, key=lambda each: each[0])
    return time_s, None, columns
