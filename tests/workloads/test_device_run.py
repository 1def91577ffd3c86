"""A builder on a real device: its steps run there, each watched, and no mode of ours stands between."""

from contextlib import contextmanager

import pytest

torch = pytest.importorskip("torch")
from torch.overrides import _get_current_function_mode_stack  # noqa: E402
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack  # noqa: E402

from simtti.workloads.device_run import DeviceRun, profiled, timed, unwatched  # noqa: E402


def steps(recording):
    """A linear layer, done three times, between a copy each way."""
    layer = recording.add("layer", torch.nn.Linear, 4, 4, dtype="fp32")
    with recording.step("text_encoder", domain="text"), recording.scope("pipeline"):
        found = recording.on_device(torch.ones(2, 4))
    for step in recording.times("denoising", domain="spatial", count=3):
        with step:
            found = layer(found)
    with recording.step("decoder", domain="spatial"), recording.paused():
        recording.copy_to_host(found)
    return found


@pytest.mark.parametrize(("all_steps", "counts"), [(False, [1, 3, 1]), (True, [1, 1, 1, 1, 1])])
def test_steps_run_as_often_as_asked(all_steps, counts):
    run = DeviceRun("cpu", timed, all_steps=all_steps)
    assert steps(run).isfinite().all()
    assert [step.count for step in run.done] == counts
    assert [step.count for phase in run.phases() for step in phase.steps] == counts
    assert all(step.seconds > 0 and step.seconds == step.host_seconds for step in run.done)
    assert run.parameters == {"layer": 20}


def test_what_the_profiler_saw_is_the_steps(capfd):
    run = DeviceRun("cpu", profiled)
    steps(run)
    assert [call.name for call in run.done[1].profile.calls] == ["aten::t", "aten::addmm"]


def test_a_failed_step_is_none():
    run = DeviceRun("cpu", unwatched)
    with pytest.raises(RuntimeError, match="no"), run.step("denoising", domain="spatial"):
        raise RuntimeError("no")
    assert run.done == []
    assert run.steps("denoising") == 0
    assert not torch.is_inference_mode_enabled()
    assert torch.is_grad_enabled()


@contextmanager
def without_modes(step, place):
    assert not _get_current_function_mode_stack()
    assert not _get_current_dispatch_mode_stack()
    yield
    assert not _get_current_function_mode_stack()
    assert not _get_current_dispatch_mode_stack()


def test_a_pipeline_runs_without_a_mode_of_ours():
    """Stable Diffusion 3's classes, whose patches stay strided: the one mode is gone again when a step ends."""
    from transformers import T5Config

    from simtti.workloads.models import stable_diffusion_3 as sd3
    from simtti.workloads.workload import Options

    text = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    small = {
        "CLIP_L": {**sd3.CLIP_L, **text, "projection_dim": 32},
        "OPENCLIP_BIGG": {**sd3.OPENCLIP_BIGG, **text, "projection_dim": 32},
        "T5_XXL": {**sd3.T5_XXL, "d_model": 64, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4},
        "VAE_16": {
            **sd3.VAE_16, "block_out_channels": (32, 32), "layers_per_block": 1,
            "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2,
        },
    }  # fmt: skip
    transformer = {
        **sd3.MEDIUM_3, "sample_size": 8, "num_layers": 1, "num_attention_heads": 2, "attention_head_dim": 8,
        "caption_projection_dim": 16, "joint_attention_dim": 64, "pooled_projection_dim": 64, "pos_embed_max_size": 8,
    }  # fmt: skip
    assert T5Config(**small["T5_XXL"]).d_model == transformer["joint_attention_dim"]
    run = DeviceRun("cpu", without_modes)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in small.items():
            patch.setattr(sd3, name, value)
        sd3.record_sd3(Options(height=16, width=16, steps=2, guidance=5.0, dtype="fp32"), run, transformer)
    assert [step.phase for step in run.done] == ["text_encoder", "denoising", "decoder"]
