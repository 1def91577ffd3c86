"""Records what a PyTorch model does as a trace, on the `meta` device: shapes without memory or arithmetic.

    recorder = Recorder()
    recorder.register("unet", unet)
    with recorder.step("denoising", count=50, domain="spatial"):
        unet(latents, timestep, text)
    recorder.phases()

Two of torch's modes do the work. A dispatch mode sees every aten call, below autograd and below the composite
operators, as a CUDA run would issue it. Scaled-dot-product attention is caught a level higher, in a function
mode, because on `meta` torch would decompose it into the matrix products that a GPU's fused kernel replaces.
"""

import math
import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch._prims_common import suggest_memory_format
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from simtti.workloads.aten import ATTENTION, OPERATORS
from simtti.workloads.attention_stand_ins import stood_in_for
from simtti.workloads.kineto_custom import recognised
from simtti.workloads.padding import Padding
from simtti.workloads.recording import Recording
from simtti.workloads.torch_calls import Signature, bind, dtype_name, signature, tensors
from simtti.workloads.trace import Operator, Phase, Step, TensorUse

# Modules of video models that attend along time, in the diffusers naming.
_TEMPORAL = ("temporal", "temp_attentions", "motion_modules", "transformer_in")


class Recorder(Recording):
    """Collects operators into phases and steps. Tensor identities are numbered as they are met, from 0."""

    def __init__(self, *, all_steps: bool = False) -> None:
        super().__init__("meta", all_steps=all_steps)
        self._operators: list[Operator] | None = None
        self._phase = ""
        self._domain = ""
        self._paused = False
        self._names: dict[int, str] = {}
        self._stack: list[tuple[str, Any]] = []
        self._ended_in: list[tuple[str, Any]] = []
        self._registered: list[torch.nn.Module] = []
        # By the address of the StorageImpl, which torch's weak reference keeps from being given out again. Python's tells when the last
        # tensor is gone (torch keeps a storage's object in Python as long as the storage): references decide, as they do on a GPU.
        self._identities: dict[int, int] = {}
        self._storages: list[Any] = []
        self._alive: dict[int, Any] = {}
        self._gone: list[int] = []
        self._twice: set[int] = set()  # identities that two storages have
        self._last: Operator | None = None
        self._stored_as: dict[int, str] = {}
        self._roles: dict[int, str] = {}
        self._on_device: set[int] = set()
        self._uses: dict[tuple[Any, ...], TensorUse] = {}
        self._padding = Padding()

    # ---- what a caller sees

    def register(self, name: str, module: torch.nn.Module) -> None:
        """Name a model's modules ('unet.mid_block.attentions.0') and know its weights from activations."""
        self._registered.append(module)
        for path, child in module.named_modules():
            self._names[id(child)] = f"{name}.{path}" if path else name
        for role, stored in (("parameter", module.parameters()), ("buffer", module.buffers())):
            for tensor in stored:
                self._stored_as[self._address(tensor)] = role

    def on_device(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor itself, treated, like what is computed from it, as if the pipeline kept it on the GPU.

        For values that steer the host, such as a scheduler's timesteps: they must really exist, and on a GPU
        reading them costs a copy and a wait, recorded as aten::_local_scalar_dense.
        """
        self._on_device.add(self._address(tensor))
        return tensor

    def made(self, shape: Sequence[int], strides: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        tensor = super().made(shape, strides, dtype)
        self._identity(tensor, "activation")
        return tensor

    def copy_to_host(self, tensor: torch.Tensor) -> None:
        """Record `tensor.cpu()`, which a meta tensor cannot do."""
        if self._paused:
            return
        attributes = {"dtype": dtype_name(tensor.dtype), "transfer": "device_to_host", "synchronizes": True}
        self._append("aten::_to_copy", "Memory", (self._use(tensor, "input"),), (), attributes, False)

    def phases(self) -> tuple[Phase, ...]:
        self._release()
        return super().phases()

    @contextmanager
    def paused(self) -> Iterator[None]:
        paused, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = paused

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        self._stack.append((name, None))
        try:
            yield
        finally:
            self._stack.pop()

    def enter_scope(self, name: str) -> None:
        self._stack.append((name, None))

    @contextmanager
    def step(self, phase: str, *, domain: str, count: int = 1, continued: bool = False) -> Iterator[None]:
        self._release()  # what the pipeline let go of between the steps
        self._phase, self._domain, self._operators = phase, domain, []
        if continued:
            self._stack = self._ended_in
        number = len(self._phases.setdefault(phase, []))
        try:
            with ExitStack() as stack:
                stack.enter_context(torch.no_grad())
                stack.enter_context(stood_in_for())
                for handle in (
                    register_module_forward_pre_hook(self._enter_module),
                    register_module_forward_hook(self._leave_module),
                ):
                    stack.callback(handle.remove)
                stack.enter_context(_Functions(self))
                stack.enter_context(_Dispatch(self))
                yield
            operators = tuple(self._operators)
        finally:
            self._operators, self._stack, self._ended_in = None, [], self._stack
        assert number == len(self._phases[phase]), "steps do not nest"
        self._phases[phase].append(Step(count, operators))

    # ---- modules

    def _enter_module(self, module: torch.nn.Module, args: Any) -> None:
        name = self._names.get(id(module))
        if name is None:
            above = self._stack[-1][0] if self._stack else ""
            name = f"{above}.{type(module).__name__}".lstrip(".")
        self._stack.append((name, module))

    def _leave_module(self, module: torch.nn.Module, args: Any, output: Any) -> None:
        self._stack.pop()

    # ---- tensors

    def _address(self, tensor: torch.Tensor) -> int:
        storage = tensor.untyped_storage()
        address: int = storage._cdata
        if address not in self._identities:
            self._identities[address] = -1
            self._storages.append(StorageWeakRef(storage))
            gone = self._gone
            self._alive[address] = weakref.ref(storage, lambda _: gone.append(address))
        return address

    def _addressed(self, given: list[torch.Tensor]) -> list[tuple[int, torch.Tensor]]:
        return [(self._address(tensor), tensor) for tensor in given]

    def _identity(self, tensor: torch.Tensor, role: str) -> int:
        address = self._address(tensor)
        if self._identities[address] < 0:
            self._identities[address] = len(self._roles)
            self._roles[len(self._roles)] = self._stored_as.get(address, role)
        return self._identities[address]

    def _use(self, tensor: torch.Tensor, role: str) -> TensorUse:
        """The operand, with `role` if its storage is met for the first time. Equal operands are one object."""
        identity = self._identity(tensor, role)
        size = tensor.untyped_storage().nbytes()
        key = (identity, tuple(tensor.shape), tensor.stride(), tensor.dtype, size)
        if key not in self._uses:
            dtype = dtype_name(tensor.dtype)
            self._uses[key] = TensorUse(identity, key[1], key[2], dtype, size, self._roles[identity])
        return self._uses[key]

    def _is_on_device(self, tensor: torch.Tensor) -> bool:
        return tensor.device.type == "meta" or tensor.untyped_storage()._cdata in self._on_device

    def _release(self) -> None:
        """Note with the last operator which storages nobody refers to any more."""
        if not self._gone:
            return
        gone = self._gone.copy()  # to which the collector may add at any time
        del self._gone[: len(gone)]
        released = {self._identities[address] for address in gone} - {-1}
        for address in gone:
            del self._alive[address]
            self._padding.forget(address)
        if not released.isdisjoint(self._twice):
            released -= {self._identities[address] for address in self._alive}
        if released and self._last is not None:
            # Not shared yet; replace() would have to find it in its step.
            object.__setattr__(self._last, "released", (*self._last.released, *sorted(released)))

    # ---- operators

    def _append(
        self,
        op: str,
        category: str,
        inputs: tuple[TensorUse, ...],
        outputs: tuple[TensorUse, ...],
        attributes: dict[str, Any],
        is_view: bool,
    ) -> None:
        assert self._operators is not None, "recording happens within step()"
        module = self._stack[-1][0] if self._stack else ""
        position = len(self._operators)
        step = len(self._phases[self._phase])
        self._last = Operator(
            self._phase, step, position, module, op, category, inputs, outputs, attributes, is_view
        )
        self._operators.append(self._last)

    def _aten(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Record one aten call."""
        found = signature(func)
        read, attributes = bind(found, args, kwargs)
        made = tensors(result)
        if self.counts_padding:
            self._padding.carry(found.op, found.category, self._addressed(read), self._addressed(made))
        on_device = [tensor for tensor in read if self._is_on_device(tensor)]
        for tensor in made if on_device else ():
            if tensor.device.type == "cpu":
                self.on_device(tensor)
        if not on_device and not any(self._is_on_device(tensor) for tensor in made):
            # Arithmetic on CPU scalars, as schedulers do it: host time, but nothing for the GPU.
            uses = tuple(self._use(tensor, "input") for tensor in read)
            outs = tuple(self._use(tensor, "activation") for tensor in made)
            self._append(found.op, "Other", uses, outs, {**attributes, "device": "cpu"}, True)
            return
        if found.op == "aten::_to_copy" and read[0].device.type == "cpu":
            if on_device and made[0].dtype == read[0].dtype:
                # Already on the GPU in the pipeline, where .to() returns the tensor itself.
                identity = self._identities[self._address(made[0])] = self._identity(read[0], "input")
                self._twice.add(identity)
                return
            if not on_device:
                on_device = read
                attributes["transfer"] = "host_to_device"
        if found.op == "aten::_local_scalar_dense":
            attributes["synchronizes"] = True
        if found.category == "Attention" and self._custom_attention(found, args, kwargs, made):
            return
        # CUDA kernels take CPU scalars by value, as an argument of the launch.
        if len(on_device) < len(read):
            attributes["cpu_scalars"] = len(read) - len(on_device)
        inputs = tuple(self._use(tensor, "input") for tensor in on_device)
        outputs = tuple(self._use(tensor, "activation") for tensor in made)
        viewed = {use.tensor for use in inputs}
        is_view = found.known.allocates or (
            bool(outputs) and not found.mutates and all(use.tensor in viewed for use in outputs)
        )
        self._append(found.op, "View" if is_view else found.category, inputs, outputs, attributes, is_view)

    def _custom_attention(
        self, found: Signature, args: tuple[Any, ...], kwargs: dict[str, Any], made: list[torch.Tensor]
    ) -> bool:
        """Record a call of another library's attention as attention; False where it is not known (kineto_custom.py)."""
        given = [
            args[at] if at < len(args) else kwargs.get(name, default)
            for at, (name, default) in enumerate(found.arguments)
        ]
        positions = [
            (at, [self._use(tensor, "input") for tensor in tensors(value)]) for at, value in enumerate(given)
        ]
        concrete = ["" if value is None or tensors(value) else str(value) for value in given]
        custom = recognised(found.op, [each for each in positions if each[1]], concrete)
        if custom is None or isinstance(custom.output, TensorUse) or not made:
            return False
        output = self._use(made[0], "activation")
        shape, strides, _ = custom.output
        if len(output.shape) == len(shape):  # as the library lays it out, or by head
            by_head = output.shape == shape
            strides = output.strides if by_head else tuple(output.strides[at] for at in (0, 2, 1, 3))
        output = replace(output, shape=shape, strides=strides)
        attributes = {**custom.attributes, "domain": self._attention_domain()}
        attributes["kind"] = self._attention_kind(custom.inputs[0].shape[-2], custom.inputs[1].shape[-2])
        self._append(custom.op, custom.category, custom.inputs, (output,), attributes, False)
        return True

    def _attention(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> torch.Tensor:
        """Record scaled-dot-product attention of (batch, heads, length, head dim) and return its empty output."""
        *batch, length, _ = query.shape
        width = value.shape[-1]
        with self.paused():
            if len(batch) == 2:
                # The fused CUDA kernels write (batch, length, heads, head dim), so that the output projection
                # that follows needs no copy (at::_scaled_dot_product_flash_attention in ATen).
                output = torch.empty(
                    batch[0], length, batch[1], width, dtype=query.dtype, device=query.device
                )
                output = output.transpose(1, 2)
            else:
                output = torch.empty(*batch, length, width, dtype=query.dtype, device=query.device)
        attributes = {
            "kind": self._attention_kind(length, key.shape[-2]),
            "domain": self._attention_domain(),
            "causal": is_causal,
            "scale": float(scale) if scale is not None else 1 / math.sqrt(query.shape[-1]),
            "dropout_p": dropout_p,
            "enable_gqa": enable_gqa,
            "has_mask": attn_mask is not None,
        }
        counted = attn_mask if self.counts_padding else None
        if counted is not None and (hidden := self._padding.of(self._address(counted), counted)):
            attributes["hidden_keys"] = hidden
        operands = (query, key, value) if attn_mask is None else (query, key, value, attn_mask)
        inputs = tuple(self._use(tensor, "input") for tensor in operands)
        outputs = (self._use(output, "activation"),)
        self._append(f"aten::{ATTENTION}", OPERATORS[ATTENTION].category, inputs, outputs, attributes, False)
        return output

    def _attention_kind(self, queries: int, keys: int) -> str:
        """Diffusers' attention modules say what they are; elsewhere unequal lengths mean cross-attention."""
        for _, module in reversed(self._stack):
            cross = getattr(module, "is_cross_attention", None)
            if cross is not None:
                return "cross" if cross else "self"
        return "self" if queries == keys else "cross"

    def _attention_domain(self) -> str:
        path = self._stack[-1][0] if self._stack else ""
        return "temporal" if any(mark in path for mark in _TEMPORAL) else self._domain


class _Functions(TorchFunctionMode):
    """Catches scaled-dot-product attention before torch decomposes it.

    torch.nn.MultiheadAttention calls it within a function that torch hands to modes as a whole; what that calls no mode sees.
    """

    def __init__(self, recorder: Recorder):
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            self.recorder._release()
            return self.recorder._attention(*args, **(kwargs or {}))
        if func is F.multi_head_attention_forward:
            original = F.scaled_dot_product_attention
            F.scaled_dot_product_attention = self._within
            try:
                return func(*args, **(kwargs or {}))
            finally:
                F.scaled_dot_product_attention = original
        return func(*args, **(kwargs or {}))

    def _within(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        self.recorder._release()
        return self.recorder._attention(*args, **kwargs)


class _Dispatch(TorchDispatchMode):
    """Sees each aten call after composite operators are taken apart."""

    def __init__(self, recorder: Recorder):
        super().__init__()
        self.recorder = recorder

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.recorder._release()
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.convolution.default:
            result = _as_cudnn_lays_it_out(result, *args[:2])
        elif func in _DIVISIONS:
            result = _as_the_iterator_lays_it_out(result, args[0])
        if not self.recorder._paused:
            self.recorder._aten(func, args, kwargs or {}, result)
        return result


# On `meta` torch works these out in Python.
_DIVISIONS = (torch.ops.aten.div.Tensor, torch.ops.aten.div.Scalar)


def _as_the_iterator_lays_it_out(output: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
    """The quotient in the strides of what is divided, as TensorIterator has it on a device.

    On `meta` a dimension of size 1 gets another stride, by which suggest_memory_format tells channels_last from contiguous:
    at batch 1 what a VAE upsamples after its attention is contiguous on a GPU (captures of an H200), and so is all after it.
    """
    same = output.shape == given.shape and output.device.type == given.device.type == "meta"
    differ = (
        [
            size
            for size, *two in zip(output.shape, output.stride(), given.stride(), strict=True)
            if len(set(two)) > 1
        ]
        if same
        else []
    )
    if not differ or any(size != 1 for size in differ):
        return output
    return torch.empty_strided(given.shape, given.stride(), dtype=output.dtype, device=output.device)


def _as_cudnn_lays_it_out(output: torch.Tensor, image: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The output of a convolution in cuDNN's layout; torch leaves it contiguous on `meta`, not knowing the device.

    It is channels_last if the image or the weight is (cudnn_conv_suggest_memory_format in ATen/native/ConvUtils.h).
    This matters in plain NCHW pipelines too: attention in the VAE leaves its image channels_last, and from there
    on each GroupNorm has to copy it.
    """
    layouts = {suggest_memory_format(image), suggest_memory_format(weight)} - {torch.contiguous_format}
    if not layouts or output.device.type != "meta" or output.dtype == torch.float64:
        return output
    return torch.empty_like(output, memory_format=layouts.pop())
