"""Traces of the catalogue's workloads, read or recorded once a process."""

import gc
from functools import cache

import pytest

from simtti.workloads import record
from simtti.workloads.catalogue import WORKLOADS
from simtti.workloads.trace import Trace

# Of today's models those that denoise.
NAMES = sorted(
    name
    for name, workload in WORKLOADS.items()
    if workload.group == "today" and workload.defaults.steps is not None
)

# Never rebuilt in full by a test, which takes up to a minute each: their builders run with a block of each kind (shallow.py), and
# their shipped traces are looked at.
LARGE = frozenset(
    (
        "cogvideox-5b", "cosmos-predict2-14b-text2image", "cosmos-predict2-14b-video2world", "cosmos-predict2-2b-text2image",
        "cosmos-predict2-2b-video2world", "ernie-image", "ernie-image-turbo", "flux-kontext-dev", "flux-schnell", "flux.2-dev", "flux.2-klein-4b",
        "flux.2-klein-9b", "flux.2-klein-base-4b", "helios-14b", "hidream-i1-dev", "hidream-i1-fast", "hidream-i1-full", "hunyuan-image-2.1", "hunyuan-video-1.5",
        "janus-pro-7b", "kandinsky-5-image-lite", "kandinsky-5-video-lite", "kandinsky-5-video-pro", "krea-2-raw", "krea-2-turbo", "ltx-2", "ltx-2.3", "minimax-h3", "ltx-video", "mochi-1",
        "qwen-image", "qwen-image-2.1", "qwen-image-edit", "qwen-image-layered", "sana-1.6b-4k", "sana-sprint-1.6b", "sana-video-2b", "sdxl-controlnet", "sdxl-lcm", "sdxl-lightning", "stable-diffusion-1.5-controlnet", "wan2.1-i2v-14b-480p", "wan2.1-i2v-14b-720p", "wan2.2-i2v-a14b",
        "wan2.2-t2v-a14b", "wan2.2-ti2v-5b", "z-image", "z-image-turbo",
    )
)  # fmt: skip
REBUILT = [name for name in NAMES if name not in LARGE]


@cache
def shipped(name):
    trace = Trace.load(record.shipped(WORKLOADS[name]))
    # Hundreds of thousands of operators that stay: the collector need not go over them again and again.
    gc.freeze()
    return trace


@cache
def small(**options):
    pytest.importorskip("torch")
    return record.record("stable-diffusion-1.5", **{"height": 64, "width": 64, **options})


def denoising(trace):
    return next(phase for phase in trace.phases if phase.name == "denoising").steps[0]
