"""What `simtti profile` prints."""

from __future__ import annotations

from typing import Any

from rich.markup import escape

from simtti.commands.console import Column, plain_console, print_table


def print_profile(found: dict[str, Any]) -> None:
    """The profile for people."""
    console = plain_console()
    console.print(
        f"[bold]{escape(str(found['workload']))}[/]  {sum(found['parameters'].values()) / 1e6:,.0f} M parameters\n"
    )
    phases = [
        (phase["name"], str(phase["steps"]), f"{phase['flops'] / 1e12:,.2f}") for phase in found["phases"]
    ]
    print_table([Column("Phase", "name"), "Steps", "TFLOP"], phases)
    rows = [
        (
            name, f"{row['operators']:,.0f}", f"{row['flops'] / 1e12:,.2f}", f"{row['bytes'] / 1e9:,.1f}",
            f"{row['intensity']:,.0f}", f"{row['parameters'] / 1e6:,.1f} M",
        )
        for name, row in found["categories"].items()
    ]  # fmt: skip
    console.print()
    print_table([Column("Category", "name"), "Operators", "TFLOP", "GB", "FLOP/byte", "Parameters"], rows)
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
        cells = [
            (
                str(row["value"]), f"{row['longest_self_attention']:,}", f"{row['flops'] / 1e12:,.2f}",
                f"{row['spatial_attention_flops'] / 1e12:,.3f}", f"{row['temporal_attention_flops'] / 1e12:,.4f}",
                f"{row['largest_score_bytes'] / 1e6:,.1f} MB", f"{row['all_score_bytes'] / 1e6:,.1f} MB",
            )
            for row in rows
        ]  # fmt: skip
        console.print()
        print_table(
            (
                "Side" if name == "sizes" else "Frames", "Longest self-attention", "TFLOP a pass", "Spatial", "Temporal",
                "Largest score matrix", "All of them",
            ),
            cells,
        )  # fmt: skip
    if found.get("temporal_crossover_frames"):
        console.print(
            f"Temporal attention's FLOPs would reach spatial attention's at {found['temporal_crossover_frames']:,.0f} frames"
        )
