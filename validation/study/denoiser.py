"""Recording Make-A-Video's decoder alone, at sizes the workload does not have. Needs torch when it is called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simtti.workloads.models.make_a_video import SIZES, UNetSize, record_denoiser
from simtti.workloads.recording import Recording


def record(options: Mapping[str, Any], recording: Recording) -> None:
    size = UNetSize(
        tuple(options["widths"]), SIZES.decoder.blocks, tuple(options["levels"]), SIZES.decoder.head_dim
    )
    record_denoiser(recording, size, options["side"], options["frames"], options["batch"], "fp16")
