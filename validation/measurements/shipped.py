"""Single operators that were measured for simtti and ship with it (measured/README.md): times, and hardware counters."""

from __future__ import annotations

from pathlib import Path

MEASURED = Path(__file__).parent / "measured"
_KERNELS, _COUNTERS = "-kernels.parquet", "-counters.parquet"


def measured_devices() -> tuple[str, ...]:
    """The devices whose single operators ship."""
    return tuple(path.name.removesuffix(_KERNELS) for path in sorted(MEASURED.glob(f"*{_KERNELS}")))


def kernels_file(device: str) -> Path:
    """The times of a device of `measured_devices`: what `simtti capture kernels` wrote."""
    return MEASURED / f"{device}{_KERNELS}"


def counters_file(device: str) -> Path | None:
    """A device's hardware counters: what `simtti capture kernels --counters` wrote; None where none ship."""
    path = MEASURED / f"{device}{_COUNTERS}"
    return path if path.exists() else None
