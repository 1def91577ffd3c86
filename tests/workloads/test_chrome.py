"""Chrome export: what goes out comes in again, and follows the format."""

import json
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kineto_files import SHARED, imported, kernel, launch, op

from simtti.errors import InputError
from simtti.workloads.chrome import trace_to_chrome
from simtti.workloads.kineto import import_kineto, summary
from simtti.workloads.trace import (
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

times = st.integers(1, 10**7).map(lambda ns: ns / 1000)


@st.composite
def timed_traces(draw):
    """Operators one after the other, and kernels anywhere, tied and not, launched together and not recorded."""
    host, operators, at = [], [], 0.0
    for row in range(draw(st.integers(0, 5))):
        start = round(at + draw(st.integers(1, 5000)) / 1000, 3)
        length = draw(st.integers(2000, 9000)) / 1000
        at = round(start + length, 3)
        host.append(HostTime(start, length, 0.0, 1))
        shape = tuple(draw(st.lists(st.integers(1, 9), max_size=3)))
        size = math.prod(shape) * 2
        uses = tuple(
            TensorUse(i, shape, row_major(shape), "fp16", size, "input")
            for i in range(draw(st.integers(0, 2)))
        )
        operators.append(
            Operator(
                "p",
                0,
                row,
                "m",
                draw(st.sampled_from(["aten::mm", "aten::relu"])),
                "Linear",
                uses,
                (),
                {},
                False,
            )
        )
    kernels = []
    device = draw(st.integers(0, 1))  # a trace is one GPU's
    for correlation in range(draw(st.integers(0 if operators else 1, 5))):
        row = draw(st.integers(0, len(operators) - 1)) if operators and draw(st.booleans()) else None
        launched = None if row is None else round(host[row].start_us + 0.5, 3)
        kind = draw(st.sampled_from(["kernel", "memcpy", "memset"]))
        for _ in range(draw(st.integers(1, 3))):
            kernels.append(
                TimedKernel(
                    draw(st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=5)), draw(times), draw(times), row, kind, device,
                    draw(st.integers(0, 9)), correlation + 1, launched, None if row is None else 1.0,
                    *(((1, 2, 3), (64, 1, 1), 32, 0, None) if kind == "kernel" else (None, None, None, None, 4)),
                )
            )  # fmt: skip
    kernels.sort(key=lambda item: item.start_us)
    first = min([k.start_us for k in kernels] + [time.start_us for time in host])
    shifted = Timing(tuple(kernels), tuple(host), {"name": "GPU", "sm_count": 4})
    return Trace("t", {}, (Phase("p", (Step(1, tuple(operators)),)),), timing=shifted), first


@given(timed_traces())
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_what_is_exported_is_imported(tmp_path, drawn):
    trace, first = drawn
    (tmp_path / "a.json").write_text(trace_to_chrome(trace))
    again = import_kineto(tmp_path / "a.json")
    assert len(again.timing.kernels) == len(trace.timing.kernels)
    key = lambda k: (k.start_us, k.correlation, k.duration_us, k.name, k.device, k.stream)  # noqa: E731
    for ours, theirs in zip(
        sorted(again.timing.kernels, key=key), sorted(trace.timing.kernels, key=key), strict=True
    ):
        assert ours.start_us == pytest.approx(theirs.start_us - first, abs=1e-3)
        for name in (
            "name",
            "duration_us",
            "operator",
            "kind",
            "device",
            "stream",
            "correlation",
            "grid",
            "block",
            "nbytes",
        ):
            assert getattr(ours, name) == getattr(theirs, name)
    before, after = summary(trace), summary(again)
    for name in ("operators", "kernels", "kernel_time_us", "copies", "copy_time_us"):
        assert after[name] == pytest.approx(before[name])
    # Starts count from the first event, in whole nanoseconds.
    assert after["gpu_idle_us"] == pytest.approx(before["gpu_idle_us"], abs=0.05)


def check_rules(text):
    """What ui.perfetto.dev's importer asks of a file: sorted, nested slices, paired flows, named tracks."""
    content = json.loads(text)
    events = content["traceEvents"]
    named = {(e["pid"], e["tid"]) for e in events if e["ph"] == "M" and e["name"] == "thread_name"}
    processes = {e["pid"] for e in events if e["ph"] == "M" and e["name"] == "process_name"}
    timed = [e for e in events if e["ph"] != "M"]
    assert [e["ts"] for e in timed] == sorted(e["ts"] for e in timed)
    open_until: dict = {}
    for e in timed:
        track = (e["pid"], e["tid"])
        assert track in named
        assert e["pid"] in processes
        if e["ph"] == "X":
            assert e["dur"] >= 0
            stack = open_until.setdefault(track, [])
            while stack and stack[-1] <= e["ts"] + 1e-3:
                stack.pop()
            assert not stack or e["ts"] + e["dur"] <= stack[-1] + 1e-3
            stack.append(e["ts"] + e["dur"])
    starts = sorted(e["id"] for e in timed if e["ph"] == "s")
    assert starts == sorted(e["id"] for e in timed if e["ph"] == "f")
    assert len(set(starts)) == len(starts)


def test_an_exported_file_follows_the_format(tmp_path):
    trace = imported(
        tmp_path,
        op("aten::addmm", 20, 70, (4,), (2, 8), (8, 4)),
        launch(5, 30),
        launch(6, 40, "cudaGraphLaunch"),
        kernel(5, 50),
        kernel(6, 60),
        kernel(6, 70, stream=8),
        kernel(7, 80, category="gpu_memcpy"),
    )
    text = trace_to_chrome(trace)
    check_rules(text)
    by_name = {e["name"]: e for e in json.loads(text)["traceEvents"] if e["ph"] == "X"}
    assert by_name["aten::addmm"]["args"]["Input Dims"] == [[4], [2, 8], [8, 4]]
    assert by_name["cudaGraphLaunch"]["args"]["correlation"] == 6
    assert by_name["profile"]["cat"] == "user_annotation"


@pytest.mark.parametrize("name", ["h100_vit", "h100_timesformer", "h100_qwen1.5-0.5b"])
def test_an_exported_real_file_follows_the_format(name):
    path = SHARED / f"{name}.json.gz"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    check_rules(trace_to_chrome(import_kineto(path)))


def test_only_timed_traces_are_exported_and_summed_up():
    trace = Trace("t", {}, ())
    with pytest.raises(InputError, match="has no times"):
        trace_to_chrome(trace)
    with pytest.raises(InputError, match="has no times"):
        summary(trace)
