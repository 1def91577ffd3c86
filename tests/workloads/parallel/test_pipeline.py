"""PipeFusion: stages and patches add up to the whole, what is kept and sent has the bytes that it must, and what cannot be cut is
refused."""

from collections import Counter

import pytest
from small_traces import operator, use

import simtti
from simtti.workloads.flops import flops
from simtti.workloads.parallel.degrees import Degrees
from simtti.workloads.parallel.operands import ALL_TO_ALL, RECEIVE, SEND_RECEIVE
from simtti.workloads.parallel.pipeline import between_stages, kinds_of
from simtti.workloads.parallel.shard import shard
from simtti.workloads.parallel.stages import block_of, blocks_of, staged
from simtti.workloads.record import workload_trace

TOKENS, WIDTH, BATCH, BLOCKS, TEXT = 4096, 1152, 2, 28, 300  # PixArt-Sigma's, guidance doubling the batch
FOUR = Degrees(pipefusion=4, patches=4)


@pytest.fixture(scope="module")
def pixart():
    return workload_trace("pixart-sigma", steps=5)


@pytest.fixture(scope="module")
def stages(pixart):
    return [shard(pixart, FOUR, stage) for stage in range(4)]


def steps(trace):
    return next(phase for phase in trace.phases if phase.name in trace.schedule).steps


def kept(step):
    return {use.tensor: use for op in step.operators for use in op.outputs if use.role == "buffer"}


def test_the_work_of_all_stages_and_patches_is_that_of_one_gpu(pixart, stages):
    """But for the text: each patch brings it along, and what comes before the blocks every GPU does."""
    (whole,) = steps(pixart)
    of_text, of_all = Counter(), 0
    for op in whole.operators:
        of_image = any(size % TOKENS == 0 for use in op.outputs for size in use.shape[:-1]) or (
            op.category == "Convolution"
        )
        of_all += flops(op)
        if not of_image:
            of_text[bool(block_of(op))] += flops(op)
    assert of_text[True] > of_text[False] > 0
    warm, _, patched = zip(*map(steps, stages), strict=True)
    assert sum(flops(op) for step in warm for op in step.operators) == of_all + 3 * of_text[False]
    assert sum(flops(op) for step in patched for op in step.operators) == (
        of_all + 3 * of_text[True] + (4 * 4 - 1) * of_text[False]
    )


def test_the_steps_stay_as_many(pixart, stages):
    for share in stages:
        assert [step.count for step in steps(share) if step.is_of_the_model] == [1, 4]
    assert [
        step.count for step in steps(shard(pixart, FOUR._replace(warmup_steps=0))) if step.is_of_the_model
    ] == [5]
    assert len(steps(shard(pixart, FOUR._replace(warmup_steps=5)))) == 1


def test_each_stage_has_its_blocks_and_keeps_their_keys_and_values(stages):
    for number, share in enumerate(stages):
        warm, _, patched = steps(share)
        found = sorted({int(op.module.split(".")[2]) for op in warm.operators if block_of(op)})
        assert found == list(range(7 * number, 7 * number + 7))
        each = BATCH * TOKENS * WIDTH * 2
        assert sum(use.storage_bytes for use in kept(patched).values()) == BLOCKS / 4 * 2 * each
        attention = [op for op in patched.operators if op.attributes.get("kind") == "self"]
        assert {(op.inputs[0].shape[2], op.inputs[1].shape[2]) for op in attention} == {(TOKENS // 4, TOKENS)}


def test_a_stage_has_its_part_of_the_weights(pixart, stages):
    blocks = {
        use.tensor: use.storage_bytes
        for op in steps(pixart)[0].operators
        if block_of(op)
        for use in op.inputs
        if use.role == "parameter"
    }
    for share in stages:
        gone = pixart.parameter_bytes["transformer"] - share.parameter_bytes["transformer"]
        assert gone == pytest.approx(3 / 4 * sum(blocks.values()), rel=1e-9)
        assert share.parameter_bytes["text_encoder"] == pixart.parameter_bytes["text_encoder"]


def test_what_goes_from_stage_to_stage_is_the_image_once_a_step(stages):
    hidden, latents = BATCH * TOKENS * WIDTH * 2, None
    for number, share in enumerate(stages):
        for step in steps(share):
            sends = [op for op in step.operators if between_stages(op) and op.op == SEND_RECEIVE]
            if not sends:
                continue
            sent = sum(use.nbytes for op in sends for use in op.inputs)
            received = sum(use.nbytes for op in sends for use in op.outputs)
            latents = latents or received  # into the first stage
            assert (received, sent) == (
                hidden if number else latents,
                hidden if number < 3 else latents,
            )
            patched = step.count > 1
            assert [bool(op.attributes.get("overlapped")) for op in sends] == [patched] * (
                4 if patched else 1
            )
    assert latents < hidden / 10


def test_a_patch_waits_for_its_own_data_and_no_other():
    """What a pass reads of the stage before comes with the pass before it."""
    share = shard(workload_trace("pixart-sigma", steps=3), Degrees(pipefusion=2, patches=2), 1)
    sends = [op for op in steps(share)[2].operators if op.op == SEND_RECEIVE]
    come = [{use.tensor for use in op.outputs} for op in sends]
    reads, at = [set(), set()], -1
    for op in steps(share)[2].operators:
        if op.op == SEND_RECEIVE:
            at += 1
        elif at >= 0:
            reads[at] |= {use.tensor for use in op.inputs}
    assert come[0] <= reads[1]
    assert not come[0] & reads[0]
    assert come[1] <= reads[0]
    assert not come[1] & reads[1]


def test_a_text_attended_to_jointly_goes_along_once_a_step():
    flux = workload_trace("flux-dev", steps=3)
    share = shard(flux, Degrees(pipefusion=2, patches=2), 0)
    patched = steps(share)[2]
    sends = [op for op in patched.operators if op.op == SEND_RECEIVE]
    assert sum(use.nbytes for op in sends for use in op.inputs) == (4096 + 512) * 3072 * 2
    attention = next(op for op in patched.operators if op.category == "Attention")
    assert [use.shape[2] for use in attention.inputs[:3]] == [2048 + 512, 4096 + 512, 4096 + 512]
    assert {use.storage_bytes for use in kept(patched).values()} == {4096 * 3072 * 2}


def test_a_step_that_denoises_twice_is_refused():
    attention = {"kind": "self", "domain": "spatial"}
    pair = tuple(use(each, (1, 8, 4096, 64)) for each in range(3))
    there_and_back = [
        operator(
            at,
            module=f"transformer.blocks.{block}.attn",
            category="Attention",
            inputs=pair,
            attributes=attention,
        )
        for at, block in enumerate([0, 1, 0, 1])
    ]
    stages_of = blocks_of("toy", there_and_back, 2, {4096})
    assert stages_of == {"transformer.blocks.0": 0, "transformer.blocks.1": 1}
    with pytest.raises(simtti.InputError, match="goes through its blocks twice in a step"):
        staged("toy", there_and_back, stages_of, lambda use: False)


def test_linear_attention_sums_over_all_tokens_and_convolutions_keep_their_borders():
    sana = workload_trace("sana-1.6b", steps=3)
    share = shard(sana, Degrees(pipefusion=4, patches=4), 1)
    patched = steps(share)[2]
    sums = [op for op in patched.operators if op.op == "aten::bmm" and op.inputs[0].shape[-2] == 33]
    assert {op.inputs[0].shape[-1] for op in sums} == {1024, 32}
    borders = [use for use in kept(patched).values() if len(use.shape) == 4 and use.shape[-1] == 32]
    assert {use.shape for use in borders} == {(2, 11200, 1, 32)}
    assert {use.storage_bytes for use in borders} == {2 * 11200 * 4 * 32 * 2}  # a row of each patch
    assert kinds_of(sana)[1][0].image == 1024


def test_stages_share_tokens_and_halves_of_guidance_too(pixart):
    share = shard(pixart, Degrees(ulysses=2, ring=2, cfg=2, pipefusion=2, patches=2), 1)
    patched = steps(share)[2]
    attention = [op for op in patched.operators if op.attributes.get("kind") == "self"]
    # Of one half, of the GPU's 8 heads of 16; the ring passes on half of the keys, all that were kept of them.
    assert {tuple(op.inputs[0].shape[:3]) for op in attention} == {(1, 8, TOKENS // 2 // 2)}
    assert {tuple(op.inputs[1].shape[:3]) for op in attention} == {(1, 8, TOKENS // 2)}
    ring = [op for op in patched.operators if op.op == SEND_RECEIVE and not between_stages(op)]
    assert {use.shape for op in ring for use in op.inputs} == {(1, 8, TOKENS // 2, 72)}
    exchange = next(op for op in patched.operators if op.op == ALL_TO_ALL)
    assert exchange.inputs[0].numel == TOKENS // 4 // 2 * WIDTH
    sent = [op for op in patched.operators if between_stages(op) and op.op == SEND_RECEIVE]
    assert sum(use.nbytes for op in sent for use in op.outputs) == TOKENS // 4 * WIDTH * 2
    assert sum(op.op == RECEIVE for op in patched.operators) == 1


@pytest.mark.parametrize(
    ("workload", "options", "message"),
    [
        ("pixart-sigma", {"gpus": 16, "pipefusion": 16}, "28 blocks, 2 on a GPU, which leaves some of pipefusion 16 without; give 14"),
        ("pixart-sigma", {"gpus": 4, "pipefusion": 3}, "pipefusion 3 times ulysses 1 times ring 1 is 3; it must be gpus, 4"),
        ("pixart-sigma", {"gpus": 2, "pipefusion_patches": 4}, "pipefusion-patches is 4, but there is no pipeline"),
        ("pixart-sigma", {"gpus": 2, "pipefusion": 2, "pipefusion_patches": 0}, "pipefusion-patches is 0; it must be at least 1"),
        ("pixart-sigma", {"gpus": 2, "pipefusion": 2, "warmup_steps": -1}, "warmup-steps is -1; it must be at least 0"),
        ("pixart-sigma", {"gpus": 2, "pipefusion": 2, "pipefusion_patches": 5000}, "4096 tokens of its image on a GPU, fewer than"),
        ("stable-diffusion-1.5", {"gpus": 2, "pipefusion": 2}, "as a UNet does"),
    ],
)  # fmt: skip
def test_what_cannot_be_cut_is_refused(workload, options, message):
    with pytest.raises(simtti.InputError, match=message):
        simtti.run(workload, "h100-sxm", **options)
