"""A builder on a real device: its steps run there, each watched, and no mode of ours stands between."""

from contextlib import contextmanager

import pytest

torch = pytest.importorskip("torch")
from torch.overrides import _get_current_function_mode_stack  # noqa: E402
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack  # noqa: E402

from simtti.workloads.device_run import DeviceRun, profiled_into, read_profiles, timed, unwatched  # noqa: E402
from simtti.workloads.record import quiet  # noqa: E402
from simtti.workloads.workload import Options  # noqa: E402


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


@pytest.mark.parametrize("compressed", [False, True])
def test_what_the_profiler_saw_is_the_steps(capfd, tmp_path, compressed):
    run = DeviceRun("cpu", profiled_into(tmp_path, compressed=compressed))
    steps(run)
    assert len(list(tmp_path.iterdir())) == 3
    read_profiles(run.done)
    assert not list(tmp_path.iterdir())
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
    register_module_forward_pre_hook = torch.nn.modules.module.register_module_forward_pre_hook
    handle = register_module_forward_pre_hook(lambda *_: modes.append(_get_current_function_mode_stack()))
    modes = []
    yield
    handle.remove()
    assert modes
    assert not any(modes)
    assert not _get_current_function_mode_stack()
    assert not _get_current_dispatch_mode_stack()


def test_a_pipeline_runs_without_a_mode_of_ours():
    """Stable Diffusion 3's classes, whose patches stay strided."""
    from transformers import T5Config

    from simtti.workloads.models import stable_diffusion_3 as sd3

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
        run.do(
            lambda options, run: sd3.record_sd3(options, run, transformer),
            Options(height=16, width=16, steps=2, guidance=5.0, dtype="fp32"),
        )
    assert "contiguous" not in vars(torch.Tensor)  # what keeps patches strided is gone again
    assert [step.phase for step in run.done] == ["text_encoder", "denoising", "decoder"]


@pytest.fixture
def memory_never_written():
    """torch.empty gives NaN, and of whole numbers the largest: what no sampler and no embedding takes."""
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(before[0], warn_only=before[1])


CASES = {
    "stable": Options(height=16, width=16, steps=3, guidance=5.0, dtype="fp32"),
    "llama": Options(steps=8, prompt_tokens=5, dtype="fp32"),
    "parallel": Options(height=256, width=256, steps=3, guidance=4.0, dtype="fp32"),
    "chunked": Options(height=48, width=48, steps=2, frames=6, guidance=4.0, dtype="fp32"),
    "frames": Options(height=16, width=16, steps=2, frames=32, guidance=4.0, dtype="fp32"),
    "tiles": Options(height=16, width=448, steps=2, frames=5, guidance=4.0, dtype="fp32"),
    "autoregressive": Options(height=256, width=256, guidance=1.2, prompt_tokens=4, dtype="fp32"),
    "upsampled": Options(height=128, width=128, steps=2, guidance=7.0, prompt_tokens=4, dtype="fp32"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_steps_read_is_there(name, memory_never_written):
    """Where a step stands for many, the ones left out write nothing: what follows reads noise or zeros in their place."""
    import tiny_workloads

    seen = []

    def check(module, args, output):
        outputs = output if isinstance(output, tuple) else (output,)
        seen.append(all(bool(made.isfinite().all()) for made in outputs if isinstance(made, torch.Tensor)))

    run = DeviceRun("cpu", unwatched)
    handle = torch.nn.modules.module.register_module_forward_hook(check)
    try:
        with quiet(), pytest.MonkeyPatch.context() as patch:
            getattr(tiny_workloads, name)(patch, CASES[name], run)
    finally:
        handle.remove()
    assert len(seen) > 30
    assert all(seen)


def test_a_sampler_has_its_timesteps_where_it_runs():
    """A GPU's scheduler compares the timestep it is given with its own: both are what `on_device` gave."""
    from simtti.workloads.models.pipelines.sampling import noise_schedule, record_sampling

    class Elsewhere(DeviceRun):
        def on_device(self, tensor):
            return tensor.clone()

    scheduler = noise_schedule()
    step, places = scheduler.step, []

    def spied(prediction, timestep, sample, **how):
        places.append((timestep.untyped_storage().data_ptr(), scheduler.timesteps.data_ptr()))
        return step(prediction, timestep, sample, **how)

    scheduler.step = spied
    record_sampling(
        Elsewhere("cpu", unwatched, all_steps=True), Options(), "denoising", scheduler, torch.randn(1, 3, 4, 4),
        lambda sample, timestep: sample, steps=3, guide=False,
    )  # fmt: skip
    assert len(places) == 3
    assert all(given == own for given, own in places)
