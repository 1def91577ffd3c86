"""A device: datasheet numbers and calibrated parameters, read from validated YAML.

A file states either every datasheet field or a `base:` device and what differs from it. Unknown keys, missing
sources and values out of bounds are errors that name the file, the field and the value.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from simtti.errors import InputError, unknown
from simtti.hw_configs.parameters import AttentionStyle, Collectives, GemmStyle, SplitKeys, WarpIssue

DIRECTORY = Path(__file__).parent
LIBRARIES = "libraries"  # the file of what all devices share: parameters of the kernel libraries
_YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True, eq=False)
class Hardware:
    """The numbers the simulation uses, in SI units and cycles of the SM clock. Compared and hashed by identity.

    Fields from the datasheet and fields of the calibration stand in one flat record; `DATASHEET` and `CALIBRATION`
    in `schema` tell them apart, and the YAML says where each comes from.
    """

    name: str
    architecture: str
    reported_as: str
    # Datasheet
    sm_count: int
    clock_hz: float
    tensor_fp16_flops_per_cycle_sm: float
    tensor_tf32_flops_per_cycle_sm: float
    tensor_fp8_flops_per_cycle_sm: float
    fp32_flops_per_cycle_sm: float
    sfu_ops_per_cycle_sm: float
    registers_per_sm: int
    shared_memory_per_sm_bytes: int
    shared_memory_bytes_per_cycle_sm: float
    max_threads_per_sm: int
    max_ctas_per_sm: int
    l1_per_sm_bytes: int
    l2_capacity_bytes: float
    l2_bytes_per_cycle_sm: float
    l2_bytes_per_s: float
    l2_latency_s: float
    hbm_capacity_bytes: float
    hbm_bytes_per_s: float
    hbm_latency_s: float
    link_bytes_per_s: float
    power_limit_w: float
    # Calibration
    tensor_efficiency: float
    hbm_efficiency: float
    l2_efficiency: float
    l2_usable_share: float
    launch_s: float
    start_s: float
    dispatch_s: float
    host_copy_bytes_per_s: float
    static_power_w: float
    tensor_j_per_flop: float
    fp32_j_per_flop: float
    l2_j_per_byte: float
    hbm_j_per_byte: float
    gemm_benchmark_activity: float
    benchmark_activity: float
    attention_kernel: str
    # Calibration of the kernel libraries
    gemm_mma: GemmStyle
    gemm_unaligned: GemmStyle
    gemm_wgmma: GemmStyle
    flash_2: AttentionStyle
    flash_3: AttentionStyle
    flash_4: AttentionStyle
    trtllm: AttentionStyle
    efficient: AttentionStyle
    attention_mma: WarpIssue
    attention_parts: SplitKeys
    collectives: Collectives

    @property
    def hbm_attained_bytes_per_s(self) -> float:
        """HBM bandwidth that a long stream attains."""
        return self.hbm_bytes_per_s * self.hbm_efficiency

    @property
    def l2_attained_bytes_per_s(self) -> float:
        """L2 bandwidth that all SMs together attain."""
        return self.l2_bytes_per_s * self.l2_efficiency

    @property
    def link_attained_bytes_per_s(self) -> float:
        """Bandwidth of the link to other GPUs, one direction, that collectives attain."""
        return self.link_bytes_per_s * self.collectives.link_efficiency

    @property
    def l2_usable_bytes(self) -> float:
        """L2 bytes that a later kernel can count on finding."""
        return self.l2_capacity_bytes * self.l2_usable_share

    def tensor_flops_per_cycle_sm(self, dtype: str) -> float:
        """Attainable tensor-core FLOPs of one SM in a cycle. fp32 means TF32, as cuDNN does by default.

        Raises:
            InputError: the device has no tensor-core path for `dtype`.
        """
        rate = {
            "fp16": self.tensor_fp16_flops_per_cycle_sm,
            "bf16": self.tensor_fp16_flops_per_cycle_sm,
            "fp32": self.tensor_tf32_flops_per_cycle_sm,
            "fp8": self.tensor_fp8_flops_per_cycle_sm,
        }.get(dtype, 0.0)
        if not rate:
            raise InputError(
                f"{self.name} has no tensor-core path for dtype {dtype!r} (it has: fp16, bf16, fp32)"
            )
        return rate * self.tensor_efficiency

    def peak_flops(self, dtype: str = "fp16") -> float:
        """Datasheet tensor-core FLOP/s of the device."""
        return self.tensor_flops_per_cycle_sm(dtype) / self.tensor_efficiency * self.clock_hz * self.sm_count


def parameter(hardware: Hardware, name: str) -> float:
    """The calibrated parameter `name` or `group.name`."""
    group, _, field = name.rpartition(".")
    return float(getattr(getattr(hardware, group) if group else hardware, field))


def with_parameters(hardware: Hardware, values: Mapping[str, float]) -> Hardware:
    """`hardware` with other values of some calibrated parameters, by `name` or `group.name`."""
    changed: dict[str, Any] = {}
    for name, value in values.items():
        group, _, field = name.rpartition(".")
        if group:
            changed[group] = changed.get(group, getattr(hardware, group))._replace(**{field: value})
        else:
            changed[field] = value
    return replace(hardware, **changed)


def names() -> list[str]:
    """The devices that ship with simtti."""
    return sorted(path.stem for path in DIRECTORY.glob("*.yaml") if path.stem not in ("hosts", LIBRARIES))


def find_reported(product: str) -> Hardware | None:
    """The shipped device that the driver reports as `product`, as 'NVIDIA H100 80GB HBM3' is; None if there is none."""
    return next((load(name) for name in names() if load(name).reported_as == product), None)


@functools.cache
def load(name_or_path: str) -> Hardware:
    """The device called `name_or_path`, or the one a YAML file describes.

    Raises:
        InputError: unknown name, unreadable file, invalid field; the message names the nearest device or the field.
    """
    from simtti.hw_configs import schema  # pydantic is needed only to read a file

    return schema.to_hardware(read(name_or_path), name_or_path)


def read(name_or_path: str) -> dict[str, Any]:
    """The merged YAML of a device, as nested dictionaries: its own keys over those of its `base` over the libraries'."""
    return _merge(_parse(DIRECTORY / f"{LIBRARIES}.yaml"), _read(name_or_path, ()))


def _read(name_or_path: str, seen: tuple[str, ...]) -> dict[str, Any]:
    shipped = DIRECTORY / f"{name_or_path}.yaml"
    if shipped.exists() and name_or_path in names():
        path = shipped
    elif name_or_path.endswith((".yaml", ".yml")):
        path = Path(name_or_path)
        if not path.exists():
            raise InputError(f"{path}: no such device file")
    else:
        raise unknown("device", name_or_path, names())
    if name_or_path in seen:
        raise InputError(f"{path}: base: {' -> '.join((*seen, name_or_path))} is a circle")
    content = _parse(path)
    base = content.pop("base", None)
    if base is None:
        return content
    inherited = _read(str(base), (*seen, name_or_path))
    inherited.pop(
        "fits", None
    )  # what was fitted to another device's measurements says nothing of this one's error
    return _merge(inherited, content)


def _parse(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(), _YAML_LOADER)
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: a device file is a mapping of fields, not {type(content).__name__}")
    return content


def _merge(base: dict[str, Any], content: dict[str, Any]) -> dict[str, Any]:
    """`content` over `base`, section by section."""
    merged = dict(base)
    for key, value in content.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = {**merged[key], **value}
        else:
            merged[key] = value
    return merged
