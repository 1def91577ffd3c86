"""Recording Make-A-Video at sizes the workload does not have. Needs torch when it is called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from simtti.workloads.models.make_a_video import SIZES, UNetSize, record_denoiser, record_sizes
from simtti.workloads.recording import Recording
from simtti.workloads.workload import Options


def record(options: Mapping[str, Any], recording: Recording) -> None:
    """One pass of its decoder alone."""
    size = UNetSize(
        tuple(options["widths"]), SIZES.decoder.blocks, tuple(options["levels"]), SIZES.decoder.head_dim
    )
    record_denoiser(recording, size, options["side"], options["frames"], options["batch"], "fp16")


def record_attending(options: Options, recording: Recording, *, levels: tuple[int, ...]) -> None:
    """Its whole inference, decoder and interpolation attending at `levels`, counted from the largest image as 0."""
    sizes = replace(
        SIZES,
        decoder=replace(SIZES.decoder, attention=levels),
        interpolation=replace(SIZES.interpolation, attention=levels),
    )
    record_sizes(options, recording, sizes)
