"""A workload and the options of one inference of it. Needs neither torch nor a recording."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from numbers import Integral, Real
from typing import Any

from simtti.errors import InputError, unknown
from simtti.words import joined
from simtti.workloads.recording import Recording

DTYPES = ("fp16", "bf16", "fp32")
# Today's models, and the systems of the study (Golden et al., ISPASS 2024) that are not among them.
GROUPS = ("today", "study")
# How a VAE decodes: all at once; in overlapping tiles that are blended (diffusers' enable_tiling); one of its batch after another
# (enable_slicing); both.
VAE_MODES = ("whole", "tiled", "sliced", "tiled-sliced")

MOST = 1_000_000  # of steps, images at once, pixels of a side, frames or tokens


@dataclass(frozen=True)
class Options:
    """The shape of one inference. None where a workload has no such dimension.

    `height` and `width` are of the image in pixels, `batch` is images (or videos), `steps` what the sampler is
    asked for (new tokens, for a language model), `guidance` the classifier-free guidance scale: above 1 the
    denoiser sees every image twice. `prompt_tokens` is what the prompt is padded to. `strength`: image to image, how
    far from the image given: of `steps`, that share is run. `vae` is one of VAE_MODES where it is not what the workload
    does anyway at this shape.
    """

    height: int | None = None
    width: int | None = None
    batch: int = 1
    steps: int | None = None
    frames: int | None = None
    dtype: str = "fp16"
    guidance: float | None = None
    prompt_tokens: int | None = None
    strength: float | None = None
    vae: str | None = None

    def given(self) -> dict[str, Any]:
        """The dimensions this workload has."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @property
    def guided(self) -> bool:
        """Whether classifier-free guidance is on, by the pipelines' rule."""
        return self.guidance is not None and self.guidance > 1

    def sampled_steps(self, *, rounded_up: bool) -> int:
        """The steps that are run: all, or of an image to image the share `strength`; pipelines differ in how they round.

        Raises:
            InputError: none are.
        """
        assert self.steps is not None
        if self.strength is None:
            return self.steps
        exact = round(self.steps * self.strength, 9)
        found = math.ceil(exact) if rounded_up else math.floor(exact)
        if found < 1:
            raise InputError(
                f"strength is {self.strength:g}: of {self.steps} steps none is run; give at least {1 / self.steps:.3g}"
            )
        return found


@dataclass(frozen=True)
class Tiles:
    """Of a VAE's tiles along one side: `size` pixels each, and `stride` from one to the next."""

    size: int
    stride: int

    def alike(self, side: int) -> tuple[int, int]:
        """The least and the most pixels that are decoded in as many tiles as `side`, as many of them whole.

        >>> Tiles(256, 192).alike(720)
        (640, 768)
        """
        before, overlap = self.before(side), self.size - self.stride
        if not before:
            return 1, self.size
        # Where less than an overlap is left for the last tile, the one before it is not whole either.
        if side - before < overlap:
            return before + 1, before + overlap - 1
        return before + overlap, before + self.stride

    def before(self, side: int) -> int:
        """Pixels at which the last tile begins.

        >>> Tiles(256, 192).before(720)
        576
        """
        return 0 if side <= self.size else (side - 1) // self.stride * self.stride


@dataclass(frozen=True)
class Decoding:
    """How a workload's VAE decodes.

    own: what its pipeline is mostly run with, of VAE_MODES; modes: those that diffusers' class of it has. tile: pixels of a side up
    to which tiling changes nothing, 0 where it is not known. frames_together: the frames of a video are its batch. images: how many
    it decodes of one inference, as its batch. tiles: down and across, where `own` is tiled: those that diffusers' class of the VAE
    makes.
    """

    own: str = "whole"
    modes: tuple[str, ...] = VAE_MODES
    tile: int = 0
    frames_together: bool = False
    images: int = 1
    tiles: tuple[Tiles, Tiles] | None = None

    def asked(self, mode: str, options: Options) -> str | None:
        """`mode` as the option `vae` of a trace has it: without what changes nothing at this shape, None where the workload decodes so
        in any case."""
        wanted = self._effective(mode, options)
        return None if wanted == self._effective(self.own, options) else wanted

    def _effective(self, mode: str, options: Options) -> str:
        frames = (options.frames or 1) if self.frames_together else 1
        alone = options.batch * self.images * frames == 1
        fits = 0 < max(options.height or 0, options.width or 0) <= self.tile
        changes = {"sliced": not alone, "tiled": not fits}
        kept = [part for part in mode.split("-") if changes.get(part)]
        return "-".join(kept) or "whole"


ONLY_WHOLE = Decoding(modes=("whole",))
# Of the video models: their own code, xDiT and ML.ENERGY's runs have both on.
VIDEO_VAE = Decoding("tiled-sliced", tiles=(Tiles(256, 192), Tiles(256, 192)))

Builder = Callable[[Options, Recording], None]


@dataclass(frozen=True)
class Workload:
    """A system that can be traced. It stands in the file of its model, beside its builder.

    name, aliases: what it is asked for by.
    parameters: the released model's counts by component, as published or as counted from its published configuration
        (`source`, `url`).
    builder: makes the models and runs the phases, in a `Recording`; it imports torch when called, not before.
    size_multiple: what height and width must divide by, in pixels: the factor by which the VAE shrinks an image, times the
        size of a patch (or what a UNet halves the latent image to).
    max_size, max_frames: as far as positions are known.
    frame_multiple: where above 1, a video is that x k + 1 frames: a causal VAE makes so many of one latent frame (or batch
        of them) after the first.
    sizes: where given, positions were learned for square images of those only.
    max_tokens: as long as prompt and steps may be together.
    image_to_image: it can start from an image (the option strength).
    decoding: how its VAE decodes; None where it has none.
    turns: where several models take turns in denoising, how many of so many evaluations each has: the counts of the steps that
        its trace stores of them, without those that have none. Where a loop is run several times, the count of all of them.
    group, place: where it stands in lists: by group, in the order of GROUPS, then by place; the workloads of a file have
        the same two and follow each other as in their file.
    """

    name: str
    task: str
    architecture: str
    defaults: Options
    parameters: Mapping[str, int]
    source: str
    url: str
    builder: Builder
    size_multiple: int = 8
    max_steps: int = 1000
    max_size: int | None = None
    frame_multiple: int = 1
    max_frames: int | None = None
    sizes: tuple[int, ...] = ()
    max_tokens: int | None = None
    turns: Callable[[int], tuple[int, ...]] | None = None
    aliases: tuple[str, ...] = ()
    image_to_image: bool = False
    decoding: Decoding | None = None
    group: str = "today"
    place: int = 1000

    @property
    def own_vae(self) -> str | None:
        """How its VAE decodes where nobody says, of VAE_MODES; None where it has none."""
        return self.decoding.own if self.decoding else None

    def options(self, **given: Any) -> Options:
        """The defaults with what is given and not None; an InputError names what cannot be."""
        names = [field.name for field in fields(Options)]
        allowed = [name for name in names if getattr(self.defaults, name) is not None]
        if self.image_to_image:
            allowed.append("strength")
        if self.decoding is not None:
            allowed.append("vae")
        values = self.defaults.given()
        for name, value in given.items():
            if name not in names:
                raise unknown("option", name, allowed)
            if value is None or name == "vae":
                continue
            if name not in allowed:
                raise InputError(
                    f"{name} is {value!r}, but {self.name} ({self.task}) takes no {name}; "
                    f"its options are {', '.join(allowed)}"
                )
            values[name] = self._checked(name, value)
        options = Options(**values)
        self._check_together(options)
        vae = given.get("vae")
        return options if vae is None else replace(options, vae=self._vae(vae, options))

    def _vae(self, mode: Any, options: Options) -> str | None:
        """The option `vae` of a trace that decodes so."""
        if mode not in VAE_MODES:
            raise unknown("vae", str(mode), VAE_MODES)
        if self.decoding is None:
            raise InputError(
                f"vae is {mode!r}, but {self.name} ({self.architecture}) has no VAE; leave it out"
            )
        if mode not in self.decoding.modes:
            raise InputError(
                f"vae is {mode!r}, but the VAE of {self.name} has no tiling or slicing in diffusers: it decodes "
                f"{joined(list(self.decoding.modes))}"
            )
        return self.decoding.asked(mode, options)

    def _check_together(self, options: Options) -> None:
        if self.sizes and (options.height != options.width or options.height not in self.sizes):
            allowed = " or ".join(f"{size}x{size}" for size in self.sizes)
            raise InputError(
                f"height is {options.height} and width {options.width}; {self.name} makes images of {allowed} only"
            )
        tokens = (options.prompt_tokens or 0) + (options.steps or 0)
        if self.max_tokens is not None and tokens > self.max_tokens:
            raise InputError(
                f"prompt_tokens and steps are {tokens} together; {self.name} takes at most {self.max_tokens}"
            )

    def _checked(self, name: str, value: Any) -> Any:
        if name == "dtype":
            if value not in DTYPES:
                raise InputError(f"dtype is {value!r}; {self.name} takes {', '.join(DTYPES)}")
            return value
        if name == "guidance":
            if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < math.inf:
                raise InputError(
                    f"guidance is {value!r}; it must be a number of at least 0 (1 or less is none)"
                )
            return float(value)
        if name == "strength":
            if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) <= 1:
                raise InputError(f"strength is {value!r}; it must be above 0 and at most 1")
            return float(value)
        whole = isinstance(value, Integral) and not isinstance(value, bool)
        if whole and value > MOST:
            raise InputError(f"{name} is {value!r}; it must be at most {MOST:,}, which no device comes near")
        if name in ("height", "width"):
            unit = self.size_multiple
            if not whole or value < unit or value % unit:
                below = max(value // unit, 1) * unit if whole else self.defaults.given()[name]
                raise InputError(
                    f"{name} is {value!r}; for {self.name} it must be a positive multiple of {unit}, such as {below}"
                )
            if self.max_size is not None and value > self.max_size:
                raise InputError(f"{name} is {value!r}; {self.name} takes at most {self.max_size}")
        elif not whole or value < 1:
            raise InputError(f"{name} is {value!r}; it must be a whole number of at least 1")
        elif name == "frames":
            self._check_frames(int(value))
        elif name == "steps" and value > self.max_steps:
            raise InputError(f"steps is {value!r}; the sampler of {self.name} takes at most {self.max_steps}")
        return int(value)

    def _check_frames(self, frames: int) -> None:
        unit = self.frame_multiple
        if self.max_frames is not None and frames > self.max_frames:
            raise InputError(f"frames is {frames}; {self.name} takes at most {self.max_frames}")
        if unit > 1 and frames % unit != 1:
            below = (frames - 1) // unit * unit + 1
            raise InputError(
                f"frames is {frames}; for {self.name} it must be a multiple of {unit} plus 1, such as "
                f"{below} or {below + unit}"
            )
