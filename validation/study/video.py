"""Experiments 8 and 9: temporal against spatial attention: time, work, bytes, hit rates; frames, sizes, the crossover."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from simtti.pages.document import Section, Table
from simtti.validation.study.accounting import domain_sum
from simtti.validation.study.charts import bars, lines
from simtti.validation.study.experiment import Experiment, Rows, got, shown, slope
from simtti.validation.study.l1.hit_rates import summarised
from simtti.validation.study.plan import Plan
from simtti.validation.study.points import POLICIES, Point, point

# What is counted as attention: its operator's kernels; all of its module; and the copies that turn the video around.
ACCOUNTS = ("kernel", "module", "copies")
DOMAINS = ("spatial", "temporal")


def is_divided(run: dict[str, Any]) -> bool:
    """Whether a run attends over space and over time apart: not an image's, nor one that mostly does both at once."""
    spatial_s, temporal_s, joint_s = (domain_sum(run, name, "kernel") for name in (*DOMAINS, "joint"))
    return spatial_s > 0 and temporal_s > 0 and joint_s <= spatial_s + temporal_s


def comparison(label: str, out: dict[str, Any]) -> Rows:
    """Temporal over spatial attention of one run, cross-attention from either with it: a row a policy, with the times by every account, FLOPs, bytes, and
    the temporal share of both; empty where nothing attends along time, or most does to space and time at once (Phenaki)."""
    rows = []
    for policy in reversed(POLICIES):
        run = out[policy]
        if not is_divided(run):
            continue
        row: dict[str, Any] = {"what": label, "attention": policy}
        for domain in DOMAINS:
            row |= {f"{domain}_{account}_s": domain_sum(run, domain, account) for account in ACCOUNTS}
            row |= {
                f"{domain}_{name}": domain_sum(run, domain, name)
                for name in ("flops", "hbm_bytes", "l2_bytes")
            }
            row[f"{domain}_flops_per_s"] = row[f"{domain}_flops"] / row[f"{domain}_kernel_s"]
        for account in ACCOUNTS:
            spatial, temporal = (row[f"{domain}_{account}_s"] for domain in DOMAINS)
            row[f"{account}_ratio"] = temporal / spatial
            row[f"{account}_share"] = temporal / (temporal + spatial)
        rows.append(row | {"flops_ratio": row["temporal_flops"] / row["spatial_flops"]})
    return rows


def systems(found: Mapping[Point, dict[str, Any]], plan: Plan) -> Rows:
    return [
        row
        for asked, out in got(found, (point("run", workload) for workload in plan.videos))
        for row in comparison(asked.workload, out)
    ]


def assumed(found: Mapping[Point, dict[str, Any]], plan: Plan) -> Rows:
    """Make-A-Video's decoder over the range of what is not published."""
    return [
        row
        for assumption in plan.assumptions
        for _, out in got(found, [assumption.point])
        for row in comparison(assumption.label, out)
    ]


def whole_assumed(found: Mapping[Point, dict[str, Any]], plan: Plan) -> Rows:
    """Make-A-Video's whole inference, 16 frames and the 76 interpolated, by the levels that attend: as assumed, then the others."""
    return [
        row
        for assumption in plan.attending
        for _, out in got(found, [assumption.whole])
        for row in comparison(assumption.label, out)
    ]


def over(found: Mapping[Point, dict[str, Any]], plan: Plan, axis: str) -> Rows:
    """The decoder against 'frames' or 'side': a row a value and policy."""
    make = plan.at_frames if axis == "frames" else plan.at_side
    values = plan.frames if axis == "frames" else plan.sides
    return [
        {axis: value} | row
        for value in values
        for _, out in got(found, [make(value).point])
        for row in comparison(f"{axis} {value}", out)
    ]


def growth(rows: Rows, axis: str) -> Rows:
    """By policy and account: the exponents with which both grow between the two largest values, and where temporal attention
    overtakes spatial: within the values, or beyond by the last two's power law."""
    found = []
    for policy in POLICIES:
        mine = [row for row in rows if row["attention"] == policy]
        for account in (*ACCOUNTS, "flops"):
            names = [f"{domain}_{account}{'' if account == 'flops' else '_s'}" for domain in DOMAINS]
            if len(mine) < 2:
                continue
            ratios = [(row[axis], row[names[1]] / row[names[0]]) for row in mine]
            found.append(
                {
                    "attention": policy, "account": account, "spatial_exponent": slope(mine, axis, names[0]),
                    "temporal_exponent": slope(mine, axis, names[1]),
                    "smallest_ratio": ratios[0][1], "largest_ratio": ratios[-1][1], "crossover": _crossover(ratios),
                }
            )  # fmt: skip
    return found


def _crossover(ratios: list[tuple[int, float]]) -> float | None:
    """Where temporal over spatial passes 1, by power laws between values, and the last two's beyond them."""
    steps = list(pairwise(ratios))
    for at, ((x0, y0), (x1, y1)) in enumerate(steps):
        last = at == len(steps) - 1
        rate = math.log(y1 / y0) / math.log(x1 / x0)
        if y0 < 1 and rate > 0 and (y1 >= 1 or last):
            try:
                return float(x0 * (1 / y0) ** (1 / rate))
            except OverflowError:
                return None
    return None


def classes(found: Mapping[Point, dict[str, Any]], plan: Plan) -> Rows:
    """Hit rates by class of kernel of unfused attention, spatial against temporal. L1's are simulated from addresses; L2's
    follow from what it keeps of each tensor: 1 - bytes of HBM over bytes asked of L2."""
    rows = []
    for where in plan.caches:
        label = where.label
        for _, out in got(found, [where]):
            l2 = _l2_rates(found, where)
            for row in summarised(out["rows"]):
                rows.append({"what": label, **row, "l2_hit_rate": l2.get((row["domain"], row["class"]))})
    return rows


def _l2_rates(found: Mapping[Point, dict[str, Any]], where: Point) -> dict[tuple[str, str], float]:
    kind = "denoiser" if where.workload.endswith("-decoder") else "run"
    out = found.get(Point(kind, where.workload, where.options), {})
    sums: dict[tuple[str, str], list[float]] = {}
    for key, row in out.get("baseline", {}).get("attention", {}).items():
        for name, part in row["classes"].items():
            entry = sums.setdefault((key.partition("/")[2], name), [0.0, 0.0])
            entry[0] += part["hbm_bytes"]
            entry[1] += part["l2_bytes"]
    return {key: max(0.0, 1 - hbm / l2) for key, (hbm, l2) in sums.items() if l2}


def l1_ratios(rows: Rows) -> Rows:
    """Spatial over temporal L1 hit rate of each class; None where neither has hits, infinity where only spatial has."""
    found = []
    rates = {(r["what"], r["class"], r["domain"], r["layout"]): r["l1_hit_rate"] for r in rows}
    for (what, kind, domain, layout), temporal in rates.items():
        spatial = rates.get((what, kind, "spatial", "copied"))
        if domain == "temporal" and spatial is not None:
            ratio = spatial / temporal if temporal else (math.inf if spatial else None)
            found.append(
                {
                    "what": what,
                    "class": kind,
                    "layout": layout,
                    "spatial": spatial,
                    "temporal": temporal,
                    "ratio": ratio,
                }
            )
    return found


_COMPARED = {
    "what": "What", "attention": "Attention kernel", "kernel_ratio": "Kernels", "module_ratio": "Modules",
    "copies_ratio": "Modules and copies", "flops_ratio": "FLOPs", "copies_share": "Temporal share, %",
    "spatial_flops_per_s": "Spatial, FLOP/s", "temporal_flops_per_s": "Temporal, FLOP/s",
    "spatial_hbm_bytes": "Spatial, HBM bytes", "temporal_hbm_bytes": "Temporal, HBM bytes",
}  # fmt: skip
_CAPTION = (
    "Temporal over spatial attention, to text or an image included, counted three ways: the kernels of the attention operator; all of the attention "
    "module; and with the copies that turn the video around for it."
)


def _growth_table(rows: Rows, axis: str) -> Table:
    return shown(
        rows,
        {"attention": "Attention kernel", "account": "Counted by", "spatial_exponent": f"Spatial grows as {axis}^",
         "temporal_exponent": f"Temporal grows as {axis}^", "smallest_ratio": "Ratio at the smallest",
         "largest_ratio": "Ratio at the largest", "crossover": "Temporal overtakes at"},
        "Ratio: temporal over spatial. Beyond the values simulated the crossover follows the last two's power law; "
        "empty: none.",
        text_columns=2,
    )  # fmt: skip


def experiment(found: Mapping[Point, dict[str, Any]], plan: Plan) -> Experiment:
    whole, ranges, levels = systems(found, plan), assumed(found, plan), whole_assumed(found, plan)
    by_frames, by_side = over(found, plan, "frames"), over(found, plan, "side")
    grown = {axis: growth(rows, axis) for axis, rows in (("frames", by_frames), ("side", by_side))}
    hits = classes(found, plan)
    ratios = l1_ratios(hits)
    blocks: list[Any] = [
        shown(whole, _COMPARED, f"Whole inferences. {_CAPTION}", text_columns=2),
        shown(
            ranges,
            _COMPARED,
            "One pass of Make-A-Video's decoder, over what is not published.",
            text_columns=2,
        ),
        shown(
            levels,
            _COMPARED,
            "Make-A-Video's whole inference, decoder and interpolation, by where they attend.",
            text_columns=2,
        ),
    ]
    for axis, rows in (("frames", by_frames), ("side", by_side)):
        series = {}
        for policy in reversed(POLICIES):
            mine = [row for row in rows if row["attention"] == policy]
            for domain in DOMAINS:
                series[f"{domain}, {policy}"] = (
                    [r[axis] for r in mine],
                    [1e3 * r[f"{domain}_copies_s"] for r in mine],
                )
        blocks.append(
            lines(f"study-video-{axis}", series, "frames" if axis == "frames" else "decoder's image side, pixels", "ms a pass",
                  "Attention modules and copies of Make-A-Video's decoder, one pass with guidance.")
        )  # fmt: skip
        blocks.append(_growth_table(grown[axis], axis))
    places = list(dict.fromkeys(row["what"] for row in hits))
    for kind in ("GEMM", "softmax", "elementwise"):
        rate = {
            (r["what"], r["domain"]): r["l1_hit_rate"]
            for r in hits
            if r["class"] == kind and r["layout"] == "copied"
        }
        blocks.append(
            bars(f"study-l1-{kind.lower()}", places,
                 {domain: [100 * rate.get((place, domain), 0.0) for place in places] for domain in DOMAINS},
                 "L1 hit rate, %", f"{kind} kernels of unfused attention.")
        )  # fmt: skip
    blocks.append(
        shown(hits, {"what": "What", "class": "Kernels", "domain": "Attention", "layout": "Operands",
                     "gigabytes": "Asked of L1, GB", "l1_hit_rate": "L1 hits, %", "l2_hit_rate": "L2 hits, %"},
              "Copied: after the copies PyTorch makes. In place: the products read the projections' output, a frame's "
              "H x W x C between two tokens of a sequence.", text_columns=4)
    )  # fmt: skip
    section = Section(
        "Temporal against spatial attention",
        (
            "Attention along time has H x W / F times fewer FLOPs, but as many tokens to project, normalise and copy, tiles "
            "mostly of padding, and a sequence for every pixel.",
            "Why L1 helps it less: tiles of one image's score matrix share rows of Q and columns of K, so CTAs that meet on "
            "an SM find some of their operands there, and softmax over rows longer than 1,024 reads them three times. A "
            "sequence of a few frames is one CTA's or less: nothing is shared and every row is read once. Where its rows are no "
            "whole sectors of 32 bytes, neighbouring rows share one, which counts as a hit.",
        ),
        tuple(blocks),
    )
    return Experiment(
        section,
        {"temporal_systems": whole, "temporal_assumptions": ranges, "temporal_attending": levels, "temporal_frames": by_frames, "temporal_sides": by_side,
         "temporal_growth_frames": grown["frames"], "temporal_growth_sides": grown["side"], "hit_rates": hits, "l1_ratios": ratios},
    )  # fmt: skip
