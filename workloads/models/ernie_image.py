"""ERNIE-Image and ERNIE-Image-Turbo (8 B), as diffusers' ErnieImagePipeline runs them.

Configurations are those released with the weights (baidu/ERNIE-Image): 36 single-stream blocks of 32 heads over image and text, which
share their modulation, and FLUX.2's VAE. Text is the last state but one of Ministral-3-3B, the prompt's own tokens; those that others
of a batch lack are masked, by a mask that is there in any case. Guidance puts two samples into a batch; Turbo is distilled to 8 steps
without. The language model of 3 B that rewrites prompts first, where it is asked to, is left out.
"""

from typing import Any

from simtti.workloads.models.flux_2 import VAE_PARAMETERS
from simtti.workloads.models.text_encoders import (
    MINISTRAL_3_3B,
    MINISTRAL_3_3B_PARAMETERS,
    PIXTRAL_24B_VISION,
)
from simtti.workloads.recording import Recording
from simtti.workloads.workload import Decoding, Options, Workload

TRANSFORMER: dict[str, Any] = {
    "hidden_size": 4096, "num_attention_heads": 32, "num_layers": 36, "ffn_hidden_size": 12288, "text_in_dim": 3072,
}  # fmt: skip


def record_ernie_image(options: Options, recording: Recording) -> None:
    """Encode the prompts one by one, denoise, decode."""
    import diffusers
    from transformers import Mistral3Config, Mistral3Model

    from simtti.workloads.models.pipelines.diffusers_run import Run
    from simtti.workloads.models.pipelines.inputs import Ids, prompts

    dtype = options.dtype
    config = Mistral3Config(text_config=MINISTRAL_3_3B, vision_config=PIXTRAL_24B_VISION)
    pipeline = diffusers.ErnieImagePipeline(
        text_encoder=recording.add("text_encoder", Mistral3Model, config, dtype=dtype),
        transformer=recording.add(
            "transformer", diffusers.ErnieImageTransformer2DModel, **TRANSFORMER, dtype=dtype
        ),
        vae=recording.add("vae", diffusers.AutoencoderKLFlux2, dtype=dtype),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=4.0),
        tokenizer=Ids(),
    )
    run = Run(recording, options, domain="joint")
    run.decode_with(pipeline.vae)
    run(
        pipeline, pipeline.transformer, prompt=prompts(options), height=options.height, width=options.width,
        guidance_scale=options.guidance or 1.0, output_type="np",
    )  # fmt: skip


PARAMETERS = {
    "text_encoder": MINISTRAL_3_3B_PARAMETERS,
    "transformer": 8_033_490_048,
    "vae": VAE_PARAMETERS,
}
WORKLOADS = (
    Workload(
        name="ernie-image",
        task="text-to-image",
        architecture="latent diffusion transformer",
        defaults=Options(height=1024, width=1024, steps=50, guidance=4.0, dtype="bf16"),
        parameters=PARAMETERS,
        source="Baidu's release of ERNIE-Image, 2026: 8 B single-stream transformer, Ministral-3-3B",
        url="https://huggingface.co/baidu/ERNIE-Image",
        builder=record_ernie_image,
        decoding=Decoding(tile=1024),
        size_multiple=16,
        place=85,
    ),
    Workload(
        name="ernie-image-turbo",
        task="text-to-image",
        architecture="latent diffusion transformer",
        defaults=Options(height=1024, width=1024, steps=8, dtype="bf16"),
        parameters=PARAMETERS,
        source="Baidu's release of ERNIE-Image, 2026: 8 B single-stream transformer, Ministral-3-3B, distilled to 8 steps",
        url="https://huggingface.co/baidu/ERNIE-Image-Turbo",
        builder=record_ernie_image,
        decoding=Decoding(tile=1024),
        size_multiple=16,
        place=85,
    ),
)
