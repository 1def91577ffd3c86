"""Caches against diffusers' own hooks, recorded: the same operators on the same shapes, in the same order."""

import pytest

from simtti.workloads.caching import cached
from simtti.workloads.trace import Phase, Step, Trace

pytest.importorskip("torch")
pytest.importorskip("diffusers.hooks")

LAYERS, SINGLE_LAYERS = 2, 3


def recorded(cache=None, steps=1):
    """A small FLUX transformer's steps, each recorded on its own, under a cache of diffusers' where given."""
    import torch
    from diffusers import FluxTransformer2DModel

    from simtti.workloads.models.pipelines.meta_values import ReadValues
    from simtti.workloads.recorder import Recorder

    recorder = Recorder()
    model = recorder.add(
        "transformer", FluxTransformer2DModel, num_layers=LAYERS, num_single_layers=SINGLE_LAYERS,
        num_attention_heads=2, attention_head_dim=16, in_channels=16, joint_attention_dim=32,
        pooled_projection_dim=32, axes_dims_rope=(4, 6, 6), dtype="bf16",
    )  # fmt: skip
    if cache is not None:
        model.enable_cache(cache)
    here = {"dtype": torch.bfloat16, "device": "meta"}
    arguments = {
        "hidden_states": torch.empty(1, 64, 16, **here), "encoder_hidden_states": torch.empty(1, 8, 32, **here),
        "pooled_projections": torch.empty(1, 32, **here), "timestep": torch.empty(1, **here),
        "img_ids": torch.empty(64, 3, **here), "txt_ids": torch.empty(8, 3, **here),
    }  # fmt: skip
    # What the comparison reads is 0: no difference, a hit.
    with torch.no_grad(), ReadValues({}), model.cache_context("only"):
        for _ in range(steps):
            with recorder.step("denoising", domain="joint"):
                model(**arguments)
    return recorder.phases()[0].steps


def as_trace(steps, count):
    phase = Phase("denoising", (Step(count, steps[0].operators),))
    return Trace("small-flux", {"steps": count}, (phase,), schedule={"denoising": 0})


def issued(operators):
    """What reaches the GPU, by module, name and shapes."""
    return [
        (one.module, one.op, [use.shape for use in one.inputs], [use.shape for use in one.outputs])
        for one in operators
        if not one.is_view
    ]


def ours(given, count):
    trace = cached(as_trace(recorded(), count), given)
    return [list(step.operators) for step in trace.phases[0].steps]


def test_first_block_cache_does_what_diffusers_does():
    from diffusers.hooks import FirstBlockCacheConfig

    first, hit = recorded(FirstBlockCacheConfig(threshold=0.1), steps=2)
    our_first, our_hit = ours("fbcache:0.5", 2)
    assert issued(our_first) == issued(first.operators)
    assert issued(our_hit) == issued(hit.operators)


def test_a_miss_of_the_first_block_cache_does_what_diffusers_does():
    from diffusers.hooks import FirstBlockCacheConfig

    # Below no threshold: 0 > -1, so that nothing ever hits.
    miss = recorded(FirstBlockCacheConfig(threshold=-1.0), steps=2)[1]
    assert issued(ours("fbcache:0", 2)[1]) == issued(miss.operators)


def test_mag_cache_does_what_diffusers_does():
    from diffusers.hooks import MagCacheConfig

    config = MagCacheConfig(threshold=1.0, retention_ratio=0.2, num_inference_steps=3, mag_ratios=[1.0] * 3)
    full, hit = recorded(config, steps=2)
    our_full, our_hit = ours("magcache:0.5:warmup=1", 2)
    assert issued(our_full) == issued(full.operators)
    assert issued(our_hit) == issued(hit.operators)
