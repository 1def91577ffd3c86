"""What a GPU costs for an hour: hw_configs/prices.yaml, or a file of one's own like it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from simtti.errors import InputError, Problems
from simtti.files import read_yaml
from simtti.hw_configs.devices import DIRECTORY

SHIPPED = DIRECTORY / "prices.yaml"
_PRICE = "usd_per_gpu_hour"
_MOST_USD = 1e6
_KNOWN = (_PRICE, "source", "date")


def load_prices(path: str | None = None) -> dict[str, float]:
    """US dollars for a GPU-hour by device.

    Args:
        path: a YAML of a price a device's name, a number or {usd_per_gpu_hour, source, date}; what ships if None.

    Raises:
        InputError: the file cannot be read, or a price is none.
    """
    file = Path(path) if path is not None else SHIPPED
    content = read_yaml(file)
    if not isinstance(content, dict):
        raise InputError(f"{file}: prices are a mapping of devices, not {type(content).__name__}")
    problems, found = Problems(), {}
    for name, said in content.items():
        with problems.noted():
            found[str(name)] = _price(str(name), said)
    problems.raise_any(str(file))
    return found


def usd_per_output(usd_per_gpu_hour: float, gpus: int, outputs_per_s: float) -> float:
    """US dollars that all GPUs cost for as long as an output takes."""
    return usd_per_gpu_hour * gpus / 3600 / outputs_per_s


def _price(name: str, said: Any) -> float:
    if isinstance(said, dict):
        if strange := [str(each) for each in said if each not in _KNOWN]:
            raise InputError(f"field '{name}.{strange[0]}' is unknown; it may be one of {', '.join(_KNOWN)}")
        said = said.get(_PRICE)
    if isinstance(said, bool) or not isinstance(said, (int, float)) or not 0 < said <= _MOST_USD:
        raise InputError(
            f"field '{name}.{_PRICE}' should be US dollars, above 0 and at most a million, as 2.99, not {said!r}"
        )
    return float(said)
