"""Qwen-Image and Qwen-Image-Edit-2509, as diffusers' QwenImagePipeline and QwenImageEditPlusPipeline run them.

Configurations are those released with the weights (Qwen/Qwen-Image and so on), the transformer's and the VAE's the classes'
defaults: 60 double blocks, no single ones. Text is the last state of Qwen2.5-VL-7B: the prompt's own tokens, without those of a
template. The negative prompt is a space; guidance calls the transformer twice a step, one after the other. The VAE is one for
videos, and decodes one frame.

Edit's language model reads an image of 384x384 as well: its 196 tokens are taken for text's here, and the vision tower that makes
them (a few milliseconds) is left out. The VAE encodes it at an area of 1024x1024, whose tokens stand beside those of the image
that is made.
"""

from typing import Any

from simtti.errors import InputError
from simtti.workloads.models.text_encoders import (
    QWEN_2_5_VL_7B,
    QWEN_2_5_VL_7B_PARAMETERS,
    QWEN_2_5_VL_7B_VISION,
)
from simtti.workloads.recording import Recording
from simtti.workloads.workload import Decoding, Options, Workload

TEMPLATE_TOKENS = 34
# Those of the template and of the image, with the words around it.
EDIT_TEMPLATE_TOKENS = 64 + 196 + 6
SCHEDULER: dict[str, Any] = {
    "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 0.9, "base_image_seq_len": 256,
    "max_image_seq_len": 8192, "shift_terminal": 0.02, "time_shift_type": "exponential",
}  # fmt: skip


def record_image(options: Options, recording: Recording) -> None:
    """Qwen-Image, from text."""
    record_qwen_image(options, recording, "QwenImagePipeline", TEMPLATE_TOKENS)


def record_edit(options: Options, recording: Recording) -> None:
    """Qwen-Image-Edit, from text and an image."""
    from PIL import Image

    if options.batch != 1:
        raise InputError(
            f"batch is {options.batch}; the pipeline of qwen-image-edit edits one image at a time"
        )
    assert options.height is not None
    assert options.width is not None
    picture = Image.new("RGB", (options.width, options.height))
    record_qwen_image(options, recording, "QwenImageEditPlusPipeline", EDIT_TEMPLATE_TOKENS, image=[picture])


def record_qwen_image(
    options: Options, recording: Recording, pipeline_class: str, template: int, **arguments: Any
) -> None:
    """Encode the prompts (and the image), denoise, decode. `template`: tokens beside the prompt's."""
    import diffusers
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    from simtti.workloads.models.pipelines.diffusers_run import Run
    from simtti.workloads.models.pipelines.inputs import PROMPT_TOKENS, Tokenizer, prompts

    dtype = options.dtype
    config = Qwen2_5_VLConfig(text_config=QWEN_2_5_VL_7B, vision_config=QWEN_2_5_VL_7B_VISION)
    tokenizer = Tokenizer(template=template)
    pipeline = getattr(diffusers, pipeline_class)(
        text_encoder=recording.add("text_encoder", Qwen2_5_VLForConditionalGeneration, config, dtype=dtype),
        transformer=recording.add("transformer", diffusers.QwenImageTransformer2DModel, dtype=dtype),
        vae=recording.add("vae", diffusers.AutoencoderKLQwenImage, dtype=dtype),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**SCHEDULER),
        tokenizer=tokenizer,
        **({"processor": tokenizer} if arguments else {}),
    )
    run = Run(recording, options, domain="joint", channel_dim=None)
    run.decode_with(pipeline.vae)
    run.kept_tokens = template + PROMPT_TOKENS
    run.reads_true = True  # no prompt is padded
    if arguments:
        run.split(pipeline.vae, "encode", "image_encoder")
    run(
        pipeline, pipeline.transformer, prompt=prompts(options), negative_prompt=[" "] * options.batch,
        height=options.height, width=options.width, true_cfg_scale=options.guidance, output_type="np", **arguments,
    )  # fmt: skip


PARAMETERS = {
    "text_encoder": QWEN_2_5_VL_7B_PARAMETERS,
    "transformer": 20_430_401_088,
    "vae": 126_892_531,
}
WORKLOADS = (
    Workload(
        name="qwen-image",
        task="text-to-image",
        architecture="latent diffusion transformer",
        defaults=Options(height=1024, width=1024, steps=50, guidance=4.0, dtype="bf16"),
        parameters=PARAMETERS,
        source="Qwen team, 2025 (arXiv 2508.02324): 20 B double-stream transformer, Qwen2.5-VL-7B",
        url="https://huggingface.co/Qwen/Qwen-Image",
        builder=record_image,
        decoding=Decoding(tile=256),
        size_multiple=16,
        place=86,
    ),
    Workload(
        name="qwen-image-edit",
        task="image editing",
        architecture="latent diffusion transformer",
        defaults=Options(height=1024, width=1024, steps=40, guidance=4.0, dtype="bf16"),
        parameters=PARAMETERS,
        source="Qwen team, 2025 (arXiv 2508.02324), Qwen-Image-Edit-2509: Qwen-Image's networks",
        url="https://huggingface.co/Qwen/Qwen-Image-Edit-2509",
        builder=record_edit,
        decoding=Decoding(tile=256),
        size_multiple=16,
        place=86,
    ),
)
