"""HiDream-I1 (17 B): Full, Dev and Fast, as diffusers' HiDreamImagePipeline runs them.

Configurations are those released with the weights (HiDream-ai/HiDream-I1-Full): 16 double and 32 single blocks, whose MLPs are a
shared expert and two of four others for each token. Text is 128 tokens of T5-XXL and, in each block, 128 of another layer of
Llama 3.1 8B; CLIP-L's and OpenCLIP-bigG's pooled states, of the long prompts' versions, join the timestep. Guidance doubles the
batch. Dev and Fast are distilled from guidance and to 28 and 16 steps.

Assumed: each expert gets the same share of the tokens. diffusers sorts tokens by expert, asks the GPU in every block how many
each has, which the host waits for, and runs the experts one after another; the counts are data.
"""

from typing import Any

from simtti.workloads.models.sdxl import OPENCLIP_BIGG
from simtti.workloads.models.stable_diffusion import CLIP_L
from simtti.workloads.models.stable_diffusion_3 import VAE_16, VAE_16_PARAMETERS
from simtti.workloads.models.text_encoders import (
    LLAMA_3_1_8B,
    LLAMA_3_1_8B_PARAMETERS,
    T5_XXL,
    T5_XXL_PARAMETERS,
    add_t5,
)
from simtti.workloads.recording import Recording
from simtti.workloads.workload import Builder, Decoding, Options, Workload

EXPERTS = 4
TRANSFORMER: dict[str, Any] = {
    "patch_size": 2, "in_channels": 16, "out_channels": 16, "num_layers": 16, "num_single_layers": 32,
    "num_attention_heads": 20, "attention_head_dim": 128, "caption_channels": [4096, 4096], "text_emb_dim": 2048,
    "num_routed_experts": EXPERTS, "num_activated_experts": 2, "axes_dims_rope": (64, 32, 32),
    "llama_layers": [*range(32), *[31] * 16],
}  # fmt: skip
# Of a patch's side.
PIXELS = 16
# The CLIP models have positions for longer prompts than they were released with.
POSITIONS_L, POSITIONS_G = 248, 218


def record_full(options: Options, recording: Recording) -> None:
    """HiDream-I1-Full: guided, with a multistep sampler."""
    from diffusers import UniPCMultistepScheduler

    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    record_hidream(options, recording, scheduler)


def record_distilled(options: Options, recording: Recording) -> None:
    """HiDream-I1-Dev and Fast: a sampler that draws fresh noise at each step."""
    from diffusers import FlowMatchLCMScheduler

    record_hidream(options, recording, FlowMatchLCMScheduler(shift=3.0))


def record_hidream(options: Options, recording: Recording, scheduler: Any) -> None:
    """Encode the prompts four times over, denoise, decode."""
    from diffusers import AutoencoderKL, HiDreamImagePipeline, HiDreamImageTransformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection, LlamaConfig, LlamaForCausalLM

    from simtti.workloads.models.pipelines.diffusers_run import Run
    from simtti.workloads.models.pipelines.inputs import Tokenizer, prompts

    dtype = options.dtype
    clip_l = CLIPTextConfig(**CLIP_L, max_position_embeddings=POSITIONS_L)
    clip_g = CLIPTextConfig(**OPENCLIP_BIGG, max_position_embeddings=POSITIONS_G)
    llama = LlamaConfig(**LLAMA_3_1_8B)
    pipeline = HiDreamImagePipeline(
        text_encoder=recording.add("text_encoder", CLIPTextModelWithProjection, clip_l, dtype=dtype),
        text_encoder_2=recording.add("text_encoder_2", CLIPTextModelWithProjection, clip_g, dtype=dtype),
        text_encoder_3=add_t5(recording, "text_encoder_3", T5_XXL, dtype),
        text_encoder_4=recording.add("text_encoder_4", LlamaForCausalLM, llama, dtype=dtype),
        transformer=recording.add("transformer", HiDreamImageTransformer2DModel, **TRANSFORMER, dtype=dtype),
        vae=recording.add(
            "vae", AutoencoderKL, **VAE_16, scaling_factor=0.3611, shift_factor=0.1159, dtype=dtype
        ),
        scheduler=scheduler,
        tokenizer=Tokenizer(),
        tokenizer_2=Tokenizer(),
        tokenizer_3=Tokenizer(128),
        tokenizer_4=Tokenizer(128),
    )
    _give_sizes_values(pipeline.transformer, options, recording)
    run = Run(recording, options, domain="joint")
    run.experts = EXPERTS
    run.decode_with(pipeline.vae)
    run(
        pipeline, pipeline.transformer, prompt=prompts(options), height=options.height, width=options.width,
        guidance_scale=options.guidance or 1.0, output_type="np",
    )  # fmt: skip


def _give_sizes_values(transformer: Any, options: Options, recording: Recording) -> None:
    """The transformer reads from the GPU how many patches each image has: on the meta device these are values on the host that count as
    the GPU's."""
    import torch

    if recording.device.type != "meta":
        return
    assert options.height is not None
    assert options.width is not None
    patches = [options.height // PIXELS, options.width // PIXELS]
    patchify = transformer.patchify

    def patchify_with_sizes(latents: Any) -> tuple[Any, ...]:
        tokens, masks, sizes, positions = patchify(latents)
        with recording.paused():
            values = recording.on_device(torch.tensor([patches] * len(sizes)))
        return tokens, masks, values, positions

    transformer.patchify = patchify_with_sizes


def _workload(variant: str, builder: Builder, steps: int, guidance: float | None) -> Workload:
    return Workload(
        name=f"hidream-i1-{variant.lower()}",
        task="text-to-image",
        architecture="latent diffusion transformer (mixture of experts)",
        defaults=Options(height=1024, width=1024, steps=steps, guidance=guidance, dtype="bf16"),
        parameters={
            "text_encoder": 123_781_632,
            "text_encoder_2": 694_840_320,
            "text_encoder_3": T5_XXL_PARAMETERS,
            "text_encoder_4": LLAMA_3_1_8B_PARAMETERS,
            "transformer": 17_105_733_184,
            "vae": VAE_16_PARAMETERS,
        },
        source="HiDream.ai, 2025 (arXiv 2505.22705): 17 B sparse transformer, four text encoders",
        url=f"https://huggingface.co/HiDream-ai/HiDream-I1-{variant}",
        builder=builder,
        decoding=Decoding(tile=1024),
        size_multiple=PIXELS,
        sizes=(1024,),  # the pipeline scales whatever is asked for to this area; what is not square is padded
        place=87,
    )


WORKLOADS = (
    _workload("Full", record_full, 50, 5.0),
    _workload("Dev", record_distilled, 28, None),
    _workload("Fast", record_distilled, 16, None),
)
