"""Today's models as released: their pipelines' steps, sequence lengths, decoders, and FLOPs as torch counts them."""

from contextlib import nullcontext
from functools import partial, wraps

import pytest
from recorded_traces import LARGE, NAMES, denoising, shipped, small
from shallow import make_shallow

from simtti.workloads import record
from simtti.workloads.catalogue import WORKLOADS
from simtti.workloads.flops import flops
from simtti.workloads.trace import ITEM_BYTES


def attention(operators):
    return [op for op in operators if op.category == "Attention"]


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
    denoiser = parameters.get("unet", parameters.get("transformer"))
    assert sum(used.values()) == denoiser + parameters.get("controlnet", 0)


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
        "height": min(workload.sizes, default=workload.size_multiple),
        "width": min(workload.sizes, default=3 * workload.size_multiple),
        **({"frames": workload.frame_multiple + 1} if workload.defaults.frames else {}),
    }
    for name, workload in WORKLOADS.items()
}
for name in ("ltx-2", "ltx-2.3"):
    SMALL[name]["height"] = 64
# The shortest video, of 17 frames n times and five.
SMALL["minimax-h3"]["frames"] = 124
# Images with opacity, or layers of one.
IMAGES = {"qwen-image-layered": (4, 4), "qwen-image-2.1": (1, 4)}


# One of each kind of denoiser.
FAMILIES = (
    "sdxl-turbo", "sd3.5-medium", "kandinsky-2.2", "kandinsky-3", "pixart-sigma", "sana-1.6b", "hunyuan-dit", "flux-dev",
    "modelscope-t2v", "animatediff", "i2vgen-xl", "svd", "cogvideox-2b", "cogvideox1.5-5b", "hunyuan-video",
    "wan2.1-1.3b",
    # Of the large ones, each way through a builder.
    "flux-schnell", "flux-kontext-dev", "flux.2-dev", "flux.2-klein-base-4b", "z-image", "qwen-image", "sana-sprint-1.6b",
    "sana-video-2b", "hunyuan-image-2.1", "hunyuan-video-1.5", "ltx-video", "mochi-1", "wan2.1-i2v-14b-480p",
    "wan2.2-i2v-a14b", "wan2.2-ti2v-5b", "cosmos-predict2-2b-text2image", "cosmos-predict2-2b-video2world",
    *(pytest.param(name, marks=pytest.mark.every) for name in ("hidream-i1-full", "hidream-i1-fast", "ltx-2", "helios-14b")),
    "ernie-image", "krea-2-raw", "kandinsky-5-video-lite", "qwen-image-2.1",
    *(pytest.param(name, marks=pytest.mark.every) for name in (
        "flux.2-klein-9b", "qwen-image-layered", "kandinsky-5-image-lite", "kandinsky-5-video-pro", "ltx-2.3", "minimax-h3",
    )),
)  # fmt: skip
# How often the model in the loop is called in the steps that are stored.
CALLS = {
    "kandinsky-2.2": 2, "wan2.1-1.3b": 2, "flux.2-klein-base-4b": 2, "qwen-image": 2, "hunyuan-image-2.1": 2,
    "hunyuan-video-1.5": 2, "wan2.1-i2v-14b-480p": 2, "wan2.2-i2v-a14b": 4, "wan2.2-ti2v-5b": 2,
    "cosmos-predict2-2b-text2image": 2, "cosmos-predict2-2b-video2world": 2, "helios-14b": 2,
    "krea-2-raw": 2, "kandinsky-5-image-lite": 2, "kandinsky-5-video-lite": 2, "kandinsky-5-video-pro": 2, "qwen-image-layered": 2,
}  # fmt: skip


@pytest.fixture(params=FAMILIES)
def family(request):
    """A workload's trace at its smallest shape, and the calls of the model in its loop."""
    pytest.importorskip("torch")
    with record.quiet():
        from simtti.workloads.models.pipelines import diffusers_run, latent_diffusion
    calls, runs = [], []

    def spied(function, position):
        def steered(*args, **kwargs):
            runs.append(args[0])
            denoiser = args[position]
            forward = denoiser.forward

            @wraps(forward)
            def call(*args, **kwargs):
                # Between steps a call only shows what a model returns.
                if getattr(runs[-1], "_open", True) is not None:
                    calls.append(partial(forward, *args, **kwargs))
                return forward(*args, **kwargs)

            denoiser.forward = call
            return function(*args, **kwargs)

        return steered

    with pytest.MonkeyPatch.context() as patch, record.quiet():
        steer, sdxl = diffusers_run.Run._steer_denoiser, latent_diffusion.record_denoising
        patch.setattr(diffusers_run.Run, "_steer_denoiser", spied(steer, 1))
        patch.setattr(latent_diffusion, "record_denoising", spied(sdxl, 3))
        if request.param in LARGE:
            make_shallow(patch)
        yield request.param, record.record(request.param, **SMALL[request.param]), calls, runs[-1]


def test_the_smallest_shape_comes_out_as_asked_with_torchs_flops(family):
    """So the multiples in the catalogue are ones that the modules take."""
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    from simtti.workloads.meta_results import MetaResults

    name, trace, calls, run = family
    (decoder,) = (phase for phase in trace.phases if phase.name == "decoder")
    images = [op for op in decoder.steps[-1].operators if op.attributes.get("transfer")]
    frames = SMALL[name].get("frames", 1)
    shape = (*IMAGES.get(name, (frames, 3)), SMALL[name]["height"], SMALL[name]["width"])
    assert images[-1].inputs[0].shape == shape

    component = "unet" if "unet" in trace.parameters else "transformer"
    values = getattr(run, "_without_values", nullcontext)
    unrecorded = run.recording.paused if values is not nullcontext else nullcontext
    with MetaResults(), FlopCounterMode(display=False) as counter, torch.no_grad(), unrecorded(), values():
        for call in calls:
            if type(getattr(call.func, "__self__", None)).__name__ != "PriorTransformer":
                call()
    steps = next(phase.steps for phase in trace.phases if phase.name == "denoising")
    operators = (op for step in steps for op in step.operators)
    recorded = sum(flops(op) for op in operators if op.module.startswith(component))
    assert recorded == pytest.approx(counter.get_total_flops(), rel=0.01)
    assert len(calls) == CALLS.get(name, 1)
    # And the rest is what is shipped, with fewer blocks.
    assert [phase.name for phase in trace.phases] == [phase.name for phase in shipped(name).phases]


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
