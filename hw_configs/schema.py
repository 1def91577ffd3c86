"""The schema of a device file: which fields it has, their meaning, unit and bounds."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from simtti.errors import InputError
from simtti.hw_configs import families
from simtti.hw_configs.hardware import ARCHITECTURES, Hardware
from simtti.hw_configs.parameters import GROUPS, Group

_STRICT = ConfigDict(extra="forbid", frozen=True)
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


class _Quantity(BaseModel):
    model_config = _STRICT
    value: Annotated[float, Field(strict=True, allow_inf_nan=False)]
    source: Annotated[str, Field(min_length=3)]


class _Parameter(_Quantity):
    status: Literal[
        "fitted", "carried", "estimated", "uncalibrated"
    ]  # the last is how files said 'estimated' once
    interval: tuple[float, float] | None = None  # 95 % confidence, where it was fitted


class _Fit(BaseModel):
    """What `simtti calibrate` leaves beside the parameters it fitted, by family."""

    model_config = _STRICT
    used_rows: int
    train_rows: int
    test_rows: int
    train_mape: float
    test_mape: float
    test_bias: float
    data_sha256: str
    sources: str = ""


class _Device(BaseModel):
    model_config = _STRICT
    # It names files: no separators, no controls, nothing hidden.
    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[\w(][\w ().,+@-]*$")]
    architecture: Annotated[str, Field(min_length=1)]
    matrix_unit: Literal["", "mma_registers", "mma", "wgmma", "tcgen05"] = ""  # hardware.MATRIX_UNITS
    interconnect: Literal["nvswitch", "nvlink", "pcie", "host"] = "nvswitch"  # hardware.INTERCONNECTS
    # How the driver names the product, the usual name first; ties a measured trace to its device.
    reported_as: str | list[str] = ""
    attention_kernel: str  # one of families.shared().attention_kernels
    pytorch: Literal["2.11", "2.6"] = "2.11"  # hardware.PYTORCH
    # Of PyTorch, in which kernels of its libraries differ from those of the calibration: which file of `releases/` has theirs.
    releases: dict[Literal["2.11", "2.6"], str] = {}
    datasheet: dict[str, _Quantity]
    calibration: dict[str, _Parameter]
    fits: dict[str, _Fit] = {}


def to_hardware(content: dict[str, Any], origin: str) -> Hardware:
    """Validate a device's merged YAML and flatten it.

    Raises:
        InputError: names the file, the field, the value given and what is allowed, one line for the first few faults.
    """
    try:
        device = _Device.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{origin}: {explain(error)}") from None
    faults = _unknown_words(device)
    faults += _faults("datasheet", device.datasheet, DATASHEET, OPTIONAL_DATASHEET)
    known = calibration()
    optional = {name for name in known if GROUPS.get(name.partition(".")[0], _NO_GROUP).inherits}
    faults += _faults("calibration", device.calibration, known, optional)
    if faults:
        raise InputError(f"{origin}: {_line(faults)}")
    flat: dict[str, Any] = {
        key: kind(device.datasheet[key].value)
        for key, (kind, _, _, _) in DATASHEET.items()
        if key in device.datasheet
    }
    calibrated = {key: entry.value for key, entry in device.calibration.items()}
    reported = [device.reported_as] if isinstance(device.reported_as, str) else device.reported_as
    flat |= {key: calibrated.pop(key) for key in DEVICE_CALIBRATION}
    return Hardware(
        name=device.name,
        architecture=device.architecture,
        reported_as=reported[0] if reported else "",
        also_reported_as=tuple(reported[1:]),
        attention_kernel=device.attention_kernel,
        pytorch=device.pytorch,
        origin=origin,
        parameters=calibrated,
        interconnect=device.interconnect,
        stated_matrix_unit=device.matrix_unit,
        fitted=tuple(device.fits),
        **flat,
    )


def _unknown_words(device: _Device) -> list[str]:
    """What is wrong with the names in a device's head."""
    faults = []
    if not device.matrix_unit and device.architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        faults.append(
            f"field 'architecture': {device.architecture!r} is none of {known}; field 'matrix_unit' must say what feeds its tensor cores"
        )
    kernels = families.shared().attention_kernels
    if device.attention_kernel not in kernels:
        faults.append(
            f"field 'attention_kernel': should be one of {', '.join(kernels)}, not {device.attention_kernel!r}"
        )
    return faults


def _faults(
    section: str,
    given: Mapping[str, _Quantity],
    fields: dict[str, tuple[type, float, float, str]],
    optional: Collection[str] = (),
) -> list[str]:
    """What is wrong with a section's fields: unknown, missing, out of bounds."""
    faults = [_unknown(f"{section}.{name}", name, fields) for name in given if name not in fields]
    for name, (kind, low, high, _) in fields.items():
        if name not in given:
            if name in optional:
                continue
            faults.append(f"field '{section}.{name}' is missing")
            continue
        value = given[name].value
        field = f"field '{section}.{name}.value'"
        if not low <= value <= high:
            faults.append(
                f"{field}: should be greater than or equal to {low:g} and at most {high:g}, not {value!r}"
            )
        elif kind is int and not value.is_integer():
            faults.append(f"{field}: should be a whole number, not {value!r}")
    return faults


def _unknown(field: str, name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"unknown field {field!r}" + (f"; did you mean {near[0]!r}?" if near else "")


def explain(error: ValidationError) -> str:
    """The faults of a validation on one line: field, what is wrong, the value given, near field names for a typo."""
    known = [*_Device.model_fields, *_Parameter.model_fields, "base"]
    faults = []
    for fault in error.errors():
        field = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            faults.append(_unknown(field, str(fault["loc"][-1]), known))
        elif fault["type"] == "missing":
            faults.append(f"field {field!r} is missing")
        else:
            faults.append(f"field {field!r}: {fault['msg'].lower()}, not {fault['input']!r}")
    return _line(faults)


def _line(faults: list[str]) -> str:
    more = len(faults) - 3
    return "; ".join(faults[:3]) + (f"; and {more} more" if more > 0 else "")
