"""ModelScope text-to-video 1.7B, as diffusers' TextToVideoSDPipeline runs it.

Configurations are those released with the weights (ali-vilab/text-to-video-ms-1.7b), the UNet's the class's default:
each spatial convolution and transformer is followed by a temporal one. The image VAE decodes all frames in one batch.
"""

from simtti.workloads.models.stable_diffusion import (
    NOISE,
    OPENCLIP_H,
    OPENCLIP_H_PARAMETERS,
    VAE,
    VAE_PARAMETERS,
)
from simtti.workloads.recording import Recording
from simtti.workloads.workload import Decoding, Options, Workload


def record_t2v(options: Options, recording: Recording) -> None:
    """Encode the prompts, denoise the frames together, decode them."""
    from diffusers import AutoencoderKL, DDIMScheduler, TextToVideoSDPipeline, UNet3DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from simtti.workloads.models.pipelines.diffusers_run import Run
    from simtti.workloads.models.pipelines.inputs import Tokenizer, prompts

    dtype = options.dtype
    pipeline = TextToVideoSDPipeline(
        text_encoder=recording.add("text_encoder", CLIPTextModel, CLIPTextConfig(**OPENCLIP_H), dtype=dtype),
        unet=recording.add("unet", UNet3DConditionModel, sample_size=32, dtype=dtype),
        vae=recording.add("vae", AutoencoderKL, **VAE, scaling_factor=0.18215, dtype=dtype),
        scheduler=DDIMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False),
        tokenizer=Tokenizer(),
    )
    run = Run(recording, options)
    run.decode_with(pipeline.vae)
    run(
        pipeline, pipeline.unet, prompt=prompts(options), height=options.height, width=options.width,
        num_frames=options.frames, guidance_scale=options.guidance, output_type="np",
    )  # fmt: skip


WORKLOADS = (
    Workload(
        name="modelscope-t2v",
        task="text-to-video",
        architecture="latent video diffusion UNet",
        defaults=Options(height=256, width=256, steps=50, frames=16, guidance=9.0),
        parameters={
            "text_encoder": OPENCLIP_H_PARAMETERS,
            "unet": 1_411_233_860,
            "vae": VAE_PARAMETERS,
        },
        source="Wang et al., 2023 (arXiv 2308.06571): 1.7 B in all, UNet 1.4 B",
        url="https://huggingface.co/ali-vilab/text-to-video-ms-1.7b",
        builder=record_t2v,
        decoding=Decoding(tile=512, frames_together=True),
        place=90,
    ),
)
