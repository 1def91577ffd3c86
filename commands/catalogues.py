"""The workloads and the devices there are, as people read them: lists, and one of each in full."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.text import Text

from simtti.commands.console import Column, plain_console, print_table
from simtti.hw_configs.schema import DATASHEET, calibration
from simtti.words import inference_shape, number

if TYPE_CHECKING:
    from pathlib import Path

    from simtti.hw_configs.hardware import Hardware
    from simtti.workloads.measured import Capture
    from simtti.workloads.shapes import Scope
    from simtti.workloads.trace_cache import Kept
    from simtti.workloads.workload import Options, Workload


# As the field has them; tables of 80 columns have no room for the words.
_SHORT = {
    "text-to-image": "T2I",
    "text-to-video": "T2V",
    "image-to-video": "I2V",
    "image editing": "edit",
    "text-to-text": "text",
}


def print_workloads(
    workloads: Mapping[str, Workload], captures: Sequence[Capture], flops: Mapping[str, int | None]
) -> None:
    """A row a workload: task, parameters, the shape and work of an inference at its defaults, where one was measured."""
    columns = (Column("Workload", "name"), Column("Task", "name"), "Params", "Size", "Steps", "TFLOP")
    rows = [
        (
            name,
            _SHORT.get(item.task, item.task),
            f"{sum(item.parameters.values()) / 1e9:.1f}B",
            _size(item.defaults),
            str(item.defaults.steps or ""),
            "" if (work := flops[name]) is None else number(work / 1e12),
            " ".join(dict.fromkeys(_family(each.device) for each in captures if each.workload == name)),
        )
        for name, item in workloads.items()
    ]
    print_table((*columns, Column("Measured", "prose")), rows)
    plain_console().print(
        "\nT2I, T2V, I2V: text to image, text to video, image to video. Size: height x\n"
        "width x frames. Work and steps: of one inference at its defaults. Measured: a\n"
        "trace of a GPU ships. simtti workloads NAME shows one; WORDS search, as in simtti workloads video.",
        style="dim",
    )


def _family(device: str) -> str:
    """'H200' of 'h200-sxm'."""
    return device.split("-")[0].upper()


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
    rows = [(Text(name, style="dim"), text) for name, text in parts.items() if text]
    print_table([Column("", "name"), Column("", "prose")], rows)


def print_shapes(scopes: Mapping[str, Sequence[Scope]]) -> None:
    """A row a range of shapes whose traces follow from what ships."""
    from simtti.workloads.shapes import FILLED

    rows: list[tuple[str, ...]] = []
    for name, each in scopes.items():
        if not each:
            rows.append((name, *[""] * 5))
        for place, scope in enumerate(each):
            free = {one.name: _range(one.least, one.most, one.unit) for one in scope.variables}
            if scope.full is not None:
                free["width"] += "=" if scope.full else "+"
            rows.append(
                (
                    "" if place else name,
                    free.get("batch", "1"),
                    *(free.get(part, "") for part in ("height", "width", "frames")),
                    scope.megapixels if len({*free} - {"prompt_tokens"}) > 1 else "",
                )
            )
    names = [Column(each, "name") for each in ("Workload", "Batch", "Height", "Width", "Frames")]
    print_table([*names, "Mpix"], rows)
    filled = any(scope.full is not None for each in scopes.values() for scope in each)
    prompts = {
        name: f"{name} {_range(one.least, one.most, one.unit)}"
        for name, each in scopes.items()
        for scope in each
        for one in scope.variables
        if one.name == "prompt_tokens"
    }
    if prompts:
        plain_console().print(f"\nWith --prompt-tokens: {', '.join(prompts.values())}.")
    plain_console().print(
        "\nFrom-to/step; empty is the default. Those of a row go together, up to so many\n"
        "Mpixel in all images and frames. Other shapes are recorded, which needs torch."
        + f"\n+: where tokens are no multiple of {FILLED} and are filled up; =: where they are one."
        * filled,
        style="dim",
    )


def _range(least: int, most: int, unit: int) -> str:
    return f"{least}-{most}" + (f"/{unit}" if unit > 1 else "")


def print_devices(devices: Mapping[str, Hardware]) -> None:
    """One row a device."""
    columns = [Column("Device", "name"), Column("Arch", "name")]
    rows = [
        (
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
        for name, device in devices.items()
    ]
    print_table([*columns, "SMs", "GHz", "TFLOP/s", "GiB", "TB/s", "L2 MiB", "Watt"], rows)
    plain_console().print(
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
        rows = []
        for name, (_, _, _, meaning) in fields.items():
            entry = content[section].get(name)
            if entry is None:
                continue  # inherited from another group
            status = f" ({entry['status']})" if entry.get("status", "fitted") != "fitted" else ""
            rows.append((name, f"{float(entry['value']):g}", meaning, entry["source"] + status))
        console.print()
        columns = (Column(section, "name"), "Value", Column("Meaning", "prose"), Column("Source", "prose"))
        print_table(columns, rows)


def print_cache(place: Path, found: Sequence[Kept]) -> None:
    """A row a kept trace, and where they are."""
    rows = [
        (
            each.workload,
            inference_shape(each.options),
            f"{each.nbytes / 1024:,.0f}",
            "stale" if each.stale else "",
        )
        for each in found
    ]
    if found:
        print_table([Column("Workload", "name"), Column("Shape", "prose"), "KiB", Column("", "name")], rows)
    total = sum(each.nbytes for each in found)
    plain_console().print(f"{escape(str(place))}: {len(found)} traces, {total / 2**20:,.1f} MiB", style="dim")
