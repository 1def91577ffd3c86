"""Which systems, sizes and frames the study goes over."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from simtti.validation.study.points import DENOISER, Point, point
from simtti.workloads.measured import captures
from simtti.workloads.models.make_a_video import SIZES

WORKLOAD = "make-a-video"


class Assumption(NamedTuple):
    """Make-A-Video's decoder as it may have been: what differs from what workloads/models/make_a_video.py assumes."""

    label: str
    side: int = 64
    frames: int = 16
    widths: tuple[int, ...] = (512, 1024, 1536, 2048)
    levels: tuple[int, ...] = (1, 2, 3)

    @property
    def point(self) -> Point:
        return point("denoiser", DENOISER, **self.options)

    @property
    def caches(self) -> Point:
        return point("caches", DENOISER, **self.options)

    @property
    def whole(self) -> Point:
        """The whole inference with decoder and interpolation attending at these levels, all else as the workload's file assumes."""
        if self.levels == SIZES.decoder.attention:
            return point("run", WORKLOAD)
        return point("whole", WORKLOAD, levels=self.levels)

    @property
    def options(self) -> dict[str, object]:
        return {"side": self.side, "frames": self.frames, "widths": self.widths, "levels": self.levels}


DECODER = Assumption("as assumed: 512 channels, attention at 32, 16, 8")
ASSUMPTIONS = (
    DECODER,
    Assumption("320 channels (Karlo's decoder)", widths=(320, 640, 960, 1280)),
    Assumption("192 channels", widths=(192, 384, 576, 768)),
    Assumption("attention at 64 too", levels=(0, 1, 2, 3)),
    Assumption("attention at 16 and 8 only", levels=(2, 3)),
    Assumption("attention at 8 only", levels=(3,)),
    Assumption("76 frames (interpolation)", frames=76),
)


class Plan(NamedTuple):
    """other_sizes: images of other sizes than the one taken for a system that makes several. batches: the larger batch of the
    roofline. sizes: sides of Stable Diffusion's image, pixels. sides, frames: of
    Make-A-Video's decoder. attending: levels of it at which the whole inference is run. caches: decoders and workloads whose hit
    rates are simulated. captures: measured inferences by name; None for all that ship."""

    diffusion: tuple[str, ...] = ("stable-diffusion-1.5", "imagen", "prod-image")
    transformer: tuple[str, ...] = ("muse", "parti")
    video: tuple[str, ...] = ("make-a-video", "phenaki")
    language: tuple[str, ...] = ("llama2-7b",)
    also: tuple[str, ...] = ("modelscope-t2v", "animatediff", "svd")
    other_sizes: tuple[Point, ...] = (point("run", "muse", height=256, width=256),)
    batches: tuple[tuple[str, int], ...] = (
        ("stable-diffusion-1.5", 8), ("muse", 8), ("llama2-7b", 8),
    )  # fmt: skip
    size_workload: str = "stable-diffusion-1.5"
    sizes: tuple[int, ...] = (64, 128, 256, 384, 512, 640, 768, 1024)
    sides: tuple[int, ...] = (32, 64, 128)
    frames: tuple[int, ...] = (4, 8, 16, 32, 64, 128, 256)
    assumptions: tuple[Assumption, ...] = ASSUMPTIONS
    caches: tuple[Point, ...] = (
        DECODER.caches, ASSUMPTIONS[3].caches, ASSUMPTIONS[-1].caches, point("caches", "modelscope-t2v"), point("caches", "svd"),
    )  # fmt: skip

    attending: tuple[Assumption, ...] = (DECODER, *ASSUMPTIONS[4:6])
    captures: tuple[str, ...] | None = None

    @property
    def captured(self) -> tuple[Point, ...]:
        """Measured inferences, on the device that each was measured on."""
        names = self.captures
        return tuple(
            point("capture", name)
            for name in (tuple(each.name for each in captures()) if names is None else names)
        )

    @property
    def decoder(self) -> Assumption:
        """Make-A-Video's decoder as findings take it: the first assumption."""
        return self.assumptions[0]

    @property
    def systems(self) -> tuple[str, ...]:
        """The study's eight."""
        return (*self.language, *self.diffusion, *self.transformer, *self.video)

    @property
    def workloads(self) -> tuple[str, ...]:
        return (*self.systems, *self.also)

    @property
    def runs(self) -> tuple[Point, ...]:
        """Whole inferences: of every workload, and of other sizes."""
        return (*(point("run", workload) for workload in self.workloads), *self.other_sizes)

    @property
    def videos(self) -> tuple[str, ...]:
        return (*self.video, *self.also)

    def batch_point(self, workload: str, batch: int) -> Point:
        return point("run", workload, batch=batch)

    def size_point(self, side: int) -> Point:
        return point("run", self.size_workload, height=side, width=side)

    def at_frames(self, frames: int) -> Assumption:
        return self.decoder._replace(label=f"{frames} frames", frames=frames)

    def at_side(self, side: int) -> Assumption:
        return self.decoder._replace(label=f"{side}x{side}", side=side)

    def points(self) -> Iterator[Point]:
        """All of it, the longest first, so that both processes end together."""
        yield from self.caches
        yield from (self.batch_point(*item) for item in self.batches)
        yield from reversed(self.runs)
        yield from (assumption.whole for assumption in self.attending)
        yield from self.captured
        yield from (self.at_frames(frames).point for frames in reversed(self.frames))
        yield from (self.at_side(side).point for side in reversed(self.sides))
        yield from (assumed.point for assumed in self.assumptions)
        yield from (self.size_point(side) for side in reversed(self.sizes))
