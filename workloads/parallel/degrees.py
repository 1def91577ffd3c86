"""How many GPUs share what of an inference."""

from __future__ import annotations

from typing import NamedTuple

# Phases that no GPU gets a share of.
WHOLE = ("text_encoder", "image_encoder", "decoder", "audio_decoder")


class Degrees(NamedTuple):
    """ulysses x ring x cfg x tensor GPUs.

    ulysses, ring: of those that share the tokens. cfg: groups that share the halves of classifier-free guidance, 1 or 2.
    tensor: GPUs that share the weights of the denoiser's blocks.
    """

    ulysses: int = 1
    ring: int = 1
    cfg: int = 1
    tensor: int = 1

    @property
    def sequence(self) -> int:
        """GPUs that share the tokens."""
        return self.ulysses * self.ring

    @property
    def gpus(self) -> int:
        return self.sequence * self.cfg * self.tensor

    def words(self) -> str:
        """Those above one, as 'cfg 2, ulysses 4'; the sequence's where there is no other."""
        named = {"cfg": self.cfg, "tensor": self.tensor, "ulysses": self.ulysses, "ring": self.ring}
        alone = self.cfg == self.tensor == 1
        return ", ".join(
            f"{name} {degree}"
            for name, degree in named.items()
            if degree > 1 or (alone and name in ("ulysses", "ring"))
        )
