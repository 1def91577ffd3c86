"""Tensor parallelism: Megatron's columns and rows, found in the dataflow; work, weights and sums add up."""

import collections
import dataclasses

import pytest
from small_traces import operator, use

from simtti.errors import InputError
from simtti.workloads.parallel import regions, tensor
from simtti.workloads.parallel.operands import ALL_REDUCE
from simtti.workloads.record import workload_trace

# Layers of a block, by how they are divided, from the published layout of each model.
COLUMNS = {
    "pixart-sigma": {"to_q", "to_k", "to_v", "proj"},
    "flux-dev": {"to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", "proj", "proj_mlp"},
    "wan2.1-1.3b": {"to_q", "to_k", "to_v", "proj"},
    "sd3.5-medium": {"to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", "proj"},
    "qwen-image": {"to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", "proj"},
    "flux.2-dev": {
        "to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", "linear_in", "to_qkv_mlp_proj",
    },
    "z-image": {"to_q", "to_k", "to_v", "w1", "w3"},
}  # fmt: skip
ROWS = {
    "pixart-sigma": {"to_out.0", "net.2"},
    "flux-dev": {"to_out.0", "to_add_out", "net.2", "proj_out"},
    "wan2.1-1.3b": {"to_out.0", "net.2"},
    "sd3.5-medium": {"to_out.0", "to_add_out", "net.2"},
    "qwen-image": {"to_out.0", "to_add_out", "net.2"},
    "flux.2-dev": {"to_out.0", "to_add_out", "linear_out", "to_out"},
    "z-image": {"to_out.0", "w2"},
}


def denoising(trace):
    return next(phase for phase in trace.phases if phase.name == "denoising").steps[0].operators


def layer_name(module):
    first, _, last = module.rpartition(".")
    return f"{first.rpartition('.')[2]}.{last}" if last.isdigit() else last


@pytest.mark.parametrize("name", COLUMNS)
def test_the_layers_are_divided_as_megatron_does(name):
    trace = workload_trace(name, steps=1)
    whole, own = denoising(trace), [op for op in denoising(tensor.divided(trace, 2)) if op.op != ALL_REDUCE]
    columns, rows = set(), set()
    for before, after in zip(whole, own, strict=True):
        if before.op not in ("aten::addmm", "aten::mm", "aten::bmm"):
            continue
        k, own_k = before.inputs[-2].shape[-1], after.inputs[-2].shape[-1]
        n, own_n = before.outputs[0].shape[-1], after.outputs[0].shape[-1]
        if 2 * own_n == n:
            columns.add(layer_name(before.module))
        elif 2 * own_k == k:
            rows.add(layer_name(before.module))
        else:
            assert (own_k, own_n) == (k, n)
    assert (columns, rows) == (COLUMNS[name], ROWS[name])


@pytest.mark.parametrize(
    ("name", "ranks"),
    [
        ("pixart-sigma", 4), ("flux-dev", 2), ("wan2.1-1.3b", 2), ("hunyuan-dit", 4), ("cogvideox-2b", 2), ("qwen-image", 4),
        ("flux.2-dev", 8), ("z-image", 2),
    ],
)  # fmt: skip
def test_work_and_weights_add_up_and_all_operands_fit(name, ranks):
    trace = workload_trace(name, steps=1)
    share = tensor.divided(trace, ranks)
    whole, own = denoising(trace), denoising(share)
    for category in ("Linear", "Attention"):
        before, after = (sum(products(op, category) for op in operators) for operators in (whole, own))
        assert before <= ranks * after < (1 + 0.07 * (ranks - 1)) * before, category
    for op in own:
        for seen in (*op.inputs, *op.outputs):
            if seen.numel and 0 not in seen.strides:
                last = sum((size - 1) * stride for size, stride in zip(seen.shape, seen.strides, strict=True))
                assert last < max(seen.storage_bytes, 1), (op.op, op.module, seen)
        if op.op in ("aten::addmm", "aten::mm"):
            a, b = op.inputs[-2:]
            assert (a.shape[0], b.shape[1]) == op.outputs[0].shape
            assert a.shape[1] == b.shape[0]
        if op.category == "Attention":
            assert len({item.shape[-3] for item in op.inputs[:3]}) == 1
    assert stored(own) == pytest.approx(stored(whole) - saved(trace, share), abs=ranks)
    assert 0.5 / ranks < share.parameter_bytes["transformer"] / trace.parameter_bytes["transformer"] < 0.75
    for component in trace.parameter_bytes.keys() - {"transformer"}:
        assert share.parameter_bytes[component] == trace.parameter_bytes[component]


def products(op, category):
    if op.category != category:
        return 0
    if category == "Attention":
        return op.inputs[0].numel * op.inputs[1].shape[-2]
    return op.outputs[0].numel * op.inputs[-2].shape[-1]


def stored(operators):
    return sum({item.tensor: item.storage_bytes for op in operators for item in op.inputs if item.role == "parameter"}.values())  # fmt: skip


def saved(trace, share):
    return sum(trace.parameter_bytes.values()) - sum(share.parameter_bytes.values())


def test_an_all_reduce_follows_each_divided_sum():
    """Behind both output projections and the MLP of each block, as large as the activations; Wan normalises queries and keys
    over all heads, which takes a number a token more."""
    pixart = workload_trace("pixart-sigma", steps=1)
    sums = [op for op in denoising(tensor.divided(pixart, 2)) if op.op == ALL_REDUCE]
    assert len(sums) == 3 * 28
    assert {op.inputs for op in sums} == {op.outputs for op in sums}
    assert {op.inputs[0].shape for op in sums} == {(2 * 4096, 1152)}
    wan = denoising(tensor.divided(workload_trace("wan2.1-1.3b", steps=1), 2))
    shapes = collections.Counter(op.inputs[0].shape for op in wan if op.op == ALL_REDUCE)
    assert shapes == {(32760, 1536): 2 * 3 * 30, (1, 32760, 1): 2 * 3 * 30, (1, 512, 1): 2 * 30}


def test_a_layer_for_queries_keys_values_and_the_mlp_takes_one_all_reduce():
    """FLUX.2 has 48 blocks whose attention and MLP begin in one layer and end in one, 8 with two of each for image and text."""
    flux = denoising(tensor.divided(workload_trace("flux.2-dev", steps=1), 2))
    sums = [op.inputs[0] for op in flux if op.op == ALL_REDUCE]
    rows = collections.Counter(result.numel // result.shape[-1] for result in sums)
    assert rows == {4608: 48, 4096: 2 * 8, 512: 2 * 8}
    assert {(result.shape[-1], result.storage_bytes // result.numel) for result in sums} == {(6144, 2)}


@pytest.mark.parametrize(
    ("name", "ranks", "message"),
    [
        ("stable-diffusion-2.1", 2, "has 5 attention heads in .*, which tensor 2 does not divide"),
        ("wan2.1-1.3b", 8, "has 12 attention heads in .*, which tensor 8 does not divide"),
        ("stable-diffusion-1.5", 2, "of its denoiser's weights are in blocks of a transformer"),
        ("llama2-7b", 2, "0% of its denoiser's weights"),
    ],
)
def test_what_cannot_be_divided_is_refused(name, ranks, message):
    with pytest.raises(InputError, match=message):
        tensor.divided(workload_trace(name), ranks)


# ---- regions, layer by layer


def linear(position, x, weight, out, module="net.0.linear"):
    return operator(position, op="aten::mm", category="Linear", module=module, inputs=(x, weight), outputs=(out,), attributes={})  # fmt: skip


def weight(tensor_id, k, n):
    return use(tensor_id, (k, n), (1, k), storage_bytes=2 * k * n, role="parameter")


def act(tensor_id, *shape):
    nbytes = 2
    for size in shape:
        nbytes *= size
    return use(tensor_id, shape, storage_bytes=nbytes)


def elementwise(position, inputs, out, op="aten::gelu"):
    return operator(position, op=op, module="net.0", inputs=inputs, outputs=(out,), attributes={})


def mlp(*between):
    """x -> linear -> what is between, from tensor 10 to tensor 20 -> linear."""
    return [
        linear(0, act(1, 64, 32), weight(2, 32, 128), act(10, 64, 128), "net.0.up"),
        *between,
        linear(9, act(20, 64, 128), weight(3, 128, 32), act(30, 64, 32), "net.0.down"),
    ]


def divided_weights(operators):
    return set(regions.find(operators, images=2).cuts) & {2, 3, 4}


def test_an_activation_lets_two_layers_be_divided():
    assert divided_weights(mlp(elementwise(1, (act(10, 64, 128),), act(20, 64, 128)))) == {2, 3}


@pytest.mark.parametrize(
    "between",
    [
        [elementwise(1, (act(10, 64, 128), act(99, 64, 128)), act(20, 64, 128), "aten::add")],
        [
            operator(1, op="aten::native_layer_norm", category="LayerNorm", module="net.0", inputs=(act(10, 64, 128),),
                     outputs=(act(20, 64, 128),), attributes={"normalized_shape": [128]})
        ],
        [operator(1, op="aten::sort", category="Other", module="net.0", inputs=(act(10, 64, 128),), outputs=(act(20, 64, 128),))],
    ],
    ids=["residual", "norm over all channels", "an operator of which nothing is known"],
)  # fmt: skip
def test_what_needs_all_channels_keeps_the_layers_whole(between):
    assert divided_weights(mlp(*between)) == set()


def test_a_gate_is_a_column_too_and_a_sum_of_two_layers_is_not():
    def gated(op):
        return [
            linear(0, act(1, 64, 32), weight(4, 32, 128), act(11, 64, 128), "net.0.gate"),
            *mlp(elementwise(1, (act(10, 64, 128), act(11, 64, 128)), act(20, 64, 128), op)),
        ]

    assert divided_weights(gated("aten::mul")) == {2, 3, 4}
    assert divided_weights(gated("aten::add")) == set()


def test_heads_are_followed_through_complex_numbers():
    """As rotary embeddings turn pairs: a view as complex numbers, a product with those of each position, a view as real ones."""
    pairs = use(10, (64, 4, 16, 2), (128, 32, 2, 1), storage_bytes=4 * 64 * 128, dtype="fp32")
    turned = {"dtype": "complex64", "storage_bytes": 4 * 64 * 128}
    seen, positions = use(10, (64, 4, 16), (64, 16, 1), **turned), use(99, (64, 1, 16), (16, 16, 1), **turned)
    result = use(20, (64, 4, 16), (64, 16, 1), **turned)
    between = [
        operator(1, op="aten::view_as_complex", module="net.0", inputs=(pairs,), outputs=(seen,), attributes={}, is_view=True),
        elementwise(2, (seen, positions), result, "aten::mul"),
    ]  # fmt: skip
    up, *_, down = mlp()
    single = [
        dataclasses.replace(up, outputs=(use(10, (64, 128), storage_bytes=4 * 64 * 128, dtype="fp32"),)),
        dataclasses.replace(down, inputs=(use(20, (64, 128), storage_bytes=4 * 64 * 128, dtype="fp32"), down.inputs[1])),
    ]  # fmt: skip
    assert divided_weights([single[0], *between, single[1]]) == {2, 3}
    each_head = use(99, (64, 4, 16), (64, 16, 1), **turned)
    assert divided_weights([single[0], between[0], elementwise(2, (seen, each_head), result, "aten::mul"), single[1]]) == set()  # fmt: skip


def test_parts_of_one_layer_are_divided_each():
    """Of what one layer makes, 128 channels are 4 heads and 256 an MLP's: put side by side again, they go into one layer."""
    fused = use(10, (64, 384), storage_bytes=2 * 64 * 384)
    heads = use(10, (64, 4, 32), (384, 32, 1), storage_bytes=2 * 64 * 384)
    other = use(10, (64, 256), (384, 1), storage_bytes=2 * 64 * 384)
    operators = [
        linear(0, act(1, 64, 32), weight(2, 32, 384), fused),
        elementwise(1, (heads,), act(11, 64, 4, 32)),
        elementwise(2, (other,), act(12, 64, 256)),
        operator(3, op="aten::cat", category="Memory", module="net.0", inputs=(act(11, 64, 128), act(12, 64, 256)),
                 outputs=(act(20, 64, 384),), attributes={"dim": -1}),
        linear(4, act(20, 64, 384), weight(3, 384, 32), act(30, 64, 32)),
    ]  # fmt: skip
    assert divided_weights(operators) == {2, 3}
    cuts = regions.find(operators, images=2).cuts
    assert (cuts[10].axis(heads), cuts[10].axis(other), cuts[11].axis(act(11, 64, 128))) == (1, 1, 1)


def test_a_layer_for_each_image_is_not_worth_it_nor_one_outside_of_a_block():
    operators = mlp(elementwise(1, (act(10, 64, 128),), act(20, 64, 128)))
    assert not regions.find(operators, images=64).cuts
    outside = [dataclasses.replace(op, module=op.module.replace("net.0", "head")) for op in operators]
    assert not regions.find(outside, images=2).cuts
