"""MiniMax-H3 (33 B), video with sound from text, as diffusers' MiniMaxH3ModularPipeline runs it (its workflow t2va).

Configurations are the classes' defaults, which are those released with the weights (MiniMaxAI/MiniMax-H3): 50 blocks of 56 heads over one
sequence of text, sound and video, each with a table of modulations by timestep and modality, which is two fifths of its weights. Text is
the prompt's own tokens, their state after 50 of the 64 layers of Qwen3-VL-32B, which runs all of them; two blocks refine it. Guidance is
distilled into the weights. The sampler's levels end at 0, which is not evaluated: 50 steps are 49 evaluations.

A video has 17 n + 5 frames at 24 a second, 5 n + 2 latent ones, and stereo sound of 40 tokens a second and channel beside it. The video's
VAE encodes by convolutions and decodes by a transformer of 2.4 B, 7 latent frames at a time in tiles of 256 x 256, as it was released;
then the sound's, in fp32: the phase 'audio_decoder'.
"""

import copy
from collections.abc import Callable
from typing import Any

from simtti.errors import InputError
from simtti.workloads.models.text_encoders import QWEN3_VL_32B, QWEN3_VL_32B_PARAMETERS, QWEN3_VL_VISION
from simtti.workloads.recording import Recording
from simtti.workloads.workload import Decoding, Options, Workload

AUDIO_SHIFT = 3.0
# Means of latents change no operator.
AUDIO_LATENTS: dict[str, Any] = {"latents_mean": [0.0] * 32, "latents_std": [1.0] * 32}
# Frames of a video that the pipeline takes: 5 to 15 seconds, of 17 frames and five more.
LENGTHS = range(7 * 17 + 5, 15 * 24 + 1, 17)


class Modular:
    """A modular pipeline as `Run` calls one: its loop's progress bar and its schedulers are the pipeline's."""

    def __init__(self, blocks: Any, scheduler: Any, **components: Any):
        self.blocks = blocks
        self.scheduler = scheduler
        self.components = components
        self.progress_bar: Any = None

    def __call__(self, **arguments: Any) -> Any:
        audio_scheduler = copy.deepcopy(self.scheduler)
        audio_scheduler.set_shift(AUDIO_SHIFT)
        pipeline = self.blocks.init_pipeline()
        blocks = pipeline._blocks.sub_blocks
        blocks["denoise.denoise"].progress_bar = self.progress_bar
        blocks["denoise.set_timesteps"].build_row_timesteps = _with_values(
            blocks["denoise.set_timesteps"].build_row_timesteps
        )
        pipeline.update_components(
            scheduler=self.scheduler, audio_scheduler=audio_scheduler, **self.components
        )
        return pipeline(**arguments)


def _with_values(build: Callable[..., Any]) -> Callable[..., Any]:
    """The timestep of each row, of which the pipeline keeps those that differ: on the meta device rows have numbers here too, in the
    order of the workflow's sequence (text, sound, video)."""

    def built(video: Any, audio: Any, video_given: int, audio_given: int, text: int, *levels: float) -> Any:
        import torch

        if video.is_meta:
            audio = torch.arange(text, text + audio.numel(), device="cpu")
            video = torch.arange(text + audio.numel(), text + audio.numel() + video.numel(), device="cpu")
        return build(video, audio, video_given, audio_given, text, *levels)

    return built


def record_t2va(options: Options, recording: Recording) -> None:
    """Encode the prompt, denoise video and sound in one sequence, decode one after the other."""
    import diffusers
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    from simtti.workloads.models.pipelines.diffusers_run import Run
    from simtti.workloads.models.pipelines.inputs import Ids, prompts

    if options.batch != 1:
        raise InputError(f"batch is {options.batch}; the pipeline of minimax-h3 makes one video at a time")
    if options.frames not in LENGTHS:
        raise InputError(
            f"frames is {options.frames}; minimax-h3 takes 17 n + 5 of them, {LENGTHS[0]} to {LENGTHS[-1]}"
        )

    dtype = options.dtype
    config = Qwen3VLConfig(
        text_config=QWEN3_VL_32B,
        vision_config={**QWEN3_VL_VISION, "out_hidden_size": QWEN3_VL_32B["hidden_size"]},
    )
    pipeline = Modular(
        diffusers.MiniMaxH3Blocks().get_workflow("t2va"),
        diffusers.MiniMaxH3Scheduler(),
        text_encoder=recording.add("text_encoder", Qwen3VLForConditionalGeneration, config, dtype=dtype),
        transformer=recording.add("transformer", diffusers.MiniMaxH3Transformer3DModel, dtype=dtype),
        vae=recording.add("vae", diffusers.AutoencoderKLMiniMaxH3, dtype=dtype),
        audio_vae=recording.add(
            "audio_vae", diffusers.AutoencoderKLMiniMaxH3Audio, **AUDIO_LATENTS, dtype=dtype
        ),
        tokenizer=Ids(),
        processor=Ids(),
    )
    components = pipeline.components
    run = Run(recording, options, domain="joint", channel_dim=None, beside="audio_hidden_states")
    run.decode_with(components["vae"], "tiled", repeats=True)
    run.repeat(components["vae"], "_blend")
    run.split(components["audio_vae"], "decode", "audio_decoder")
    run(
        pipeline, components["transformer"], prompt=prompts(options)[0], height=options.height, width=options.width,
        num_frames=options.frames, output_type="np",
    )  # fmt: skip


WORKLOADS = (
    Workload(
        name="minimax-h3",
        task="text-to-video",
        architecture="latent video and audio diffusion transformer",
        defaults=Options(height=768, width=1344, steps=50, frames=124, dtype="bf16"),
        parameters={
            "text_encoder": QWEN3_VL_32B_PARAMETERS,
            "transformer": 33_122_992_896,
            "vae": 2_603_868_984,
            "audio_vae": 151_321_489,
        },
        source="MiniMax's release of MiniMax-H3: 33 B transformer over one sequence (61.7 GiB in bf16), Qwen3-VL-32B",
        url="https://huggingface.co/MiniMaxAI/MiniMax-H3",
        builder=record_t2va,
        decoding=Decoding("tiled", tile=256),
        size_multiple=32,
        place=138,
    ),
)
