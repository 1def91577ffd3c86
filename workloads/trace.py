"""A trace: what one inference does, operator by operator, as the framework issued it.

A `Trace` holds shapes, never weights. It is a few phases (text encoder, denoising, decoder), each a few
steps; a step that repeats with the same shapes is stored once, with its count. A timed trace has a `Timing` as well:
what the host and the GPU did while it ran. `Trace.save` and `Trace.load` keep it in a Parquet file (`trace_file`).
"""

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

from simtti.errors import InputError

OFFLOAD = "Offload"  # copies of weights between host and device (`workloads.offload`)
CATEGORIES = (
    "Convolution", "Linear", "Attention", "GroupNorm", "LayerNorm", "Softmax", "Elementwise", "Memory",
    "Communication", OFFLOAD, "View", "Other",
)  # fmt: skip
KERNEL_KINDS = ("kernel", "memcpy", "memset")
MOST_STEPS = 1_000_000_000  # a float still counts them
ROLES = ("parameter", "buffer", "input", "activation")
ITEM_BYTES = {
    "fp64": 8, "fp32": 4, "bf16": 2, "fp16": 2, "fp8_e4m3": 1, "fp8_e5m2": 1, "fp8_e8m0": 1, "nvfp4": 1, "complex64": 8, "complex128": 16,
    "int64": 8, "int32": 4, "int16": 2, "int8": 1, "int4": 1, "uint8": 1, "bool": 1,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TensorUse:
    """One operand of an operator.

    `tensor` identifies the *storage*: a view has the identity of what it views, and a weight the same one each
    time it is used. `strides` are in elements; `storage_bytes` is the size of the whole storage. The role
    belongs to the storage too: an 'input' is made outside what was recorded, an 'activation' within it.
    """

    tensor: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str
    storage_bytes: int
    role: str

    @property
    def numel(self) -> int:
        """Elements, counting an expanded one as often as it is seen."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the elements seen: `numel` times the size of one."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]

    @property
    def contiguous(self) -> bool:
        """Whether the elements lie in row-major order without gaps (NCHW for an image)."""
        return _dense_in_order(self.shape, self.strides, range(len(self.shape)))

    @property
    def channels_last(self) -> bool:
        """Whether a 4-D or 5-D tensor lies as N(D)HWC without gaps."""
        rank = len(self.shape)
        return rank in (4, 5) and _dense_in_order(self.shape, self.strides, (0, *range(2, rank), 1))


@dataclass(frozen=True, slots=True)
class Operator:
    """One call into the framework's operator library. `attributes` may be shared: read it, never write it.

    `is_view` operators launch no kernel: views, allocations, and work the host does on its own
    (category 'Other' with attribute device 'cpu'). `released` are the storages that the program let go of before its next
    operator, where that was recorded; of others it is not known how long they are held.
    """

    phase: str
    step: int
    position: int
    module: str
    op: str
    category: str
    inputs: tuple[TensorUse, ...]
    outputs: tuple[TensorUse, ...]
    attributes: dict[str, Any]
    is_view: bool
    released: tuple[int, ...] = ()


_Row = TypeVar("_Row", TensorUse, Operator)


def rows_of(kind: type[_Row], count: int, columns: Iterable[Iterable[Any]]) -> list[_Row]:
    """`count` rows of a kind from a column for each of its fields, in their order: three times as fast as one after another, of which
    a large trace has a hundred thousand."""
    rows = [kind.__new__(kind) for _ in range(count)]
    for item, column in zip(fields(kind), columns, strict=True):
        set_field = getattr(kind, item.name).__set__  # of the slot: the class itself is frozen
        deque(map(set_field, rows, column), maxlen=0)
    return rows


@dataclass(frozen=True, slots=True)
class HostTime:
    """When the host worked on an operator, from its call to its return.

    `waiting_us` of it the thread only waited for the GPU (cudaStreamSynchronize, a copy to pageable memory).
    """

    start_us: float
    duration_us: float
    waiting_us: float = 0.0
    thread: int = 0


@dataclass(frozen=True, slots=True)
class TimedKernel:
    """A kernel, a copy or a fill that the GPU ran. None is what was not measured, or what a copy does not have.

    operator: the row, in the order of `Trace.operators()`, that launched it; None where that is not known.
    launch_us, launch_duration_us: the host's call that launched it. Kernels of one correlation share one call: a
    CUDA graph's. Threads, registers and shared memory are per block (registers per thread); nbytes is a copy's.
    """

    name: str
    start_us: float
    duration_us: float
    operator: int | None = None
    kind: str = "kernel"
    device: int = 0
    stream: int = 0
    correlation: int = 0
    launch_us: float | None = None
    launch_duration_us: float | None = None
    grid: tuple[int, int, int] | None = None
    block: tuple[int, int, int] | None = None
    registers: int | None = None
    shared_memory_bytes: int | None = None
    nbytes: int | None = None

    @property
    def end_us(self) -> float:
        return self.start_us + self.duration_us


@dataclass(frozen=True, slots=True)
class Timing:
    """What was measured while a trace ran. Times are in microseconds on one clock, from the first event on.

    kernels: in order of start. host: one entry an operator, None where it was not seen.
    device: facts of the GPU, by name. end_to_end: times taken without the profiler, where they were.
    """

    kernels: tuple[TimedKernel, ...]
    host: tuple[HostTime | None, ...]
    device: dict[str, Any] = field(default_factory=dict)
    end_to_end: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """Operators in the order they were issued, and how many times in a row they are."""

    count: int
    operators: tuple[Operator, ...]

    @property
    def only_moves_weights(self) -> bool:
        """Whether it is no step of the model's, but the copies before one."""
        return bool(self.operators) and all(one.category == OFFLOAD for one in self.operators)

    @property
    def is_of_the_model(self) -> bool:
        """Whether it is a step of the model's: not only copies of weights, nor a wait for other GPUs."""
        return not self.operators or any(
            one.category not in (OFFLOAD, "Communication") for one in self.operators
        )


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of the inference with a name of its own: 'text_encoder', 'denoising', 'decoder', ..."""

    name: str
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Trace:
    """One inference of a workload.

    `schedule` says which phases the option `steps` stretches, and by how many evaluations each exceeds it: a
    PNDM sampler evaluates its model n + 1 times for n steps, so {"denoising": 1}; for most it is 0.
    `parameters` and `parameter_bytes` count each component's weights as they are before the first phase.
    `timing` is there if the trace was measured.
    """

    workload: str
    options: dict[str, Any]
    phases: tuple[Phase, ...]
    parameters: dict[str, int] = field(default_factory=dict)
    parameter_bytes: dict[str, int] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    schedule: dict[str, int] = field(default_factory=dict)
    timing: Timing | None = None

    @property
    def libraries(self) -> dict[str, str]:
        """By component the library whose classes it is built of ('diffusers', 'transformers', ...); empty where the trace does not
        say."""
        return dict(self.provenance.get("libraries", {}))

    def operators(self) -> Iterator[Operator]:
        """Every stored operator once, whatever its step's count."""
        for phase in self.phases:
            for step in phase.steps:
                yield from step.operators

    def with_steps(self, steps: int, turns: Callable[[int], tuple[int, ...]] | None = None) -> "Trace":
        """The same trace with another number of denoising steps.

        turns: how many of so many evaluations each stored step of the phase has, where it stores several (`Workload.turns`).
        """
        if not isinstance(steps, int) or not 1 <= steps <= MOST_STEPS:
            raise InputError(
                f"steps is {steps!r}; it must be a whole number of at least 1 and at most {MOST_STEPS:,}"
            )
        if self.options.get("strength") is not None:
            raise InputError(
                f"the trace of {self.workload} is of an image to image, which runs a share of the steps; record it anew with --steps"
            )
        if not self.schedule:
            raise InputError(f"the trace of {self.workload} has no phase whose number of steps can be set")
        phases = tuple(
            self._with_count(phase, evaluations(steps, self.schedule[phase.name]), turns)
            if phase.name in self.schedule
            else phase
            for phase in self.phases
        )
        return replace(self, phases=phases, options={**self.options, "steps": steps})

    def _with_count(self, phase: Phase, count: int, turns: Callable[[int], tuple[int, ...]] | None) -> Phase:
        counts = turns(count) if turns is not None else (count,)
        if len(phase.steps) < len(counts) or (turns is None and len(phase.steps) > 1):
            raise InputError(
                f"the trace of {self.workload} stores {len(phase.steps)} steps one by one in phase {phase.name}, "
                "so their number is fixed; record it anew with the number wanted"
            )
        stored = sum(step.count for step in phase.steps)
        if turns is None and stored > evaluations(
            self.options.get("steps", stored), self.schedule[phase.name]
        ):
            raise InputError(
                f"the trace of {self.workload} counts {stored} evaluations in phase {phase.name} for {self.options['steps']} steps; "
                "record it anew with the number wanted"
            )
        steps = (replace(step, count=count) for step, count in zip(phase.steps, counts, strict=False))
        return replace(phase, steps=tuple(steps))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the trace as Parquet; the same trace gives the same bytes. No half-written file is ever seen."""
        from simtti.workloads.trace_file import save  # circle: a verb of a noun that it reads

        save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Trace":
        """Read a trace written by `save`. What is wrong with a file is said in one line.

        Raises:
            InputError: no such file, or none that `save` wrote.
        """
        from simtti.workloads.trace_file import load  # circle: a verb of a noun that it reads

        return load(path)

    def kernels_dataframe(self) -> Any:
        """A pandas table of one row a measured kernel, with the operator that launched it; empty without times."""
        import pandas as pd

        operators = list(self.operators())
        names = [item.name for item in fields(TimedKernel)]
        rows = []
        for kernel in self.timing.kernels if self.timing else ():
            operator = None if kernel.operator is None else operators[kernel.operator]
            row = {name: getattr(kernel, name) for name in names}
            for name in ("phase", "step", "position", "module", "op", "category"):
                row[name] = getattr(operator, name, None)
            rows.append(row)
        columns = [*names, "phase", "step", "position", "module", "op", "category"]
        return pd.DataFrame(rows, columns=columns)

    def to_dataframe(self) -> Any:
        """A pandas table of one row an operator, with shapes spelled out."""
        import pandas as pd

        rows = [
            {
                "phase": operator.phase,
                "step": operator.step,
                "count": step.count,
                "position": operator.position,
                "module": operator.module,
                "op": operator.op,
                "category": operator.category,
                "input_shapes": [use.shape for use in operator.inputs],
                "input_dtypes": [use.dtype for use in operator.inputs],
                "input_tensors": [use.tensor for use in operator.inputs],
                "output_shapes": [use.shape for use in operator.outputs],
                "output_dtypes": [use.dtype for use in operator.outputs],
                "output_tensors": [use.tensor for use in operator.outputs],
                "attributes": operator.attributes,
                "is_view": operator.is_view,
            }
            for phase in self.phases
            for step in phase.steps
            for operator in step.operators
        ]
        return pd.DataFrame(rows)


def evaluations(steps: int, extra: int) -> int:
    """How often a sampler with `extra` evaluations runs its model for `steps` steps; for one step always once."""
    return steps + extra if steps > 1 else 1


def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides, in elements, of a contiguous tensor.

    >>> row_major((2, 3, 4))
    (12, 4, 1)
    """
    strides = [1] * len(shape)
    for dim in range(len(shape) - 2, -1, -1):
        strides[dim] = strides[dim + 1] * max(shape[dim + 1], 1)
    return tuple(strides)


def _dense_in_order(shape: tuple[int, ...], strides: tuple[int, ...], order: Any) -> bool:
    """Whether the dimensions, slowest first in `order`, lie in memory without gaps (PyTorch's rule)."""
    if 0 in shape:
        return True
    expected = 1
    for dim in reversed(order):
        if shape[dim] != 1:
            if strides[dim] != expected:
                return False
            expected *= shape[dim]
    return True
