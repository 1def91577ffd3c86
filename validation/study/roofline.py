"""Experiment 1: arithmetic intensity and attained FLOP/s of each model's inference, and of its phases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from simtti.hw_configs.hardware import Hardware
from simtti.pages.document import Section
from simtti.validation.study.charts import lines
from simtti.validation.study.experiment import Experiment, Rows, got, shown
from simtti.validation.study.plan import Plan
from simtti.validation.study.points import Point

# Phases below this share of an inference's kernels' time are left out.
_SMALL = 0.02


def placements(found: Mapping[Point, dict[str, Any]], plan: Plan, hardware: Hardware) -> Rows:
    """A row a model and batch, then its phases: FLOPs over HBM bytes, attained FLOP/s, both with Flash Attention, and what
    the roofline allows."""
    asked = [(run, 1) for run in plan.runs]
    asked += [(plan.batch_point(*item), item[1]) for item in plan.batches]
    batch_of = dict(asked)
    return [
        {
            "workload": where._replace(options=_but_batch(where)).label, "batch": batch_of[where], "phase": phase,
            "intensity": part["flops"] / part["hbm_bytes"], "attained_flops": part["flops"] / part["kernel_s"],
            "roofline_flops": min(hardware.peak_flops(), part["flops"] / part["hbm_bytes"] * hardware.hbm_bytes_per_s),
        }
        for where, out in got(found, batch_of)
        for phase, part in _parts(out["flash"])
    ]  # fmt: skip


def _but_batch(where: Point) -> tuple[tuple[str, Any], ...]:
    return tuple((name, value) for name, value in where.options if name != "batch")


def _parts(run: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "all", run
    for name, phase in run["phases"].items():
        if phase["kernel_s"] > _SMALL * run["kernel_s"] and phase["flops"] and phase["hbm_bytes"]:
            yield name, phase


def decode_ratio(rows: Rows, plan: Plan) -> float | None:
    """The largest intensity of a diffusion model's inference over that of the language model's decoding, at batch 1."""
    decode = [
        r["intensity"]
        for r in rows
        if r["workload"] in plan.language and r["phase"] == "decode" and r["batch"] == 1
    ]
    diffusion = [
        r["intensity"]
        for r in rows
        if r["workload"] in plan.diffusion and r["phase"] == "all" and r["batch"] == 1
    ]
    return max(diffusion) / max(decode) if decode and diffusion else None


def experiment(found: Mapping[Point, dict[str, Any]], plan: Plan, hardware: Hardware) -> Experiment:
    rows = placements(found, plan, hardware)
    ridge = hardware.peak_flops() / hardware.hbm_bytes_per_s
    xs = [1.0, ridge, 10 * ridge]
    series: dict[str, Any] = {
        "roofline": (xs, [min(hardware.peak_flops(), x * hardware.hbm_bytes_per_s) for x in xs]),
    }
    for row in rows:
        if row["phase"] == "all" or row["workload"] in plan.language:
            label = f"{row['workload']} {row['phase'] if row['phase'] != 'all' else ''} batch {row['batch']}"
            series[" ".join(label.split())] = ([row["intensity"]], [row["attained_flops"]])
    section = Section(
        "Roofline",
        (
            f"FLOPs over bytes moved to and from device memory, after what L2 keeps. {hardware.name} leaves its memory's "
            f"slope at {ridge:.0f} FLOP a byte (datasheet). Decoding is bound by memory at batch 1 and moves right with "
            "the batch; prefill and the denoising of images stand under the compute roof.",
        ),
        (
            lines("study-roofline", series, "FLOP a byte", "FLOP/s", "Whole inferences and phases of the language model."),
            shown(rows, {"workload": "Model", "phase": "Phase", "batch": "Batch", "intensity": "FLOP a byte",
                         "attained_flops": "FLOP/s", "roofline_flops": "Roofline, FLOP/s"}, text_columns=2),
        ),
    )  # fmt: skip
    return Experiment(section, {"roofline": rows})
