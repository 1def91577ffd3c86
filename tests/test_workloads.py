"""The workloads: the released models' sizes, the pipelines' steps, and the shipped traces."""

import subprocess
import sys
from functools import cache

import pyarrow.parquet as pq
import pytest

from simtti.errors import InputError
from simtti.workloads import catalogue, record
from simtti.workloads.catalogue import WORKLOADS
from simtti.workloads.flops import flops
from simtti.workloads.trace import Trace

NAMES = sorted(WORKLOADS)


@cache
def shipped(name):
    return Trace.load(record.shipped(WORKLOADS[name]))


@cache
def fresh(name):
    pytest.importorskip("torch")
    return record.record(name)


@cache
def small(**options):
    pytest.importorskip("torch")
    return record.record("stable-diffusion-1.5", **{"height": 64, "width": 64, **options})


def denoising(trace):
    return next(phase for phase in trace.phases if phase.name == "denoising").steps[0]


def attention(operators):
    return [op for op in operators if op.category == "Attention"]


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_the_published_ones(name):
    trace = fresh(name)
    assert trace.parameters == dict(WORKLOADS[name].parameters)
    assert trace.parameter_bytes == {component: 2 * count for component, count in trace.parameters.items()}


@pytest.mark.parametrize("name", NAMES)
def test_the_vae_decoder_is_the_released_one(name):
    """49,490,199 weights with its first 1x1 convolution, all of them used by the decoder phase."""
    decoder = next(phase for phase in shipped(name).phases if phase.name == "decoder").steps[0]
    used = {
        use.tensor: use.numel
        for op in decoder.operators
        if op.module.startswith("vae.") and not op.is_view
        for use in op.inputs
        # SDXL's pipeline casts the weights first, and what is cast is an activation.
        if use.role == "parameter" or (name == "sdxl" and use.tensor in cast_weights(decoder))
    }
    assert sum(used.values()) == 49_490_199


def cast_weights(step):
    return {
        op.outputs[0].tensor
        for op in step.operators
        if op.op == "aten::_to_copy" and op.inputs[0].role == "parameter"
    }


@pytest.mark.parametrize("name", NAMES)
def test_every_unet_weight_is_used(name):
    used = {
        use.tensor: use.storage_bytes // 2
        for op in denoising(shipped(name)).operators
        for use in op.inputs
        if use.role == "parameter"
    }
    assert sum(used.values()) == WORKLOADS[name].parameters["unet"]


@pytest.mark.parametrize("name", NAMES)
def test_shipped_is_what_a_fresh_recording_gives(name, tmp_path):
    trace = fresh(name)
    if trace.provenance != shipped(name).provenance:
        pytest.skip(f"recorded with {shipped(name).provenance}, here is {trace.provenance}")
    assert trace == shipped(name)
    trace.save(tmp_path / "fresh.parquet")
    path = record.shipped(WORKLOADS[name])
    if pq.read_metadata(path).created_by == pq.read_metadata(tmp_path / "fresh.parquet").created_by:
        assert (tmp_path / "fresh.parquet").read_bytes() == path.read_bytes()
    assert path.stat().st_size < 300_000


@pytest.mark.parametrize(
    ("name", "lengths"),
    [
        ("stable-diffusion-1.5", {4096, 1024, 256, 64}),
        ("stable-diffusion-2.1", {9216, 2304, 576, 144}),
        ("sdxl", {4096, 1024}),
    ],
)
def test_sequence_lengths(name, lengths):
    """Attention at each level of the UNet: the latent image's pixels for self, 77 text tokens for cross."""
    operators = attention(denoising(shipped(name)).operators)
    by_kind = {
        kind: {op.inputs[1].shape[-2] for op in operators if op.attributes["kind"] == kind}
        for kind in ("self", "cross")
    }
    assert by_kind == {"self": lengths, "cross": {77}}
    assert {op.inputs[0].shape[-2] for op in operators} == lengths
    assert {op.attributes["domain"] for op in operators} == {"spatial"}
    assert all(op.inputs[0].shape[0] == 2 for op in operators), "guidance doubles the batch"


def test_text_attention_is_causal():
    operators = attention(shipped("sdxl").phases[0].steps[0].operators)
    assert len(operators) == 12 + 32
    assert {(op.attributes["domain"], op.attributes["causal"]) for op in operators} == {("text", True)}
    assert len(attention(shipped("stable-diffusion-1.5").phases[0].steps[0].operators)) == 2 * 12


def test_unet_flops_are_those_of_torch():
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    with record.quiet():
        from diffusers import UNet2DConditionModel

        from simtti.workloads.models.stable_diffusion import UNET_1_5

        with torch.device("meta"):
            unet = UNet2DConditionModel(**UNET_1_5).half()
            latents, text = torch.empty(2, 4, 64, 64).half(), torch.empty(2, 77, 768).half()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            unet(latents, torch.tensor(500), encoder_hidden_states=text)
    recorded = sum(
        flops(op)
        for op in denoising(shipped("stable-diffusion-1.5")).operators
        if op.module.startswith("unet")
    )
    assert recorded == pytest.approx(counter.get_total_flops(), rel=1e-9)
    assert recorded == pytest.approx(1.6e12, rel=0.05), "0.8 TFLOPs an image"


@pytest.mark.parametrize(
    ("name", "counts"), [("stable-diffusion-1.5", [1, 3, 21, 51]), ("sdxl", [1, 2, 20, 50])]
)
def test_steps(name, counts):
    """PNDM evaluates its first interval twice; the others evaluate once a step."""
    assert [denoising(shipped(name).with_steps(n)).count for n in (1, 2, 20, 50)] == counts
    assert denoising(record.workload_trace(name, steps=20)).count == counts[2]


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_with_steps_is_what_recording_gives(steps):
    assert small().with_steps(steps) == small(steps=steps)


def test_recording_is_deterministic():
    assert small() == record.record("stable-diffusion-1.5", height=64, width=64)


def test_samplers_that_read_timesteps_make_the_host_wait():
    waits = {
        name: sum(op.attributes.get("synchronizes", False) for op in denoising(shipped(name)).operators)
        for name in NAMES
    }
    assert waits["sdxl"] == 0, "Euler keeps its noise levels on the host"
    assert waits["stable-diffusion-1.5"] == 3
    assert waits["stable-diffusion-2.1"] > 0


def test_without_guidance_the_unet_runs_once_and_one_prompt_is_encoded():
    trace = small(guidance=1.0)
    assert all(op.inputs[0].shape[0] == 1 for op in attention(denoising(trace).operators))
    assert len(attention(trace.phases[0].steps[0].operators)) == 12
    assert not [op for op in denoising(trace).operators if op.module == "pipeline"]


def test_batch_and_odd_sizes():
    trace = small(batch=3, width=72)
    first = denoising(trace).operators[0]
    assert first.outputs[0].shape == (6, 4, 8, 9)
    image = trace.phases[-1].steps[0].operators[-1].inputs[0]
    assert image.shape == (3, 3, 64, 72)
    assert small(height=8, width=8).phases[-1].steps[0].operators[-1].inputs[0].shape == (1, 3, 8, 8)


@pytest.mark.parametrize(("dtype", "size"), [("bf16", 2), ("fp32", 4)])
def test_dtypes(dtype, size):
    trace = small(dtype=dtype)
    assert trace.parameter_bytes["unet"] == size * trace.parameters["unet"]
    assert {op.inputs[0].dtype for op in trace.operators() if op.category in ("Linear", "Convolution")} == {
        dtype
    }


def test_sdxl_decodes_in_fp32_only_where_the_pipeline_does():
    decoder = shipped("sdxl").phases[-1].steps[0].operators
    assert {op.inputs[0].dtype for op in decoder if op.category == "Convolution"} == {"fp32"}
    casts = [op for op in decoder if op.op == "aten::_to_copy" and op.module == "pipeline"]
    # Every weight of the whole VAE there and back, the latents, and the copy to the host.
    assert len(casts) == 2 * 248 + 2
    assert sum(op.inputs[0].numel for op in casts if op.inputs[0].role == "parameter") == 83_653_863


def test_phases_hand_their_results_on():
    """What the text encoder made is what the UNet reads; what the sampler made is what the decoder reads."""
    for name in NAMES:
        trace = shipped(name)
        made = {
            phase.name: {u.tensor for s in phase.steps for op in s.operators for u in op.outputs}
            for phase in trace.phases
        }
        read = {
            phase.name: {u.tensor for s in phase.steps for op in s.operators for u in op.inputs}
            for phase in trace.phases
        }
        assert made["text_encoder"] & read["denoising"]
        assert made["denoising"] & read["decoder"]


def test_the_vae_factor_is_that_of_the_modules():
    pytest.importorskip("torch")
    with record.quiet():
        from simtti.workloads.models.stable_diffusion import VAE
    factor = 2 ** (len(VAE["block_out_channels"]) - 1)
    assert {workload.size_multiple for workload in WORKLOADS.values()} == {factor}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"height": 500}, "height is 500; for sdxl it must be a positive multiple of 8, such as 496"),
        ({"width": 0}, "width is 0; .* positive multiple of 8, such as 8"),
        ({"width": -8}, "width is -8; .* positive multiple of 8"),
        ({"height": 512.0}, r"height is 512\.0; .* positive multiple of 8, such as 1024"),
        ({"batch": 0}, "batch is 0; it must be a whole number of at least 1"),
        ({"batch": True}, "batch is True; it must be a whole number of at least 1"),
        ({"steps": 0}, "steps is 0; it must be a whole number of at least 1"),
        ({"steps": 1001}, "steps is 1001; the sampler of sdxl takes at most 1000"),
        (
            {"frames": 16},
            r"frames is 16, but sdxl \(text-to-image\) takes no frames; its options are height, width",
        ),
        ({"dtype": "int8"}, "dtype is 'int8'; sdxl takes fp16, bf16, fp32"),
        ({"guidance": -1}, "guidance is -1; it must be a number of at least 0"),
        ({"guidance": float("nan")}, "guidance is nan"),
    ],
)
def test_options_that_cannot_be(options, message):
    for function in (record.record, record.workload_trace):
        with pytest.raises(InputError, match=message):
            function("sdxl", **options)


def test_unknown_names():
    with pytest.raises(
        InputError, match="unknown workload 'stable-difusion'; did you mean 'stable-diffusion'"
    ):
        catalogue.find("stable-difusion")
    with pytest.raises(InputError, match="unknown option 'heigth'; did you mean 'height'"):
        record.workload_trace("sdxl", heigth=8)
    assert catalogue.find("stable-diffusion").name == "stable-diffusion-1.5"


def test_another_shape_is_recorded_or_says_what_to_install(monkeypatch):
    assert record.workload_trace("stable-diffusion", height=64, width=64) == small()
    monkeypatch.setitem(sys.modules, "torch", None)
    assert record.workload_trace("stable-diffusion", steps=50) == shipped("stable-diffusion-1.5")
    with pytest.raises(
        InputError,
        match=r"height 64, .* needs torch, which is not installed; run: pip install 'simtti\[torch\]'",
    ):
        record.workload_trace("stable-diffusion", height=64, width=64)


def test_recording_is_silent_and_building_twice_gives_the_same_bytes(tmp_path):
    """In processes of their own: what one recording leaves behind must not matter to the next."""
    pytest.importorskip("torch")
    code = (
        "import sys; from simtti.workloads.record import record; "
        "record('stable-diffusion-1.5', height=64, width=64).save(sys.argv[1])"
    )
    for name in "ab":
        result = subprocess.run(
            [sys.executable, "-W", "default", "-c", code, str(tmp_path / name)],
            capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": (name == "a" and "1") or "2"},
        )  # fmt: skip
        assert (result.stdout, result.stderr) == ("", "")
    small().save(tmp_path / "c")
    assert len({(tmp_path / name).read_bytes() for name in "abc"}) == 1
