"""Attention libraries that are not installed, as a recording needs them: functions that record a call and return its result's shape.

    from flash_attn import flash_attn_func          # in mine.py, recorded as FILE.py:FUNCTION, without flash-attn

flash_attn, flash_attn_interface (FlashAttention 3), xformers.ops and sageattention are stood in for while a recording runs, and while
the file is read, each only where it cannot be imported. A stand-in calls an operator of the library's name (`flash_attn::_flash_attn_forward`
and its like) that exists on the meta device alone, so that what is recorded is what the library's own operators, which have fake
implementations, would be: kineto_custom.py knows both. `torch.nn.attention.flex_attention.flex_attention`, which refuses the meta device,
is exchanged as well; of its mask the share of blocks is kept, where it has values (made on the CPU).
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

import torch

_SCHEMAS = {
    "flash_attn::_flash_attn_forward": (
        "(Tensor q, Tensor k, Tensor v, float dropout_p, float? softmax_scale, bool causal, int window_size_left, "
        "int window_size_right) -> Tensor"
    ),
    "flash_attn::_flash_attn_varlen_forward": (
        "(Tensor q, Tensor k, Tensor v, Tensor cu_seqlens_q, Tensor cu_seqlens_k, int max_seqlen_q, int max_seqlen_k, float dropout_p, "
        "float? softmax_scale, bool causal, int window_size_left, int window_size_right) -> Tensor"
    ),
    "flash_attn_3::fwd": (
        "(Tensor q, Tensor k, Tensor v, Tensor? cu_seqlens_q, Tensor? cu_seqlens_k, int? max_seqlen_q, int? max_seqlen_k, "
        "float? softmax_scale, bool causal, int window_size_left, int window_size_right) -> Tensor"
    ),
    "xformers_flash::flash_fwd": (
        "(Tensor q, Tensor k, Tensor v, float? softmax_scale, bool causal, int window_left, int window_right) -> Tensor"
    ),
    "xformers::efficient_attention_forward_cutlass": (
        "(Tensor query, Tensor key, Tensor value, Tensor? attn_bias, bool compute_logsumexp, bool causal) -> Tensor"
    ),
    "sageattention::sageattn": (
        "(Tensor q, Tensor k, Tensor v, int tensor_layout, int is_causal) -> Tensor"
    ),
    "flex_attention::forward": ("(Tensor query, Tensor key, Tensor value, float block_share) -> Tensor"),
}  # fmt: skip
_KEPT: list[torch.library.Library] = []  # an operator is there as long as its library is
_BY_HEAD = 1  # SageAttention's number for (batch, heads, length, width)
_WHOLE = (-1, -1)


@cache
def _operator(name: str) -> Callable[..., torch.Tensor]:
    """The operator of that name on the meta device: its result has the shape of the queries and the width of the values."""
    namespace, _, function = name.partition("::")
    library = torch.library.Library(namespace, "FRAGMENT")
    library.define(f"{function}{_SCHEMAS[name]}")

    def shape_of(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any) -> torch.Tensor:
        return query.new_empty((*query.shape[:-1], value.shape[-1]))

    library.impl(function, shape_of, "Meta")
    _KEPT.append(library)
    found: Callable[..., torch.Tensor] = getattr(getattr(torch.ops, namespace), function).default
    return found


@contextmanager
def stood_in_for() -> Iterator[None]:
    """The libraries that cannot be imported, stood in for."""
    with ExitStack() as stack:
        for name, modules in _LIBRARIES.items():
            if name not in sys.modules and importlib.util.find_spec(name) is None:
                stack.enter_context(_imported(modules()))
        stack.enter_context(_flexible())
        yield


@contextmanager
def _imported(modules: dict[str, types.ModuleType]) -> Iterator[None]:
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in modules:
            sys.modules.pop(name, None)


@contextmanager
def _flexible() -> Iterator[None]:
    from torch.nn.attention import flex_attention as module

    original = module.flex_attention

    def flex_attention(query: Any, key: Any, value: Any, *args: Any, **given: Any) -> Any:
        if query.device.type != "meta":
            return original(query, key, value, *args, **given)
        mask = given.get("block_mask", args[1] if len(args) > 1 else None)
        return _operator("flex_attention::forward")(query, key, value, _block_share(mask))

    module.flex_attention = flex_attention
    try:
        yield
    finally:
        module.flex_attention = original


def _block_share(mask: Any) -> float:
    """Of the blocks of scores, those that a BlockMask leaves; all of them where it has no values."""
    if mask is None or mask.kv_num_blocks.device.type == "meta":
        return 1.0
    return max(1.0 - float(mask.sparsity()) / 100, 1e-6)


# ---- the libraries


def _module(name: str, **contents: Any) -> types.ModuleType:
    found = types.ModuleType(name, "A stand-in: it records calls of attention.")
    found.__spec__ = importlib.machinery.ModuleSpec(name, None)
    found.__path__ = []
    for key, value in contents.items():
        setattr(found, key, value)
    return found


def _longest(given: Any, tokens: int) -> int:
    """The most tokens of a sequence, which may be a tensor without a value: then all of them."""
    return given if isinstance(given, int) else tokens


def _flash(
    q: Any, k: Any, v: Any, dropout_p: float = 0.0, softmax_scale: float | None = None, causal: bool = False,
    window_size: tuple[int, int] = _WHOLE, **_: Any,
) -> Any:  # fmt: skip
    call = _operator("flash_attn::_flash_attn_forward")
    return call(q, k, v, dropout_p, softmax_scale, causal, *window_size)


def _flash_packed(qkv: Any, *args: Any, **given: Any) -> Any:
    return _flash(*qkv.unbind(-3), *args, **given)


def _flash_varlen(
    q: Any, k: Any, v: Any, cu_seqlens_q: Any, cu_seqlens_k: Any, max_seqlen_q: Any, max_seqlen_k: Any, dropout_p: float = 0.0,
    softmax_scale: float | None = None, causal: bool = False, window_size: tuple[int, int] = _WHOLE, **_: Any,
) -> Any:  # fmt: skip
    longest = _longest(max_seqlen_q, q.shape[0]), _longest(max_seqlen_k, k.shape[0])
    call = _operator("flash_attn::_flash_attn_varlen_forward")
    return call(q, k, v, cu_seqlens_q, cu_seqlens_k, *longest, dropout_p, softmax_scale, causal, *window_size)


def _flash_3(
    q: Any, k: Any, v: Any, softmax_scale: float | None = None, causal: bool = False, *_: Any,
    window_size: tuple[int, int] = _WHOLE, **__: Any,
) -> Any:  # fmt: skip
    call = _operator("flash_attn_3::fwd")
    return call(q, k, v, None, None, None, None, softmax_scale, causal, *window_size)


def _flash_3_varlen(
    q: Any, k: Any, v: Any, cu_seqlens_q: Any, cu_seqlens_k: Any, max_seqlen_q: Any, max_seqlen_k: Any, *_: Any,
    softmax_scale: float | None = None, causal: bool = False, window_size: tuple[int, int] = _WHOLE, **__: Any,
) -> Any:  # fmt: skip
    longest = _longest(max_seqlen_q, q.shape[0]), _longest(max_seqlen_k, k.shape[0])
    call = _operator("flash_attn_3::fwd")
    return call(q, k, v, cu_seqlens_q, cu_seqlens_k, *longest, softmax_scale, causal, *window_size)


class LowerTriangularMask:
    """xformers' mark of a causal mask."""


def _memory_efficient(
    query: Any,
    key: Any,
    value: Any,
    attn_bias: Any = None,
    p: float = 0.0,
    scale: float | None = None,
    **_: Any,
) -> Any:
    """Flash-attention where it takes the call, as xformers' dispatch does: no tensor for a mask, halves, head dims up to 256."""
    flat = query.dim() == 3  # (batch x heads, length, width)
    query, key, value = (each.unsqueeze(2) if flat else each for each in (query, key, value))
    causal = isinstance(attn_bias, LowerTriangularMask)
    bias = attn_bias if isinstance(attn_bias, torch.Tensor) else None
    halves = query.dtype in (torch.float16, torch.bfloat16)
    if bias is None and halves and query.shape[-1] <= 256:
        found = _operator("xformers_flash::flash_fwd")(query, key, value, scale, causal, *_WHOLE)
    else:
        call = _operator("xformers::efficient_attention_forward_cutlass")
        found = call(query, key, value, bias, False, causal)
    return found.squeeze(2) if flat else found


def _sage(
    q: Any, k: Any, v: Any, tensor_layout: str = "HND", is_causal: bool = False, *_: Any, **__: Any
) -> Any:
    layout = _BY_HEAD if tensor_layout == "HND" else 0
    return _operator("sageattention::sageattn")(q, k, v, layout, int(is_causal))


def _flash_attn() -> dict[str, types.ModuleType]:
    functions = {
        "flash_attn_func": _flash, "flash_attn_varlen_func": _flash_varlen, "flash_attn_qkvpacked_func": _flash_packed,
    }  # fmt: skip
    inner = _module("flash_attn.flash_attn_interface", **functions)
    return {
        "flash_attn": _module("flash_attn", **functions, flash_attn_interface=inner, __version__="0"),
        "flash_attn.flash_attn_interface": inner,
    }


def _flash_attn_3() -> dict[str, types.ModuleType]:
    return {
        "flash_attn_interface": _module(
            "flash_attn_interface", flash_attn_func=_flash_3, flash_attn_varlen_func=_flash_3_varlen
        )
    }


def _xformers() -> dict[str, types.ModuleType]:
    ops = _module(
        "xformers.ops", memory_efficient_attention=_memory_efficient, LowerTriangularMask=LowerTriangularMask
    )
    return {"xformers": _module("xformers", ops=ops, __version__="0"), "xformers.ops": ops}


def _sageattention() -> dict[str, types.ModuleType]:
    names = (
        "sageattn", "sageattn_qk_int8_pv_fp16_cuda", "sageattn_qk_int8_pv_fp16_triton", "sageattn_qk_int8_pv_fp8_cuda",
        "sageattn_qk_int8_pv_fp8_cuda_sm90",
    )  # fmt: skip
    return {"sageattention": _module("sageattention", **dict.fromkeys(names, _sage))}


_LIBRARIES = {
    "flash_attn": _flash_attn, "flash_attn_interface": _flash_attn_3, "xformers": _xformers, "sageattention": _sageattention,
}  # fmt: skip
