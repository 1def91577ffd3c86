"""What `simtti profile` shows: the profile and its scaling as tables, and as a plot."""

from __future__ import annotations

from typing import Any

from simtti.errors import InputError


def print_profile(found: dict[str, Any]) -> None:
    """The profile for people."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    console.print(
        f"[bold]{found['workload']}[/]  {sum(found['parameters'].values()) / 1e6:,.0f} M parameters\n"
    )
    phases = Table("Phase", "Steps", "TFLOP", box=None, pad_edge=False, header_style="dim")
    for phase in found["phases"]:
        phases.add_row(phase["name"], str(phase["steps"]), f"{phase['flops'] / 1e12:,.2f}")
    console.print(phases)
    table = Table(
        "Category",
        "Operators",
        "TFLOP",
        "GB",
        "FLOP/byte",
        "Parameters",
        box=None,
        pad_edge=False,
        header_style="dim",
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for name, row in found["categories"].items():
        table.add_row(
            name, f"{row['operators']:,.0f}", f"{row['flops'] / 1e12:,.2f}", f"{row['bytes'] / 1e9:,.1f}",
            f"{row['intensity']:,.0f}", f"{row['parameters'] / 1e6:,.1f} M",
        )  # fmt: skip
    console.print()
    console.print(table)
    counts = ", ".join(f"{length} ({count}x)" for length, count in found["sequence_length_counts"].items())
    console.print(f"\nSelf-attention over one pass of {found['main_phase']}: tokens {counts or 'none'}")
    for domain, row in found["attention"].items():
        console.print(
            f"Attention, {domain or 'any'}: {row['calls']} calls, {row['flops'] / 1e12:,.3f} TFLOP a pass, "
            f"largest score matrix {row['largest_score_bytes'] / 1e6:,.0f} MB"
        )


def print_scaling(found: dict[str, Any]) -> None:
    """What grows how, for people."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    for name, rows in found["scaling"].items():
        table = Table(
            "Side" if name == "sizes" else "Frames", "Longest self-attention", "TFLOP a pass", "Spatial", "Temporal",
            "Largest score matrix", "All of them", box=None, pad_edge=False, header_style="dim",
        )  # fmt: skip
        for column in table.columns:
            column.justify = "right"
        for row in rows:
            table.add_row(
                str(row["value"]), f"{row['longest_self_attention']:,}", f"{row['flops'] / 1e12:,.2f}",
                f"{row['spatial_attention_flops'] / 1e12:,.3f}", f"{row['temporal_attention_flops'] / 1e12:,.4f}",
                f"{row['largest_score_bytes'] / 1e6:,.1f} MB", f"{row['all_score_bytes'] / 1e6:,.1f} MB",
            )  # fmt: skip
        console.print()
        console.print(table)
    if found.get("temporal_crossover_frames"):
        console.print(
            f"Temporal attention's FLOPs would reach spatial attention's at {found['temporal_crossover_frames']:,.0f} frames"
        )


def plot_profile(found: dict[str, Any], path: str) -> None:
    """Sequence length by call over one pass, and FLOPs by category, as PNG or SVG by the extension.

    Raises:
        InputError: matplotlib is not installed, or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError("plots need matplotlib; run: pip install 'simtti[report]'") from None
    figure = Figure(figsize=(10, 4), layout="constrained")
    scalings = found.get("scaling", {})
    left, right, *rest = figure.subplots(1, 2 + len(scalings))
    figure.set_size_inches(10 + 5 * len(scalings), 4)
    for axes, (name, rows) in zip(rest, scalings.items(), strict=True):
        values = [row["value"] for row in rows]
        for field, label in (
            ("spatial_attention_flops", "spatial attention, FLOP"),
            ("temporal_attention_flops", "temporal attention, FLOP"),
            ("all_score_bytes", "score matrices, bytes"),
        ):
            if any(row[field] for row in rows):
                axes.plot(values, [row[field] for row in rows], "o-", markersize=3, label=label)
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
    left.set_title(f"{found['workload']}, {found['main_phase']}", fontsize=10)
    rows = {name: row["flops"] / 1e12 for name, row in found["categories"].items() if row["flops"]}
    right.barh(list(rows)[::-1], list(rows.values())[::-1], color="tab:blue")
    right.set(xlabel="TFLOP of one inference")
    try:
        figure.savefig(path, dpi=140)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot write {path}: {error}") from None
