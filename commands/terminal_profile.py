"""What `simtti profile` prints."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table

from simtti.commands.console import plain_console


def print_profile(found: dict[str, Any]) -> None:
    """The profile for people."""
    console = plain_console()
    console.print(
        f"[bold]{escape(str(found['workload']))}[/]  {sum(found['parameters'].values()) / 1e6:,.0f} M parameters\n"
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
    if found["operators_without_shapes"]:
        console.print(
            f"{found['operators_without_shapes']} operators have no shapes and count nothing", style="yellow"
        )
    counts = ", ".join(f"{length} ({count}x)" for length, count in found["sequence_length_counts"].items())
    console.print(f"\nSelf-attention over one pass of {found['main_phase']}: tokens {counts or 'none'}")
    for domain, row in found["attention"].items():
        console.print(
            f"Attention, {domain or 'any'}: {row['calls']} calls, {row['flops'] / 1e12:,.3f} TFLOP a pass, "
            f"largest score matrix {row['largest_score_bytes'] / 1e6:,.0f} MB"
        )


def print_scaling(found: dict[str, Any]) -> None:
    """What grows how, for people."""
    console = plain_console()
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
