"""Recording Make-A-Video's decoder alone, at sizes the workload does not have. Needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simtti.workloads.models.latent_diffusion import Recording
from simtti.workloads.models.make_a_video import SIZES, UNetSize, record_denoiser


def record(options: Mapping[str, Any]) -> Recording:
    size = UNetSize(
        tuple(options["widths"]), SIZES.decoder.blocks, tuple(options["levels"]), SIZES.decoder.head_dim
    )
    return record_denoiser(size, options["side"], options["frames"], options["batch"], "fp16")
