"""ModelScope text-to-video 1.7B, as diffusers' TextToVideoSDPipeline runs it.

Configurations are those released with the weights (ali-vilab/text-to-video-ms-1.7b), the UNet's the class's default:
each spatial convolution and transformer is followed by a temporal one. The image VAE decodes all frames in one batch.
"""

from diffusers import AutoencoderKL, DDIMScheduler, TextToVideoSDPipeline, UNet3DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from simtti.workloads.catalogue import Options
from simtti.workloads.models.latent_diffusion import Recording
from simtti.workloads.models.pipeline import Run, Tokenizer, build_module, prompts
from simtti.workloads.models.stable_diffusion import NOISE, OPENCLIP_H, VAE


def record_t2v(options: Options) -> Recording:
    """Encode the prompts, denoise the frames together, decode them."""
    dtype = options.dtype
    recording = Recording()
    pipeline = TextToVideoSDPipeline(
        text_encoder=recording.add(
            "text_encoder", build_module(CLIPTextModel, CLIPTextConfig(**OPENCLIP_H), dtype=dtype)
        ),
        unet=recording.add("unet", build_module(UNet3DConditionModel, sample_size=32, dtype=dtype)),
        vae=recording.add("vae", build_module(AutoencoderKL, **VAE, scaling_factor=0.18215, dtype=dtype)),
        scheduler=DDIMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False),
        tokenizer=Tokenizer(),
    )
    run = Run(recording, options)
    run(
        pipeline, pipeline.unet, prompt=prompts(options), height=options.height, width=options.width,
        num_frames=options.frames, guidance_scale=options.guidance, output_type="np",
    )  # fmt: skip
    recording.phases = recording.recorder.phases()
    return recording
