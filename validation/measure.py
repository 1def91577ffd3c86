"""Measures the cases of a suite on a device, into one Parquet file.

    measure_suite("cuda", "h200.parquet", budget_s=240)

A row a case: the columns of `simtti predict`, then what was measured, in microseconds:

    warm_us, warm_p10_us, warm_p90_us
                    a launch among many, back to back, from event to event: operands in L2 where they fit
    cold_us, cold_p10_us, cold_p90_us
                    one launch after the L2 was filled with something else, with the gaps between its kernels and what
                    the events themselves cost (the row of launch function=nothing). What `predict` predicts
    host_us         what the host needs to issue it
    warm_kernel_us, cold_kernel_us, kernel_count, kernels
                    the same launches as CUPTI saw them through torch.profiler: kernels alone, without gaps; `kernels`
                    is JSON: name, grid, block, registers, shared memory and times of each
    failure         why there are no times: an unsupported backend, too little memory
    sm_clock_mhz, memory_clock_mhz, temperature_c, power_w
                    the device's state at the end of the row's batch
    run             which of the file's runs measured it

The file's metadata, a JSON object under `simtti_measurements`, says on which device and, run by run, when, with which
versions and by which command. Every batch of at most 16 cases replaces the file whole, so that a run that is killed
loses one batch; the same command goes on where it stopped.

Tried on a CPU only, where there are times of the host and no kernels; events, flushes, the profiler's kernels, the
snapshots of clocks and Nsight Compute have not met a GPU yet.
"""

from __future__ import annotations

import csv
import gc
import hashlib
import io
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from simtti.errors import InputError, unknown
from simtti.simulator.table import check_writable
from simtti.validation.microbenchmarks import (
    COUNTER_FAMILY,
    GRAPH_LAUNCHES,
    SHAPE_COLUMNS,
    Case,
    batches,
    counter_cases,
    suite,
)
from simtti.workloads.record import quiet

DEVICES = ("cuda", "cpu")
SCHEMA_VERSION = 1
METADATA_KEY = b"simtti_measurements"
CPU_MAX_FLOPS, CPU_MAX_BYTES = 3e8, 3e7  # on a CPU the suite is tried out, not measured
PROFILED_LAUNCHES = 3
_TIMES = ("warm_us", "warm_p10_us", "warm_p90_us", "cold_us", "cold_p10_us", "cold_p90_us", "host_us",
          "warm_kernel_us", "cold_kernel_us")  # fmt: skip
_STATE = ("sm_clock_mhz", "memory_clock_mhz", "temperature_c", "power_w")
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "family", "op", "dtype")),
        *((name, {int: pa.int64(), bool: pa.bool_(), str: pa.string()}[kind]) for name, kind in SHAPE_COLUMNS.items()),
        *((name, pa.float64()) for name in (*_TIMES, "flops", "nbytes", *_STATE)),
        *((name, pa.int64()) for name in ("kernel_count", "run")),
        *((name, pa.string()) for name in ("kernels", "failure")),
    ]
)  # fmt: skip

Call = Callable[[], object]
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Measured:
    """What a run of `measure_suite` did. `failed` cases are among the measured; `left` ones the budget did not reach."""

    measured: int
    failed: int
    left: int
    seconds: float


def measure_suite(
    device: str,
    out: str | os.PathLike[str],
    budget_s: float = 240.0,
    families: Iterable[str] | None = None,
    skip: Iterable[str | os.PathLike[str]] = (),
    counters: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    suite_name: str = "tti",
) -> Measured:
    """Measure the cases that neither `out` nor the files of `skip` hold, until they or `budget_s` end.

    Args:
        device: 'cuda', or 'cpu' to try the suite's small cases without a GPU.
        out: a .parquet file; one that exists is added to.
        families: of the suite; all if None.
        counters: instead of times, read the hardware counters of a few cases with Nsight Compute.
        progress: called with (cases done, cases).

    Raises:
        InputError: an unknown family or device, no torch or GPU, no ncu, a file that is not of measurements or is of
            another device, an unwritable one; the device failed.
        KeyboardInterrupt: after finished batches have been kept.
    """
    begin = time.monotonic()
    if device not in DEVICES:
        raise unknown("device to measure on", device, DEVICES)
    if not budget_s > 0:
        raise InputError(f"budget_s is {budget_s!r}; it must be more than 0 seconds")
    chosen = list(families) if families is not None else None
    cases = counter_cases() if counters else suite(chosen, suite_name)
    check_writable(out)
    if Path(out).suffix != ".parquet":
        raise InputError(f"{out}: measurements are written as .parquet")
    bench = _bench(device)
    command = _command(device, budget_s, chosen, counters, suite_name)
    file = _File(Path(out), bench.facts(), command)
    done = file.ids() | {id for path in skip for id in _ids_of(Path(path), file.device)}
    if counters:
        todo = [case for case in cases if _counter_id(case) not in done]
        return _measure_counters(todo, file, device, begin, budget_s)
    todo = [case for case in cases if case.id not in done]
    if device == "cpu":
        todo = [case for case in todo if case.flops <= CPU_MAX_FLOPS and case.nbytes <= CPU_MAX_BYTES]
    return _measure(todo, file, bench, begin, budget_s, progress)


def _measure(
    todo: list[Case], file: _File, bench: _Bench, begin: float, budget_s: float, progress: Callable[[int, int], None]
) -> Measured:  # fmt: skip
    measured = failed = 0
    progress(0, len(todo))
    with quiet(), bench.torch.no_grad():  # torch says at length why a backend takes no part
        for batch in batches(todo, most_bytes=bench.memory_bytes * 0.3):
            if time.monotonic() - begin > budget_s:
                break
            rows = _measure_batch(batch, bench, begin + budget_s)
            file.append(rows)
            measured += len(rows)
            failed += sum(row["failure"] is not None for row in rows)
            progress(measured, len(todo))
            if bench.lost:
                raise InputError(
                    f"the device failed at {rows[-1]['id']!r}: {rows[-1]['failure']}; what was measured is in "
                    f"{file.path}, and the same command goes on after that case"
                )
    return Measured(measured, failed, len(todo) - measured, time.monotonic() - begin)


def _measure_batch(batch: list[Case], bench: _Bench, deadline: float) -> list[Row]:
    """The rows of a batch's cases, of as many as were begun before the deadline."""
    rows: list[Row] = []
    live: list[tuple[Row, _Prepared]] = []
    for case in batch:
        if time.monotonic() > deadline or bench.lost:
            break
        row: Row = {**case.row(), "id": case.id, "flops": case.flops, "nbytes": case.nbytes, "failure": None}
        rows.append(row)
        prepared = _timed(case, row, bench)
        if prepared is None and "out of memory" in str(row["failure"]) and not bench.lost:
            prepared = _timed(case, row, bench)  # the allocator has given back what it had kept
        if prepared is not None:
            live.append((row, prepared))
    if live and not bench.lost:
        try:
            for (row, _), kernels in zip(
                live, bench.kernels([prepared for _, prepared in live]), strict=True
            ):
                row.update(kernels)
        except Exception as error:  # times without kernels are worth keeping
            live[-1][0]["failure"] = f"profiling the batch: {_reason(error)}"
            bench.recover()
    state = {} if bench.lost else bench.state()
    live.clear()
    bench.tidy()
    return [{**row, **state} for row in rows]


def _timed(case: Case, row: Row, bench: _Bench) -> _Prepared | None:
    """Write the case's times into its row; None, and the reason in the row, where there are none."""
    try:
        prepared = prepare(case, bench.torch, bench.device)
        row.update(bench.times(prepared), failure=None)
        return prepared
    except Exception as error:  # a row's failure is a result too
        row["failure"] = _reason(error)
    bench.recover()
    return None


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200] if lines else ''}"


def _command(
    device: str, budget_s: float, families: list[str] | None, counters: bool, suite_name: str
) -> str:
    """The command that does the same, without names of files, which are nobody else's business."""
    words = f"simtti capture kernels --suite {suite_name} --device {device} --budget-s {budget_s:g}".split()
    words += ["--families", ",".join(families)] if families else []
    words += ["--counters"] if counters else []
    return " ".join(words)


# ---- the file


class _File:
    """A file of measurements: what it holds already, and batches added to it. Written whole or not at all."""

    def __init__(self, path: Path, facts: dict[str, Any], command: str) -> None:
        self.path = path
        self.device: dict[str, Any] = facts.pop("device")
        self._tables: list[pa.Table] = []
        runs: list[dict[str, Any]] = []
        if path.exists():
            table, metadata = read_measurements(path)
            _check_device(path, metadata["device"], self.device)
            self._tables, runs = [table], metadata["runs"]
        run = {"date": _now(), "command": command, "script": script_hash(), **facts}
        self._metadata = {"schema_version": SCHEMA_VERSION, "device": self.device, "runs": [*runs, run]}

    def ids(self) -> set[str]:
        return {id for table in self._tables for id in table.column("id").to_pylist()}

    def append(self, rows: list[Row]) -> None:
        if not rows:
            return
        number = len(self._metadata["runs"]) - 1
        self._tables.append(pa.Table.from_pylist([{**row, "run": number} for row in rows], SCHEMA))
        table = pa.concat_tables(self._tables).combine_chunks()
        self._tables = [table]
        partial = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        try:
            metadata = {METADATA_KEY: json.dumps(self._metadata).encode()}
            pq.write_table(table.replace_schema_metadata(metadata), partial, compression="zstd")
            os.replace(partial, self.path)
        except OSError as error:
            raise InputError(f"cannot write {self.path}: {error.strerror or error}") from None
        finally:
            partial.unlink(missing_ok=True)


def read_measurements(path: str | os.PathLike[str]) -> tuple[pa.Table, dict[str, Any]]:
    """A file's rows and its metadata: device and runs.

    Raises:
        InputError: missing, unreadable, or not a file of measurements.
    """
    file = Path(path)
    if not file.exists():
        raise InputError(f"{file}: no such file")
    try:
        table = pq.read_table(file)
    except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{file}: not a readable .parquet table: {reason}") from None
    packed = (table.schema.metadata or {}).get(METADATA_KEY)
    if packed is None:
        raise InputError(f"{file}: not a file of measurements: it has no {METADATA_KEY.decode()} metadata")
    metadata = json.loads(packed)
    if metadata.get("schema_version") != SCHEMA_VERSION or table.schema.names != SCHEMA.names:
        raise InputError(
            f"{file}: its schema_version is {metadata.get('schema_version')!r} and this simtti writes {SCHEMA_VERSION}; "
            "measure into another file"
        )
    return table.replace_schema_metadata(None), metadata


def _check_device(path: Path, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    if theirs["name"] != ours["name"]:
        raise InputError(
            f"{path}: holds measurements of {theirs['name']}, and this is {ours['name']}; use another file"
        )


def _ids_of(path: Path, device: dict[str, Any]) -> set[str]:
    table, metadata = read_measurements(path)
    _check_device(path, metadata["device"], device)
    return set(table.column("id").to_pylist())


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def script_hash() -> str:
    """A hash of the suite and of this file: what was measured, and how."""
    digest = hashlib.sha256()
    for name in ("microbenchmarks.py", "measure.py"):
        digest.update((Path(__file__).parent / name).read_bytes())
    return digest.hexdigest()[:16]


# ---- the operators


@dataclass(frozen=True, slots=True)
class _Prepared:
    """An operator with its operands, and what has to hold while it runs."""

    call: Call
    context: Callable[[], AbstractContextManager[Any]] = nullcontext
    profiled: bool = True


@dataclass(frozen=True, slots=True)
class _Make:
    """Makes random operands. Zeros would run faster: the multipliers toggle fewer bits, so the clock stays up."""

    torch: Any
    device: Any
    dtype: Any

    def __call__(self, *shape: int) -> Any:
        return self.torch.randn(shape, device=self.device, dtype=self.dtype)

    def image(self, layout: str, *shape: int) -> Any:
        """A tensor of (batch, channels, ...) that lies in `layout`."""
        last = {4: self.torch.channels_last, 5: self.torch.channels_last_3d}[len(shape)]
        formats = {"nhwc": last, "ndhwc": last}
        return self(*shape).contiguous(memory_format=formats.get(layout, self.torch.contiguous_format))


def prepare(case: Case, torch: Any, device: Any) -> _Prepared:
    """The case as something to call, on operands whose values are the same each time."""
    torch.manual_seed(zlib.crc32(case.id.encode()))
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[case.dtype]
    made = _OPERATORS[case.op](case, _Make(torch, device, dtype))
    return made if isinstance(made, _Prepared) else _Prepared(made)


def _convolution(case: Case, make: _Make) -> Call:
    functional, layout, n, c, oc = (
        make.torch.nn.functional,
        case.text("layout"),
        case["n"],
        case["c"],
        case["oc"],
    )
    groups, stride, bias = case["groups"], case["stride"], make(oc)
    if case.op == "conv2d":
        x = make.image(layout, n, c, case["h"], case["w"])
        weight = make.image(layout, oc, c // groups, case["kh"], case["kw"])
        return lambda: functional.conv2d(x, weight, bias, stride, case["padding"], 1, groups)
    x = make.image(layout, n, c, case["d"], case["h"], case["w"])
    weight = make.image(layout, oc, c, case["kd"], case["kh"], case["kw"])
    padding = (case["kd"] // 2, 0, 0) if case.op == "temporal_conv" else case["padding"]
    return lambda: functional.conv3d(x, weight, bias, stride, padding)


def _attention(case: Case, make: _Make) -> _Prepared:
    torch, backend = make.torch, case.text("backend")
    batch, heads, dim, causal = (
        case["batch"],
        case["heads"],
        case["head_dim"],
        bool(dict(case.shape)["causal"]),
    )
    if backend == "baseline":
        query, key, value = (
            make(batch * heads, case[length], dim) for length in ("q_len", "kv_len", "kv_len")
        )
        empty = query.new_empty(1, 1, 1)

        def unfused() -> Any:
            scores = torch.baddbmm(empty, query, key.transpose(1, 2), beta=0, alpha=dim**-0.5)
            return torch.bmm(scores.softmax(-1), value)

        return _Prepared(unfused)

    def operand(length: int) -> Any:
        if case.text("layout") == "strided":  # pixels are the sequences: a view of frames x pixels
            return make(length, batch, heads, dim).permute(1, 2, 0, 3)
        return make(batch, length, heads, dim).transpose(1, 2)

    from torch.nn.attention import SDPBackend, sdpa_kernel

    query, key, value = operand(case["q_len"]), operand(case["kv_len"]), operand(case["kv_len"])
    allowed = {"flash": SDPBackend.FLASH_ATTENTION, "efficient": SDPBackend.EFFICIENT_ATTENTION,
               "math": SDPBackend.MATH, "cudnn": SDPBackend.CUDNN_ATTENTION}[backend]  # fmt: skip
    attend = torch.nn.functional.scaled_dot_product_attention
    return _Prepared(lambda: attend(query, key, value, is_causal=causal), lambda: sdpa_kernel(allowed))


def _gemm(case: Case, make: _Make) -> Call:
    torch, batch, m, n, k = make.torch, case["batch"], case["m"], case["n"], case["k"]
    transposed = case.text("layout") == "nt"
    if batch > 1 or not transposed:
        a, b = make(batch, m, k), make(batch, n, k).transpose(1, 2) if transposed else make(batch, k, n)
        return lambda: torch.bmm(a, b)
    x, weight, bias = make(m, k), make(n, k), make(n) if dict(case.shape)["bias"] else None
    return lambda: torch.nn.functional.linear(x, weight, bias)


def _group_norm(case: Case, make: _Make) -> Call:
    n, c, spatial, groups = case["n"], case["c"], case["spatial"], case["groups"]
    height = next(size for size in range(int(spatial**0.5), 0, -1) if spatial % size == 0)
    x, weight, bias = make.image(case.text("layout"), n, c, height, spatial // height), make(c), make(c)
    return lambda: make.torch.nn.functional.group_norm(x, groups, weight, bias)


def _row_operator(case: Case, make: _Make) -> Call:
    functional, rows, cols = make.torch.nn.functional, case["rows"], case["cols"]
    if case.op == "geglu":  # the halves of one projection: views with a stride of two rows
        value, gate = make(rows, 2 * cols).chunk(2, -1)
        return lambda: value * functional.gelu(gate)
    x, weight, bias = make(rows, cols), make(cols), make(cols)
    return {
        "layer_norm": lambda: functional.layer_norm(x, (cols,), weight, bias),
        "rms_norm": lambda: functional.rms_norm(x, (cols,), weight),
        "softmax": lambda: functional.softmax(x, -1),
    }[case.op]


def _elementwise(case: Case, make: _Make) -> Call:
    functional, function, numel = make.torch.nn.functional, case.text("function"), case["numel"]
    columns = dict(case.shape)
    x = make(numel)
    if function == "add_channel":  # a time embedding to each channel of an image
        image, channels = x.view(case["n"], case["c"], -1), make(case["n"], case["c"], 1)
        return lambda: image + channels
    if function == "add_row":
        matrix, row = x.view(-1, int(columns["cols"])), make(int(columns["cols"]))
        return lambda: matrix + row
    y = make(numel) if columns["inputs"] == 2 else x
    return {
        "add": lambda: x + y,
        "mul": lambda: x * y,
        "mul_scalar": lambda: x * 1.5,
        "fill": lambda: x.fill_(1.0),
        "cast": lambda: x.float(),
        "gelu": lambda: functional.gelu(x),
        "gelu_tanh": lambda: functional.gelu(x, approximate="tanh"),
        "silu": lambda: functional.silu(x),
    }[function]


def _permute(case: Case, make: _Make) -> Call:
    n, frames, c, h, w = (case[name] for name in ("n", "frames", "c", "h", "w"))
    images, pixels, heads = n * frames, h * w, 8
    last = make.torch.channels_last

    def moved(x: Any, *order: int) -> Call:
        return lambda: x.permute(*order).contiguous()

    function = case.text("function")
    if function == "nchw_to_tokens":
        return moved(make(images, c, pixels), 0, 2, 1)
    if function == "tokens_to_nchw":
        return moved(make(images, pixels, c), 0, 2, 1)
    if function == "space_to_time":  # tokens of frames to sequences over time
        return moved(make(n, frames, pixels, c), 0, 2, 1, 3)
    if function == "time_to_space":
        return moved(make(n, pixels, frames, c), 0, 2, 1, 3)
    if function == "frames_to_channels":  # images of frames to what a 3-D convolution takes
        return moved(make(n, frames, c, pixels), 0, 2, 1, 3)
    if function == "split_heads":
        return moved(make(images, pixels, heads, c // heads), 0, 2, 1, 3)
    if function == "merge_heads":
        return moved(make(images, heads, pixels, c // heads), 0, 2, 1, 3)
    if function == "to_channels_last":
        x = make(images, c, h, w)
        return lambda: x.clone(memory_format=last)
    x = make.image("nhwc", images, c, h, w)
    return lambda: x.clone(memory_format=make.torch.contiguous_format)


def _cat(case: Case, make: _Make) -> Call:
    first, second = (make(case["n"], case[c], case["h"], case["w"]) for c in ("c", "c2"))
    return lambda: make.torch.cat((first, second), 1)


def _upsample(case: Case, make: _Make) -> Call:
    x, scale = make(case["n"], case["c"], case["h"], case["w"]), float(case["scale"])
    return lambda: make.torch.nn.functional.interpolate(x, scale_factor=scale, mode="nearest")


def _embedding(case: Case, make: _Make) -> Call:
    table = make(case["entries"], case["cols"])
    indices = make.torch.randint(case["entries"], (1, case["rows"]), device=make.device)
    return lambda: make.torch.nn.functional.embedding(indices, table)


def _copy(case: Case, make: _Make) -> Call:
    source = make(case["numel"])
    target = source.clone()
    return lambda: target.copy_(source)


def _launch(case: Case, make: _Make) -> Call | _Prepared:
    torch, functional, function = make.torch, make.torch.nn.functional, case.text("function")
    if function == "nothing":
        return lambda: None
    x, matrix, image = make(1024), make(64, 64), make(1, 64, 16, 16)
    weight, wide, heads = make(64, 64, 3, 3), make(64), make(1, 8, 64, 64)
    if function == "add_in_graph":
        return _graph_of_additions(torch, x)
    return {
        "view": lambda: matrix.view(-1),
        "add_": lambda: x.add_(1.0),
        "add": lambda: x + x,
        "linear": lambda: functional.linear(matrix, matrix, wide),
        "conv2d": lambda: functional.conv2d(image, weight, wide, padding=1),
        "group_norm": lambda: functional.group_norm(image, 32, wide, wide),
        "layer_norm": lambda: functional.layer_norm(matrix, (64,), wide, wide),
        "attention": lambda: functional.scaled_dot_product_attention(heads, heads, heads),
        "cat": lambda: torch.cat((image, image), 1),
        "silu": lambda: functional.silu(x),
    }[function]


def _graph_of_additions(torch: Any, x: Any) -> _Prepared:
    """A replay of GRAPH_LAUNCHES additions, each after the other: what is left of a launch in a CUDA graph.

    Not profiled: graphs and CUPTI have crashed each other in older versions, and it is the gaps that matter here.
    """
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        x.add_(1.0)
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        for _ in range(GRAPH_LAUNCHES):
            x.add_(1.0)
    return _Prepared(lambda: graph.replay(), profiled=False)


_OPERATORS: dict[str, Callable[[Case, _Make], Call | _Prepared]] = {
    "conv2d": _convolution, "conv3d": _convolution, "temporal_conv": _convolution, "attention": _attention,
    "math_attention": _attention, "gemm": _gemm, "group_norm": _group_norm, "layer_norm": _row_operator,
    "rms_norm": _row_operator, "softmax": _row_operator, "geglu": _row_operator, "elementwise": _elementwise,
    "cast": _elementwise, "broadcast": _elementwise, "move": _permute, "cat": _cat, "upsample": _upsample, "embedding": _embedding,
    "copy": _copy, "launch": _launch,
}  # fmt: skip


# ---- timing


def _bench(device: str) -> _Bench:
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # torch reads it when loaded: no log lines on the terminal
    try:
        import torch
    except ImportError:
        raise InputError(
            "measuring needs torch, which is not installed; run: pip install 'simtti[torch]'"
        ) from None
    if device == "cpu":
        return _Bench(torch)
    if not torch.cuda.is_available():
        raise InputError(
            f"measuring needs a CUDA GPU, and torch {torch.__version__} finds none here (--device cpu tries the suite "
            "out without one)"
        )
    return _CudaBench(torch)


class _Bench:
    """Times operators on the CPU, and says what it ran on. The GPU's does the same with events."""

    def __init__(self, torch: Any) -> None:
        self.torch = torch
        self.device = torch.device("cpu")
        self.memory_bytes = 1e9
        self.lost = False  # the device has failed: nothing further can be measured
        self._flushed = torch.zeros(1 << 22)

    def facts(self) -> dict[str, Any]:
        """The device, and the versions that a run's times depend on."""
        from importlib.metadata import PackageNotFoundError, version

        try:
            simtti = version("simtti")
        except PackageNotFoundError:  # run from a checkout that is not installed
            simtti = "unknown"
        host = _processor()
        return {"device": {"name": host}, "host": host, "torch": self.torch.__version__, "python": platform.python_version(),
                "simtti": simtti}  # fmt: skip

    def times(self, prepared: _Prepared) -> Row:
        """Warm and cold times, and the host's."""
        with prepared.context():
            once_us = self._first_calls(prepared.call)
            host_us = self._host_us(prepared.call, _within(20_000 / once_us, 1, 10))
            warm = self._warm_us(prepared.call, once_us, host_us)
            cold = self._cold_us(prepared.call, once_us, host_us)
        return {**_spread("warm", warm), **_spread("cold", cold), "host_us": host_us}

    def kernels(self, live: Sequence[_Prepared]) -> list[Row]:
        """What CUPTI saw of each operator: nothing, on a CPU."""
        return [{} for _ in live]

    def state(self) -> Row:
        """Clocks, temperature, power, as far as the device tells."""
        return {}

    def recover(self) -> None:
        """After a failure: let go of what it held, and find out whether the device still works."""
        self.tidy()

    def tidy(self) -> None:
        gc.collect(0)

    def _first_calls(self, call: Call) -> float:
        """Warm up, and say roughly how many microseconds a call takes."""
        call()
        begin = time.perf_counter()
        call()
        return max((time.perf_counter() - begin) * 1e6, 1.0)

    def _host_us(self, call: Call, launches: int) -> float:
        return statistics.median(self._issue_us(call, launches) for _ in range(3))

    def _issue_us(self, call: Call, launches: int) -> float:
        begin = time.perf_counter()
        for _ in range(launches):
            call()
        return (time.perf_counter() - begin) / launches * 1e6

    def _warm_us(self, call: Call, once_us: float, host_us: float) -> list[float]:
        return [self._issue_us(call, 1) for _ in range(_within(20_000 / once_us, 3, 15))]

    def _cold_us(self, call: Call, once_us: float, host_us: float) -> list[float]:
        times = []
        for _ in range(_within(20_000 / once_us, 3, 5)):
            self._flushed.add_(1.0)
            times.append(self._issue_us(call, 1))
        return times


class _CudaBench(_Bench):
    """Times operators on the first visible GPU.

    Before each sample the GPU is kept busy for as long as the host needs to issue what is timed, so that the host's
    time never shows in a warm or a cold one.
    """

    def __init__(self, torch: Any) -> None:
        super().__init__(torch)
        self.device = torch.device("cuda", torch.cuda.current_device())
        self._properties = torch.cuda.get_device_properties(self.device)
        self.memory_bytes = float(torch.cuda.mem_get_info(self.device)[0])
        self._l2_bytes = getattr(self._properties, "L2_cache_size", 0) or 64 << 20
        self._flushed = torch.zeros(max(4 * self._l2_bytes, 256 << 20) // 4, device=self.device)
        self._total = torch.zeros((), device=self.device)
        self._smi = _Smi(getattr(self._properties, "uuid", None))
        self._ramp_up()
        self._cycles_per_us = self._spin_rate()

    def facts(self) -> dict[str, Any]:
        found = self._properties
        device = {"name": found.name, "sm_count": found.multi_processor_count, "memory_bytes": found.total_memory,
                  "l2_bytes": self._l2_bytes, "compute_capability": f"{found.major}.{found.minor}"}  # fmt: skip
        cudnn = self.torch.backends.cudnn.version()
        return {
            **super().facts(),
            "device": device,
            "cuda": self.torch.version.cuda,
            "cudnn": cudnn,
            **self._smi.facts(),
        }

    def _ramp_up(self) -> None:
        """An idle GPU's clocks are low: half a second of work raises them."""
        a = self.torch.randn(4096, 4096, device=self.device, dtype=self.torch.float16)
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            a @ a
            self.torch.cuda.synchronize()

    def _spin_rate(self) -> float:
        self.torch.cuda._sleep(1000)  # the first one loads the kernel
        self.torch.cuda.synchronize()
        begin, end = self._events()
        begin.record()
        self.torch.cuda._sleep(1_000_000)
        end.record()
        end.synchronize()
        return float(1_000_000 / max(begin.elapsed_time(end) * 1e3, 1.0))

    def _events(self) -> tuple[Any, Any]:
        return self.torch.cuda.Event(enable_timing=True), self.torch.cuda.Event(enable_timing=True)

    def _flush(self) -> None:
        """Fill the L2 with clean lines: by reading, since lines just written would have to be written back."""
        self.torch.sum(self._flushed, 0, out=self._total)

    def _stay_busy(self, us: float) -> None:
        self.torch.cuda._sleep(int(us * 1.3 * self._cycles_per_us) + 20_000)

    def _first_calls(self, call: Call) -> float:
        for _ in range(2):
            call()
        begin, end = self._events()
        begin.record()
        call()
        end.record()
        end.synchronize()
        return max(begin.elapsed_time(end) * 1e3, 1.0)

    def _issue_us(self, call: Call, launches: int) -> float:
        self.torch.cuda.synchronize()
        return super()._issue_us(call, launches)

    def _warm_us(self, call: Call, once_us: float, host_us: float) -> list[float]:
        launches = _within(200 / once_us, 1, 20)
        samples = []
        for _ in range(_within(30_000 / (launches * once_us), 3, 15)):
            begin, end = self._events()
            self._stay_busy(launches * host_us)
            begin.record()
            for _ in range(launches):
                call()
            end.record()
            samples.append((begin, end))
        self.torch.cuda.synchronize()
        return [begin.elapsed_time(end) * 1e3 / launches for begin, end in samples]

    def _cold_us(self, call: Call, once_us: float, host_us: float) -> list[float]:
        samples = []
        for _ in range(_within(30_000 / (once_us + 100), 3, 15)):
            begin, end = self._events()
            self._stay_busy(host_us)
            self._flush()
            begin.record()
            call()
            end.record()
            samples.append((begin, end))
        self.torch.cuda.synchronize()
        return [begin.elapsed_time(end) * 1e3 for begin, end in samples]

    def kernels(self, live: Sequence[_Prepared]) -> list[Row]:
        from torch.profiler import ProfilerActivity, profile, record_function

        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
            for number, prepared in enumerate(live):
                for state in ("warm", "cold") if prepared.profiled else ():
                    with prepared.context():
                        for _ in range(PROFILED_LAUNCHES):
                            if state == "cold":
                                self._flush()
                            with record_function(_label(number, state)):
                                prepared.call()
            self.torch.cuda.synchronize()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "profile.json")
            profiler.export_chrome_trace(str(path))
            launched = kernels_by_label(json.loads(path.read_text(errors="replace")))
        return [
            kernel_columns(launched.get(_label(number, "warm"), []), launched.get(_label(number, "cold"), []))
            for number in range(len(live))
        ]

    def state(self) -> Row:
        return self._smi.state()

    def recover(self) -> None:
        try:
            self.torch.cuda.synchronize()
            super().recover()
            self.torch.cuda.empty_cache()
        except RuntimeError:  # an error that sticks to the process: every later call would fail alike
            self.lost = True

    def tidy(self) -> None:
        super().tidy()
        if not self.lost and self.torch.cuda.memory_reserved() > 0.6 * self.memory_bytes:
            self.torch.cuda.empty_cache()


def _within(value: float, least: int, most: int) -> int:
    return int(min(max(value, least), most))


def _spread(state: str, times: Sequence[float]) -> Row:
    """Median and 10th and 90th percentile (of three samples: least and most, nearly)."""
    ordered = sorted(times)

    def at(share: float) -> float:
        place = share * (len(ordered) - 1)
        low = ordered[int(place)]
        return low + (ordered[min(int(place) + 1, len(ordered) - 1)] - low) * (place - int(place))

    return {f"{state}_us": at(0.5), f"{state}_p10_us": at(0.1), f"{state}_p90_us": at(0.9)}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


class _Smi:
    """A GPU's driver, clocks, temperature and power: from NVML through pynvml, or from nvidia-smi, or unknown."""

    def __init__(self, uuid: object) -> None:
        self._uuid = f"GPU-{str(uuid).removeprefix('GPU-')}" if uuid else ""
        self._nvml: Any = None
        self._asked, self._answer = -1e9, Row()
        try:
            import pynvml

            pynvml.nvmlInit()
            self._handle = (
                pynvml.nvmlDeviceGetHandleByUUID(self._uuid)
                if self._uuid
                else pynvml.nvmlDeviceGetHandleByIndex(0)
            )
            self._nvml = pynvml
        except Exception:  # not installed, another library of that name, no rights: nvidia-smi may do
            self._nvml = None

    def facts(self) -> Row:
        texts = self._ask(("driver_version", "clocks.max.sm", "clocks.max.mem", "power.limit"))
        numbers = dict(
            zip(
                ("max_sm_clock_mhz", "max_memory_clock_mhz", "power_limit_w"),
                map(_number, texts[1:]),
                strict=False,
            )
        )
        return {"driver": texts[0] if texts else None, **numbers}

    def state(self) -> Row:
        if self._nvml is not None:
            try:
                return self._from_nvml()
            except Exception:  # some facts are not there in virtual machines
                self._nvml = None
        if time.monotonic() - self._asked > 10:  # a process of its own each time, a tenth of a second
            found = self._ask(("clocks.sm", "clocks.mem", "temperature.gpu", "power.draw"))
            self._asked, self._answer = time.monotonic(), dict(zip(_STATE, map(_number, found), strict=False))
        return self._answer

    def _from_nvml(self) -> Row:
        nvml, handle = self._nvml, self._handle
        values = (
            nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
            nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM),
            nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
            nvml.nvmlDeviceGetPowerUsage(handle) / 1e3,
        )
        return {name: float(value) for name, value in zip(_STATE, values, strict=True)}

    def _ask(self, fields: tuple[str, ...]) -> list[str]:
        command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
        command += ["-i", self._uuid] if self._uuid else []
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        except (OSError, subprocess.SubprocessError):
            return []
        return [text.strip() for text in (done.stdout.splitlines() or [""])[0].split(",")]


def _number(text: str) -> float | None:
    """A number, or None for what nvidia-smi and ncu write where there is none.

    >>> _number("1,980.5"), _number("[N/A]")
    (1980.5, None)
    """
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None


# ---- the profiler's kernels


def _label(number: int, state: str) -> str:
    return f"simtti {number} {state}"


def kernels_by_label(trace: dict[str, Any]) -> dict[str, list[list[dict[str, Any]]]]:
    """From torch.profiler's JSON: for each labelled range of the host, in order, the kernels launched within it."""
    events = [event for event in trace["traceEvents"] if event.get("ph") == "X"]
    by_correlation: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    launches, ranges = [], []
    for event in events:
        category, arguments = event.get("cat"), event.get("args") or {}
        if category in ("kernel", "gpu_memcpy", "gpu_memset"):
            by_correlation[arguments.get("correlation")].append(event)
        elif category in ("cuda_runtime", "cuda_driver") and "correlation" in arguments:
            launches.append((float(event["ts"]), arguments["correlation"]))
        elif category == "user_annotation" and str(event["name"]).startswith("simtti "):
            ranges.append((float(event["ts"]), float(event["ts"]) + float(event["dur"]), str(event["name"])))
    launches.sort()
    starts = [start for start, _ in launches]
    found: dict[str, list[list[dict[str, Any]]]] = defaultdict(list)
    for begin, end, name in sorted(ranges):
        within = launches[bisect_left(starts, begin) : bisect_left(starts, end)]
        kernels = [kernel for _, correlation in within for kernel in by_correlation[correlation]]
        found[name].append(sorted(kernels, key=lambda kernel: float(kernel["ts"])))
    return found


def kernel_columns(warm: list[list[dict[str, Any]]], cold: list[list[dict[str, Any]]]) -> Row:
    """A row's columns on kernels, from those of its warm and cold launches. Launches unlike most are left out."""
    if not any(warm):
        return {}
    usual = Counter(len(launch) for launch in warm if launch).most_common(1)[0][0]
    warm, cold = ([launch for launch in launches if len(launch) == usual] for launches in (warm, cold))
    kernels: list[Row] = []
    for place in range(usual):
        facts = warm[0][place].get("args") or {}
        kernels.append(
            {
                "name": str(warm[0][place]["name"])[:200],
                "grid": facts.get("grid"),
                "block": facts.get("block"),
                "registers": facts.get("registers per thread"),
                "shared_memory_bytes": facts.get("shared memory"),
                "warm_us": statistics.median(float(launch[place]["dur"]) for launch in warm),
                "cold_us": statistics.median(float(launch[place]["dur"]) for launch in cold)
                if cold
                else None,
            }
        )
    cold_us = sum(kernel["cold_us"] for kernel in kernels) if cold else None
    return {"kernels": json.dumps(kernels), "kernel_count": usual, "cold_kernel_us": cold_us,
            "warm_kernel_us": sum(kernel["warm_us"] for kernel in kernels)}  # fmt: skip


# ---- hardware counters

# Nsight Compute's metrics and ours.
COUNTERS = {
    "gpu__time_duration.sum": "time_ns",
    "l1tex__t_sector_hit_rate.pct": "l1_hit_percent",
    "lts__t_sector_hit_rate.pct": "l2_hit_percent",
    "l1tex__t_bytes.sum": "l1_bytes",
    "lts__t_bytes.sum": "l2_bytes",
    "dram__bytes_read.sum": "hbm_read_bytes",
    "dram__bytes_write.sum": "hbm_written_bytes",
    "sm__throughput.avg.pct_of_peak_sustained_elapsed": "sm_busy_percent",
    "sm__warps_active.avg.pct_of_peak_sustained_active": "occupancy_percent",
}
MARKER = "spin_kernel"  # what torch.cuda._sleep launches: it parts the cases in ncu's output


def ncu_command(numbers: Sequence[int], log: str | os.PathLike[str], ncu: str = "ncu") -> list[str]:
    """The command that reads the counters of those of `counter_cases()` into `log`, as CSV.

    Clocks are left as they are; before each of its replays of a kernel, ncu empties the caches.
    """
    return [
        ncu, "--csv", "--log-file", os.fspath(log), "--print-units", "base", "--clock-control", "none",
        "--cache-control", "all", "--profile-from-start", "off", "--metrics", ",".join(COUNTERS),
        sys.executable, "-m", __spec__.name if __spec__ else __name__, *map(str, numbers),
    ]  # fmt: skip


@dataclass(slots=True)
class CountedKernel:
    """A kernel and its counters, by our names."""

    name: str
    grid: str
    block: str
    counters: dict[str, float] = field(default_factory=dict)


def parse_ncu(text: str) -> list[list[CountedKernel]]:
    """ncu's CSV as kernels, case by case: a marker goes before each.

    Raises:
        InputError: there is no table in it; the message has what ncu said instead.
    """
    lines = text.splitlines()
    start = next((number for number, line in enumerate(lines) if line.startswith('"ID"')), None)
    if start is None:
        said = [line for line in lines if "==ERROR==" in line] or [line for line in lines if line.strip()][
            -1:
        ]
        raise InputError(f"ncu read no counters: {' '.join(said) or 'it wrote nothing'}")
    kernels: dict[str, CountedKernel] = {}
    table = [line for line in lines[start:] if line.startswith('"')]
    for row in csv.DictReader(io.StringIO("\n".join(table))):
        kernel = kernels.setdefault(
            row["ID"],
            CountedKernel(row["Kernel Name"], row.get("Grid Size") or "", row.get("Block Size") or ""),
        )
        value = _number(row.get("Metric Value") or "")
        if row.get("Metric Name") in COUNTERS and value is not None:
            kernel.counters[COUNTERS[row["Metric Name"]]] = value
    cases: list[list[CountedKernel]] = []
    for kernel in kernels.values():
        if MARKER in kernel.name:
            cases.append([])
        elif cases:
            cases[-1].append(kernel)
    return cases


def _counter_id(case: Case) -> str:
    return f"{COUNTER_FAMILY} {case.id}"


def _measure_counters(todo: list[Case], file: _File, device: str, begin: float, budget_s: float) -> Measured:
    ncu = shutil.which("ncu")
    if device != "cuda" or ncu is None:
        raise InputError("counters need a GPU and ncu (Nsight Compute), and there is no ncu on the PATH" if device == "cuda"
                         else "counters need a GPU; device is 'cpu'")  # fmt: skip
    if not todo:
        return Measured(0, 0, 0, time.monotonic() - begin)
    numbers = [counter_cases().index(case) for case in todo]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "counters.csv")
        command = ncu_command(numbers, log, ncu)
        left_s = max(budget_s - (time.monotonic() - begin), 1.0)
        nowhere = subprocess.DEVNULL
        with suppress(subprocess.TimeoutExpired):  # what the log holds by then still counts
            subprocess.run(command, timeout=left_s, check=False, stdout=nowhere, stderr=nowhere)
        found = parse_ncu(log.read_text(errors="replace") if log.exists() else "")
    rows = counter_rows(todo, found)
    file.append(rows)
    failed = sum(row["failure"] is not None for row in rows)
    return Measured(len(rows), failed, len(todo) - len(rows), time.monotonic() - begin)


def counter_rows(cases: Sequence[Case], found: Sequence[Sequence[CountedKernel]]) -> list[Row]:
    """The rows of the cases that ncu reached."""
    rows = []
    for case, kernels in zip(cases, found, strict=False):
        counted = [
            {"name": kernel.name[:200], "grid": kernel.grid, "block": kernel.block, **kernel.counters}
            for kernel in kernels
        ]
        time_us = sum(kernel.counters.get("time_ns", 0.0) for kernel in kernels) / 1e3
        rows.append(
            {**case.row(), "id": _counter_id(case), "family": COUNTER_FAMILY, "flops": case.flops, "nbytes": case.nbytes,
             "kernels": json.dumps(counted), "kernel_count": len(counted), "cold_kernel_us": time_us or None,
             "failure": None if counted else "it launched no kernels"}
        )  # fmt: skip
    return rows


def run_counter_cases(numbers: Sequence[int]) -> None:
    """What runs under ncu: each case once, a marker before it; warm-up stays out of sight."""
    import torch

    cases = [counter_cases()[number] for number in numbers]
    with torch.no_grad():
        for case in cases:
            torch.cuda._sleep(1000)
            try:
                prepared = prepare(case, torch, torch.device("cuda"))
                with prepared.context():
                    prepared.call()
                    torch.cuda.synchronize()
                    torch.cuda.cudart().cudaProfilerStart()
                    torch.cuda._sleep(1000)
                    prepared.call()
            except RuntimeError as error:
                torch.cuda.cudart().cudaProfilerStart()
                torch.cuda._sleep(1000)
                print(f"{case.id}: {_reason(error)}", file=sys.stderr)
            torch.cuda.synchronize()
            torch.cuda.cudart().cudaProfilerStop()


if __name__ == "__main__":
    run_counter_cases([int(number) for number in sys.argv[1:]])
