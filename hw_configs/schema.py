"""The schema of a device file: which fields it has, their meaning, unit and bounds."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from simtti.errors import Problems
from simtti.hw_configs import families
from simtti.hw_configs.hardware import ARCHITECTURES, INTERCONNECTS, PYTORCH, Hardware
from simtti.hw_configs.parameters import GROUPS, Group

_NO_GROUP = Group(tuple)

# field: (type, lowest, highest, meaning). Bounds are physical sense, wide enough for devices that do not exist yet.
DATASHEET: dict[str, tuple[type, float, float, str]] = {
    "sm_count": (int, 1, 4096, "streaming multiprocessors enabled"),
    "clock_hz": (float, 1e8, 1e10, "SM clock that kernels run at while the power limit allows"),
    "tensor_fp16_flops_per_cycle_sm": (
        float,
        1,
        1e6,
        "dense tensor-core FLOPs a cycle, fp16 and bf16, FP32 accumulate",
    ),
    "tensor_tf32_flops_per_cycle_sm": (
        float,
        0,
        1e6,
        "dense tensor-core FLOPs a cycle, TF32; 0 when it has none",
    ),
    "tensor_fp8_flops_per_cycle_sm": (
        float,
        0,
        1e6,
        "dense tensor-core FLOPs a cycle, FP8; 0 when it has none",
    ),
    "tensor_fp4_flops_per_cycle_sm": (
        float,
        0,
        1e6,
        "dense tensor-core FLOPs a cycle, FP4 with scales by blocks (NVFP4, MXFP4); 0 when it has none",
    ),
    "tensor_int8_flops_per_cycle_sm": (
        float,
        0,
        1e6,
        "dense tensor-core operations a cycle, INT8; 0 when it has none",
    ),
    "tensor_int4_flops_per_cycle_sm": (
        float,
        0,
        1e6,
        "dense tensor-core operations a cycle, INT4; 0 when it has none",
    ),
    "fp32_flops_per_cycle_sm": (float, 1, 1e5, "FP32 FLOPs a cycle (a fused multiply-add is two)"),
    "sfu_ops_per_cycle_sm": (float, 1, 1e5, "special-function results a cycle"),
    "registers_per_sm": (int, 1024, 1 << 24, "32-bit registers"),
    "shared_memory_per_sm_bytes": (int, 1024, 1 << 26, "shared memory that CTAs can have in all"),
    "shared_memory_bytes_per_cycle_sm": (float, 1, 1e5, "shared-memory bandwidth"),
    "max_threads_per_sm": (int, 32, 1 << 16, "resident threads"),
    "max_ctas_per_sm": (int, 1, 1024, "resident CTAs"),
    "l1_per_sm_bytes": (int, 1024, 1 << 26, "L1 and shared memory together"),
    "l2_capacity_bytes": (float, 1e5, 1e11, "L2 capacity"),
    "l2_bytes_per_cycle_sm": (float, 1, 1e5, "bytes one SM can take from L2 in a cycle"),
    "l2_bytes_per_s": (float, 1e9, 1e15, "L2 bandwidth of all SMs"),
    "l2_latency_s": (float, 1e-9, 1e-4, "load-to-use latency of an L2 hit"),
    "hbm_capacity_bytes": (float, 1e8, 1e14, "device memory"),
    "hbm_bytes_per_s": (float, 1e9, 1e15, "device-memory bandwidth"),
    "hbm_latency_s": (float, 1e-9, 1e-4, "load-to-use latency of device memory"),
    "link_bytes_per_s": (
        float,
        0,
        1e14,
        "bandwidth of the links to other GPUs, one direction; 0 when it has none",
    ),
    "host_link_bytes_per_s": (
        float,
        0,
        1e14,
        "bandwidth of the link to the host (PCI Express, NVLink-C2C), one direction; 0 where it is not known",
    ),
    "power_limit_w": (float, 1, 1e5, "board power limit"),
}
# What a file need not say: 0 then.
OPTIONAL_DATASHEET = (
    "tensor_fp4_flops_per_cycle_sm",
    "tensor_int8_flops_per_cycle_sm",
    "tensor_int4_flops_per_cycle_sm",
    "host_link_bytes_per_s",
)
DEVICE_CALIBRATION: dict[str, tuple[type, float, float, str]] = {
    "tensor_efficiency": (float, 0.1, 1.0, "share of the tensor cores' peak that the best kernels sustain"),
    "hbm_efficiency": (float, 0.1, 1.0, "share of the HBM bandwidth that a long stream attains"),
    "l2_efficiency": (float, 0.05, 1.0, "share of the L2 bandwidth that all SMs together attain"),
    "l2_usable_share": (float, 0.05, 1.0, "share of L2 that a later kernel finds its operands in"),
    "launch_s": (float, 0.0, 1e-3, "time between two kernels of a stream, whatever they do"),
    "operator_gap_s": (
        float,
        0.0,
        1e-3,
        "what a benchmark of single operators sees of each beside its kernels and their gaps: from the last store to the event",
    ),
    "start_s": (
        float,
        0.0,
        1e-3,
        "from a kernel's start until its first CTAs have data, and its last stores drain",
    ),
    "dispatch_s": (
        float,
        1e-12,
        1e-3,
        "from the end of a wave of CTAs to the start of the next on the same slots",
    ),
    "host_copy_bytes_per_s": (
        float,
        1e6,
        1e13,
        "rate of a copy between device and the host's pageable memory",
    ),
    "context_bytes": (
        float,
        0,
        1e12,
        "device memory of a CUDA context with the kernels loaded into it, which no allocator of the framework's sees",
    ),
    "static_power_w": (float, 0, 1e5, "board power between kernels, at the boost clock"),
    "sm_cycle_j": (
        float,
        0,
        5e-9,
        "energy of a clock cycle of an SM that has CTAs, whatever they do: clock tree, schedulers, pipelines",
    ),
    "tensor_j_per_flop": (
        float,
        0,
        1e-9,
        "energy of a tensor-core FLOP, its operands from shared memory not counted",
    ),
    "fp32_j_per_flop": (float, 0, 1e-9, "energy of an FP32 FLOP beside its instruction's"),
    "instruction_j": (
        float,
        0,
        1e-9,
        "energy of an instruction of one thread: fetch, issue, registers, integer arithmetic",
    ),
    "sfu_j_per_op": (float, 0, 1e-9, "energy of a special-function result"),
    "shared_j_per_byte": (float, 0, 1e-6, "energy of a byte to or from shared memory"),
    "l2_j_per_byte": (float, 0, 1e-6, "energy of a byte from L2 to an SM"),
    "hbm_j_per_byte": (float, 0, 1e-6, "energy of a byte from HBM to L2"),
    "gemm_benchmark_activity": (
        float,
        0.2,
        1.2,
        "energy of a matrix product in the benchmarks that time it alone over that of the same work in a model: weights that "
        "are never set and inputs that repeat toggle fewer wires",
    ),
    "benchmark_activity": (float, 0.2, 1.2, "the same of other kernels, whose benchmarks set their operands"),
}


@functools.cache
def calibration() -> dict[str, tuple[type, float, float, str]]:
    """Every parameter that a calibration may set, the device's own and the kernel families': type, bounds, meaning."""
    return DEVICE_CALIBRATION | {name: (float, *bounds) for name, bounds in families.shared().bounds.items()}


def check_values(content: Mapping[str, Any], problems: Problems) -> None:
    """Hold the numbers of a device's merged YAML to their bounds, and its words to those there are. What is wrong is noted: the
    field, the value given and what is allowed. Values of another type are passed over: `stated.check_device` notes them."""
    _check_words(content, problems)
    known = calibration()
    optional = {name for name in known if GROUPS.get(name.partition(".")[0], _NO_GROUP).inherits}
    _check_section("datasheet", content, DATASHEET, OPTIONAL_DATASHEET, problems)
    _check_section("calibration", content, known, optional, problems)


def to_hardware(content: Mapping[str, Any], origin: str) -> Hardware:
    """Flatten a device's merged YAML, in which nothing is wrong (`stated.check_device`, `check_values`)."""
    datasheet, calibrated = (
        {name: float(entry["value"]) for name, entry in content[section].items()}
        for section in ("datasheet", "calibration")
    )
    flat: dict[str, Any] = {
        key: kind(datasheet[key]) for key, (kind, _, _, _) in DATASHEET.items() if key in datasheet
    }
    reported = content.get("reported_as", "")
    reported = [reported] if isinstance(reported, str) else reported
    flat |= {key: calibrated.pop(key) for key in DEVICE_CALIBRATION}
    return Hardware(
        name=content["name"],
        architecture=content["architecture"],
        reported_as=reported[0] if reported else "",
        also_reported_as=tuple(reported[1:]),
        attention_kernel=content["attention_kernel"],
        pytorch=content.get("pytorch", PYTORCH[0]),
        origin=origin,
        parameters=calibrated,
        interconnect=content.get("interconnect", next(iter(INTERCONNECTS))),
        stated_matrix_unit=content.get("matrix_unit", ""),
        fitted=tuple(content.get("fits", ())),
        **flat,
    )


def _check_words(device: Mapping[str, Any], problems: Problems) -> None:
    """The names in a device's head."""
    architecture, kernel = device.get("architecture"), device.get("attention_kernel")
    if isinstance(architecture, str) and not device.get("matrix_unit") and architecture not in ARCHITECTURES:
        problems.note(
            f"field 'architecture': {architecture!r} is none of {', '.join(ARCHITECTURES)}; field 'matrix_unit' must say what feeds "
            "its tensor cores",
            "architecture",
        )
    kernels = families.shared().attention_kernels
    if isinstance(kernel, str) and kernel not in kernels:
        problems.note(
            f"field 'attention_kernel': should be one of {', '.join(kernels)}, not {kernel!r}",
            "attention_kernel",
        )


def _check_section(
    section: str,
    content: Mapping[str, Any],
    fields: dict[str, tuple[type, float, float, str]],
    optional: Collection[str],
    problems: Problems,
) -> None:
    """A section's fields: unknown, missing, out of bounds."""
    given = content.get(section)
    if not isinstance(given, dict):
        return
    for name in given:
        if name not in fields:
            field = f"{section}.{name}"
            problems.note(unknown_field(field, str(name), fields), field)
    for name, (kind, low, high, _) in fields.items():
        if name not in given:
            if name not in optional:
                problems.note(f"field '{section}.{name}' is missing")
            continue
        value = given[name].get("value") if isinstance(given[name], dict) else None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        field = f"{section}.{name}.value"
        if not low <= value <= high:
            allowed = f"should be greater than or equal to {low:g} and at most {high:g}"
            problems.note(f"field '{field}': {allowed}, not {float(value)!r}", field)
        elif kind is int and not float(value).is_integer():
            problems.note(f"field '{field}': should be a whole number, not {value!r}", field)


def unknown_field(field: str, name: str, known: Iterable[str]) -> str:
    """That a file has a field there is none of, with the nearest there is."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"unknown field {field!r}" + (f"; did you mean {near[0]!r}?" if near else "")
