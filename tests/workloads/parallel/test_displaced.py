"""A UNet's image in bands on several GPUs: work is shared, every band gets what is beyond its borders, and nothing waits but at first."""

import dataclasses

import pytest
from small_traces import operator, small_trace, use

import simtti
from simtti.errors import InputError
from simtti.hw_configs.devices import load
from simtti.simulator.several_gpus import WARMUP_OF_PATCHES, degrees_of
from simtti.workloads.flops import flops
from simtti.workloads.parallel import displaced, guidance
from simtti.workloads.parallel.operands import ALL_GATHER
from simtti.workloads.parallel.rows import Rows
from simtti.workloads.record import workload_trace
from simtti.workloads.trace import Phase, Step


def denoising(trace):
    return next(phase for phase in trace.phases if phase.name == "denoising").steps


def halved(name):
    return guidance.halved(workload_trace(name, steps=10))


@pytest.fixture(scope="module")
def shares():
    """A GPU's first steps and its others, of Stable Diffusion 1.5 on two and four GPUs for each half of guidance."""
    whole = halved("stable-diffusion-1.5")
    return {ranks: denoising(displaced.divided(whole, ranks, 3)) for ranks in (2, 4)}


def gathers(step):
    return [op for op in step.operators if op.op == ALL_GATHER and op.module.startswith("unet")]


@pytest.mark.parametrize(
    ("name", "ranks"), [("stable-diffusion-1.5", 2), ("stable-diffusion-1.5-controlnet", 2), ("sdxl", 4)]
)
def test_each_gpu_does_its_part_and_all_operands_fit(name, ranks):
    """What all do is the text's keys and values, embeddings of the timestep and no more."""
    whole = halved(name)
    first, later = denoising(displaced.divided(whole, ranks, 3))
    (step,) = denoising(whole)
    assert (first.count, later.count) == (3, step.count - 3)
    for share in (first, later):
        done = ranks * sum(map(flops, share.operators)) / sum(map(flops, step.operators))
        assert 1 <= done < 1 + 0.02 * (ranks - 1)
        for op in share.operators:
            for seen in (*op.inputs, *op.outputs):
                if seen.numel and 0 not in seen.strides:
                    last = sum((size - 1) * by for size, by in zip(seen.shape, seen.strides, strict=True))
                    assert last < max(seen.storage_bytes, 1), (op.op, op.module, seen)


def test_a_convolution_reads_rows_beyond_its_borders(shares):
    (whole,) = denoising(halved("stable-diffusion-1.5"))
    before = [op for op in whole.operators if op.category == "Convolution"]
    for ranks, steps in shares.items():
        for step in steps:
            after = [op for op in step.operators if op.category == "Convolution"]
            for one, own in zip(before, after, strict=True):
                image, weight, out = own.inputs[0], own.inputs[1], own.outputs[0]
                taps, (stride, pad) = (
                    weight.shape[-2],
                    (own.attributes["stride"][-2], own.attributes["padding"][-2]),
                )
                assert (
                    out.shape[2]
                    == (image.shape[2] + 2 * pad - taps) // stride + 1
                    == one.outputs[0].shape[2] // ranks
                )
                assert image.shape[2] == one.inputs[0].shape[2] // ranks + taps - 1


def test_attention_sees_all_keys_of_the_image_and_of_the_text(shares):
    (whole,) = denoising(halved("stable-diffusion-1.5"))
    keys = [op.inputs[1].shape for op in whole.operators if op.category == "Attention"]
    for ranks, steps in shares.items():
        for step in steps:
            attention = [op for op in step.operators if op.category == "Attention"]
            assert [op.inputs[1].shape for op in attention] == keys
            assert all(ranks * op.inputs[0].shape[-2] % 64 == 0 for op in attention)
            assert all(op.inputs[0].shape == op.outputs[0].shape for op in attention)


def test_first_steps_wait_for_each_layer_and_later_ones_send_beside_the_computation(shares):
    """The same bytes go: of each convolution of several rows but the first, group norm and self-attention."""
    (whole,) = denoising(halved("stable-diffusion-1.5"))
    layers = (
        sum(
            op.op == "aten::native_group_norm"
            or (op.category == "Convolution" and op.inputs[1].shape[-1] > 1)
            or (op.category == "Attention" and op.inputs[0].shape[-2] == op.inputs[1].shape[-2])
            for op in whole.operators
        )
        - 1
    )
    for ranks, (first, later) in shares.items():
        waited, sent = gathers(first), gathers(later)
        assert len(waited) == layers + 1
        assert not any(op.attributes.get("overlapped") for op in waited)
        assert [bool(op.attributes.get("overlapped")) for op in sent] == [True] * -(
            -layers // displaced.CHECKPOINT
        ) + [False]
        for op in (*waited, *sent):
            assert op.outputs[0].numel == ranks * op.inputs[0].numel
            assert op.attributes["ranks"] == ranks
        assert sum(op.inputs[0].nbytes for op in waited[:-1]) == sum(op.inputs[0].nbytes for op in sent[:-1])
        assert sent[-1].outputs[0].shape == (ranks, 1, 4, 64 // ranks, 64)


def made_in(step):
    """Activations that are written before they are read."""
    found, read = set(), set()
    for op in step.operators:
        read |= {item.tensor for item in op.inputs}
        found |= {item.tensor for item in op.outputs if item.role == "activation" and item.tensor not in read}
    return found


def test_what_is_made_is_let_go_of_and_what_is_kept_is_not(shares):
    for first, later in shares.values():
        kept = [
            {u.tensor for op in step.operators for u in op.outputs if u.role == "buffer"}
            for step in (first, later)
        ]
        assert not made_in(first) & made_in(later)
        for step, here in zip((first, later), kept, strict=True):
            gone = [tensor for op in step.operators for tensor in op.released]
            assert len(gone) == len(set(gone))
            assert not here & set(gone)


@pytest.mark.parametrize(
    ("name", "ranks", "message"),
    [
        ("pixart-sigma", 2, "pixart-sigma has no UNet"),
        ("stable-diffusion-1.5", 16, "has an image of 8 rows in .*, which patches 16 does not divide"),
        ("kandinsky-2.2", 2, "avg_pool2d of .* needs rows of several patches in a way that is not known"),
        ("animatediff", 2, "native_group_norm of .*motion_modules.* needs rows of several patches"),
    ],
)  # fmt: skip
def test_what_cannot_be_divided_is_refused(name, ranks, message):
    with pytest.raises(InputError, match=message):
        displaced.divided(workload_trace(name, steps=2), ranks, 1)


def image(tensor, rows=8, channels=4):
    return use(tensor, (1, channels, rows, 8), storage_bytes=2 * channels * rows * 8)


def convolution(position, source, result):
    taps = use(50 + position, (4, 4, 3, 3), storage_bytes=288, role="parameter")
    attributes = {"stride": [1, 1], "padding": [1, 1]}
    return operator(position, op="aten::convolution", category="Convolution", inputs=(source, taps), outputs=(result,), attributes=attributes)  # fmt: skip


@pytest.mark.parametrize(
    "mixing",
    [
        operator(1, op="aten::cumsum", category="Other", inputs=(image(1),), outputs=(image(2),), attributes={}),
        operator(1, op="aten::cat", category="Memory", inputs=(image(1), image(1)), outputs=(image(2, 16),), attributes={"dim": 2}),
        operator(1, op="aten::add", inputs=(image(1), image(9)), outputs=(image(2),), attributes={}),
    ],
    ids=["along rows", "under one another", "another whole image"],
)  # fmt: skip
def test_what_mixes_rows_in_another_way_is_refused(mixing):
    operators = [convolution(0, image(0), image(1)), mixing, convolution(2, image(2), image(4))]
    trace = small_trace(phases=(Phase("denoising", (Step(2, tuple(operators)),)),))
    with pytest.raises(InputError, match="in a way that is not known"):
        displaced.divided(trace, 2, 1)


def test_rows_are_followed_through_tokens_and_back():
    rows = Rows("tiny", 2)
    rows.begin(operator(), image(1))
    tokens = use(1, (1, 64, 4), (256, 1, 64), storage_bytes=512)
    assert (rows.axis(image(1)), rows.axis(tokens)) == (2, 1)
    product = operator(op="aten::bmm", category="Linear", inputs=(tokens, use(3, (1, 4, 4), role="parameter")), outputs=(use(2, (1, 64, 4), storage_bytes=512),))  # fmt: skip
    rows.follow(product, [(tokens, 1)])
    back = use(2, (1, 4, 8, 8), (256, 1, 32, 4), storage_bytes=512)
    assert rows.axis(back) == 2
    assert rows.band(back) == dataclasses.replace(
        back, shape=(1, 4, 4, 8), strides=(128, 1, 32, 4), storage_bytes=256
    )


def test_patches_make_a_run_faster_and_say_so():
    trace = workload_trace("sdxl", steps=10)
    runs = [
        simtti.run(
            trace,
            "a100-sxm",
            launch="graph",
            fidelity="closed",
            gpus=2 * patches,
            cfg_parallel=2,
            patches=patches,
        )
        for patches in (1, 4)
    ]
    times = [run.latency_s for run in runs]
    assert times == sorted(times, reverse=True)
    shared = runs[1].several_gpus
    assert (shared.patches, shared.warmup_steps, shared.degrees) == (4, WARMUP_OF_PATCHES, "cfg 2, patches 4")
    assert runs[1].breakdown["Communication"] < 0.1 * times[1]


@pytest.mark.parametrize(
    ("gpus", "options", "message"),
    [
        (4, {"patches": 3}, "patches 3 times ulysses 1 times ring 1 is 3; it must be gpus, 4"),
        (4, {"patches": 2}, "patches is 2, of a UNet's image; beside it GPUs share no more than the halves of guidance: give 4"),
        (4, {"patches": 2, "tensor": 2}, "beside it GPUs share no more than the halves of guidance"),
        (2, {"patches": 2, "pipefusion_patches": 2}, "pipefusion-patches is 2, but there is no pipeline"),
        (2, {"patches": 2, "warmup_steps": -1}, "warmup-steps is -1"),
    ],
)  # fmt: skip
def test_degrees_that_do_not_go_together_are_refused(gpus, options, message):
    with pytest.raises(InputError, match=message):
        degrees_of(gpus, None, None, load("h100-sxm"), **options)
