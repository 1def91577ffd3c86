"""What a chip is made of and what it costs: area by component, yield, and the cost of manufacturing.

Area is a sum of components, each a count times an area in the 5 nm class that scales with the process: logic with the
density of its transistors to a power below one (no design reaches the peak), SRAM with the bit cell, PHYs hardly at all.

    die = logic scale x (SMs + FP32 lanes + tensor FLOPs + FP64 lanes + graphics + fixed) + SRAM + HBM and GDDR PHYs + links

The areas are fitted to published dies from 16 to 4 nm, weakly held at prior values. `leave_one_out` predicts each die from
a fit to the others: the error to expect of a chip that does not exist. `python -m simtti.explore.silicon` prints both.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from simtti.errors import library
from simtti.hw_configs.hardware import Hardware

FILE = Path(__file__).with_name("silicon.yaml")
REGISTER_KIB_SM = 256  # the register file of an SM, the same from Pascal to Blackwell
REFERENCE = "4N"
MASK_MM2 = 858.0  # the largest die: the field of a scanner, 26 mm x 33 mm
# All dies here have 16 special functions a cycle, 128 B a cycle of shared memory and 64 B of L2 an SM, so what more of them
# takes cannot be fitted: estimates, mm2 in the 5 nm class of that much again in one SM (SFUs: a quarter of 64 FP32 lanes with
# their tables; shared memory: twice the banks' periphery and the operand crossbar; L2: the SM's share of the chip's crossbar).
SFU_MM2, SHARED_PORT_MM2, L2_PORT_MM2 = 0.10, 0.12, 0.10
REPAIRABLE_SHARE = 0.5  # of a die: its SMs, about; a bad one is switched off
ENOUGH_SPARE = (
    0.05  # share of SMs left out from which on a die's one or two defects always fall within it; estimate
)


class Area(NamedTuple):
    """The fitted areas, mm2 in the 5 nm class; bounds and priors in `_BOUNDS`."""

    sm: float  # of an SM: front end, load/store and texture units, its part of the crossbar
    lanes: float  # of 128 FP32 lanes, with the INT32 ones beside them
    tensor: float  # of tensor cores for 1,024 dense FP16 FLOPs a cycle
    fp64: float  # of 32 FP64 lanes
    graphics: float  # of an SM's ray-tracing core and what else graphics products have
    sram: float  # area of an SRAM over that of its bit cells: tags, ports, periphery
    hbm: float  # of the PHY and controller of one HBM stack
    gddr: float  # of the PHY and controllers of 64 bits of GDDR
    link: float  # of 100 GB/s of links, both directions
    fixed: float  # scheduler, copy engines, PCIe, video, display
    density_power: float  # real density goes with the process's peak density to this power


# (lowest, prior, highest) of each
_BOUNDS: dict[str, tuple[float, float, float]] = {
    "sm": (0.2, 0.8, 3.0),
    "lanes": (0.01, 0.7, 2.0),
    "tensor": (0.01, 0.2, 1.0),
    "fp64": (0.01, 0.3, 1.0),
    "graphics": (0.01, 0.3, 1.0),
    "sram": (1.5, 2.5, 6.0),
    "hbm": (8.0, 14.0, 25.0),
    "gddr": (2.0, 5.0, 12.0),
    "link": (0.5, 2.0, 12.0),
    "fixed": (5.0, 20.0, 60.0),
    "density_power": (0.6, 0.85, 1.0),
}
_PRIOR_WEIGHT = 0.03  # log error of a die that counts as much as a parameter off its prior by a factor of e


class Process(NamedTuple):
    """A foundry process; fields as explained in silicon.yaml."""

    mtr_mm2: float
    cell_um2: float
    analog: float
    wafer_usd: float
    defects_cm2: float


class Die(NamedTuple):
    """What is on a die, enabled or not, and how large it is where that is published (else 0)."""

    process: str
    sms: float
    fp32_lanes: float
    fp64_lanes: float
    tensor: float
    l1_kib: float
    l2_mib: float
    stacks: float
    gddr_bits: float
    link_gb_s: float
    graphics: bool = False
    wider: float = 0.0  # SFUs and ports beyond what all published dies have, mm2 an SM in the 5 nm class
    mm2: float = 0.0
    estimate: bool = False


class Product(NamedTuple):
    """Which dies a device has, and how much of them is enabled."""

    die: str
    dies: int
    sms: int
    l2_mib: float
    stacks: int


class Chip(NamedTuple):
    """A device's silicon: dies of an area each, the share of them that can be sold, memory, and manufacturing cost."""

    dies: int
    die_mm2: float
    yielded: float
    die_usd: float
    memory_usd: float
    package_usd: float

    @property
    def cost_usd(self) -> float:
        """Dies, memory and package: not the board, cooling, development or margin."""
        return self.dies * self.die_usd + self.memory_usd + self.package_usd

    @property
    def area_mm2(self) -> float:
        return self.dies * self.die_mm2


@functools.cache
def _content() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return content


@functools.cache
def processes() -> dict[str, Process]:
    return {name: Process(**fields) for name, fields in _content()["processes"].items()}


@functools.cache
def published() -> dict[str, Die]:
    """The dies whose area is known."""
    return {name: Die(**fields) for name, fields in _content()["dies"].items()}


@functools.cache
def products() -> dict[str, Product]:
    return {name: Product(**fields) for name, fields in _content()["products"].items()}


@functools.cache
def fitted() -> Area:
    return Area(**_content()["areas"])


def die_mm2(die: Die, area: Area) -> float:
    """Area of `die` by its components."""
    process, reference = processes()[die.process], processes()[REFERENCE]
    logic = (reference.mtr_mm2 / process.mtr_mm2) ** area.density_power
    units = die.sms * (
        area.sm
        + area.lanes * die.fp32_lanes / 128
        + area.tensor * die.tensor / 1024
        + area.fp64 * die.fp64_lanes / 32
        + area.graphics * die.graphics
        + die.wider
    )
    sram_mib = die.sms * (REGISTER_KIB_SM + die.l1_kib) / 1024 + die.l2_mib
    sram = sram_mib * 8 * 1024**2 * process.cell_um2 * 1e-6 * area.sram
    phys = area.hbm * die.stacks + area.gddr * die.gddr_bits / 64 + area.link * die.link_gb_s / 100
    return logic * (units + area.fixed) + sram + phys * process.analog


def fit(dies: Sequence[Die]) -> Area:
    """The areas that explain `dies` best: least squares on log ratios, with the priors as weak observations."""
    import numpy as np

    least_squares = library("scipy.optimize", "fit").least_squares

    low, prior, high = (np.array([_BOUNDS[name][i] for name in Area._fields]) for i in range(3))

    def residuals(logs: Any) -> Any:
        area = Area(*np.exp(logs))
        errors = [math.log(die_mm2(die, area) / die.mm2) for die in dies]
        return np.concatenate([errors, _PRIOR_WEIGHT * (logs - np.log(prior))])

    found = least_squares(residuals, np.log(prior), bounds=(np.log(low), np.log(high)))
    return Area(*(float(f"{value:.4g}") for value in np.exp(found.x)))


def errors() -> dict[str, float]:
    """Predicted over published area, less one, of each die the areas were fitted to."""
    return {name: die_mm2(die, fitted()) / die.mm2 - 1 for name, die in published().items()}


def leave_one_out() -> dict[str, float]:
    """The same with each die predicted from a fit to all others."""
    dies = published()
    return {
        name: die_mm2(die, fit([other for key, other in dies.items() if key != name])) / die.mm2 - 1
        for name, die in dies.items()
    }


def die_yield(mm2: float, repairable_share: float, process: Process) -> float:
    """Share of the dies that can be sold: negative binomial with clustering 3 (a common industry model); a defect in the
    `repairable_share` of the die does no harm."""
    return float((1 + mm2 * (1 - repairable_share) / 100 * process.defects_cm2 / 3) ** -3)


def dies_per_wafer(mm2: float) -> float:
    """Gross dies on a 300 mm wafer, with the rim's loss."""
    return math.pi * 150.0**2 / mm2 - math.pi * 300.0 / math.sqrt(2 * mm2)


def chip(hardware: Hardware, base: str, base_hardware: Hardware, stacks: float | None = None) -> Chip:
    """The silicon of a design that was made from the device `base` by changing numbers.

    Dies, process, spare units and what the simulation does not know (FP64, graphics) are the base's. The model gives the
    ratio of the die to the base's, whose published area it is multiplied with. stacks: HBM stacks, if not the base's.
    """
    product = products().get(base, products()["h100-sxm"])
    on_die = published()[product.die]
    die = _die_of(hardware, base_hardware, product, on_die, stacks)
    same = _die_of(base_hardware, base_hardware, product, on_die, None)
    mm2 = on_die.mm2 * die_mm2(die, fitted()) / die_mm2(same, fitted())
    process = processes()[die.process]
    spare_share = 1 - product.sms / (product.dies * on_die.sms)
    yielded = die_yield(mm2, REPAIRABLE_SHARE * min(1.0, spare_share / ENOUGH_SPARE), process)
    content = _content()
    kind = content["memories"]["hbm" if on_die.stacks else "gddr"]
    memory_gib = hardware.hbm_capacity_bytes / 1024**3
    packages = stacks if stacks is not None else product.stacks
    return Chip(
        dies=product.dies,
        die_mm2=mm2,
        yielded=yielded,
        die_usd=process.wafer_usd / max(dies_per_wafer(mm2), 1.0) / yielded,
        memory_usd=memory_gib * kind["usd_gib"],
        package_usd=packages * kind["package_usd"] + product.dies * mm2 * content["package_usd_mm2"],
    )


def _die_of(hardware: Hardware, base: Hardware, product: Product, on_die: Die, stacks: float | None) -> Die:
    """One die of a design, in proportion to the base's die as the design is to the base."""

    def scaled(there: float, new: float, old: float) -> float:
        return there * new / old if old else there

    memory = (
        stacks / product.stacks if stacks is not None else hardware.hbm_bytes_per_s / base.hbm_bytes_per_s
    )
    return on_die._replace(
        sms=scaled(on_die.sms, hardware.sm_count, base.sm_count),
        fp32_lanes=scaled(on_die.fp32_lanes, hardware.fp32_flops_per_cycle_sm, base.fp32_flops_per_cycle_sm),
        tensor=scaled(
            on_die.tensor, hardware.tensor_fp16_flops_per_cycle_sm, base.tensor_fp16_flops_per_cycle_sm
        ),
        l1_kib=on_die.l1_kib
        + (hardware.shared_memory_per_sm_bytes - base.shared_memory_per_sm_bytes) / 1024
        + (hardware.registers_per_sm - base.registers_per_sm) * 4 / 1024,
        l2_mib=scaled(on_die.l2_mib, hardware.l2_capacity_bytes, base.l2_capacity_bytes),
        stacks=on_die.stacks * memory,
        gddr_bits=on_die.gddr_bits * memory,
        link_gb_s=scaled(on_die.link_gb_s, hardware.link_bytes_per_s, base.link_bytes_per_s),
        wider=SFU_MM2 * (hardware.sfu_ops_per_cycle_sm / base.sfu_ops_per_cycle_sm - 1)
        + SHARED_PORT_MM2
        * (hardware.shared_memory_bytes_per_cycle_sm / base.shared_memory_bytes_per_cycle_sm - 1)
        + L2_PORT_MM2 * (hardware.l2_bytes_per_cycle_sm / base.l2_bytes_per_cycle_sm - 1),
    )


def _main(arguments: Sequence[str]) -> None:
    if "--fit" in arguments:
        print("areas:", dict(fit(list(published().values()))._asdict()))
        return
    alone: Mapping[str, float] = leave_one_out()
    print(f"{'die':6} {'process':7} {'mm2':>5} {'fitted':>8} {'left out':>9}")
    for name, error in errors().items():
        die = published()[name]
        mark = "  (area estimated by others)" if die.estimate else ""
        print(f"{name:6} {die.process:7} {die.mm2:5.0f} {error:+8.1%} {alone[name]:+9.1%}{mark}")


if __name__ == "__main__":
    import sys

    _main(sys.argv[1:])
