"""Operators that are not aten's own but do what it knows: attention of other libraries, and torch.compile's Triton kernels, in a
profiler's trace or a recording.

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
    values among the arguments before the one that says whether it is causal. window: how many arguments after that one the keys to the
    left and to the right of a sliding window stand; 0: there is none. bias: the position of a mask that is added to the scores."""

    names: re.Pattern[str]
    layout: str
    library: str
    before_causal: int = 0
    window: int = 0
    bias: int = 0


# exact: the operators' schemas (flash-attention's flash_attn_interface.py and hopper/flash_api.cpp, SageAttention's core.py,
# xformers/ops/fmha, aten/src/ATen/native/native_functions.yaml)
_ATTENTIONS = (
    _Attention(re.compile(r"flash_attn(_2\w*)?::.*varlen_f"), PACKED, "flash-attention-2", window=1),
    _Attention(re.compile(r"flash_attn(_2\w*)?::.*f(or)?wa?r?d"), BY_TOKEN, "flash-attention-2", window=1),
    _Attention(re.compile(r"flash_attn_3\w*::.*varlen_f"), PACKED, "flash-attention-3", window=1),
    _Attention(re.compile(r"flash_attn_3\w*::.*f(or)?wa?r?d"), BY_TOKEN, "flash-attention-3", window=1),
    _Attention(re.compile(r"xformers_flash3\w*::.*(forward|fwd)"), BY_TOKEN, "flash-attention-3", window=1),
    _Attention(re.compile(r"xformers_flash\w*::.*(forward|fwd)"), BY_TOKEN, "flash-attention-2", window=1),
    _Attention(re.compile(r"xformers\w*::.*(forward|fwd)"), BY_TOKEN, "efficient", 1, bias=3),
    _Attention(re.compile(r"aten::_flash_attention_forward$"), BY_TOKEN, "flash-attention-2", window=3),
    _Attention(re.compile(r"aten::_efficient_attention_forward$"), BY_TOKEN, "efficient", 1, bias=3),
    _Attention(re.compile(r"aten::_cudnn_attention_forward$"), BY_HEAD, "cudnn", 1),
    _Attention(re.compile(r"aten::_scaled_dot_product_flash_attention$"), BY_HEAD, "flash-attention-2"),
    _Attention(re.compile(r"aten::_scaled_dot_product_efficient_attention$"), BY_HEAD, "efficient", 1, bias=3),
    _Attention(re.compile(r"aten::_scaled_dot_product_cudnn_attention$"), BY_HEAD, "cudnn", 1),
    # Its own kernel, or the whole function with the kernels that quantise.
    _Attention(re.compile(r"sage\w*::.*attn"), UNKNOWN, "sage"),
    _Attention(re.compile(r"flex_attention::forward$"), BY_HEAD, "flex-attention"),
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
_HALVES = ("fp16", "bf16")
_SHARE_AT = 3  # the position of the share of blocks among flex_attention::forward's arguments (attention_stand_ins.py)
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
    bias = [
        use
        for at, found in positions
        for use in found
        if kind.bias and at == kind.bias and len(use.shape) > 1
    ]
    return _attention(kind, name, uses, concrete, bias[0] if bias else None)


def _attention(
    kind: _Attention, name: str, uses: list[TensorUse], concrete: Any, bias: TensorUse | None
) -> Recognised | None:
    values = (
        [text if isinstance(text, str) else "" for text in concrete] if isinstance(concrete, list) else []
    )
    layout = kind.layout
    sequences: list[list[int]] = []
    if layout == BY_TOKEN and len(uses[0].shape) == _ATTENTION_RANK - 1:
        layout = PACKED
    if kind.library == "sage":
        layout = _sage_layout(values)
    pair = uses[:2]
    laid_out = [_by_head(use, layout, pair) for use in uses[:3]]
    if layout == PACKED:
        laid_out, sequences = _unpacked(uses, _integers(values))
    query, key, value = laid_out
    if query is None or key is None or value is None:
        return None
    eight = query.dtype in _EIGHT_BITS
    if eight and kind.library == "sage":  # values lie by channel, their keys padded
        value = TensorUse(value.tensor, key.shape, key.strides, value.dtype, value.storage_bytes, value.role)
    if (
        not (query.shape[0] == key.shape[0] == value.shape[0] and query.shape[-1] == key.shape[-1])
        or key.shape[2] != value.shape[2]
    ):
        return None
    if 0 in query.shape or 0 in key.shape or query.shape[1] % key.shape[1]:
        return None
    if eight and kind.library != "sage":
        query, key, value = (_eight_bit(use) for use in (query, key, value))
    attributes: dict[str, Any] = {
        "called": name,
        "causal": _causal(kind, values),
        "scale": 1 / math.sqrt(query.shape[-1]),
        "dropout_p": 0.0,
        "enable_gqa": query.shape[1] != key.shape[1],
        "has_mask": bias is not None,
        "kind": "self" if query.shape[-2] == key.shape[-2] else "cross",
        "domain": "unknown",
    }
    if kind.library:
        attributes["library"] = kind.library
    if eight and kind.library == "sage":
        attributes["quantized"] = True
    if sequences:
        attributes["sequences"] = sequences
    if window := _window(kind, values):
        attributes["window"] = window
    if kind.library == "flex-attention" and len(values) > _SHARE_AT and (share := _number(values[_SHARE_AT])):
        attributes["block_share"] = share
    batch, heads, length, _ = query.shape
    width = value.shape[-1]
    strides = length * heads * width, width, heads * width, 1
    halves = [use.dtype for use in uses[3:] if use.dtype in _HALVES and use.shape == uses[0].shape]
    dtype = (halves or ["fp16"])[0] if eight else query.dtype
    output = (batch, heads, length, width), strides, dtype
    inputs = (query, key, value) if bias is None else (query, key, value, bias)
    return Recognised(ATTENTION_OP, "Attention", inputs, output, attributes)


def _flags(values: list[str]) -> list[int]:
    """Positions of truth values."""
    return [at for at, text in enumerate(values) if text in ("True", "False")]


def _causal(kind: _Attention, values: list[str]) -> bool:
    if kind.library == "sage":  # after the layout
        numbers = _integers(values)
        return len(numbers) > 1 and numbers[1] == 1
    flags = _flags(values)
    return len(flags) > kind.before_causal and values[flags[kind.before_causal]] == "True"


def _window(kind: _Attention, values: list[str]) -> list[int] | None:
    """Keys to the left and to the right that a query sees; None where that is all."""
    flags = _flags(values)
    if not kind.window or len(flags) <= kind.before_causal:
        return None
    first = flags[kind.before_causal] + kind.window
    found = [_number(text) for text in values[first : first + 2]]
    if len(found) < 2 or None in found:
        return None
    left, right = (int(number) if number is not None and number >= 0 else -1 for number in found)
    return [left, right] if max(left, right) >= 0 else None


def _integers(values: list[str]) -> list[int]:
    return [int(text) for text in values if re.fullmatch(r"-?\d{1,12}", text)]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _sage_layout(values: list[str]) -> str:
    """Its first argument that is no tensor: 0, by token; 1, by head."""
    numbers = _integers(values)
    return (BY_HEAD if numbers[0] == 1 else BY_TOKEN) if numbers else UNKNOWN


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


def _unpacked(uses: list[TensorUse], numbers: list[int]) -> tuple[list[TensorUse | None], list[list[int]]]:
    """Sequences packed one after another, and where they are not all alike how many there are of which lengths.

    int32 offsets say how many they are, the first two whole numbers among the arguments the most queries and keys of one. Then as many
    as fit are taken to be that long, and the others to share the rest; without the numbers all are of the mean length.
    """
    offsets = [use for use in uses[3:] if use.dtype == "int32" and len(use.shape) == 1]
    count = max(offsets[0].shape[0] - 1, 1) if offsets else 1
    if any(len(use.shape) != _ATTENTION_RANK - 1 for use in uses[:3]):
        return [None, None, None], []
    tokens, keys = uses[0].shape[0], uses[1].shape[0]
    longest = numbers[0] if len(numbers) > 1 and numbers[0] == numbers[1] and tokens == keys else 0
    uneven = count > 1 and 0 < longest <= tokens < count * longest
    sequences = _lengths(tokens, count, longest) if uneven else []
    batch = 1 if uneven else count
    found: list[TensorUse | None] = []
    for use in uses[:3]:
        tokens, heads, width = use.shape
        length = max(1, tokens // batch)
        step, head, one = use.strides
        found.append(_with(use, (batch, heads, length, width), (length * step, head, step, one)))
    return found, sequences


def _lengths(tokens: int, count: int, longest: int) -> list[list[int]]:
    """[queries, keys, how many] of `count` sequences of `tokens` in all, none longer than `longest`."""
    full = min(count, tokens // longest)
    rest, others = tokens - full * longest, count - full
    found = [[longest, longest, full]]
    if others and rest:
        short, longer = divmod(rest, others)
        found += [[short, short, others - longer]] * (short > 0) + [[short + 1, short + 1, longer]] * (
            longer > 0
        )
    return found


def _with(use: TensorUse, shape: tuple[int, ...], strides: tuple[int, ...]) -> TensorUse:
    return TensorUse(use.tensor, shape, strides, use.dtype, use.storage_bytes, use.role)


def _eight_bit(use: TensorUse) -> TensorUse:
    """With the type at whose rate tensor cores multiply eight bits."""
    dtype = "fp8_e4m3" if use.dtype in _EIGHT_BITS else use.dtype
    return TensorUse(use.tensor, use.shape, use.strides, dtype, use.storage_bytes, use.role)
