"""Runs one of diffusers' own pipelines on the meta device and records its phases.

What is recorded is the `__call__` that people run: its prompt encoding, its guidance, its sampler, its decoding.
Only what touches no GPU is replaced: tokenizers return token ids of the lengths asked for, and images arrive
preprocessed. Where a pipeline goes from one phase to the next is told by its progress bar, which it opens before
the first denoising step, updates after each and closes after the last.

Differences from a run on a GPU, all small:
- timesteps are made on the CPU and treated as if they were on the GPU (a copy of some 400 bytes);
- a prompt is shorter than the padded length its pipeline asks for, so that masks are built, and has
  PROMPT_TOKENS tokens where a pipeline counts them;
- one stored denoising step stands for all: the sampler's steady state, past the first steps of a multistep
  sampler, which have a few elementwise operators less.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch.fx.experimental import _config as fx_config
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from simtti.workloads.catalogue import Options
from simtti.workloads.models.latent_diffusion import (
    META,
    WARM_UP_STEPS,
    Recording,
    build,
    schedule_steps,
)
from simtti.workloads.recorder import Recorder
from simtti.workloads.trace import evaluations

# What a pipeline finds where it counts the tokens of a prompt.
PROMPT_TOKENS = 32


class Tensors(dict[str, torch.Tensor]):
    """What a tokenizer or an image processor returns: tensors by key and by attribute."""

    def __getattr__(self, name: str) -> torch.Tensor:
        return self[name]


class Tokenizer:
    """Token ids of as many prompts as given, padded to the length asked for: no operator depends on their values."""

    padding_side = "right"
    pad_token_id = 0

    def __init__(self, model_max_length: int = 77):
        self.model_max_length = model_max_length
        self.added_tokens_encoder: dict[str, int] = {}

    def __call__(self, text: Any, *, max_length: int | None = None, **_: Any) -> Tensors:
        shape = (1 if isinstance(text, str) else len(text), max_length or self.model_max_length)
        mask = torch.zeros(shape, dtype=torch.int64)
        mask[:, :PROMPT_TOKENS] = 1
        return Tensors(input_ids=torch.zeros(shape, dtype=torch.int64), attention_mask=mask)

    def tokenize(self, text: str) -> list[str]:
        """Asked for by pipelines that look for tokens added to the vocabulary: there are none."""
        return text.split()

    def encode(self, text: str) -> list[int]:
        """English prose has about four tokens for three words."""
        return [0] * round(len(text.split()) * 4 / 3)


class ImageProcessor:
    """Images resized and normalized for CLIP, as a processor on the host leaves them."""

    size = 224

    def __init__(self) -> None:
        self.crop_size = {"height": self.size, "width": self.size}

    def __call__(self, images: Any, **_: Any) -> Tensors:
        return Tensors(pixel_values=torch.zeros(len(images), 3, self.size, self.size))


def build_module(factory: Any, *args: Any, dtype: str, **kwargs: Any) -> Any:
    """A module as `from_pretrained` loads it in `dtype`: the parts its class keeps in fp32 are."""
    module = build(factory, *args, dtype=dtype, **kwargs)
    kept = set(module._keep_in_fp32_modules or ())
    # transformers keeps them so for fp16 only.
    if kept and dtype != "fp32" and (dtype == "fp16" or factory.__module__.startswith("diffusers")):
        for name, weight in module.named_parameters():
            if kept & set(name.split(".")):
                weight.data = weight.data.float()
    return module


class Prediction(tuple[torch.Tensor]):
    """What a model returns, by number and, whatever its name, by attribute."""

    def __getattr__(self, name: str) -> torch.Tensor:
        return self[0]


class Run:
    """One call of a pipeline, cut into phases.

    before: the phase up to the first denoising step; `denoising` the loop's; `after` what follows it. `domain` is
    what attention in the loop runs over, `before_domain` before it. channel_dim: where a latent's channels are.
    patches_stay_strided: see `_StridedPatches`.
    """

    def __init__(
        self,
        recording: Recording,
        options: Options,
        *,
        before: str = "text_encoder",
        before_domain: str = "text",
        denoising: str = "denoising",
        after: str = "decoder",
        domain: str = "spatial",
        channel_dim: int = 1,
        steps: int | None = None,
        patches_stay_strided: bool = False,
    ):
        self.recording = recording
        self.recorder = recording.recorder
        self.options = options
        self.before, self.denoising, self.after = before, denoising, after
        self.domain, self.before_domain = domain, before_domain
        self.channel_dim = channel_dim
        self.steps = steps or options.steps or 1
        self.patches_stay_strided = patches_stay_strided
        # What a pipeline that reads a truth value from the GPU finds there.
        self.reads_true = False
        self.count = 1
        self._turns: Iterator[AbstractContextManager[None]] = iter(())
        self._open: ExitStack | None = None
        self._at: tuple[str, str] = ("", "")
        self._iteration: int | None = None

    def __call__(self, pipeline: Any, denoiser: Any, **arguments: Any) -> Any:
        """Call the pipeline, whose model in the loop is `denoiser`, with what it is asked for."""
        self._steer_scheduler(pipeline.scheduler)
        self._steer_denoiser(denoiser)
        pipeline.progress_bar = self._progress_bar
        read_values = _ReadValues({torch.bool: self.reads_true, torch.int64: PROMPT_TOKENS})
        # A mask as an index selects as much as it can.
        selected = fx_config.patch(meta_nonzero_assume_all_nonzero=True)
        with torch.no_grad(), read_values, selected, _HostCopies(self.recorder):
            try:
                self.enter(self.before, domain=self.before_domain)
                steps = schedule_steps(self.recorder.runs(self.steps))
                return pipeline(num_inference_steps=steps, **arguments)
            finally:
                self.leave()

    # ---- phases

    def enter(self, phase: str, *, domain: str, step: AbstractContextManager[None] | None = None) -> None:
        """Go on in a new step of `phase`; `step`: in this one."""
        self.leave()
        self._begin(phase, domain, step or self.recorder.step(phase, domain=domain))
        self.recorder.enter_scope("pipeline")

    def _cut(self, again: int | None = None) -> None:
        """End the step and go on in a new one of the same phase, wherever in the model that is.

        again: the number of a step that is done again between the two.
        """
        phase, domain = self._at
        self.leave()
        if again is not None:
            self.recorder.repeat(phase, again)
        self._begin(phase, domain, self.recorder.step(phase, domain=domain, continued=True))

    def _begin(self, phase: str, domain: str, step: AbstractContextManager[None]) -> None:
        self._at = (phase, domain)
        self._open = ExitStack()
        self._open.enter_context(step)

    def leave(self) -> None:
        """End the step, if one is being recorded."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def split(self, owner: Any, method: str, phase: str, *, domain: str = "spatial") -> None:
        """A phase of its own from the first call of a pipeline's method on."""
        original = getattr(owner, method)

        @functools.wraps(original)
        def switched(*args: Any, **kwargs: Any) -> Any:
            if self._at[0] != phase:
                self.enter(phase, domain=domain)
            return original(*args, **kwargs)

        setattr(owner, method, switched)

    def repeat_tiles(self, vae: Any) -> None:
        """What a VAE does again and again: decode a tile or a few frames, blend a tile with the next."""
        self.repeat(vae.decoder, "forward")
        for method in ("blend_v", "blend_h", "blend_t"):
            if hasattr(vae, method):
                self.repeat(vae, method)

    def repeat(self, module: Any, method: str) -> None:
        """Record each different call of a method once, in a step of its own, and count the others.

        Calls with operands of the same shapes are the same work. A later call returns what the first did, and
        leaves lists (caches) as the first left them. Where calls alternate, their order is not kept, unless every
        step is wanted.
        """
        original = getattr(module, method)
        seen: dict[Any, tuple[int, Any, list[Any]]] = {}

        @functools.wraps(original)
        def once(*args: Any, **kwargs: Any) -> Any:
            key = (self._at[0], _signature((args, kwargs)))
            lists = [value for value in (*args, *kwargs.values()) if isinstance(value, list)]
            if key in seen and not self.recorder.reruns:
                number, result, states = seen[key]
                if self.recorder.all_steps:
                    self._cut(again=number)
                else:
                    self.recorder.repeat(self._at[0], number)
                for found, state in zip(lists, states, strict=True):
                    found[:] = state
                return result
            self._cut()
            number = self.recorder.steps(self._at[0])
            result = original(*args, **kwargs)
            seen[key] = (number, result, [list(found) for found in lists])
            self._cut()
            return result

        setattr(module, method, once)

    # ---- what the pipeline meets

    def _steer_scheduler(self, scheduler: Any) -> None:
        """The pipeline sees the first timesteps of its schedule only, the scheduler all of them."""
        set_timesteps = scheduler.set_timesteps
        all_timesteps: list[torch.Tensor] = []

        @functools.wraps(set_timesteps)
        def shortened(*args: Any, **kwargs: Any) -> None:
            kwargs.pop("device", None)
            with self.recorder.paused():
                set_timesteps(*args, **kwargs)
            scheduler.timesteps = self.recorder.on_device(scheduler.timesteps)
            all_timesteps[:] = [scheduler.timesteps]
            extra = len(scheduler.timesteps) - schedule_steps(self.recorder.runs(self.steps))
            if self.denoising == "denoising":
                self.recording.schedule["denoising"] = extra
            self.count = evaluations(self.steps, extra)
            scheduler.timesteps = scheduler.timesteps[: WARM_UP_STEPS + self.recorder.runs(self.count)]
            if hasattr(scheduler, "set_begin_index"):
                scheduler.set_begin_index(0)

        def whole(method: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(method)
            def called(*args: Any, **kwargs: Any) -> Any:
                seen, scheduler.timesteps = scheduler.timesteps, all_timesteps[0]
                try:
                    with self.recorder.scope("scheduler"):
                        return method(*args, **kwargs)
                finally:
                    scheduler.timesteps = seen

            return called

        scheduler.set_timesteps = shortened
        scheduler.step = whole(scheduler.step)
        if hasattr(scheduler, "scale_model_input"):
            scheduler.scale_model_input = whole(scheduler.scale_model_input)

    def _steer_denoiser(self, denoiser: Any) -> None:
        """Before the iterations that are recorded, return an empty tensor of the right shape."""
        forward = denoiser.forward

        @functools.wraps(forward)
        def called(*args: Any, **kwargs: Any) -> Any:
            if self._open is None:
                sample = args[0] if args else kwargs.get("sample", kwargs.get("hidden_states"))
                return Prediction([self._empty_prediction(denoiser, sample)])
            with _StridedPatches() if self.patches_stay_strided else nullcontext():
                return forward(
                    *map(_on_meta, args), **{name: _on_meta(value) for name, value in kwargs.items()}
                )

        denoiser.forward = called

    def _empty_prediction(self, denoiser: Any, sample: Any) -> torch.Tensor:
        shape = list(sample.shape)
        out_channels = getattr(denoiser.config, "out_channels", None) or getattr(
            denoiser, "out_channels", None
        )
        if out_channels and shape[self.channel_dim] == denoiser.config.in_channels:
            shape[self.channel_dim] = out_channels
        return torch.empty(shape, dtype=sample.dtype, device=sample.device)

    def _progress_bar(self, iterable: Any = None, total: Any = None) -> Any:
        return self._iterate(iterable) if iterable is not None else self._loop()

    @contextmanager
    def _loop(self) -> Iterator[Any]:
        self.leave()
        self._iteration = 0
        yield self
        self._iteration = None

    def update(self) -> None:
        """One denoising step is done."""
        assert self._iteration is not None
        self._iteration += 1
        if self._iteration < WARM_UP_STEPS:
            return
        if self._iteration == WARM_UP_STEPS:
            self._turns = self.recorder.times(self.denoising, domain=self.domain, count=self.count)
        self.leave()
        step = next(self._turns, None)
        if step is not None:
            self.enter(self.denoising, domain=self.domain, step=step)
        else:  # the last: some pipelines decode before they close the bar
            self.enter(self.after, domain="spatial")

    def _iterate(self, timesteps: Any) -> Iterator[Any]:
        with self._loop():
            for timestep in timesteps:
                yield timestep
                self.update()


class _HostCopies(TorchFunctionMode):
    """Records `tensor.cpu()`, which a meta tensor cannot do, and returns a tensor of as many dimensions."""

    def __init__(self, recorder: Recorder):
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.cpu and args[0].device.type == "meta":
            self.recorder.copy_to_host(args[0])
            with self.recorder.paused():
                return torch.zeros([1] * args[0].dim())
        return func(*args, **(kwargs or {}))


class _StridedPatches(TorchFunctionMode):
    """Leaves image tokens as the patch embedding's convolution lays them out: channel by channel.

    `conv(x).flatten(2).transpose(1, 2)` has shape (batch, tokens, channels) and strides (tokens * channels, 1,
    tokens), and so has every sum that it is the first operand of: in a transformer that adds `hidden_states +
    attention`, the residual stream of all blocks. LayerNorm copies it each time, and each sum mixes two layouts.
    Published runs did so (Wan 2.1's operators on an H100, in AMD-AGI/TraceLens, show those strides); recent versions
    of diffusers call contiguous() before the first block, which is left out here.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.contiguous and args[0].dim() == 3 and args[0].mT.is_contiguous():
            return args[0]
        return func(*args, **(kwargs or {}))


class _ReadValues(TorchDispatchMode):
    """Answers `tensor.item()` by dtype, since meta tensors have no values: 0 for those not named."""

    def __init__(self, values: dict[torch.dtype, Any]):
        super().__init__()
        self.values = values

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and args[0].device.type == "meta":
            return self.values.get(args[0].dtype, 0)
        return func(*args, **(kwargs or {}))


def _on_meta(value: Any) -> Any:
    """A timestep for each image joins the other operands; the recorder knows it to be there already."""
    if isinstance(value, torch.Tensor) and value.device.type == "cpu" and value.dim() > 0:
        return value.to(META)
    return value


def _signature(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return tuple(value.shape), value.stride(), value.dtype
    if isinstance(value, (list, tuple)):
        return tuple(_signature(item) for item in value)
    if isinstance(value, dict):
        return tuple((name, _signature(item)) for name, item in value.items())
    return value


def prompts(options: Options) -> list[str]:
    """A prompt for each image."""
    return ["a photo"] * options.batch


def image(options: Options) -> torch.Tensor:
    """The pictures that videos start from, as the host has them: (batch, 3, height, width)."""
    assert options.height is not None
    assert options.width is not None
    return torch.zeros(options.batch, 3, options.height, options.width)
