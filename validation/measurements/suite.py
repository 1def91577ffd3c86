"""Which single operators to measure, at which shapes, in which order: the `tti` suite.

    cases = suite()
    cases[20].row()      # {'family': 'conv2d', 'op': 'conv2d', 'dtype': 'fp16', 'n': 2, 'c': 320, ...}

A case is a row of a table whose columns are those of `simtti predict`, so that a table of measurements can be
predicted as it stands. Needs no torch: `simtti.validation.measurements.bench.measure` runs the cases.

Shapes are those of text-to-image and text-to-video inference. Within a family come first the shapes that published
models have at their default sizes (`typical`), then a grid around them, in half precision, then part of both in
bf16. Families are dealt out side by side, each in proportion to its worth, so that a run that is cut short has
measured a fair share of everything.

`predict` reads every row. Some ops are there for the suite's sake: temporal_conv (padding in time alone), math_attention
(torch's math backend, which computes halves in fp32), move (copies of permuted tensors of any rank), cast, broadcast (adding a
vector), geglu, launch. It does not read the layout of attention.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache

from simtti.errors import unknown
from simtti.validation.measurements.case import Case, attention_case, conv2d_case, group_norm_case
from simtti.validation.measurements.shapes import FAMILY_CASES

SUITES = ("tti",)
# The families, the most wanted first, and how many cases of each are dealt out in a round.
WORTH = {
    "conv2d": 8.0, "conv3d": 4.0, "temporal_attention": 5.0, "group_norm": 3.0, "layout": 3.0, "spatial_attention": 3.0,
    "gemm": 2.0, "cross_attention": 1.0, "attention_parts": 1.5, "elementwise": 1.5, "activation": 1.0,
    "layer_norm": 1.0, "softmax": 0.5, "cat": 0.5, "upsample": 0.5, "embedding": 0.3, "copy_bandwidth": 1.0,
    "launch": 1.0,
}  # fmt: skip
MAX_BYTES = 3.2e9  # what a case may hold at once: it must run on a GPU of 16 GB
MAX_FLOPS = 4e12  # under 10 ms on an H100, some 20 ms on an A100
_ONE_DTYPE = ("copy_bandwidth", "launch")


def suite(families: Iterable[str] | None = None, name: str = "tti") -> list[Case]:
    """The cases of the suite, or of some of its families, in the order in which to measure them.

    Raises:
        InputError: no such suite or family.
    """
    if name not in SUITES:
        raise unknown("suite", name, SUITES)
    chosen = list(families or WORTH)
    for family in chosen:
        if family not in WORTH:
            raise unknown("family", family, WORTH)
    dealt = _deal({family: family_cases(family) for family in WORTH if family in chosen})
    first: dict[str, Case] = {}
    for case in dealt:  # families overlap: a softmax may be a part of attention too
        first.setdefault(case.id, case)
    return list(first.values())


@cache
def family_cases(family: str) -> tuple[Case, ...]:
    """A family's cases: typical shapes, then the rest and bf16, both in an order that samples them fairly."""
    cases = list(dict.fromkeys(case for case in FAMILY_CASES[family]() if _fits(case)))
    seen: dict[str, Case] = {}
    for case in cases:  # a shape of the grid may be a typical one too
        seen[case.id] = replace(case, typical=case.typical or (case.id in seen and seen[case.id].typical))
    shuffled = sorted(seen.values(), key=lambda case: zlib.crc32(case.id.encode()))
    if family in _ONE_DTYPE:
        return tuple(sorted(shuffled, key=_launches_first))
    typical = [case for case in shuffled if case.typical]
    rest = [case for case in shuffled if not case.typical]
    halves = [case for case in (*typical[::3], *rest[::5]) if case.dtype == "fp16"]
    rest += [replace(case, dtype="bf16", typical=False) for case in halves]
    random.Random(family).shuffle(rest)
    return (*typical, *rest)


def _launches_first(case: Case) -> bool:
    return case.shape != (("function", "nothing"),)


def _fits(case: Case) -> bool:
    return case.nbytes <= MAX_BYTES and case.flops <= MAX_FLOPS


def _deal(by_family: dict[str, tuple[Case, ...]]) -> list[Case]:
    """The launches, one case of each family, then each family's in proportion to its worth, evenly spaced.

    Launches come first because a profiler, once it has run, makes every later call dearer to the host.
    """
    ranked = [
        (index / WORTH[family] if family != "launch" else -1.0, rank, case)
        for rank, (family, cases) in enumerate(by_family.items())
        for index, case in enumerate(cases)
    ]
    return [case for _, _, case in sorted(ranked, key=lambda entry: entry[:2])]


def batches(cases: Sequence[Case], most: int = 16, most_bytes: float = 8e9) -> Iterator[list[Case]]:
    """`cases` in order, in runs of no more than `most` that are in memory together."""
    batch: list[Case] = []
    held = 0.0
    for case in cases:
        if batch and (len(batch) == most or held + case.nbytes > most_bytes):
            yield batch
            batch, held = [], 0.0
        batch.append(case)
        held += case.nbytes
    if batch:
        yield batch


COUNTER_FAMILY = "counters"


def counter_cases() -> list[Case]:
    """The few cases to read hardware counters of: attention over space and over time on the same 16 frames of a UNet's
    level, so as many tokens each, fused and not; then what else a step spends its time on."""
    return [
        *(
            attention
            for backend in ("flash", "baseline")
            for attention in (
                attention_case("spatial", 16, 8, 1024, 1024, 80, backend, "blhd", True),
                attention_case("temporal", 1024, 8, 16, 16, 80, backend, "blhd", True),
                attention_case("spatial", 16, 8, 4096, 4096, 40, backend, "blhd", True),
                attention_case("temporal", 4096, 8, 16, 16, 40, backend, "blhd", True),
            )
        ),
        attention_case("temporal", 1024, 8, 16, 16, 80, "flash", "strided", True),
        conv2d_case(2, 320, 64, 64, 320, 3, 1, "nchw", True),
        conv2d_case(2, 320, 64, 64, 320, 3, 1, "nhwc", True),
        group_norm_case(2, 320, 64, 64, "nchw", True),
        next(case for case in family_cases("layout") if case.text("function") == "space_to_time" and case.typical),
    ]  # fmt: skip
