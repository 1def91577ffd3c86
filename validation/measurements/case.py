"""One operator to measure at one shape: its columns, and what it takes to run it. A function for each kind of operator."""

from __future__ import annotations

from dataclasses import dataclass

Cell = int | str | bool
ITEM_BYTES = {"fp16": 2, "bf16": 2, "fp32": 4}
# The columns of a case beside family, op and dtype, and whether they hold whole numbers.
SHAPE_COLUMNS = {
    **dict.fromkeys(("batch", "m", "n", "k"), int),
    **dict.fromkeys(("heads", "q_len", "kv_len", "head_dim"), int),
    **dict.fromkeys(("c", "d", "h", "w", "oc", "kd", "kh", "kw", "stride", "padding", "groups"), int),
    **dict.fromkeys(("spatial", "rows", "cols", "numel", "inputs", "scale", "c2", "frames", "entries"), int),
    **dict.fromkeys(("causal", "bias"), bool),
    **dict.fromkeys(("kernel", "backend", "kind", "layout", "function"), str),
}


@dataclass(frozen=True, slots=True)
class Case:
    """One operator at one shape. nbytes: operands, results and what lies between them, each counted once."""

    family: str
    op: str
    dtype: str
    shape: tuple[tuple[str, Cell], ...]
    flops: float
    nbytes: float
    typical: bool = False

    @property
    def id(self) -> str:
        """The case's name in a file of measurements.

        >>> make_case("launch", "launch", "fp16", 0.0, 1 << 16, True, function="nothing").id
        'launch fp16 function=nothing'
        """
        return " ".join([self.op, self.dtype, *(f"{name}={value}" for name, value in self.shape)])

    def __getitem__(self, name: str) -> int:
        return int(dict(self.shape)[name])

    def text(self, name: str) -> str:
        return str(dict(self.shape)[name])

    def row(self) -> dict[str, Cell]:
        """The case's columns in a table."""
        return {"family": self.family, "op": self.op, "dtype": self.dtype, **dict(self.shape)}


def make_case(
    family: str, op: str, dtype: str, flops: float, elements: float, typical: bool, **shape: Cell
) -> Case:
    """A case from its columns. elements: of operands, results and what lies between them, each counted once."""
    return Case(
        family, op, dtype, tuple(shape.items()), float(flops), float(elements * ITEM_BYTES[dtype]), typical
    )


def conv2d_case(
    n: int, c: int, h: int, w: int, oc: int, taps: int, stride: int, layout: str, typical: bool,
    *, groups: int = 1, padding: int | None = None, dtype: str = "fp16",
) -> Case:  # fmt: skip
    padding = taps // 2 if padding is None else padding
    out = n * ((h + 2 * padding - taps) // stride + 1) * ((w + 2 * padding - taps) // stride + 1) * oc
    weights = oc * (c // groups) * taps * taps
    flops = 2.0 * out * (c // groups) * taps * taps
    # The NCHW tensor-core path holds converted copies as well.
    elements = (n * c * h * w + out) * (2 if layout == "nchw" else 1) + weights
    return make_case("conv2d", "conv2d", dtype, flops, elements, typical, n=n, c=c, h=h, w=w, oc=oc, kh=taps, kw=taps,
                 stride=stride, padding=padding, groups=groups, layout=layout, bias=True)  # fmt: skip


def conv3d_case(
    op: str, n: int, c: int, d: int, h: int, w: int, oc: int, taps: tuple[int, int, int], layout: str, typical: bool
) -> Case:  # fmt: skip
    """A 3-D convolution that gives d x h x w. As conv3d its input is padded already, as causal video VAEs do it; as
    temporal_conv it pads in time itself, as UNets do."""
    kd, kh, kw = taps
    padded = op == "temporal_conv"
    size = (d, h, w) if padded else (d + kd - 1, h + kh - 1, w + kw - 1)
    inside, out = n * c * size[0] * size[1] * size[2], n * oc * d * h * w
    flops = 2.0 * out * c * kd * kh * kw
    elements = 2 * (inside + out) + oc * c * kd * kh * kw
    return make_case("conv3d", op, "fp16", flops, elements, typical, n=n, c=c, d=size[0], h=size[1], w=size[2], oc=oc,
                 kd=kd, kh=kh, kw=kw, stride=1, padding=0, groups=1, layout=layout, bias=True)  # fmt: skip


def attention_case(
    kind: str, batch: int, heads: int, q_len: int, kv_len: int, head_dim: int, backend: str, layout: str, typical: bool,
    causal: bool = False,
) -> Case:  # fmt: skip
    """Backend 'baseline': bmm, softmax, bmm in the model's dtype. torch's own 'math' computes halves in fp32.

    Operands lie as (batch, length, heads, head dim), the projections' order: 'blhd'; for bmm as 'bhld'; or 'strided',
    where the sequences are pixels and the tensor frames x pixels.
    """
    kernel = {"flash": "flash-attention-2", "efficient": "efficient", "baseline": "baseline"}.get(backend, "")
    sequences = batch * heads
    flops = 4.0 * sequences * q_len * kv_len * head_dim
    elements = 2 * sequences * (q_len + kv_len) * head_dim
    elements += sequences * q_len * kv_len * {"baseline": 2, "math": 6}.get(backend, 0)
    op = "math_attention" if backend == "math" else "attention"
    layout = "bhld" if backend == "baseline" else layout
    return make_case(f"{kind}_attention", op, "fp16", flops, elements, typical, batch=batch, heads=heads, q_len=q_len,
                 kv_len=kv_len, head_dim=head_dim, causal=causal, kernel=kernel, backend=backend, kind=kind,
                 layout=layout)  # fmt: skip


def gemm_case(
    family: str, batch: int, m: int, n: int, k: int, layout: str, bias: bool, typical: bool
) -> Case:
    elements = batch * (m * k + k * n + m * n)
    return make_case(family, "gemm", "fp16", 2.0 * batch * m * n * k, elements, typical, batch=batch, m=m, n=n, k=k,
                 layout=layout, bias=bias)  # fmt: skip


def rows_case(family: str, op: str, rows: int, cols: int, typical: bool, **more: Cell) -> Case:
    return make_case(
        family, op, "fp16", 8.0 * rows * cols, 2.5 * rows * cols, typical, rows=rows, cols=cols, **more
    )


def group_norm_case(n: int, c: int, h: int, w: int, layout: str, typical: bool, dtype: str = "fp16") -> Case:
    numel = n * c * h * w
    return make_case("group_norm", "group_norm", dtype, 8.0 * numel, 3 * numel, typical, n=n, c=c, spatial=h * w, groups=32,
                 layout=layout)  # fmt: skip


def elementwise_case(function: str, inputs: int, numel: int, typical: bool, **more: Cell) -> Case:
    op = {"cast": "cast", "add_channel": "broadcast", "add_row": "broadcast"}.get(function, "elementwise")
    return make_case("elementwise", op, "fp16", numel, (inputs + 2) * numel,
                 typical, function=function, numel=numel, inputs=inputs, **more)  # fmt: skip
