"""A VAE's decoder on several GPUs: bands of rows with their neighbours' borders, or whole tiles."""

import pytest

import simtti
from simtti.workloads.flops import flops
from simtti.workloads.parallel.degrees import Degrees
from simtti.workloads.parallel.operands import ALL_GATHER, ALL_REDUCE, SEND_RECEIVE
from simtti.workloads.parallel.shard import shard
from simtti.workloads.record import workload_trace


@pytest.fixture(scope="module")
def pixart():
    return workload_trace("pixart-sigma", steps=2)


def decoder(trace):
    return [
        op
        for phase in trace.phases
        if phase.name == "decoder"
        for step in phase.steps
        for op in step.operators
    ]


def count(operators, op):
    return sum(each.op == op for each in operators)


def work(operators, within):
    return sum(flops(op) for op in operators if within in op.module)


@pytest.mark.parametrize("ranks", [2, 4, 3])
def test_each_gpu_decodes_a_band_with_its_neighbours_rows(pixart, ranks):
    whole, share = decoder(pixart), decoder(shard(pixart, Degrees(decoder=ranks)))
    own = -(-128 // ranks) * 8  # rows of the image
    convolution = next(op for op in reversed(share) if op.category == "Convolution")
    assert [use.shape[2] for use in (convolution.inputs[0], convolution.outputs[0])] == [own + 2, own + 2]
    last = max(at for at, op in enumerate(share) if op.op == SEND_RECEIVE)
    assert [use.nbytes for use in share[last].outputs] == [128 * 1024 * 2] * 2  # a row of 128 channels each
    gathered = next(op for op in share if op.op == ALL_GATHER)
    assert gathered.outputs[0].shape == (ranks, 1, 3, own, 1024)
    # The work is shared from the end of the block with attention on; borders are convolved by both neighbours.
    for block in ("up_blocks", "conv_out"):
        assert work(whole, block) < ranks * work(share, block) < 1.3 * work(whole, block)
    for block in ("conv_in", "mid_block"):
        assert work(whole, block) == work(share, block)


def test_group_norms_add_up_their_statistics_over_the_gpus(pixart):
    whole, share = decoder(pixart), decoder(shard(pixart, Degrees(decoder=2)))
    norms = [op for op in whole if op.op == "aten::native_group_norm" and "mid_block" not in op.module]
    reduced = [op for op in share if op.op == ALL_REDUCE]
    assert len(reduced) == 2 * len(norms)
    assert {op.inputs[0].nbytes for op in reduced} == {32 * 4}
    overlapping = [op for op in whole if op.category == "Convolution" and op.inputs[1].shape[-1] == 3]
    exchanged = [op for op in overlapping if "up_blocks" in op.module or "conv_out" in op.module]
    assert count(share, SEND_RECEIVE) == len(exchanged)


def test_what_a_band_is_made_of_lies_within_its_storage(pixart):
    for trace in (pixart, workload_trace("qwen-image", steps=2)):
        for op in decoder(shard(trace, Degrees(decoder=2))):
            for use in (*op.inputs, *op.outputs):
                if use.numel:
                    last = sum(
                        (size - 1) * stride for size, stride in zip(use.shape, use.strides, strict=True)
                    )
                    assert last < max(use.storage_bytes, 1), (op.op, op.module, use)


def test_a_videos_decoder_gathers_what_attention_sees():
    """Qwen-Image's is one of a frame: its attention is done whole on each GPU, everything else in bands."""
    trace = workload_trace("qwen-image", steps=2)
    whole, share = decoder(trace), decoder(shard(trace, Degrees(decoder=2)))
    attention = next(op for op in share if op.category == "Attention")
    assert attention.inputs == next(op for op in whole if op.category == "Attention").inputs
    assert count(share, ALL_GATHER) == 2
    assert 2 * work(share, "mid_block.resnets") == pytest.approx(work(whole, "mid_block.resnets"), rel=0.05)


def test_tiles_are_dealt_out_whole():
    trace = workload_trace("wan2.1-1.3b", steps=2)
    phase = next(item for item in trace.phases if item.name == "decoder")
    shared = next(item for item in shard(trace, Degrees(decoder=4)).phases if item.name == "decoder")
    for before, after in zip(phase.steps, shared.steps, strict=True):
        decodes = any("decoder" in op.module and op.category == "Convolution" for op in before.operators)
        assert after.count == (-(-before.count // 4) if decodes else before.count)


def test_time_and_memory_fall_and_all_gpus_spend_energy(pixart):
    how = {"fidelity": "closed", "gpus": 2, "cfg_parallel": 2}
    alone = simtti.run(pixart, "h100-sxm", **how)
    shared = simtti.run(pixart, "h100-sxm", **how, parallel_vae=True)
    assert 0.4 * alone.stages["decoder_s"] < shared.stages["decoder_s"] < 0.7 * alone.stages["decoder_s"]
    assert shared.stages["denoising_s"] == pytest.approx(alone.stages["denoising_s"], rel=1e-3)
    growing = [run.memory.growing_bytes for run in (alone, shared)]
    assert 0.4 * growing[0] < growing[1] < 0.7 * growing[0]
    assert (shared.several_gpus.parallel_vae, alone.several_gpus.parallel_vae) == (True, False)
    assert "VAE 2" in shared.several_gpus.degrees
    assert shared.several_gpus.energy_j == pytest.approx(2 * shared.energy_j)
    assert shared.breakdown_by_phase["decoder"]["Communication"] > 0
    assert not any(op.startswith("c10d") for op in shared.unlowered)


@pytest.mark.parametrize(
    ("workload", "options", "message"),
    [
        ("pixart-sigma", {"parallel_vae": True}, "parallel-vae is given, but gpus is 1; give 2 or more"),
        (
            "imagen",
            {"gpus": 2, "parallel_vae": True, "cfg_parallel": 2},
            "has no phase decoder with convolutions",
        ),
    ],
)
def test_what_cannot_be_shared_is_refused(workload, options, message):
    with pytest.raises(simtti.InputError, match=message):
        simtti.run(workload, "h100-sxm", **options)
