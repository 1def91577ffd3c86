"""The suite's operators, with random operands, as something to call."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from simtti.validation.measurements.case import Case
from simtti.validation.measurements.shapes import GRAPH_LAUNCHES

Call = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Prepared:
    """An operator with its operands, and what has to hold while it runs."""

    call: Call
    context: Callable[[], AbstractContextManager[Any]] = nullcontext
    profiled: bool = True


@dataclass(frozen=True, slots=True)
class Make:
    """Makes random operands. Zeros would run faster: the multipliers toggle fewer bits, so the clock stays up."""

    torch: Any
    device: Any
    dtype: Any

    def __call__(self, *shape: int) -> Any:
        return self.torch.randn(shape, device=self.device, dtype=self.dtype)

    def image(self, layout: str, *shape: int) -> Any:
        """A tensor of (batch, channels, ...) that lies in `layout`."""
        last = {4: self.torch.channels_last, 5: self.torch.channels_last_3d}[len(shape)]
        formats = {"nhwc": last, "ndhwc": last}
        return self(*shape).contiguous(memory_format=formats.get(layout, self.torch.contiguous_format))


def prepare(case: Case, torch: Any, device: Any) -> Prepared:
    """The case as something to call, on operands whose values are the same each time."""
    torch.manual_seed(zlib.crc32(case.id.encode()))
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[case.dtype]
    made = OPERATORS[case.op](case, Make(torch, device, dtype))
    return made if isinstance(made, Prepared) else Prepared(made)


def _convolution(case: Case, make: Make) -> Call:
    functional, layout, n, c, oc = (
        make.torch.nn.functional,
        case.text("layout"),
        case["n"],
        case["c"],
        case["oc"],
    )
    groups, stride, bias = case["groups"], case["stride"], make(oc)
    if case.op == "conv2d":
        x = make.image(layout, n, c, case["h"], case["w"])
        weight = make.image(layout, oc, c // groups, case["kh"], case["kw"])
        return lambda: functional.conv2d(x, weight, bias, stride, case["padding"], 1, groups)
    x = make.image(layout, n, c, case["d"], case["h"], case["w"])
    weight = make.image(layout, oc, c, case["kd"], case["kh"], case["kw"])
    padding = (case["kd"] // 2, 0, 0) if case.op == "temporal_conv" else case["padding"]
    return lambda: functional.conv3d(x, weight, bias, stride, padding)


def _attention(case: Case, make: Make) -> Prepared:
    torch, backend = make.torch, case.text("backend")
    batch, heads, dim, causal = (
        case["batch"],
        case["heads"],
        case["head_dim"],
        bool(dict(case.shape)["causal"]),
    )
    if backend == "baseline":
        query, key, value = (
            make(batch * heads, case[length], dim) for length in ("q_len", "kv_len", "kv_len")
        )
        empty = query.new_empty(1, 1, 1)

        def unfused() -> Any:
            scores = torch.baddbmm(empty, query, key.transpose(1, 2), beta=0, alpha=dim**-0.5)
            return torch.bmm(scores.softmax(-1), value)

        return Prepared(unfused)

    def operand(length: int) -> Any:
        if case.text("layout") == "strided":  # pixels are the sequences: a view of frames x pixels
            return make(length, batch, heads, dim).permute(1, 2, 0, 3)
        return make(batch, length, heads, dim).transpose(1, 2)

    from torch.nn.attention import SDPBackend, sdpa_kernel

    query, key, value = operand(case["q_len"]), operand(case["kv_len"]), operand(case["kv_len"])
    allowed = {"flash": SDPBackend.FLASH_ATTENTION, "efficient": SDPBackend.EFFICIENT_ATTENTION,
               "math": SDPBackend.MATH, "cudnn": SDPBackend.CUDNN_ATTENTION}[backend]  # fmt: skip
    attend = torch.nn.functional.scaled_dot_product_attention
    return Prepared(lambda: attend(query, key, value, is_causal=causal), lambda: sdpa_kernel(allowed))


def _gemm(case: Case, make: Make) -> Call:
    torch, batch, m, n, k = make.torch, case["batch"], case["m"], case["n"], case["k"]
    transposed = case.text("layout") == "nt"
    if batch > 1 or not transposed:
        a, b = make(batch, m, k), make(batch, n, k).transpose(1, 2) if transposed else make(batch, k, n)
        return lambda: torch.bmm(a, b)
    x, weight, bias = make(m, k), make(n, k), make(n) if dict(case.shape)["bias"] else None
    return lambda: torch.nn.functional.linear(x, weight, bias)


def _group_norm(case: Case, make: Make) -> Call:
    n, c, spatial, groups = case["n"], case["c"], case["spatial"], case["groups"]
    height = next(size for size in range(int(spatial**0.5), 0, -1) if spatial % size == 0)
    x, weight, bias = make.image(case.text("layout"), n, c, height, spatial // height), make(c), make(c)
    return lambda: make.torch.nn.functional.group_norm(x, groups, weight, bias)


def _row_operator(case: Case, make: Make) -> Call:
    functional, rows, cols = make.torch.nn.functional, case["rows"], case["cols"]
    if case.op == "geglu":  # the halves of one projection: views with a stride of two rows
        value, gate = make(rows, 2 * cols).chunk(2, -1)
        return lambda: value * functional.gelu(gate)
    x, weight, bias = make(rows, cols), make(cols), make(cols)
    return {
        "layer_norm": lambda: functional.layer_norm(x, (cols,), weight, bias),
        "rms_norm": lambda: functional.rms_norm(x, (cols,), weight),
        "softmax": lambda: functional.softmax(x, -1),
    }[case.op]


def _elementwise(case: Case, make: Make) -> Call:
    functional, function, numel = make.torch.nn.functional, case.text("function"), case["numel"]
    columns = dict(case.shape)
    x = make(numel)
    if function == "add_channel":  # a time embedding to each channel of an image
        image, channels = x.view(case["n"], case["c"], -1), make(case["n"], case["c"], 1)
        return lambda: image + channels
    if function == "add_row":
        matrix, row = x.view(-1, int(columns["cols"])), make(int(columns["cols"]))
        return lambda: matrix + row
    y = make(numel) if columns["inputs"] == 2 else x
    return {
        "add": lambda: x + y,
        "mul": lambda: x * y,
        "mul_scalar": lambda: x * 1.5,
        "fill": lambda: x.fill_(1.0),
        "cast": lambda: x.float(),
        "gelu": lambda: functional.gelu(x),
        "gelu_tanh": lambda: functional.gelu(x, approximate="tanh"),
        "silu": lambda: functional.silu(x),
    }[function]


def _permute(case: Case, make: Make) -> Call:
    n, frames, c, h, w = (case[name] for name in ("n", "frames", "c", "h", "w"))
    images, pixels, heads = n * frames, h * w, 8
    last = make.torch.channels_last

    def moved(x: Any, *order: int) -> Call:
        return lambda: x.permute(*order).contiguous()

    function = case.text("function")
    if function == "nchw_to_tokens":
        return moved(make(images, c, pixels), 0, 2, 1)
    if function == "tokens_to_nchw":
        return moved(make(images, pixels, c), 0, 2, 1)
    if function == "space_to_time":  # tokens of frames to sequences over time
        return moved(make(n, frames, pixels, c), 0, 2, 1, 3)
    if function == "time_to_space":
        return moved(make(n, pixels, frames, c), 0, 2, 1, 3)
    if function == "frames_to_channels":  # images of frames to what a 3-D convolution takes
        return moved(make(n, frames, c, pixels), 0, 2, 1, 3)
    if function == "split_heads":
        return moved(make(images, pixels, heads, c // heads), 0, 2, 1, 3)
    if function == "merge_heads":
        return moved(make(images, heads, pixels, c // heads), 0, 2, 1, 3)
    if function == "to_channels_last":
        x = make(images, c, h, w)
        return lambda: x.clone(memory_format=last)
    x = make.image("nhwc", images, c, h, w)
    return lambda: x.clone(memory_format=make.torch.contiguous_format)


def _cat(case: Case, make: Make) -> Call:
    first, second = (make(case["n"], case[c], case["h"], case["w"]) for c in ("c", "c2"))
    return lambda: make.torch.cat((first, second), 1)


def _upsample(case: Case, make: Make) -> Call:
    x, scale = make(case["n"], case["c"], case["h"], case["w"]), float(case["scale"])
    return lambda: make.torch.nn.functional.interpolate(x, scale_factor=scale, mode="nearest")


def _embedding(case: Case, make: Make) -> Call:
    table = make(case["entries"], case["cols"])
    indices = make.torch.randint(case["entries"], (1, case["rows"]), device=make.device)
    return lambda: make.torch.nn.functional.embedding(indices, table)


def _copy(case: Case, make: Make) -> Call:
    source = make(case["numel"])
    target = source.clone()
    return lambda: target.copy_(source)


def _launch(case: Case, make: Make) -> Call | Prepared:
    torch, functional, function = make.torch, make.torch.nn.functional, case.text("function")
    if function == "nothing":
        return lambda: None
    x, matrix, image = make(1024), make(64, 64), make(1, 64, 16, 16)
    weight, wide, heads = make(64, 64, 3, 3), make(64), make(1, 8, 64, 64)
    if function == "add_in_graph":
        return _graph_of_additions(torch, x)
    return {
        "view": lambda: matrix.view(-1),
        "add_": lambda: x.add_(1.0),
        "add": lambda: x + x,
        "linear": lambda: functional.linear(matrix, matrix, wide),
        "conv2d": lambda: functional.conv2d(image, weight, wide, padding=1),
        "group_norm": lambda: functional.group_norm(image, 32, wide, wide),
        "layer_norm": lambda: functional.layer_norm(matrix, (64,), wide, wide),
        "attention": lambda: functional.scaled_dot_product_attention(heads, heads, heads),
        "cat": lambda: torch.cat((image, image), 1),
        "silu": lambda: functional.silu(x),
    }[function]


def _graph_of_additions(torch: Any, x: Any) -> Prepared:
    """A replay of GRAPH_LAUNCHES additions, each after the other: what is left of a launch in a CUDA graph.

    Not profiled: graphs and CUPTI have crashed each other in older versions, and it is the gaps that matter here.
    """
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        x.add_(1.0)
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        for _ in range(GRAPH_LAUNCHES):
            x.add_(1.0)
    return Prepared(lambda: graph.replay(), profiled=False)


OPERATORS: dict[str, Callable[[Case, Make], Call | Prepared]] = {
    "conv2d": _convolution, "conv3d": _convolution, "temporal_conv": _convolution, "attention": _attention,
    "math_attention": _attention, "gemm": _gemm, "group_norm": _group_norm, "layer_norm": _row_operator,
    "rms_norm": _row_operator, "softmax": _row_operator, "geglu": _row_operator, "elementwise": _elementwise,
    "cast": _elementwise, "broadcast": _elementwise, "move": _permute, "cat": _cat, "upsample": _upsample, "embedding": _embedding,
    "copy": _copy, "launch": _launch,
}  # fmt: skip
