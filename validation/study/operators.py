"""Experiments 2 and 3: where the time goes, and what Flash Attention gains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simtti.pages.document import Section
from simtti.validation.study.accounting import attention_s
from simtti.validation.study.charts import bars
from simtti.validation.study.experiment import Experiment, Rows, got, shown
from simtti.validation.study.plan import Plan
from simtti.validation.study.points import POLICIES, Point

CATEGORIES = (
    "Attention", "Convolution", "Linear", "GroupNorm", "LayerNorm", "Elementwise", "Memory", "Softmax", "Other",
)  # fmt: skip
ACCOUNTS = ("modules", "operators")


def architecture(plan: Plan, workload: str) -> str:
    for name in ("diffusion", "transformer", "video", "language"):
        if workload in getattr(plan, name):
            return {
                "diffusion": "diffusion TTI",
                "transformer": "transformer TTI",
                "video": "TTV",
                "language": "LLM",
            }[name]
    return "TTV, also"


def shares(found: Mapping[Point, dict[str, Any]], plan: Plan) -> Rows:
    """A row a workload, attention policy, account and category: seconds, share of the kernels' time, share of the
    baseline's kernels' time, and of the latency of an eager run with its waiting for the host."""
    rows = []
    for asked, out in got(found, plan.runs):
        baseline_s = out["baseline"]["kernel_s"]
        for policy in reversed(POLICIES):
            run = out[policy]
            for account in ACCOUNTS:
                for category in CATEGORIES:
                    seconds = run[account].get(category, 0.0)
                    rows.append(
                        {
                            "workload": asked.label, "architecture": architecture(plan, asked.workload),
                            "attention": policy, "account": account, "category": category, "time_s": seconds,
                            "share": seconds / run["kernel_s"], "of_baseline": seconds / baseline_s,
                            "of_eager_latency": seconds / run["latency_s"],
                        }
                    )  # fmt: skip
    return rows


def gains(found: Mapping[Point, dict[str, Any]], plan: Plan) -> Rows:
    """A row a workload: how much faster with Flash Attention, end to end (kernels alone; eager latency) and in attention
    (its operator; its module)."""
    rows = []
    for asked, out in got(found, plan.runs):
        base, flash = out["baseline"], out["flash"]
        rows.append(
            {
                "workload": asked.label,
                "architecture": architecture(plan, asked.workload),
                "baseline_s": base["kernel_s"],
                "flash_s": flash["kernel_s"],
                "end_to_end": base["kernel_s"] / flash["kernel_s"],
                "end_to_end_eager": base["latency_s"] / flash["latency_s"],
                "attention_module": attention_s(base, "module") / attention_s(flash, "module"),
                "attention_kernels": attention_s(base, "kernel") / attention_s(flash, "kernel"),
            }
        )
    return rows


MEASURES = ("end_to_end", "end_to_end_eager", "attention_module", "attention_kernels")


def pairs(rows: Rows, plan: Plan) -> Rows:
    """The gain of each diffusion model over that of each transformer model, of images; the latter at other sizes too, last."""
    by_name = {row["workload"]: row for row in rows}
    others = [asked.label for asked in plan.other_sizes if asked.workload in plan.transformer]
    return [
        {"diffusion": one, "transformer": other}
        | {measure: by_name[one][measure] / by_name[other][measure] for measure in MEASURES}
        for other in (*plan.transformer, *others)
        for one in plan.diffusion
        if one in by_name and other in by_name
    ]


def experiment(found: Mapping[Point, dict[str, Any]], plan: Plan) -> Experiment:
    rows = shares(found, plan)
    speed = gains(found, plan)
    versus = pairs(speed, plan)
    names = [row["workload"] for row in speed]
    blocks = []
    for account in ACCOUNTS:
        mine = [row for row in rows if row["account"] == account]
        places = [f"{name}, {policy}" for name in names for policy in ("baseline", "flash")]
        value = {
            (f"{row['workload']}, {row['attention']}", row["category"]): row["of_baseline"] for row in mine
        }
        blocks.append(
            bars(
                f"study-breakdown-{account}", places,
                {category: [value[place, category] for place in places] for category in CATEGORIES},
                "time over baseline's", f"Kernels' time by {account[:-1]}, over that of the same model with baseline attention.",
                stacked=True,
            )
        )  # fmt: skip
    wide: Rows = []
    for name in names:
        for policy in ("baseline", "flash"):
            for account in ACCOUNTS:
                mine = [
                    r
                    for r in rows
                    if (r["workload"], r["attention"], r["account"]) == (name, policy, account)
                ]
                wide.append(
                    {"workload": name, "attention": policy, "account": account, "total_s": sum(r["time_s"] for r in mine)}
                    | {r["category"]: r["share"] for r in mine}
                )  # fmt: skip
    heads = {"workload": "Model", "attention": "Attention kernel", "account": "By", "total_s": "Kernels, s"}
    section = Section(
        "Where the time goes, and what Flash Attention gains",
        (
            "By module counts all that happens within an attention module as attention, its projections and copies too, as "
            "a profiler with module hooks does; by operator counts each kernel to the operator that launched it.",
        ),
        (
            *blocks,
            shown(wide, {**heads, **{category: f"{category}, %" for category in CATEGORIES[:7]}},
                  "Shares of the kernels' time.", text_columns=3),
            bars("study-gains", names, {measure.replace("_", " "): [row[measure] for row in speed] for measure in MEASURES},
                 "baseline over flash", "How many times faster with Flash Attention."),
            shown(speed, {"workload": "Model", "architecture": "Kind", "baseline_s": "Baseline, s", "flash_s": "Flash, s",
                          "end_to_end": "End to end", "end_to_end_eager": "... with the host's time",
                          "attention_module": "Attention modules", "attention_kernels": "Attention kernels"}, text_columns=2),
            shown(versus, {"diffusion": "Diffusion", "transformer": "Transformer", "end_to_end": "End to end",
                           "end_to_end_eager": "... with the host's time", "attention_module": "Attention modules",
                           "attention_kernels": "Attention kernels"},
                  "The gain of the one over the gain of the other.", text_columns=2),
        ),
    )  # fmt: skip
    return Experiment(section, {"breakdown": rows, "gains": speed, "gain_pairs": versus})
