"""Capturing, on a CPU and with a model small enough for it: everything but the kernels."""

from contextlib import contextmanager
from dataclasses import replace

import pytest

from simtti.errors import InputError
from simtti.simulator.policy import captured_with
from simtti.workloads import catalogue
from simtti.workloads.catalogue import Options, Workload
from simtti.workloads.trace import Trace

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from simtti.workloads import capture as capturing  # noqa: E402
from simtti.workloads import device_passes  # noqa: E402
from simtti.workloads.capture import capture, match  # noqa: E402
from simtti.workloads.record import record  # noqa: E402


@pytest.fixture(scope="module")
def tiny():
    """A latent diffusion pipeline of Stable Diffusion's classes, with a few thousand weights."""
    from diffusers import DDIMScheduler

    from simtti.workloads.models import stable_diffusion

    text = {**stable_diffusion.CLIP_L, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    text["num_attention_heads"] = 4
    unet = {
        "sample_size": 8, "cross_attention_dim": 32, "attention_head_dim": 4, "block_out_channels": (32, 64),
        "layers_per_block": 1, "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }  # fmt: skip
    vae = {
        **stable_diffusion.VAE, "block_out_channels": (32, 32), "layers_per_block": 1,
        "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2,
    }  # fmt: skip

    def build(options, recording):
        # Only while it builds: modules that others import meanwhile must not see it.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stable_diffusion, "VAE", vae)
            scheduler = DDIMScheduler(**stable_diffusion.NOISE)
            stable_diffusion.record_pipeline(options, recording, text, unet, scheduler)

    workload = Workload(
        name="tiny", task="text-to-image", architecture="latent diffusion UNet",
        defaults=Options(height=16, width=16, steps=4, guidance=5.0, dtype="fp32"), parameters={}, source="", url="",
        builder=build,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(catalogue.WORKLOADS, "tiny", workload)
        yield workload


@pytest.fixture(scope="module")
def captured(tiny):
    return capture("tiny", device="cpu", repeats=2, longest_s=0)


def test_the_operators_are_the_recorded_ones_and_each_has_its_time(captured):
    recorded = record("tiny")
    assert captured.phases == recorded.phases
    assert captured.parameters == recorded.parameters
    operators, counts = list(recorded.operators()), captured.provenance["capture"]
    assert counts["operators"] == len(operators) > 500
    assert counts["matched"] == counts["profiled"]  # nothing ran that is not recorded
    missing = [operators[row] for row, time in enumerate(captured.timing.host) if time is None]
    assert len(operators) - len(missing) == counts["matched"]
    # A CPU does not copy prompts to itself.
    assert {op.op for op in missing} == {"aten::_to_copy"}
    assert all(op.attributes.get("transfer") == "host_to_device" for op in missing)
    assert len(missing) <= 5


def test_times_are_in_order_on_one_clock_and_measured_without_the_profiler(captured):
    timing = captured.timing
    starts = [time.start_us for time in timing.host if time is not None]
    assert starts == sorted(starts)
    assert starts[0] < 1e5
    assert timing.kernels == ()
    end_to_end = timing.end_to_end
    assert [(step["phase"], step["count"]) for step in end_to_end["steps"]] == [
        ("text_encoder", 1), ("denoising", 4), ("decoder", 1),
    ]  # fmt: skip
    assert end_to_end["repeats"] == 2
    assert end_to_end["latency_s"] == pytest.approx(
        sum(step["clean_s"] * step["count"] for step in end_to_end["steps"])
    )
    for step in end_to_end["steps"]:
        assert 0 < step["clean_min_s"] <= step["clean_s"] <= step["clean_max_s"]
        assert step["profiled_s"] > 0


def test_a_captured_trace_is_saved_and_loaded(captured, tmp_path):
    captured.save(tmp_path / "captured.parquet")
    assert Trace.load(tmp_path / "captured.parquet") == captured
    assert captured.provenance["kind"] == "measured"
    assert captured.with_steps(9).phases[1].steps[0].count == 9


def test_attention_stays_one_operator_whatever_its_kernels(tiny):
    trace = capture("tiny", device="cpu", attention="math", repeats=1, steps=1, longest_s=0)
    times = zip(trace.operators(), trace.timing.host, strict=True)
    attention = [time for operator, time in times if operator.category == "Attention"]
    assert len(attention) > 5
    assert None not in attention


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "tpu"}, "unknown device to capture on 'tpu'"),
        ({"device": "cpu", "attention": "flush"}, "unknown attention 'flush'; did you mean 'flash'"),
        ({"device": "cpu", "repeats": 0}, "repeats is 0"),
        ({"device": "cpu", "height": 9}, "height is 9"),
    ],
)
def test_what_cannot_be_captured_is_said_in_one_line(tiny, options, message):
    with pytest.raises(InputError, match=message) as caught:
        capture("tiny", **options)
    assert "\n" not in str(caught.value)


def test_the_device_is_held_for_running_alone(tiny, monkeypatch):
    """Neither while recording nor while reading profiles."""
    held, seen = [], []

    @contextmanager
    def alone():
        held.append(True)
        yield
        held.pop()

    def spy(module, name):
        original = getattr(module, name)

        def spied(*args, **kwargs):
            seen.append((name, bool(held)))
            return original(*args, **kwargs)

        monkeypatch.setattr(module, name, spied)

    spy(capturing, "record")
    spy(device_passes, "read_profiles")
    spy(device_passes, "unwatched")
    captured = capture("tiny", device="cpu", repeats=1, alone=alone(), steps=1)
    assert dict(seen) == {"record": False, "read_profiles": False, "unwatched": True}
    whole = captured.timing.end_to_end["in_one_go"]
    assert whole["steps"] == 3
    assert whole["latency_s"] > 0
    assert (whole["energy_j"], whole["missing"]) == (None, "a cpu has no NVML")


@pytest.mark.parametrize(
    ("provenance", "policy"),
    [
        ({"attention": "baseline", "scores": "fp16"}, "baseline"),
        ({"attention": "baseline"}, "math"),  # what captures called PyTorch's math backend once
        ({"attention": "math", "scores": "fp32"}, "math"),
        ({}, "flash"),
    ],
)
def test_a_capture_is_simulated_with_the_attention_it_was_taken_with(captured, provenance, policy):
    assert captured_with(replace(captured, provenance=provenance)).attention == policy


def test_without_a_gpu(tiny, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"capturing tiny needs a CUDA GPU, and torch .* finds none here"):
        capture("tiny")


@pytest.mark.parametrize(
    ("recorded", "profiled", "rows"),
    [
        ("a b c", "a b c", {0: 0, 1: 1, 2: 2}),
        ("a b c", "a c", {0: 0, 1: 2}),
        ("a c", "a b c", {0: 0, 2: 1}),
        ("a", "b", {}),
        ("", "", {}),
        ("add mul", "add_ mul_", {0: 0, 1: 1}),
    ],
)
def test_match(recorded, profiled, rows):
    assert match(recorded.split(), profiled.split()) == rows
