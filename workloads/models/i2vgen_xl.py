"""I2VGen-XL, as diffusers' I2VGenXLPipeline runs it.

Configurations are those released with the weights (ali-vilab/i2vgen-xl), the UNet's the class's default. The image
goes through OpenCLIP's ViT-H/14 and the VAE's encoder; frames are decoded one at a time, as the pipeline does.
"""

from simtti.workloads.models.stable_diffusion import (
    NOISE,
    OPENCLIP_H,
    OPENCLIP_H_PARAMETERS,
    VAE,
    VAE_PARAMETERS,
)
from simtti.workloads.models.svd import OPENCLIP_H_VISION, OPENCLIP_H_VISION_PARAMETERS
from simtti.workloads.recording import Recording
from simtti.workloads.workload import Decoding, Options, Workload


def record_i2vgen_xl(options: Options, recording: Recording) -> None:
    """Encode the prompts, then the image, denoise the frames together, decode them one by one."""
    from diffusers import AutoencoderKL, DDIMScheduler, I2VGenXLPipeline, I2VGenXLUNet
    from PIL import Image
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

    from simtti.workloads.models.pipelines.diffusers_run import Run
    from simtti.workloads.models.pipelines.inputs import ImageProcessor, Tokenizer, prompts

    dtype = options.dtype
    text, vision = CLIPTextConfig(**OPENCLIP_H), CLIPVisionConfig(**OPENCLIP_H_VISION)
    pipeline = I2VGenXLPipeline(
        text_encoder=recording.add("text_encoder", CLIPTextModel, text, dtype=dtype),
        image_encoder=recording.add("image_encoder", CLIPVisionModelWithProjection, vision, dtype=dtype),
        unet=recording.add("unet", I2VGenXLUNet, sample_size=32, dtype=dtype),
        vae=recording.add("vae", AutoencoderKL, **VAE, scaling_factor=0.18215, dtype=dtype),
        scheduler=DDIMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False),
        tokenizer=Tokenizer(),
        feature_extractor=ImageProcessor(),
    )
    # The pipeline looks for the final norm where transformers had it before version 5.
    if not hasattr(pipeline.text_encoder, "text_model"):
        object.__setattr__(pipeline.text_encoder, "text_model", pipeline.text_encoder)
    run = Run(recording, options)
    run.split(pipeline, "_encode_image", "image_encoder")
    run.decode_with(pipeline.vae, repeats=True)
    assert options.height is not None
    assert options.width is not None
    pictures = [Image.new("RGB", (options.width, options.height))] * options.batch
    run(
        pipeline, pipeline.unet, prompt=prompts(options), image=pictures, height=options.height,
        width=options.width, num_frames=options.frames, guidance_scale=options.guidance, output_type="np",
    )  # fmt: skip


WORKLOADS = (
    Workload(
        name="i2vgen-xl",
        task="image-to-video",
        architecture="latent video diffusion UNet",
        defaults=Options(height=704, width=1280, steps=50, frames=16, guidance=9.0),
        parameters={
            "text_encoder": OPENCLIP_H_PARAMETERS,
            "image_encoder": OPENCLIP_H_VISION_PARAMETERS,
            "unet": 1_420_469_224,
            "vae": VAE_PARAMETERS,
        },
        source="Zhang et al., 2023 (arXiv 2311.04145) and the released configuration: UNet 1.4 B",
        url="https://huggingface.co/ali-vilab/i2vgen-xl",
        builder=record_i2vgen_xl,
        decoding=Decoding(tile=512),
        place=110,
    ),
)
