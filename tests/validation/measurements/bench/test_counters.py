"""Hardware counters, from ncu's log into the file of measurements."""

import json
import os
import sys

import pytest
from fake_gpu import FakeTorch

from simtti.errors import InputError
from simtti.validation.measurements.bench import counters, file, measure, timing
from simtti.validation.measurements.suite import counter_cases

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
    monkeypatch.setattr(measure, "bench_on", lambda device: timing.CudaBench(FakeTorch(torch)))
    monkeypatch.setattr(timing.CudaBench, "_ramp_up", lambda bench: None)
    out = tmp_path / "c.parquet"
    assert measure.measure_suite("cuda", out, counters=True).measured == len(cases)
    rows = file.read_measurements(out)[0].to_pylist()
    assert {row["family"] for row in rows} == {"counters"}
    assert measure.measure_suite("cuda", out, counters=True).measured == 0
    monkeypatch.undo()
    with pytest.raises(InputError, match="counters need a GPU"):
        measure.measure_suite("cpu", tmp_path / "d.parquet", counters=True)
