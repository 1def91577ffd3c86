"""What the builder of a workload is given: where its models run, and what keeps the steps that they do.

    def record_toy(options, recording):
        network = recording.add("network", torch.nn.Linear, 64, 64, dtype=options.dtype)
        with recording.step("denoising", domain="spatial", count=options.steps):
            network(torch.empty(options.batch, 64, device=recording.device))

There are two kinds: a `Recorder` writes down what is done on torch's meta device, a `DeviceRun` does it on a real one and
is watched. A builder does the same for both. Importable without torch, so that the catalogue is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, TypeVar

from simtti.workloads.trace import Phase, Step

_T = TypeVar("_T")


class Recording(ABC):
    """Phases and their steps, and the models that do them.

    device: where models, and the tensors that a builder makes, have to be.
    all_steps: what is done again and again is a step each time, instead of one step with its count.
    reruns: and is run each time. A recording need not: the later steps are what the first was.
    schedule: by phase, how many evaluations it does beyond the option `steps`; a builder fills it (see `Trace`).
    counts_padding: whether attention says how many keys its mask hides (padding.py): where the prompt is somebody's own, or the
    workload stands for code that leaves padding out.
    notes: what else the trace's provenance says; `mask`: what simulator.policy does of masks where nobody says.
    parameters, parameter_bytes: weights by component as they were when added.
    libraries: by component the package that its class is of: what a call of a module costs the host depends on it.
    """

    def __init__(self, device: str, *, all_steps: bool = False, reruns: bool = False) -> None:
        import torch

        self.device = torch.device(device)
        self.all_steps, self.reruns = all_steps, reruns
        self.schedule: dict[str, int] = {}
        self.notes: dict[str, str] = {}
        self.counts_padding = False
        self.parameters: dict[str, int] = {}
        self.libraries: dict[str, str] = {}
        self.parameter_bytes: dict[str, int] = {}
        self._phases: dict[str, list[Step]] = {}

    # ---- models

    def add(self, name: str, factory: Any, /, *args: Any, dtype: str, **kwargs: Any) -> Any:
        """A component of the pipeline, made by `build` and known under `name`, which its operators' modules begin with."""
        module = self.build(factory, *args, dtype=dtype, **kwargs)
        self.adopt(name, module)
        return module

    def adopt(self, name: str, module: Any) -> None:
        """Take a module that is there already as the component `name`."""
        weights = list(module.parameters())
        self.parameters[name] = sum(weight.numel() for weight in weights)
        self.parameter_bytes[name] = sum(weight.nbytes for weight in weights)
        self.libraries[name] = type(module).__module__.partition(".")[0]
        self.register(name, module)

    def build(self, factory: Any, /, *args: Any, dtype: str, **kwargs: Any) -> Any:
        """A module on the device, of random weights, as `from_pretrained` loads it in `dtype`, ready for inference.

        The parts that its class keeps in fp32 are. Buffers that are not part of the weights (tables of sines, say) keep
        the dtype they are made in.
        """
        from simtti.workloads.torch_calls import TORCH_DTYPES

        with self.device:
            module = factory(*args, **kwargs)
        made_in = {
            name: buffer.dtype
            for part_name, part in module.named_modules()
            for name, buffer in part.named_buffers(part_name, recurse=False)
            if name.rpartition(".")[2] in part._non_persistent_buffers_set
        }
        # Parameters made by torch.Tensor() ignore the default device.
        module = module.to(self.device, TORCH_DTYPES[dtype]).eval().requires_grad_(False)
        for name, buffer in module.named_buffers():
            if buffer.dtype != made_in.get(name, buffer.dtype):
                buffer.data = buffer.data.to(made_in[name])
        kept = set(getattr(module, "_keep_in_fp32_modules", None) or ())
        # transformers keeps them so for fp16 only.
        if kept and (
            dtype == "fp16" or (dtype == "bf16" and type(module).__module__.startswith("diffusers"))
        ):
            for name, weight in module.named_parameters():
                if kept & set(name.split(".")):
                    weight.data = weight.data.float()
        return module

    @abstractmethod
    def register(self, name: str, module: Any) -> None:
        """Get to know a component."""

    def denoise_with(self, model: Any) -> None:  # noqa: B027 (a recording has nothing to do with it)
        """Get to know the model in the denoising loop, before it is first called."""

    # ---- steps

    @abstractmethod
    def step(
        self, phase: str, *, domain: str, count: int = 1, continued: bool = False
    ) -> AbstractContextManager[None]:
        """The body is the next step of `phase`, done `count` times; `domain` is what its attention runs over.

        Domains: 'spatial', 'temporal', 'text', 'joint'. Modules known to attend along time say so themselves.
        continued: within the modules and scopes in which the last step ended.
        """

    def times(self, phase: str, *, domain: str, count: int) -> Iterator[AbstractContextManager[None]]:
        """The next step of `phase`, which is done `count` times: a step() for each time that its body is to be run.

        The loop over them must come to its end.
        """
        number, runs = self.steps(phase), self.runs(count)
        for _ in range(runs):
            yield self.step(phase, domain=domain, count=1 if self.all_steps else count)
        for _ in range(runs, count if self.all_steps else runs):
            self.repeat(phase, number)

    def runs(self, count: int) -> int:
        """How often what is done `count` times is to be run."""
        return count if self.reruns else 1

    def representatives(self, groups: Iterable[Sequence[_T]]) -> list[tuple[_T, int]]:
        """Of each group, whose members' steps are alike, the middle one and how many there are: the count of its step.

        Where every step is wanted, each member on its own.
        """
        if self.all_steps:
            return [(member, 1) for group in groups for member in group]
        return [(group[(len(group) - 1) // 2], len(group)) for group in groups]

    def steps(self, phase: str) -> int:
        """How many steps of `phase` are complete: the number of the one under way."""
        return len(self._phases.get(phase, ()))

    def repeat(self, phase: str, number: int) -> None:
        """What a step did is done again: count it once more, or, where every step is wanted, have it once more."""
        steps = self._phases[phase]
        count, operators = steps[number].count, steps[number].operators
        if self.all_steps:
            steps.append(Step(1, tuple(replace(operator, step=len(steps)) for operator in operators)))
        else:
            steps[number] = Step(count + 1, operators)

    def phases(self) -> tuple[Phase, ...]:
        """What was done, in the order in which phases began."""
        return tuple(Phase(name, tuple(steps)) for name, steps in self._phases.items())

    # ---- within a step

    @abstractmethod
    def scope(self, name: str) -> AbstractContextManager[None]:
        """The module path of operators that no module issues: 'pipeline', 'scheduler'."""

    @abstractmethod
    def enter_scope(self, name: str) -> None:
        """A scope that lasts to the end of the step."""

    @abstractmethod
    def paused(self) -> AbstractContextManager[None]:
        """Leave out what the body does: work that is not the inference's."""

    @abstractmethod
    def on_device(self, tensor: Any) -> Any:
        """A CPU tensor as the pipeline keeps it: on the device."""

    def made(self, shape: Sequence[int], strides: Sequence[int], dtype: Any) -> Any:
        """A tensor that something which was done before, and is not done again, would have made."""
        import torch

        with self.paused():
            return torch.empty_strided(tuple(shape), tuple(strides), dtype=dtype, device=self.device)

    @abstractmethod
    def copy_to_host(self, tensor: Any) -> None:
        """`tensor.cpu()`, for a result."""
