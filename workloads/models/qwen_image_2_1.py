"""Qwen-Image-2.1 (7 B), as diffusers' QwenImage21Pipeline runs it.

Configurations are the classes' defaults, which are those released with the weights (Qwen/Qwen-Image-2.1): 32 single-stream blocks of 32
heads that share one modulation, and a VAE that shrinks images by 16 to 64 channels, of which one is a token. Text is Qwen3-VL-8B's state
before its last norm: the prompt's own tokens and what follows them in a template. Text does not see the image and is modulated as at the
last timestep, so that its keys and values are made in the first step and kept: the stored step is one of the others. It is made to be
run without guidance; with it the transformer is called twice a step, one after the other.
"""

from typing import Any

from simtti.workloads.models.text_encoders import QWEN3_VL_8B, QWEN3_VL_8B_PARAMETERS, QWEN3_VL_VISION
from simtti.workloads.recording import Recording
from simtti.workloads.workload import Decoding, Options, Workload

# Tokens of the template before the prompt, which are dropped, and after it.
SYSTEM_TOKENS, AFTER_TOKENS = 13, 8


def record_qwen_image_2_1(options: Options, recording: Recording) -> None:
    """Encode the prompts, denoise, decode."""
    import diffusers
    import torch
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    from simtti.workloads.models.pipelines.diffusers_run import Run
    from simtti.workloads.models.pipelines.inputs import PROMPT_TOKENS, Tensors, prompts

    length = SYSTEM_TOKENS + PROMPT_TOKENS + AFTER_TOKENS

    class Inputs(Tensors):
        """As a processor's, which says what it does not have."""

        def __getattr__(self, name: str) -> torch.Tensor:
            if name not in self:
                raise AttributeError(name)
            return self[name]

        def to(self, device: Any) -> "Inputs":
            return Inputs({name: tensor.to(device) for name, tensor in self.items()})

    class Processor:
        """Token ids of the template's length, none of which stands for an image."""

        def __init__(self) -> None:
            self.tokenizer = self

        def encode(self, text: str) -> list[int]:
            """What stands for an image."""
            return [1]

        def apply_chat_template(self, *_: Any, **__: Any) -> list[list[int]]:
            """The system's message alone."""
            return [[0] * SYSTEM_TOKENS]

        def __call__(self, text: list[str], **_: Any) -> Inputs:
            shape = (len(text), length)
            ones = torch.ones(shape, dtype=torch.int64)
            return Inputs(input_ids=torch.zeros(shape, dtype=torch.int64), attention_mask=ones)

    dtype = options.dtype
    config = Qwen3VLConfig(
        text_config=QWEN3_VL_8B,
        vision_config={**QWEN3_VL_VISION, "out_hidden_size": QWEN3_VL_8B["hidden_size"]},
    )
    pipeline = diffusers.QwenImage21Pipeline(
        text_encoder=recording.add("text_encoder", Qwen3VLForConditionalGeneration, config, dtype=dtype),
        transformer=recording.add("transformer", diffusers.QwenImage21Transformer2DModel, dtype=dtype),
        vae=recording.add("vae", diffusers.AutoencoderKLQwenImage21, dtype=dtype),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        processor=Processor(),
    )
    if recording.device.type == "meta":
        _mask_with_values(pipeline.transformer, recording)
    run = Run(recording, options, domain="joint", looks_first=True)
    run.decode_with(pipeline.vae)
    run.kept_tokens = length
    run.reads_true = True  # no prompt is padded
    run(
        pipeline, pipeline.transformer, prompt=prompts(options), negative_prompt=[" "] * options.batch,
        height=options.height, width=options.width, true_cfg_scale=options.guidance, output_type="np",
    )  # fmt: skip


def _mask_with_values(transformer: Any, recording: Recording) -> None:
    """Say by values, which the meta device has not, where in the sequence is text and where the image, in places of four tokens."""
    import torch

    forward = transformer.forward

    def called(hidden_states: Any, encoder_hidden_states: Any, *, img_mask: Any, **others: Any) -> Any:
        text = encoder_hidden_states.shape[1]
        mask = torch.arange(img_mask.shape[1], device="cpu").ge(text).expand(img_mask.shape).clone()
        return forward(hidden_states, encoder_hidden_states, img_mask=recording.on_device(mask), **others)

    def there(_: Any, args: Any, kwargs: Any) -> Any:
        """A block computes with what is left of it."""
        return tuple(map(moved, args)), {name: moved(value) for name, value in kwargs.items()}

    def moved(value: Any) -> Any:
        return value.to(recording.device) if isinstance(value, torch.Tensor) else value

    transformer.forward = called
    for block in (*transformer.transformer_blocks, transformer.norm_out):
        block.register_forward_pre_hook(there, with_kwargs=True)


WORKLOADS = (
    Workload(
        name="qwen-image-2.1",
        task="text-to-image",
        architecture="latent diffusion transformer",
        defaults=Options(height=1024, width=1024, steps=40, guidance=1.0, dtype="bf16"),
        parameters={
            "text_encoder": QWEN3_VL_8B_PARAMETERS,
            "transformer": 7_115_124_736,
            "vae": 337_740_404,
        },
        source="Qwen team's release of Qwen-Image-2.1, 2026: 7 B single-stream transformer, Qwen3-VL-8B",
        url="https://huggingface.co/Qwen/Qwen-Image-2.1",
        builder=record_qwen_image_2_1,
        decoding=Decoding(),
        size_multiple=32,
        place=83,
    ),
)
