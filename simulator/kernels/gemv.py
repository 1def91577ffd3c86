"""Products of a matrix and a vector: cuBLAS's GEMV kernels, which run on the CUDA cores.

A CTA of four warps takes some outputs (columns of the weights) and reads their weights in 16-byte loads, some in flight a
thread. What is fitted stands in hw_configs/families/gemm.yaml (group gemm_vector).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from simtti.hw_configs.hardware import Hardware
from simtti.simulator import arithmetic
from simtti.simulator.arithmetic import Number
from simtti.simulator.closed_form import lone_execution_s, lone_time_s
from simtti.simulator.column import Column
from simtti.simulator.kernel import Kernel, ctas_per_sm
from simtti.simulator.kernels.machine import FP32_BYTES, VECTOR_BYTES
from simtti.simulator.side_by_side import column_of

COLUMNS = (1, 4, 16)  # exact: outputs of a CTA that are tried
THREADS = 128  # exact: of a CTA (kernel names: gemv2T_kernel_val<.., 128, 16, 4, 4, ..>)
REGISTERS = 64  # exact: of a thread, few enough that CTAs fill an SM's threads


def gemv(columns: int, outputs: int, k: int, size: float, hbm_bytes: float, hardware: Hardware) -> Kernel:
    """`outputs` dot products of length `k`, `columns` a CTA, without its tensors. size: bytes of an element. hbm_bytes: in a
    benchmark that repeats it."""
    asked = fields(columns, outputs, k, size, hbm_bytes, hardware)
    return Kernel(name=gemv_name(columns), family="gemm", flops=2.0 * outputs * k, **asked)


def gemv_name(columns: int) -> str:
    return f"gemv{columns}"


def fields(
    columns: Number, outputs: Number, k: Number, size: float, hbm_bytes: Number, hardware: Hardware
) -> dict[str, Any]:
    """What `gemv` asks of the device: fields of `Kernel` by name, of one or of a column, amounts then arrays."""
    style, how = hardware.gemm_vector, arithmetic.of(outputs)
    conversions = style.conversion_flops if size < FP32_BYTES else 0.0
    in_flight = THREADS * VECTOR_BYTES * style.loads_in_flight
    return {
        "grid": how.parts(outputs, columns),
        "threads": THREADS,
        "registers": REGISTERS,
        "fp32_flops": (2.0 + conversions) * columns * k,
        "l2_bytes": (1.0 + columns) * k * size,
        "latency_s": style.latency_cycles / hardware.clock_hz,
        "bytes_in_flight": 1.0 * how.least(k * columns * size, in_flight),
        "memory_efficiency": style.efficiency,
        "repeated_hbm_bytes": hbm_bytes,
    }


def fastest_columns(
    outputs: int, k: int, size: float, hbm_bytes: float, hardware: Hardware
) -> tuple[float, None, int]:
    """A plan of `gemm_choice`: the least time, no tile, and the number of columns a CTA takes for it."""
    times = [(lone_time_s(gemv(c, outputs, k, size, hbm_bytes, hardware), hardware), c) for c in COLUMNS]
    time_s, columns = min(times, key=lambda each: each[0])
    return time_s, None, columns


def column_of_vectors(
    columns: Number,
    outputs: np.ndarray,
    k: np.ndarray,
    size: float,
    hbm_bytes: np.ndarray,
    hardware: Hardware,
    timed_on: Hardware,
) -> Column:
    """`gemv` of each. timed_on: the device that runs them."""
    asked = fields(columns, outputs, k, size, hbm_bytes, hardware)
    per_sm = ctas_per_sm(gemv(1, 1, 1, size, 0.0, hardware), hardware)
    return column_of(asked, len(outputs), per_sm, timed_on)


def fastest_of_each(
    outputs: np.ndarray, k: np.ndarray, size: float, hbm_bytes: np.ndarray, hardware: Hardware
) -> tuple[np.ndarray, np.ndarray]:
    """Time and columns of `fastest_columns` for each of a column of products."""
    each = (column_of_vectors(c, outputs, k, size, hbm_bytes, hardware, hardware) for c in COLUMNS)
    times_s = np.array([hardware.launch_s + lone_execution_s(one, hardware, hbm_bytes) for one in each])
    return times_s.min(axis=0), np.array(COLUMNS)[times_s.argmin(axis=0)]
