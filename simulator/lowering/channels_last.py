"""A model whose weights were brought to channels last: `module.to(memory_format=torch.channels_last)`, as a pass over its trace.

What PyTorch then does of itself, without another line of the model's:

- a two-dimensional convolution makes its result with channels last (its weights say so), whatever its input was;
- elementwise operators and upsampling give on what they get, an operator of two tensors what its first lies like; a concatenation
  does where all that it joins lie so;
- GroupNorm, and what asks for contiguous memory, make row-major results again (native/cuda/group_norm_kernel.cu).

A view of a tensor sees the same elements: its strides follow from where each step of the recorded layout leads in the other.
"""

from __future__ import annotations

from dataclasses import replace

from simtti.simulator.lowering.nodes import PLANAR, with_channels_last
from simtti.workloads.trace import Operator, Phase, Step, TensorUse, Trace

GIVES_ON = ("Elementwise", "Memory")  # categories whose results lie like their inputs
Shape = tuple[int, ...]


def channels_last(trace: Trace) -> Trace:
    """The trace of the same inference with the weights of its two-dimensional convolutions laid channels last."""
    phases = tuple(
        Phase(phase.name, tuple(Step(step.count, _step(step.operators)) for step in phase.steps))
        for phase in trace.phases
    )
    return replace(trace, phases=phases)


def _step(operators: tuple[Operator, ...]) -> tuple[Operator, ...]:
    last: dict[int, Shape] = {}  # storages that lie channels last, with the shape that they were made in
    found = []
    for operator in operators:
        if operator.category == "Convolution":
            last |= {use.tensor: use.shape for use in operator.inputs[1:2] if _is_recorded_planar(use)}
        inputs = tuple(_laid(use, last) for use in operator.inputs)
        if not operator.is_view and _makes_last(operator, inputs):
            last |= {use.tensor: use.shape for use in operator.outputs[:1] if _is_recorded_planar(use)}
        outputs = tuple(_laid(use, last) for use in operator.outputs)
        found.append(replace(operator, inputs=inputs, outputs=outputs))
    return tuple(found)


def _is_recorded_planar(use: TensorUse) -> bool:
    return len(use.shape) == PLANAR and use.contiguous


def _makes_last(operator: Operator, inputs: tuple[TensorUse, ...]) -> bool:
    """Whether an operator's result lies channels last. inputs: what it reads, as it lies now."""
    if operator.category == "Convolution":
        return len(inputs[0].shape) == PLANAR
    asked = operator.attributes.get("memory_format") == "contiguous_format"
    if operator.category not in GIVES_ON or asked or not operator.outputs:
        return False
    planes = [_is_last(use) for use in inputs if len(use.shape) == PLANAR and use.role != "parameter"]
    if operator.op.startswith("aten::cat"):
        return bool(planes) and all(planes)
    return bool(planes) and planes[0]


def _is_last(use: TensorUse) -> bool:
    return use.channels_last and not use.contiguous


def _laid(use: TensorUse, last: dict[int, Shape]) -> TensorUse:
    """A tensor, or a view of one, with the strides that it has now."""
    made = last.get(use.tensor)
    if made is None:
        return use
    if use.shape == made and use.contiguous:
        return with_channels_last(use)
    return replace(use, strides=tuple(_stride(step, made) for step in use.strides))


def _stride(step: int, made: Shape) -> int:
    """Where a step of the row-major layout leads in the other: along samples, channels, rows or columns."""
    _, c, h, w = made
    if step >= c * h * w:
        return step
    if step >= h * w:
        return step // (h * w)
    return step // w * w * c if step >= w else step * c
