"""Every kernel family: the one list from which `predict`, lowering, measurements, the roofline and the help derive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from simtti.errors import InputError, unknown
from simtti.hw_configs import devices, families, parameters, schema
from simtti.hw_configs.hardware import Hardware
from simtti.simulator.kernel import Kernel
from simtti.simulator.kernels.attention import ATTENTION
from simtti.simulator.kernels.attention_math import MATH_ATTENTION
from simtti.simulator.kernels.communication import ALL_GATHER, ALL_REDUCE, ALL_TO_ALL, REDUCE_SCATTER
from simtti.simulator.kernels.concatenation import CAT
from simtti.simulator.kernels.convolution import CONV2D, CONV3D, TEMPORAL_CONV
from simtti.simulator.kernels.data_movement import COPY, EMBEDDING
from simtti.simulator.kernels.elementwise import BROADCAST, CAST, ELEMENTWISE, GEGLU
from simtti.simulator.kernels.family import (
    MOST_ELEMENTS,
    MOST_FLOPS,
    Cells,
    Family,
    Lower,
    LowerTogether,
    Target,
)
from simtti.simulator.kernels.gemm_family import GEMM
from simtti.simulator.kernels.launches import LAUNCH
from simtti.simulator.kernels.moves import MOVE, PERMUTE
from simtti.simulator.kernels.normalization import GROUP_NORM, LAYER_NORM, RMS_NORM
from simtti.simulator.kernels.quantize import COMPUTE_SCALE, SCALE_MATRIX
from simtti.simulator.kernels.reductions import REDUCTION
from simtti.simulator.kernels.resampling import UPSAMPLE
from simtti.simulator.kernels.reuse import forget
from simtti.simulator.kernels.softmax import SOFTMAX
from simtti.workloads.trace import Operator

# By op, in the order of the help.
FAMILIES: dict[str, Family] = {}
# aten's name, of both forms, -> the lowering.
LOWERINGS: dict[str, Lower] = {}
# Those of them whose kernels follow from few of the device's numbers.
READ_FEW: set[str] = set()
# Those that are lowered side by side.
TOGETHER: dict[str, LowerTogether] = {}


def add(family: Family) -> None:
    """Make a family known everywhere: `predict`, traces, measurements, calibration, validation.

    Raises:
        InputError: another family has its op, lowers one of its operators, or has one of its groups.
    """
    if family.op in FAMILIES:
        raise InputError(f"there is a family {family.op!r} already")
    lowerings = _lowerings(family)
    for name in (*lowerings, *family.groups):
        if name in LOWERINGS or name in parameters.GROUPS:
            raise InputError(f"family {family.op!r}: {name!r} belongs to another family")
    FAMILIES[family.op] = family
    LOWERINGS.update(lowerings)
    if family.reads_few:
        READ_FEW.update(lowerings)
    if family.together:
        TOGETHER.update(dict.fromkeys(lowerings, family.together))
    parameters.GROUPS.update({name: parameters.Group(style) for name, style in family.groups.items()})
    if family.values:
        families.FILES.append(Path(family.values))
    forget()
    if family.groups or family.values:
        for kept in (families.shared, schema.calibration, devices.load, devices.differences):
            kept.cache_clear()


def remove(family: Family) -> None:
    """Forget a family that `add` made known."""
    del FAMILIES[family.op]
    for name in _lowerings(family):
        del LOWERINGS[name]
        READ_FEW.discard(name)
        TOGETHER.pop(name, None)
    for name in family.groups:
        del parameters.GROUPS[name]
    forget()
    if family.values:
        families.FILES.remove(Path(family.values))
    for kept in (families.shared, schema.calibration, devices.load, devices.differences):
        kept.cache_clear()


def _lowerings(family: Family) -> dict[str, Lower]:
    """A family's lowerings by the whole names of its operators, of both forms."""
    lowerings: dict[str, Lower] = {}
    for name, lower in family.aten.items():
        full = name if "::" in name else f"aten::{name}"
        lowerings |= {full: lower, f"{full}_": lower}
    return lowerings


def cells_of(row: Mapping[str, Any]) -> Cells:
    """The cells of a table's row.

    Raises:
        InputError: no such op.
    """
    return _family_of(row).cells(row)


def kernels_of(row: Mapping[str, Any], hardware: Hardware) -> list[Kernel]:
    """The kernels of a table's row.

    Raises:
        InputError: unknown op, missing or unusable cells; the message names each column and its value.
    """
    family = _family_of(row)
    cells = family.cells(row)
    try:
        work = family.work(cells)
    except InputError:
        cells.problems().raise_any()
        raise
    if work.elements > MOST_ELEMENTS or work.flops > MOST_FLOPS:
        raise InputError(
            f"{family.op} of {work.elements:.3g} elements and {work.flops:.3g} FLOPs: more than any device holds or computes"
        )
    return family.kernels(cells, hardware)


def prepare(operators: Sequence[Operator], target: Target) -> None:
    """Tell the families which operators their lowerings will be asked for."""
    for family in FAMILIES.values():
        if family.prepare is not None:
            family.prepare(operators, target)


def baseline_of(row: Mapping[str, Any], hardware: Hardware) -> list[Kernel]:
    """The kernels whose time a table's row has less; none but where it is a difference of two.

    Raises:
        InputError: as `kernels_of`.
    """
    family = _family_of(row)
    return family.baseline(family.cells(row), hardware) if family.baseline else []


def _family_of(row: Mapping[str, Any]) -> Family:
    op = str(row.get("op"))
    found = FAMILIES.get(op) or next((family for family in FAMILIES.values() if op in family.also), None)
    if found is None:
        raise unknown("op", op, FAMILIES)
    return found


for _family in (
    GEMM, ATTENTION, MATH_ATTENTION, CONV2D, CONV3D, TEMPORAL_CONV, GROUP_NORM, LAYER_NORM, RMS_NORM, SOFTMAX, REDUCTION, ELEMENTWISE, CAST, BROADCAST, GEGLU,
    COPY, PERMUTE, MOVE, CAT, SCALE_MATRIX, COMPUTE_SCALE, EMBEDDING, UPSAMPLE, ALL_GATHER, ALL_TO_ALL, REDUCE_SCATTER, ALL_REDUCE, LAUNCH,
):  # fmt: skip
    add(_family)
