"""CFG parallelism: half of the images, or one of the two runs, then an all-gather; nothing else is touched."""

import collections
import math

import pytest

from simtti.errors import InputError
from simtti.workloads.parallel import guidance
from simtti.workloads.parallel.operands import ALL_GATHER
from simtti.workloads.record import workload_trace

BATCHED = [
    "stable-diffusion-1.5",
    "svd",
    "animatediff",
    "hunyuan-dit",
    "sana-1.6b",
    "pixart-sigma",
    "kandinsky-2.2",
]


def work(operators):
    """FLOPs of matrix products and attention, and bytes that kernels write."""
    flops, nbytes = collections.Counter(), 0
    for op in operators:
        if op.category == "Linear":
            a = op.inputs[0] if op.op == "aten::linear" else op.inputs[-2]
            flops["Linear"] += op.outputs[0].numel * a.shape[-1]
        elif op.category == "Convolution":
            flops["Convolution"] += op.outputs[0].numel * math.prod(op.inputs[1].shape[1:])
        elif op.category == "Attention":
            flops["Attention"] += op.inputs[0].numel * op.inputs[1].shape[-2]
        if not op.is_view:
            nbytes += sum(use.nbytes for use in op.outputs)
    return flops, nbytes


def guided(trace):
    return [phase.name for phase in trace.phases if any(op.op == ALL_GATHER for step in phase.steps for op in step.operators)]  # fmt: skip


@pytest.mark.parametrize("name", [*BATCHED, "wan2.1-1.3b"])
def test_both_groups_together_do_what_one_gpu_did(name):
    trace = workload_trace(name)
    half = guidance.halved(trace)
    assert guided(half)
    for before, after in zip(trace.phases, half.phases, strict=True):
        if before.name not in guided(half):
            assert before == after
            continue
        for whole, own in zip(before.steps, after.steps, strict=True):
            (flops, nbytes), (own_flops, own_bytes) = work(whole.operators), work(own.operators)
            for category, amount in flops.items():
                assert 2 * own_flops[category] == pytest.approx(amount, rel=2e-4), category
            assert nbytes <= 2 * own_bytes < 1.001 * nbytes
            assert whole.count == own.count


@pytest.mark.parametrize("name", BATCHED)
def test_operands_fit_each_other_and_their_storage(name):
    for op in guidance.halved(workload_trace(name)).operators():
        for use in (*op.inputs, *op.outputs):
            if use.numel and use.role != "parameter":
                last = sum((size - 1) * stride for size, stride in zip(use.shape, use.strides, strict=True))
                assert last < max(use.storage_bytes, 1), (op.op, op.module, use)
        if op.category == "Elementwise" and op.outputs:
            for use in op.inputs:
                sizes = zip(use.shape[::-1], op.outputs[0].shape[::-1], strict=False)
                assert all(seen in (1, result) for seen, result in sizes), (op.op, op.module)
        if op.category == "Attention":
            assert op.inputs[0].shape[0] == op.inputs[1].shape[0]


@pytest.mark.parametrize(
    ("name", "noise"),
    [("stable-diffusion-1.5", (2, 4, 64, 64)), ("wan2.1-1.3b", (2, 16, 21, 60, 104))],
)
def test_the_prediction_of_the_noise_is_all_that_is_exchanged(name, noise):
    half = guidance.halved(workload_trace(name))
    (gather,) = [op for op in half.operators() if op.category == "Communication"]
    assert (gather.op, gather.attributes) == (ALL_GATHER, {"ranks": 2})
    assert gather.outputs[0].shape == noise
    assert 2 * gather.inputs[0].nbytes == gather.outputs[0].nbytes
    later = list(half.operators())[list(half.operators()).index(gather) + 1 :]
    assert any(use.tensor == gather.outputs[0].tensor for op in later for use in op.inputs)


def test_every_tensor_that_is_read_was_made_or_came_from_outside():
    """In the order of operators, none reads what only the other group makes."""
    for name in ("stable-diffusion-1.5", "wan2.1-1.3b"):
        trace = workload_trace(name)
        made = {use.tensor for op in trace.operators() for use in op.outputs if not op.is_view}
        known = set()
        for op in guidance.halved(trace).operators():
            for use in op.inputs:
                assert use.tensor in known or use.tensor not in made or use.role != "activation", (op, use)
            known.update(use.tensor for use in op.outputs)


@pytest.mark.parametrize("name", ["flux-dev", "hunyuan-video", "llama2-7b"])
def test_what_is_not_guided_is_refused(name):
    with pytest.raises(InputError, match="no step that denoises with the prompt and without it"):
        guidance.halved(workload_trace(name))
