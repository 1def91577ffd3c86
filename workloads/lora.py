"""Adapters of low rank that are not fused into the weights, as a pass over a trace.

    with_lora(trace, 16)

What peft's layer does in place of each attention projection (peft/tuners/lora/layer.py, Linear.forward):

    result = base_layer(x);  result = result + lora_B(lora_A(x)) * scaling

two products more, of rank columns and of rank inputs, a multiplication and a sum of the whole result, and three calls of modules. The
adapters have the layer's dtype, no dropout and no bias. Taken are the projections that diffusers' training scripts name (to_q,
to_k, to_v, to_out.0, and those of the text's stream). A fused adapter (pipe.fuse_lora()) changes no operator: leave --lora out.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from simtti.errors import InputError
from simtti.workloads.parallel.degrees import CONTROL
from simtti.workloads.rewriting import (
    Writer,
    let_go_after_last_use,
    renumbered,
    with_identities,
)
from simtti.workloads.trace import Operator, Phase, Step, TensorUse, Trace, row_major

TARGETS = (
    "to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out",
)  # fmt: skip


def with_lora(trace: Trace, rank: int) -> Trace:
    """`trace` with an adapter of that rank at each attention projection of its denoiser.

    Raises:
        InputError: a rank below 1, a measured trace, or a denoiser without attention projections by those names.
    """
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        raise InputError(f"lora is {rank!r}; it must be a rank, a whole number of at least 1")
    if trace.timing is not None:
        raise InputError(
            f"lora {rank} cannot be put into a measured trace of {trace.workload}; use timing model and a recorded one"
        )
    adapters = _Adapters(Writer(trace), rank)
    phases = tuple(
        Phase(phase.name, tuple(map(adapters.step, phase.steps))) if phase.name in trace.schedule else phase
        for phase in trace.phases
    )
    if not adapters.weights:
        raise InputError(
            f"lora {rank}: the denoiser of {trace.workload} has no attention projection named {', '.join(TARGETS[:4])}; leave "
            "--lora out"
        )
    parameters, nbytes = dict(trace.parameters), dict(trace.parameter_bytes)
    for module, pair in adapters.weights.items():
        component = module.partition(".")[0]
        for use in pair:
            if component in parameters:
                parameters[component] += use.numel
            if component in nbytes:
                nbytes[component] += use.storage_bytes
    return replace(
        trace, phases=phases, parameters=parameters, parameter_bytes=nbytes,
        options={**trace.options, "lora": rank},
    )  # fmt: skip


class _Adapters:
    """Adds adapters to steps. weights: A (rank x inputs) and B (outputs x rank) by module."""

    def __init__(self, writer: Writer, rank: int) -> None:
        self.writer, self.rank = writer, rank
        self.weights: dict[str, tuple[TensorUse, TensorUse]] = {}

    def step(self, step: Step) -> Step:
        """A step with adapters."""
        if not step.operators:
            return step
        found: list[Operator] = []
        renamed: dict[int, int] = {}
        for module, group in itertools.groupby(step.operators, key=lambda operator: operator.module):
            own = with_identities(group, renamed)
            if not _is_target(module):
                found += own
                continue
            result = own[-1].outputs[0]
            added, total = self._adapter(module, own, result)
            found += [*(replace(one, module=f"{module}.base_layer") for one in own), *added]
            renamed[result.tensor] = total
        told = any(operator.released for operator in step.operators)
        found = let_go_after_last_use(found) if told else [replace(one, released=()) for one in found]
        return Step(step.count, renumbered(found, step.operators[0].step))

    def _adapter(
        self, module: str, base: Sequence[Operator], result: TensorUse
    ) -> tuple[list[Operator], int]:
        """The operators after a layer's own, and the tensor that has its result then."""
        x = next(use for one in base for use in one.inputs if use.role not in ("parameter", "buffer"))
        down, up = self._weights(module, x, result)
        writer = self.writer
        writer.phase, writer.step = base[0].phase, base[0].step
        writer.module = f"{module}.lora_A"
        first, low = self._product(x, down)
        writer.module = f"{module}.lora_B"
        second, high = self._product(low, up)
        writer.module = module
        seen = replace(high, shape=result.shape, strides=row_major(result.shape))
        scaled, total = writer.like(seen), writer.like(seen)
        return [
            *first,
            *second,
            writer.call("mul", (seen,), (scaled,), released=(high, low)),
            writer.call("add", (result, scaled), (total,), released=(result, scaled)),
        ], total.tensor

    def _product(self, x: TensorUse, weight: TensorUse) -> tuple[list[Operator], TensorUse]:
        """x times a weight's transpose: of rows where x lies row after row, else of a batch, as torch.nn.functional.linear does."""
        outputs, inputs = weight.shape
        turned = replace(weight, shape=(inputs, outputs), strides=(1, inputs))
        transpose = self.writer.call("t", (weight,), (turned,))
        if x.contiguous or len(x.shape) != 3:
            rows = x.numel // inputs
            flat = replace(x, shape=(rows, inputs), strides=(inputs, 1))
            made = self.writer.made((rows, outputs), x.dtype)
            return [
                self.writer.call("view", (x,), (flat,)),
                transpose,
                self.writer.call("mm", (flat, turned), (made,)),
            ], made
        batch, rows, _ = x.shape
        wide = replace(turned, shape=(batch, inputs, outputs), strides=(0, 1, inputs))
        made = self.writer.made((batch, rows, outputs), x.dtype)
        return [
            transpose,
            self.writer.call("expand", (turned,), (wide,)),
            self.writer.call("bmm", (x, wide), (made,)),
        ], made

    def _weights(self, module: str, x: TensorUse, result: TensorUse) -> tuple[TensorUse, TensorUse]:
        if module not in self.weights:
            inputs, outputs = x.shape[-1], result.shape[-1]
            self.weights[module] = (
                self.writer.made((self.rank, inputs), x.dtype, "parameter"),
                self.writer.made((outputs, self.rank), x.dtype, "parameter"),
            )
        return self.weights[module]


def _is_target(module: str) -> bool:
    denoises = module.partition(".")[0] != CONTROL
    return denoises and any(module.endswith(f".{target}") for target in TARGETS)
