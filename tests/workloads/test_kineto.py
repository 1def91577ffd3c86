"""Kineto import: nothing that the GPU did is lost, and kernels find their operators."""

import gzip
import json
import math

import pytest
from kineto_files import SHARED, event, imported, kernel, launch, op

from simtti.workloads.kineto import import_kineto, summary
from simtti.workloads.trace import (
    HostTime,
    TimedKernel,
    Trace,
)

# Kernels, and those whose operator's arguments were recorded: shared/traces/README.md.
SHARED_TRACES = {
    "h100_timesformer": (446, 446), "h100_owlv2-large": (4330, 4330), "h100_vit": (154, 154), "h100_bert-small": (60, 60),
    "h100_qwen1.5-0.5b": (1465, 1029), "b200_llm": (768, 766), "v100_resnet50_training": (8772, 8772),
    "h100_vgg13_training": (292, 292), "a100_alexnet": (79, 0),
    "mi300x_flux_shapes_only": (3113, None), "mi300x_sd3.5_shapes_only": (8042, None),
}  # fmt: skip


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

    trace = import_kineto(path, step="all")
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
