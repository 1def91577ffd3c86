"""L1 hit rates of unfused attention, kernel by kernel, from where its operands lie.

The operands are those of the trace: their shapes and strides, after the copies that unfused attention makes. Beside them
stands the case that nothing is copied: the products read queries, keys and values where the projections left them,
temporal attention with a frame's H x W x C between two tokens.

Loads go through L1 here. Kernels that copy into shared memory past L1 (cp.async.cg, CUTLASS's default for 16-byte
loads on Ampere) have no hits in L1 at all, spatial or temporal, and say nothing about either.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from simtti.hw_configs.hardware import Hardware
from simtti.simulator.kernel import Kernel
from simtti.simulator.kernels.elementwise import THREADS
from simtti.simulator.kernels.layout import dense_strides, merge_dimensions
from simtti.simulator.lowering.lower import Lowering
from simtti.simulator.policy import Policy
from simtti.validation.study.accounting import (
    ELEMENTWISE,
    GEMM,
    SOFTMAX,
    kernel_class,
    layout_modules,
)
from simtti.validation.study.l1 import access_pattern as pattern
from simtti.validation.study.l1.access_pattern import OPERAND_GAP, Matrices, Turns
from simtti.validation.study.l1.cache import SECTOR_BYTES, l1_bytes
from simtti.workloads.profile import main_phase
from simtti.workloads.trace import ITEM_BYTES, Operator, TensorUse, Trace

DOMAINS = ("spatial", "temporal")
COPIED, IN_PLACE = "copied", "in place"
# Elements of k a turn of a GEMM's loop: a slot of its ring in cuBLAS's kernels for Ampere (..._stages_32x5).
TURN_K = 32
# SMs simulated, and lookups of each. Which tiles of a product meet on one is chance: many SMs; else they are all alike.
MEETING, ALIKE = (256, 4_000), (2, 16_000)


class Cta(NamedTuple):
    """A kernel's class, what each of its CTAs reads, and of a product how many there are in the batch."""

    kind: str
    reads: Callable[[int], Turns]
    matrices: int = 1


def hit_rates(trace: Trace, hardware: Hardware) -> list[dict[str, Any]]:
    """A row a distinct kernel of self-attention in one pass of the main phase, under unfused attention: domain, q_len,
    kernel, class, layout, calls, lookups (sectors of 32 bytes, of all its CTAs and calls), l1_hit_rate, l1_bytes."""
    lowering = Lowering(hardware, Policy("baseline"))
    phase = main_phase(trace)
    operators = [operator for operator in trace.operators() if operator.phase == phase]
    rows = []
    for operator, calls in _distinct(operators):
        domain = str(operator.attributes["domain"])
        for kernel in lowering.lower(operator).kernels:
            if kernel_class(kernel) == ELEMENTWISE and kernel.reads[0].tensor in (1, 2):
                continue  # keys and values are copied as queries are
            both = domain == "temporal" and kernel_class(kernel) == GEMM
            for layout in (COPIED, IN_PLACE) if both else (COPIED,):
                cta = _attention_cta(operator, kernel, layout == IN_PLACE)
                if cta is not None:
                    rows.append(_row(domain, operator, kernel, cta, layout, calls, hardware))
    rows += _layout_copies(operators, lowering)
    return rows


def _row(
    domain: str, operator: Operator, kernel: Kernel, cta: Cta, layout: str, calls: int, hardware: Hardware
) -> dict[str, Any]:
    sms, sectors = MEETING if cta.kind == GEMM and kernel.grid > cta.matrices else ALIKE
    hits = pattern.l1_hits(kernel, hardware, cta.reads, sample_sms=sms, most_sectors=sectors)
    one = sum(len(turn) for turn in cta.reads(0))
    return {
        "domain": domain,
        "q_len": operator.inputs[0].shape[-2],
        "kernel": kernel.name,
        "class": cta.kind,
        "layout": layout,
        "calls": calls,
        "grid": kernel.grid,
        "lookups": float(one * kernel.grid * calls),
        "read_bytes": kernel.read_bytes * calls,
        "l1_bytes": l1_bytes(kernel, hardware),
        "l1_hit_rate": hits.rate,
    }


def _distinct(operators: list[Operator]) -> list[tuple[Operator, int]]:
    """Self-attention in space or in time, each shape and layout once, with how often it comes."""
    found: dict[Any, Operator] = {}
    calls: Counter[Any] = Counter()
    for operator in operators:
        attributes = operator.attributes
        if (
            operator.category != "Attention"
            or attributes.get("kind") != "self"
            or attributes.get("domain") not in DOMAINS
        ):
            continue
        key = (attributes["domain"], *((use.shape, use.strides) for use in operator.inputs[:3]))
        found.setdefault(key, operator)
        calls[key] += 1
    return [(operator, calls[key]) for key, operator in found.items()]


def _attention_cta(operator: Operator, kernel: Kernel, in_place: bool) -> Cta | None:
    """What the CTAs of one of attention's kernels read; None for kernels without a pattern here (matrix by vector).

    in_place: the products' operands lie where the projections left them.
    """
    query, key, value = operator.inputs[:3]
    item = ITEM_BYTES[query.dtype]
    kind = kernel_class(kernel)
    length, keys = query.shape[-2], key.shape[-2]
    count = query.numel // (length * query.shape[-1])
    if kind == SOFTMAX:
        rows = count * length
        a_cta = -(-rows // kernel.grid)
        # The study's PyTorch is older than the kernel that keeps a row in shared memory (pytorch/pytorch 122970, 2024).
        name = kernel.name.removesuffix("Smem")
        return Cta(kind, lambda cta: pattern.softmax_cta(name, rows, keys, item, a_cta, cta))
    if kind == ELEMENTWISE:
        slot = kernel.reads[0].tensor
        use = operator.inputs[slot] if slot >= 0 else operator.outputs[0]
        lies, made = (use.strides, dense_strides(use.shape))
        source, target = (lies, made) if slot >= 0 else (made, lies)
        return _walk_cta(use.shape, source, target, item, kernel)
    tile = re.search(r"_(?:wmma)?(\d+)x(\d+)", kernel.name)
    if tile is None or "gemv" in kernel.name:
        return None
    q, k, v = (_operand(use, at, operator, in_place) for at, use in enumerate((query, key, value)))
    scores = pattern.matrices((count, length, keys), (length * keys, keys, 1), item, base=4 * OPERAND_GAP)
    a, b = (q, k.transposed) if kernel.name.startswith("scores") else (scores, v)
    block = int(tile[1]), int(tile[2]), TURN_K
    return Cta(kind, lambda cta: pattern.gemm_cta(a, b, block, cta), count)


def _operand(use: TensorUse, at: int, operator: Operator, in_place: bool) -> Matrices:
    """Queries, keys or values as a product reads them: dense by batch and head, or where they are."""
    item, base = ITEM_BYTES[use.dtype], at * OPERAND_GAP
    if not in_place:
        return pattern.matrices(use.shape, dense_strides(use.shape), item, base)
    strides = use.strides
    if operator.attributes["domain"] == "temporal":
        # (b h w) f c was made of (b f) (h w) c: a token (C, or 3 C of packed projections) apart lie the pixels of a
        # frame, and H x W of them apart its frames. (Of a batch of videos, as if it were one with as many pixels.)
        lines, heads, frames, width = use.shape
        pixel = strides[-2]
        return Matrices(
            ((lines, pixel), (heads, strides[-3])), frames, width, lines * pixel, strides[-1], item, base
        )
    return pattern.matrices(use.shape, strides, item, base)


def _walk_cta(
    shape: tuple[int, ...], source: tuple[int, ...], target: tuple[int, ...], item: int, kernel: Kernel
) -> Cta:
    sizes, (_, steps) = merge_dimensions(tuple(shape), (tuple(target), tuple(source)))
    numel = 1
    for size in sizes:
        numel *= size
    elements = max(1, -(-numel // (kernel.grid * THREADS)))
    return Cta(
        ELEMENTWISE,
        lambda cta: pattern.elementwise_cta(sizes[::-1], steps[::-1], item, THREADS, elements, cta),
    )


def _layout_copies(operators: list[Operator], lowering: Lowering) -> list[dict[str, Any]]:
    """The copies that turn a video around for temporal attention."""
    layouts = layout_modules(operators)
    found: dict[Any, tuple[Operator, int]] = {}
    for operator in operators:
        if operator.op == "aten::clone" and operator.module in layouts:
            use = operator.inputs[0]
            first, calls = found.get((use.shape, use.strides), (operator, 0))
            found[use.shape, use.strides] = (first, calls + 1)
    rows = []
    for operator, calls in found.values():
        use, out = operator.inputs[0], operator.outputs[0]
        for kernel in lowering.lower(operator).kernels:
            cta = _walk_cta(use.shape, use.strides, out.strides, ITEM_BYTES[use.dtype], kernel)
            row = _row("temporal", operator, kernel, cta, COPIED, calls, lowering.hardware)
            rows.append({**row, "q_len": 0})
    return rows


def summarised(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By class, domain and layout: sectors looked up, and the share found in L1."""
    sums: dict[tuple[str, str, str], list[float]] = {}
    for row in rows:
        entry = sums.setdefault((row["class"], row["domain"], row["layout"]), [0.0, 0.0])
        entry[0] += row["lookups"]
        entry[1] += row["lookups"] * row["l1_hit_rate"]
    return [
        {
            "class": kind,
            "domain": domain,
            "layout": layout,
            "gigabytes": asked * SECTOR_BYTES / 1e9,
            "l1_hit_rate": hits / asked,
        }
        for (kind, domain, layout), (asked, hits) in sorted(sums.items())
    ]
