"""Golden figures: what the simulator says today, to nine digits. No change moves one unnoticed.

`golden.csv` holds latency, energy, peak memory and breakdown of every workload over seven devices and all launches
(sampled: each pair of device and launch meets many workloads), and time, energy and kernels of some three hundred single
operators. A change that should move figures is followed by `make golden`; its commit says which moved, and why. The
tests of planted faults ask golden to notice each.
"""

import csv
import dataclasses
import functools
import itertools
import math
import sys
import zlib
from collections import OrderedDict
from pathlib import Path

import pytest
from recorded_traces import LARGE

import simtti
from simtti.hw_configs.devices import load
from simtti.simulator.engine import l2, power, program, simulation
from simtti.simulator.kernels import attention, convolution, gemm_family, normalization, reuse
from simtti.simulator.lowering.registry import kernels_of
from simtti.simulator.predict import benchmark_energy, operator_time_s
from simtti.workloads.catalogue import WORKLOADS as ALL
from simtti.workloads.record import workload_trace

FILE = Path(__file__).parent / "golden.csv"
TOLERANCE = 1e-9
# The others run the same operators at other sizes: one run each.
WORKLOADS = [name for name in ALL if name not in LARGE]
LAUNCHES = ("eager", "graph", "compiled")
DEVICES = ("a100-sxm", "h100-sxm", "h200-sxm", "b200-sxm", "l40s", "v100-sxm", "t4")
OPERATOR_DEVICES = ("a100-sxm", "h100-sxm", "b200-sxm", "v100-sxm")
# Attention other than the device's own, and several GPUs: (workload, device, options of `run`).
SPECIAL = (
    ("stable-diffusion-1.5", "a100-sxm", {"attention": "baseline"}),
    ("stable-diffusion-1.5", "h100-sxm", {"attention": "efficient", "launch": "graph"}),
    ("make-a-video", "a100-sxm", {"attention": "baseline"}),
    ("muse", "a100-sxm", {"attention": "baseline", "launch": "compiled"}),
    ("imagen", "v100-sxm", {"attention": "baseline"}),
    ("svd", "h100-sxm", {"attention": "efficient"}),
    ("llama2-7b", "h100-sxm", {"attention": "baseline", "launch": "graph"}),
    ("wan2.1-1.3b", "h100-sxm", {"gpus": 4, "ulysses": 2, "ring": 2}),
    ("flux-dev", "h200-sxm", {"gpus": 2}),
)


def _product(op, dtypes=("fp16",), **columns):
    names = list(columns)
    for values in itertools.product(*columns.values()):
        for dtype in dtypes:
            yield {"op": op, "dtype": dtype, **dict(zip(names, values, strict=True))}


def _rows(op, names, *rows, dtypes=("fp16",)):
    for row in rows:
        for dtype in dtypes:
            yield {"op": op, "dtype": dtype, **dict(zip(names.split(), row, strict=True))}


OPERATORS = (
    *_rows("gemm", "m n k", (1, 4096, 4096), (17, 1280, 5120), (154, 320, 768), (1024, 1280, 1280), (4096, 320, 1279),
           (8192, 8192, 8192)),
    *_rows("gemm", "m n k batch", (64, 64, 64, 320), (8, 64, 8, 37632), (77, 4096, 64, 16), dtypes=("bf16",)),
    *_rows("gemm", "m n k", (512, 2048, 1024), (1, 1000, 2048), dtypes=("fp32",)),
    *_product("attention", kernel=("flash-attention-2", "flash-attention-3", "efficient", "baseline"), batch=(2,), heads=(8,),
              q_len=(4096,), kv_len=(4096,), head_dim=(40,)),
    *_rows("attention", "batch heads q_len kv_len head_dim causal", (2, 10, 4096, 77, 64, False), (4096, 8, 16, 16, 40, False),
           (1, 32, 1, 2048, 128, False), (1, 32, 1024, 1024, 128, True), (2, 8, 256, 256, 160, False), (1, 24, 512, 512, 512, False)),
    *_rows("attention", "batch heads q_len kv_len head_dim", (2, 8, 1024, 1024, 80), dtypes=("fp32",)),
    *_rows("attention", "batch heads q_len kv_len head_dim kernel", (1, 16, 2048, 2048, 128, "trtllm-fmha"), (4, 16, 900, 900, 64, "flash-attention-4")),
    *_rows("conv2d", "n c h w oc kh kw stride padding groups layout", (2, 320, 64, 64, 320, 3, 3, 1, 1, 1, "nchw"),
           (2, 320, 64, 64, 320, 3, 3, 1, 1, 1, "nhwc"), (1, 4, 64, 64, 320, 3, 3, 1, 1, 1, "nchw"), (1, 128, 512, 512, 3, 3, 3, 1, 1, 1, "nchw"),
           (2, 640, 32, 32, 640, 3, 3, 2, 1, 1, "nchw"), (2, 1280, 16, 16, 1280, 1, 1, 1, 0, 1, "nchw"),
           (1, 512, 32, 32, 512, 3, 3, 1, 1, 512, "nchw"), (1, 64, 32, 32, 64, 3, 3, 1, 1, 8, "nhwc"), (8, 1280, 8, 8, 1280, 3, 3, 1, 1, 1, "nhwc")),
    *_rows("conv2d", "n c h w oc kh kw padding", (2, 256, 128, 128, 256, 3, 3, 1), (1, 3, 256, 256, 64, 3, 3, 1), dtypes=("fp32",)),
    *_rows("conv3d", "n c d h w oc kd kh kw padding", (1, 96, 16, 60, 104, 96, 3, 3, 3, 1), (1, 320, 16, 32, 32, 320, 3, 1, 1, 0),
           dtypes=("bf16", "fp32")),
    *_rows("group_norm", "n c spatial groups", (2, 320, 4096, 32), (1, 512, 262144, 32), (16, 1280, 64, 32), dtypes=("fp16", "fp32")),
    *_rows("group_norm", "n c spatial layout", (2, 640, 1024, "nhwc")),
    *_rows("layer_norm", "rows cols", (8192, 320), (154, 1280), (4096, 1279), (131072, 3072)),
    *_rows("rms_norm", "rows cols", (8192, 128), (4096, 1536)),
    *_rows("softmax", "rows cols", (65536, 77), (32768, 4096), (4096, 4095), (512, 16384), dtypes=("fp16", "fp32")),
    *_rows("elementwise", "numel inputs function", (2621440, 2, "add"), (1 << 24, 1, "silu"), (77 * 768, 1, "gelu"), (1 << 26, 1, "mul_scalar"),
           (1000, 2, "div"), dtypes=("fp16", "fp32")),
    *_product("copy", numel=(4096, 1 << 24)),
    *_rows("permute", "rows cols batch inner", (4096, 320, 2, 1), (16, 4096, 1, 320), dtypes=("bf16", "fp32")),
    *_rows("cat", "n c c2 spatial", (2, 640, 320, 4096), (1, 1280, 1280, 64), dtypes=("fp16", "fp32")),
    *_rows("embedding", "rows cols table_rows", (77, 768, 49408), (4096, 4096, 32000)),
    *_rows("upsample", "n c h w scale", (2, 320, 32, 32, 2), (1, 512, 128, 128, 2)),
)  # fmt: skip


def inferences():
    """(workload, device, options) of every golden run: six for each workload, launches going round; one of each large one."""
    for number, workload in enumerate(WORKLOADS):
        for place in range(6):
            device = DEVICES[(number + place) % len(DEVICES)]
            yield workload, device, {"launch": LAUNCHES[(number // len(DEVICES) + place) % len(LAUNCHES)]}
    for workload in sorted(LARGE):
        number = zlib.crc32(workload.encode())
        launch = LAUNCHES[number // len(DEVICES) % len(LAUNCHES)]
        yield workload, DEVICES[number % len(DEVICES)], {"launch": launch, "fidelity": "closed"}
    yield from SPECIAL


@functools.cache
def _trace(workload):
    return workload_trace(workload)


def figures_of_run(workload, device, options):
    """Latency, energy, peak memory and breakdown of one run, by name."""
    result = simtti.run(_trace(workload), device, **options)
    whole = result.several_gpus or result
    figures = {"latency_s": whole.latency_s, "energy_j": whole.energy_j}
    figures["peak_memory_bytes"] = float(whole.peak_memory_bytes)
    breakdown = result.breakdown
    # Of what is nothing but rounding (a graph's host) the digits mean nothing.
    return figures | {f"breakdown.{name}": s for name, s in breakdown.items() if s > 1e-9 * result.latency_s}


def figures_of_operator(row, device):
    """Time, energy and number of kernels of a single operator, as `predict` times it."""
    hardware = load(device)
    kernels = kernels_of(row, hardware)
    joules = benchmark_energy(kernels, hardware)
    return {
        "time_us": operator_time_s(kernels, hardware) * 1e6,
        "energy_j": joules.core_j + joules.memory_j,
        "kernels": float(len(kernels)),
        "ctas": float(sum(kernel.grid for kernel in kernels)),
    }


def _name(*parts):
    words = []
    for part in parts:
        words.append(" ".join(f"{k}={v}" for k, v in part.items()) if isinstance(part, dict) else str(part))
    return " / ".join(words)


def cases():
    """Name of a case -> how to work its figures out, in the order of the file."""
    found = {}
    for workload, device, options in inferences():
        found[_name("run", workload, device, options)] = functools.partial(
            figures_of_run, workload, device, options
        )
    for device in OPERATOR_DEVICES:
        for row in OPERATORS:
            found[_name("predict", device, row)] = functools.partial(figures_of_operator, row, device)
    return found


CASES = cases()


@functools.cache
def golden():
    """Case -> figure -> value, as the file has them."""
    found = {}
    with FILE.open(newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["case"], {})[row["figure"]] = float(row["value"])
    return found


def moved(case, figures):
    """Lines that say which figures of a case are no longer those of the file."""
    kept = golden().get(case, {})
    lines = []
    # What waiting for the host is, is left when all else is taken from the latency: its digits end where the latency's do.
    rounding = TOLERANCE * 1e-2 * kept.get("latency_s", 0.0) or 1e-18
    for name in dict.fromkeys([*kept, *figures]):
        was, now = kept.get(name), figures.get(name)
        if was is None or now is None or not math.isclose(was, now, rel_tol=TOLERANCE, abs_tol=rounding):
            change = f" ({now / was - 1:+.3%})" if was and now is not None else ""
            lines.append(f"{case}: {name}: {was} -> {now}{change}")
    return lines


def write():
    """Work every figure out anew and say which moved."""
    lines, rows = [], []
    for number, (case, figures_of) in enumerate(CASES.items(), 1):
        figures = figures_of()
        lines += moved(case, figures) if FILE.exists() else []
        rows += [(case, name, f"{value:.12g}") for name, value in figures.items()]
        if sys.stderr.isatty():
            print(f"\r{number} of {len(CASES)} cases", end="", file=sys.stderr)
    with FILE.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("case", "figure", "value"), *rows])
    print("\n".join(lines) or "no figure moved")
    print(f"{FILE.name}: {len(rows)} figures of {len(CASES)} cases, {len(lines)} moved")


def test_the_file_has_the_cases():
    assert list(golden()) == list(CASES)
    devices_and_launches = {(device, options.get("launch")) for _, device, options in inferences()}
    assert len(devices_and_launches) >= len(DEVICES) * len(LAUNCHES)
    assert sum(case.startswith("predict") for case in CASES) >= 300


@pytest.mark.parametrize("workload", ALL)
def test_runs_are_golden(workload):
    chosen = [case for case in CASES if case.split(" / ")[:2] == ["run", workload]]
    lines = [line for case in chosen for line in moved(case, CASES[case]())]
    _trace.cache_clear()
    assert not lines, "figures moved; if they should, run `make golden`:\n" + "\n".join(lines)


@pytest.mark.parametrize("device", OPERATOR_DEVICES)
def test_operators_are_golden(device):
    chosen = [case for case in CASES if case.startswith(f"predict / {device} /")]
    lines = [line for case in chosen for line in moved(case, CASES[case]())]
    assert not lines, "figures moved; if they should, run `make golden`:\n" + "\n".join(lines)


# ---- planted faults, one by one: golden must see each


def _replaced(monkeypatch, module, name, change):
    """Put `change(what was there)` in its place."""
    monkeypatch.setattr(module, name, change(getattr(module, name)))


def _each_kernel(change):
    """A wrapper that changes every kernel that a function returns."""

    def wrap(function):
        def changed(*arguments, **options):
            found = function(*arguments, **options)
            return [change(kernel) for kernel in found] if isinstance(found, list) else change(found)

        return changed

    return wrap


def masked_attention_on_the_flash_kernel(monkeypatch):
    def without_mask(made):
        return lambda *a, **o: dataclasses.replace(made(*a, **o), masked=False)

    _replaced(monkeypatch, attention, "Attention", without_mask)


def group_norm_that_reads_once(monkeypatch):
    unread = _each_kernel(lambda kernel: dataclasses.replace(kernel, reads=(), l2_bytes=0.0))
    _replaced(monkeypatch, normalization, "_moments", unread)


def an_l2_that_finds_everything(monkeypatch):
    monkeypatch.setattr(l2.L2, "run", lambda self, launches: [0.0 for _ in launches])


def products_without_the_padding_of_their_tiles(monkeypatch):
    def useful(kernel):
        return dataclasses.replace(kernel, tensor_flops=min(kernel.tensor_flops, kernel.flops / kernel.grid))

    _replaced(monkeypatch, gemm_family, "gemm", _each_kernel(useful))


def convolutions_that_convert_nothing(monkeypatch):
    def unconverted(function):
        def stages(*arguments):
            found = function(*arguments)
            before, after = (
                tuple(kernel for kernel in kernels if kernel.family != "convolution_layout")
                for kernels in (found.before, found.after)
            )
            return found._replace(before=before, after=after)

        return stages

    _replaced(monkeypatch, convolution, "stages", unconverted)


def a_host_that_issues_for_nothing(monkeypatch):
    monkeypatch.setattr(program, "issue_s", lambda host, operators, libraries: [0.0] * len(operators))
    monkeypatch.setattr(program, "_kept", OrderedDict())


def a_power_limit_that_nobody_keeps(monkeypatch):
    monkeypatch.setattr(power, "held_power_w", lambda hardware: 1e9)


def a_peak_without_workspaces(monkeypatch):
    def bare(function):
        return lambda trace, rows, *rest: function(
            trace, [(operator, dataclasses.replace(one, workspace_bytes=0)) for operator, one in rows], *rest
        )

    _replaced(monkeypatch, simulation, "memory", bare)


FAULTS = (
    (masked_attention_on_the_flash_kernel, "hunyuan-video"),
    (group_norm_that_reads_once, "stable-diffusion-1.5"),
    (an_l2_that_finds_everything, "stable-diffusion-1.5"),
    (products_without_the_padding_of_their_tiles, "stable-diffusion-1.5"),
    (convolutions_that_convert_nothing, "stable-diffusion-1.5"),
    (a_host_that_issues_for_nothing, "stable-diffusion-1.5"),
    (a_power_limit_that_nobody_keeps, "flux-dev"),
    (a_peak_without_workspaces, "stable-diffusion-1.5"),
)


@pytest.mark.parametrize(("plant", "workload"), FAULTS, ids=[plant.__name__ for plant, _ in FAULTS])
def test_a_planted_fault_is_seen(monkeypatch, plant, workload, request):
    request.addfinalizer(reuse.forget)  # of what the fault left behind
    reuse.forget()
    plant(monkeypatch)
    chosen = [case for case in CASES if case.split(" / ")[:2] == ["run", workload]]
    lines = [line for case in chosen for line in moved(case, CASES[case]())]
    assert any("latency_s" in line or "peak_memory_bytes" in line for line in lines)


if __name__ == "__main__":
    write()
