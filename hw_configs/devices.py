"""The devices there are, and one read from its YAML.

A file states either every datasheet field or a `base:` device and what differs from it: a value and its source, or, for a what-if,
the value alone. A value is a number or what `quantities` reads: '100 MB', '1.5x' of the base's. Unknown keys and values out of
bounds are errors that name the file, the field and the value.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simtti.errors import InputError, Problems, unknown
from simtti.hw_configs import families
from simtti.hw_configs.hardware import Hardware
from simtti.hw_configs.parameters import GROUPS
from simtti.hw_configs.quantities import quantity
from simtti.hw_configs.voltage import SWITCHED, energy_factor

_MODEL = re.compile(
    r"[a-z]{1,3}[0-9]{1,4}|[0-9]{4}"
)  # in the names that drivers report: 'a100', 'l4', '4090'
_MIG = re.compile(r"\s+MIG\s.*$")  # behind the name of a slice: 'MIG 1g.10gb'
_MAKES = ("nvidia", "tesla", "geforce", "quadro")  # before it, depending on the driver
DIRECTORY = Path(__file__).parent
RELEASES = DIRECTORY / "releases"
NO_DEVICES = ("hosts", "engines", "prices")  # files beside the devices that are about something else
_WHAT_IF = "a what-if: the file gives the value alone"


def names() -> list[str]:
    """The devices that ship with simtti."""
    return sorted(path.stem for path in DIRECTORY.glob("*.yaml") if path.stem not in NO_DEVICES)


@functools.cache
def _reported() -> dict[str, str]:
    """The shipped device of each name that a driver reports, as `_product` spells it."""
    found = {}
    for name in names():
        device = load(name)
        for product in (device.reported_as, *device.also_reported_as):
            if product:
                found[_product(product)] = name
    return found


def _product(reported: str) -> str:
    """A product's name without what drivers put before it or leave out: 'rtx 3090' of 'NVIDIA GeForce RTX 3090'."""
    words = reported.casefold().split()
    while words and words[0] in _MAKES:
        words = words[1:]
    return " ".join(words)


def find_reported(product: str) -> Hardware | None:
    """The shipped device that the driver reports as `product`, as 'NVIDIA H100 80GB HBM3' is; None if there is none."""
    found = _reported().get(_product(product))
    return load(found) if found else None


def no_device_file(product: str, option: str = "--trace-hw") -> InputError:
    """An InputError for a trace of a GPU that no shipped device reports itself as, with the nearest devices.

    A slice of one (MIG) is none: it has some of the SMs, of L2 and of the memory.
    """
    whole, slice_of = _MIG.sub("", product), ""
    if whole != product:
        slice_of = "; it is a slice (MIG): a file with the device as `base` and the slice's SMs, L2 and memory describes it"
    near = _near_products(whole)
    hint = f" (near it: {', '.join(near)})" if near else " (simtti hw lists them)"
    return InputError(
        f"the trace was taken on {product or 'a device that it does not name'}, for which there is no device file; say which stands "
        f"for it with {option} NAME or FILE.yaml{hint}{slice_of}"
    )


def _near_products(product: str) -> list[str]:
    """The devices that a product's name is like: it itself, those of the same chip or model, else those spelled nearly so."""
    known, asked = _reported(), _product(product)
    if asked in known:
        return [known[asked]]
    models = set(_MODEL.findall(asked))
    alike = [each for each in known if models & set(_MODEL.findall(each))]
    near = difflib.get_close_matches(asked, alike, n=3, cutoff=0.0)
    near = near or difflib.get_close_matches(asked, known, n=3, cutoff=0.6)
    return list(dict.fromkeys(known[each] for each in near))


@functools.cache
def load(name_or_path: str) -> Hardware:
    """The device called `name_or_path`, or the one a YAML file describes; with changes behind it, as
    'h100-sxm+hbm_bytes_per_s=1.5x+power_limit_w=500', that device with these numbers.

    Raises:
        InputError: unknown name, unreadable file, invalid field; the message names the nearest device or the field.
    """
    from simtti.hw_configs import changes, schema

    name, said = changes.split(name_or_path)
    if said and not os.path.exists(name_or_path):  # a name of any length: Path.exists raises
        return changes.changed(load(name), changes.read(said))
    problems = Problems()
    content = _merged(name_or_path, "", problems)
    if not _ships(name_or_path):
        _check_types(content, problems)
    schema.check_values(content, problems)
    problems.raise_any(name_or_path)
    return schema.to_hardware(content, name_or_path)


def _ships(name: str) -> bool:
    """Whether all that a device consists of came with simtti: then tests have checked its fields."""
    return name in names() and families.SHIPPED == families.FILES


def _check_types(content: dict[str, Any], problems: Problems) -> None:
    """`stated.check_device`; pydantic takes longer to load than a device."""
    from simtti.hw_configs import stated

    stated.check_device(content, problems)


def fingerprint(hardware: Hardware) -> str:
    """The same for devices whose every number is the same, whichever files they stand in: the device's, those it is based on, those
    of kernel families and attention libraries."""
    return hashlib.sha256(repr(hardware).encode()).hexdigest()[:16]


def add_values(path: str) -> None:
    """Take a further file of kernel families' values in: devices read from now on have them."""
    families.FILES.append(Path(path))
    _forget()


def remove_values(path: str) -> None:
    """Leave a file out that `add_values` took in, and the groups that it names."""
    for name in families.parse(Path(path)).get("groups", {}):
        GROUPS.pop(name, None)
    families.FILES.remove(Path(path))
    _forget()


def _forget() -> None:
    """Read all files again when they are asked for."""
    from simtti.hw_configs import schema

    for kept in (families.shared, schema.calibration, load, differences, _reported):
        kept.cache_clear()


def read(name_or_path: str, release: str = "") -> dict[str, Any]:
    """The merged YAML of a device, as nested dictionaries: its own keys over those of its `base` over the kernel
    families'. release: of PyTorch; the device's own if empty.

    Raises:
        InputError: no such device, or a text that says no number. What else its fields may be, `load` checks.
    """
    problems = Problems()
    content = _merged(name_or_path, release, problems)
    problems.raise_any(name_or_path)
    return content


def _merged(name_or_path: str, release: str, problems: Problems) -> dict[str, Any]:
    chain = _chain(name_or_path, ())
    says = {
        key: at for at, (_, stated) in enumerate(chain) for key in ("pytorch", "releases") if key in stated
    }
    # The last that names the file of the release: over its calibration, under those of the devices that are based on it.
    at_releases, release = (
        says.get("releases"),
        release or chain[says.get("pytorch", 0)][1].get("pytorch", ""),
    )
    content: dict[str, Any] = {}
    for at, (path, stated) in enumerate(chain):
        content = _over(content, stated, "" if str(path) == name_or_path else f"{path}: ", problems)
        releases = stated.get("releases") if at == at_releases else None
        if isinstance(releases, dict) and release in releases:  # what is no mapping the schema refuses
            content = _merge(content, _release(str(releases[release]), path))
    return _merge({"calibration": families.shared().calibration}, content)


Difference = tuple[str, float, float]


@functools.cache
def differences(name_or_path: str, of: str, release: str) -> tuple[list[Difference], list[Difference]]:
    """The calibrated parameters of a device that two releases of PyTorch do not share, its own and those in groups: the name of each,
    and its values."""
    stated, other = (read(name_or_path, each)["calibration"] for each in (of, release))
    found: tuple[list[Difference], list[Difference]] = [], []
    for name in dict.fromkeys([*other, *stated]):
        one, another = _value(name, stated), _value(name, other)
        if one != another:
            found["." in name].append((name, one, another))
    return found


def _value(name: str, calibration: Mapping[str, Any]) -> float:
    """Of a parameter: what is stated, or that of the parameter that it inherits."""
    if name not in calibration:
        group, _, own = name.partition(".")
        name = f"{GROUPS[group].inherits}.{own}"
    value: float = calibration[name]["value"]
    return value


def _release(name: str, path: Path) -> dict[str, Any]:
    """The calibration of the kernels of a release."""
    known = sorted(each.stem for each in RELEASES.glob("*.yaml"))
    if name not in known:
        raise InputError(f"{path}: field 'releases': {unknown('file of releases', name, known)}")
    return families.parse(RELEASES / f"{name}.yaml")


def _chain(name_or_path: str, seen: tuple[str, ...]) -> list[tuple[Path, dict[str, Any]]]:
    """A device's file, as it stands, behind those that it is based on."""
    if name_or_path in names():
        path = DIRECTORY / f"{name_or_path}.yaml"
    elif name_or_path.endswith((".yaml", ".yml")):
        path = Path(name_or_path)
        if not os.path.exists(path):
            raise InputError(f"{path}: no such device file")
    else:
        raise unknown("device", name_or_path, names())
    if name_or_path in seen:
        raise InputError(f"{path}: base: {' -> '.join((*seen, name_or_path))} is a circle")
    content = families.parse(path)
    base = content.pop("base", None)
    return [*([] if base is None else _chain(str(base), (*seen, name_or_path))), (path, content)]


def _over(
    inherited: dict[str, Any], content: dict[str, Any], where: str, problems: Problems
) -> dict[str, Any]:
    """A device's own keys over those of its base, if it has one. where: of a problem, if not in the file that was asked for."""
    if not inherited:
        return _numbers(content, {}, where, problems)
    # What was fitted to another device's measurements says nothing of this one's error; another architecture's kernels are others.
    left = {
        "fits",
        *(("matrix_unit",) if "architecture" in content else ()),
        *(("releases",) if "releases" in content else ()),
    }
    inherited = {name: value for name, value in inherited.items() if name not in left}
    content = _numbers(content, inherited, where, problems)
    return _at_its_clock(_merge(inherited, content), inherited, content)


def _numbers(content: dict[str, Any], base: dict[str, Any], where: str, problems: Problems) -> dict[str, Any]:
    """`content` with each number that is written as text (`quantities`) as a number, and one that stands without a source with one
    that says so. A text that says no number is noted, and stays."""
    found = dict(content)
    for section in ("datasheet", "calibration"):
        given = content.get(section)
        if not isinstance(given, dict):
            continue  # the schema will say what is wrong
        stated = {
            **(families.shared().calibration if section == "calibration" else {}),
            **base.get(section, {}),
        }
        found[section] = {
            name: _entry(section, str(name), entry, stated.get(name), where, problems)
            for name, entry in given.items()
        }
    return found


def _entry(section: str, name: str, entry: Any, stated: Any, where: str, problems: Problems) -> Any:
    """A field of a device file as {value, source}, its value a number."""
    alone = isinstance(entry, (str, int, float)) and not isinstance(entry, bool)
    if not alone and not (isinstance(entry, dict) and isinstance(entry.get("value"), str)):
        return entry
    if alone:
        entry = {"value": entry, "source": _WHAT_IF} | (
            {"status": "estimated"} if section == "calibration" else {}
        )
    base = stated.get("value") if isinstance(stated, dict) else None
    try:
        return {**entry, "value": quantity(name, entry["value"], base)}
    except InputError as error:
        field = f"{section}.{name}.value"
        problems.note(f"{where}field '{field}': {error}", field)
        return entry


def _at_its_clock(merged: dict[str, Any], base: dict[str, Any], content: dict[str, Any]) -> dict[str, Any]:
    """`merged` with the base's switched energies at the voltage of its own clock, unless it states them.

    The same silicon at another clock: a device of another architecture carries the base's energies as they are.
    """
    try:
        clocks = [float(each["datasheet"]["clock_hz"]["value"]) for each in (merged, base)]
    except (KeyError, TypeError, ValueError):
        return merged  # the schema will say what is wrong
    from simtti.hw_configs.schema import DATASHEET

    _, lowest_hz, highest_hz, *_ = DATASHEET["clock_hz"]
    if not all(lowest_hz <= clock <= highest_hz for clock in clocks):
        return merged  # and here
    if clocks[0] == clocks[1] or merged.get("architecture") != base.get("architecture"):
        return merged
    factor = energy_factor(clocks[0] / clocks[1])
    scaled = dict(merged["calibration"])
    for name in SWITCHED:
        entry = scaled.get(name)
        if isinstance(entry, dict) and name not in content.get("calibration", {}) and "value" in entry:
            source = f"{factor:.3g} times the base's, for the voltage at {clocks[0] / 1e9:g} GHz; {entry.get('source')}"
            scaled[name] = {"value": entry["value"] * factor, "status": "carried", "source": source}
    return {**merged, "calibration": scaled}


def _merge(base: dict[str, Any], content: dict[str, Any]) -> dict[str, Any]:
    """`content` over `base`, section by section."""
    merged = dict(base)
    for key, value in content.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = {**merged[key], **value}
        else:
            merged[key] = value
    return merged
