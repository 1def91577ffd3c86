"""What a workload is, before any hardware: sequence lengths, FLOPs, bytes, arithmetic intensity, attention's memory.

All of it is counted from the operators of a trace.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from simtti.errors import InputError
from simtti.workloads.flops import flops
from simtti.workloads.trace import Operator, Step, Trace


@dataclass(frozen=True, slots=True)
class AttentionCall:
    """One attention of a step. Lengths in tokens; score_bytes is the score matrix that unfused attention would keep,
    batch x heads x q_len x kv_len in the operands' dtype."""

    phase: str
    module: str
    kind: str
    domain: str
    batch: int
    heads: int
    q_len: int
    kv_len: int
    head_dim: int
    flops: int
    score_bytes: int


def attention_calls(trace: Trace, phase: str | None = None) -> list[AttentionCall]:
    """Every attention over one pass of each stored step (of `phase`), in the order it is issued."""
    return [_call(operator) for operator in trace.operators() if _is_attention(operator, phase)]


def _is_attention(operator: Operator, phase: str | None) -> bool:
    return operator.category == "Attention" and (phase is None or operator.phase == phase)


def _call(operator: Operator) -> AttentionCall:
    query, key = operator.inputs[:2]
    *outer, q_len, head_dim = query.shape
    kv_len = key.shape[-2]
    heads = outer[-1] if outer else 1
    batch = math.prod(outer[:-1])
    item = query.nbytes // max(query.numel, 1)
    return AttentionCall(
        operator.phase,
        operator.module,
        str(operator.attributes.get("kind", "self")),
        str(operator.attributes.get("domain", "")),
        batch,
        heads,
        q_len,
        kv_len,
        head_dim,
        flops(operator),
        batch * heads * q_len * kv_len * item,
    )


def main_phase(trace: Trace) -> str:
    """The phase with the most FLOPs: the denoiser, or the decoder of an autoregressive model."""
    work: dict[str, float] = defaultdict(float)
    for step, operator in _weighted(trace):
        work[operator.phase] += step.count * flops(operator)
    return max(work, key=lambda name: work[name])


def _weighted(trace: Trace) -> Iterator[tuple[Step, Operator]]:
    for phase in trace.phases:
        for step in phase.steps:
            for operator in step.operators:
                yield step, operator


def categories(trace: Trace, phase: str | None = None) -> dict[str, dict[str, float]]:
    """By category, over the whole inference or one phase, repetitions counted: operators, flops, bytes, parameters,
    and intensity in FLOPs a byte. Bytes are those an operator reads and writes, unfused; parameters are counted once."""
    sums: dict[str, dict[str, float]] = {}
    weights: dict[str, dict[int, float]] = defaultdict(dict)
    for step, operator in _weighted(trace):
        if operator.is_view or (phase is not None and operator.phase != phase):
            continue
        row = sums.setdefault(operator.category, {"operators": 0, "flops": 0.0, "bytes": 0.0})
        uses = (*operator.inputs, *operator.outputs)
        row["operators"] += step.count
        row["flops"] += step.count * flops(operator)
        row["bytes"] += step.count * sum(min(use.nbytes, use.storage_bytes) for use in uses)
        for use in uses:
            if use.role == "parameter":
                weights[operator.category][use.tensor] = use.storage_bytes / (use.nbytes / max(use.numel, 1))
    for category, row in sums.items():
        row["parameters"] = sum(weights[category].values())
        row["intensity"] = row["flops"] / row["bytes"] if row["bytes"] else 0.0
    return dict(sorted(sums.items(), key=lambda item: -item[1]["flops"]))


def profile(trace: Trace) -> dict[str, Any]:
    """The profile of a trace as `simtti profile --json` writes it."""
    phase = main_phase(trace)
    calls = attention_calls(trace, phase)
    own = [call for call in calls if call.kind == "self"]
    return {
        "workload": trace.workload,
        "options": trace.options,
        "parameters": trace.parameters,
        "phases": [
            {
                "name": item.name,
                "steps": sum(step.count for step in item.steps),
                "flops": float(sum(step.count * flops(op) for step in item.steps for op in step.operators)),
            }
            for item in trace.phases
        ],
        "main_phase": phase,
        "categories": categories(trace),
        "sequence_lengths": [call.q_len for call in own],
        "sequence_length_counts": {
            str(length): count for length, count in sorted(Counter(c.q_len for c in own).items())
        },
        "attention": {
            domain: {
                "calls": sum(call.domain == domain for call in calls),
                "flops": float(sum(call.flops for call in calls if call.domain == domain)),
                "largest_score_bytes": max(
                    (call.score_bytes for call in calls if call.domain == domain), default=0
                ),
            }
            for domain in sorted({call.domain for call in calls})
        },
        "calls": [
            {name: getattr(call, name) for name in AttentionCall.__slots__} for call in attention_calls(trace)
        ],
    }


def scaling(traces: Iterable[tuple[int, Trace]]) -> list[dict[str, Any]]:
    """How attention grows over traces of one workload at several sizes or frame counts: one row each.

    Per pass of the main phase: the longest self-attention, FLOPs of attention by domain and of everything, and the score
    matrices that unfused attention would keep: the largest, and all layers' sum. The score matrix grows with the fourth
    power of an image's side.
    """
    rows = []
    for value, trace in traces:
        phase = main_phase(trace)
        calls = attention_calls(trace, phase)
        work = [op for op in trace.operators() if op.phase == phase]
        own = [call.q_len for call in calls if call.kind == "self"]
        rows.append(
            {
                "value": value,
                "longest_self_attention": max(own, default=0),
                "flops": float(sum(flops(op) for op in work)),
                "attention_flops": float(sum(call.flops for call in calls)),
                "spatial_attention_flops": float(
                    sum(call.flops for call in calls if call.domain == "spatial")
                ),
                "temporal_attention_flops": float(
                    sum(call.flops for call in calls if call.domain == "temporal")
                ),
                "largest_score_bytes": max((call.score_bytes for call in calls), default=0),
                "all_score_bytes": sum(call.score_bytes for call in calls),
            }
        )
    return rows


def crossover(rows: list[dict[str, Any]]) -> float | None:
    """The frame count at which temporal attention's FLOPs would reach spatial attention's, by their ratio at the largest
    count measured: the ratio of one to the other grows in proportion to the frames. None without temporal attention."""
    last = rows[-1]
    if not last["temporal_attention_flops"]:
        return None
    return float(last["value"] * last["spatial_attention_flops"] / last["temporal_attention_flops"])


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
