"""Where a report's numbers come from: files by their hash, versions. No clock, no paths of the machine: the same input
gives the same bytes."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from simtti.hw_configs.devices import DIRECTORY
from simtti.hw_configs.families import FILES
from simtti.journal import code_hash

_PACKAGES = ("simtti", "numpy", "pandas", "simpy", "scipy", "matplotlib")
_TABLES = (".csv", ".parquet")


def provenance(files: Sequence[str], hw: str | None = None) -> tuple[tuple[str, str], ...]:
    """(what, which) of each input: the measurement files, the device's file, the code, the packages."""
    found = []
    for name in files:
        path = Path(name)
        inside = (
            sorted(item for item in path.iterdir() if item.suffix in _TABLES) if path.is_dir() else [path]
        )
        found += [(f"measurements {item.name}", f"sha256 {_sha256(item)}") for item in inside]
    if hw is not None:
        device = Path(hw) if hw.endswith((".yaml", ".yml")) else DIRECTORY / f"{hw}.yaml"
        found.append((f"device {device.name}", f"sha256 {_sha256(device)}"))
        found += [(f"kernels {path.name}", f"sha256 {_sha256(path)}") for path in FILES]
    found.append(("simulator, devices and workloads", f"sha256 {code_hash()} (first 16 digits)"))
    found.append(("Python", platform.python_version()))
    found += [(name, _version(name)) for name in _PACKAGES]
    return tuple(found)


def commit() -> str | None:
    """The commit of the checkout that simtti runs from; None where it is none, or git is not there. Changes since are in the code's
    hash alone."""
    root = Path(__file__).resolve().parents[1]
    try:
        said = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "--show-toplevel", "HEAD"], capture_output=True, text=True, timeout=5, check=True
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    top, found = said.stdout.splitlines()
    return found if Path(top) == root else None


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
