"""How a VAE decodes: what may be asked for, what it is at a shape, and what is recorded then."""

import dataclasses

import pytest
import tiny_workloads

import simtti
from simtti.errors import InputError
from simtti.workloads.catalogue import WORKLOADS, decoded, find
from simtti.workloads.record import recorded, workload_trace
from simtti.workloads.workload import VAE_MODES, Decoding, Options

TILE = 64  # pixels: the tiny VAE's, of 2 pixels a latent


def decoder(patch, mode, build=tiny_workloads.stable, **shape):
    """The decoder phase of a tiny Stable Diffusion."""
    options = Options(**{"height": TILE, "width": TILE, "steps": 2, "vae": mode, **shape})
    trace = recorded(
        lambda asked, recording: build(patch, asked, recording),
        options,
        what="tiny",
        name="tiny",
        options=options.given(),
    )
    return trace, next(phase for phase in trace.phases if phase.name == "decoder")


def calls(phase, module):
    """How often a module's operators are issued, and the batches that they see."""
    count, batches = 0, set()
    for step in phase.steps:
        for one in step.operators:
            if one.module == module and one.op == "aten::convolution":
                count += step.count
                batches.add(one.inputs[0].shape[0])
    return count, batches


def operators(phase):
    return sum(step.count * len(step.operators) for step in phase.steps)


def test_slices_are_the_decoders_operators_at_batch_1_repeated(monkeypatch):
    _, whole = decoder(monkeypatch, None, batch=3)
    _, sliced = decoder(monkeypatch, "sliced", batch=3)
    _, one = decoder(monkeypatch, None, batch=1)
    assert calls(whole, "vae.decoder.conv_in") == (1, {3})
    assert calls(sliced, "vae.decoder.conv_in") == (3, {1})

    def own(phase):
        return [
            (one.op, [use.shape for use in one.inputs])
            for step in phase.steps
            for one in step.operators
            if one.module.startswith("vae.decoder")
        ]

    assert own(sliced) == own(one)


def test_tiles_overlap_and_are_blended(monkeypatch):
    side = 2 * TILE
    whole_trace, whole = decoder(monkeypatch, None, height=side, width=side)
    tiled_trace, tiled = decoder(monkeypatch, "tiled", height=side, width=side)
    # A tile begins every 48 pixels: at 0, 48 and 96 of 128.
    assert calls(whole, "vae.decoder.conv_in") == (1, {1})
    assert calls(tiled, "vae.decoder.conv_in") == (9, {1})
    widest = max(use.shape[-1] for step in tiled.steps for one in step.operators for use in one.inputs
                 if one.module.startswith("vae.decoder") and len(use.shape) == 4)  # fmt: skip
    assert widest == TILE
    # Each of 6 tiles is blended with the one above and each of 6 with the one beside it, row by row: 16 rows of 2 products and a sum.
    blending = [
        (step.count, one) for step in tiled.steps for one in step.operators
        if one.op == "aten::mul" and one.inputs[0].shape[:2] == (1, 3) and len(one.inputs[0].shape) == 3
    ]  # fmt: skip
    assert sum(count for count, _ in blending) == 12 * 16 * 2
    runs = [simtti.run(trace, "h100-sxm", fidelity="closed") for trace in (whole_trace, tiled_trace)]
    peaks = [run.memory.phases[-1].allocated_bytes - run.memory.fixed_bytes for run in runs]
    assert peaks[1] < 0.6 * peaks[0]
    assert runs[1].phases[-1].latency_s > runs[0].phases[-1].latency_s, (
        "more operators, of more pixels in all"
    )


def test_a_video_vae_may_decode_whole(monkeypatch):
    shape = {"height": 256, "width": 272, "frames": 1, "dtype": "bf16", "guidance": 5.0}
    _, own = decoder(monkeypatch, None, tiny_workloads.tiles, **shape)
    _, whole = decoder(monkeypatch, "whole", tiny_workloads.tiles, **shape)
    assert calls(own, "vae.decoder.conv_in")[0] == 4 * calls(whole, "vae.decoder.conv_in")[0]
    assert operators(whole) < operators(own)


@pytest.mark.parametrize(
    ("name", "shape", "mode", "kept"),
    [
        ("stable-diffusion-1.5", {}, "whole", None),
        ("stable-diffusion-1.5", {}, "sliced", None),  # one image
        ("stable-diffusion-1.5", {}, "tiled-sliced", None),  # of one tile
        ("stable-diffusion-1.5", {"height": 1024}, "tiled-sliced", "tiled"),
        ("stable-diffusion-1.5", {"batch": 2}, "tiled-sliced", "sliced"),
        ("sdxl", {"height": 2048, "width": 2048, "batch": 2}, "tiled-sliced", "tiled-sliced"),
        ("modelscope-t2v", {}, "sliced", "sliced"),  # frames are its batch
        ("wan2.1-14b", {}, "tiled", None),
        ("wan2.1-14b", {"batch": 2}, "tiled", "tiled"),
        ("wan2.1-14b", {}, "whole", "whole"),
        ("wan2.1-14b", {}, "sliced", "whole"),
        ("svd", {}, "whole", None),
    ],
)
def test_what_changes_nothing_is_no_other_shape(name, shape, mode, kept):
    assert find(name).options(**shape, vae=mode).vae == kept


@pytest.mark.parametrize(
    ("name", "mode", "message"),
    [
        ("sdxl", "halved", "unknown vae 'halved'"),
        ("svd", "tiled", "the VAE of svd has no tiling or slicing in diffusers"),
        ("imagen", "whole", r"imagen \(.*\) has no VAE; leave it out"),
        ("llama2-7b", "tiled", r"llama2-7b \(autoregressive transformer\) has no VAE"),
    ],
)
def test_what_cannot_be(name, mode, message):
    with pytest.raises(InputError, match=message):
        simtti.run(name, "h100-sxm", vae=mode)


def test_where_nothing_changes_the_shipped_trace_is_it():
    assert workload_trace("sdxl", vae="tiled-sliced").phases == workload_trace("sdxl").phases


def test_every_vae_says_how_it_decodes():
    with_vae = {name for name, item in WORKLOADS.items() if {"vae", "movq"} & set(item.parameters)}
    assert with_vae == {name for name, item in WORKLOADS.items() if item.decoding}
    for item in WORKLOADS.values():
        if item.decoding:
            assert item.decoding.own in item.decoding.modes
            assert set(item.decoding.modes) <= set(VAE_MODES)
            assert decoded(item.name, {}) == item.decoding.own
    assert decoded("imagen", {}) is decoded("mine", {}) is None
    assert decoded("stable-diffusion", {"vae": "tiled"}) == "tiled"
    assert Decoding().asked("tiled", Options(height=8, width=8)) == "tiled", (
        "no tile is known that it fits in"
    )
    assert dataclasses.replace(Options(), vae="tiled").given()["vae"] == "tiled"
