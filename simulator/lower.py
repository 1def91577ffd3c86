"""Lowering: from an operator of a trace to the kernels PyTorch launches for it on CUDA.

Kernels name their tensors by slot (the operator's inputs in order, then its outputs; negative for workspaces), so that
operators alike in shape, layout and attributes share their kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from simtti.errors import InputError
from simtti.hw_configs.hardware import Hardware
from simtti.simulator.fusion import NORMALIZATIONS, chains, fused_kernel
from simtti.simulator.kernel import Kernel
from simtti.simulator.operators import LOWERINGS, unknown_operator
from simtti.workloads.trace import Operator

ATTENTION = ("flash", "efficient", "baseline")
LAUNCH = ("eager", "graph", "compiled")


@dataclass(frozen=True, slots=True)
class Policy:
    """How operators become kernels.

    attention: 'flash' (the device's fused kernel), 'efficient' (xformers-style), 'baseline' (scores in HBM).
    launch: 'eager'; 'graph': the whole inference in CUDA graphs, so that the host costs nothing; 'compiled':
    torch.compile, which fuses elementwise chains and shortens the host's work (see `fusion`).
    """

    attention: str = "flash"
    launch: str = "eager"

    def __post_init__(self) -> None:
        for field, allowed in (("attention", ATTENTION), ("launch", LAUNCH)):
            if getattr(self, field) not in allowed:
                raise InputError(
                    f"{field} is {getattr(self, field)!r}; it must be one of {', '.join(allowed)}"
                )


@dataclass(frozen=True, slots=True)
class Lowered:
    """An operator's kernels.

    unknown: there is no kernel model for it; it is timed as a stream of its bytes.
    synchronizes: the host waits for it.
    """

    kernels: tuple[Kernel, ...]
    is_view: bool
    unknown: bool
    synchronizes: bool
    workspace_bytes: int
    tensor_of: Callable[[int], int]


@dataclass(frozen=True, slots=True)
class _Shared:
    kernels: tuple[Kernel, ...]
    unknown: bool
    workspace_bytes: int


class Lowering:
    """Lowers operators for one device and policy, each distinct shape once."""

    def __init__(self, hardware: Hardware, policy: Policy) -> None:
        self.hardware, self.policy = hardware, policy
        self._known: dict[object, _Shared] = {}

    def lower(self, operator: Operator) -> Lowered:
        """The kernels of `operator`, none if it is a view."""
        uses = (*operator.inputs, *operator.outputs)
        tensors = [use.tensor for use in uses]

        def tensor_of(slot: int) -> int:
            return tensors[slot] if slot >= 0 else slot

        if operator.is_view:
            return Lowered((), True, False, False, 0, tensor_of)
        key = (
            operator.op,
            str(operator.attributes),
            tuple((use.shape, use.strides, use.dtype) for use in uses),
        )
        shared = self._known.get(key)
        if shared is None:
            shared = self._known[key] = self._lower(operator)
        waits = bool(operator.attributes.get("synchronizes"))
        return Lowered(shared.kernels, False, shared.unknown, waits, shared.workspace_bytes, tensor_of)

    def lower_step(self, operators: Sequence[Operator]) -> list[Lowered]:
        """The kernels of a step's operators; where the policy fuses, a chain's kernel stands at its last operator."""
        lowered = [self.lower(operator) for operator in operators]
        if self.policy.launch != "compiled":
            return lowered
        for chain in chains(operators):
            if len(chain) == 1 and operators[chain[0]].category in NORMALIZATIONS:
                continue  # the library's kernel does not differ
            kernel = fused_kernel(operators, chain, self.hardware)
            for index in chain:
                lowered[index] = Lowered((), False, False, False, 0, _itself)
            if kernel is not None:
                lowered[chain[-1]] = Lowered((kernel,), False, False, False, 0, _itself)
        return lowered

    def _lower(self, operator: Operator) -> _Shared:
        lowering = LOWERINGS.get(operator.op)
        if operator.outputs and not any(use.numel for use in operator.outputs):
            return _Shared((), False, 0)  # an empty result launches nothing
        if lowering is not None and not operator.outputs and not _without_result(operator):
            lowering = None  # an imported operator whose result is not known
        kernels = (lowering or unknown_operator)(operator, self.hardware, self.policy.attention)
        # What one kernel writes and another reads back lives outside the operator's own tensors.
        workspaces: dict[int, float] = {}
        for kernel in kernels:
            for access in kernel.writes:
                if access.tensor < 0:
                    workspaces[access.tensor] = max(workspaces.get(access.tensor, 0.0), access.nbytes)
        return _Shared(tuple(kernels), lowering is None, int(sum(workspaces.values())))


def _itself(tensor: int) -> int:
    return tensor


def _without_result(operator: Operator) -> bool:
    """Whether it leaves nothing on the device by its nature: a copy to the host, a number read by it."""
    return bool(operator.attributes.get("transfer") or operator.attributes.get("synchronizes"))
