"""A design: a base device with some of its numbers changed, as Hardware to run and as a device file to keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from simtti.errors import InputError
from simtti.explore import silicon
from simtti.hw_configs.devices import load
from simtti.hw_configs.hardware import Hardware
from simtti.hw_configs.schema import DATASHEET, DEVICE_CALIBRATION, calibration
from simtti.hw_configs.voltage import SWITCHED, energy_factor, voltage

# Parameters that are not a number of the device.
OTHERS = {
    "hbm_stacks": "HBM stacks, or GDDR packages; bandwidth and capacity follow where they are not parameters themselves",
    "host_speed": "how many times faster the host issues operators than the one named in the workload",
    "gpus": "GPUs that share the tokens of one inference; transformers only",
}
OTHERS_BOUNDS = {"hbm_stacks": (1, 256), "host_speed": (1e-3, 1e6), "gpus": (1, 1024)}
PARAMETERS: dict[str, str] = {
    **{name: meaning for name, (_, _, _, meaning) in DATASHEET.items()},
    **{name: DEVICE_CALIBRATION[name][3] for name in DEVICE_CALIBRATION},
    **OTHERS,
}
WHOLE = {"gpus", "hbm_stacks", *(name for name, (kind, _, _, _) in DATASHEET.items() if kind is int)}


class Design(NamedTuple):
    """What the simulation runs and what the silicon costs."""

    hardware: Hardware
    chip: silicon.Chip
    host_speed: float
    gpus: int


def make(base: str, values: Mapping[str, float], name: str = "design") -> Design:
    """The device `base` with `values` in place of its own.

    What follows from them where they do not say it themselves: bandwidth and capacity from HBM stacks; the energy of an
    operation from the square of the voltage that the clock needs (`hw_configs.voltage`); static power in proportion to the area.

    Raises:
        InputError: a value out of the bounds that a device file has.
    """
    origin = load(base)
    for field, (low, high) in OTHERS_BOUNDS.items():
        if not low <= values.get(field, 1.0) <= high:
            raise InputError(f"parameter {field!r} is {values[field]:g}; it must be from {low:g} to {high:g}")
    fields: dict[str, Any] = {key: value for key, value in values.items() if key not in OTHERS}
    stacks = values.get("hbm_stacks")
    if stacks is not None:
        product = silicon.products().get(base)
        if product is None:
            raise InputError(
                f"parameter 'hbm_stacks': how many {base} has is not known; vary hbm_bytes_per_s instead"
            )
        for field in ("hbm_bytes_per_s", "hbm_capacity_bytes"):
            fields.setdefault(field, getattr(origin, field) * stacks / product.stacks)
    for field, value in fields.items():
        kind, low, high, _ = (DATASHEET.get(field) or calibration()[field])[:4]
        if not low <= value <= high:
            raise InputError(f"parameter {field!r} is {value:g}; it must be from {low:g} to {high:g}")
        fields[field] = int(value) if kind is int else float(value)
    clock = fields.get("clock_hz", origin.clock_hz) / origin.clock_hz
    for field in SWITCHED:
        fields.setdefault(field, getattr(origin, field) * energy_factor(clock))
    hardware = replace(origin, name=name, reported_as="", fitted=(), **fields)
    chip = silicon.chip(hardware, base, origin, stacks)
    if "static_power_w" not in fields:
        area = chip.area_mm2 / silicon.chip(origin, base, origin).area_mm2
        hardware = replace(hardware, static_power_w=origin.static_power_w * area * voltage(clock))
    return Design(hardware, chip, float(values.get("host_speed", 1.0)), int(values.get("gpus", 1)))


def device_file(base: str, design: Design, source: str) -> dict[str, Any]:
    """The design as the content of a device file: its base and every number that differs."""
    origin = load(base)
    content: dict[str, Any] = {"base": base, "name": design.hardware.name}
    for section, names in (("datasheet", DATASHEET), ("calibration", DEVICE_CALIBRATION)):
        changed = {}
        for field in names:
            value = getattr(design.hardware, field)
            if value != getattr(origin, field):
                entry: dict[str, Any] = {"value": value, "source": source}
                changed[field] = entry if section == "datasheet" else {**entry, "status": "estimated"}
        if changed:
            content[section] = changed
    return content
