"""Traces of three operators, with times and without."""

from simtti.workloads.trace import (
    HostTime,
    Operator,
    Phase,
    Step,
    TensorUse,
    TimedKernel,
    Timing,
    Trace,
    row_major,
)


def use(tensor=0, shape=(2, 3), strides=None, dtype="fp16", storage_bytes=64, role="activation"):
    return TensorUse(tensor, shape, strides or row_major(shape), dtype, storage_bytes, role)


def operator(position=0, **changes):
    fields = {
        "phase": "denoising", "step": 0, "position": position, "module": "unet.conv_in", "op": "aten::add",
        "category": "Elementwise", "inputs": (use(0), use(1, role="parameter")), "outputs": (use(2 + position),),
        "attributes": {"alpha": 1}, "is_view": False,
    }  # fmt: skip
    return Operator(**{**fields, **changes})


def small_trace(**changes):
    fields = {
        "workload": "tiny",
        "options": {"batch": 1, "steps": 50},
        "phases": (Phase("denoising", (Step(51, tuple(operator(i) for i in range(3))),)),),
        "parameters": {"unet": 6},
        "parameter_bytes": {"unet": 12},
        "provenance": {"kind": "recorded"},
        "schedule": {"denoising": 1},
    }
    return Trace(**{**fields, **changes})


def timed_trace():
    """Three operators of which the second launches two kernels, and a copy that none did."""
    kernels = (
        TimedKernel("gemm", 12.5, 3.25, 1, "kernel", 0, 7, 4, 10.0, 1.5, (8, 2, 1), (128, 1, 1), 64, 49152),
        TimedKernel("reduce", 16.0, 1.0, 1, "kernel", 0, 7, 5, 11.5, 1.5, (8, 1, 1), (128, 1, 1), 32, 0),
        TimedKernel("Memcpy DtoH", 20.0, 2.0, kind="memcpy", stream=9, nbytes=64),
    )
    host = (HostTime(0.0, 5.0, 0.0, 77), HostTime(9.0, 6.0, 2.0, 77), None)
    timing = Timing(kernels, host, {"name": "GPU", "sm_count": 132}, {"latency_s": 0.01})
    return small_trace(provenance={"kind": "measured"}, timing=timing)
