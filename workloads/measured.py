"""Captures that ship with simtti: real inferences on a real GPU, operator by operator (traces/measured/DEVICE/)."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, NamedTuple

from simtti.errors import InputError, unknown
from simtti.workloads.catalogue import find
from simtti.workloads.trace import Trace
from simtti.workloads.trace_file import provenance_of

MEASURED = Path(__file__).parent / "traces" / "measured"


class Capture(NamedTuple):
    """A capture that ships. options: of the inference. attention: how it was computed. launch: how the model in the denoising loop was
    launched (launched.LAUNCH)."""

    path: Path
    device: str
    workload: str
    options: dict[str, Any]
    attention: str
    launch: str = "eager"

    @property
    def name(self) -> str:
        """DEVICE/FILE, without the file's ending: 'h200-sxm/modelscope-t2v_frames32'."""
        return f"{self.device}/{self.path.stem}"


def captures() -> tuple[Capture, ...]:
    """The eager ones, by device and file name."""
    return tuple(each for each in all_captures() if each.launch == "eager")


@functools.cache
def all_captures() -> tuple[Capture, ...]:
    """Those whose model was compiled too, whose kernels are of no operator each."""
    found = []
    for path in sorted(MEASURED.glob("*/*.parquet")):
        workload, options, provenance = provenance_of(path)
        found.append(
            Capture(
                path,
                path.parent.name,
                workload,
                options,
                str(provenance.get("attention", "flash")),
                str(provenance.get("launch", "eager")),
            )
        )
    return tuple(found)


def capture_named(name: str) -> Capture:
    """The capture of that `name`.

    Raises:
        InputError: none ships by it.
    """
    known = {each.name: each for each in captures()}
    if name not in known:
        raise unknown("capture", name, known)
    return known[name]


def captured_trace(name: str, attention: str = "flash", *, device: str = "", **options: Any) -> Trace:
    """The eager capture of a workload with these options, for any number of steps that are alike: of this device, where there is one.

    Raises:
        InputError: none ships; the message says which do.
    """
    workload = find(name)
    wanted = workload.options(**options).given()
    mine = [each for each in captures() if each.workload == workload.name]
    mine.sort(key=lambda each: each.device != device)
    if not mine:
        raise unknown("workload with a measured trace", workload.name, {each.workload for each in captures()})
    for each in mine:
        if each.attention == attention and _but_steps(each.options) == _but_steps(wanted):
            trace = Trace.load(each.path)
            if each.options == wanted:
                return trace
            if trace.schedule:
                return trace.with_steps(wanted["steps"])
    shapes = "; ".join(f"{_but_steps(each.options)}, attention {each.attention}" for each in mine)
    raise InputError(f"no measured trace of {workload.name} at this shape ships; those that do: {shapes}")


def _but_steps(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name != "steps"}
