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
        float, Bounds(0.2, 1, "share of operand bytes asked of L2 after a cluster's multicast")
    ]
    read_efficiency: Annotated[
        float, Bounds(0.2, 1, "share of attainable HBM and L2 bandwidth for slices of rows")
    ]
    write_efficiency: Annotated[float, Bounds(0.2, 1, "the same for the output tile's short rows")]


# group: its fields. The names stand before the dot in a device file.
GROUPS: dict[str, type[tuple[Any, ...]]] = {
    "gemm_mma": GemmStyle,
    "gemm_unaligned": GemmStyle,
    "gemm_wgmma": GemmStyle,
}


def group_bounds() -> dict[str, Bounds]:
    """`group.name` of every parameter in a group, with its bounds."""
    found = {}
    for group, fields in GROUPS.items():
        for name, hint in get_type_hints(fields, include_extras=True).items():
            found[f"{group}.{name}"] = hint.__metadata__[0]
    return found
