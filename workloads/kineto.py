"""Imports Kineto traces: the Chrome JSON that torch.profiler writes, as a timed Trace.

    trace = import_kineto("profile.json.gz")
    summary(trace)["kernel_time_us"]

Operators are kept at the level at which `record` sees them: composite ones (aten::linear, aten::matmul, aten::to)
give way to what they call, and what lies below the rest is part of them; scaled-dot-product attention stays whole.
A kernel belongs to the operator around the host's call that launched it, which Kineto ties to the kernel by a
correlation id. Nothing that the GPU did is dropped: a kernel whose launch lies in no operator is kept without one.

Kineto says what each argument looked like, where shapes were recorded, but neither results nor which tensor is
which: results are given where the operator makes them certain, and every operand counts as a tensor of its own.
Only what is listed here is read from a file. Some carry their writer's environment, secrets included.
"""

from __future__ import annotations

import codecs
import gc
import gzip
import json
import math
import os
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from simtti.errors import InputError
from simtti.workloads.trace import (
    ITEM_BYTES,
    HostTime,
    Operator,
    Phase,
    Step,
    TensorUse,
    TimedKernel,
    Timing,
    Trace,
    row_major,
)

_OPERATOR, _MODULE, _LAUNCH, _KERNEL, _MEMCPY, _MEMSET = "operator", "module", "launch", "kernel", "memcpy", "memset"
# Kineto's categories, those of 2021 too.
_KIND_OF = {
    "cpu_op": _OPERATOR, "Operator": _OPERATOR, "python_function": _MODULE,
    "cuda_runtime": _LAUNCH, "cuda_driver": _LAUNCH, "Runtime": _LAUNCH,
    "kernel": _KERNEL, "Kernel": _KERNEL, "gpu_memcpy": _MEMCPY, "Memcpy": _MEMCPY, "gpu_memset": _MEMSET, "Memset": _MEMSET,
}  # fmt: skip
# Names without 'aten::' and without the '_' of the in-place form. Composite: what torch takes apart into others
# before any backend sees it (CompositeImplicitAutograd), so that a recording holds the others.
_COMPOSITE = frozenset(
    "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d alpha_dropout arctan2 argsort atleast_1d atleast_2d "
    "atleast_3d batch_norm bilinear broadcast_tensors broadcast_to chunk clip column_stack concat concatenate conj "
    "contiguous conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d cosine_similarity cross_entropy_loss diff "
    "divide dropout dsplit dstack einsum embedding_backward embedding_bag expand_as feature_dropout fix flatten fliplr flipud "
    "float_power greater greater_equal grid_sampler group_norm gru hsplit hstack inner instance_norm isfinite item "
    "kron layer_norm less less_equal linear log_sigmoid log_softmax lstm matmul matrix_power max_pool1d max_pool2d max_pool3d "
    "meshgrid moveaxis movedim multiply narrow negative nll_loss nll_loss2d nll_loss_nd not_equal numpy_T one_hot outer pad "
    "pad_sequence pairwise_distance prelu ravel relu6 reshape reshape_as resolve_conj resolve_neg rms_norm selu softmax square "
    "subtract sum_to_size swapaxes swapdims take_along_dim tensor_split tensordot tile to true_divide type_as unflatten "
    "unsafe_chunk view_as vsplit vstack _batch_norm_impl_index _cast_Float _cast_Half _cast_Long _convolution_mode "
    "_pad_circular _pad_enum _weight_norm".split()
)
_ATTENTION = "scaled_dot_product_attention"
# As the recorder sorts them; the rest is what only runs outside an inference recording.
CATEGORY_OF = {
    name: category
    for category, names in {
        "Convolution": "convolution _convolution _slow_conv2d_forward conv_depthwise3d _conv_depthwise2d",
        "Linear": "mm addmm bmm baddbmm addbmm mv addmv dot linear _addmm_activation _scaled_mm _int_mm",
        "Attention": "scaled_dot_product_attention",
        "GroupNorm": "native_group_norm",
        "LayerNorm": "native_layer_norm _fused_rms_norm rms_norm",
        "Softmax": "_softmax _log_softmax _safe_softmax",
        "Elementwise": "randn rand randint normal uniform bernoulli native_dropout "
        "abs add addcdiv addcmul atan2 bitwise_and bitwise_not bitwise_or bitwise_xor ceil clamp clamp_max clamp_min "
        "cos cosh div elu eq erf exp exp2 expm1 floor fmod gelu gelu_backward ge gt hardsigmoid hardswish "
        "hardtanh isinf isnan le leaky_relu lerp log log10 log1p log2 logical_and logical_not logical_or lt maximum "
        "minimum mish mul nan_to_num ne neg pow reciprocal relu remainder round rsqrt rsub sgn sigmoid "
        "sigmoid_backward sign silu silu_backward sin sinh softplus sqrt sub tan tanh tanh_backward "
        "threshold threshold_backward trunc where xlogy isneginf isposinf fmax fmin",
        "Memory": "clone copy _to_copy cat stack repeat constant_pad_nd reflection_pad2d replication_pad2d "
        "replication_pad3d upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact2d "
        "upsample_bilinear2d upsample_bicubic2d pixel_shuffle pixel_unshuffle index index_select index_put gather "
        "scatter embedding masked_fill roll flip arange zeros ones full zeros_like ones_like full_like zero fill "
        "new_zeros new_ones new_full scalar_tensor eye linspace tril triu slice_scatter select_scatter "
        "_local_scalar_dense _index_put_impl",
    }.items()
    for name in names.split()
}  # fmt: skip
_COMPARISONS = frozenset(
    "eq ne lt le gt ge logical_and logical_or logical_not isnan isinf isneginf isposinf".split()
)
_ELEMENTWISE = frozenset(name for name, category in CATEGORY_OF.items() if category == "Elementwise") - {
    "randn", "rand", "randint", "normal", "uniform", "bernoulli", "native_dropout", "where",
}  # fmt: skip
_VIEWS = frozenset(
    "view _unsafe_view _reshape_alias t transpose permute numpy_T as_strided slice select expand unsqueeze squeeze split "
    "split_with_sizes unbind detach alias view_as_real view_as_complex diagonal unfold lift_fresh _conj real imag "
    "empty empty_like empty_strided empty_permuted new_empty new_empty_strided resize set _unsafe_split".split()
)
# The names of arguments that change the work, by position; '' for those that do not.
_ARGUMENTS = {
    name: tuple(argument.strip("-") for argument in arguments.split())
    for name, arguments in {
        "convolution": "input weight bias stride padding dilation transposed output_padding groups",
        "_convolution": "input weight bias stride padding dilation transposed output_padding groups",
        "native_group_norm": "input weight bias N C HxW num_groups eps",
        "native_layer_norm": "input normalized_shape weight bias eps",
        "_softmax": "self dim half_to_float",
        "_log_softmax": "self dim half_to_float",
        "_safe_softmax": "self dim dtype",
        "addmm": "self mat1 mat2 beta alpha",
        "baddbmm": "self batch1 batch2 beta alpha",
        "cat": "tensors dim",
        "stack": "tensors dim",
        "_to_copy": "self dtype - - - - memory_format",
        "clone": "self memory_format",
        "copy": "self src -",
        "gelu": "self approximate",
        "embedding": "weight indices padding_idx scale_grad_by_freq sparse",
        "mean": "self dim keepdim dtype",
        "sum": "self dim keepdim dtype",
        "amax": "self dim keepdim",
        "amin": "self dim keepdim",
        _ATTENTION: "query key value attn_mask dropout_p causal scale enable_gqa",
        "upsample_nearest2d": "self output_size scales",
        "constant_pad_nd": "self pad value",
        "pow": "self exponent",
        "add": "self other alpha",
        "sub": "self other alpha",
        "rsub": "self other alpha",
        "mul": "self other",
        "div": "self other rounding_mode",
        "clamp": "self min max",
        "view": "self size",
        "_unsafe_view": "self size",
        "expand": "self size implicit",
        "transpose": "self dim0 dim1",
        "permute": "self dims",
        "unsqueeze": "self dim",
        "squeeze": "self dim",
        "slice": "self dim start end step",
        "select": "self dim index",
        "split": "self split_size dim",
        "split_with_sizes": "self split_sizes dim",
        "index_select": "self dim index",
        "zeros": "size dtype - - -",
        "ones": "size dtype - - -",
        "full": "size fill_value dtype - - -",
        "empty": "size dtype - - - memory_format",
        "max_pool2d_with_indices": "self kernel_size stride padding dilation ceil_mode",
    }.items()
}
_DTYPES = {
    "float": "fp32", "double": "fp64", "c10::Half": "fp16", "c10::BFloat16": "bf16",
    "c10::Float8_e4m3fn": "fp8_e4m3", "c10::Float8_e5m2": "fp8_e5m2",
    "c10::complex<float>": "complex64", "c10::complex<double>": "complex128",
    "long int": "int64", "long": "int64", "int": "int32", "short int": "int16", "short": "int16",
    "signed char": "int8", "unsigned char": "uint8", "bool": "bool",
}  # fmt: skip
KINETO_DTYPES = {ours: theirs for theirs, ours in reversed(_DTYPES.items())}
# Facts of a GPU: simtti's names and Kineto's.
DEVICE_FACTS = {
    "name": "name", "sm_count": "numSms", "memory_bytes": "totalGlobalMem", "compute_major": "computeMajor",
    "compute_minor": "computeMinor", "registers_per_sm": "regsPerMultiprocessor",
    "shared_memory_per_sm_bytes": "sharedMemPerMultiprocessor", "threads_per_sm": "maxThreadsPerMultiprocessor",
}  # fmt: skip
# c10::ScalarType and c10::MemoryFormat, which Kineto writes as numbers.
_SCALAR_TYPES = {
    0: "uint8", 1: "int8", 2: "int16", 3: "int32", 4: "int64", 5: "fp16", 6: "fp32", 7: "fp64",
    9: "complex64", 10: "complex128", 11: "bool", 15: "bf16", 23: "fp8_e5m2", 24: "fp8_e4m3",
}  # fmt: skip
_MEMORY_FORMATS = ("contiguous_format", "preserve_format", "channels_last", "channels_last_3d")
_FLOATS = ("fp64", "fp32", "bf16", "fp16")  # what type promotion prefers, widest first
_WAITS = re.compile(r"(cuda|hip|cu)(Stream|Device|Event|Ctx)Synchronize")
_BACKENDS = {
    "_scaled_dot_product_flash_attention": "flash", "_scaled_dot_product_efficient_attention": "efficient",
    "_scaled_dot_product_cudnn_attention": "cudnn", "_scaled_dot_product_attention_math": "math",
    "_scaled_dot_product_flash_attention_for_cpu": "flash", "_scaled_dot_product_fused_attention_overrideable": "fused",
}  # fmt: skip
_VERSIONS = ("cuda_runtime_version", "cuda_driver_version", "cupti_version", "hip_runtime_version", "hip_driver_version")


def import_kineto(path: str | os.PathLike[str]) -> Trace:
    """The timed trace in a file written by torch.profiler: JSON, gzipped or not.

    The trace has one phase, 'profile', of one step. Raises InputError if the file is no such thing.
    """
    with _no_garbage_collection():
        return _import(path)


def _import(path: str | os.PathLike[str]) -> Trace:
    profile = read_kineto(path)
    name = Path(path).name.removesuffix(".gz").removesuffix(".json").removesuffix(".pt.trace")
    kernels = [kernel for kernel in profile.kernels if kernel.kind == "kernel"]
    on_gpu = bool(profile.kernels)
    launchers = {kernel.operator for kernel in profile.kernels}
    maker = _OperatorMaker(profile.calls)
    operators = tuple(
        maker.operator(call, position, launches=position in launchers, on_gpu=on_gpu)
        for position, call in enumerate(profile.calls)
    )
    host = tuple(HostTime(call.start_us, call.duration_us, call.waiting_us, call.thread) for call in profile.calls)
    devices = Counter(kernel.device for kernel in kernels or profile.kernels)
    provenance = {
        "kind": "imported",
        "format": "kineto",
        "file": Path(path).name,
        "tensor_identities": "unknown: every operand counts as a tensor of its own",
        "dtypes_assumed": maker.dtypes_assumed,
        **{key: profile.header[key] for key in _VERSIONS if isinstance(profile.header.get(key), int)},
    }
    return Trace(
        workload=name,
        options={},
        phases=(Phase("profile", (Step(1, operators),)),),
        provenance=provenance,
        timing=Timing(profile.kernels, host, profile.device(devices.most_common(1)[0][0] if devices else 0)),
    )


def summary(trace: Trace) -> dict[str, Any]:
    """What a timed trace holds, in numbers.

    Kernels are kernels; copies and fills are copies. A kernel is 'with shapes' if its operator's arguments were
    recorded, and 'with tensors' if there are tensors among them: arange() has none, and of a list of tensors
    older versions of Kineto recorded none.
    """
    if trace.timing is None:
        raise InputError(f"the trace of {trace.workload} has no times: it was recorded, not measured")
    operators = list(trace.operators())
    kernels = [kernel for kernel in trace.timing.kernels if kernel.kind == "kernel"]
    copies = [kernel for kernel in trace.timing.kernels if kernel.kind != "kernel"]
    shaped = [k for k in kernels if k.operator is not None and has_shapes(operators[k.operator])]
    by_category: dict[str, float] = defaultdict(float)
    for kernel in kernels:
        by_category["none" if kernel.operator is None else operators[kernel.operator].category] += kernel.duration_us
    working = [operator for operator in operators if not operator.is_view]
    busy, span = busy_us(trace.timing.kernels)
    return {
        "workload": trace.workload,
        "device": trace.timing.device.get("name"),
        "operators": len(operators),
        "operators_with_kernels": len({k.operator for k in trace.timing.kernels if k.operator is not None}),
        "operators_without_shapes": sum(not has_shapes(operator) for operator in working),
        "operators_without_outputs": sum(not operator.outputs for operator in working),
        "kernels": len(kernels),
        "kernel_time_us": math.fsum(kernel.duration_us for kernel in kernels),
        "kernels_with_shapes": len(shaped),
        "kernel_time_with_shapes_us": math.fsum(kernel.duration_us for kernel in shaped),
        "kernels_with_tensors": sum(k.operator is not None and bool(operators[k.operator].inputs) for k in kernels),
        "kernels_without_operator": sum(kernel.operator is None for kernel in kernels),
        "copies": len(copies),
        "copy_time_us": math.fsum(kernel.duration_us for kernel in copies),
        "gpu_span_us": span,
        "gpu_busy_us": busy,
        "gpu_idle_us": span - busy,
        "streams": len({(kernel.device, kernel.stream) for kernel in trace.timing.kernels}),
        "kernel_time_by_category_us": dict(sorted(by_category.items(), key=lambda item: -item[1])),
    }


def has_shapes(operator: Operator) -> bool:
    """Whether what the operator worked on is known."""
    return operator.attributes.get("shapes_recorded", True) is not False


def busy_us(kernels: tuple[TimedKernel, ...]) -> tuple[float, float]:
    """How long any kernel or copy ran, counting overlapping ones once, and from the first start to the last end."""
    busy, end, first = 0.0, -math.inf, math.inf
    for kernel in sorted(kernels, key=lambda kernel: kernel.start_us):
        first = min(first, kernel.start_us)
        busy += max(kernel.end_us - max(kernel.start_us, end), 0.0)
        end = max(end, kernel.end_us)
    return busy, end - first if kernels else 0.0


# ---- the file


@dataclass(slots=True)
class Call:
    """An operator as the host called it: Kineto's name and arguments."""

    name: str
    start_us: float
    duration_us: float
    thread: int
    module: str
    arguments: dict[str, Any]
    waiting_us: float = 0.0
    backend: str = ""
    row: int = -1


@dataclass(slots=True)
class Profile:
    """A Kineto file: the operators that count, in order of time, and everything the GPU ran."""

    header: dict[str, Any]
    calls: list[Call]
    kernels: tuple[TimedKernel, ...]
    base_us: float

    def device(self, number: int) -> dict[str, Any]:
        """Facts of a GPU, under simtti's names."""
        listed = self.header.get("deviceProperties")
        devices = [facts for facts in listed if isinstance(facts, dict)] if isinstance(listed, list) else []
        for facts in devices:
            # A file of one process may number its only GPU as the machine does.
            if facts.get("id") == number or len(devices) == 1:
                return {ours: facts[theirs] for ours, theirs in DEVICE_FACTS.items() if isinstance(facts.get(theirs), (str, int))}
        return {}


def read_kineto(path: str | os.PathLike[str]) -> Profile:
    """Operators and kernels of a file, tied to each other. Times count from its first event."""
    path = Path(path)
    reader = _Reader(path)
    try:
        events = reader.events()
    except _Malformed as error:
        raise InputError(f"{path} {error}") from None
    try:
        return _profile(path, reader.header, events)
    except KeyError as error:
        raise InputError(f"{path}: an event of torch.profiler's lacks the field {error.args[0]!r}") from None
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: an event of torch.profiler's has a field of the wrong type: {reason}") from None


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Half the time of an import would go into looking for cycles among a million new objects that have none."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Malformed(Exception):
    """What is wrong with a file, to follow its name."""


class _Reader:
    """Reads a Kineto file event by event, so that only the events that matter are ever held."""

    def __init__(self, path: Path):
        self.path = path
        self.header: dict[str, Any] = {}
        self._scan = json.JSONDecoder(strict=False).scan_once
        self._space = re.compile(r"[ \t\n\r]*").match
        self._between = re.compile(r"[ \t\n\r]*,?[ \t\n\r]*").match
        self._text, self._at, self._done, self._chunk = "", 0, False, 1 << 20
        self._file: BinaryIO | None = None
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def events(self) -> list[tuple[str, dict[str, Any]]]:
        """The events that matter, each with its kind, in the file's order. The file's other fields go to `header`."""
        if self.path.is_dir():
            raise _Malformed("is a folder, not a Kineto trace")
        try:
            with self.path.open("rb") as raw:
                packed = raw.read(2) == b"\x1f\x8b"
                raw.seek(0)
                self._file = gzip.GzipFile(fileobj=raw) if packed else raw
                return self._object()
        except FileNotFoundError:
            raise _Malformed("does not exist") from None
        except EOFError:
            raise _Malformed("is truncated: its gzip data end too early") from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise _Malformed(f"is damaged: its gzip data cannot be unpacked ({error})") from None
        except OSError as error:
            raise _Malformed(f"cannot be read: {error.strerror or error}") from None
        except RecursionError:
            raise _Malformed("is not a Kineto trace: its JSON is nested too deeply") from None

    def _more(self) -> None:
        assert self._file is not None
        data = self._file.read(self._chunk)
        self._done = not data
        self._text = self._text[self._at :] + self._utf8.decode(data, final=self._done)
        self._at = 0

    def _value(self) -> Any:
        """The JSON value at the current place."""
        grown = 0
        while True:
            self._at = self._space(self._text, self._at).end()  # type: ignore[union-attr]
            try:
                value, end = self._scan(self._text, self._at)
                if end < len(self._text) or self._done:  # else a number might go on
                    self._at, self._chunk = end, 1 << 20
                    return value
            except (StopIteration, json.JSONDecodeError) as error:
                where = error.pos if isinstance(error, json.JSONDecodeError) else self._at
                # An error well before the end of what was read will not go away by reading on.
                if self._done or (grown and where + (1 << 16) < len(self._text)) or self._foreign():
                    self._stop()
            self._more()
            grown += 1
            self._chunk = min(self._chunk * 2, 1 << 26)

    def _foreign(self) -> bool:
        """Whether what stands here cannot begin a JSON value."""
        return self._at < len(self._text) and self._text[self._at] not in '{["-0123456789tfnNI'

    def _stop(self) -> None:
        if self._done:
            raise _Malformed("is truncated: its JSON ends in the middle")
        raise _Malformed("is damaged: its JSON cannot be read beyond " + repr(self._text[self._at : self._at + 40]))

    def _next(self) -> str:
        """The next character that is no space, or '' at the end."""
        while True:
            self._at = self._space(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text):
                return self._text[self._at]
            if self._done:
                return ""
            self._more()

    def _object(self) -> list[tuple[str, dict[str, Any]]]:
        found: list[tuple[str, dict[str, Any]]] | None = None
        first = self._next()
        if not first:
            raise _Malformed("is empty")
        if first != "{":
            raise _Malformed("is not a Kineto trace: it does not hold a JSON object")
        self._at += 1
        while (character := self._next()) != "}":
            if character == ",":
                self._at += 1
                continue
            if character not in ('"', ""):
                self._stop()
            key = self._value()
            if self._next() != ":":
                self._stop()
            self._at += 1
            if key != "traceEvents":
                self.header[key] = self._value()
                continue
            if self._next() != "[":
                raise _Malformed("is not a Kineto trace: its traceEvents are not a list")
            self._at += 1
            found = list(self._listed())
        if found is None:
            raise _Malformed("is not a Kineto trace: it has no traceEvents")
        if not found:
            raise _Malformed("holds no operators and no kernels: it is not a trace of torch.profiler")
        return found

    def _listed(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The events of the list at the current place that matter, and the place after the list."""
        scan, between, kind_of = self._scan, self._between, _KIND_OF
        while True:
            text, at = self._text, self._at
            # The loop that runs once an event: everything rare is left to _value().
            with suppress(StopIteration, json.JSONDecodeError):
                while True:
                    at = between(text, at).end()  # type: ignore[union-attr]
                    event, end = scan(text, at)
                    if type(event) is not dict:
                        break
                    at = end
                    kind = kind_of.get(event.get("cat"))  # type: ignore[arg-type]
                    if kind and event.get("ph") == "X" and (kind != _MODULE or event["name"].startswith("nn.Module: ")):
                        yield kind, event
            self._at = at
            if self._next() == "]":
                self._at += 1
                return
            if self._next() == ",":
                self._at += 1
                continue
            event = self._value()
            if not isinstance(event, dict):
                raise _Malformed("is not a Kineto trace: its traceEvents are not objects")
            kind = kind_of.get(event.get("cat"))
            if kind and event.get("ph") == "X" and kind != _MODULE:
                yield kind, event


# ---- operators and their kernels


@dataclass(slots=True)
class _Frame:
    """What the host is inside of: an operator, or a module."""

    end: float
    kind: str
    module: str
    owner: Call | None  # the operator that counts
    call: Call | None  # the innermost operator, counting or not


@dataclass(slots=True)
class _Launch:
    call: Call | None
    start: float
    duration: float


@dataclass(slots=True)
class _Nesting:
    """Which operators count, and where each launch lies."""

    kept: list[Call] = field(default_factory=list)
    launches: dict[int, _Launch] = field(default_factory=dict)
    by_external_id: dict[int, Call] = field(default_factory=dict)
    order: dict[int, int] = field(default_factory=dict)


def _profile(path: Path, header: dict[str, Any], events: list[tuple[str, dict[str, Any]]]) -> Profile:
    base = min(float(event["ts"]) for _, event in events)
    nesting = _Nesting()
    threads: dict[tuple[str, str], list[tuple[float, float, int, str, dict[str, Any]]]] = defaultdict(list)
    on_gpu = []
    for order, (kind, event) in enumerate(events):
        start, duration = float(event["ts"]), float(event["dur"])
        if not (math.isfinite(start) and math.isfinite(duration) and duration >= 0):
            raise ValueError(f"ts {event['ts']!r}, dur {event['dur']!r}")
        if kind in (_KERNEL, _MEMCPY, _MEMSET):
            on_gpu.append((kind, event))
        else:
            threads[(str(event["pid"]), str(event["tid"]))].append((start, -duration, order, kind, event))
    for (_, thread), rows in threads.items():
        rows.sort(key=lambda row: row[:3])
        _walk(rows, int(thread) if thread.lstrip("-").isdigit() else 0, base, nesting)

    tied = [_tie(kind, event, base, nesting) for kind, event in on_gpu]
    rows_of = sorted(nesting.kept, key=lambda call: (call.start_us, -call.duration_us, nesting.order[id(call)]))
    for row, call in enumerate(rows_of):
        call.row = row
    tied.sort(key=lambda pair: pair[0].start_us)
    kernels = tuple(
        kernel if call is None else _with_operator(kernel, call.row) for kernel, call in tied
    )
    return Profile(header, rows_of, kernels, base)


def _walk(rows: list[tuple[float, float, int, str, dict[str, Any]]], thread: int, base: float, nesting: _Nesting) -> None:
    """Go through what one thread did, in order, and keep the operators that count."""
    stack: list[_Frame] = []
    for start, negative, order, kind, event in rows:
        while stack and stack[-1].end <= start and (stack[-1].end < start or stack[-1].kind != _MODULE):
            stack.pop()
        above = stack[-1] if stack else None
        owner = above.owner if above else None
        module = above.module if above else ""
        if kind == _LAUNCH:
            arguments = event.get("args") or {}
            launch = _Launch(owner or (above.call if above else None), start, -negative)
            if "correlation" in arguments:
                nesting.launches[arguments["correlation"]] = launch
            if owner and _WAITS.match(event["name"]):
                owner.waiting_us += launch.duration
            continue
        if kind == _MODULE:
            name = event["name"][len("nn.Module: ") :]
            path = f"{module}.{name}" if module else name
            stack.append(_Frame(start - negative, kind, path, owner, above.call if above else None))
            continue
        name = event["name"]
        arguments = event.get("args") or {}
        call = Call(name, round(start - base, 3), -negative, thread, module, arguments)
        nesting.order[id(call)] = order
        if owner is None and not _gives_way(name):
            owner = call
            nesting.kept.append(call)
        elif owner is not None and not owner.backend and name[6:] in _BACKENDS:
            owner.backend = _BACKENDS[name[6:]]
        external = arguments.get("External id", arguments.get("external id"))
        if external is not None:
            nesting.by_external_id[external] = owner or call
        stack.append(_Frame(start - negative, kind, module, owner, call))


@lru_cache(maxsize=4096)
def _category(name: str, base: str) -> str:
    if base in CATEGORY_OF:
        return CATEGORY_OF[base]
    if "convolution" in base:
        return "Convolution"
    return "Attention" if re.search(r"attention|flash_attn|::fmha", name) else "Other"


@lru_cache(maxsize=4096)
def _gives_way(name: str) -> bool:
    """Whether what an operator calls counts in its place: composites, autograd nodes, annotations."""
    if name.startswith("aten::"):
        base = _base(name)
        return base in _COMPOSITE
    return "::" not in name or name.startswith("autograd::")


def _base(name: str) -> str:
    name = name.removeprefix("aten::")
    return name if name.startswith("_") else name.rstrip("_")


def _tie(kind: str, event: dict[str, Any], base: float, nesting: _Nesting) -> tuple[TimedKernel, Call | None]:
    """A kernel, and the operator that launched it. An operator that had given way counts if it launches one."""
    arguments = event.get("args") or {}
    correlation = arguments.get("correlation", 0)
    launch = nesting.launches.get(correlation) if correlation else None
    start = float(event["ts"])
    if launch is not None:
        call = launch.call
    else:
        call = nesting.by_external_id.get(arguments.get("External id", arguments.get("external id")))
        if call is not None and call.start_us > start - base:
            call = None
    if call is not None and call.row == -1:
        call.row = 0  # decided: met before
        if _gives_way(call.name):
            nesting.kept.append(call)
    if launch is not None and call is not None and kind == _MEMCPY and "Pageable" in event["name"] and "DtoH" in event["name"]:
        call.waiting_us += launch.duration
    grid, block = arguments.get("grid"), arguments.get("block")
    stream = arguments.get("stream", 0)
    kernel = TimedKernel(
        name=str(event["name"]),
        start_us=round(start - base, 3),
        duration_us=float(event["dur"]),
        kind=kind,
        device=int(arguments.get("device", 0)),
        stream=int(stream) if stream not in ("", None) else 0,
        correlation=int(correlation),
        launch_us=None if launch is None else round(launch.start - base, 3),
        launch_duration_us=None if launch is None else launch.duration,
        grid=None if grid is None else (int(grid[0]), int(grid[1]), int(grid[2])),
        block=None if block is None else (int(block[0]), int(block[1]), int(block[2])),
        registers=_whole(arguments.get("registers per thread")),
        shared_memory_bytes=_whole(arguments.get("shared memory")),
        nbytes=_whole(arguments.get("bytes")),
    )
    return kernel, call


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)


def _with_operator(kernel: TimedKernel, row: int) -> TimedKernel:
    object.__setattr__(kernel, "operator", row)  # not shared yet; replace() would cost as much as the rest
    return kernel


# ---- what an operator worked on


class _OperatorMaker:
    """Turns calls into operators, numbering operands as they come."""

    def __init__(self, calls: list[Call]):
        self.dtypes_assumed = 0
        self._tensors = 0
        found = Counter(
            _DTYPES[name]
            for call in calls
            for name in call.arguments.get("Input type", ())
            if isinstance(name, str) and _DTYPES.get(name) in _FLOATS
        )
        self._usual_dtype = found.most_common(1)[0][0] if found else "fp32"

    def operator(self, call: Call, position: int, *, launches: bool, on_gpu: bool) -> Operator:
        """The operator of a call. On a trace with kernels, one that launched none and is no view was the host's."""
        base = _base(call.name) if call.name.startswith("aten::") else ""
        positions = self._operands(call)
        attributes = _attributes(base, call, positions)
        inputs = tuple(use for _, uses in positions for use in uses)
        in_place = bool(base) and call.name.endswith("_") and not call.name.startswith("aten::_")
        category = _category(call.name, base)
        if base in _VIEWS:
            is_view, category = not launches, "Memory" if launches else "View"
        else:
            is_view = on_gpu and not launches
            if is_view:
                category, attributes = "Other", {**attributes, "device": "cpu"}
        if "Input Dims" not in call.arguments:
            attributes = {**attributes, "shapes_recorded": False}
        outputs: tuple[TensorUse, ...] = ()
        if inputs or base in ("zeros", "ones", "full", "empty"):
            if in_place or base == "copy":
                outputs = inputs[:1]
            else:
                with suppress(LookupError, TypeError, ValueError):  # arguments that are not what the name promises
                    outputs = self._outputs(base, call, dict(positions), inputs, attributes)
        return Operator(
            "profile", 0, position, call.module, call.name, category, inputs, outputs, attributes, is_view
        )

    def _operands(self, call: Call) -> list[tuple[int, list[TensorUse]]]:
        """The tensors among the arguments, by the arguments' positions."""
        arguments = call.arguments
        dims, types = arguments.get("Input Dims"), arguments.get("Input type")
        if not dims or not types:
            return []
        strides = arguments.get("Input Strides") or ()
        found: list[tuple[int, list[TensorUse]]] = []
        for i, (shape, name) in enumerate(zip(dims, types, strict=False)):
            if name in _DTYPES:
                found.append((i, [self._use(tuple(shape), strides[i] if i < len(strides) else None, _DTYPES[name])]))
            elif name in ("TensorList", "GenericList") and shape and isinstance(shape[0], list):
                # Kineto does not say of what type a list's tensors are.
                dtype = next((uses[0].dtype for _, uses in found), self._usual_dtype)
                self.dtypes_assumed += 1
                laid_out = strides[i] if i < len(strides) and len(strides[i]) == len(shape) else [None] * len(shape)
                uses = [self._use(tuple(item), how, dtype) for item, how in zip(shape, laid_out, strict=True)]
                found.append((i, uses))
        return found

    def _use(self, shape: tuple[int, ...], strides: Any, dtype: str, role: str = "input") -> TensorUse:
        laid_out = tuple(strides) if strides is not None and len(strides) == len(shape) else row_major(shape)
        extent = 0 if 0 in shape else 1 + sum((n - 1) * step for n, step in zip(shape, laid_out, strict=True))
        self._tensors += 1
        return TensorUse(self._tensors - 1, shape, laid_out, dtype, extent * ITEM_BYTES[dtype], role)

    def _outputs(
        self,
        base: str,
        call: Call,
        by_position: dict[int, list[TensorUse]],
        inputs: tuple[TensorUse, ...],
        attributes: dict[str, Any],
    ) -> tuple[TensorUse, ...]:
        """What an operator made, where its inputs and attributes leave no doubt."""
        if base in _ELEMENTWISE:
            shape, dtype = _broadcast([use.shape for use in inputs]), _promoted(inputs)
            dtype = "bool" if base in _COMPARISONS else dtype
            alike = next((use.strides for use in inputs if use.shape == shape and _dense(use)), None)
            return (self._use(shape, alike, dtype, "activation"),)
        rule = _RESULTS.get(base)
        if rule is None or ("Concrete Inputs" not in call.arguments and (rule not in _BY_SHAPES or base == "_to_copy")):
            return ()
        found = rule(by_position, inputs, attributes)
        return () if found is None else (self._use(*found, "activation"),)


def _attributes(base: str, call: Call, operands: list[tuple[int, list[TensorUse]]]) -> dict[str, Any]:
    """A call's arguments that are not tensors, named as the recorder names them, where the file has them."""
    given = call.arguments.get("Concrete Inputs") or ()
    tensors = {i for i, _ in operands}
    values = {i: value for i, text in enumerate(given) if i not in tensors and (value := _parsed(text)) is not None}
    names = _ARGUMENTS.get(base)
    if names is None:
        return {"arguments": list(values.values())} if values else {}
    attributes = {names[i]: value for i, value in values.items() if i < len(names) and names[i]}
    if "dtype" in attributes:
        attributes["dtype"] = _SCALAR_TYPES.get(attributes["dtype"], str(attributes["dtype"]))
    number = attributes.get("memory_format")
    if isinstance(number, int) and 0 <= number < len(_MEMORY_FORMATS):
        attributes["memory_format"] = _MEMORY_FORMATS[number]
    if base == _ATTENTION and len(operands) >= 3:
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


@lru_cache(maxsize=4096)
def _parsed(text: Any) -> Any:
    """A concrete argument: a number, a truth value, a list of them or a text; None where there is none."""
    if not isinstance(text, str) or text in ("", "None"):
        return None
    if text in ("True", "False"):
        return text == "True"
    try:
        return json.loads(text)
    except ValueError:
        return text


def _broadcast(shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
    rank = max(map(len, shapes))
    columns = zip(*([1] * (rank - len(shape)) + list(shape) for shape in shapes), strict=True)
    return tuple(0 if 0 in sizes else max(sizes) for sizes in columns)


def _promoted(inputs: tuple[TensorUse, ...]) -> str:
    """The dtype of an elementwise result: a tensor with dimensions outweighs one without, within its kind."""
    with_dims = [use.dtype for use in inputs if use.shape] or [use.dtype for use in inputs]
    floats = {dtype for dtype in with_dims if dtype in _FLOATS}
    if not floats:
        scalars = [use.dtype for use in inputs if use.dtype in _FLOATS]
        return scalars[0] if scalars else max(with_dims, key=ITEM_BYTES.__getitem__)
    return "fp32" if floats == {"bf16", "fp16"} else min(floats, key=_FLOATS.index)


def _dense(use: TensorUse) -> bool:
    return use.numel * ITEM_BYTES[use.dtype] == use.storage_bytes


Operands = dict[int, list[TensorUse]]
Found = tuple[tuple[int, ...], Any, str] | None  # shape, strides (None: row-major), dtype


def _product(operands: Operands, inputs: tuple[TensorUse, ...], attributes: dict[str, Any]) -> Found:
    a, b = inputs[-2:]
    return ((*a.shape[:-1], b.shape[-1]), None, a.dtype) if len(b.shape) > 1 else (a.shape[:-1], None, a.dtype)


def _convolved(operands: Operands, inputs: tuple[TensorUse, ...], attributes: dict[str, Any]) -> Found:
    image, weight = inputs[:2]
    dims = len(image.shape) - 2

    def each(name: str) -> list[int]:
        value = attributes[name]
        return list(value) * dims if len(value) == 1 else list(value)

    sizes = zip(image.shape[2:], weight.shape[2:], each("stride"), each("padding"), each("dilation"), strict=True)
    if attributes["transposed"]:
        spatial = [
            (n - 1) * s - 2 * p + d * (k - 1) + 1 + extra
            for (n, k, s, p, d), extra in zip(sizes, each("output_padding"), strict=True)
        ]
        channels = weight.shape[1] * attributes["groups"]
    else:
        spatial = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sizes]
        channels = weight.shape[0]
    shape = (image.shape[0], channels, *spatial)
    last = any(use.channels_last and not use.contiguous for use in (image, weight))
    return shape, _channels_last(shape) if last else None, image.dtype


def _channels_last(shape: tuple[int, ...]) -> tuple[int, ...]:
    n, c, *spatial = shape
    batch, *inner = row_major((n, *spatial, c))
    return batch, 1, *inner[:-1]


def _attended(operands: Operands, inputs: tuple[TensorUse, ...], attributes: dict[str, Any]) -> Found:
    query, _, value = inputs[:3]
    shape = (*query.shape[:-1], value.shape[-1])
    if len(shape) != 4:
        return shape, None, query.dtype
    batch, heads, length, width = shape  # laid out (batch, length, heads, width), as the fused kernels write it
    return shape, (length * heads * width, width, heads * width, 1), query.dtype


def _alike(operands: Operands, inputs: tuple[TensorUse, ...], attributes: dict[str, Any]) -> Found:
    use = inputs[0]
    dtype = "fp32" if attributes.get("half_to_float") else attributes.get("dtype", use.dtype)
    how = attributes.get("memory_format", "preserve_format")
    keeps = _dense(use) and how == "preserve_format"
    return use.shape, use.strides if keeps else _channels_last(use.shape) if "last" in how else None, dtype


def _joined(operands: Operands, inputs: tuple[TensorUse, ...], attributes: dict[str, Any]) -> Found:
    uses = [use for use in operands[0] if use.shape != (0,)]
    dim = attributes["dim"] % len(uses[0].shape)
    shape = list(uses[0].shape)
    shape[dim] = sum(use.shape[dim] for use in uses)
    return tuple(shape), None, uses[0].dtype


def _reduced(operands: Operands, inputs: tuple[TensorUse, ...], attributes: dict[str, Any]) -> Found:
    shape = inputs[0].shape
    over = attributes.get("dim", [])
    gone = {dim % len(shape) for dim in (over if isinstance(over, list) else [over])} or set(range(len(shape)))
    kept = attributes.get("keepdim", False)
    sizes = tuple(1 if i in gone else n for i, n in enumerate(shape) if kept or i not in gone)
    return sizes, None, attributes.get("dtype", inputs[0].dtype)


def _embedded(operands: Operands, inputs: tuple[TensorUse, ...], attributes: dict[str, Any]) -> Found:
    weight, indices = inputs
    return (*indices.shape, weight.shape[1]), None, weight.dtype


def _resized(operands: Operands, inputs: tuple[TensorUse, ...], attributes: dict[str, Any]) -> Found:
    image = inputs[0]
    if "output_size" in attributes:
        size = tuple(attributes["output_size"])
    else:
        size = tuple(int(n * scale) for n, scale in zip(image.shape[2:], attributes["scales"], strict=True))
    shape = (*image.shape[:2], *size)
    return shape, _channels_last(shape) if image.channels_last and not image.contiguous else None, image.dtype


def _padded(operands: Operands, inputs: tuple[TensorUse, ...], attributes: dict[str, Any]) -> Found:
    shape, pad = list(inputs[0].shape), attributes["pad"]
    for i in range(len(pad) // 2):
        shape[-1 - i] += pad[2 * i] + pad[2 * i + 1]
    return tuple(shape), None, inputs[0].dtype


def _made(operands: Operands, inputs: tuple[TensorUse, ...], attributes: dict[str, Any]) -> Found:
    return tuple(attributes["size"]), None, attributes.get("dtype", "fp32")


_RESULTS: dict[str, Callable[[Operands, tuple[TensorUse, ...], dict[str, Any]], Found]] = {
    **dict.fromkeys(("mm", "addmm", "bmm", "baddbmm", "mv"), _product),
    **dict.fromkeys(("convolution", "_convolution"), _convolved),
    **dict.fromkeys(
        ("native_group_norm", "native_layer_norm", "_softmax", "_log_softmax", "_safe_softmax", "clone", "_to_copy",
         "masked_fill", "native_dropout", "tril", "triu", "zeros_like", "ones_like", "cumsum", "_fused_rms_norm"),
        _alike,
    ),
    **dict.fromkeys(("mean", "sum", "amax", "amin"), _reduced),
    **dict.fromkeys(("zeros", "ones", "full", "empty"), _made),
    _ATTENTION: _attended, "cat": _joined, "embedding": _embedded, "upsample_nearest2d": _resized, "constant_pad_nd": _padded,
}  # fmt: skip
# Rules that hold without knowing the arguments that are no tensors: old versions of Kineto do not record those.
_BY_SHAPES = (_product, _attended, _alike, _embedded)
