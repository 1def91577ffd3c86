"""The report of one run: what `simtti run --report` and `simtti.report` write."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from simtti.files import write_text
from simtti.hw_configs.changes import split
from simtti.hw_configs.devices import names
from simtti.pages import run_plots as plots
from simtti.pages.document import Drawing, Fact, Report, Section, Table, table
from simtti.pages.page import html
from simtti.pages.provenance import commit, provenance
from simtti.pages.run_plots import KernelUse, said
from simtti.simulator.result import Result
from simtti.simulator.uncertainty.outside import of_run
from simtti.simulator.what_ifs import MORE, WhatIf, what_ifs
from simtti.words import (
    BOUNDS,
    count,
    gib,
    inference_shape,
    joined,
    joules,
    label,
    percent,
    seconds,
    si,
    signed,
)

_MOST_KERNELS = 20


def report(result: Result, path: str | os.PathLike[str], *, interval: bool = True) -> None:
    """Write what was found as one HTML page that needs nothing else. The same result gives the same bytes.

    Args:
        path: the page.
        interval: with the intervals, or without.

    Raises:
        InputError: the file cannot be written; matplotlib or Jinja2 is not installed.
    """
    write_text(path, html(content(result, interval)))


def content(result: Result, interval: bool = True) -> Report:
    """What the page of `result` holds, with the intervals or without.

    Raises:
        InputError: matplotlib is not installed.
    """
    options, many = result.trace.options, result.several_gpus
    gpus = f"{many.gpus} " if many else ""
    return Report(
        title=f"{said(result.trace.workload)} on {gpus}{said(result.hardware.name)}",
        subtitle=f"One simulated inference: {inference_shape(options)}; attention {result.policy.attention}, launch "
        f"{result.policy.launch}, kernels of PyTorch {result.hardware.pytorch}",
        facts=_facts(result, interval),
        summary=_summary(result),
        cautions=_cautions(result, interval),
        sections=tuple(section for section in _sections(result) if section.blocks),
        summary_title="In short",
        cautions_title="What to know",
    )


def _facts(result: Result, interval: bool) -> tuple[Fact, ...]:
    figures, held = result.figures(), result.memory
    latency_hint, energy_hint = "", ""
    if interval:
        time, energy = result.interval
        latency_hint = f"{seconds(time.p05)} to {seconds(time.p95)} in 9 of 10, {seconds(time.p25)} to {seconds(time.p75)} in half"
        energy_hint = f"{energy.p05:,.0f} to {energy.p95:,.0f} J in 9 of 10"
    found = [
        Fact("Latency", seconds(figures["latency_s"]), latency_hint),
        Fact("Energy", joules(figures["energy_j"]), energy_hint),
        Fact("Power", f"{result.power['average_w']:.0f} W", f"on average, {result.power['peak_w']:.0f} W at most; limit "
             f"{result.hardware.power_limit_w:.0f} W"),
    ]  # fmt: skip
    if held is not None:
        room = gib(result.hardware.hbm_capacity_bytes, 0)
        found.append(
            Fact(
                "Memory", gib(held.device_bytes), f"of {room}" if result.fits else f"of {room}: does not fit"
            )
        )
    return tuple(found)


def _summary(result: Result) -> tuple[str, ...]:
    largest = [
        f"{BOUNDS[name]} ({percent(time_s / result.latency_s, 0)})"
        for name, time_s in list(result.bottlenecks.items())[:3]
        if time_s >= 0.01 * result.latency_s
    ]
    use = result.utilisation
    words = [
        f"What limits it most: {joined(largest)}. Tensor cores are busy for {percent(use['tensor_cores'], 0)} of the latency, HBM for "
        f"{percent(use['hbm'], 0)}; {percent(use['peak_flops'], 0)} of the peak FLOP/s is attained."
    ]
    if many := result.several_gpus:
        words.append(
            f"This is one of {many.gpus} GPUs ({many.degrees}); energy is of all. They are "
            f"{many.one_gpu_s / many.latency_s:.2f} times as fast as one; communication takes {seconds(many.communication_s)}."
        )
    if result.latency_by_host:
        hosts = ", ".join(f"{seconds(time_s)} on {name}" for name, time_s in result.latency_by_host.items())
        words.append(f"The GPU waits for its host; by host: {hosts}.")
    return tuple(words)


def _cautions(result: Result, interval: bool) -> tuple[str, ...]:
    found = [*result.warnings, *(of_run(result) if interval else ())]
    if result.coverage and result.coverage.left_out_us:
        found.append(result.coverage.sentence(result.timing))
    found += [
        f"no kernel model for {label(op)} ({percent(share, 2)} of bytes): timed as a stream of its bytes"
        for op, share in result.unlowered.items()
        if share >= 0.00005
    ]
    return tuple(found)


def _sections(result: Result) -> list[Section]:
    uses = plots.kernel_uses(result)
    asked = what_ifs(result)
    return [
        Section("Where the time goes", blocks=(plots.breakdown(result),)),
        Section("What limits it", (_LIMITS,), (plots.limits(result),)),
        Section("Phases", blocks=(plots.by_phase(result), _phases(result))),
        Section("What more of a resource would buy", (_WHAT_IFS,), (plots.what_if_bars(result, asked), _what_ifs(result, asked)) if asked else ()),
        Section("Roofline", blocks=_there(plots.roofline(result, uses))),
        Section("Kernels", (_KERNELS,), (_kernels(result, uses),)),
        Section("Power and clock", blocks=(plots.power(result),)),
        Section("Memory", blocks=_there(plots.memory(result))),
        Section("Attention", blocks=(*_there(plots.lengths(result)), *([_attention(result)] if result.attention_kernels else ()))),
        Section("Configuration", blocks=(_configuration(result),), folded=True),
        Section("Made from", blocks=(_made_from(result),), folded=True),
    ]  # fmt: skip


_LIMITS = (
    "Each kernel's time counts for the resource that it keeps busy for longest, or for latency where none is busy half of the time: "
    "the kernel is too small, waits for memory, or ends unevenly."
)
_WHAT_IFS = (
    f"The same inference simulated with {signed(MORE - 1, 0)} of one resource at a time, in the closed form, in which kernels do not contend. "
    "Libraries choose their tiles anew. The clock's gain can be lost to the power limit."
)
_KERNELS = "By name and category, all launches together; FLOPs are useful ones, bytes those that HBM moves after what L2 holds."


def _there(block: Drawing | None) -> tuple[Drawing, ...]:
    return () if block is None else (block,)


def _phases(result: Result) -> Table:
    held = {phase.name: phase for phase in result.memory.phases} if result.memory else {}
    rows = []
    for phase in result.phases:
        most = max(result.breakdown_by_phase[phase.name].items(), key=lambda item: item[1])
        rows.append(
            [label(phase.name), count(phase.steps), seconds(phase.latency_s), seconds(phase.step_s),
             percent(phase.latency_s / result.latency_s), gib(held[phase.name].allocated_bytes) if phase.name in held else "",
             f"{most[0]} {percent(most[1] / phase.latency_s, 0)}" if phase.latency_s else ""]
        )  # fmt: skip
    return table(("Phase", "Steps", "Latency", "Per step", "Share", "Memory", "Most of it"), rows)


def _what_ifs(result: Result, found: list[WhatIf]) -> Table:
    rows = [
        [each.resource, each.more, seconds(each.latency_s), signed(each.latency_s / result.latency_s - 1, 2)]
        for each in found
    ]
    return table(("Resource", f"{signed(MORE - 1, 0)} of what", "Latency", "Change"), rows, text_columns=2)


def _kernels(result: Result, uses: list[KernelUse]) -> Table:
    shown = uses[:_MOST_KERNELS]
    rest_s = sum(use.time_s for use in uses[_MOST_KERNELS:])
    rows = [
        [said(use.name), use.category, BOUNDS[use.bound], count(use.launches), seconds(use.time_s), percent(use.time_s / result.latency_s),
         si(use.flops / use.time_s, "FLOP/s") if use.flops and use.time_s else "",
         si(use.hbm_bytes / use.time_s, "B/s") if use.hbm_bytes and use.time_s else ""]
        for use in shown
    ]  # fmt: skip
    others = (
        f"{len(uses) - len(shown)} other kernels take {seconds(rest_s)}, {percent(rest_s / result.latency_s)}."
        if rest_s
        else ""
    )
    return table(
        ("Kernel", "Category", "Limited by", "Launches", "Time", "Share", "FLOP/s", "HBM bytes/s"), rows, others, text_columns=3,
    )  # fmt: skip


def _attention(result: Result) -> Table:
    rows = []
    for each in result.attention_kernels:
        why = [each.because or "it was asked for and can do it", each.mask]
        rows.append(
            [each.ran, each.asked, count(each.calls), seconds(each.time_s), "; ".join(filter(None, why))]
        )
    return table(
        ("Library that ran", "Asked for", "Calls", "Time", "Why"), rows, text_columns=2, words_last=True
    )


def _configuration(result: Result) -> Table:
    stated = {
        **result.trace.options,
        **result.to_dict(interval=False)["configuration"],
        "timing": result.timing,
    }
    stated["gpus"] = result.several_gpus.degrees if result.several_gpus else 1
    rows = []
    for name, value in stated.items():
        entries = value.items() if isinstance(value, Mapping) else [("", value)]
        rows += [
            [f"{label(name)} {label(str(key))}".strip().capitalize(), text]
            for key, each in entries
            if (text := _text(each))
        ]
    return table(("What", "Is"), rows, text_columns=1, words_last=True)


def _text(value: Any) -> str:
    """A value as words; '' for none."""
    if isinstance(value, Mapping):
        return ", ".join(f"{label(str(key))} {_text(each)}" for key, each in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else said(str(value))


def _made_from(result: Result) -> Table:
    device, _ = split(result.hardware.name)
    numbers = json.dumps(result.hardware.to_dict(), sort_keys=True, default=str)
    rows = [
        ("device's numbers, all", f"sha256 {sha256(numbers.encode()).hexdigest()}"),
        *provenance((), device if device in names() else None),
    ]
    if (known := commit()) is not None:
        rows.append(("commit", known))
    return table(("What", "Which"), [[said(what), which] for what, which in rows], words_last=True)
