"""Workloads small enough for a CPU: the real builders, with fewer and narrower layers.

Each takes a MonkeyPatch, options and a recording, and runs a builder whose sizes it has exchanged.
"""

import pytest

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from simtti.workloads.models import (  # noqa: E402
    animatediff,
    imagen,
    llama2,
    make_a_video,
    muse,
    parti,
    stable_diffusion,
    wan,
)
from simtti.workloads.record import quiet  # noqa: E402

with quiet():
    from simtti.workloads.models.networks import imagen as imagen_networks
    from simtti.workloads.models.networks import muse as muse_networks
    from simtti.workloads.models.networks import parti as parti_networks

CLIP = {**stable_diffusion.CLIP_L, "intermediate_size": 64, "num_hidden_layers": 1, "vocab_size": 100}
UNET = {
    "sample_size": 8, "cross_attention_dim": 768, "attention_head_dim": 4, "block_out_channels": (32, 64),
    "layers_per_block": 1, "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}  # fmt: skip
VAE = {
    **stable_diffusion.VAE, "block_out_channels": (32, 32), "layers_per_block": 1,
    "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2,
}  # fmt: skip


def with_defaults(factory, **defaults):
    return lambda *args, **kwargs: factory(*args, **{**kwargs, **defaults})


def stable(patch, options, recording):
    """Stable Diffusion 1.5's classes with its sampler, PNDM."""
    patch.setattr(stable_diffusion, "VAE", VAE)
    patch.setattr(stable_diffusion, "CLIP_L", CLIP)
    patch.setattr(stable_diffusion, "UNET_1_5", UNET)
    stable_diffusion.record_1_5(options, recording)


def llama(patch, options, recording):
    patch.setattr(llama2, "CONFIG", {
        **llama2.CONFIG, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 4, "vocab_size": 100,
    })  # fmt: skip
    patch.setattr(llama2, "BLOCK", 4)
    llama2.record_7b(options, recording)


def parallel(patch, options, recording):
    """Muse at 256x256."""
    small = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4, "vocab_size": 100}
    for module in (muse, muse_networks):
        patch.setattr(module, "T5_XXL", {**muse.T5_XXL, **small})
    patch.setattr(muse, "BASE", {"width": 64, "layers": 1, "inner": 64, "tokens": 256})
    patch.setattr(muse, "DECODER_16", {"block_out_channels": (32,) * 5, "layers_per_block": 1})
    muse.record_muse(options, recording)


def chunked(patch, options, recording):
    """Make-A-Video: seven phases, the last network on three chunks of two frames."""
    patch.setattr(make_a_video, "CLIP_L", CLIP)
    prior = with_defaults(
        diffusers.PriorTransformer, num_layers=1, num_attention_heads=2, attention_head_dim=8
    )
    patch.setattr(diffusers, "PriorTransformer", prior)
    size = make_a_video.UNetSize((32, 32), 1, attention=(1,), head_dim=8)
    sizes = make_a_video.Sizes(
        size, size, size, size, prior_steps=1, super_resolution_steps=2, frames_at_once=2
    )
    make_a_video.record_sizes(options, recording, sizes)


def frames(patch, options, recording):
    """A pipeline of diffusers' whose VAE decodes 16 frames at a time."""
    patch.setattr(animatediff, "CLIP_L", CLIP)
    patch.setattr(animatediff, "VAE", VAE)
    small = {
        "block_out_channels": (32, 32), "layers_per_block": 1, "cross_attention_dim": 768,
        "num_attention_heads": 4, "motion_num_attention_heads": 4,
        "down_block_types": ("CrossAttnDownBlockMotion", "DownBlockMotion"),
        "up_block_types": ("UpBlockMotion", "CrossAttnUpBlockMotion"),
    }  # fmt: skip
    patch.setattr(animatediff, "UNET", {**animatediff.UNET, **small})
    adapter = with_defaults(diffusers.MotionAdapter, block_out_channels=(32, 32), motion_layers_per_block=1)
    patch.setattr(diffusers, "MotionAdapter", adapter)
    animatediff.record_animatediff(options, recording)


def tiles(patch, options, recording):
    """A pipeline of diffusers' whose VAE decodes one latent frame after another, in tiles that it blends."""
    small = {"d_model": 4096, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4, "vocab_size": 100}
    patch.setattr(wan, "UMT5_XXL", {**wan.UMT5_XXL, **small})
    transformer = {"num_attention_heads": 2, "attention_head_dim": 24, "num_layers": 1, "ffn_dim": 64}
    patch.setattr(wan, "T2V_1_3B", wan.Wan(transformer, {}))
    vae = with_defaults(diffusers.AutoencoderKLWan, base_dim=8, num_res_blocks=1)
    patch.setattr(diffusers, "AutoencoderKLWan", vae)
    wan.record_1_3b(options, recording)


def autoregressive(patch, options, recording):
    """Parti: an image's 1,024 tokens, in blocks of 128 steps that are alike."""
    small = {
        "WIDTH": 32, "HEADS": 4, "INNER": 64, "ENCODER_LAYERS": 1, "DECODER_LAYERS": 1, "VIT_WIDTH": 32, "VIT_HEADS": 4,
        "VIT_INNER": 64, "VIT_LAYERS": 1,
    }  # fmt: skip
    for module in (parti, parti_networks):
        for name, value in small.items():
            if hasattr(module, name):
                patch.setattr(module, name, value)
    parti.record_parti(options, recording)


def upsampled(patch, options, recording):
    """Imagen: pixels, and super-resolution twice."""
    text = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4, "vocab_size": 100}
    patch.setattr(imagen, "T5_XXL", {**imagen.T5_XXL, **text})
    patch.setattr(imagen, "BASE", {
        **imagen.BASE, "block_out_channels": (32, 32, 32, 32), "layers_per_block": 1, "attention_head_dim": 8,
        "cross_attention_dim": 32, "encoder_hid_dim": 32, "projection_class_embeddings_input_dim": 32,
    })  # fmt: skip
    patch.setattr(imagen, "SUPER_RESOLUTION_STEPS", (2, 2))
    sizes = {
        "WIDTHS": (32, 32), "BLOCKS": (1, 1), "HEADS": 4, "EMBEDDING": 128, "TEXT_WIDTH": 32, "CONTEXT_WIDTH": 32,
    }  # fmt: skip
    for name, value in sizes.items():
        patch.setattr(imagen_networks, name, value)
    imagen.record_imagen(options, recording)
