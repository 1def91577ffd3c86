"""The workloads: the released models' sizes, the pipelines' steps, and the shipped traces."""

import gc
import subprocess
import sys
from functools import cache, partial, wraps

import pyarrow.parquet as pq
import pytest

from simtti.errors import InputError
from simtti.workloads import catalogue, record
from simtti.workloads.catalogue import WORKLOADS
from simtti.workloads.flops import flops
from simtti.workloads.trace import ITEM_BYTES, Trace

NAMES = sorted(name for name, workload in WORKLOADS.items() if workload.group == "today")


@cache
def shipped(name):
    trace = Trace.load(record.shipped(WORKLOADS[name]))
    # Hundreds of thousands of operators that stay: the collector need not go over them again and again.
    gc.freeze()
    return trace


@cache
def small(**options):
    pytest.importorskip("torch")
    return record.record("stable-diffusion-1.5", **{"height": 64, "width": 64, **options})


def denoising(trace):
    return next(phase for phase in trace.phases if phase.name == "denoising").steps[0]


def attention(operators):
    return [op for op in operators if op.category == "Attention"]


# As papers, model cards and checkpoints' sizes give them, to the digits they give.
PUBLISHED = {
    ("sdxl", "unet"): "2.57", ("sdxl", "text_encoder_2"): "0.695", ("ssd-1b", "unet"): "1.3",
    ("sd3-medium", "transformer"): "2.0", ("sd3-medium", "text_encoder_3"): "4.76",
    ("sd3.5-large", "transformer"): "8.1", ("kandinsky-2.2", "prior"): "1.0",
    ("kandinsky-2.2", "unet"): "1.25", ("kandinsky-2.2", "movq"): "0.068", ("kandinsky-2.2", "image_encoder"): "1.8",
    ("kandinsky-3", "unet"): "3.1", ("kandinsky-3", "text_encoder"): "8.7", ("kandinsky-3", "movq"): "0.27",
    ("pixart-sigma", "transformer"): "0.611", ("sana-1.6b", "transformer"): "1.6",
    ("sana-1.6b", "text_encoder"): "2.61", ("sana-1.6b", "vae"): "0.312", ("sana-4.8b", "transformer"): "4.7",
    ("hunyuan-dit", "transformer"): "1.5", ("hunyuan-dit", "text_encoder_2"): "1.67", ("flux-dev", "transformer"): "11.9",
    ("modelscope-t2v", "unet"): "1.41", ("animatediff", "unet"): "1.277", ("i2vgen-xl", "unet"): "1.42",
    ("svd", "unet"): "1.52", ("svd", "image_encoder"): "0.632", ("svd", "vae"): "0.098",
    ("cogvideox-2b", "transformer"): "1.69", ("cogvideox1.5-5b", "transformer"): "5.57",
    ("hunyuan-video", "transformer"): "12.8", ("hunyuan-video", "text_encoder"): "7.5",
    ("wan2.1-1.3b", "transformer"): "1.42", ("wan2.1-14b", "transformer"): "14.3",
    ("wan2.1-14b", "text_encoder"): "5.68", ("wan2.1-14b", "vae"): "0.127",
}  # fmt: skip


@pytest.mark.parametrize(("name", "component"), PUBLISHED)
def test_the_catalogue_has_the_published_counts(name, component):
    published = PUBLISHED[name, component]
    digits = len(published.partition(".")[2])
    assert f"{WORKLOADS[name].parameters[component] / 1e9:.{digits}f}" == published


def test_stable_diffusion_3_5_medium_has_2_5_b_with_its_position_table():
    table = 384**2 * 24 * 64
    assert WORKLOADS["sd3.5-medium"].parameters["transformer"] + table == pytest.approx(2.47e9, rel=0.01)


def decoders(name):
    return [step for phase in shipped(name).phases if phase.name == "decoder" for step in phase.steps]


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        # Stable Diffusion's decoder, with the 1x1 convolution before it, which came to be left out.
        *((name, 49_490_199) for name in NAMES if WORKLOADS[name].parameters.get("vae") == 83_653_863),
        *((name, 49_545_475) for name in NAMES if WORKLOADS[name].parameters.get("vae") == 83_819_683),
    ],
)
def test_the_vae_decoder_is_the_released_one(name, weights):
    """All its weights are used by the decoder phase."""
    used = {
        use.tensor: use.storage_bytes // ITEM_BYTES[use.dtype]
        for decoder in decoders(name)
        for op in decoder.operators
        if op.module.startswith("vae.") and not op.is_view
        for use in op.inputs
        # SDXL's pipeline casts the weights first, and what is cast is an activation.
        if use.role == "parameter" or use.tensor in cast_weights(decoder)
    }
    assert sum(used.values()) == weights


def cast_weights(step):
    return {
        op.outputs[0].tensor
        for op in step.operators
        if op.op == "aten::_to_copy" and op.inputs[0].role == "parameter" and op.module == "pipeline"
    }


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_of_the_denoiser_is_used(name):
    used = {
        use.tensor: use.storage_bytes // ITEM_BYTES[use.dtype]
        for op in denoising(shipped(name)).operators
        for use in op.inputs
        if use.role == "parameter"
    }
    parameters = WORKLOADS[name].parameters
    assert sum(used.values()) == parameters.get("unet", parameters.get("transformer"))


@pytest.mark.parametrize("name", NAMES)
def test_a_fresh_recording_has_the_published_weights_and_is_what_is_shipped(name, tmp_path):
    """One test, so that each workload is recorded once."""
    pytest.importorskip("torch")
    trace = record.record(name)
    assert trace.parameters == dict(WORKLOADS[name].parameters)
    for component, count in trace.parameters.items():
        # What a class keeps in fp32: T5's output projections in fp16, Wan's time embedding and modulation.
        in_fp16 = WORKLOADS[name].defaults.dtype == "fp16"
        t5 = in_fp16 and component.startswith("text_encoder") and count > 1e9
        wan = name.startswith("wan") and component == "transformer"
        most = 1.25 if t5 else 1.01 if wan else 1
        assert 2 * count <= trace.parameter_bytes[component] <= 2 * count * most
    if trace.provenance != shipped(name).provenance:
        pytest.skip(f"recorded with {shipped(name).provenance}, here is {trace.provenance}")
    assert trace == shipped(name)
    trace.save(tmp_path / "fresh.parquet")
    path = record.shipped(WORKLOADS[name])
    if pq.read_metadata(path).created_by == pq.read_metadata(tmp_path / "fresh.parquet").created_by:
        assert (tmp_path / "fresh.parquet").read_bytes() == path.read_bytes()
    assert path.stat().st_size < 400_000


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


@pytest.mark.parametrize("name", ["sd3-medium", "sd3.5-medium", "wan2.1-1.3b"])
def test_tokens_lie_as_the_patch_embedding_leaves_them(name):
    """SD3's residual stream is channel by channel in every block, Wan's token by token (see `_StridedPatches`)."""
    step = denoising(shipped(name))
    norms = [op.inputs[0] for op in step.operators if op.category == "LayerNorm"]
    image = [use for use in norms if use.shape[1] >= 4096]
    strided = [use for use in image if use.strides[1:] == (1, use.shape[1])]
    assert len(strided) == (len(image) if name.startswith("sd3") else 0)
    sums = [
        op
        for op in step.operators
        if op.op == "aten::add" and [use.shape for use in op.inputs] == [image[0].shape] * 2
    ]
    assert any(op.inputs[0].strides != op.inputs[1].strides for op in sums) == name.startswith("sd3")


def test_tables_that_are_not_weights_keep_their_dtype():
    """Wan's rotary tables are fp32 in a bf16 model, as `from_pretrained` leaves them, and so are the products."""
    rotary = [
        op
        for op in denoising(shipped("wan2.1-1.3b")).operators
        if op.op == "aten::mul" and len(op.inputs) == 2 and op.inputs[0].shape[-2:] == (12, 64)
    ]
    assert rotary
    assert {(op.inputs[0].dtype, op.inputs[1].dtype, op.outputs[0].dtype) for op in rotary} == {
        ("bf16", "fp32", "fp32")
    }


def test_sdxl_decodes_in_fp32_only_where_the_pipeline_does():
    decoder = shipped("sdxl").phases[-1].steps[0].operators
    assert {op.inputs[0].dtype for op in decoder if op.category == "Convolution"} == {"fp32"}
    casts = [op for op in decoder if op.op == "aten::_to_copy" and op.module == "pipeline"]
    # Every weight of the whole VAE there and back, the latents, and the copy to the host.
    assert len(casts) == 2 * 248 + 2
    assert sum(op.inputs[0].numel for op in casts if op.inputs[0].role == "parameter") == 83_653_863


def test_phases_hand_their_results_on():
    """What the encoders made is what the denoiser reads; what the sampler made is what the decoder reads."""
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
        before = set().union(*(made[phase] for phase in made if phase not in ("denoising", "decoder")))
        assert before & read["denoising"]
        assert made["denoising"] & read["decoder"]


# The smallest image that a workload takes, of an odd number of units, and its frames.
SMALL = {
    name: {
        "height": workload.size_multiple,
        "width": 3 * workload.size_multiple,
        **({"frames": workload.frame_multiple + 1} if workload.defaults.frames else {}),
    }
    for name, workload in WORKLOADS.items()
}
# One of each kind of denoiser.
FAMILIES = (
    "sdxl-turbo", "sd3.5-medium", "kandinsky-2.2", "kandinsky-3", "pixart-sigma", "sana-1.6b", "hunyuan-dit", "flux-dev",
    "modelscope-t2v", "animatediff", "i2vgen-xl", "svd", "cogvideox-2b", "cogvideox1.5-5b", "hunyuan-video",
    "wan2.1-1.3b",
)  # fmt: skip


@pytest.fixture(params=FAMILIES)
def family(request):
    """A workload's trace at its smallest shape, and the calls of the model in its loop."""
    pytest.importorskip("torch")
    with record.quiet():
        from simtti.workloads.models.pipelines import diffusers_run, latent_diffusion
    calls = []

    def spied(function, position):
        def steered(*args, **kwargs):
            denoiser = args[position]
            forward = denoiser.forward

            @wraps(forward)
            def call(*args, **kwargs):
                calls.append(partial(forward, *args, **kwargs))
                return forward(*args, **kwargs)

            denoiser.forward = call
            return function(*args, **kwargs)

        return steered

    with pytest.MonkeyPatch.context() as patch, record.quiet():
        steer, sdxl = diffusers_run.Run._steer_denoiser, latent_diffusion.record_denoising
        patch.setattr(diffusers_run.Run, "_steer_denoiser", spied(steer, 1))
        patch.setattr(latent_diffusion, "record_denoising", spied(sdxl, 3))
        yield request.param, record.record(request.param, **SMALL[request.param]), calls


def test_the_smallest_shape_comes_out_as_asked_with_torchs_flops(family):
    """So the multiples in the catalogue are ones that the modules take."""
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    name, trace, calls = family
    images = [op for op in trace.phases[-1].steps[-1].operators if op.attributes.get("transfer")]
    frames = SMALL[name].get("frames", 1)
    assert images[-1].inputs[0].shape == (frames, 3, SMALL[name]["height"], SMALL[name]["width"])

    component = "unet" if "unet" in trace.parameters else "transformer"
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        for call in calls:
            if type(call.func.__self__).__name__ != "PriorTransformer":
                call()
    recorded = sum(flops(op) for op in denoising(trace).operators if op.module.startswith(component))
    assert recorded == pytest.approx(counter.get_total_flops(), rel=0.01)
    assert len(calls) == {"wan2.1-1.3b": 2, "kandinsky-2.2": 2}.get(name, 1)


def test_the_multiples_are_those_of_the_modules():
    """The VAE's factor, times a patch or what a UNet must halve; frames that the VAE makes of a latent frame."""
    from simtti.workloads.models import cogvideox, hunyuan_dit, pixart, sana, stable_diffusion
    from simtti.workloads.models import stable_diffusion_3 as sd3

    factor = 2 ** (len(stable_diffusion.VAE["block_out_channels"]) - 1)
    unit = {name: workload.size_multiple for name, workload in WORKLOADS.items()}
    limit = {name: workload.max_size for name, workload in WORKLOADS.items()}
    assert {unit[name] for name in NAMES if "unet" in WORKLOADS[name].parameters} == {factor, 8 * factor}
    assert unit["pixart-sigma"] == factor * pixart.TRANSFORMER["patch_size"]
    assert unit["hunyuan-dit"] == factor * hunyuan_dit.TRANSFORMER["patch_size"]
    assert unit["sana-1.6b"] == 2 ** (len(sana.DC_AE["decoder_block_types"]) - 1)
    for name, config in (
        ("sd3-medium", sd3.MEDIUM_3), ("sd3.5-medium", sd3.MEDIUM_3_5), ("sd3.5-large", sd3.LARGE_3_5),
    ):  # fmt: skip
        assert unit[name] == factor * config["patch_size"]
        assert limit[name] == unit[name] * config["pos_embed_max_size"]
    assert limit["cogvideox1.5-5b"] == factor * cogvideox.TRANSFORMER_1_5_5B["sample_height"]


@pytest.mark.parametrize("name", ["svd", "svd-xt", "modelscope-t2v", "i2vgen-xl", "animatediff"])
def test_temporal_attention_is_recognised(name):
    """It runs over frames, for every pixel; spatial attention over pixels or text, for every frame."""
    frames = WORKLOADS[name].defaults.frames
    operators = attention(denoising(shipped(name)).operators)
    domains = {op.attributes["domain"] for op in operators}
    assert domains == {"spatial", "temporal"}
    for op in operators:
        along_frames = op.inputs[0].shape[-2] == frames and op.inputs[0].shape[0] > 2 * frames
        # ModelScope's smallest level has as many pixels as frames.
        if op.inputs[0].shape[0] != 2 * frames:
            assert along_frames == (op.attributes["domain"] == "temporal"), op


@pytest.mark.parametrize(
    ("name", "length"),
    [
        ("sd3-medium", 4096 + 77 + 256), ("flux-dev", 4096 + 512), ("cogvideox-2b", 13 * 30 * 45 + 226),
        ("wan2.1-1.3b", 21 * 30 * 52), ("hunyuan-video", 33 * 45 * 80 + 256),
    ],
)  # fmt: skip
def test_joint_attention_runs_over_text_and_every_frame(name, length):
    operators = attention(denoising(shipped(name)).operators)
    assert max(op.inputs[1].shape[-2] for op in operators) == length
    assert {op.attributes["domain"] for op in operators} == {"joint"}


def test_guidance_is_each_pipelines_own():
    """Two samples in a batch, two calls, or none where it is distilled into the model."""
    batches = {
        name: {op.inputs[0].shape[0] for op in attention(denoising(shipped(name)).operators)}
        for name in ("sd3-medium", "pixart-sigma", "cogvideox-2b", "wan2.1-1.3b", "flux-dev", "hunyuan-video")
    }
    assert [*batches.values()] == [{2}, {2}, {2}, {1}, {1}, {1}]
    blocks = {name: len(attention(denoising(shipped(name)).operators)) for name in batches}
    assert blocks["wan2.1-1.3b"] == 2 * 30 * 2, "self- and cross-attention, with and without the prompt"
    assert blocks["flux-dev"] == 19 + 38


def test_decoders_repeat_tiles_and_frames():
    """What is decoded again with the same shapes is stored once: 3 x 5 tiles of 1 + 20 latent frames for Wan."""
    calls = {
        name: sum(
            step.count
            for step in decoders(name)
            if any(op.module.startswith("vae.decoder") for op in step.operators)
        )
        for name in ("svd", "svd-xt", "i2vgen-xl", "animatediff", "wan2.1-1.3b")
    }
    assert calls == {"svd": 1, "svd-xt": 1, "i2vgen-xl": 16, "animatediff": 1, "wan2.1-1.3b": 15 * 21}


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


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("wan2.1-1.3b", {"frames": 80}, "frames is 80; .* a multiple of 4 plus 1, such as 77 or 81"),
        ("cogvideox-2b", {"frames": 53}, "frames is 53; .* a multiple of 8 plus 1, such as 49 or 57"),
        ("hunyuan-video", {"frames": 2}, "frames is 2; .* a multiple of 4 plus 1, such as 1 or 5"),
        ("animatediff", {"frames": 33}, "frames is 33; animatediff takes at most 32"),
        ("svd", {"frames": 0}, "frames is 0; it must be a whole number of at least 1"),
        ("svd", {"height": 600}, "height is 600; for svd it must be a positive multiple of 64, such as 576"),
        ("flux-dev", {"width": 1000}, "width is 1000; .* positive multiple of 16, such as 992"),
        ("sana-1.6b", {"width": 1008}, "width is 1008; .* positive multiple of 32, such as 992"),
        ("sd3-medium", {"height": 4096}, "height is 4096; sd3-medium takes at most 3072"),
    ],
)
def test_shapes_that_cannot_be(name, options, message):
    with pytest.raises(InputError, match=message):
        record.workload_trace(name, **options)


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
