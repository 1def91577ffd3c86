"""Plots beside the numbers that a command prints, as PNG or SVG by the extension."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simtti.errors import InputError
from simtti.files import replacing
from simtti.pages.colours import named
from simtti.pages.drawing import check_available, styled
from simtti.words import label

if TYPE_CHECKING:
    import pandas as pd

    from simtti.validation.judge.trace import Comparison


@styled
def plot_comparison(comparison: Comparison, path: str) -> None:
    """Scatter of predicted against measured time by category.

    Raises:
        InputError: matplotlib is not installed, or the file cannot be written.
    """
    figure = _figure(6.4, 6)
    axes = figure.add_subplot()
    table = comparison.table
    for name, part in table.groupby("category"):
        colour = named(str(name)).light
        axes.scatter(
            part.measured_us, part.predicted_us, s=14, alpha=0.6, color=colour, label=f"{name} ({len(part)})"
        )
    low = min(table.measured_us.min(), table.predicted_us.min()) * 0.8
    high = max(table.measured_us.max(), table.predicted_us.max()) * 1.25
    axes.plot([low, high], [low, high], color="black", linewidth=0.8)
    axes.fill_between(
        [low, high], [low * 0.8, high * 0.8], [low * 1.25, high * 1.25], color="black", alpha=0.07
    )
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
    axes.set(xlabel="measured, µs", ylabel="predicted, µs")
    axes.set_title(
        f"{comparison.trace.workload} on {comparison.hardware.name}; band: -20 to +25 %", fontsize=10
    )
    axes.legend(fontsize=8)
    _save(figure, path)


@styled
def plot_comparison_of_devices(table: pd.DataFrame, path: str, title: str) -> None:
    """Latency, throughput and energy an output against the batch, a line a device.

    Raises:
        InputError: matplotlib is not installed, or the file cannot be written.
    """
    figure = _figure(11, 3.8)
    from matplotlib.ticker import NullLocator

    panels = figure.subplots(1, 3)
    shown = (
        ("latency_s", "latency, s"),
        ("outputs_per_s", "outputs per second"),
        ("energy_per_output_j", "energy per output, J"),
    )
    for axes, (column, what) in zip(panels, shown, strict=True):
        for hw, part in table.dropna(subset=["latency_s"]).groupby("hw", sort=False):
            fits = part[part.fits != False]  # noqa: E712 (None: not known)
            axes.plot(part.batch, part[column], linewidth=1, alpha=0.5, label="_")
            axes.plot(fits.batch, fits[column], "o", color=axes.lines[-1].get_color(), label=str(hw))
        axes.set(xlabel="batch", ylabel=what, xscale="log", ylim=(0, None))
        batches = sorted(table.batch.dropna().unique())
        axes.set_xticks(batches, [str(batch) for batch in batches])
        axes.xaxis.set_minor_locator(NullLocator())  # minorticks_off() of an axis is of matplotlib 3.9
        axes.grid(alpha=0.25)
    panels[0].legend(fontsize=8)
    figure.suptitle(f"{title}; a line without a marker does not fit into memory", fontsize=10)
    _save(figure, path)


def _figure(width: float, height: float) -> Any:
    """An empty figure, in inches."""
    check_available()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Any, path: str) -> None:
    """Write a figure; the same figure gives the same bytes."""
    kind = Path(path).suffix.lower().removeprefix(".")
    if kind not in figure.canvas.get_supported_filetypes():
        raise InputError(f"cannot write {path}: a plot is a .png or a .svg")
    made = io.BytesIO()
    figure.savefig(made, dpi=140, format=kind, metadata={"Date": None} if kind == "svg" else None)
    with replacing(path) as partial:
        partial.write_bytes(made.getvalue())


@styled
def plot_profile(found: dict[str, Any], path: str) -> None:
    """Sequence length by call over one pass, and FLOPs by category, as PNG or SVG by the extension.

    Raises:
        InputError: matplotlib is not installed, or the file cannot be written.
    """
    figure = _figure(10, 4)
    scalings = found.get("scaling", {})
    left, right, *rest = figure.subplots(1, 2 + len(scalings))
    figure.set_size_inches(10 + 5 * len(scalings), 4)
    for axes, (name, rows) in zip(rest, scalings.items(), strict=True):
        values = [row["value"] for row in rows]
        for field, what in (
            ("spatial_attention_flops", "spatial attention, FLOP"),
            ("temporal_attention_flops", "temporal attention, FLOP"),
            ("all_score_bytes", "score matrices, bytes"),
        ):
            if any(row[field] for row in rows):
                axes.plot(values, [row[field] for row in rows], "o-", markersize=3, label=what)
        axes.set(xlabel="image side, pixels" if name == "sizes" else "frames", xscale="log", yscale="log")
        axes.legend(fontsize=8)
    calls = [
        call for call in found["calls"] if call["phase"] == found["main_phase"] and call["kind"] == "self"
    ]
    for domain in sorted({call["domain"] for call in calls}):
        points = [(at, call["q_len"]) for at, call in enumerate(calls) if call["domain"] == domain]
        left.plot(*zip(*points, strict=True), "o-", markersize=3, linewidth=0.8, label=domain)
    left.legend(fontsize=8)
    left.set(xlabel="self-attention call over one pass", ylabel="tokens", yscale="log")
    left.set_title(f"{found['workload']}, {label(found['main_phase'])}", fontsize=10)
    rows = {name: row["flops"] / 1e12 for name, row in found["categories"].items() if row["flops"]}
    colours = [named(name).light for name in rows]
    right.barh(list(rows)[::-1], list(rows.values())[::-1], color=colours[::-1])
    right.set(xlabel="TFLOP of one inference")
    _save(figure, path)
