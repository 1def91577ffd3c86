"""A device: datasheet numbers and calibrated parameters, as the simulation uses them. `devices` reads them from YAML."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from simtti.dtypes import DTYPES
from simtti.errors import InputError
from simtti.hw_configs.collective_parameters import Collectives
from simtti.hw_configs.parameters import GROUPS, Groups

# What connects the GPUs of a server, and the group that holds what collectives cost over it: NVLink through switches, NVLink from
# GPU to GPU, PCI Express, and the host's memory, where NCCL's peer-to-peer is off or impossible (NCCL_P2P_DISABLE, virtual machines).
INTERCONNECTS = {
    "nvswitch": "collectives", "nvlink": "collectives_direct", "pcie": "collectives_host", "host": "collectives_staged",
}  # fmt: skip
OVER_THE_HOST_LINK = ("pcie", "host")
# What feeds the tensor cores: instructions of a warp that take operands from registers filled by plain loads (Volta, Turing); the
# same with copies straight to shared memory, cp.async (Ampere, Ada, the other Blackwell); instructions of four warps that read
# shared memory (Hopper); instructions of one thread for an SM or two, results in tensor memory (data-centre Blackwell).
MATRIX_UNITS = ("mma_registers", "mma", "wgmma", "tcgen05")
# exact: their tensor cores take fp16 alone; bf16 from compute capability 8.0 on (CUDA C++ Programming Guide).
WITHOUT_BF16 = ("volta", "turing")
# Of architectures: with little shared memory, and with much. A device file of another architecture says it.
_UNIT_OF = {
    "volta": ("mma_registers", "mma_registers"),
    "turing": ("mma_registers", "mma_registers"),
    "ampere": ("mma", "mma"),
    "ada": ("mma", "mma"),
    "hopper": ("mma", "wgmma"),
    "blackwell": ("mma", "tcgen05"),
    "hypothetical": ("mma", "wgmma"),
}
ARCHITECTURES = tuple(_UNIT_OF)
# Of PyTorch: as 2.8 and later do it (cuBLAS's nvjet kernels on Hopper, RMSNorm in one kernel), and as releases up to 2.6 did (xmma
# kernels, RMSNorm by its parts).
PYTORCH = ("2.11", "2.6")
NEWER_FROM = (2, 8)
# exact: the parts with wgmma or tcgen05 have 227 KB, the others 100 KB and less
MUCH_SHARED_MEMORY_BYTES = 200 * 1024


class Parameters(dict[str, float]):
    """'group.name' -> value, as stated; not to be changed. For all devices that have these very parameters: groups, those made of them
    so far; token, which no others have; released, the parameters with those of other releases of PyTorch."""

    __slots__ = ("groups", "released", "token")

    def __init__(self, stated: Mapping[str, float]) -> None:
        super().__init__(stated)
        self.groups: dict[str, Any] = {}
        self.released: dict[tuple[str, str, str], Parameters] = {}
        self.token = object()

    def group(self, name: str) -> Any:
        """A group of them, made when first asked for."""
        if name not in self.groups:
            self.groups[name] = group_values(name, self)
        return self.groups[name]


@dataclass(frozen=True, slots=True, eq=False)
class Hardware(Groups):
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
    operator_gap_s: float
    start_s: float
    dispatch_s: float
    host_copy_bytes_per_s: float
    context_bytes: float
    static_power_w: float
    sm_cycle_j: float
    tensor_j_per_flop: float
    fp32_j_per_flop: float
    instruction_j: float
    sfu_j_per_op: float
    shared_j_per_byte: float
    l2_j_per_byte: float
    hbm_j_per_byte: float
    gemm_benchmark_activity: float
    benchmark_activity: float
    attention_kernel: str
    pytorch: str  # of PYTORCH
    # Calibration of the kernel families: 'group.name' -> value, as stated; `hardware.group.name` reads it.
    parameters: dict[str, float]
    origin: str = ""  # the name or file that `devices.load` read it from; '' of one made by hand
    also_reported_as: tuple[str, ...] = ()  # other names that drivers have for it
    interconnect: str = "nvswitch"  # of INTERCONNECTS
    stated_matrix_unit: str = ""  # of MATRIX_UNITS; '' where the architecture says it
    fitted: tuple[
        str, ...
    ] = ()  # families (validation/fit/families.yaml) fitted to measurements of this very device
    # Datasheet, 0 where a file does not say: rates of formats that not every tensor core takes.
    tensor_fp4_flops_per_cycle_sm: float = 0.0
    tensor_int8_flops_per_cycle_sm: float = 0.0
    tensor_int4_flops_per_cycle_sm: float = 0.0
    host_link_bytes_per_s: float = 0.0  # datasheet; 0 where a file does not say

    def __post_init__(self) -> None:
        if not isinstance(self.parameters, Parameters):
            object.__setattr__(self, "parameters", Parameters(self.parameters))

    def __getattr__(self, name: str) -> Any:
        """A group of parameters, made when first asked for."""
        if name not in GROUPS:
            raise AttributeError(f"Hardware has no attribute {name!r}")
        return self.parameters.group(name)  # type: ignore[attr-defined]  # see __post_init__

    def replace(self, **changes: str | float) -> Hardware:
        """The device with other numbers, as `load("h100-sxm").replace(hbm_bytes_per_s="1.5x", power_limit_w=500)`; its name says so.

        A value is a number in the field's unit or text, '100 MB' or '1.5x'. Parameters of a family are named with their group:
        `replace(**{"gemm_mma.issue": 1.2})`.

        Raises:
            InputError: an unknown field, or a value that no device file could have.
        """
        from simtti.hw_configs.changes import changed  # circle: it makes a Hardware; needs pydantic

        return changed(self, changes)

    def to_dict(self) -> dict[str, Any]:
        """Every number by name, the groups as mappings, as `simtti hw --json` writes it."""
        own = {each.name: getattr(self, each.name) for each in fields(self)}
        del own["parameters"], own["stated_matrix_unit"]
        own["matrix_unit"] = self.matrix_unit
        return own | {name: getattr(self, name)._asdict() for name in GROUPS}

    @property
    def matrix_unit(self) -> str:
        """Which of MATRIX_UNITS the device has: what its file says, or what its architecture and shared memory do."""
        if self.stated_matrix_unit:
            return self.stated_matrix_unit
        return _UNIT_OF[self.architecture][self.shared_memory_per_sm_bytes >= MUCH_SHARED_MEMORY_BYTES]

    @property
    def has_xmma(self) -> bool:
        """Whether its products run on cuBLAS's kernels of before nvjet, which Hopper had."""
        return self.pytorch == PYTORCH[1] and self.matrix_unit == "wgmma"

    @property
    def hbm_attained_bytes_per_s(self) -> float:
        """HBM bandwidth that a long stream attains."""
        return self.hbm_bytes_per_s * self.hbm_efficiency

    @property
    def l2_attained_bytes_per_s(self) -> float:
        """L2 bandwidth that all SMs together attain."""
        return self.l2_bytes_per_s * self.l2_efficiency

    @property
    def collective_costs(self) -> Collectives:
        """What collectives cost over what connects this device to others of its kind."""
        found: Collectives = getattr(self, INTERCONNECTS[self.interconnect])
        return found

    @property
    def l2_usable_bytes(self) -> float:
        """L2 bytes that a later kernel can count on finding."""
        return self.l2_capacity_bytes * self.l2_usable_share

    def tensor_flops_per_cycle_sm(self, dtype: str) -> float:
        """Attainable tensor-core FLOPs of one SM in a cycle. fp32 means TF32, as cuDNN does by default.

        Raises:
            InputError: the device has no tensor-core path for `dtype`.
        """
        rate = self._tensor_rate(dtype)
        if not rate:
            known = ", ".join(self.tensor_dtypes)
            raise InputError(f"{self.name} has no tensor-core path for dtype {dtype!r} (it has: {known})")
        return rate * self.tensor_efficiency

    def multiplies(self, dtype: str) -> bool:
        """Whether the tensor cores take `dtype`."""
        return self._tensor_rate(dtype) > 0

    @property
    def tensor_dtypes(self) -> tuple[str, ...]:
        """What its tensor cores multiply."""
        return tuple(name for name in DTYPES if self._tensor_rate(name))

    def tensor_j(self, dtype: str) -> float:
        """Joules of a tensor-core FLOP in `dtype`: tensor_j_per_flop is of fp16, and a tensor core that makes twice as many
        products of half the width a cycle spends as much on a cycle (multipliers grow with the square of the width, what they are
        fed by with the width)."""
        rate = self._tensor_rate(dtype)
        fp16 = self.tensor_fp16_flops_per_cycle_sm
        return self.tensor_j_per_flop * (fp16 / rate if rate > fp16 else 1.0)

    def _tensor_rate(self, dtype: str) -> float:
        """The datasheet's number for `dtype`; 0 where the tensor cores do not take it."""
        if dtype == "bf16" and self.architecture in WITHOUT_BF16:
            return 0.0
        if dtype not in DTYPES or not DTYPES[dtype].tensor_rate:
            return 0.0
        known = DTYPES[dtype]
        if known.only_with and not getattr(self, known.only_with):
            return 0.0
        rate: float = getattr(self, known.tensor_rate)
        return rate

    def peak_flops(self, dtype: str = "fp16") -> float:
        """Datasheet tensor-core FLOP/s of the device."""
        return self.tensor_flops_per_cycle_sm(dtype) / self.tensor_efficiency * self.clock_hz * self.sm_count


def parameter(hardware: Hardware, name: str) -> float:
    """The calibrated parameter `name` or `group.name`."""
    group, _, own = name.rpartition(".")
    return float(getattr(getattr(hardware, group) if group else hardware, own))


def with_parameters(hardware: Hardware, values: Mapping[str, float]) -> Hardware:
    """`hardware` with other values of some calibrated parameters, by `name` or `group.name`; what inherits them follows."""
    own: dict[str, Any] = {name: value for name, value in values.items() if "." not in name}
    grouped = {name: value for name, value in values.items() if "." in name}
    if grouped:
        own["parameters"] = {**hardware.parameters, **grouped}
    return replace(hardware, **own)


@functools.lru_cache(maxsize=256)
def with_pytorch(hardware: Hardware, release: str) -> Hardware:
    """`hardware` with the kernels of a release of PyTorch, and their parameters where its file says which (`releases`).

    What was changed of the device since it was read stays as it was changed.

    Raises:
        InputError: it is none of PYTORCH.
    """
    if release not in PYTORCH:
        raise InputError(f"pytorch is {release!r}; it must be one of {', '.join(PYTORCH)}")
    if hardware.pytorch == release:
        return hardware
    if not hardware.origin:
        return replace(hardware, pytorch=release)
    from simtti.hw_configs import devices  # circle: it makes a Hardware

    own, grouped = devices.differences(hardware.origin, hardware.pytorch, release)
    values: dict[str, Any] = {name: other for name, stated, other in own if getattr(hardware, name) == stated}
    parameters: Parameters = hardware.parameters  # type: ignore[assignment]  # see __post_init__
    key = hardware.origin, hardware.pytorch, release
    if key not in parameters.released:
        changed = {name: other for name, stated, other in grouped if parameter(hardware, name) == stated}
        parameters.released[key] = Parameters({**parameters, **changed})
    return replace(hardware, pytorch=release, parameters=parameters.released[key], **values)


def release_of(version: object) -> str | None:
    """Which of PYTORCH has the kernels of a version of torch, as `torch.__version__` says it; None where it says none.

    >>> release_of("2.11.0+cu130"), release_of("2.7.1"), release_of(None)
    ('2.11', '2.6', None)
    """
    found = re.match(r"(\d+)\.(\d+)", str(version or ""))
    if found is None:
        return None
    return PYTORCH[0] if (int(found[1]), int(found[2])) >= NEWER_FROM else PYTORCH[1]


def group_values(group: str, stated: dict[str, float]) -> tuple[Any, ...]:
    """The group's parameters, each as `stated` ('group.name': value) says, or as the group says that it inherits from.

    Raises:
        KeyError: nobody states one of them.
    """
    style, inherits = GROUPS[group]
    names: tuple[str, ...] = style._fields  # type: ignore[attr-defined]
    found = {name: stated.get(f"{group}.{name}", stated.get(f"{inherits}.{name}")) for name in names}
    missing = [name for name, value in found.items() if value is None]
    if missing:
        raise KeyError(f"{group}.{missing[0]}")
    return style(**found)
