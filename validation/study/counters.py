"""Hit rates that a GPU's own counters give, of attention over space and over time: Nsight Compute, caches emptied before each."""

from __future__ import annotations

import json
from pathlib import Path

from simtti.validation.study.accounting import FUSED, GEMM, SOFTMAX
from simtti.validation.study.experiment import Rows
from simtti.words import percent

MEASURED = Path(__file__).parents[1] / "measurements" / "measured"


def hit_rates(folder: Path = MEASURED) -> Rows:
    """A row a kernel of the attentions whose counters ship: device, attention (backend), domain, q_len, head_dim, layout of its
    operands, class (accounting's), kernel, time_s, and l1_hit_rate, l2_hit_rate of the sectors asked for there."""
    import pandas as pd

    rows = []
    for path in sorted(folder.glob("*-counters.parquet")):
        table = pd.read_parquet(path)
        for case in table[table.op == "attention"].to_dict("records"):
            for kernel in json.loads(case["kernels"]):
                rows.append(
                    {
                        "device": path.name.removesuffix("-counters.parquet"), "attention": case["backend"], "domain": case["kind"],
                        "q_len": int(case["q_len"]), "head_dim": int(case["head_dim"]), "layout": case["layout"],
                        "class": _class(kernel["name"]), "kernel": kernel["name"], "time_s": kernel["time_ns"] * 1e-9,
                        "l1_hit_rate": kernel["l1_hit_percent"] / 100, "l2_hit_rate": kernel["l2_hit_percent"] / 100,
                    }
                )  # fmt: skip
    return rows


def _class(name: str) -> str:
    """Of a measured kernel of attention, by its name: PyTorch's softmax and fused kernels say so, products are the library's."""
    if "softmax" in name.lower():
        return SOFTMAX
    return FUSED if "flash" in name.lower() else GEMM


def words(rows: Rows) -> str:
    """L1 hits of unfused attention, spatial to temporal, the mean of its kernels: 'GEMM 0.0 % to 0.0 %, softmax ...'; '' where
    none ship."""

    def mean(kind: str, domain: str) -> float:
        rates = [
            row["l1_hit_rate"]
            for row in rows
            if (row["class"], row["domain"], row["attention"]) == (kind, domain, "baseline")
        ]
        return sum(rates) / len(rates)

    if not rows:
        return ""
    return ", ".join(
        f"{kind} {percent(mean(kind, 'spatial'))} to {percent(mean(kind, 'temporal'))}"
        for kind in (GEMM, SOFTMAX)
    )
