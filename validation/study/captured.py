"""Experiment 10: what real inferences say, captured kernel by kernel, and what the simulator predicts of the same ones.

Both sides are accounts of the same operators (`points`, kind 'capture'), so that a difference is one of kernels' times. A capture
holds one pass of every step that differs; a pass stands for its repetitions. Which attention runs along time is what the trace
says: the module it was called in. Its shapes bear that out (one length, the frames, at every level), but cannot replace it:
at a level of 4x4 positions and 16 frames both directions have the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any

from simtti.pages.document import Section, Table, table
from simtti.validation.study import counters
from simtti.validation.study.accounting import attention_s, domain_sum
from simtti.validation.study.charts import bars
from simtti.validation.study.experiment import Experiment, Rows, got, shown
from simtti.validation.study.operators import ACCOUNTS, CATEGORIES
from simtti.validation.study.plan import Plan
from simtti.validation.study.points import Point
from simtti.validation.study.sequences import of_a_pass, spread
from simtti.validation.study.video import ACCOUNTS as COUNTS
from simtti.validation.study.video import is_divided
from simtti.words import number

MEASURED, PREDICTED = SIDES = ("measured", "predicted")
Found = Mapping[Point, dict[str, Any]]


def outcomes(found: Found, plan: Plan) -> Iterator[dict[str, Any]]:
    """Captures that came out, in the order of their names."""
    return (out for _, out in got(found, plan.captured))


def _named(out: dict[str, Any]) -> dict[str, Any]:
    return {
        "device": out["device"],
        "model": out["model"],
        "workload": out["label"],
        "attention": out["attention"],
    }


def shares(found: Found, plan: Plan) -> Rows:
    """A row a capture, account and category: measured_s, predicted_s; measured, predicted, shares of all kernels' time; and
    difference, the latter less the former."""
    rows = []
    for out in outcomes(found, plan):
        for account in ACCOUNTS:
            for category in CATEGORIES:
                row: dict[str, Any] = {**_named(out), "account": account, "category": category}
                for side in SIDES:
                    row[f"{side}_s"] = out[side][account].get(category, 0.0)
                    row[side] = row[f"{side}_s"] / out[side]["kernel_s"]
                rows.append(row | {"difference": row[PREDICTED] - row[MEASURED]})
    return rows


def totals(found: Found, plan: Plan) -> Rows:
    """A row a capture: seconds of its kernels, measured and predicted, their ratio, and the share of the measured ones that no
    operator is known to have launched, which is in neither."""
    return [
        {
            **_named(out), "measured_s": out[MEASURED]["kernel_s"], "predicted_s": out[PREDICTED]["kernel_s"],
            "ratio": out[PREDICTED]["kernel_s"] / out[MEASURED]["kernel_s"], "unattributed": out["unattributed"],
        }
        for out in outcomes(found, plan)
    ]  # fmt: skip


def temporal(found: Found, plan: Plan) -> Rows:
    """A row a capture that attends over space and time apart, and a way of counting attention (video.ACCOUNTS): by side, seconds
    of attention along time, within frames, and from frames to text or an image; ratio, of the first over the second; share, of
    the first in all three; flops_ratio, of the first over the second."""
    rows = []
    for out in outcomes(found, plan):
        if not is_divided(out[MEASURED]):
            continue
        for count in COUNTS:
            row: dict[str, Any] = {**_named(out), "frames": out["options"].get("frames"), "counted": count}
            for side in SIDES:
                seconds = _parts(out[side], count)
                row |= {f"{side}_{name}_s": value for name, value in seconds.items()}
                row[f"{side}_ratio"] = seconds["temporal"] / seconds["spatial"]
                row[f"{side}_share"] = seconds["temporal"] / sum(seconds.values())
            row["share_difference"] = row["predicted_share"] - row["measured_share"]
            work = _parts(out[PREDICTED], "flops")
            rows.append(row | {"flops_ratio": work["temporal"] / work["spatial"]})
    return rows


def _parts(run: dict[str, Any], field: str) -> dict[str, float]:
    """A field of attention along time, within frames, and from frames to text or an image."""
    return {
        "temporal": domain_sum(run, "temporal", field),
        "spatial": domain_sum(run, "spatial", field, "self"),
        "cross": domain_sum(run, "spatial", field, "cross"),
    }


GAINS = ("end_to_end", "attention_module", "attention_kernels", "spatial_kernels", "temporal_kernels")


def gains(found: Found, plan: Plan) -> Rows:
    """A row a capture that is there with Flash Attention and with another kernel: how many times faster with Flash, by side: all
    kernels, attention modules, the attention operator, and that within frames and along time where they are apart; and what is
    predicted over the study's baseline, which was not captured."""
    rows = []
    known = {_same(out, "attention"): out for out in outcomes(found, plan) if out["attention"] == "flash"}
    for out in outcomes(found, plan):
        flash = known.get(_same(out, "attention"))
        if flash is None or out["attention"] == "flash":
            continue
        row: dict[str, Any] = {**_named(out)}
        for side in SIDES:
            before, after = out[side], flash[side]
            row[f"{side}_end_to_end"] = before["kernel_s"] / after["kernel_s"]
            row[f"{side}_attention_module"] = attention_s(before, "module") / attention_s(after, "module")
            row[f"{side}_attention_kernels"] = attention_s(before, "kernel") / attention_s(after, "kernel")
            if is_divided(before):
                first, last = _parts(before, "kernel"), _parts(after, "kernel")
                row |= {
                    f"{side}_{name}_kernels": first[name] / last[name] for name in ("spatial", "temporal")
                }
        baseline, after = flash["baseline"], flash[PREDICTED]
        row["baseline_end_to_end"] = baseline["kernel_s"] / after["kernel_s"]
        row["baseline_attention_module"] = attention_s(baseline, "module") / attention_s(after, "module")
        rows.append(row)
    return rows


def _same(out: dict[str, Any], *but: str) -> str:
    """What two captures have in common that differ in nothing but these."""
    said = {"device": out["device"], "model": out["model"], "attention": out["attention"], **out["options"]}
    return str(sorted((name, value) for name, value in said.items() if name not in but))


def growth(found: Found, plan: Plan) -> Rows:
    """A row two captures that differ in frames only and a way of counting attention: by side, the exponents with which attention
    within frames and along time grow from the fewer to the more, and that of all kernels."""
    alike: dict[str, list[dict[str, Any]]] = {}
    for out in outcomes(found, plan):
        if is_divided(out[MEASURED]):
            alike.setdefault(_same(out, "frames"), []).append(out)
    rows = []
    for group in alike.values():
        for fewer, more in pairwise(sorted(group, key=lambda out: out["options"]["frames"])):
            frames = [out["options"]["frames"] for out in (fewer, more)]
            for count in (*COUNTS, "flops"):
                row: dict[str, Any] = {
                    **_named(fewer),
                    "frames": f"{frames[0]} to {frames[1]}", "counted": count,
                }  # fmt: skip
                for side in SIDES:
                    before, after = (_parts(out[side], count) for out in (fewer, more))
                    for name in ("spatial", "temporal"):
                        row[f"{side}_{name}_exponent"] = math.log(after[name] / before[name]) / math.log(
                            frames[1] / frames[0]
                        )
                rows.append(row)
    return rows


def lengths(found: Found, plan: Plan) -> Rows:
    """A row a captured workload and phase that attends to more than text: the lengths of its self-attentions in a pass, but of
    those along time. main: whether it is the phase with the most FLOPs."""
    rows = {}
    for out in outcomes(found, plan):
        for phase in dict.fromkeys(call["phase"] for call in out["calls"] if call["domain"] != "text"):
            if own := of_a_pass(out, phase):
                known = {name: value for name, value in _named(out).items() if name != "attention"} | {
                    "phase": phase
                }
                rows[out["device"], out["label"], phase] = (
                    known | {"main": phase == out["main_phase"]} | spread(own)
                )
    return list(rows.values())


def _wide(rows: Rows) -> Rows:
    """Shares by capture and account in three rows each: measured, predicted, and their difference."""
    wide: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in rows:
        for what in (MEASURED, PREDICTED, "difference"):
            key = (row["device"], row["workload"], row["attention"], row["account"], what)
            names = ("device", "workload", "attention", "account", "what")
            wide.setdefault(key, dict(zip(names, key, strict=True)))[row["category"]] = row[what]
    return list(wide.values())


def experiment(found: Found, plan: Plan) -> Experiment:
    by_category, along_time, speed = shares(found, plan), temporal(found, plan), gains(found, plan)
    grown, varied, all_kernels = growth(found, plan), lengths(found, plan), totals(found, plan)
    hits = counters.hit_rates() if all_kernels else []
    flash = [row for row in by_category if row["attention"] == "flash" and row["account"] == "operators"]
    devices = sorted({row["device"] for row in all_kernels})

    def place(row: dict[str, Any], side: str) -> str:
        return ", ".join([row["workload"], *([row["device"]] if len(devices) > 1 else []), side])

    value = {(place(row, side), row["category"]): row[side] for row in flash for side in SIDES}
    places = list(dict.fromkeys(where for where, _ in value))
    section = Section(
        f"The same on a real GPU: {', '.join(devices) if devices else 'not run'}",
        (
            "Whole inferences measured kernel by kernel (workloads/traces/measured), and the simulator's prediction of the same "
            "operators on the same device: both at the boost clock, both counted the same way. The device is not the study's "
            "A100; what depends on the balance of compute and memory shifts with it.",
            "Unfused attention is measured as torch's math backend, which computes in fp32 and moves twice the bytes: not the "
            "study's baseline in half precision, which the simulator times beside it.",
        ),
        (
            shown(all_kernels, {"workload": "Model", "device": "GPU", "attention": "Attention kernel", "measured_s": "Measured, s",
                                "predicted_s": "Predicted, s", "ratio": "Predicted over measured", "unattributed": "Of no operator, %"},
                  "Kernels' time of a whole inference. Of no operator: kernels of a pass that are in neither.", text_columns=3),
            bars("study-captured", places, {category: [value[where, category] for where in places] for category in CATEGORIES},
                 "share of kernels' time", "Kernels' time by operator, Flash Attention.", stacked=True),
            shown(_wide(by_category), {"workload": "Model", "attention": "Attention kernel", "account": "By", "what": "",
                                       **{category: f"{category}, %" for category in CATEGORIES[:7]}},
                  "Shares of the kernels' time; the difference, in points, is predicted less measured.", text_columns=4),
            shown(along_time, {"workload": "Model", "attention": "Attention kernel", "counted": "Counted by",
                               "measured_ratio": "Temporal over spatial, measured", "predicted_ratio": "predicted",
                               "measured_share": "Temporal share, measured, %", "predicted_share": "predicted, %",
                               "share_difference": "difference, %", "flops_ratio": "FLOPs"},
                  "Attention along time over self-attention within frames, and its share of the two and of cross-attention from "
                  "frames; copies: modules, and what turns the video around for them.", text_columns=3),
            shown(speed, {"workload": "Model", "attention": "Over",
                          **{f"{side}_{gain}": f"{gain.replace('_', ' ').capitalize()}, {side}" for gain in GAINS for side in SIDES},
                          "baseline_end_to_end": "Over the study's baseline: end to end, predicted",
                          "baseline_attention_module": "attention module, predicted"},
                  "How many times faster with Flash Attention than with the other kernel.", text_columns=2),
            shown(grown, {"workload": "Model", "attention": "Attention kernel", "frames": "Frames", "counted": "Counted by",
                          **{f"{side}_{name}_exponent": f"{name.capitalize()} grows as frames^, {side}"
                             for name in ("spatial", "temporal") for side in SIDES}}, text_columns=4),
            shown(varied, {"workload": "Model", "phase": "Phase", "calls": "Calls a pass", "distinct": "Lengths", "shortest": "Shortest",
                           "longest": "Longest", "neighbours": "Between neighbours", "range": "Whole range"},
                  "Lengths of self-attention in one pass, but along time, as captured.", text_columns=2),
            shown(hits, {"device": "GPU", "attention": "Attention kernel", "domain": "Attention", "layout": "Operands", "class": "Kernels",
                         "q_len": "Tokens", "head_dim": "Channels a head", "l1_hit_rate": "L1 hits, %", "l2_hit_rate": "L2 hits, %"},
                  "By the GPU's counters (Nsight Compute), caches emptied before each: the same 16 frames attended over space and "
                  "over time. Hopper's products copy tiles to shared memory past L1, so they have no hits either way.", text_columns=5),
        ),
    )  # fmt: skip
    return Experiment(
        section,
        {
            "captured_shares": by_category,
            "captured_totals": all_kernels,
            "captured_temporal": along_time,
            "captured_gains": speed,
            "captured_growth": grown,
            "captured_lengths": varied,
            "captured_hit_rates": hits,
        },
    )


def _where(row: dict[str, Any]) -> tuple[str, str]:
    return row["device"], row["workload"]


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def short_tables(figures: Mapping[str, Rows]) -> list[Table]:
    """What matters most of the experiment's figures, measured / predicted, for the terminal; empty where nothing was captured."""

    def both(row: dict[str, Any], field: str, form: Callable[[float], str] = number) -> str:
        return " / ".join(form(row[name]) for name in (f"measured{field}", f"predicted{field}"))

    def rows_of(name: str, **wanted: str) -> Rows:
        return [row for row in figures[name] if all(row[key] == value for key, value in wanted.items())]

    shown_categories = CATEGORIES[:4]
    by_operator = rows_of("captured_shares", attention="flash", account="operators")
    of = {(_where(row), row["category"]): both(row, "", _percent) for row in by_operator}
    passes = {
        _where(row): f"{row['shortest']} to {row['longest']} ({row['distinct']})"
        for row in sorted(figures["captured_lengths"], key=lambda row: (row["main"], row["distinct"]))
    }
    places = list(dict.fromkeys(_where(row) for row in by_operator))
    devices = ", ".join(sorted({device for device, _ in places}))
    tables = [
        table(("Model", *shown_categories, "Tokens (lengths)"),
              [(place[1], *(of[place, category] for category in shown_categories), passes.get(place, "")) for place in places],
              f"Captured on {devices}: shares of kernels' time in %, Flash Attention, measured / predicted; self-attention of a step"),
        table(("Model", "Attention", "Over spatial", "Share, %", "FLOPs"),
              [(row["workload"], row["attention"], both(row, "_ratio"), both(row, "_share", _percent), number(row["flops_ratio"]))
               for row in rows_of("captured_temporal", counted="copies")],
              "Attention along time: modules and copies, over attention within frames, of both and cross-attention", text_columns=2),
        table(("Model", "Over", "All kernels", "Modules", "Attention kernels"),
              [(row["workload"], row["attention"], *(both(row, f"_{gain}") for gain in GAINS[:3])) for row in figures["captured_gains"]],
              "Times faster with Flash Attention than with torch's fp32 math attention, measured / predicted", text_columns=2),
        table(("Model", "Frames", "Temporal, frames^", "Spatial, frames^"),
              [(row["workload"], row["frames"], both(row, "_temporal_exponent"), both(row, "_spatial_exponent"))
               for row in rows_of("captured_growth", counted="kernel")],
              "Growth of attention's kernels, measured / predicted", text_columns=2),
    ]  # fmt: skip
    return [each for each in tables if each.rows]
