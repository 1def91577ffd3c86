"""The workloads and the devices there are, as people read them: tables that fit 80 columns, and one of each in full."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from simtti.commands.console import plain_console
from simtti.hw_configs.schema import DATASHEET, calibration
from simtti.words import inference_shape, number

if TYPE_CHECKING:
    from pathlib import Path

    from simtti.hw_configs.hardware import Hardware
    from simtti.workloads.measured import Capture
    from simtti.workloads.shapes import Scope
    from simtti.workloads.trace_cache import Kept
    from simtti.workloads.workload import Options, Workload


def _listing(*columns: str, texts: Sequence[str]) -> Table:
    """A table that fits 80 columns and whose rows are each one line: numbers to the right, `texts` to the left."""
    table = Table(box=None, header_style="dim", padding=(0, 1, 0, 0), pad_edge=False)
    for name in columns:
        table.add_column(name, justify="left" if name in texts else "right", no_wrap=True)
    return table


# As the field has them; tables of 80 columns have no room for the words.
_SHORT = {"text-to-image": "T2I", "text-to-video": "T2V", "image-to-video": "I2V"}


def print_workloads(
    workloads: Mapping[str, Workload], captures: Sequence[Capture], flops: Mapping[str, int | None]
) -> None:
    """A row a workload: task, parameters, the shape and work of an inference at its defaults, where one was measured."""
    table = _listing(
        "Workload",
        "Task",
        "Params",
        "Size",
        "Steps",
        "TFLOP",
        "Measured",
        texts=("Workload", "Task", "Measured"),
    )
    for name, item in workloads.items():
        work = flops[name]
        table.add_row(
            name,
            _SHORT.get(item.task, item.task),
            f"{sum(item.parameters.values()) / 1e9:.1f} B",
            _size(item.defaults),
            str(item.defaults.steps or ""),
            number(work / 1e12) if work is not None else "",
            ", ".join(dict.fromkeys(each.device for each in captures if each.workload == name)),
        )
    console = plain_console()
    console.print(table)
    console.print(
        "\nT2I, T2V, I2V: text to image, text to video, image to video. Size: height x\n"
        "width x frames. Work and steps: of one inference at its defaults.\n"
        "simtti workloads NAME shows one; WORDS search, as in simtti workloads video.",
        style="dim",
    )


def _size(options: Options) -> str:
    parts = (options.height, options.width, options.frames)
    return "x".join(str(each) for each in parts if each is not None)


def print_workload(
    item: Workload, captures: Sequence[Capture], flops: int | None, scopes: Sequence[Scope]
) -> None:
    """What a workload is, its default shape, for which shapes a measured trace ships, where its numbers come from."""
    console = plain_console()
    also = "".join(f" ({alias})" for alias in item.aliases)
    console.print(f"[bold]{item.name}[/]{also}  {item.task}, {item.architecture}")
    parts = {"Default shape": inference_shape({**item.defaults.given(), "vae": item.own_vae})}
    if flops is not None:
        parts["Work"] = f"{number(flops / 1e12)} TFLOP at the default shape"
    parts["Parameters"] = ", ".join(f"{name} {size / 1e6:,.0f} M" for name, size in item.parameters.items())
    mine = [each for each in captures if each.workload == item.name]
    parts["Measured"] = "\n".join(
        f"{each.device}: {inference_shape(each.options)}, attention {each.attention}" for each in mine
    )
    parts["Without torch"] = "\n".join(["any number of steps", *map(str, scopes)])
    parts["Source"] = f"{item.source}\n{item.url}"
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    for name, text in parts.items():
        if text:
            table.add_row(name, escape(text))
    console.print(table)


def print_shapes(scopes: Mapping[str, Sequence[Scope]]) -> None:
    """A row a range of shapes whose traces follow from what ships."""
    table = _listing(
        "Workload",
        "Batch",
        "Height",
        "Width",
        "Frames",
        "Mpix",
        texts=("Workload", "Batch", "Height", "Width", "Frames"),
    )
    for name, each in scopes.items():
        if not each:
            table.add_row(name)
        for place, scope in enumerate(each):
            free = {one.name: _range(one.least, one.most, one.unit) for one in scope.variables}
            table.add_row(
                "" if place else name,
                free.get("batch", "1"),
                *(free.get(part, "") for part in ("height", "width", "frames")),
                scope.megapixels if len(free) > 1 else "",
            )
    console = plain_console()
    console.print(table)
    console.print(
        "\nFrom-to/step; empty is the default. Those of a row go together, up to so many\n"
        "Mpixel in all images and frames. Other shapes are recorded, which needs torch.",
        style="dim",
    )


def _range(least: int, most: int, unit: int) -> str:
    return f"{least}-{most}" + (f"/{unit}" if unit > 1 else "")


def print_devices(devices: Mapping[str, Hardware]) -> None:
    """One row a device."""
    table = _listing(
        "Device", "Arch", "SMs", "GHz", "TFLOP/s", "GiB", "TB/s", "L2 MiB", "Watt", texts=("Device", "Arch")
    )
    for name, device in devices.items():
        table.add_row(
            name,
            device.architecture,
            str(device.sm_count),
            f"{device.clock_hz / 1e9:.2f}",
            f"{device.peak_flops() / 1e12:,.0f}",
            f"{device.hbm_capacity_bytes / 2**30:.0f}",
            f"{device.hbm_bytes_per_s / 1e12:.2f}",
            f"{device.l2_capacity_bytes / 2**20:.0f}",
            f"{device.power_limit_w:.0f}",
        )
    console = plain_console()
    console.print(table)
    console.print(
        "\nTFLOP/s: dense FP16, FP32 accumulate, at that clock, which a power limit lowers.\n"
        "simtti hw NAME shows every number and its source; WORDS search: simtti hw ada.",
        style="dim",
    )


def print_device(content: dict[str, Any]) -> None:
    """Every number of a device with its meaning and source."""
    console = plain_console()
    console.print(
        f"[bold]{content['name']}[/]  {content['architecture']}; attention {content['attention_kernel']}"
    )
    for section, fields in (("datasheet", DATASHEET), ("calibration", calibration())):
        table = Table(section, "Value", "Meaning", "Source", box=None, header_style="dim", pad_edge=False)
        table.columns[1].justify = "right"
        for name, (_, _, _, meaning) in fields.items():
            entry = content[section].get(name)
            if entry is None:
                continue  # inherited from another group
            status = f" [yellow]({entry['status']})[/]" if entry.get("status", "fitted") != "fitted" else ""
            table.add_row(name, f"{float(entry['value']):g}", meaning, entry["source"] + status)
        console.print()
        console.print(table)


def print_cache(place: Path, found: Sequence[Kept]) -> None:
    """A row a kept trace, and where they are."""
    table = _listing("Workload", "Shape", "KiB", "", texts=("Workload", "Shape", ""))
    for each in found:
        stale = "stale" if each.stale else ""
        table.add_row(each.workload, inference_shape(each.options), f"{each.nbytes / 1024:,.0f}", stale)
    console = plain_console()
    if found:
        console.print(table)
    total = sum(each.nbytes for each in found)
    console.print(f"{escape(str(place))}: {len(found)} traces, {total / 2**20:,.1f} MiB", style="dim")
