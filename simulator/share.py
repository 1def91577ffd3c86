"""What several GPUs make of an inference that they share."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from simtti.workloads.parallel.degrees import Degrees

ON_ONE_GPU = ("decoder", "audio_decoder")  # phases that the others wait for, unless they share them


@dataclass(frozen=True, slots=True)
class SeveralGPUs:
    """What several GPUs make of an inference: seconds, joules of all of them, bytes on each, how long of the latency is
    communication, and the seconds of one GPU alone. ulysses, ring, cfg_parallel, tensor, pipefusion, patches: the degrees, whose product is
    gpus. pipefusion_patches, warmup_steps: of a pipeline; the latter of patches too. parallel_vae: whether all share the VAE's decoder."""

    gpus: int
    ulysses: int
    ring: int
    latency_s: float
    energy_j: float
    peak_memory_bytes: int | None
    communication_s: float
    one_gpu_s: float
    cfg_parallel: int = 1
    tensor: int = 1
    pipefusion: int = 1
    pipefusion_patches: int = 1
    warmup_steps: int = 1
    parallel_vae: bool = False
    patches: int = 1

    @property
    def degrees(self) -> str:
        """The degrees in words, as 'cfg 2, ulysses 4'."""
        found = Degrees(self.ulysses, self.ring, self.cfg_parallel, self.tensor, self.pipefusion)
        return found._replace(decoder=self.gpus if self.parallel_vae else 1, bands=self.patches).words()

    def to_dict(self) -> dict[str, Any]:
        """As `simtti run --gpus N --json` adds it."""
        return asdict(self)
