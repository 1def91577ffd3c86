"""Operators that are not aten's own but do what it knows: attention of other libraries, and torch.compile's Triton kernels.

A trace calls attention `aten::scaled_dot_product_attention`, with queries, keys and values as (batch, heads, length, width), whoever
computes it: its attributes say which library did (`library`) and what the profiler called it (`called`). A Triton kernel of
TorchInductor (`triton_poi_fused_...`) is `triton::pointwise` or `triton::reduction`: it reads its operands and writes the last.
What is not recognised here stays as it is, without a kernel model.
"""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

from simtti.workloads.trace import TensorUse

ATTENTION_OP = "aten::scaled_dot_product_attention"
# How an operator lays its queries, keys and values out.
BY_TOKEN = "batch, length, heads, width"
BY_HEAD = "batch, heads, length, width"
PACKED = "length, heads, width"
UNKNOWN = ""


class _Attention(NamedTuple):
    """names: of the operators. library: of `attention_kernel` in a device file; '' for what PyTorch takes by itself. before_causal: truth
    values among the arguments before the one that says whether it is causal."""

    names: re.Pattern[str]
    layout: str
    library: str
    before_causal: int = 0


# exact: the operators' schemas (flash-attention's flash_attn_interface.py and hopper/flash_api.cpp, SageAttention's core.py,
# xformers/ops/fmha, aten/src/ATen/native/native_functions.yaml)
_ATTENTIONS = (
    _Attention(re.compile(r"flash_attn(_2\w*)?::.*varlen_f"), PACKED, "flash-attention-2"),
    _Attention(re.compile(r"flash_attn(_2\w*)?::.*f(or)?wa?r?d"), BY_TOKEN, "flash-attention-2"),
    _Attention(re.compile(r"flash_attn_3\w*::.*varlen_f"), PACKED, "flash-attention-3"),
    _Attention(re.compile(r"flash_attn_3\w*::.*f(or)?wa?r?d"), BY_TOKEN, "flash-attention-3"),
    _Attention(re.compile(r"xformers\w*::.*(forward|fwd)"), BY_TOKEN, ""),
    _Attention(re.compile(r"aten::_flash_attention_forward$"), BY_TOKEN, "flash-attention-2"),
    _Attention(re.compile(r"aten::_efficient_attention_forward$"), BY_TOKEN, "efficient", 1),
    _Attention(re.compile(r"aten::_cudnn_attention_forward$"), BY_HEAD, "cudnn", 1),
    _Attention(re.compile(r"aten::_scaled_dot_product_flash_attention$"), BY_HEAD, "flash-attention-2"),
    _Attention(re.compile(r"aten::_scaled_dot_product_efficient_attention$"), BY_HEAD, "efficient", 1),
    _Attention(re.compile(r"aten::_scaled_dot_product_cudnn_attention$"), BY_HEAD, "cudnn", 1),
    # Eight-bit products in the form of flash-attention 2's; the layout is an argument that not every version records.
    _Attention(re.compile(r"sage\w*::.*attn"), UNKNOWN, "flash-attention-2"),
    _Attention(re.compile(r"\w+::.*(attn|attention|fmha)"), UNKNOWN, ""),
)  # fmt: skip
_BACKWARD = re.compile(r"backward|bwd")
_TRITON = re.compile(r"triton_(poi|red|per|for)_")
TRITON_OPS = {
    "poi": "triton::pointwise",
    "for": "triton::pointwise",
    "red": "triton::reduction",
    "per": "triton::reduction",
}
_ATTENTION_RANK = 4
# Types that tensor cores multiply at eight bits; a result of theirs is in half precision.
_EIGHT_BITS = ("int8", "uint8", "fp8_e4m3", "fp8_e5m2")


class Recognised(NamedTuple):
    """An operator as a trace calls it. outputs: those made here, each as (shape, strides, dtype); inputs already hold others."""

    op: str
    category: str
    inputs: tuple[TensorUse, ...]
    output: tuple[tuple[int, ...], Any, str] | TensorUse
    attributes: dict[str, Any]


def recognised(name: str, positions: list[tuple[int, list[TensorUse]]], concrete: Any) -> Recognised | None:
    """What a call of another library is to a trace; None where that is not known.

    positions: its tensors by the arguments' positions. concrete: the arguments that are no tensors, as the profiler wrote them.
    """
    uses = [use for _, found in positions for use in found]
    triton = _TRITON.match(name)
    if triton and uses:
        *read, written = uses
        return Recognised(
            TRITON_OPS[triton[1]], "Elementwise", tuple(read or uses), written, {"called": name}
        )
    if triton or name == ATTENTION_OP or _BACKWARD.search(name):
        return None
    kind = next((each for each in _ATTENTIONS if each.names.match(name)), None)
    if kind is None or len(uses) < 3:
        return None
    return _attention(kind, name, uses, concrete)


def _attention(kind: _Attention, name: str, uses: list[TensorUse], concrete: Any) -> Recognised | None:
    laid_out = [_by_head(use, kind.layout, uses[:2]) for use in uses[:3]]
    if kind.layout == PACKED:
        laid_out = _unpacked(uses)
    if any(use is None for use in laid_out):
        return None
    query, key, value = (use for use in laid_out if use is not None)
    if (
        not (query.shape[0] == key.shape[0] == value.shape[0] and query.shape[-1] == key.shape[-1])
        or key.shape[2] != value.shape[2]
    ):
        return None
    if 0 in query.shape or 0 in key.shape or query.shape[1] % key.shape[1]:
        return None
    flags = (
        [text == "True" for text in concrete if text in ("True", "False")]
        if isinstance(concrete, list)
        else []
    )
    eight = query.dtype in _EIGHT_BITS
    query, key, value = (_eight_bit(use) if eight else use for use in (query, key, value))
    attributes: dict[str, Any] = {
        "called": name,
        "causal": flags[kind.before_causal] if len(flags) > kind.before_causal else False,
        "scale": 1 / math.sqrt(query.shape[-1]),
        "dropout_p": 0.0,
        "enable_gqa": query.shape[1] != key.shape[1],
        "has_mask": False,
        "kind": "self" if query.shape[-2] == key.shape[-2] else "cross",
        "domain": "unknown",
    }
    if kind.library:
        attributes["library"] = kind.library
    batch, heads, length, _ = query.shape
    width = value.shape[-1]
    strides = length * heads * width, width, heads * width, 1
    output = (batch, heads, length, width), strides, "fp16" if eight else query.dtype
    return Recognised(ATTENTION_OP, "Attention", (query, key, value), output, attributes)


def _by_head(use: TensorUse, layout: str, pair: list[TensorUse]) -> TensorUse | None:
    """A tensor of queries, keys or values as (batch, heads, length, width), its strides with it."""
    if len(use.shape) != _ATTENTION_RANK:
        return None
    if (
        layout == UNKNOWN
    ):  # there are fewer heads than tokens, and as many (or a divisor) of queries as of keys
        layout = BY_TOKEN if _heads_third(pair) else BY_HEAD
    if layout == BY_HEAD:
        return use
    return _with(use, *(tuple(row[at] for at in (0, 2, 1, 3)) for row in (use.shape, use.strides)))


def _heads_third(pair: list[TensorUse]) -> bool:
    (_, second, third, _), (_, of_keys, last_of_keys, _) = (
        use.shape if len(use.shape) == _ATTENTION_RANK else (0, 0, 0, 0) for use in pair
    )
    if (second == of_keys) != (third == last_of_keys):
        return third == last_of_keys
    return third < second


def _unpacked(uses: list[TensorUse]) -> list[TensorUse | None]:
    """Sequences packed one after another, as if all were of the mean length; int32 offsets of the sequences say how many."""
    offsets = [use for use in uses[3:] if use.dtype == "int32" and len(use.shape) == 1]
    batch = max(offsets[0].shape[0] - 1, 1) if offsets else 1
    found: list[TensorUse | None] = []
    for use in uses[:3]:
        if len(use.shape) != _ATTENTION_RANK - 1:
            return [None]
        tokens, heads, width = use.shape
        length = max(1, tokens // batch)
        step, head, one = use.strides
        found.append(_with(use, (batch, heads, length, width), (length * step, head, step, one)))
    return found


def _with(use: TensorUse, shape: tuple[int, ...], strides: tuple[int, ...]) -> TensorUse:
    return TensorUse(use.tensor, shape, strides, use.dtype, use.storage_bytes, use.role)


def _eight_bit(use: TensorUse) -> TensorUse:
    """With the type at whose rate tensor cores multiply eight bits."""
    dtype = "fp8_e4m3" if use.dtype in _EIGHT_BITS else use.dtype
    return TensorUse(use.tensor, use.shape, use.strides, dtype, use.storage_bytes, use.role)
