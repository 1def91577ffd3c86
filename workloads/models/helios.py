"""Helios (14 B, Base), text to video chunk by chunk, as diffusers' HeliosPipeline runs it.

Configurations are the classes' defaults, which are those released with the weights (BestWishYsh/Helios-Base): Wan 2.1 14B's blocks,
with three patch embeddings for what was made before. A chunk of 9 latent frames, 33 frames, attends to the frames before it: the last
and the very first as they are, two in patches twice as large, 16 in patches four times as large, blanks where there are none yet. So every
chunk costs the same. Each is denoised with all steps and decoded before the next begins: a step of the phase 'denoising' each. Guidance
calls the transformer twice a step, one after the other. 512 tokens of UMT5-XXL; the VAE is Wan 2.1's, in fp32.

Of as many chunks as hold the frames asked for the pipeline cuts off what is no whole latent frame: 129 of 132.
"""

from functools import partial
from typing import Any

from simtti.workloads.models.text_encoders import UMT5_XXL, UMT5_XXL_PARAMETERS
from simtti.workloads.models.wan import VAE_PARAMETERS
from simtti.workloads.recording import Recording
from simtti.workloads.workload import Decoding, Options, Workload

FRAMES, CHUNK_FRAMES = 129, 33


def chunks(frames: int) -> int:
    """As many as hold so many frames.

    >>> chunks(129)
    4
    """
    return -(-frames // CHUNK_FRAMES)


def turns(count: int) -> tuple[int, ...]:
    """How many evaluations the stored step stands for in a video of the default length, where each chunk has `count`."""
    return (count * chunks(FRAMES),)


def record_base(options: Options, recording: Recording) -> None:
    """Encode the prompts; denoise and decode chunk by chunk."""
    import diffusers
    from transformers import UMT5Config, UMT5EncoderModel

    from simtti.workloads.models.pipelines.diffusers_run import Run
    from simtti.workloads.models.pipelines.inputs import Tokenizer, prompts

    dtype = options.dtype
    scheduler: dict[str, Any] = {"stages": 1, "use_dynamic_shifting": True}
    pipeline = diffusers.HeliosPipeline(
        text_encoder=recording.add("text_encoder", UMT5EncoderModel, UMT5Config(**UMT5_XXL), dtype=dtype),
        transformer=recording.add("transformer", diffusers.HeliosTransformer3DModel, dtype=dtype),
        vae=recording.add("vae", diffusers.AutoencoderKLWan, dtype="fp32"),
        scheduler=diffusers.HeliosScheduler(**scheduler),
        tokenizer=Tokenizer(512),
    )
    # Wan's, which needs no ftfy to clean a prompt; here it is asked for a mask as well, which nobody reads.
    encode = partial(diffusers.WanPipeline._get_t5_prompt_embeds, pipeline)
    pipeline._get_t5_prompt_embeds = lambda **asked: (encode(**asked), None)
    assert options.frames is not None
    run = Run(recording, options, domain="joint", rounds=chunks(options.frames))
    run.decode_with(pipeline.vae, repeats=True)
    run(
        pipeline, pipeline.transformer, prompt=prompts(options), height=options.height, width=options.width,
        num_frames=options.frames, guidance_scale=options.guidance, output_type="np",
    )  # fmt: skip


WORKLOADS = (
    Workload(
        name="helios-14b",
        task="text-to-video",
        architecture="latent video diffusion transformer (chunk by chunk)",
        defaults=Options(height=384, width=640, steps=50, frames=FRAMES, dtype="bf16", guidance=5.0),
        parameters={
            "text_encoder": UMT5_XXL_PARAMETERS,
            "transformer": 14_312_427_584,
            "vae": VAE_PARAMETERS,
        },
        source="Helios, 2026: 14 B autoregressive video transformer on Wan 2.1 14B, UMT5-XXL",
        url="https://huggingface.co/BestWishYsh/Helios-Base",
        builder=record_base,
        decoding=Decoding(tile=256),
        size_multiple=16,
        frame_multiple=32,
        turns=turns,
        place=152,
    ),
)
