"""Qwen-Image, Qwen-Image-Edit-2509 and Qwen-Image-Layered, as diffusers' QwenImagePipeline, QwenImageEditPlusPipeline and
QwenImageLayeredPipeline run them.

Configurations are those released with the weights (Qwen/Qwen-Image and so on), the transformer's and the VAE's the classes'
defaults: 60 double blocks, no single ones. Text is the last state of Qwen2.5-VL-7B: the prompt's own tokens, without those of a
template. The negative prompt is a space; guidance calls the transformer twice a step, one after the other. The VAE is one for
videos, and decodes one frame.

Edit's language model reads an image of 384x384 as well: its 196 tokens are taken for text's here, and the vision tower that makes
them (a few milliseconds) is left out. The VAE encodes it at an area of 1024x1024, whose tokens stand beside those of the image
that is made.

Layered takes an image apart into four layers with opacity, of 640 x 640 or 1024 x 1024: tokens of the image that is given, of that image made
anew and of each layer stand side by side. The VAE's images have four channels. The prompt says what is to be seen; where none is given,
the language model writes one first, which is left out.
"""

from collections.abc import Mapping
from types import MappingProxyType
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

LAYERS = 4
LAYERED_SCHEDULER: dict[str, Any] = {**SCHEDULER, "shift_terminal": None, "time_shift_type": "linear"}


def record_image(options: Options, recording: Recording) -> None:
    """Qwen-Image, from text."""
    size: dict[str, Any] = {"height": options.height, "width": options.width}
    record_qwen_image(options, recording, "QwenImagePipeline", TEMPLATE_TOKENS, **size)


def record_edit(options: Options, recording: Recording) -> None:
    """Qwen-Image-Edit, from text and an image."""
    picture = _given(options, "qwen-image-edit", "RGB")
    size: dict[str, Any] = {"height": options.height, "width": options.width}
    record_qwen_image(
        options, recording, "QwenImageEditPlusPipeline", EDIT_TEMPLATE_TOKENS, image=[picture], **size
    )


def record_layered(options: Options, recording: Recording) -> None:
    """Qwen-Image-Layered, from an image and what is to be seen on it."""
    record_qwen_image(
        options, recording, "QwenImageLayeredPipeline", TEMPLATE_TOKENS,
        transformer={"use_additional_t_cond": True, "use_layer3d_rope": True}, vae={"input_channels": 4},
        scheduler=LAYERED_SCHEDULER, image=_given(options, "qwen-image-layered", "RGBA"), layers=LAYERS,
        resolution=options.height, cfg_normalize=True,
    )  # fmt: skip


def _given(options: Options, name: str, mode: str) -> Any:
    """The image that a pipeline is given, of the size that it is to make."""
    from PIL import Image

    if options.batch != 1:
        raise InputError(f"batch is {options.batch}; the pipeline of {name} edits one image at a time")
    assert options.height is not None
    assert options.width is not None
    return Image.new(mode, (options.width, options.height))


def record_qwen_image(
    options: Options,
    recording: Recording,
    pipeline_class: str,
    template: int,
    *,
    transformer: Mapping[str, Any] = MappingProxyType({}),
    vae: Mapping[str, Any] = MappingProxyType({}),
    scheduler: Mapping[str, Any] = MappingProxyType(SCHEDULER),
    **arguments: Any,
) -> None:
    """Encode the prompts (and the image), denoise, decode.

    template: tokens beside the prompt's. transformer, vae: what differs from the classes' defaults. arguments: the pipeline's.
    """
    import diffusers
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    from simtti.workloads.models.pipelines.diffusers_run import Run
    from simtti.workloads.models.pipelines.inputs import PROMPT_TOKENS, Tokenizer, prompts

    dtype = options.dtype
    config = Qwen2_5_VLConfig(text_config=QWEN_2_5_VL_7B, vision_config=QWEN_2_5_VL_7B_VISION)
    tokenizer = Tokenizer(template=template)
    pipeline = getattr(diffusers, pipeline_class)(
        text_encoder=recording.add("text_encoder", Qwen2_5_VLForConditionalGeneration, config, dtype=dtype),
        transformer=recording.add(
            "transformer", diffusers.QwenImageTransformer2DModel, **transformer, dtype=dtype
        ),
        vae=recording.add("vae", diffusers.AutoencoderKLQwenImage, **vae, dtype=dtype),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**scheduler),
        tokenizer=tokenizer,
        **({"processor": tokenizer} if "image" in arguments else {}),
    )
    run = Run(recording, options, domain="joint", channel_dim=None)
    run.decode_with(pipeline.vae)
    run.kept_tokens = template + PROMPT_TOKENS
    run.reads_true = True  # no prompt is padded
    if "image" in arguments:
        run.split(pipeline.vae, "encode", "image_encoder")
    run(
        pipeline, pipeline.transformer, prompt=prompts(options), negative_prompt=[" "] * options.batch,
        true_cfg_scale=options.guidance, output_type="np", **arguments,
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
    Workload(
        name="qwen-image-layered",
        task="image editing",
        architecture="latent diffusion transformer",
        defaults=Options(height=640, width=640, steps=50, guidance=4.0, dtype="bf16"),
        parameters={**PARAMETERS, "transformer": 20_430_407_232, "vae": 126_897_716},
        source="Qwen team, 2025 (arXiv 2512.15603): Qwen-Image's networks, which take an image apart into layers",
        url="https://huggingface.co/Qwen/Qwen-Image-Layered",
        builder=record_layered,
        decoding=Decoding(tile=256, images=LAYERS),
        sizes=(640, 1024),
        size_multiple=32,
        place=86,
    ),
)
