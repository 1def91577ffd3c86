"""A run's result as a notebook shows it: a heading and small tables, without styles of its own."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING

from simtti.words import gib, inference_shape, joules, label, percent, seconds

if TYPE_CHECKING:
    from simtti.simulator.result import Result  # circle: a type only

_LEAST_SHARE = 0.0005  # of the latency, of a category that has a row


def as_html(result: Result) -> str:
    """What was run, latency and energy with what 9 of 10 such runs lie between, memory, phases, categories."""
    figures, many, held = result.figures(), result.several_gpus, result.memory
    time, energy = result.interval
    gpus = f"{many.gpus} " if many else ""
    room = gib(result.hardware.hbm_capacity_bytes, 0)
    facts = [
        ("Latency", seconds(figures["latency_s"]), f"{seconds(time.p05)} to {seconds(time.p95)}"),
        ("Energy", joules(figures["energy_j"]), f"{joules(energy.p05)} to {joules(energy.p95)}"),
        ("Power", f"{figures['average_w']:.0f} W", ""),
        ("Memory", gib(held.device_bytes) if held else "", f"of {room}{'' if result.fits else ': does not fit'}" if held else ""),
        ("Waiting for the host", percent(result.host_bound_share), ""),
    ]  # fmt: skip
    phases = [
        (label(each.name), str(each.steps), seconds(each.latency_s), seconds(each.step_s))
        for each in result.phases
    ]
    categories = [
        (name, seconds(time_s), percent(time_s / result.latency_s))
        for name, time_s in result.breakdown.items()
        if time_s >= _LEAST_SHARE * result.latency_s
    ]
    title = f"{result.trace.workload} on {gpus}{result.hardware.name}"
    how = f"{inference_shape(result.trace.options)}; attention {result.policy.attention}, launch {result.policy.launch}"
    return "\n".join(
        [
            f"<p><strong>{escape(title)}</strong><br>{escape(how)}</p>",
            _table(("", "", "9 of 10 such runs"), facts),
            _table(("Phase", "Steps", "Latency", "Per step"), phases),
            _table(("Category", "Time", "Share"), categories),
            *(f"<p>{escape(each)}</p>" for each in result.warnings),
        ]
    )


def _table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
