"""Experiments 6 and 7: convolution and attention against the image's size, and the memory unfused attention takes."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from simtti.pages.document import Section
from simtti.validation.study.charts import lines
from simtti.validation.study.experiment import Experiment, Rows, got, shown, slope
from simtti.validation.study.plan import Plan
from simtti.validation.study.points import POLICIES, Point
from simtti.words import number


def times(found: Mapping[Point, dict[str, Any]], plan: Plan) -> Rows:
    """A row an image side and policy: seconds of one pass of the denoiser in convolution, in attention's kernels and in its
    modules."""
    rows = []
    for asked, out in got(found, (plan.size_point(side) for side in plan.sizes)):
        for policy in reversed(POLICIES):
            phase = out[policy]["phases"][out["main_phase"]]
            steps = phase["steps"]
            rows.append(
                {
                    "side": dict(asked.options)["height"], "attention": policy,
                    "convolution_s": phase["operators"].get("Convolution", 0.0) / steps,
                    "attention_s": phase["operators"].get("Attention", 0.0) / steps,
                    "attention_module_s": phase["modules"].get("Attention", 0.0) / steps,
                    "all_s": phase["kernel_s"] / steps,
                    "peak_memory_bytes": out[policy]["peak_memory_bytes"],
                }
            )  # fmt: skip
    return rows


def crossings(rows: Rows) -> Rows:
    """By policy and account: the side at which attention would overtake convolution (between two sizes, by a power law),
    and which of them takes longer at either end."""
    found = []
    for policy in POLICIES:
        mine = [row for row in rows if row["attention"] == policy]
        for account in ("attention_s", "attention_module_s"):
            if not mine:
                continue
            larger = [
                "attention" if r[account] > r["convolution_s"] else "convolution" for r in (mine[0], mine[-1])
            ]
            found.append(
                {
                    "attention": policy, "account": "kernels" if account == "attention_s" else "modules",
                    "side": _crossing(mine, account), "smallest": larger[0], "largest": larger[1],
                    "convolution_exponent": slope(mine, "side", "convolution_s"),
                    "attention_exponent": slope(mine, "side", account),
                }
            )  # fmt: skip
    return found


def _crossing(rows: Rows, account: str) -> float | None:
    for before, after in pairwise(rows):
        low, high = (row[account] / row["convolution_s"] for row in (before, after))
        if low < 1 <= high:
            import math

            share = -math.log(low) / (math.log(high) - math.log(low))
            return float(before["side"] * (after["side"] / before["side"]) ** share)
    return None


def memory(found: Mapping[Point, dict[str, Any]], plan: Plan) -> Rows:
    """A row an image side: bytes of the score matrices that unfused attention writes in one pass: the largest layer's, all
    layers'; and the peak of the whole inference with either attention."""
    return [
        {
            "side": dict(asked.options)["height"],
            "tokens": out["scaling"]["longest_self_attention"],
            "largest_bytes": out["scaling"]["largest_score_bytes"],
            "all_bytes": out["scaling"]["all_score_bytes"],
            "peak_baseline_bytes": out["baseline"]["peak_memory_bytes"],
            "peak_flash_bytes": out["flash"]["peak_memory_bytes"],
        }
        for asked, out in got(found, (plan.size_point(side) for side in plan.sizes))
    ]


def experiment(found: Mapping[Point, dict[str, Any]], plan: Plan) -> Experiment:
    rows, bytes_rows = times(found, plan), memory(found, plan)
    crossed = crossings(rows)
    series = {}
    for policy in reversed(POLICIES):
        mine = [row for row in rows if row["attention"] == policy]
        sides = [row["side"] for row in mine]
        if policy == "flash":
            series["convolution"] = (sides, [1e3 * row["convolution_s"] for row in mine])
        series[f"attention, {policy}"] = (sides, [1e3 * row["attention_s"] for row in mine])
        series[f"attention modules, {policy}"] = (sides, [1e3 * row["attention_module_s"] for row in mine])
    text = f"The largest layer's score matrix grows with the side to the power of {number(slope(bytes_rows, 'side', 'largest_bytes'))}."
    section = Section(
        "Against the image's size",
        (
            f"{plan.size_workload}, one pass of the UNet with guidance. With baseline attention the score matrices' traffic "
            "overtakes convolution as images grow; with Flash Attention convolution stays the limit up to larger ones. " + text,
        ),
        (
            lines("study-size-times", series, "image side, pixels", "ms a pass", "Kernels' time."),
            shown(crossed, {"attention": "Attention kernel", "account": "Attention counted by", "side": "Overtakes convolution at, pixels",
                            "smallest": "Longer at the smallest", "largest": "Longer at the largest",
                            "convolution_exponent": "Convolution grows as side^", "attention_exponent": "Attention grows as side^"},
                  "Empty: nowhere among these sizes. The exponents are between the two largest.", text_columns=2),
            lines("study-size-memory",
                  {"largest score matrix": ([r["side"] for r in bytes_rows], [r["largest_bytes"] for r in bytes_rows]),
                   "all layers": ([r["side"] for r in bytes_rows], [r["all_bytes"] for r in bytes_rows]),
                   "peak, baseline": ([r["side"] for r in bytes_rows], [r["peak_baseline_bytes"] for r in bytes_rows]),
                   "peak, flash": ([r["side"] for r in bytes_rows], [r["peak_flash_bytes"] for r in bytes_rows])},
                  "image side, pixels", "bytes", "Memory of attention, one pass, and the inference's peak with its weights."),
            shown(bytes_rows, {"side": "Side", "tokens": "Longest", "largest_bytes": "Largest score matrix, bytes",
                               "all_bytes": "All layers, bytes", "peak_baseline_bytes": "Peak, baseline, bytes",
                               "peak_flash_bytes": "Peak, flash, bytes"}),
        ),
    )  # fmt: skip
    return Experiment(section, {"size_times": rows, "size_crossings": crossed, "size_memory": bytes_rows})
