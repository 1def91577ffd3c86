"""Workloads of one layer, in a module that a worker can import however it is started."""

import time
from dataclasses import replace

from simtti.workloads.workload import Options, Workload


def record_toy(options, recording):
    import torch

    layer = recording.add("layer", torch.nn.Linear, 4, 4, dtype=options.dtype)
    latents = torch.randn(2, 4, device=recording.device)
    for step in recording.times("denoising", domain="spatial", count=options.steps):
        with step:
            latents = layer(latents)
    recording.schedule["denoising"] = 0


def record_broken(options, recording):
    """Is recorded, and fails where it computes."""
    record_toy(options, recording)
    if recording.device.type != "meta":
        raise RuntimeError("CUDA error: device-side assert\nCompile with TORCH_USE_CUDA_DSA")


TOY = Workload(
    name="toy", task="text-to-image", architecture="toy", defaults=Options(steps=4, dtype="fp32"), parameters={},
    source="", url="", builder=record_toy,
)  # fmt: skip
BROKEN = replace(TOY, name="broken", builder=record_broken)


def record_slow(options, recording):
    """Takes minutes to record, so that it never gets as far as to hold the device."""
    time.sleep(600)


SLOW = replace(TOY, name="slow", builder=record_slow)
