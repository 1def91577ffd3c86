"""What captures of real inferences say of each finding, in words: measured, and predicted of the same captures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from simtti.validation.study import captured, counters
from simtti.validation.study.captured import MEASURED, PREDICTED, SIDES, Found
from simtti.validation.study.experiment import Rows
from simtti.validation.study.plan import WORKLOAD, Plan
from simtti.words import number, percent
from simtti.workloads.catalogue import find


class Beside(NamedTuple):
    """measured: '' where no capture bears on the finding. predicted: by the simulator, of the same captures."""

    measured: str = ""
    predicted: str = ""


def convolution(found: Found, plan: Plan) -> Beside:
    """Its share in the UNets of images, by module as the finding has it."""
    return _share(_flash(captured.shares(found, plan)), "Convolution", ("modules",), _is_image_unet)


def linear(found: Found, plan: Plan) -> Beside:
    """Its share in transformers that make images, by module and by operator."""
    return _share(
        _flash(captured.shares(found, plan)),
        "Linear",
        ("modules", "operators"),
        lambda name: name in plan.transformer,
    )


def _flash(rows: Rows) -> Rows:
    return [row for row in rows if row["attention"] == "flash"]


def _is_image_unet(workload: str) -> bool:
    made = find(workload)
    return made.task == "text-to-image" and "UNet" in made.architecture


def _share(rows: Rows, category: str, accounts: tuple[str, ...], of: Callable[[str], bool]) -> Beside:
    def words(side: str) -> str:
        return ", ".join(
            f"{row['workload']} {percent(row[side])}"
            + (f" by {row['account'][:-1]}" if len(accounts) > 1 else "")
            for row in rows
            if row["category"] == category and row["account"] in accounts and of(row["model"])
        )

    return Beside(*(words(side) for side in SIDES))


def gain(found: Found, plan: Plan, measure: str) -> Beside:
    """Of torch's math attention over Flash; no transformer of images is captured with both."""
    rows = captured.gains(found, plan)
    texts = [
        ", ".join(f"{row['workload']} {number(row[f'{side}_{measure}'])}" for row in rows) for side in SIDES
    ]
    return (
        Beside(f"over torch's fp32 math attention, not a ratio of two models: {texts[0]}", texts[1])
        if rows
        else Beside()
    )


def lengths(found: Found, plan: Plan) -> Beside:
    """Of the UNets of images; a capture's shapes are not predicted."""
    each = [
        f"{row['workload']} {number(row['neighbours'])}, whole range {number(row['range'])}"
        for row in captured.lengths(found, plan)
        if _is_image_unet(row["model"]) and row["distinct"] > 1
    ]
    return Beside("between neighbours: " + "; ".join(each)) if each else Beside()


def temporal_time(found: Found, plan: Plan, policy: str) -> Beside:
    """By module, with copies, of the whole inference; unfused attention is torch's math attention."""
    return _temporal(found, plan, policy, "ratio", number)


def temporal_share(found: Found, plan: Plan, policy: str) -> Beside:
    return _temporal(found, plan, policy, "share", percent)


def _temporal(found: Found, plan: Plan, policy: str, field: str, form: Callable[[float], str]) -> Beside:
    rows = [
        row for row in captured.temporal(found, plan)
        if row["counted"] == "copies" and (row["attention"] == "flash") == (policy == "flash")
    ]  # fmt: skip
    rows.sort(key=lambda row: row["model"] != WORKLOAD)  # the study's first
    texts = [", ".join(f"{row['workload']} {form(row[f'{side}_{field}'])}" for row in rows) for side in SIDES]
    what = "" if policy == "flash" else "torch's fp32 math attention: "
    return Beside(what + texts[0], texts[1]) if rows else Beside()


def l1(hits: Rows) -> Beside:
    """By the counters of a GPU, which no simulation of that GPU's kernels stands beside."""
    text = counters.words(hits)
    return Beside(f"counters of an H200 (its products load past L1): {text}" if text else "")


def temporal_growth(found: Found, plan: Plan) -> Beside:
    """Of the kernels, as the finding has it."""
    rows = [row for row in captured.growth(found, plan) if row["counted"] in ("kernel", "copies")]

    def words(row: Mapping[str, Any], side: str) -> str:
        exponents = [number(row[f"{side}_{name}_exponent"]) for name in ("temporal", "spatial")]
        return (
            f"{row['workload']}, {row['attention']}, {row['counted']}: frames^{exponents[0]} against spatial's frames^{exponents[1]} "
            f"({row['frames']} frames)"
        )

    return Beside(*("; ".join(words(row, side) for row in rows) for side in (MEASURED, PREDICTED)))
