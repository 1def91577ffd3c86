"""What the file of a device or a host may state: its fields and their types, checked by pydantic.

Files of somebody's own are checked whenever they are read. Those that ship are when the tests run: each is read as it stands then,
which spares every start the import of pydantic.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from simtti.errors import Problems
from simtti.hw_configs.schema import unknown_field

_STRICT = ConfigDict(extra="forbid", frozen=True)


class _Quantity(BaseModel):
    model_config = _STRICT
    value: Annotated[float, Field(strict=True, allow_inf_nan=False)]
    source: Annotated[str, Field(min_length=3)]


class _Parameter(_Quantity):
    status: Literal[
        "fitted", "carried", "estimated", "uncalibrated"
    ]  # the last is how files said 'estimated' once
    interval: tuple[float, float] | None = None  # 95 % confidence, where it was fitted


class _Fit(BaseModel):
    """What `simtti calibrate` leaves beside the parameters it fitted, by family."""

    model_config = _STRICT
    used_rows: int
    train_rows: int
    test_rows: int
    train_mape: float
    test_mape: float
    test_bias: float
    data_sha256: str
    sources: str = ""


class _Device(BaseModel):
    model_config = _STRICT
    # It names files: no separators, no controls, nothing hidden.
    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[\w(][\w ().,+@-]*$")]
    architecture: Annotated[str, Field(min_length=1)]
    matrix_unit: Literal["", "mma_registers", "mma", "wgmma", "tcgen05"] = ""  # hardware.MATRIX_UNITS
    interconnect: Literal["nvswitch", "nvlink", "pcie", "host"] = "nvswitch"  # hardware.INTERCONNECTS
    # How the driver names the product, the usual name first; ties a measured trace to its device.
    reported_as: str | list[str] = ""
    attention_kernel: str  # one of families.shared().attention_kernels
    pytorch: Literal["2.11", "2.6"] = "2.11"  # hardware.PYTORCH
    # Of PyTorch, in which kernels of its libraries differ from those of the calibration: which file of `releases/` has theirs.
    releases: dict[Literal["2.11", "2.6"], str] = {}
    datasheet: dict[str, _Quantity]
    calibration: dict[str, _Parameter]
    fits: dict[str, _Fit] = {}


_COST = Field(default=None, ge=0, le=1)


class _Host(BaseModel):
    """A host in a file: every cost, or those that differ from `base`, which is `speed` times slower in the others."""

    model_config = ConfigDict(extra="forbid")
    name: str | None = None
    base: str | None = None
    speed: float = Field(default=1.0, gt=0, le=1e3)
    module_s: float | None = _COST
    diffusers_module_s: float | None = _COST
    view_s: float | None = _COST
    operator_s: float | None = _COST
    linear_s: float | None = _COST
    normalization_s: float | None = _COST
    attention_s: float | None = _COST
    convolution_s: float | None = _COST
    collective_s: float | None = _COST
    launch_s: float | None = _COST
    integer_weight_s: float | None = _COST
    queue_depth: int | None = Field(default=None, ge=1, le=1 << 20)
    source: str = Field(min_length=3)


def check_device(content: dict[str, Any], problems: Problems) -> None:
    """Hold a device's merged YAML to its fields and their types; `schema` knows their bounds. What is wrong is noted: the field, the
    value given, near field names for a typo."""
    _check(_Device, content, [*_Device.model_fields, *_Parameter.model_fields, "base"], problems)


def check_host(content: Any, problems: Problems) -> None:
    """The same of a host."""
    _check(_Host, content, _Host.model_fields, problems)


def _check(model: type[BaseModel], content: Any, known: Iterable[str], problems: Problems) -> None:
    try:
        model.model_validate(content)
    except ValidationError as error:
        for fault in error.errors():
            field = ".".join(str(part) for part in fault["loc"])
            if fault["type"] == "extra_forbidden":
                text = unknown_field(field, str(fault["loc"][-1]), known)
            elif fault["type"] == "missing":
                text = f"field {field!r} is missing"
            else:
                text = f"field {field!r}: {fault['msg'].lower()}, not {fault['input']!r}"
            problems.note(text, field)
