"""How many GPUs share what of an inference."""

from __future__ import annotations

from typing import NamedTuple

# Phases that no GPU gets a share of.
WHOLE = ("text_encoder", "image_encoder", "decoder", "audio_decoder")
# The component beside the denoiser that runs in its steps: what is done to the denoiser's weights is not done to its.
CONTROL = "controlnet"


class Degrees(NamedTuple):
    """ulysses x ring x cfg x tensor x pipefusion x bands GPUs.

    ulysses, ring: of those that share the tokens. cfg: groups that share the halves of classifier-free guidance, 1 or 2.
    tensor: GPUs that share the weights of the denoiser's blocks. pipefusion: GPUs that have a part of the blocks each, stages that the
    image passes in `patches`, after `warmup_steps` steps that it passes whole. decoder: of all those GPUs, how many share the VAE's
    decoder; not a factor. bands: GPUs that have a band of a UNet's image each; they too warm up for `warmup_steps`.
    """

    ulysses: int = 1
    ring: int = 1
    cfg: int = 1
    tensor: int = 1
    pipefusion: int = 1
    patches: int = 1
    warmup_steps: int = 1
    decoder: int = 1
    bands: int = 1

    @property
    def sequence(self) -> int:
        """GPUs that share the tokens."""
        return self.ulysses * self.ring

    @property
    def gpus(self) -> int:
        return self.sequence * self.cfg * self.tensor * self.pipefusion * self.bands

    def words(self) -> str:
        """Those above one, as 'cfg 2, ulysses 4'; the sequence's where there is no other."""
        named = {"cfg": self.cfg, "tensor": self.tensor, "pipefusion": self.pipefusion, "patches": self.bands}
        alone = max(named.values()) == 1
        named |= {"ulysses": self.ulysses, "ring": self.ring, "VAE": self.decoder}
        return ", ".join(
            f"{name} {degree}"
            for name, degree in named.items()
            if degree > 1 or (alone and name in ("ulysses", "ring"))
        )
