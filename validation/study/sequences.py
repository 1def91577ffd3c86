"""Experiments 4 and 5: what attention is like, prefill or decoding, and its sequence lengths over one pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from simtti.pages.document import Section
from simtti.validation.study.charts import lines
from simtti.validation.study.experiment import Experiment, Rows, got, shown
from simtti.validation.study.plan import Plan
from simtti.validation.study.points import Point


def shapes(found: Mapping[Point, dict[str, Any]], plan: Plan) -> Rows:
    """A row a distinct attention of each model's inference: queries, keys, matrices, and which of prefill and decoding it
    is like: decoding has one query."""
    rows = []
    for asked, out in got(found, plan.runs):
        counts = Counter(
            (
                c["phase"],
                c["kind"],
                c["domain"],
                c["q_len"],
                c["kv_len"],
                c["batch"] * c["heads"],
                c["head_dim"],
            )
            for c in out["calls"]
        )
        for (phase, kind, domain, q_len, kv_len, sequences, head_dim), calls in counts.items():
            rows.append(
                {
                    "workload": asked.label, "phase": phase, "kind": kind, "domain": domain, "q_len": q_len,
                    "kv_len": kv_len, "sequences": sequences, "head_dim": head_dim,
                    "scores": f"[{q_len}x{head_dim}]·[{head_dim}x{kv_len}]",
                    "values": f"[{q_len}x{kv_len}]·[{kv_len}x{head_dim}]",
                    "calls": calls, "like": "decode" if q_len == 1 else "prefill",
                }
            )  # fmt: skip
    return rows


def lengths(found: Mapping[Point, dict[str, Any]], plan: Plan) -> dict[str, list[int]]:
    """Tokens of every self-attention of one pass of the main phase, in order, by model; decoding models have one."""
    return {asked.label: of_a_pass(out) for asked, out in got(found, plan.runs)}


def of_a_pass(out: dict[str, Any], phase: str = "") -> list[int]:
    """Tokens of every self-attention but those along time, in one pass of a phase of a run; '' for the main one."""
    own = [c for c in out["calls"] if c["phase"] == (phase or out["main_phase"]) and c["kind"] == "self"]
    return [c["q_len"] for c in own if c["domain"] != "temporal"]


def spread(own: list[int]) -> dict[str, Any]:
    """Of the lengths of a pass: calls, distinct, shortest, longest; neighbours, the largest ratio of one to the next; range,
    the longest over the shortest."""
    steps = [max(a, b) / min(a, b) for a, b in pairwise(own)]
    return {
        "calls": len(own), "distinct": len(set(own)), "shortest": min(own), "longest": max(own),
        "neighbours": max(steps, default=1.0), "range": max(own) / min(own),
    }  # fmt: skip


def variation(found: Mapping[Point, dict[str, Any]], plan: Plan) -> Rows:
    """By model: shortest and longest self-attention of a pass, their ratio, and the largest step between neighbouring
    levels, which differ in length."""
    return [{"workload": workload} | spread(own) for workload, own in lengths(found, plan).items() if own]


def by_size(found: Mapping[Point, dict[str, Any]], plan: Plan) -> Rows:
    """How many self-attentions of one pass have each length, by image side."""
    rows = []
    for asked, out in got(found, (plan.size_point(side) for side in plan.sizes)):
        own = [c["q_len"] for c in out["calls"] if c["phase"] == out["main_phase"] and c["kind"] == "self"]
        side = dict(asked.options)["height"]
        rows += [
            {"side": side, "tokens": tokens, "calls": calls} for tokens, calls in sorted(Counter(own).items())
        ]
    return rows


def experiment(found: Mapping[Point, dict[str, Any]], plan: Plan) -> Experiment:
    rows, varied, sizes = shapes(found, plan), variation(found, plan), by_size(found, plan)
    profiles = {name: (list(range(len(own))), own) for name, own in lengths(found, plan).items() if own}
    passes = [
        {"workload": name, "call": at, "tokens": tokens}
        for name, (places, own) in profiles.items()
        for at, tokens in zip(places, own, strict=True)
    ]
    section = Section(
        "Sequence lengths, prefill and decoding",
        (
            "A step of diffusion attends with all its pixels at once, like the prefill of a language model, but to other "
            "lengths at every level of its UNet; a transformer that writes tokens one by one has one query a step. Models "
            "that unmask tokens in parallel have the shapes of prefill as well.",
        ),
        (
            lines("study-lengths", profiles, "self-attention of one pass, in order", "tokens", "Self-attention, not along time.",
                  log_x=False),
            shown(varied, {"workload": "Model", "calls": "Calls a pass", "distinct": "Lengths", "shortest": "Shortest", "longest": "Longest",
                           "neighbours": "Between neighbours", "range": "Whole range"},
                  "Between neighbours: the largest ratio of one self-attention's length to the next one's."),
            lines("study-length-distribution",
                  {f"{side}x{side}": ([r["tokens"] for r in sizes if r["side"] == side], [r["calls"] for r in sizes if r["side"] == side])
                   for side in plan.sizes},
                  "tokens", "self-attentions a pass", f"{plan.size_workload}: distribution of lengths by image size.",
                  log_y=False, markers_only=True),
            shown(rows, {"workload": "Model", "phase": "Phase", "kind": "Kind", "domain": "Over", "like": "Like",
                         "scores": "Scores", "values": "Values", "q_len": "Queries", "kv_len": "Keys",
                         "sequences": "Batch x heads", "calls": "Calls"}, text_columns=7),
        ),
    )  # fmt: skip
    return Experiment(
        section,
        {
            "attention_shapes": rows,
            "lengths_of_a_pass": passes,
            "length_variation": varied,
            "lengths_by_size": sizes,
        },
    )
