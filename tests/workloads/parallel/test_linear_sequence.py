"""Sana's tokens on several GPUs: linear attention exchanges heads or passes on keys and values; convolutions get their borders."""

import pytest

from simtti.workloads.flops import flops
from simtti.workloads.parallel.degrees import Degrees
from simtti.workloads.parallel.operands import ALL_TO_ALL, SEND_RECEIVE
from simtti.workloads.parallel.shard import shard
from simtti.workloads.record import workload_trace

BLOCKS, TOKENS, WIDTH, HEADS, INNER = 20, 1024, 2240, 70, 11200


@pytest.fixture(scope="module")
def sana():
    return workload_trace("sana-1.6b", steps=2)


def step(trace):
    return next(phase for phase in trace.phases if phase.name == "denoising").steps[0].operators


def work(operators, within):
    return sum(flops(op) for op in operators if within in op.module)


@pytest.mark.parametrize("degrees", [Degrees(2), Degrees(1, 2), Degrees(2, 2)])
def test_tokens_and_heads_are_shared(sana, degrees):
    whole, share = step(sana), step(shard(sana, degrees))
    gpus = degrees.gpus
    for layer in ("attn1.to_q", "attn1.to_out", "ff.conv_inverted", "ff.conv_point"):
        assert gpus * work(share, layer) == work(whole, layer), layer
    # Three rows are convolved for each border, of the 32 / gpus that a GPU has.
    assert gpus * work(share, "conv_depth") == work(whole, "conv_depth") * (1 + 6 * gpus / 32)
    sums = [op for op in share if op.op == "aten::bmm" and op.inputs[0].shape[-2:-1] == (33,)]
    heads, tokens = -(-HEADS // degrees.ulysses), TOKENS // degrees.ring
    assert {op.inputs[0].shape for op in sums} == {(2 * heads, 33, tokens), (2 * heads, 33, 32)}
    assert len(sums) == 2 * BLOCKS * degrees.ring  # each GPU multiplies all keys and values of its heads


def test_what_is_exchanged(sana):
    share = step(shard(sana, Degrees(2, 2)))
    exchanges = [op for op in share if op.op == ALL_TO_ALL]
    assert len(exchanges) == 4 * BLOCKS
    assert {op.inputs[0].numel for op in exchanges} == {2 * TOKENS // 4 * WIDTH}
    ring = [op for op in share if op.op == SEND_RECEIVE and op.attributes.get("overlapped")]
    assert len(ring) == BLOCKS
    assert {use.shape for op in ring for use in op.inputs} == {(2, HEADS // 2, TOKENS // 2, 32)}
    borders = [op for op in share if op.op == SEND_RECEIVE and not op.attributes.get("overlapped")]
    assert len(borders) == 2 * BLOCKS
    assert {use.shape for op in borders for use in op.outputs} == {(2, INNER, 1, 32)}


def test_every_tensor_lies_within_its_storage(sana):
    for degrees in (Degrees(2, 2), Degrees(2, pipefusion=2, patches=2)):
        for op in shard(sana, degrees).operators():
            for use in (*op.inputs, *op.outputs):
                if use.numel:
                    last = sum(
                        (size - 1) * stride for size, stride in zip(use.shape, use.strides, strict=True)
                    )
                    assert last < max(use.storage_bytes, 1), (op.op, op.module, use)


def test_a_pipeline_of_shares_keeps_keys_and_values_of_all_tokens(sana):
    share = shard(sana, Degrees(2, pipefusion=2, patches=2))
    patched = next(phase for phase in share.phases if phase.name == "denoising").steps[-1].operators
    kept = {use.tensor: use.storage_bytes for op in patched for use in op.outputs if use.role == "buffer"}
    pairs = [nbytes for nbytes in kept.values() if nbytes == 2 * HEADS // 2 * TOKENS * 32 * 2]
    assert len(pairs) == 2 * BLOCKS // 2
