"""The suite of single operators, what measuring them writes, and the campaign. On a CPU: no GPU has run it."""

import json
import os
import subprocess
import sys
import tarfile
from collections import Counter
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simtti.errors import InputError
from simtti.hw_configs.devices import load
from simtti.simulator.lowering.registry import FAMILIES
from simtti.simulator.predict import kernels_of, predict
from simtti.validation.measurements import campaign
from simtti.validation.measurements.bench import counters, driver, file, kernels, measure, timing
from simtti.validation.measurements.suite import (
    WORTH,
    batches,
    counter_cases,
    estimated_s,
    family_cases,
    suite,
)
from simtti.workloads.catalogue import WORKLOADS
from simtti.workloads.trace import Trace

SUITE = suite()
# Ops that no row of `simtti predict` can say, so that a table of measurements does not misreport them.
GAPS = {
    "temporal_conv",
    "math_attention",
    "move",
    "cast",
    "broadcast",
    "geglu",
    "launch",
}


def values(cases, *names):
    return {tuple(dict(case.shape)[name] for name in names) for case in cases}


# ---- the suite


def test_every_family_has_its_cases():
    least = {"conv2d": 1500, "conv3d": 500, "temporal_attention": 500, "group_norm": 250, "layout": 300, "launch": 12,
             "spatial_attention": 500, "cross_attention": 300, "gemm": 250, "attention_parts": 150}  # fmt: skip
    count = Counter(case.family for case in SUITE)
    assert set(count) == set(WORTH)
    assert all(count[family] >= least.get(family, 30) for family in WORTH), count
    assert len(SUITE) < 10_000
    assert len({case.id for case in SUITE}) == len(SUITE)


def test_convolutions_cover_the_channels_sizes_layouts_and_dtypes_of_the_models():
    conv2d = family_cases("conv2d")
    assert {(1,), (3,)} <= values(conv2d, "kh")
    assert values(conv2d, "layout") == {("nchw",), ("nhwc",)}
    channels = {channel for (channel,) in values(conv2d, "c")}
    assert min(channels) <= 4
    assert max(channels) >= 2560
    assert {8, 16, 32, 64, 96, 128, 512, 1024} <= {size for (size,) in values(conv2d, "h")}
    assert {case.dtype for case in conv2d} == {"fp16", "bf16", "fp32"}
    conv3d = family_cases("conv3d")
    assert {(3, 1, 1), (3, 3, 3), (1, 3, 3)} <= values(conv3d, "kd", "kh", "kw")
    assert values(conv3d, "layout") == {("ncdhw",), ("ndhwc",)}


def test_attention_covers_space_time_and_text_by_backend():
    spatial, cross = family_cases("spatial_attention"), family_cases("cross_attention")
    lengths = {length for (length,) in values(spatial, "q_len")}
    assert min(lengths) <= 64
    assert max(lengths) >= 16384
    assert {40, 64, 80, 128, 160} <= {dim for (dim,) in values(spatial, "head_dim")}
    assert values(spatial, "backend") == {("flash",), ("efficient",), ("math",), ("cudnn",), ("baseline",)}
    assert {(77,), (256,), (512,)} <= values(cross, "kv_len")
    temporal = family_cases("temporal_attention")
    frames = {frames for (frames,) in values(temporal, "q_len")}
    assert min(frames) == 4
    assert max(frames) == 128
    sequences = {batch for (batch,) in values(temporal, "batch")}
    assert max(sequences) == 100_000
    assert {(layout,) for layout in ("blhd", "bhld", "strided")} == values(temporal, "layout")


def test_copies_reach_from_inside_the_l2_to_far_beyond():
    sizes = sorted(case["numel"] * 2 for case in family_cases("copy_bandwidth") if case.dtype == "fp16")
    assert sizes[0] <= 1024
    assert sizes[-1] >= 1 << 30
    assert sum(20 << 20 <= size <= 160 << 20 for size in sizes) >= 6


def test_the_typical_convolutions_are_those_of_stable_diffusion():
    """Every convolution of the shipped trace's denoising step, but for what is no UNet's, is a typical case."""
    trace = Trace.load(campaign.ROOT / "workloads" / "traces" / "recorded" / "stable-diffusion-1.5.parquet")
    step = next(phase for phase in trace.phases if phase.name == "denoising").steps[0]
    names = ("n", "c", "h", "w", "oc", "kh", "stride", "padding")
    typical = values([case for case in family_cases("conv2d") if case.typical], *names)
    shapes = set()
    for operator in step.operators:
        if operator.op == "aten::convolution":
            image, weight = operator.inputs[0].shape, operator.inputs[1].shape
            shapes.add(
                (
                    *image,
                    weight[0],
                    weight[2],
                    operator.attributes["stride"][0],
                    operator.attributes["padding"][0],
                )
            )
    assert len(shapes) > 30
    assert not shapes - typical


def test_a_start_has_every_family_and_launches_come_before_any_profiler():
    families = len(WORTH)
    launches = len(family_cases("launch"))
    assert {case.family for case in SUITE[: launches + families - 1]} == set(WORTH)
    assert {case.family for case in SUITE[:launches]} == {"launch"}
    order = [case.family for case in SUITE[launches : launches + families - 1]]
    assert order == [family for family in WORTH if family != "launch"]


@given(st.integers(100, len(SUITE)))
def test_any_prefix_holds_each_family_by_its_worth_and_its_typical_shapes_first(length):
    count = Counter(case.family for case in SUITE[:length])
    rounds = max((count[family] - 1) / worth for family, worth in WORTH.items() if family != "launch")
    for family, worth in WORTH.items():
        cases = [case for case in SUITE if case.family == family]
        if family != "launch":
            assert count[family] >= min(len(cases), int(rounds * worth) - 4), (
                family
            )  # 4: cases it shares with another
        done = [case.typical for case in cases[: count[family]]]
        assert done == sorted(done, reverse=True)


def test_a_prefix_samples_the_grid_rather_than_walking_it():
    cases = [case for case in family_cases("conv2d") if not case.typical]
    start = cases[: len(cases) // 8]
    assert values(start, "kh", "layout") >= {(1, "nchw"), (1, "nhwc"), (3, "nchw"), (3, "nhwc")}
    assert len(values(start, "c")) > 0.7 * len(values(cases, "c"))
    assert len(values(start, "h")) > 0.7 * len(values(cases, "h"))
    assert {case.dtype for case in start} >= {"fp16", "bf16"}


def test_the_suite_fits_its_limits_and_its_estimate_two_pieces():
    assert max(case.nbytes for case in SUITE) <= 3.2e9
    assert sum(map(estimated_s, SUITE)) < 1000
    assert [case for batch in batches(SUITE) for case in batch] == SUITE
    assert all(len(batch) == 1 or sum(case.nbytes for case in batch) <= 8e9 for batch in batches(SUITE))


def test_every_row_is_one_predict_takes_or_a_known_gap():
    """With the kernels' models as they are; a gap that predict learns to fill leaves the list here."""
    hardware = load("h100-sxm")
    assert {case.op for case in SUITE} - set(FAMILIES) <= GAPS
    for case in SUITE:
        if case.op in FAMILIES:
            assert kernels_of(case.row(), hardware), case.id


def test_unknown_family_and_suite():
    with pytest.raises(InputError, match="unknown family 'conv'; did you mean"):
        suite(["conv"])
    with pytest.raises(InputError, match="unknown suite 'llm'"):
        suite(name="llm")


# ---- measuring


@pytest.fixture
def few(monkeypatch):
    """A suite of a few quick cases, in batches of two."""
    cases = [
        case
        for case in suite(["launch"])
        if case.text("function") in ("nothing", "view", "add", "add_", "silu")
    ]
    monkeypatch.setattr(measure, "suite", lambda families=None, name="tti": cases)
    monkeypatch.setattr(measure, "batches", lambda todo, **limits: batches(todo, 2))
    return cases


def test_a_cpu_run_measures_every_family(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    smallest = [
        min(
            (case for case in suite([family]) if case.dtype == "fp16"),
            key=lambda case: case.flops + case.nbytes,
        )
        for family in WORTH
    ]
    monkeypatch.setattr(measure, "suite", lambda families=None, name="tti": smallest)
    seen = []
    done = measure.measure_suite(
        "cpu", tmp_path / "k.parquet", budget_s=60, progress=lambda *at: seen.append(at)
    )
    assert (done.measured, done.left) == (len(WORTH), 0)
    table, metadata = file.read_measurements(tmp_path / "k.parquet")
    frame = table.to_pandas()
    assert set(frame.family) == set(WORTH)
    timed = frame[frame.failure.isna()]
    assert len(timed) >= len(WORTH) - 2
    assert (timed.warm_p10_us <= timed.warm_us).all()
    assert (timed.warm_us <= timed.warm_p90_us).all()
    assert (timed.cold_us > 0).all()
    assert seen[-1] == (len(WORTH), len(WORTH))
    run = metadata["runs"][0]
    assert {"date", "command", "script", "torch", "python", "simtti", "host"} <= set(run)
    assert run["command"] == "simtti capture kernels --suite tti --device cpu --budget-s 60"
    assert metadata["device"]["name"]
    assert str(tmp_path) not in json.dumps(metadata)
    predicted = predict(tmp_path / "k.parquet", "h100-sxm")
    known = predicted.op.isin(list(FAMILIES))
    assert (predicted.error[known] == "").all()
    assert predicted.time_us[known].gt(0).all()
    assert predicted.error[~known].str.contains("unknown op").all()


def test_every_operator_of_the_suite_can_be_built(monkeypatch):
    """Each op, function, backend and layout at its smallest, on the meta device: the call gives a tensor."""
    torch = pytest.importorskip("torch")
    kinds = {}
    for case in SUITE:
        columns = dict(case.shape)
        key = (
            case.op,
            *(
                columns.get(name)
                for name in ("function", "backend", "layout", "bias", "inputs", "kd", "groups")
            ),
        )
        if key not in kinds or case.nbytes < kinds[key].nbytes:
            kinds[key] = case
    tried = 0
    for case in kinds.values():
        fused = dict(case.shape).get("backend") in ("flash", "efficient", "cudnn")
        if case.op == "launch" or fused:  # graphs and fused kernels need a device
            continue
        with torch.no_grad(), measure.quiet():
            prepared = measure.prepare(case, torch, torch.device("meta"))
            with prepared.context():
                assert prepared.call().numel() > 0, case.id
        tried += 1
    assert tried > 40


def test_a_run_goes_on_where_the_last_one_stopped(tmp_path, few):
    pytest.importorskip("torch")
    out = tmp_path / "k.parquet"
    calls = 0

    def stop(done, total):
        nonlocal calls
        calls += 1
        if calls == 2:  # after the first batch
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure.measure_suite("cpu", out, progress=stop)
    table, metadata = file.read_measurements(out)
    assert table.column("id").to_pylist() == [case.id for case in few[:2]]
    assert measure.measure_suite("cpu", out).measured == len(few) - 2
    table, metadata = file.read_measurements(out)
    assert table.column("id").to_pylist() == [case.id for case in few]
    assert table.column("run").to_pylist() == [0, 0, 1, 1, 1]
    assert len(metadata["runs"]) == 2
    assert measure.measure_suite("cpu", out).measured == 0
    other = measure.measure_suite("cpu", tmp_path / "other.parquet", skip=[out])
    assert (other.measured, other.left) == (0, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["k.parquet"]


def test_an_interruption_within_a_batch_or_a_write_loses_that_batch_only(tmp_path, few, monkeypatch):
    pytest.importorskip("torch")
    out = tmp_path / "k.parquet"
    prepare, write, count = measure.prepare, pq.write_table, Counter()

    def interrupted(case, torch, device):
        if case.id == few[3].id:
            raise KeyboardInterrupt
        return prepare(case, torch, device)

    monkeypatch.setattr(measure, "prepare", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measure.measure_suite("cpu", out)
    assert file.read_measurements(out)[0].num_rows == 2
    monkeypatch.setattr(measure, "prepare", prepare)

    def half_written(table, path, **options):
        write(table, path, **options)
        os.truncate(path, 100)
        count["writes"] += 1
        raise KeyboardInterrupt

    monkeypatch.setattr(pq, "write_table", half_written)
    with pytest.raises(KeyboardInterrupt):
        measure.measure_suite("cpu", out)
    assert count["writes"] == 1
    assert file.read_measurements(out)[0].num_rows == 2
    assert [path.name for path in tmp_path.iterdir()] == ["k.parquet"]


def test_a_budget_ends_a_run_and_a_failure_is_a_row(tmp_path, few, monkeypatch):
    pytest.importorskip("torch")
    prepare = measure.prepare

    def failing(case, torch, device):
        if case.id == few[0].id:
            raise RuntimeError("CUDA out of memory. Tried to allocate\nmore")
        return prepare(case, torch, device)

    monkeypatch.setattr(measure, "prepare", failing)
    done = measure.measure_suite("cpu", tmp_path / "k.parquet", budget_s=1e-9)
    assert (done.measured, done.left) == (0, len(few))
    done = measure.measure_suite("cpu", tmp_path / "k.parquet")
    assert (done.measured, done.failed) == (len(few), 1)
    row = file.read_measurements(tmp_path / "k.parquet")[0].to_pylist()[0]
    assert row["failure"] == "RuntimeError: CUDA out of memory. Tried to allocate"
    assert row["warm_us"] is None


def test_a_device_that_is_lost_stops_the_run_with_its_rows_kept(tmp_path, few, monkeypatch):
    pytest.importorskip("torch")
    prepare = measure.prepare

    def failing(case, torch, device):
        if case.id == few[2].id:
            raise RuntimeError("an illegal memory access was encountered")
        return prepare(case, torch, device)

    monkeypatch.setattr(measure, "prepare", failing)
    monkeypatch.setattr(timing.Bench, "recover", lambda bench: setattr(bench, "lost", True))
    with pytest.raises(InputError, match=r"the device failed at .*illegal memory access"):
        measure.measure_suite("cpu", tmp_path / "k.parquet")
    rows = file.read_measurements(tmp_path / "k.parquet")[0].to_pylist()
    assert [row["failure"] is None for row in rows] == [True, True, False]


def test_foreign_files_and_devices_are_refused(tmp_path, few):
    pytest.importorskip("torch")
    path = tmp_path / "k.parquet"
    with pytest.raises(InputError, match="unknown device to measure on 'tpu'"):
        measure.measure_suite("tpu", path)
    with pytest.raises(InputError, match=r"written as \.parquet"):
        measure.measure_suite("cpu", tmp_path / "k.csv")
    with pytest.raises(InputError, match="no such file"):
        measure.measure_suite("cpu", path, skip=[tmp_path / "none.parquet"])
    pq.write_table(pa.table({"id": ["x"]}), path)
    with pytest.raises(InputError, match="not a file of measurements"):
        measure.measure_suite("cpu", path)
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match="not a readable"):
        measure.measure_suite("cpu", path)
    path.unlink()
    measure.measure_suite("cpu", path)
    table, metadata = file.read_measurements(path)
    metadata["device"]["name"] = "NVIDIA X100"
    pq.write_table(table.replace_schema_metadata({file.METADATA_KEY: json.dumps(metadata).encode()}), path)
    with pytest.raises(InputError, match="holds measurements of NVIDIA X100, and this is"):
        measure.measure_suite("cpu", path)


# ---- the GPU's part, as far as it goes without one


class _FakeCuda(SimpleNamespace):
    """torch.cuda's calls that measuring makes; an event's time is the CPU's."""

    def __init__(self):
        import time

        class Event:
            def __init__(self, enable_timing):
                self.at = 0.0

            def record(self):
                self.at = time.perf_counter()

            def synchronize(self):
                pass

            def elapsed_time(self, later):
                return (later.at - self.at) * 1e3

        properties = SimpleNamespace(name="Fake", multi_processor_count=2, total_memory=1 << 30, L2_cache_size=1 << 16,
                                     major=9, minor=0, uuid=None)  # fmt: skip
        super().__init__(
            Event=Event, current_device=lambda: 0, get_device_properties=lambda device: properties,
            mem_get_info=lambda device: (1 << 30, 1 << 30), synchronize=lambda: None, _sleep=lambda cycles: None,
            memory_reserved=lambda: 0, empty_cache=lambda: None, is_available=lambda: True,
        )  # fmt: skip


class _FakeTorch:
    """torch, with a GPU that is the CPU."""

    def __init__(self, torch):
        self._torch, self.cuda = torch, _FakeCuda()

    def device(self, *names):
        return self._torch.device("cpu")

    def __getattr__(self, name):
        return getattr(self._torch, name)


def test_the_gpu_bench_runs_through_with_a_fake_gpu(tmp_path, few, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(measure, "bench_on", lambda device: timing.CudaBench(_FakeTorch(torch)))
    monkeypatch.setattr(timing.CudaBench, "_ramp_up", lambda bench: None)
    done = measure.measure_suite("cuda", tmp_path / "k.parquet")
    assert (done.measured, done.failed) == (len(few), 0)
    table, metadata = file.read_measurements(tmp_path / "k.parquet")
    assert metadata["device"]["name"] == "Fake"
    assert metadata["device"]["l2_bytes"] == 1 << 16
    assert {"cuda", "cudnn"} <= set(metadata["runs"][0])
    assert all(row["warm_us"] > 0 and row["cold_us"] > 0 for row in table.to_pylist())


def test_clocks_come_from_nvidia_smi_where_there_is_no_pynvml(tmp_path, monkeypatch):
    smi = tmp_path / "nvidia-smi"
    smi.write_text("""#!/bin/sh
case "$1" in *driver_version*) echo "570.10, 1980, 2619, 700.00";; *) echo "1755, 2619, 41, [N/A]";; esac
""")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    found = driver.Smi(None)
    assert found.facts() == {
        "driver": "570.10",
        "max_sm_clock_mhz": 1980.0,
        "max_memory_clock_mhz": 2619.0,
        "power_limit_w": 700.0,
    }
    assert found.state() == {
        "sm_clock_mhz": 1755.0,
        "memory_clock_mhz": 2619.0,
        "temperature_c": 41.0,
        "power_w": None,
    }
    smi.unlink()
    assert found.facts()["driver"] is None


def test_out_of_memory_is_tried_again_once_the_allocator_let_go(tmp_path, few, monkeypatch):
    pytest.importorskip("torch")
    prepare, tried = measure.prepare, Counter()

    def failing(case, torch, device):
        tried[case.id] += 1
        if tried[case.id] == 1 and case.id == few[1].id:
            raise RuntimeError("CUDA out of memory.")
        return prepare(case, torch, device)

    monkeypatch.setattr(measure, "prepare", failing)
    assert measure.measure_suite("cpu", tmp_path / "k.parquet").failed == 0
    assert tried[few[1].id] == 2


def _event(cat, name, ts, dur, **arguments):
    return {"ph": "X", "cat": cat, "name": name, "ts": ts, "dur": dur, "args": arguments}


def test_kernels_are_those_launched_within_a_label():
    events = [
        _event("kernel", "flush", 900, 80.0, correlation=1),
        _event("cuda_runtime", "cudaLaunchKernel", 5, 2, correlation=1),
    ]
    for launch, (label, at) in enumerate(
        (("simtti 0 warm", 100), ("simtti 0 warm", 200), ("simtti 0 cold", 300))
    ):
        events.append(_event("user_annotation", label, at, 50))
        events.append(_event("gpu_user_annotation", label, at + 700, 50))
        for place, name in enumerate(("transpose", "product")):
            number = 10 * launch + place + 10
            grid = [4, place + 1, 1]
            events.append(
                _event("cuda_runtime", "cudaLaunchKernel", at + 10 * place + 1, 4, correlation=number)
            )
            events.append(_event("kernel", name, 1000 + number, 3.0 + place + launch, correlation=number, grid=grid,
                                 block=[128, 1, 1], **{"registers per thread": 32, "shared memory": 1024}))  # fmt: skip
    found = kernels.kernels_by_label({"traceEvents": list(reversed(events))})
    assert [[kernel["name"] for kernel in launch] for launch in found["simtti 0 warm"]] == [
        ["transpose", "product"]
    ] * 2
    columns = kernels.kernel_columns(found["simtti 0 warm"], found["simtti 0 cold"])
    assert columns["kernel_count"] == 2
    assert columns["warm_kernel_us"] == 3.5 + 4.5
    assert columns["cold_kernel_us"] == 5.0 + 6.0
    product = json.loads(columns["kernels"])[1]
    assert (product["name"], product["grid"], product["registers"], product["shared_memory_bytes"]) == (
        "product",
        [4, 2, 1],
        32,
        1024,
    )
    assert kernels.kernel_columns([], []) == {}


# ---- counters

_HEADER = '"ID","Process ID","Process Name","Host Name","Kernel Name","Context","Stream","Block Size","Grid Size","Device","CC","Section Name","Metric Name","Metric Unit","Metric Value"'


def _ncu_csv(*kernels):
    """ncu's log in the form of version 2023 to 2025: a line a metric of each kernel."""
    lines = ["==PROF== Connected to process 77 (/usr/bin/python3.12)", '==PROF== Profiling "spin_kernel": 0%....100% - 3 passes',
             "==PROF== Disconnected from process 77", _HEADER]  # fmt: skip
    for number, (name, l1, l2) in enumerate(kernels):
        values = {"gpu__time_duration.sum": ("ns", "12,345"), "l1tex__t_sector_hit_rate.pct": ("%", l1),
                  "lts__t_sector_hit_rate.pct": ("%", l2), "dram__bytes_read.sum": ("byte", "1,048,576")}  # fmt: skip
        for metric, (unit, value) in values.items():
            lines.append(f'"{number}","77","python3.12","127.0.0.1","{name}","1","7","(128, 1, 1)","(64, 8, 1)","0","9.0",'
                         f'"Command line profiler metrics","{metric}","{unit}","{value}"')  # fmt: skip
    return "\n".join(lines) + "\n"


SPIN = "at::cuda::<unnamed>::spin_kernel(long)"


def test_counters_are_read_case_by_case():
    text = _ncu_csv((SPIN, "0", "0"), ("flash_fwd_kernel", "40.5", "61.2"), (SPIN, "0", "0"), (SPIN, "0", "0"),
                    ("gemm", "1", "n/a"), ("softmax", "2", "55"))  # fmt: skip
    found = counters.parse_ncu(text)
    assert [[kernel.name for kernel in case] for case in found] == [
        ["flash_fwd_kernel"],
        [],
        ["gemm", "softmax"],
    ]
    assert found[0][0].counters == {
        "time_ns": 12345.0,
        "l1_hit_percent": 40.5,
        "l2_hit_percent": 61.2,
        "hbm_read_bytes": 1048576.0,
    }
    assert found[0][0].grid == "(64, 8, 1)"
    assert "l2_hit_percent" not in found[2][0].counters
    cases = counter_cases()
    rows = counters.counter_rows(cases, found)
    assert [row["failure"] is None for row in rows] == [True, False, True]
    assert rows[0]["id"] == f"counters {cases[0].id}"
    assert rows[2]["cold_kernel_us"] == pytest.approx(24.69)
    assert json.loads(rows[0]["kernels"])[0]["l1_hit_percent"] == 40.5


@pytest.mark.parametrize(("text", "reason"), [
    ("==ERROR== ERR_NVGPUCTRPERM - The user does not have permission to access counters\n", "ERR_NVGPUCTRPERM"),
    ("==PROF== Connected\n==WARNING== No kernels were profiled.\n", "No kernels were profiled"),
    ("", "it wrote nothing"),
])  # fmt: skip
def test_ncu_that_read_nothing_says_why(text, reason):
    with pytest.raises(InputError, match=reason):
        counters.parse_ncu(text)


def test_the_ncu_command_leaves_the_clocks_alone_and_names_the_cases():
    command = counters.ncu_command([0, 3], "log.csv")
    assert command[0] == "ncu"
    assert command[-5:] == [sys.executable, "-m", "simtti.validation.measurements.bench.counters", "0", "3"]
    assert command[command.index("--clock-control") + 1] == "none"
    assert "lts__t_sector_hit_rate.pct" in command[command.index("--metrics") + 1]


def test_counters_go_through_ncu_into_the_file(tmp_path, monkeypatch):
    """A stand-in for ncu writes the log that its arguments name."""
    torch = pytest.importorskip("torch")
    cases = counter_cases()
    log = _ncu_csv(*(kernel for _ in cases for kernel in ((SPIN, "0", "0"), ("k", "30", "70"))))
    (tmp_path / "canned.csv").write_text(log)
    ncu = tmp_path / "ncu"
    ncu.write_text(
        f'#!/bin/sh\nwhile [ "$1" != --log-file ]; do shift; done\ncp {tmp_path}/canned.csv "$2"\n'
    )
    ncu.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(measure, "bench_on", lambda device: timing.CudaBench(_FakeTorch(torch)))
    monkeypatch.setattr(timing.CudaBench, "_ramp_up", lambda bench: None)
    out = tmp_path / "c.parquet"
    assert measure.measure_suite("cuda", out, counters=True).measured == len(cases)
    rows = file.read_measurements(out)[0].to_pylist()
    assert {row["family"] for row in rows} == {"counters"}
    assert measure.measure_suite("cuda", out, counters=True).measured == 0
    monkeypatch.undo()
    with pytest.raises(InputError, match="counters need a GPU"):
        measure.measure_suite("cpu", tmp_path / "d.parquet", counters=True)


def test_counter_cases_compare_time_and_space_on_the_same_tokens():
    spatial, temporal = counter_cases()[:2]
    assert (spatial.text("kind"), temporal.text("kind")) == ("spatial", "temporal")
    assert spatial["batch"] * spatial["q_len"] == temporal["batch"] * temporal["q_len"]
    assert spatial.flops > temporal.flops
    assert all(case.op == "move" or kernels_of(case.row(), load("h100-sxm")) for case in counter_cases())


# ---- the campaign


def test_the_campaign_traces_every_workload_at_two_shapes_and_both_attentions():
    jobs = campaign.trace_jobs(WORKLOADS)
    assert len({job.name for job in jobs}) == len(jobs) == 4 * len(WORKLOADS)
    assert [job.workload for job in jobs[:2]] == ["stable-diffusion-1.5", "modelscope-t2v"]
    assert {job.attention for job in jobs[: len(WORKLOADS)]} == {"flash"}
    assert not any(job.options for job in jobs[: 2 * len(WORKLOADS)])
    for job in jobs:
        WORKLOADS[job.workload].options(**dict(job.options))
    half = next(job for job in jobs if job.options)
    assert half.arguments("cuda", "x.parquet") == ["capture", "stable-diffusion-1.5", "--device", "cuda", "--attention", "flash",
                                                   "--height", "256", "--width", "256", "-o", "x.parquet"]  # fmt: skip


def _pretend(size, fail=()):
    """A run of `simtti capture` that writes a file of that size, or fails."""
    asked = []

    def run(arguments, seconds):
        asked.append(arguments)
        if arguments[1] in fail:
            return subprocess.CompletedProcess(arguments, 2, "", "simtti: error: out of memory\n")
        with open(arguments[-1], "wb") as file:
            file.write(b"x" * size)
        return subprocess.CompletedProcess(arguments, 0, "", "")

    return run, asked


def test_traces_are_packed_into_few_files_and_not_taken_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(campaign, "MAX_FILE_BYTES", 100_000)
    jobs = [campaign.Job(f"w{number}", (), "flash") for number in range(6)]
    run, asked = _pretend(20_000, fail=("w1",))
    end = campaign.time.monotonic() + 100
    assert campaign.take_traces(jobs, tmp_path, set(), end, "cpu", run) == 0
    archives = sorted(tmp_path.glob("*.tar"))
    names = []
    for archive in archives:
        with tarfile.open(archive) as opened:
            names += opened.getnames()
    assert names == [job.name for job in jobs if job.workload != "w1"]
    assert len(archives) > 1
    assert all(archive.stat().st_size <= 100_000 for archive in archives)
    assert campaign.already_taken(tmp_path) == {job.name for job in jobs}
    assert campaign.take_traces(jobs, tmp_path, campaign.already_taken(tmp_path), end, "cpu", run) == 0
    assert len(asked) == len(jobs)


def test_a_piece_stops_when_its_files_are_full_or_its_time_is_up(tmp_path, monkeypatch):
    monkeypatch.setattr(campaign, "MAX_FILE_BYTES", 60_000)
    monkeypatch.setattr(campaign, "MAX_ARCHIVES", 2)
    jobs = [campaign.Job(f"w{number}", (), "flash") for number in range(9)]
    run, asked = _pretend(20_000)
    campaign.take_traces(jobs, tmp_path, set(), campaign.time.monotonic() + 100, "cpu", run)
    assert len(list(tmp_path.iterdir())) <= 4
    assert len(campaign.already_taken(tmp_path)) < len(jobs)
    asked.clear()
    campaign.take_traces(jobs, tmp_path, set(), campaign.time.monotonic() + 1, "cpu", run)
    assert not asked


def test_the_campaign_runs_from_a_checkout_that_is_not_installed(tmp_path):
    """`check` on what a CPU measured, through the script itself."""
    pytest.importorskip("torch")
    script = campaign.ROOT / "validation" / "measurements" / "campaign.py"
    measure.measure_suite("cpu", tmp_path / "kernels-1.parquet", budget_s=20, families=["launch"])
    done = subprocess.run(
        [sys.executable, str(script), "check", "--results", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    assert "12 rows of 1 families" in done.stdout
    (tmp_path / "kernels-2.parquet").write_bytes(b"cut short")
    done = subprocess.run(
        [sys.executable, str(script), "check", "--results", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "PROBLEM" in done.stdout
