"""I2VGen-XL, as diffusers' I2VGenXLPipeline runs it.

Configurations are those released with the weights (ali-vilab/i2vgen-xl), the UNet's the class's default. The image
goes through OpenCLIP's ViT-H/14 and the VAE's encoder; frames are decoded one at a time, as the pipeline does.
"""

from diffusers import AutoencoderKL, DDIMScheduler, I2VGenXLPipeline, I2VGenXLUNet
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

from simtti.workloads.catalogue import Options
from simtti.workloads.models.latent_diffusion import Recording
from simtti.workloads.models.pipeline import ImageProcessor, Run, Tokenizer, build_module, prompts
from simtti.workloads.models.stable_diffusion import NOISE, OPENCLIP_H, VAE
from simtti.workloads.models.svd import OPENCLIP_H_VISION


def record_i2vgen_xl(options: Options) -> Recording:
    """Encode the prompts, then the image, denoise the frames together, decode them one by one."""
    dtype = options.dtype
    recording = Recording()
    text, vision = CLIPTextConfig(**OPENCLIP_H), CLIPVisionConfig(**OPENCLIP_H_VISION)
    pipeline = I2VGenXLPipeline(
        text_encoder=recording.add("text_encoder", build_module(CLIPTextModel, text, dtype=dtype)),
        image_encoder=recording.add(
            "image_encoder", build_module(CLIPVisionModelWithProjection, vision, dtype=dtype)
        ),
        unet=recording.add("unet", build_module(I2VGenXLUNet, sample_size=32, dtype=dtype)),
        vae=recording.add("vae", build_module(AutoencoderKL, **VAE, scaling_factor=0.18215, dtype=dtype)),
        scheduler=DDIMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False),
        tokenizer=Tokenizer(),
        feature_extractor=ImageProcessor(),
    )
    # The pipeline looks for the final norm where transformers had it before version 5.
    if not hasattr(pipeline.text_encoder, "text_model"):
        object.__setattr__(pipeline.text_encoder, "text_model", pipeline.text_encoder)
    run = Run(recording, options)
    run.split(pipeline, "_encode_image", "image_encoder")
    run.repeat_tiles(pipeline.vae)
    assert options.height is not None
    assert options.width is not None
    pictures = [Image.new("RGB", (options.width, options.height))] * options.batch
    run(
        pipeline, pipeline.unet, prompt=prompts(options), image=pictures, height=options.height,
        width=options.width, num_frames=options.frames, guidance_scale=options.guidance, output_type="np",
    )  # fmt: skip
    recording.phases = recording.recorder.phases()
    return recording
