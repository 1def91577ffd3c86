"""The recorder, on modules small enough to list everything they do."""

import pytest

from simtti.workloads.flops import flops

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402, N812
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from simtti.workloads.recorder import Recorder  # noqa: E402

META = torch.device("meta")


def record(run, **modules):
    """What `run` does, as the operators of one step."""
    recorder = Recorder()
    for name, module in modules.items():
        recorder.register(name, module)
    with recorder.step("phase", domain="spatial"):
        run(recorder)
    return recorder.phases()[0].steps[0].operators


def log(operators):
    return [
        (
            op.op.removeprefix("aten::"),
            op.category,
            [u.tensor for u in op.inputs],
            [u.tensor for u in op.outputs],
        )
        for op in operators
    ]


def empty(*shape, dtype=torch.float16):
    return torch.empty(shape, dtype=dtype, device=META)


def test_a_linear_layer_called_twice_keeps_its_weights():
    layer = torch.nn.Linear(8, 4, device=META, dtype=torch.float16)
    image = empty(2, 8)
    operators = record(lambda _: [layer(image), layer(image)], net=layer)
    assert log(operators) == [
        ("t", "View", [0], [0]),
        ("addmm", "Linear", [1, 2, 0], [3]),
        ("t", "View", [0], [0]),
        ("addmm", "Linear", [1, 2, 0], [4]),
    ]
    assert [op.is_view for op in operators] == [True, False, True, False]
    assert [(use.role, use.shape) for use in operators[1].inputs] == [
        ("parameter", (4,)), ("input", (2, 8)), ("parameter", (8, 4)),
    ]  # fmt: skip
    assert operators[1].outputs[0].role == "activation"
    assert {op.module for op in operators} == {"net"}


def test_in_place_is_no_view_and_a_freed_tensor_shares_no_identity():
    def run(_):
        x = empty(4)
        for _ in range(20):
            x = x * 2
        x.add_(1)
        x.view(2, 2)

    operators = record(run)
    made = [use.tensor for op in operators[:21] for use in op.outputs]
    assert made == list(range(21))
    assert [(op.op, op.is_view, op.outputs[0].tensor) for op in operators[-2:]] == [
        ("aten::add_", False, 20),
        ("aten::view", True, 20),
    ]
    assert operators[1].attributes == {"other": 2}


def test_attention_is_one_operator_and_needs_no_copy_after_it():
    """(batch, heads, length, head dim) comes back laid out as (batch, length, heads, head dim)."""

    def run(_):
        query, key = empty(2, 8, 4096, 40), empty(2, 8, 77, 40)
        out = F.scaled_dot_product_attention(query, key, key)
        out.transpose(1, 2).reshape(2, 4096, 320)
        F.scaled_dot_product_attention(query, query, query, is_causal=True, scale=0.5)

    attention, transpose, view, causal = record(run)[2:]
    assert (attention.op, attention.category) == ("aten::scaled_dot_product_attention", "Attention")
    assert attention.outputs[0].strides == (4096 * 320, 40, 320, 1)
    assert (transpose.op, view.op) == ("aten::transpose", "aten::view")
    assert attention.attributes == {
        "kind": "cross", "domain": "spatial", "causal": False, "scale": 40**-0.5, "dropout_p": 0.0,
        "enable_gqa": False, "has_mask": False,
    }  # fmt: skip
    assert (causal.attributes["kind"], causal.attributes["causal"], causal.attributes["scale"]) == (
        "self",
        True,
        0.5,
    )


def test_a_module_can_say_that_it_is_cross_attention_or_temporal():
    class Attention(torch.nn.Module):
        is_cross_attention = True

        def forward(self, x):
            return F.scaled_dot_product_attention(x, x, x)

    attention = Attention()
    recorder = Recorder()
    recorder.register("unet.temporal_attention", attention)
    with recorder.step("denoising", domain="spatial"):
        attention(empty(1, 1, 16, 64))
    *_, operator = recorder.phases()[0].steps[0].operators
    assert (operator.attributes["kind"], operator.attributes["domain"]) == ("cross", "temporal")


def test_cpu_scalars_are_arguments_and_cpu_arithmetic_is_host_work():
    def run(_):
        sigma = torch.tensor(3.0)
        empty(4) * (sigma + 1)

    operators = record(run)
    host = [op for op in operators if op.attributes.get("device") == "cpu"]
    assert [op.op for op in host] == ["aten::lift_fresh", "aten::add"]
    assert all(op.is_view and op.category == "Other" for op in host)
    product = operators[-1]
    assert (product.op, len(product.inputs)) == ("aten::mul", 1)
    assert product.attributes == {"cpu_scalars": 1}


def test_a_value_kept_on_the_device_costs_a_copy_and_a_wait_to_read():
    timesteps = torch.arange(10)

    def run(recorder):
        t = recorder.on_device(timesteps)[3]
        previous = t - 2
        assert int(previous) == 1
        previous.to(META)[None] * 2

    select, subtract, read, unsqueeze, _ = record(run)
    assert (select.is_view, subtract.category, read.op) == (True, "Elementwise", "aten::_local_scalar_dense")
    assert (read.category, read.attributes) == ("Memory", {"synchronizes": True})
    # .to() the device it is on already is no operator, and the tensor is still itself.
    assert unsqueeze.inputs[0].tensor == subtract.outputs[0].tensor


def test_transfers():
    def run(recorder):
        image = torch.zeros(3).to(META)
        recorder.copy_to_host(image)

    zeros, upload, download = record(run)
    assert zeros.attributes["device"] == "cpu"
    assert (upload.op, upload.category, upload.attributes["transfer"]) == (
        "aten::_to_copy",
        "Memory",
        "host_to_device",
    )
    assert (download.attributes["transfer"], download.inputs) == ("device_to_host", upload.outputs)


def test_a_cast_weight_is_an_activation_of_its_own():
    layer = torch.nn.Linear(8, 4, bias=False, device=META, dtype=torch.float16)

    def run(_):
        layer.to(torch.float32)
        layer(empty(2, 8, dtype=torch.float32))

    operators = record(run, net=layer)
    cast = next(op for op in operators if op.op == "aten::_to_copy")
    product = next(op for op in operators if op.op == "aten::mm")
    assert (cast.inputs[0].role, cast.outputs[0].role) == ("parameter", "activation")
    assert product.inputs[1].tensor == cast.outputs[0].tensor


@pytest.mark.parametrize("converted", [(True, True), (True, False), (False, True)])
def test_a_convolution_is_channels_last_if_its_image_or_weight_is(converted):
    convolution = torch.nn.Conv2d(8, 16, 3, padding=1, device=META)
    image = empty(1, 8, 4, 4, dtype=torch.float32)
    if converted[0]:
        image = image.to(memory_format=torch.channels_last)
    if converted[1]:
        convolution.to(memory_format=torch.channels_last)
    (operator,) = record(lambda _: convolution(image), net=convolution)
    assert (operator.inputs[0].channels_last, operator.inputs[1].channels_last) == converted
    assert operator.outputs[0].channels_last
    assert operator.attributes == {
        "stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "transposed": False, "output_padding": [0, 0],
        "groups": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    "module",
    [
        torch.nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=2, device=META),
        torch.nn.ConvTranspose2d(8, 16, 3, stride=2, device=META),
        torch.nn.Conv2d(8, 8, 1, bias=False, device=META),
        torch.nn.Linear(10, 7, device=META),
        torch.nn.Linear(10, 7, bias=False, device=META),
    ],
)
def test_flops_are_those_of_torch(module):
    image = empty(2, 8, 12, 10, dtype=torch.float32)
    operators = record(lambda _: module(image), net=module)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(image)
    assert sum(map(flops, operators)) == counter.get_total_flops() > 0


def test_attention_flops():
    """Two products of (queries x head dim) by (head dim x keys), batch and heads times."""
    operators = record(
        lambda _: F.scaled_dot_product_attention(empty(2, 8, 64, 40), *[empty(2, 8, 77, 40)] * 2)
    )
    assert flops(operators[-1]) == 4 * 2 * 8 * 64 * 77 * 40


def test_names_and_hooks_end_with_the_step():
    net = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Sequential(torch.nn.SiLU()))
    recorder = Recorder()
    recorder.register("net", net)
    stray = torch.nn.Tanh()
    with recorder.step("phase", domain="spatial"), recorder.scope("pipeline"):
        stray(net(empty(2)) + 1)
    net(empty(2))
    operators = recorder.phases()[0].steps[0].operators
    assert [(op.module, op.op) for op in operators] == [
        ("pipeline", "aten::empty"), ("net.0", "aten::relu"), ("net.1.0", "aten::silu"),
        ("pipeline", "aten::add"), ("pipeline.Tanh", "aten::tanh"),
    ]  # fmt: skip


def test_a_failed_step_leaves_nothing_behind():
    recorder = Recorder()
    with pytest.raises(RuntimeError), recorder.step("phase", domain="spatial"):
        empty(2, 3) @ empty(2, 3)
    with recorder.step("phase", domain="spatial", count=7):
        empty(2) + 1
    (phase,) = recorder.phases()
    assert [(step.count, len(step.operators)) for step in phase.steps] == [(7, 2)]
    assert {op.step for op in phase.steps[0].operators} == {0}


def test_a_contiguous_convolution_stays_contiguous():
    convolution, image = torch.nn.Conv2d(8, 16, 1, device=META), empty(1, 8, 4, 4, dtype=torch.float32)
    (operator,) = record(lambda _: convolution(image), net=convolution)
    assert operator.outputs[0].contiguous
    assert not operator.outputs[0].channels_last


def test_a_storage_is_released_when_nothing_refers_to_it():
    def run(_):
        first = empty(4) + 1
        second = first * 2
        del first
        third = second + 3
        return third, second

    add, times, last = (op for op in record(run) if not op.is_view)
    assert times.released == (add.outputs[0].tensor,)
    assert second_held(times, last)


def second_held(times, last):
    """Until the step is over: `run` returns it."""
    return times.outputs[0].tensor in last.released


def test_an_argument_is_held_until_its_module_returns():
    net = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.SiLU(), torch.nn.Tanh())
    relu, silu, tanh = record(lambda _: net(empty(4)), net=net)[-3:]
    assert relu.inputs[0].tensor not in (*relu.released, *silu.released)
    assert relu.inputs[0].tensor in tanh.released
    assert relu.outputs[0].tensor in silu.released


def test_a_quotient_keeps_the_strides_of_what_is_divided():
    """As on a device: by the stride of its one image a decoder's result is not channels_last to what upsamples it."""
    image = empty(1, 64, 8).transpose(1, 2).reshape(1, 8, 8, 8)
    assert image.stride() == (8, 1, 64, 8)
    divide, upsample = record(lambda _: F.interpolate(image / 1.0, scale_factor=2.0))[-2:]
    assert divide.outputs[0].strides == image.stride()
    assert upsample.outputs[0].contiguous
