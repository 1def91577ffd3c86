"""Kineto import and Chrome export: nothing that the GPU did is lost, and operators come out as recorded ones."""

import gzip
import json
import math

import places
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simtti.errors import InputError
from simtti.workloads import kineto_file
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

SHARED = places.TRACES
# Kernels, and those whose operator's arguments were recorded: shared/traces/README.md.
SHARED_TRACES = {
    "h100_timesformer": (446, 446), "h100_owlv2-large": (4330, 4330), "h100_vit": (154, 154), "h100_bert-small": (60, 60),
    "h100_qwen1.5-0.5b": (1465, 1029), "b200_llm": (768, 766), "v100_resnet50_training": (8772, 8772),
    "h100_vgg13_training": (292, 292), "a100_alexnet": (79, 0),
    "mi300x_flux_shapes_only": (3113, None), "mi300x_sd3.5_shapes_only": (8042, None),
}  # fmt: skip


# ---- files of our own


def event(category, name, start, duration, tid=1, **args):
    return {
        "ph": "X",
        "cat": category,
        "name": name,
        "pid": 9,
        "tid": tid,
        "ts": start,
        "dur": duration,
        "args": args,
    }


def op(name, start, duration, *tensors, dtype="c10::BFloat16", concrete=None, **args):
    """An operator whose arguments are these shapes; None is an argument that is no tensor."""
    dims = [list(shape) if shape is not None else [] for shape in tensors]
    types = [dtype if shape is not None else "Scalar" for shape in tensors]
    given = concrete if concrete is not None else [""] * len(tensors)
    known = {"Input Dims": dims, "Input type": types, "Concrete Inputs": given}
    return event("cpu_op", name, start, duration, **known, **args)


def launch(correlation, start, name="cudaLaunchKernel", category="cuda_runtime", duration=1.0, **args):
    return event(category, name, start, duration, correlation=correlation, **args)


def kernel(correlation, start, duration=2.0, name="k", category="kernel", **args):
    facts = {"device": 0, "stream": 7, "correlation": correlation, **args}
    if category == "kernel":
        facts = {
            "grid": [4, 2, 1],
            "block": [128, 1, 1],
            "registers per thread": 32,
            "shared memory": 1024,
            **facts,
        }
    return event(category, name, start, duration, tid=7, **facts)


def write(path, events, **header):
    content = {"schemaVersion": 1, "deviceProperties": [{"id": 0, "name": "GPU", "numSms": 132}], **header}
    path.write_text(json.dumps({**content, "traceEvents": events}, indent=2))
    return path


def imported(tmp_path, *events, **header):
    return import_kineto(write(tmp_path / "a.json", list(events), **header))


def log(trace):
    kernels = trace.timing.kernels
    return [
        (
            operator.op.removeprefix("aten::"),
            operator.category,
            [k.name for k in kernels if k.operator == row],
        )
        for row, operator in enumerate(trace.operators())
    ]


def test_composites_give_way_to_what_they_call(tmp_path):
    trace = imported(
        tmp_path,
        op("aten::linear", 0, 100, (2, 8), (4, 8), (4,)),
        op("aten::t", 1, 10, (4, 8)),
        op("aten::transpose", 2, 5, (4, 8), None, None, concrete=["", "0", "1"]),
        op("aten::addmm", 20, 70, (4,), (2, 8), (8, 4), None, None, concrete=["", "", "", "1", "1"]),
        launch(5, 30),
        launch(6, 40, "cuLaunchKernel", "cuda_driver"),
        kernel(5, 50, name="gemm"),
        kernel(6, 60, name="reduce"),
    )
    assert log(trace) == [("t", "View", []), ("addmm", "Linear", ["gemm", "reduce"])]
    view, addmm = trace.operators()
    assert view.is_view
    assert not addmm.is_view
    assert [use.shape for use in addmm.inputs] == [(4,), (2, 8), (8, 4)]
    assert [(use.shape, use.dtype, use.role) for use in addmm.outputs] == [((2, 4), "bf16", "activation")]
    assert addmm.attributes == {"beta": 1, "alpha": 1}
    first = trace.timing.kernels[0]
    assert first == TimedKernel(
        "gemm", 50.0, 2.0, 1, "kernel", 0, 7, 5, 30.0, 1.0, (4, 2, 1), (128, 1, 1), 32, 1024, None
    )
    assert trace.timing.host[1] == HostTime(20.0, 70.0, 0.0, 1)
    assert trace.timing.device == {"name": "GPU", "sm_count": 132}


def test_attention_is_one_operator(tmp_path):
    q, kv = (2, 8, 64, 40), (2, 8, 77, 40)
    name = "aten::scaled_dot_product_attention"
    trace = imported(
        tmp_path,
        op(name, 0, 50, q, kv, kv, None, None, None, concrete=["", "", "", "", "0.", "False"]),
        op("aten::_scaled_dot_product_flash_attention", 1, 40, q, kv, kv),
        op("aten::_flash_attention_forward", 2, 30, q, kv, kv),
        launch(1, 3),
        kernel(1, 10, name="flash"),
    )
    assert log(trace) == [("scaled_dot_product_attention", "Attention", ["flash"])]
    (attention,) = trace.operators()
    assert attention.attributes["kind"] == "cross"
    assert attention.attributes["backend"] == "flash"
    assert attention.attributes["causal"] is False
    assert attention.attributes["scale"] == pytest.approx(40**-0.5)
    assert attention.outputs[0].shape == q
    assert attention.outputs[0].strides == (64 * 8 * 40, 40, 8 * 40, 1)


def test_nothing_is_dropped(tmp_path):
    """A CUDA graph, launches outside operators, launches that were not recorded, copies, fills, other streams."""
    trace = imported(
        tmp_path,
        launch(1, 0, "cudaGraphLaunch"),
        *[kernel(1, 10 + 3 * i, name=f"graph{i}") for i in range(5)],
        kernel(99, 40, name="lost"),
        op("aten::copy_", 50, 20, (4,), (4,)),
        launch(2, 51, "cudaMemcpyAsync", duration=9.0),
        kernel(2, 52, 8.0, "Memcpy DtoH (Device -> Pageable)", "gpu_memcpy", bytes=16),
        kernel(0, 70, 1.0, "Memset (Device)", "gpu_memset", bytes=4, stream=20),
    )
    found = summary(trace)
    assert (found["kernels"], found["kernels_without_operator"], found["copies"], found["streams"]) == (
        6,
        6,
        2,
        2,
    )
    assert found["kernel_time_us"] == 12.0
    assert found["copy_time_us"] == 9.0
    assert found["gpu_span_us"] == 61.0
    assert found["gpu_busy_us"] == 21.0
    assert [k.launch_us for k in trace.timing.kernels] == [0.0] * 5 + [None, 51.0, None]
    assert trace.timing.kernels[6].operator == 0
    assert trace.timing.kernels[6].nbytes == 16
    assert trace.timing.host[0].waiting_us == 9.0  # pageable memory: the host waits


def test_a_composite_that_launches_a_kernel_itself_counts(tmp_path):
    trace = imported(
        tmp_path,
        event("cpu_op", "MyFunction", 0, 50),
        op("aten::add", 1, 5, (4,), (4,)),
        launch(1, 2),
        launch(2, 20),
        kernel(1, 30, name="add"),
        kernel(2, 40, name="mine"),
    )
    assert log(trace) == [("MyFunction", "Other", ["mine"]), ("add", "Elementwise", ["add"])]
    assert next(trace.operators()).attributes == {"shapes_recorded": False}
    assert summary(trace)["kernels_with_shapes"] == 1


def test_a_kernel_without_a_launch_is_tied_by_its_external_id(tmp_path):
    trace = imported(
        tmp_path, op("aten::mul", 0, 5, (4,), (4,), **{"External id": 3}), kernel(1, 9, **{"External id": 3})
    )
    assert log(trace) == [("mul", "Elementwise", ["k"])]


def test_modules_and_threads(tmp_path):
    trace = imported(
        tmp_path,
        event("python_function", "nn.Module: Net_0", 0, 90),
        event("python_function", "net.py(3): forward", 1, 80),
        event("python_function", "nn.Module: Linear_4", 2, 50),
        op("aten::mm", 3, 9, (2, 3), (3, 4)),
        event("cpu_op", "aten::mul_", 4, 9, tid=2),
    )
    assert [(o.op, o.module) for o in trace.operators()] == [
        ("aten::mm", "Net_0.Linear_4"),
        ("aten::mul_", ""),
    ]
    assert [time.thread for time in trace.timing.host] == [1, 2]


def test_host_work_launches_nothing(tmp_path):
    trace = imported(
        tmp_path, op("aten::mul", 0, 5, (), ()), op("aten::mul", 9, 5, (4,), ()), launch(1, 10), kernel(1, 20)
    )
    host, gpu = trace.operators()
    assert (host.category, host.is_view, host.attributes["device"]) == ("Other", True, "cpu")
    assert (gpu.category, gpu.is_view, gpu.outputs[0].shape) == ("Elementwise", False, (4,))


CONVOLUTION = ["", "", "", "[2, 2]", "[1, 1]", "[1, 1]", "False", "[0, 0]", "1"]
TRANSPOSED = ["", "", "", "[2, 2]", "[1, 1]", "[1, 1]", "True", "[1, 1]", "1"]


@pytest.mark.parametrize(
    ("name", "shapes", "concrete", "made"),
    [
        ("aten::mm", [(2, 3), (3, 4)], ["", ""], [(2, 4)]),
        ("aten::bmm", [(5, 2, 3), (5, 3, 4)], ["", ""], [(5, 2, 4)]),
        ("aten::convolution", [(1, 4, 9, 9), (8, 4, 3, 3), (8,)] + [None] * 6, CONVOLUTION, [(1, 8, 5, 5)]),
        ("aten::convolution", [(1, 4, 5, 5), (4, 8, 3, 3), (8,)] + [None] * 6, TRANSPOSED, [(1, 8, 10, 10)]),
        ("aten::native_layer_norm", [(2, 3), None, (3,), (3,), None], ["", "[3]", "", "", "1e-05"], [(2, 3)]),
        ("aten::add", [(2, 1, 4), (3, 1)], ["", "", "1"], [(2, 3, 4)]),
        ("aten::mean", [(2, 3, 4), None, None, None], ["", "[1]", "True", ""], [(2, 1, 4)]),
        ("aten::mean", [(2, 3, 4), None, None, None], ["", "[1, -1]", "False", ""], [(2,)]),
        ("aten::embedding", [(100, 8), (2, 7)], ["", "", "-1", "False", "False"], [(2, 7, 8)]),
        ("aten::upsample_nearest2d", [(1, 2, 4, 4), None], ["", "[8, 8]"], [(1, 2, 8, 8)]),
        ("aten::constant_pad_nd", [(1, 2, 4), None, None], ["", "[1, 2]", "0"], [(1, 2, 7)]),
        ("aten::repeat", [(2, 3), None], ["", "[4, 1, 2]"], [(4, 2, 6)]),
        ("aten::where", [(2, 1), (1, 3), ()], ["", "", ""], [(2, 3)]),
        ("aten::nonzero", [(4,)], [""], []),
        ("aten::add", [(2, 3), (4, 5)], ["", "", "1"], [(4, 5)]),
        ("custom::thing", [(4,)], [""], []),
    ],
)
def test_results_where_they_are_certain(tmp_path, name, shapes, concrete, made):
    trace = imported(tmp_path, op(name, 0, 5, *shapes, concrete=concrete), launch(1, 1), kernel(1, 10))
    assert [use.shape for use in next(trace.operators()).outputs] == made


@pytest.mark.parametrize("name", ["aten::mean", "aten::convolution", "aten::_to_copy", "aten::cat"])
def test_no_result_where_old_files_leave_it_open(tmp_path, name):
    """Before 2023 Kineto did not record arguments that are no tensors."""
    known = {"Input Dims": [[1, 4, 9, 9], [8, 4, 3, 3]], "Input type": ["float", "float"]}
    trace = imported(tmp_path, event("cpu_op", name, 0, 5, **known), launch(1, 1), kernel(1, 10))
    assert next(trace.operators()).outputs == ()


def test_lists_of_tensors(tmp_path):
    cat = event(
        "cpu_op", "aten::cat", 0, 5,
        **{"Input Dims": [[[2, 3], [2, 5]], []], "Input type": ["TensorList", "Scalar"],
           "Input Strides": [[[3, 1], [1, 2]], []], "Concrete Inputs": ["", "-1"]},
    )  # fmt: skip
    trace = imported(tmp_path, cat, op("aten::mul", 9, 1, (1,), (1,)), launch(1, 1), kernel(1, 10))
    operator = next(trace.operators())
    assert [(use.shape, use.strides, use.dtype) for use in operator.inputs] == [
        ((2, 3), (3, 1), "bf16"), ((2, 5), (1, 2), "bf16"),
    ]  # fmt: skip
    assert operator.outputs[0].shape == (2, 8)
    assert trace.provenance["dtypes_assumed"] == 1


def test_what_is_not_asked_for_stays_out(tmp_path):
    """Some files carry the environment of the process that wrote them."""
    trace = imported(
        tmp_path,
        op("aten::mm", 0, 5, (2, 3), (3, 4)),
        metadata={"env": {"TOKEN": "secret"}},
        cupti_version=22,
    )
    assert trace.provenance["cupti_version"] == 22
    trace.save(tmp_path / "a.parquet")
    assert "secret" not in repr(Trace.load(tmp_path / "a.parquet"))


# ---- files that are none


GOOD = json.dumps(
    {"schemaVersion": 1, "traceEvents": [op("aten::mm", 0, 5, (2, 3), (3, 4)), launch(1, 1), kernel(1, 10)]}
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"   \n", "is empty"),
        (gzip.compress(b"", mtime=0), "is empty"),
        (GOOD[:200].encode(), "is truncated: its JSON ends in the middle"),
        (GOOD[:-1].encode(), "is truncated: its JSON ends in the middle"),
        (gzip.compress(GOOD.encode())[:-20], "is truncated: its gzip data end too early"),
        (b"\x1f\x8b" + b"\xff" * 30, "is damaged: its gzip data cannot be unpacked"),
        (b"[1, 2]", "is not a Kineto trace: it does not hold a JSON object"),
        (b"hello", "is not a Kineto trace: it does not hold a JSON object"),
        (b"PAR1\x00\xff\xfe", "is not a Kineto trace: it does not hold a JSON object"),
        (b'{"a": 1}', "is not a Kineto trace: it has no traceEvents"),
        (b'{"traceEvents": 3}', "is not a Kineto trace: its traceEvents are not a list"),
        (b'{"traceEvents": [1, 2]}', "is not a Kineto trace: its traceEvents are not objects"),
        (b'{"traceEvents": []}', "holds no operators and no kernels"),
        (b'{"traceEvents": [{"ph": "X", "cat": "render", "name": "frame", "ts": 1, "dur": 2}]}', "holds no operators"),
        (b'{"traceEvents": [{"ph": "X", "cat": "kernel", "name": "k", "pid": 0, "tid": 7, "dur": 2}]}', "lacks the field 'ts'"),
        (b'{"traceEvents": [{"ph": "X", "cat": "kernel", "name": "k", "pid": 0, "tid": 7, "ts": "x", "dur": 2}]}', "wrong type"),
        (b'{"traceEvents": [{"ph": "X", "cat": "kernel", "name": "k", "ts": 1, "dur": NaN}]}', "wrong type"),
        (b'{"traceEvents": [{"ph": "X", "cat": "kernel", "name": "k", "ts": 1, "dur": 1, "args": [3]}]}', "wrong type"),
        (b'{"traceEvents" oops', "is damaged: its JSON cannot be read beyond 'oops'"),
        (b'{"traceEvents": [oops]}', "is damaged: its JSON cannot be read beyond 'oops]}'"),
        (b"{" + b'"a":{' * 100_000, "nested too deeply"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["bad.json", "bad.json.gz"])
def test_a_bad_file_is_said_in_one_line(tmp_path, content, message, name):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        import_kineto(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_file(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        import_kineto(tmp_path / "none.json")
    with pytest.raises(InputError, match="is a folder"):
        import_kineto(tmp_path)


@given(cut=st.integers(0, len(GOOD) - 1), packed=st.booleans())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_truncation_is_an_input_error(tmp_path, cut, packed):
    path = tmp_path / "cut.json"
    content = GOOD.encode()
    path.write_bytes(
        gzip.compress(content, mtime=0)[: cut % len(gzip.compress(content))] if packed else content[:cut]
    )
    with pytest.raises(InputError, match=r"cut\.json (is|holds|does)"):
        import_kineto(path)


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_events_may_lie_across_reads(tmp_path, monkeypatch, chunk):
    events = [event("python_function", "nn.Module: Net_0", 0, 90), *json.loads(GOOD)["traceEvents"]]
    whole = imported(tmp_path, *events)
    assert next(whole.operators()).module == "Net_0"
    monkeypatch.setattr(kineto_file, "CHUNK_BYTES", chunk)
    assert imported(tmp_path, *events) == whole


# ---- real files


@pytest.mark.parametrize("name", SHARED_TRACES)
def test_a_real_file_loses_nothing(tmp_path, name):
    path = SHARED / f"{name}.json.gz"
    if not path.exists():
        pytest.skip(f"{path} is not here: the traces of other people stand beside the project, not in it")
    with gzip.open(path) as file:
        events = [event for event in json.load(file)["traceEvents"] if event.get("ph") == "X"]
    by_category = {"kernel": [], "memcpy": [], "memset": []}
    for item in events:
        category = str(item.get("cat")).lower().removeprefix("gpu_")
        if category in by_category:
            by_category[category].append(item["dur"])

    trace = import_kineto(path)
    for kind, durations in by_category.items():
        found = [kernel.duration_us for kernel in trace.timing.kernels if kernel.kind == kind]
        assert len(found) == len(durations)
        assert math.fsum(found) == math.fsum(durations)
    found = summary(trace)
    kernels, with_shapes = SHARED_TRACES[name]
    assert found["kernels"] == kernels
    assert found["kernel_time_us"] == math.fsum(by_category["kernel"])
    if with_shapes is not None:
        assert found["kernels_with_shapes"] == with_shapes

    trace.save(tmp_path / "a.parquet")
    assert Trace.load(tmp_path / "a.parquet") == trace
    assert (tmp_path / "a.parquet").stat().st_size < path.stat().st_size


def test_timesformer_has_spatial_and_temporal_attention():
    path = SHARED / "h100_timesformer.json.gz"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    softmax = [operator for operator in import_kineto(path).operators() if operator.category == "Softmax"]
    shapes = {use.shape for operator in softmax for use in operator.inputs}
    assert shapes == {(3136, 12, 8, 8), (8, 12, 3137, 3137)}  # 8 frames, 3136 patches and the class token
    assert all("Timesformer" in operator.module for operator in softmax)
    assert all(operator.outputs[0].shape == operator.inputs[0].shape for operator in softmax)


# ---- against torch


def test_a_profile_comes_out_as_the_recording_does(tmp_path):
    torch = pytest.importorskip("torch")
    from torch.profiler import ProfilerActivity, profile

    from simtti.workloads.recorder import Recorder

    def block():
        torch.manual_seed(0)
        return torch.nn.Sequential(
            torch.nn.Conv2d(4, 8, 3, padding=1), torch.nn.GroupNorm(2, 8), torch.nn.SiLU(),
            torch.nn.Upsample(scale_factor=2), torch.nn.Flatten(2), torch.nn.Linear(64, 16), torch.nn.LayerNorm(16),
            torch.nn.GELU(), torch.nn.Softmax(-1),
        )  # fmt: skip

    recorder = Recorder()
    with torch.device("meta"):
        module = block()
        with recorder.step("profile", domain="spatial"):
            module(torch.empty(2, 4, 4, 4))
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        block()(torch.zeros(2, 4, 4, 4))
    profiler.export_chrome_trace(str(tmp_path / "a.json"))
    recorded = [
        operator for operator in recorder.phases()[0].steps[0].operators if operator.op != "aten::empty"
    ]
    found = list(import_kineto(tmp_path / "a.json").operators())
    found = found[
        [operator.op for operator in found].index("aten::convolution") :
    ]  # after the weights were made
    assert [o.op.replace("_reshape_alias", "view") for o in found] == [o.op for o in recorded]
    for ours, theirs in zip(found, recorded, strict=True):
        if not theirs.is_view:
            assert ours.category == theirs.category
            assert [use.shape for use in ours.inputs] == [use.shape for use in theirs.inputs]
            assert ours.outputs[0].shape == theirs.outputs[0].shape
            assert {k: v for k, v in ours.attributes.items() if k in theirs.attributes} == {
                k: v for k, v in theirs.attributes.items() if k in ours.attributes
            }


# ---- and out again


times = st.integers(0, 10**7).map(lambda ns: ns / 1000)


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
    for correlation in range(draw(st.integers(0 if operators else 1, 5))):
        row = draw(st.integers(0, len(operators) - 1)) if operators and draw(st.booleans()) else None
        launched = None if row is None else round(host[row].start_us + 0.5, 3)
        kind = draw(st.sampled_from(["kernel", "memcpy", "memset"]))
        for _ in range(draw(st.integers(1, 3))):
            kernels.append(
                TimedKernel(
                    draw(st.text(min_size=1, max_size=5)), draw(times), draw(times), row, kind, draw(st.integers(0, 1)),
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
