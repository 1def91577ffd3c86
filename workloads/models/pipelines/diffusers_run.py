"""Runs one of diffusers' own pipelines, cut into phases and steps.

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

On the meta device two of torch's modes answer for values that are not there. On a real one no mode of ours stands between
the pipeline and torch.
"""

import functools
import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch.fx.experimental import _config as fx_config

from simtti.workloads.models.pipelines.forms import form, made_again, operands
from simtti.workloads.models.pipelines.inputs import PROMPT_TOKENS, image
from simtti.workloads.models.pipelines.latent_diffusion import WARM_UP_STEPS, schedule_steps, set_decoding
from simtti.workloads.models.pipelines.meta_values import HostCopies, ReadValues, no_autocast
from simtti.workloads.recording import Recording
from simtti.workloads.trace import evaluations
from simtti.workloads.workload import Options


class Prediction(tuple[torch.Tensor]):
    """What a model returns, by number and, whatever its name, by attribute."""

    def __getattr__(self, name: str) -> torch.Tensor:
        return self[0]


class Run:
    """One call of a pipeline, cut into phases.

    before: the phase up to the first denoising step; `denoising` the loop's; `after` what follows it. `domain` is
    what attention in the loop runs over, `before_domain` before it. channel_dim: where a latent's channels are; None
    where the model returns as many as it is given, whatever its configuration says.
    beside: the keyword of what the model denoises beside the first, of which it returns as much.
    strided_patches: the model's patch embedding and the module that it calls next, by name: see `_keep_patches_strided`.
    turns: where several models take turns in the loop, how many of so many evaluations each has (`Workload.turns`).
    rounds: how often the pipeline goes through its loop, at the same cost each time: where one step stands for many, it stands for those
    of all rounds.
    ends: how many timesteps at the end of a schedule the pipeline takes off before it begins.
    looks_first: what the model returns is not known: it is run once before the steps, to see.
    noise_levels_there: the pipeline computes with the noise levels of a whole batch: on the meta device they lie there too, without
    values, and not on the host.
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
        channel_dim: int | None = 1,
        steps: int | None = None,
        beside: str | None = None,
        strided_patches: tuple[str, str] | None = None,
        turns: Callable[[int], tuple[int, ...]] | None = None,
        rounds: int = 1,
        ends: int = 0,
        noise_levels_there: bool = False,
        looks_first: bool = False,
    ):
        self.recording = recording
        self.options = options
        self.before, self.denoising, self.after = before, denoising, after
        self.domain, self.before_domain = domain, before_domain
        self.channel_dim = channel_dim
        self.steps = steps or options.steps or 1
        self.beside = beside
        self.strided_patches = strided_patches
        # What a pipeline that reads a truth value from the GPU finds there.
        self.reads_true = False
        # And what it finds in other numbers, by dtype.
        self.reads: dict[torch.dtype, Any] = {}
        # How many tokens a pipeline keeps of a prompt that it masks; None: as many as there are.
        self.kept_tokens: int | None = None
        # Among how many experts a mixture divides its tokens, which it counts on the GPU: evenly, where nothing is known of them.
        self.experts = 0
        self.rounds = rounds
        self.ends = ends
        self.noise_levels_there = noise_levels_there
        self.looks_first = looks_first
        self.counts: tuple[int, ...] = (1,)
        self._shares = turns or (lambda count: (count,))
        self._turns: Iterator[AbstractContextManager[None]] = iter(())
        self._open: ExitStack | None = None
        self._at: tuple[str, str] = ("", "")
        self._iteration: int | None = None
        self._rounds_done = 0

    def __call__(self, pipeline: Any, denoiser: Any, *others: Any, **arguments: Any) -> Any:
        """Call the pipeline, whose model in the loop is `denoiser` (and then `others`), with what it is asked for."""
        self._steer_scheduler(pipeline.scheduler)
        for model in (denoiser, *others):
            self._steer_denoiser(model)
        pipeline.progress_bar = self._progress_bar
        with torch.no_grad(), self._without_values():
            try:
                self.enter(self.before, domain=self.before_domain)
                steps = schedule_steps(self.recording.runs(self.steps))
                return pipeline(num_inference_steps=steps, **arguments)
            finally:
                self.leave()

    def from_image(self, pipeline: Any) -> dict[str, Any]:
        """What an image-to-image pipeline is called with besides; its VAE's encoding is then a phase of its own.

        The steps that it leaves out are left out of the steps asked for: it is called to run all that there are.
        """
        if self.options.strength is None:
            return {}
        self.split(pipeline.vae, "encode", "image_encoder")
        return {"image": image(self.options), "strength": 1.0}

    @contextmanager
    def _without_values(self) -> Iterator[None]:
        """On the meta device, what the pipeline reads from the GPU."""
        if self.recording.device.type != "meta":
            yield
            return
        values = {torch.bool: self.reads_true, torch.int64: PROMPT_TOKENS, **self.reads}
        read_values = ReadValues(values, self.kept_tokens, self.experts)
        host_copies = HostCopies(self.recording, self.kept_tokens, read_values.counts)
        # A mask as an index selects as much as it can.
        selected = fx_config.patch(meta_nonzero_assume_all_nonzero=True)
        with no_autocast(), read_values, selected, host_copies:
            yield

    # ---- phases

    def enter(self, phase: str, *, domain: str, step: AbstractContextManager[None] | None = None) -> None:
        """Go on in a new step of `phase`; `step`: in this one."""
        self.leave()
        self._begin(phase, domain, step or self.recording.step(phase, domain=domain))
        self.recording.enter_scope("pipeline")

    @contextmanager
    def phase(self, phase: str, *, domain: str) -> Iterator[None]:
        """The body is a phase."""
        self.enter(phase, domain=domain)
        try:
            yield
        finally:
            self.leave()

    def _cut(self, again: int | None = None) -> None:
        """End the step and go on in a new one of the same phase, wherever in the model that is.

        again: the number of a step that is done again between the two.
        """
        phase, domain = self._at
        self.leave()
        if again is not None:
            self.recording.repeat(phase, again)
        self._begin(phase, domain, self.recording.step(phase, domain=domain, continued=True))

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

    def decode_with(self, vae: Any, own: str = "whole", *, repeats: bool = False) -> None:
        """Have a VAE decode as the options ask for.

        own: how the pipeline is mostly run, of workload.VAE_MODES. repeats: it calls its decoder again and again however it decodes.
        """
        mode = self.options.vae or own
        set_decoding(vae, mode)
        if repeats or mode != "whole":
            self.repeat_tiles(vae)

    def repeat_tiles(self, vae: Any) -> None:
        """What a VAE does again and again: decode a tile or a few frames, blend a tile with the next."""
        self.repeat(vae.decoder, "forward")
        for method in ("blend_v", "blend_h", "blend_t"):
            if hasattr(vae, method):
                self.repeat(vae, method)

    def repeat(self, module: Any, method: str) -> None:
        """Record each different call of a method once, in a step of its own, and count the others.

        Calls with operands of the same shapes are the same work. A later call returns what the first did, and leaves lists (caches)
        as the first left them. Of a result with caches in it (CogVideoX, Mochi) only the form is kept, so that each call's are let go of
        when the pipeline does; what lists held is kept, in our captures too, which peak memory is held against. Where calls
        alternate, their order is not kept, unless every step is wanted.
        """
        original = getattr(module, method)
        seen: dict[Any, tuple[int, Any, list[Any]]] = {}

        @functools.wraps(original)
        def once(*args: Any, **kwargs: Any) -> Any:
            key = (self._at[0], _signature((args, kwargs)))
            lists = [value for value in (*args, *kwargs.values()) if isinstance(value, list)]
            given = operands(args, kwargs)
            if key in seen and not self.recording.reruns:
                number, result, states = seen[key]
                if self.recording.all_steps:
                    self._cut(again=number)
                else:
                    self.recording.repeat(self._at[0], number)
                for found, state in zip(lists, states, strict=True):
                    found[:] = state
                return made_again(result, given, self.recording)
            self._cut()
            number = self.recording.steps(self._at[0])
            result = original(*args, **kwargs)
            kept = result if isinstance(result, torch.Tensor) else form(result, given)
            seen[key] = (number, kept, [list(found) for found in lists])
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
            with self.recording.paused():
                set_timesteps(*args, **kwargs)
            if self.noise_levels_there:
                for name in {"timesteps", "sigmas"} & vars(scheduler).keys():
                    setattr(scheduler, name, getattr(scheduler, name).to(self.recording.device))
            scheduler.timesteps = self.recording.on_device(scheduler.timesteps)
            all_timesteps[:] = [scheduler.timesteps]
            extra = len(scheduler.timesteps) - self.ends - schedule_steps(self.recording.runs(self.steps))
            if self.denoising == "denoising":
                self.recording.schedule["denoising"] = extra
            self.counts = self._shares(evaluations(self.steps, extra))
            scheduler.timesteps = self._seen(scheduler.timesteps)
            if hasattr(scheduler, "set_begin_index"):
                scheduler.set_begin_index(0)

        def whole(method: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(method)
            def called(*args: Any, **kwargs: Any) -> Any:
                seen, scheduler.timesteps = scheduler.timesteps, all_timesteps[0]
                try:
                    with self.recording.scope("scheduler"):
                        return method(*args, **kwargs)
                finally:
                    scheduler.timesteps = seen

            return called

        def copied(_: Any) -> Any:
            """Where a pipeline copies its scheduler, to sample something else beside: what was put here is the first's."""
            other = type(scheduler).from_config(scheduler.config)
            self._steer_scheduler(other)
            return other

        scheduler.__deepcopy__ = copied
        scheduler.set_timesteps = shortened
        scheduler.step = whole(scheduler.step)
        if hasattr(scheduler, "scale_model_input"):
            scheduler.scale_model_input = whole(scheduler.scale_model_input)

    def _seen(self, timesteps: torch.Tensor) -> torch.Tensor:
        """The first of a schedule's timesteps; where a second model takes its turn, then those near its end."""
        if self._stands_for_this():
            return timesteps[: WARM_UP_STEPS + self.ends]
        first, *others = (self.recording.runs(count) for count in self.counts)
        if not others:
            return timesteps[: WARM_UP_STEPS + first + self.ends]
        # Samplers count their steps; by its timestep a pipeline chooses the model.
        high, low = timesteps[WARM_UP_STEPS], timesteps[-WARM_UP_STEPS]
        seen = [timesteps[:WARM_UP_STEPS], high.repeat(first), *(low.repeat(runs) for runs in others)]
        with self.recording.paused():
            return self.recording.on_device(torch.cat(seen))

    def _stands_for_this(self) -> bool:
        """Whether this round's steps were counted with those of the first."""
        return self._rounds_done > 0 and not self.recording.reruns

    def _steer_denoiser(self, denoiser: Any) -> None:
        """Before the iterations that are steps, return noise of the right shape."""
        self.recording.denoise_with(denoiser)
        forward = denoiser.forward
        returned: dict[Any, Any] = {}
        if self.strided_patches is not None:
            _keep_patches_strided(*(getattr(denoiser, name) for name in self.strided_patches))

        def run(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            there = {name: self._on_device(value) for name, value in kwargs.items()}
            return forward(*map(self._on_device, args), **there)

        @functools.wraps(forward)
        def called(*args: Any, **kwargs: Any) -> Any:
            if self._open is None:
                sample = args[0] if args else kwargs.get("sample", kwargs.get("hidden_states"))
                if not self.looks_first:
                    beside = [torch.randn_like(kwargs[self.beside])] if self.beside else []
                    return Prediction([self._noise_prediction(denoiser, sample), *beside])
                if (key := _signature((args, kwargs))) not in returned:
                    returned[key] = run(args, kwargs)
                return returned[key]
            return run(args, kwargs)

        denoiser.forward = called

    def _noise_prediction(self, denoiser: Any, sample: Any) -> torch.Tensor:
        if isinstance(sample, list):  # one tensor an image
            sample = torch.stack(sample)
        shape = list(sample.shape)
        out_channels = getattr(denoiser.config, "out_channels", None) or getattr(
            denoiser, "out_channels", None
        )
        dim = self.channel_dim
        if dim is not None and out_channels and shape[dim] == denoiser.config.in_channels:
            shape[dim] = out_channels
        return torch.randn(shape, dtype=sample.dtype, device=sample.device)

    def _on_device(self, value: Any) -> Any:
        """A timestep for each image joins the other operands; a recorder knows it to be there already."""
        if isinstance(value, torch.Tensor) and value.device.type == "cpu" and value.dim() > 0:
            return value.to(self.recording.device)
        return value

    def _progress_bar(self, iterable: Any = None, total: Any = None) -> Any:
        return self._iterate(iterable) if iterable is not None else self._loop()

    @contextmanager
    def _loop(self) -> Iterator[Any]:
        self.leave()
        self._iteration = 0
        yield self
        self._iteration = None
        self._rounds_done += 1

    def update(self) -> None:
        """One denoising step is done."""
        assert self._iteration is not None
        self._iteration += 1
        if self._iteration < WARM_UP_STEPS:
            return
        if self._iteration == WARM_UP_STEPS:
            counts = () if self._stands_for_this() else self.counts
            rounds = 1 if self.recording.reruns else self.rounds
            self._turns = itertools.chain.from_iterable(
                self.recording.times(self.denoising, domain=self.domain, count=rounds * count)
                for count in counts
            )
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


def _keep_patches_strided(embedding: torch.nn.Module, following: torch.nn.Module) -> None:
    """Leave image tokens as the patch embedding's convolution lays them out: channel by channel.

    `conv(x).flatten(2).transpose(1, 2)` has shape (batch, tokens, channels) and strides (tokens * channels, 1,
    tokens), and so has every sum that it is the first operand of: in a transformer that adds `hidden_states +
    attention`, the residual stream of all blocks. LayerNorm copies it each time, and each sum mixes two layouts.
    Published runs did so (Wan 2.1's operators on an H100, in AMD-AGI/TraceLens, show those strides); recent versions
    of diffusers call contiguous() before the first block, which is left out here: from the end of each call of the patch
    embedding to the start of the module that comes next, torch's own method is another. A mode would slow every call.
    """

    def begin(*_: Any) -> None:
        torch.Tensor.contiguous = _contiguous

    def end(*_: Any) -> None:
        if "contiguous" in vars(torch.Tensor):
            del torch.Tensor.contiguous  # what it inherits is there again

    embedding.register_forward_hook(begin)
    following.register_forward_pre_hook(end)


def _contiguous(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """Tensor.contiguous, but for image tokens that lie channel by channel."""
    if tensor.dim() == 3 and tensor.mT.is_contiguous():
        return tensor
    return torch._C.TensorBase.contiguous(tensor, *args, **kwargs)


def _signature(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return tuple(value.shape), value.stride(), value.dtype
    if isinstance(value, (list, tuple)):
        return tuple(_signature(item) for item in value)
    if isinstance(value, dict):
        return tuple((name, _signature(item)) for name, item in value.items())
    return value
