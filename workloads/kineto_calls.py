"""Operators made of what a profiler saw of calls: name, and of each argument shape, strides and dtype, or the value.

That leaves open what a call returned and which tensor is which: results are given where the operator makes them
certain (`aten_results`), and every operand counts as a tensor of its own. Needs no torch.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from simtti.workloads import aten_results
from simtti.workloads.aten import ATTENTION, AtenOperator, operator
from simtti.workloads.kineto_custom import recognised
from simtti.workloads.operands import problem_of
from simtti.workloads.trace import ITEM_BYTES, Operator, TensorUse, row_major

_DTYPES = {
    "float": "fp32", "double": "fp64", "c10::Half": "fp16", "c10::BFloat16": "bf16",
    "c10::Float8_e4m3fn": "fp8_e4m3", "c10::Float8_e5m2": "fp8_e5m2", "c10::Float8_e8m0fnu": "fp8_e8m0", "c10::Float4_e2m1fn_x2": "nvfp4",
    "c10::complex<float>": "complex64", "c10::complex<double>": "complex128",
    "long int": "int64", "long": "int64", "int": "int32", "short int": "int16", "short": "int16",
    "signed char": "int8", "unsigned char": "uint8", "bool": "bool",
}  # fmt: skip
KINETO_DTYPES = {ours: theirs for theirs, ours in reversed(_DTYPES.items())}
# c10::ScalarType and c10::MemoryFormat, which Kineto writes as numbers.
_SCALAR_TYPES = {
    0: "uint8", 1: "int8", 2: "int16", 3: "int32", 4: "int64", 5: "fp16", 6: "fp32", 7: "fp64",
    9: "complex64", 10: "complex128", 11: "bool", 15: "bf16", 23: "fp8_e5m2", 24: "fp8_e4m3", 44: "fp8_e8m0", 45: "nvfp4",
}  # fmt: skip
# A shape that makes no sense: elements beyond any memory.
_MOST_ELEMENTS = 2**44
_MOST_RANK = 32
_MEMORY_FORMATS = ("contiguous_format", "preserve_format", "channels_last", "channels_last_3d")


@dataclass(slots=True)
class Call:
    """An operator as the host called it: Kineto's name and arguments, which calls share. order: its place in the file."""

    name: str
    start_us: float
    duration_us: float
    thread: int
    module: str
    arguments: dict[str, Any]
    waiting_us: float = 0.0
    backend: str = ""
    row: int = -1
    process: str = ""
    order: int = -1


class OperatorMaker:
    """Turns calls into operators, numbering operands as they come. left_out: what could not be read of them, counted by the
    reason."""

    def __init__(self, calls: list[Call]):
        self.dtypes_assumed = 0
        self.left_out: Counter[str] = Counter()
        self._tensors = 0
        # What operands, and calls with the same arguments, have in common is held once. Calls share their arguments' dictionaries,
        # which stay as long as the calls do: they are known by their identity.
        self._calls = calls
        self._looks: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        self._attributes: dict[tuple[Any, ...], dict[str, Any]] = {}
        found = Counter(
            _DTYPES[name]
            for call in calls
            for name in _listed(call.arguments.get("Input type"))
            if isinstance(name, str) and _DTYPES.get(name) in aten_results.FLOATS
        )
        self._usual_dtype = found.most_common(1)[0][0] if found else "fp32"

    def operator(self, call: Call, position: int, *, launches: bool, on_gpu: bool) -> Operator:
        """The operator of a call. On a trace with kernels, one that launched none and is no view was the host's."""
        known = operator(call.name)
        first = self._tensors
        try:
            positions, has_shapes = self._operands(call), "Input Dims" in call.arguments
        except (LookupError, TypeError, ValueError, OverflowError):
            self.left_out["operators whose shapes cannot be read"] += 1
            positions, has_shapes, self._tensors = [], False, first
        custom = recognised(call.name, positions, call.arguments.get("Concrete Inputs"))
        if custom is not None and (launches or not on_gpu):
            result = (
                custom.output
                if isinstance(custom.output, TensorUse)
                else self._use(*custom.output, "activation")
            )
            return Operator(
                "profile", 0, position, call.module, custom.op, custom.category, custom.inputs, (result,), custom.attributes, False
            )  # fmt: skip
        inputs = tuple(use for _, uses in positions for use in uses)
        in_place = re.fullmatch(r"aten::[^_].*_", call.name) is not None
        category = known.category
        if known.is_view:
            is_view, category = not launches, category if launches else "View"
        else:
            is_view = on_gpu and not launches
            if is_view:
                category = "Other"
        attributes = self._attributes_of(known, call, positions, category == "Other" and is_view, has_shapes)
        outputs: tuple[TensorUse, ...] = ()
        if inputs and (in_place or known.name == "copy"):
            outputs = inputs[:1]
        elif inputs or known.result is aten_results.made:
            # Arguments may not be what the name promises.
            with suppress(LookupError, TypeError, ValueError):
                outputs = self._outputs(known, call, dict(positions), inputs, attributes)
        made = Operator(
            "profile", 0, position, call.module, call.name, category, inputs, outputs, attributes, is_view
        )
        if problem_of(made):
            self.left_out["operators whose operands do not fit their names"] += 1
            return replace(made, outputs=())
        return made

    def _attributes_of(
        self,
        known: AtenOperator,
        call: Call,
        operands: list[tuple[int, list[TensorUse]]],
        on_host: bool,
        has_shapes: bool,
    ) -> dict[str, Any]:
        key = (call.name, id(call.arguments), call.backend, on_host, has_shapes)
        if key not in self._attributes:
            more: dict[str, Any] = {"device": "cpu"} if on_host else {}
            if not has_shapes:
                more["shapes_recorded"] = False
            self._attributes[key] = {**_attributes(known, call, operands), **more}
        return self._attributes[key]

    def _operands(self, call: Call) -> list[tuple[int, list[TensorUse]]]:
        """The tensors among the arguments, by the arguments' positions.

        Raises:
            LookupError, TypeError, ValueError: lists, texts and numbers are not where they should be.
        """
        arguments = call.arguments
        dims, types = arguments.get("Input Dims"), arguments.get("Input type")
        if not dims or not types:
            return []
        if not isinstance(dims, list) or not isinstance(types, list):
            raise TypeError(f"Input Dims {dims!r}")
        strides = _listed(arguments.get("Input Strides"))
        found: list[tuple[int, list[TensorUse]]] = []
        for i, (shape, name) in enumerate(zip(dims, types, strict=False)):
            if not isinstance(name, str):
                raise TypeError(f"Input type {name!r}")
            if name in _DTYPES:
                found.append(
                    (i, [self._use(tuple(shape), strides[i] if i < len(strides) else None, _DTYPES[name])])
                )
            elif name in ("TensorList", "GenericList") and shape and isinstance(shape[0], list):
                # Kineto does not say of what type a list's tensors are.
                dtype = next((uses[0].dtype for _, uses in found), self._usual_dtype)
                self.dtypes_assumed += 1
                laid_out = _listed(strides[i]) if i < len(strides) else []
                if len(laid_out) != len(shape):
                    laid_out = [None] * len(shape)
                uses = [self._use(tuple(item), how, dtype) for item, how in zip(shape, laid_out, strict=True)]
                found.append((i, uses))
        return found

    def _use(self, shape: tuple[int, ...], strides: Any, dtype: str, role: str = "input") -> TensorUse:
        _check_shape(shape)
        laid_out: tuple[int, ...] | None = None
        if isinstance(strides, list | tuple) and len(strides) == len(shape) and _are_whole(strides):
            laid_out = tuple(strides)
        key = shape, laid_out, dtype, role
        if key not in self._looks:
            found = laid_out if laid_out is not None else row_major(shape)
            extent = (
                0 if 0 in shape else 1 + sum((n - 1) * step for n, step in zip(shape, found, strict=True))
            )
            self._looks[key] = shape, found, dtype, extent * ITEM_BYTES[dtype], role
        self._tensors += 1
        return TensorUse(self._tensors - 1, *self._looks[key])

    def _outputs(
        self,
        known: AtenOperator,
        call: Call,
        by_position: aten_results.Operands,
        inputs: tuple[TensorUse, ...],
        attributes: dict[str, Any],
    ) -> tuple[TensorUse, ...]:
        """What an operator made, where its inputs and attributes leave no doubt."""
        # Old versions of Kineto do not record the arguments that are no tensors.
        if known.result is None or not (known.by_shapes or "Concrete Inputs" in call.arguments):
            return ()
        found = known.result(by_position, inputs, attributes)
        return () if found is None else (self._use(*found, "activation"),)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _are_whole(numbers: Any) -> bool:
    return all(type(number) is int and 0 <= number < _MOST_ELEMENTS for number in numbers)


def _check_shape(shape: tuple[int, ...]) -> None:
    """Raises ValueError for what is no tensor's shape."""
    if len(shape) > _MOST_RANK or not _are_whole(shape) or math.prod(shape) > _MOST_ELEMENTS:
        raise ValueError(f"shape {shape}")


def _attributes(
    known: AtenOperator, call: Call, operands: list[tuple[int, list[TensorUse]]]
) -> dict[str, Any]:
    """A call's arguments that are not tensors, named as the recorder names them, where the file has them."""
    given = _listed(call.arguments.get("Concrete Inputs"))
    tensors = {i for i, _ in operands}
    values = {
        i: value for i, text in enumerate(given) if i not in tensors and (value := _parsed(text)) is not None
    }
    if not known.arguments:
        return {"arguments": list(values.values())} if values else {}
    attributes = {name: value for i, value in values.items() if (name := known.argument_at(i))}
    if "dtype" in attributes:
        number = attributes["dtype"]
        attributes["dtype"] = (
            _SCALAR_TYPES.get(number, str(number)) if isinstance(number, int) else str(number)
        )
    number = attributes.get("memory_format")
    if isinstance(number, int) and 0 <= number < len(_MEMORY_FORMATS):
        attributes["memory_format"] = _MEMORY_FORMATS[number]
    if (
        known.name == ATTENTION
        and len(operands) >= 3
        and all(len(uses[0].shape) > 1 and uses[0].numel for _, uses in operands[:3])
    ):
        query, key = operands[0][1][0], operands[1][1][0]
        attributes.setdefault("scale", 1 / math.sqrt(query.shape[-1]))
        attributes.setdefault("causal", False)
        attributes.setdefault("dropout_p", 0.0)
        attributes.setdefault("enable_gqa", False)
        attributes["has_mask"] = 3 in tensors
        attributes["kind"] = "self" if query.shape[-2] == key.shape[-2] else "cross"
        attributes["domain"] = "unknown"
        if call.backend:
            attributes["backend"] = call.backend
    return attributes


def _parsed(text: Any) -> Any:
    """A concrete argument: a number, a truth value, a list of them or a text; None where there is none."""
    return _of_text(text) if isinstance(text, str) and text not in ("", "None") else None


@lru_cache(maxsize=4096)
def _of_text(text: str) -> Any:
    if text in ("True", "False"):
        return text == "True"
    try:
        found = json.loads(re.sub(r"(\d)\.(?!\d)", r"\1.0", text))  # C++ writes 2. for 2.0
        json.dumps(found, allow_nan=False)  # NaN and Infinity, which JSON has no words for, stay text
    except (ValueError, RecursionError):
        return text
    return found
