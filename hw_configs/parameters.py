"""What a calibration may fit: every parameter with its bounds and meaning, in groups by kernel library.

A device file's `calibration:` states them as `name` (the device's own) or `group.name`. What no device states comes from
`libraries.yaml`: how a library's kernels behave does not depend much on the device that runs them.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple, get_type_hints


class Bounds(NamedTuple):
    """Physical limits of a parameter, and what it means, with its unit."""

    low: float
    high: float
    meaning: str


class GemmStyle(NamedTuple):
    """What all tiles of one generation of GEMM kernels share."""

    fill_cost: Annotated[
        float, Bounds(0, 4, "bytes of shared-memory bandwidth that one byte written into the ring costs")
    ]
    setup_cycles: Annotated[float, Bounds(100, 3000, "prologue and exit of a CTA")]
    step_cycles: Annotated[
        float, Bounds(0, 200, "barrier and issue at each ring slot, hidden by co-resident CTAs")
    ]
    epilogue_bytes_per_cycle: Annotated[
        float, Bounds(2, 64, "rate at which one CTA empties its accumulators")
    ]
    multicast: Annotated[
        float,
        Bounds(
            0.2,
            1,
            "share of operand bytes that take L2 bandwidth: a cluster's multicast, and CTAs in step that are served once",
        ),
    ]
    read_efficiency: Annotated[
        float, Bounds(0.2, 1, "share of attainable HBM and L2 bandwidth for slices of rows")
    ]
    write_efficiency: Annotated[float, Bounds(0.2, 1, "the same for the output tile's short rows")]
    exposed_fill: Annotated[
        float,
        Bounds(
            0,
            1,
            "of the time to fill a CTA's ring at its share of L2 and HBM, while its SM's tensor cores rest",
        ),
    ]
    chain_cycles: Annotated[
        float,
        Bounds(
            0,
            500,
            "dependent instructions of 32 k of two bytes: barrier, ldmatrix, products; a CTA is no faster than that",
        ),
    ]
    reuse_preference: Annotated[
        float,
        Bounds(
            0,
            3,
            "of the library's choice for tiles with more reuse where CTAs outnumber SMs: a candidate's time counts this "
            "much more for each time that its CTAs read their operands more often than the largest tile's",
        ),
    ]


class AttentionStyle(NamedTuple):
    """How a fused attention library's kernels spend their time."""

    exposed: Annotated[
        float, Bounds(0, 1, "of the shorter of products and softmax, what the longer does not hide")
    ]
    tensor_share: Annotated[float, Bounds(0.3, 1.2, "of the tensor cores' attainable rate between softmaxes")]
    softmax_slots: Annotated[
        float,
        Bounds(0, 12, "FP32 instructions of an element beside its exponential: scale, maximum, sum"),
    ]
    setup_cycles: Annotated[float, Bounds(0, 8000, "prologue of a CTA")]
    row_cycles: Annotated[float, Bounds(0, 50, "and its epilogue, for each row of its queries")]
    step_cycles: Annotated[
        float, Bounds(0, 3000, "barriers and waits at each block of keys, hidden by other CTAs")
    ]
    fill_cost: Annotated[
        float, Bounds(0, 4, "bytes of shared-memory bandwidth that one byte written into it costs")
    ]
    edge_bytes_per_cycle: Annotated[
        float,
        Bounds(
            4, 1e6, "at which a CTA's queries come in and results go out, while its SM's tensor cores rest"
        ),
    ]
    exposed_loads: Annotated[
        float, Bounds(0, 1, "of the time to fetch a CTA's first blocks at its share of HBM")
    ]
    helper_latency_s: Annotated[
        float,
        Bounds(0, 4e-6, "latency of each small kernel launched around it: schedule, semaphores, offsets"),
    ]


class WarpIssue(NamedTuple):
    """How fast warps issue mma.sync between their loads from shared memory, in attention kernels."""

    flops_per_cycle: Annotated[float, Bounds(1000, 2600, "FLOPs a cycle of the warps of two resident CTAs")]
    flops_per_warp_cycle: Annotated[
        float, Bounds(150, 600, "FLOPs a cycle of a warp that has its sub-core for itself")
    ]


class SplitKeys(NamedTuple):
    """What surrounds attention kernels: parts of split keys, repacked operands."""

    partial_bytes_per_cycle: Annotated[
        float, Bounds(2, 64, "at which a CTA writes its FP32 part of split keys, row by row")
    ]
    combine_latency_s: Annotated[
        float, Bounds(0, 5e-6, "latency of the kernel that adds up the parts: three dependent trips")
    ]
    repack_latency_s: Annotated[float, Bounds(0, 3e-6, "latency of the copy of packed queries, keys, values")]


class Collectives(NamedTuple):
    """How torch.distributed's collectives between the GPUs of a server behave."""

    link_efficiency: Annotated[
        float, Bounds(0.03, 0.95, "share of the link's bandwidth that messages of tens of megabytes attain")
    ]
    latency_s: Annotated[
        float, Bounds(1e-6, 1e-4, "what ranks wait for each other before and after the bytes move")
    ]


# group: its fields. The names stand before the dot in a device file.
GROUPS: dict[str, type[tuple[Any, ...]]] = {
    "gemm_mma": GemmStyle,
    "gemm_unaligned": GemmStyle,
    "gemm_wgmma": GemmStyle,
    "flash_2": AttentionStyle,
    "flash_3": AttentionStyle,
    "flash_4": AttentionStyle,
    "trtllm": AttentionStyle,
    "efficient": AttentionStyle,
    "attention_mma": WarpIssue,
    "attention_parts": SplitKeys,
    "collectives": Collectives,
}


def group_bounds() -> dict[str, Bounds]:
    """`group.name` of every parameter in a group, with its bounds."""
    found = {}
    for group, fields in GROUPS.items():
        for name, hint in get_type_hints(fields, include_extras=True).items():
            found[f"{group}.{name}"] = hint.__metadata__[0]
    return found
