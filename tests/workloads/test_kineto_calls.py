"""Operators made of a profiler's calls: results where they are certain, and as the recorder has them."""

import pytest
from kineto_files import event, imported, kernel, launch, op

from simtti.workloads.kineto import import_kineto


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
        ("aten::add", [(2, 3), (4, 5)], ["", "", "1"], []),
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
