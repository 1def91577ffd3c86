"""A device with some of its numbers, or what connects it, changed: what `--set` says, `Hardware.replace`, and the name 'h100-sxm+hbm_bytes_per_s=1.5x'."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from simtti.errors import InputError, unknown
from simtti.hw_configs.hardware import INTERCONNECTS, OVER_THE_HOST_LINK, Hardware, parameter, with_parameters
from simtti.hw_configs.quantities import quantity
from simtti.hw_configs.schema import DATASHEET, calibration
from simtti.hw_configs.voltage import SWITCHED, energy_factor

CONNECTED = "interconnect"  # the field that is no number
# Where a change begins in a name: not the plus of 1e+08.
_CHANGE = re.compile(r"\+(?=[A-Za-z_][\w.]*=)")


def split(name: str) -> tuple[str, str]:
    """A device's name without its changes, and these with ';' between.

    >>> split("h100-sxm+hbm_bytes_per_s=5e+12+sm_count=100")
    ('h100-sxm', 'hbm_bytes_per_s=5e+12;sm_count=100')
    """
    base, *changes = _CHANGE.split(name)
    return base, ";".join(changes)


def joined(name: str, changes: Iterable[str]) -> str:
    """The name of the device `name` with `changes`, each FIELD=VALUE.

    Raises:
        InputError: as `read`.

    >>> joined("h100-sxm", ["l2_capacity_bytes=100 MB"])
    'h100-sxm+l2_capacity_bytes=100MB'
    """
    return _named(name, read(";".join(changes)))


def _named(name: str, changes: Mapping[str, str | float]) -> str:
    return "+".join([name, *(f"{field}={_compact(written)}" for field, written in changes.items())])


def read(text: str) -> dict[str, str]:
    """Changes written as FIELD=VALUE with ';' between.

    Raises:
        InputError: one that is not, or a field named twice.

    >>> read("hbm_bytes_per_s=1.5x; l2_capacity_bytes=100 MB")
    {'hbm_bytes_per_s': '1.5x', 'l2_capacity_bytes': '100 MB'}
    """
    found: dict[str, str] = {}
    for part in filter(None, (each.strip() for each in text.split(";"))):
        field, equals, written = (each.strip() for each in part.partition("="))
        if not (field and equals and written):
            raise InputError(f"set is {part!r}; it must be FIELD=VALUE, as hbm_bytes_per_s=1.5x")
        if field in found:
            raise InputError(f"set names {field} twice: {found[field]} and {written}")
        found[field] = written
    return found


def changed(hardware: Hardware, changes: Mapping[str, str | float]) -> Hardware:
    """`hardware` with other numbers, of its datasheet or calibration; its name says which.

    Where `interconnect` is changed to pcie or host, the link is the one to the host unless it is given too; host is for GPUs whose
    peer-to-peer is off (NCCL_P2P_DISABLE, virtual machines), whatever else connects them.

    At another clock the energies of what switches follow the voltage that the clock needs (`hw_configs.voltage`), as they do of a
    device file with a base, unless they are changed too. All else stays as it is.

    Raises:
        InputError: an unknown field, or a value that a device file could not have.
    """
    if not changes:
        return hardware
    known = {name: said[:3] for name, said in (DATASHEET | calibration()).items()}
    values: dict[str, float] = {}
    connected: dict[str, Any] = {}
    for field, written in changes.items():
        if field == CONNECTED:
            connected = _connected(hardware, str(written))
            continue
        if field not in known:
            raise unknown("field of a device", field, (*known, CONNECTED))
        kind, low, high = known[field]
        base = float(getattr(hardware, field)) if field in DATASHEET else parameter(hardware, field)
        try:
            value = quantity(field, written, base)
        except InputError as error:
            raise InputError(f"set {field}: {error}") from None
        if not low <= value <= high:
            raise InputError(
                f"set {field}: should be from {low:g} to {high:g}, not {written!r}{_is(value, written)}"
            )
        if kind is int and not value.is_integer():
            raise InputError(f"set {field}: should be a whole number, not {written!r}{_is(value, written)}")
        values[field] = kind(value)
    if "clock_hz" in values:
        factor = energy_factor(values["clock_hz"] / hardware.clock_hz)
        for name in SWITCHED:
            values.setdefault(name, getattr(hardware, name) * factor)
    flat: dict[str, Any] = connected | {name: value for name, value in values.items() if name in DATASHEET}
    device = replace(
        hardware, name=_named(hardware.name, changes), reported_as="", also_reported_as=(), **flat
    )
    return with_parameters(device, {name: value for name, value in values.items() if name not in DATASHEET})


def _connected(hardware: Hardware, by: str) -> dict[str, Any]:
    if by not in INTERCONNECTS:
        raise unknown(CONNECTED, by, INTERCONNECTS)
    if by not in OVER_THE_HOST_LINK:
        return {CONNECTED: by}
    if not hardware.host_link_bytes_per_s:
        raise InputError(
            f"set {CONNECTED}: {hardware.name} does not say how fast its link to the host is; give link_bytes_per_s in its file"
        )
    return {CONNECTED: by, "link_bytes_per_s": hardware.host_link_bytes_per_s}


def _is(value: float, written: str | float) -> str:
    return f" ({value:g})" if isinstance(written, str) else ""


def _compact(written: str | float) -> str:
    return written.replace(" ", "") if isinstance(written, str) else f"{written:g}"
