"""What workloads there are, and which options they take. Needs neither torch nor a recording."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from numbers import Integral, Real
from typing import Any

from simtti.errors import InputError, unknown

DTYPES = ("fp16", "bf16", "fp32")


@dataclass(frozen=True)
class Options:
    """The shape of one inference. None where a workload has no such dimension.

    `height` and `width` are of the image in pixels, `batch` is images (or videos), `steps` what the sampler is
    asked for, `guidance` the classifier-free guidance scale: above 1 the denoiser sees every image twice.
    """

    height: int | None = None
    width: int | None = None
    batch: int = 1
    steps: int | None = None
    frames: int | None = None
    dtype: str = "fp16"
    guidance: float | None = None

    def given(self) -> dict[str, Any]:
        """The dimensions this workload has."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Workload:
    """A system that can be traced.

    `parameters` are the released model's counts by component, as published or as counted from its published
    configuration (`source`, `url`). `builder` names the function that records the phases, as 'module:function':
    the module is imported only to record, since it needs torch. `size_multiple` is what height and width
    must divide by, in pixels: the factor by which the VAE shrinks an image.
    """

    name: str
    task: str
    architecture: str
    defaults: Options
    parameters: Mapping[str, int]
    source: str
    url: str
    builder: str
    size_multiple: int = 8
    max_steps: int = 1000

    def options(self, **given: Any) -> Options:
        """The defaults with what is given and not None; an InputError names what cannot be."""
        names = [field.name for field in fields(Options)]
        allowed = [name for name in names if getattr(self.defaults, name) is not None]
        values = self.defaults.given()
        for name, value in given.items():
            if name not in names:
                raise unknown("option", name, allowed)
            if value is None:
                continue
            if name not in allowed:
                raise InputError(
                    f"{name} is {value!r}, but {self.name} ({self.task}) takes no {name}; "
                    f"its options are {', '.join(allowed)}"
                )
            values[name] = self._checked(name, value)
        return Options(**values)

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
        whole = isinstance(value, Integral) and not isinstance(value, bool)
        if name in ("height", "width"):
            unit = self.size_multiple
            if not whole or value < unit or value % unit:
                below = max(value // unit, 1) * unit if whole else self.defaults.given()[name]
                raise InputError(
                    f"{name} is {value!r}; for {self.name} it must be a positive multiple of {unit}, such as {below}"
                )
        elif not whole or value < 1:
            raise InputError(f"{name} is {value!r}; it must be a whole number of at least 1")
        elif name == "steps" and value > self.max_steps:
            raise InputError(f"steps is {value!r}; the sampler of {self.name} takes at most {self.max_steps}")
        return int(value)


def find(name: str) -> Workload:
    """The workload of that name or alias."""
    name = ALIASES.get(name, name)
    if name not in WORKLOADS:
        raise unknown("workload", name, [*WORKLOADS, *ALIASES])
    return WORKLOADS[name]


_VAE = 83_653_863
_CLIP_L = 123_060_480

WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        Workload(
            name="stable-diffusion-1.5",
            task="text-to-image",
            architecture="latent diffusion UNet",
            defaults=Options(height=512, width=512, steps=50, guidance=7.5),
            parameters={"text_encoder": _CLIP_L, "unet": 859_520_964, "vae": _VAE},
            source="Rombach et al., CVPR 2022, and the model card: 860 M UNet, 123 M text encoder (CLIP ViT-L/14)",
            url="https://github.com/CompVis/stable-diffusion",
            builder="simtti.workloads.models.stable_diffusion:record_1_5",
        ),
        Workload(
            name="stable-diffusion-2.1",
            task="text-to-image",
            architecture="latent diffusion UNet",
            defaults=Options(height=768, width=768, steps=50, guidance=7.5),
            parameters={"text_encoder": 340_387_840, "unet": 865_910_724, "vae": _VAE},
            source="Stability AI's v2-inference-v configuration: 866 M UNet, OpenCLIP ViT-H text encoder (23 of 24 layers)",
            url="https://github.com/Stability-AI/stablediffusion",
            builder="simtti.workloads.models.stable_diffusion:record_2_1",
        ),
        Workload(
            name="sdxl",
            task="text-to-image",
            architecture="latent diffusion UNet",
            defaults=Options(height=1024, width=1024, steps=50, guidance=5.0),
            parameters={
                "text_encoder": _CLIP_L,
                "text_encoder_2": 694_659_840,
                "unet": 2_567_463_684,
                "vae": _VAE,
            },
            source="Podell et al., 2023, table 1: 2.6 B UNet, text encoders CLIP ViT-L and OpenCLIP ViT-bigG of 817 M",
            url="https://arxiv.org/abs/2307.01952",
            builder="simtti.workloads.models.sdxl:record_sdxl",
        ),
    )
}
ALIASES = {"stable-diffusion": "stable-diffusion-1.5"}
