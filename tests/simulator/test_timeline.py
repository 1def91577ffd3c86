"""The timeline: everything that ran has its place, and Perfetto has nothing to say of the file."""

import gzip
import json
from collections import Counter

import perfetto
import pytest
from hypothesis import given
from hypothesis import strategies as st

import simtti
from simtti.simulator.engine.peak_memory import allocated_by_row
from simtti.simulator.timeline import chrome_trace
from simtti.workloads.chrome import trace_to_chrome
from simtti.workloads.chrome_events import Events, Span, Track, nested
from simtti.workloads.measured import captures
from simtti.workloads.trace import Trace


def chosen(events, ph="X", category=None):
    return [event for event in events if event["ph"] == ph and category in (None, event.get("cat"))]


@pytest.fixture(scope="module")
def run():
    return simtti.run("stable-diffusion", "h100-sxm", steps=8)


@pytest.fixture(scope="module")
def text(run):
    return chrome_trace(run)


@pytest.fixture(scope="module")
def events(text):
    return json.loads(text)["traceEvents"]


@pytest.mark.parametrize(
    ("workload", "options"),
    [
        ("stable-diffusion", {"launch": "compiled", "fidelity": "closed"}),
        ("stable-diffusion", {"offload": "model"}),
        ("pixart-sigma", {"gpus": 2, "fidelity": "closed"}),
        ("pixart-sigma", {"gpus": 2, "pipefusion": 2, "fidelity": "closed"}),
    ],
)
def test_perfetto_would_say_nothing(workload, options):
    assert perfetto.problems(chrome_trace(simtti.run(workload, "h100-sxm", steps=5, **options))) == {}


def test_perfetto_would_say_nothing_of_a_plain_run(text):
    assert perfetto.problems(text) == {}


def test_every_kernel_is_drawn_and_an_arrow_leads_to_it(run, events):
    kernels = chosen(events, category="kernel")
    assert len(kernels) == len(run.kernels)
    ends = {(event["pid"], event["tid"], event["ts"]) for event in chosen(events, "f")}
    assert {(event["pid"], event["tid"], event["ts"]) for event in kernels} == ends
    assert len(chosen(events, category="cpu_op")) == len(run.operators)


def test_a_graph_has_no_operators_on_the_host_but_modules_on_the_gpu():
    graph = chrome_trace(simtti.run("stable-diffusion", "h100-sxm", steps=4, launch="graph"))
    assert perfetto.problems(graph) == {}
    events = json.loads(graph)["traceEvents"]
    assert not chosen(events, category="cpu_op")
    assert not chosen(events, "s")
    modules = {event["args"]["module"] for event in chosen(events, category="module")}
    assert {"unet", "unet.down_blocks.0", "unet.down_blocks.0.attentions.0"} <= modules


def test_every_step_is_drawn_or_counted(run, events):
    steps = [event["name"] for event in chosen(events, category="step")]
    alone = [name for name in steps if "not drawn" not in name]
    folded = [int(name.split()[0]) for name in steps if "not drawn" in name]
    (denoising,) = (phase for phase in run.phases if phase.steps > 1)
    assert alone == [f"step {number + 1}" for number in range(len(alone))]
    assert len(alone) + sum(folded) == denoising.steps
    last = chosen(events, category="step")[-1]
    assert last["ts"] + last["dur"] <= sum(phase.latency_s for phase in run.phases[:2]) * 1e6 + 1e-3


def test_counters_are_of_the_run(run, events):
    counters = chosen(events, "C")
    by_name = Counter(event["name"] for event in counters)
    assert set(by_name) == {"HBM GB/s", "tensor cores %", "power W", "SM clock MHz", "allocated GiB"}
    values = {name: [e["args"]["value"] for e in counters if e["name"] == name] for name in by_name}
    assert max(values["allocated GiB"]) == pytest.approx(run.peak_memory_bytes / 2**30, rel=5e-3)
    assert max(values["HBM GB/s"]) <= run.hardware.hbm_bytes_per_s / 1e9
    assert max(values["tensor cores %"]) <= 100
    assert max(values["power W"]) >= 0.9 * run.power["average_w"]
    # Between the steps that are drawn and the decoder, their mean, not nothing.
    fold = next(event for event in chosen(events, category="step") if "not drawn" in event["name"])
    assert [e["args"]["value"] for e in counters if e["name"] == "HBM GB/s" and e["ts"] == fold["ts"]][-1] > 0


def test_a_timeline_may_be_compressed(run, text, tmp_path):
    run.timeline(tmp_path / "t.json.gz")
    assert gzip.decompress((tmp_path / "t.json.gz").read_bytes()).decode() == text


def test_memory_of_each_operator_is_at_most_the_peak(run):
    held = allocated_by_row(run.trace, run.rows, run.hardware)
    assert len(held) == len(run.rows)
    assert max(held) == run.peak_memory_bytes


def test_a_capture_s_export_is_fit_for_perfetto_too():
    """Where no kernel began before the one before it had ended."""
    smallest = min((each.path for each in captures()), key=lambda path: path.stat().st_size)
    assert perfetto.problems(trace_to_chrome(Trace.load(smallest))) == {}


paths = st.lists(st.sampled_from(["a", "b", "0", "1"]), max_size=4).map(".".join)


@given(st.lists(st.tuples(paths, st.integers(0, 3), st.integers(1, 5)), max_size=8))
def test_modules_nest_whatever_follows_what(steps):
    spans, at = [], 0
    for module, gap, length in steps:
        spans.append(Span(module, at + gap, at + gap + length))
        at += gap + length
    events, track = Events(), Track(1, 2)
    events.process(1, "p")
    events.thread(track, "t")
    for name, path, start_ns, end_ns, depth in nested(spans):
        assert path.endswith(name)
        events.slice(track, name, "module", start_ns, end_ns, depth=depth)
    for span in spans:
        events.slice(track, "op", "op", span.start_ns, span.end_ns, depth=99)
    assert perfetto.problems(events.text()) == {}


def event(ph, ts, tid=1, **more):
    return {"ph": ph, "ts": ts, "pid": 0, "tid": tid, "name": "n", "cat": "c", **more}


@pytest.mark.parametrize(
    ("events", "kind"),
    [
        ([event("X", 0, dur=2), event("X", 1, dur=2)], "slice_drop_overlapping_complete_event"),
        ([event("X", 2, dur=1), event("X", 1, dur=1)], "out of order"),
        ([event("X", 0, dur=-1)], "a slice that ends before it begins"),
        ([event("s", 0, id=1)], "flow_no_enclosing_slice"),
        ([event("X", 0, dur=1), event("s", 0, id=1)], "an arrow without an end"),
        ([event("X", 0, dur=1), event("f", 0, id=1, bp="e")], "flow_end_without_start"),
        ([event("C", 0, args={"value": "x"})], "a counter that is no number"),
        ([event("X", 0, dur=1)], "a track without a name"),
        ([{"ph": "X", "ts": 0, "dur": 1}], "X lacks ['pid', 'tid', 'name']"),
        ([event("C", 0, args={"value": float("nan")})], "NaN is no JSON"),
    ],
)
def test_the_check_finds_what_is_wrong(events, kind):
    assert kind in perfetto.problems(json.dumps({"traceEvents": events}))
