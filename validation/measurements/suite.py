"""Which single operators to measure, at which shapes, in which order: the `tti` suite.

    cases = suite()
    cases[20].row()      # {'family': 'conv2d', 'op': 'conv2d', 'dtype': 'fp16', 'n': 2, 'c': 320, ...}

A case is a row of a table whose columns are those of `simtti predict`, so that a table of measurements can be
predicted as it stands. Needs no torch: `simtti.validation.measurements.bench.measure` runs the cases.

Shapes are those of text-to-image and text-to-video inference. Within a family come first the shapes that published
models have at their default sizes (`typical`), then a grid around them, in half precision, then part of both in
bf16. Families are dealt out side by side, each in proportion to its worth, so that a run that is cut short has
measured a fair share of everything.

What `predict` cannot express has an op it does not know, rather than one it would misread: temporal_conv (padding in
time alone), math_attention (torch's math backend, which computes halves in fp32), move (copies of permuted tensors of any
rank), cast, broadcast (adding a vector), geglu, launch. It does not read the layout of attention, and takes
attention through cuDNN, which it has no name for, as the device's default kernel.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product

from simtti.errors import unknown

Cell = int | str | bool

SUITES = ("tti",)
ITEM_BYTES = {"fp16": 2, "bf16": 2, "fp32": 4}
# The families, the most wanted first, and how many cases of each are dealt out in a round.
WORTH = {
    "conv2d": 8.0, "conv3d": 4.0, "temporal_attention": 5.0, "group_norm": 3.0, "layout": 3.0, "spatial_attention": 3.0,
    "gemm": 2.0, "cross_attention": 1.0, "attention_parts": 1.5, "elementwise": 1.5, "activation": 1.0,
    "layer_norm": 1.0, "softmax": 0.5, "cat": 0.5, "upsample": 0.5, "embedding": 0.3, "copy_bandwidth": 1.0,
    "launch": 1.0,
}  # fmt: skip
# The columns of a case beside family, op and dtype, and whether they hold whole numbers.
SHAPE_COLUMNS = {
    **dict.fromkeys(("batch", "m", "n", "k"), int),
    **dict.fromkeys(("heads", "q_len", "kv_len", "head_dim"), int),
    **dict.fromkeys(("c", "d", "h", "w", "oc", "kd", "kh", "kw", "stride", "padding", "groups"), int),
    **dict.fromkeys(("spatial", "rows", "cols", "numel", "inputs", "scale", "c2", "frames", "entries"), int),
    **dict.fromkeys(("causal", "bias"), bool),
    **dict.fromkeys(("kernel", "backend", "kind", "layout", "function"), str),
}
MAX_BYTES = 3.2e9  # what a case may hold at once: it must run on a GPU of 16 GB
MAX_FLOPS = 4e12  # under 10 ms on an H100, some 20 ms on an A100


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

        >>> suite(["launch"])[0].id
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


def suite(families: Iterable[str] | None = None, name: str = "tti") -> list[Case]:
    """The cases of the suite, or of some of its families, in the order in which to measure them.

    Raises:
        InputError: no such suite or family.
    """
    if name not in SUITES:
        raise unknown("suite", name, SUITES)
    chosen = list(families or WORTH)
    for family in chosen:
        if family not in WORTH:
            raise unknown("family", family, WORTH)
    dealt = _deal({family: family_cases(family) for family in WORTH if family in chosen})
    first: dict[str, Case] = {}
    for case in dealt:  # families overlap: a softmax may be a part of attention too
        first.setdefault(case.id, case)
    return list(first.values())


@cache
def family_cases(family: str) -> tuple[Case, ...]:
    """A family's cases: typical shapes, then the rest and bf16, both in an order that samples them fairly."""
    cases = list(dict.fromkeys(case for case in _GENERATORS[family]() if _fits(case)))
    seen: dict[str, Case] = {}
    for case in cases:  # a shape of the grid may be a typical one too
        seen[case.id] = replace(case, typical=case.typical or (case.id in seen and seen[case.id].typical))
    shuffled = sorted(seen.values(), key=lambda case: zlib.crc32(case.id.encode()))
    if family in _ONE_DTYPE:
        return tuple(sorted(shuffled, key=_launches_first))
    typical = [case for case in shuffled if case.typical]
    rest = [case for case in shuffled if not case.typical]
    halves = [case for case in (*typical[::3], *rest[::5]) if case.dtype == "fp16"]
    rest += [replace(case, dtype="bf16", typical=False) for case in halves]
    random.Random(family).shuffle(rest)
    return (*typical, *rest)


def _launches_first(case: Case) -> bool:
    return case.shape != (("function", "nothing"),)


def _fits(case: Case) -> bool:
    return case.nbytes <= MAX_BYTES and case.flops <= MAX_FLOPS


def _deal(by_family: dict[str, tuple[Case, ...]]) -> list[Case]:
    """The launches, one case of each family, then each family's in proportion to its worth, evenly spaced.

    Launches come first because a profiler, once it has run, makes every later call dearer to the host.
    """
    ranked = [
        (index / WORTH[family] if family != "launch" else -1.0, rank, case)
        for rank, (family, cases) in enumerate(by_family.items())
        for index, case in enumerate(cases)
    ]
    return [case for _, _, case in sorted(ranked, key=lambda entry: entry[:2])]


def batches(cases: Sequence[Case], most: int = 16, most_bytes: float = 8e9) -> Iterator[list[Case]]:
    """`cases` in order, in runs of no more than `most` that are in memory together."""
    batch: list[Case] = []
    held = 0.0
    for case in cases:
        if batch and (len(batch) == most or held + case.nbytes > most_bytes):
            yield batch
            batch, held = [], 0.0
        batch.append(case)
        held += case.nbytes
    if batch:
        yield batch


def estimated_s(case: Case) -> float:
    """A guess at the seconds it takes to measure a case on a GPU of the H100's kind; nobody has measured it.

    40 ms for operands, first call, synchronisation and a share of the profiler; then some 60 launches, or as many as
    fit in 0.3 s and no fewer than 15, at 350 TFLOP/s, 2 TB/s and no less than 5 us; and 20 flushes of the L2, 0.1 ms
    each.
    """
    call_s = max(case.flops / 350e12, case.nbytes / 2e12, 5e-6)
    return 0.042 + call_s * max(15, min(60, 0.3 / call_s))


# ---- one case of each kind


def _case(
    family: str, op: str, dtype: str, flops: float, elements: float, typical: bool, **shape: Cell
) -> Case:
    return Case(
        family, op, dtype, tuple(shape.items()), float(flops), float(elements * ITEM_BYTES[dtype]), typical
    )


def _conv2d(
    n: int, c: int, h: int, w: int, oc: int, taps: int, stride: int, layout: str, typical: bool,
    *, groups: int = 1, padding: int | None = None, dtype: str = "fp16",
) -> Case:  # fmt: skip
    padding = taps // 2 if padding is None else padding
    out = n * ((h + 2 * padding - taps) // stride + 1) * ((w + 2 * padding - taps) // stride + 1) * oc
    weights = oc * (c // groups) * taps * taps
    flops = 2.0 * out * (c // groups) * taps * taps
    # The NCHW tensor-core path holds converted copies as well.
    elements = (n * c * h * w + out) * (2 if layout == "nchw" else 1) + weights
    return _case("conv2d", "conv2d", dtype, flops, elements, typical, n=n, c=c, h=h, w=w, oc=oc, kh=taps, kw=taps,
                 stride=stride, padding=padding, groups=groups, layout=layout, bias=True)  # fmt: skip


def _conv3d(
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
    return _case("conv3d", op, "fp16", flops, elements, typical, n=n, c=c, d=size[0], h=size[1], w=size[2], oc=oc,
                 kd=kd, kh=kh, kw=kw, stride=1, padding=0, groups=1, layout=layout, bias=True)  # fmt: skip


def _attention(
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
    return _case(f"{kind}_attention", op, "fp16", flops, elements, typical, batch=batch, heads=heads, q_len=q_len,
                 kv_len=kv_len, head_dim=head_dim, causal=causal, kernel=kernel, backend=backend, kind=kind,
                 layout=layout)  # fmt: skip


def _gemm(family: str, batch: int, m: int, n: int, k: int, layout: str, bias: bool, typical: bool) -> Case:
    elements = batch * (m * k + k * n + m * n)
    return _case(family, "gemm", "fp16", 2.0 * batch * m * n * k, elements, typical, batch=batch, m=m, n=n, k=k,
                 layout=layout, bias=bias)  # fmt: skip


def _rows(family: str, op: str, rows: int, cols: int, typical: bool, **more: Cell) -> Case:
    return _case(
        family, op, "fp16", 8.0 * rows * cols, 2.5 * rows * cols, typical, rows=rows, cols=cols, **more
    )


# ---- the families

# A UNet of widths 320, 640, 1280, 1280: channels in, out, level (each half as large as the one before), taps, stride.
UNET_CONVOLUTIONS = (
    (320, 320, 0, 3, 1), (320, 320, 0, 1, 1), (320, 320, 0, 3, 2), (320, 640, 1, 3, 1), (640, 640, 1, 3, 1),
    (320, 640, 1, 1, 1), (640, 640, 1, 1, 1), (640, 640, 1, 3, 2), (640, 1280, 2, 3, 1), (1280, 1280, 2, 3, 1),
    (640, 1280, 2, 1, 1), (1280, 1280, 2, 1, 1), (1280, 1280, 2, 3, 2), (1280, 1280, 3, 3, 1), (1280, 1280, 3, 1, 1),
    (2560, 1280, 3, 3, 1), (2560, 1280, 3, 1, 1), (2560, 1280, 2, 3, 1), (2560, 1280, 2, 1, 1), (1920, 1280, 2, 3, 1),
    (1920, 1280, 2, 1, 1), (1280, 1280, 1, 3, 1), (1920, 640, 1, 3, 1), (1920, 640, 1, 1, 1), (1280, 640, 1, 3, 1),
    (1280, 640, 1, 1, 1), (960, 640, 1, 3, 1), (960, 640, 1, 1, 1), (640, 640, 0, 3, 1), (960, 320, 0, 3, 1),
    (960, 320, 0, 1, 1), (640, 320, 0, 3, 1), (640, 320, 0, 1, 1), (320, 4, 0, 3, 1), (4, 320, 0, 3, 1),
)  # fmt: skip
# Images at once (two for guidance, times the frames of a video) and the latent's height and width.
UNET_LATENTS = {
    "stable-diffusion-1.5": (2, 64, 64), "stable-diffusion-2.1": (2, 96, 96), "sdxl": (2, 128, 128),
    "modelscope-t2v": (32, 32, 32), "svd": (28, 72, 128),
}  # fmt: skip
# A VAE's decoder: channels in, out, how many times larger than the latent, taps.
VAE_CONVOLUTIONS = (
    (4, 512, 1, 3), (16, 512, 1, 3), (512, 512, 1, 3), (512, 512, 2, 3), (512, 512, 4, 3), (512, 256, 4, 3),
    (512, 256, 4, 1), (256, 256, 4, 3), (256, 256, 8, 3), (256, 128, 8, 3), (256, 128, 8, 1), (128, 128, 8, 3),
    (128, 3, 8, 3),
)  # fmt: skip
VAE_LATENTS = {"512 x 512": (1, 64, 64), "1024 x 1024": (1, 128, 128), "16 frames of 256 x 256": (16, 32, 32)}
LAYOUTS = ("nchw", "nhwc")


def _conv2d_cases() -> Iterator[Case]:
    for (n, h, w), layout in product(UNET_LATENTS.values(), LAYOUTS):
        for c, oc, level, taps, stride in UNET_CONVOLUTIONS:
            yield _conv2d(n, c, h >> level, w >> level, oc, taps, stride, layout, True)
    for (n, h, w), layout in product(VAE_LATENTS.values(), LAYOUTS):
        for c, oc, larger, taps in VAE_CONVOLUTIONS:
            yield _conv2d(n, c, h * larger, w * larger, oc, taps, 1, layout, True)
    for c, oc, patch, size in ((4, 1152, 2, 128), (16, 1536, 2, 128), (3, 768, 16, 512), (3, 1280, 14, 224)):
        for layout in LAYOUTS:
            yield _conv2d(2, c, size, size, oc, patch, patch, layout, True, padding=0)
    for c, taps, size in ((11200, 3, 32), (3072, 5, 32), (1536, 5, 128), (4096, 3, 128), (640, 7, 64)):
        for layout in LAYOUTS:
            yield _conv2d(2, c, size, size, c, taps, 1, layout, False, groups=c)
    pairs = (
        (4, 4), (32, 1024), (64, 64), (128, 128), (192, 192), (256, 256), (384, 384), (512, 512), (768, 768), (1024, 1024),
        (1536, 1536), (2240, 11200), (320, 320), (640, 640), (1280, 1280), (320, 640), (640, 1280), (1920, 640),
        (2560, 1280), (960, 320),
    )  # fmt: skip
    kinds = ((3, 1), (1, 1), (3, 2))
    sizes = (8, 16, 32, 48, 64, 96, 128, 256)
    for number, ((c, oc), n, (taps, stride)) in enumerate(product(pairs, (1, 4, 16, 64), kinds)):
        for size, layout in product(sizes, LAYOUTS):
            every_other = (number + sizes.index(size) + LAYOUTS.index(layout)) % 2 == 0
            fits = n * size * size <= 1 << 18 and (size <= 96 or max(c, oc) <= 640)
            if every_other and fits and (stride == 1 or c == oc):
                yield _conv2d(n, c, size, size, oc, taps, stride, layout, False)
    for (c, oc), size, layout in product(
        ((128, 128), (64, 64), (256, 128), (3, 128)), (512, 768, 1024), LAYOUTS
    ):
        yield _conv2d(1, c, size, size, oc, 3, 1, layout, False)
        yield _conv2d(1, c, size, size, oc, 3, 1, layout, False, dtype="fp32")


def _conv3d_cases() -> Iterator[Case]:
    for (c, level), op in product(((320, 0), (640, 1), (1280, 2), (1280, 3)), ("temporal_conv", "conv3d")):
        for frames, h, w in ((16, 32, 32), (14, 72, 128), (25, 72, 128)):
            yield _conv3d(op, 2, c, frames, h >> level, w >> level, c, (3, 1, 1), "ncdhw", True)
    for c, oc, h, w in (
        (16, 384, 60, 104), (384, 384, 60, 104), (192, 384, 120, 208), (384, 384, 120, 208), (192, 192, 240, 416),
        (96, 96, 480, 832), (96, 3, 480, 832), (512, 512, 60, 90), (512, 256, 120, 180), (256, 256, 240, 360),
        (128, 128, 480, 720), (128, 3, 480, 720),
    ):  # fmt: skip
        for frames in (1, 4):
            yield _conv3d("conv3d", 1, c, frames, h, w, oc, (3, 3, 3), "ncdhw", True)
        yield _conv3d("conv3d", 1, c, 4, h, w, oc, (3, 3, 3), "ndhwc", False)
    kinds = ((3, 1, 1), (1, 3, 3), (3, 3, 3), (1, 1, 1))
    for c, frames, size, taps in product(
        (64, 128, 256, 320, 512, 640, 1280), (1, 4, 8, 16, 32), (8, 16, 32, 64, 128), kinds
    ):
        if 1 << 10 <= frames * size * size <= 1 << 17:
            yield _conv3d("conv3d", 1, c, frames, size, size, c, taps, "ncdhw", False)
    for c, size, frames in product((320, 640, 1280), (8, 16, 32, 64), (4, 8, 24, 64, 128)):
        yield _conv3d("temporal_conv", 2, c, frames, size, size, c, (3, 1, 1), "ncdhw", False)


HEADS = ((8, 40), (8, 80), (8, 160), (5, 64), (10, 64), (20, 64), (16, 72), (12, 128), (24, 128))


def _temporal_attention_cases() -> Iterator[Case]:
    models = (
        *((1024 >> 2 * i, h, 64, 16, 2) for i, h in enumerate((5, 10, 20))),  # ModelScope: frames of 32 x 32
        *((9216 >> 2 * i, h, 64, f, 2) for i, h in enumerate((5, 10, 20)) for f in (14, 25)),  # SVD: 72 x 128
        *((4096 >> 2 * i, 8, d, 16, 2) for i, d in enumerate((40, 80, 160))),  # AnimateDiff: 64 x 64
    )
    for (pixels, heads, dim, frames, batch), backend in product(models, ("flash", "baseline", "efficient")):
        yield _attention("temporal", batch * pixels, heads, frames, frames, dim, backend, "blhd", True)
    sequences = (16, 64, 256, 1024, 2304, 4096, 9216, 16384, 32768, 65536, 98304)
    backends = (
        ("flash", "blhd"),
        ("baseline", "blhd"),
        ("flash", "strided"),
        ("efficient", "blhd"),
        ("math", "blhd"),
        ("cudnn", "blhd"),
    )
    for n, frames, (heads, dim) in product(sequences, (4, 8, 16, 24, 32, 64, 128), HEADS[:6]):
        if not 1 << 12 <= n * frames * heads * dim <= 1 << 28:
            continue
        # Every backend at every length and count, each at two of the six widths.
        for index, (backend, layout) in enumerate(backends):
            if (HEADS.index((heads, dim)) + index + frames // 8) % 3 == 0:
                yield _attention("temporal", n, heads, frames, frames, dim, backend, layout, False)
    for n, frames in product((1024, 18432), (14, 16)):
        yield _attention("temporal", n, 10, frames, 1, 64, "flash", "blhd", False)
    for n in (60_000, 65_535, 65_536, 100_000):  # the launch limits of the fused kernels' grids lie here
        for backend in ("flash", "efficient", "baseline"):
            yield _attention("temporal", n, 5, 8, 8, 64, backend, "blhd", False)


def _spatial_attention_cases() -> Iterator[Case]:
    models = (
        *((2, 8, 4096 >> 2 * i, d) for i, d in enumerate((40, 80, 160, 160))),
        *((2, h, 9216 >> 2 * i, 64) for i, h in enumerate((5, 10, 20, 20))),
        (2, 10, 4096, 64), (2, 20, 1024, 64), (28, 5, 9216, 64), (28, 10, 2304, 64), (28, 20, 576, 64),
        (32, 5, 1024, 64), (32, 10, 256, 64), (32, 8, 4096, 40), (1, 1, 4096, 512), (2, 16, 4096, 72), (2, 24, 4429, 64),
        (1, 24, 4608, 128), (1, 12, 7800, 128), (2, 30, 17776, 64),
    )  # fmt: skip
    for (batch, heads, length, dim), backend in product(models, ("flash", "baseline", "efficient", "cudnn")):
        yield _attention("spatial", batch, heads, length, length, dim, backend, "blhd", True)
    lengths = (64, 144, 256, 576, 1024, 2304, 4096, 8192, 9216, 16384)
    backends = ("flash", "baseline", "efficient", "cudnn", "math")
    for batch, (heads, dim), length in product((1, 2, 8, 32), HEADS, lengths):
        for index, backend in enumerate(backends):
            if (lengths.index(length) + HEADS.index((heads, dim)) + index) % 2 == 0:
                yield _attention("spatial", batch, heads, length, length, dim, backend, "blhd", False)
    for length, causal in product((77, 256, 1024, 2048), (True, False)):
        yield _attention("spatial", 1, 32, length, length, 128, "flash", "blhd", False, causal)


def _cross_attention_cases() -> Iterator[Case]:
    for batch, (heads, dim), length, keys in product(
        (2, 32), HEADS, (64, 256, 1024, 4096, 9216, 16384), (77, 256, 512)
    ):
        typical = keys == 77 and batch == 2 and heads * dim <= 1280
        for index, backend in enumerate(("flash", "baseline", "efficient", "cudnn")):
            if (HEADS.index((heads, dim)) + keys + (batch > 2)) % 4 in (index, 3 - index):
                yield _attention(
                    "cross", batch, heads, length, keys, dim, backend, "blhd", typical and index < 2
                )


def _attention_parts_cases() -> Iterator[Case]:
    """What unfused attention is made of: batched products and the softmax between them, spatial and temporal."""
    shapes = [(2, heads, dim, length) for heads, dim in HEADS[:6] for length in (64, 256, 1024, 4096)]
    shapes += [
        (n, heads, dim, frames)
        for heads, dim in HEADS[:6]
        for n in (256, 2048, 8192)
        for frames in (8, 16, 32)
    ]
    for batch, heads, dim, length in shapes:
        sequences = batch * heads
        typical = (heads, dim) == (8, 40)
        yield _gemm("attention_parts", sequences, length, length, dim, "nt", False, typical)
        yield _gemm("attention_parts", sequences, length, dim, length, "nn", False, typical)
        yield _rows("attention_parts", "softmax", sequences * length, length, typical)


def _gemm_cases() -> Iterator[Case]:
    unet = ((320, 320), (2560, 320), (320, 1280), (640, 640), (5120, 640), (640, 2560), (1280, 1280), (10240, 1280), (1280, 5120),
            (320, 768), (640, 1024), (1280, 2048))  # fmt: skip
    transformers = ((1152, 1152), (4608, 1152), (1536, 1536), (6144, 1536), (2240, 2240), (3072, 3072), (12288, 3072),
                    (3072, 12288), (9216, 3072), (5120, 5120), (13824, 5120), (4096, 4096))  # fmt: skip
    for (n, k), m in product(unet, (2, 128, 154, 512, 2048, 8192, 18432, 32768, 65536)):
        yield _gemm("gemm", 1, m, n, k, "nt", True, m in (154, 512, 2048, 8192))
    for (n, k), m in product(transformers, (2, 77, 256, 512, 1024, 2048, 4096, 4608, 8192, 16384, 32768)):
        yield _gemm("gemm", 1, m, n, k, "nt", True, m == 4096)
        if m in (512, 4096):
            yield _gemm("gemm", 1, m, n, k, "nt", False, False)


def _group_norm_case(n: int, c: int, h: int, w: int, layout: str, typical: bool, dtype: str = "fp16") -> Case:
    numel = n * c * h * w
    return _case("group_norm", "group_norm", dtype, 8.0 * numel, 3 * numel, typical, n=n, c=c, spatial=h * w, groups=32,
                 layout=layout)  # fmt: skip


def _group_norm_cases() -> Iterator[Case]:
    for (n, h, w), layout in product(UNET_LATENTS.values(), LAYOUTS):
        for c, level in (
            (320, 0),
            (640, 0),
            (960, 0),
            (640, 1),
            (1280, 1),
            (1920, 1),
            (1280, 2),
            (2560, 2),
            (2560, 3),
        ):
            yield _group_norm_case(n, c, h >> level, w >> level, layout, True)
    for c, size, n in product((128, 256, 512), (64, 128, 256, 512, 1024), (1, 4)):
        yield _group_norm_case(n, c, size, size, "nchw", n == 1)
    for n, c, size, layout in product(
        (1, 2, 8, 64), (64, 128, 320, 512, 640, 1280, 2560), (4, 8, 16, 32, 64, 128, 256), LAYOUTS
    ):
        if 1 << 14 <= n * c * size * size <= 1 << 28 and (layout == "nchw" or n in (2, 64)):
            yield _group_norm_case(n, c, size, size, layout, False)
    for c, size in product((128, 512), (64, 256, 512)):
        yield _group_norm_case(1, c, size, size, "nchw", False, "fp32")


# A move: what is copied into contiguous memory, in terms of n videos or images, f frames, c channels, h x w.
MOVES = (
    "nchw_to_tokens", "tokens_to_nchw", "space_to_time", "time_to_space", "frames_to_channels", "split_heads",
    "merge_heads", "to_channels_last", "from_channels_last",
)  # fmt: skip


def _layout_cases() -> Iterator[Case]:
    def move(function: str, n: int, frames: int, c: int, h: int, w: int, typical: bool) -> Case:
        return _case("layout", "move", "fp16", 0.0, 2 * n * frames * c * h * w, typical, function=function, n=n,
                     frames=frames, c=c, h=h, w=w)  # fmt: skip

    for function in MOVES:
        for c, level in ((320, 0), (640, 1), (1280, 2)):
            for n, frames, h, w in ((2, 1, 64, 64), (2, 16, 32, 32), (2, 14, 72, 128)):
                yield move(function, n, frames, c, h >> level, w >> level, True)
        for c, (n, frames), size in product(
            (128, 512, 1280), ((1, 1), (1, 8), (4, 8), (1, 32)), (8, 16, 32, 64, 128)
        ):
            if 1 << 15 <= n * frames * c * size * size <= 1 << 27:
                yield move(function, n, frames, c, size, size, False)


def _elementwise_case(function: str, inputs: int, numel: int, typical: bool, **more: Cell) -> Case:
    op = {"cast": "cast", "add_channel": "broadcast", "add_row": "broadcast"}.get(function, "elementwise")
    return _case("elementwise", op, "fp16", numel, (inputs + 2) * numel,
                 typical, function=function, numel=numel, inputs=inputs, **more)  # fmt: skip


def _elementwise_cases() -> Iterator[Case]:
    for exponent in range(10, 30):
        for function, inputs in (("add", 2), ("mul", 2), ("mul_scalar", 1), ("fill", 0), ("cast", 1)):
            yield _elementwise_case(function, inputs, 1 << exponent, False)
    for (n, h, w), (c, level) in product(UNET_LATENTS.values(), ((320, 0), (640, 1), (1280, 2), (1280, 3))):
        numel = n * c * (h >> level) * (w >> level)
        yield _elementwise_case("add", 2, numel, True)
        yield _elementwise_case("add_channel", 1, numel, True, n=n, c=c)
        yield _elementwise_case("add_row", 1, numel, True, cols=c)


def _activation_cases() -> Iterator[Case]:
    for function, exponent in product(("gelu", "gelu_tanh", "silu"), range(12, 29, 1)):
        yield _case("activation", "elementwise", "fp16", 8.0 * (1 << exponent), 2 << exponent, 18 <= exponent <= 24,
                    function=function, numel=1 << exponent, inputs=1)  # fmt: skip
    for rows, cols in product((128, 512, 2048, 8192, 32768, 131072, 258048), (1280, 2560, 5120, 8192)):
        yield _rows("activation", "geglu", rows, cols, cols in (1280, 2560, 5120) and rows <= 8192)


def _layer_norm_cases() -> Iterator[Case]:
    columns = (64, 256, 320, 640, 768, 1152, 1280, 1536, 3072, 5120)
    for rows, cols in product((2, 77, 154, 512, 2048, 4096, 8192, 32768, 131072, 258048), columns):
        yield _rows("layer_norm", "layer_norm", rows, cols, cols in (320, 640, 1280) and 512 <= rows <= 8192)
        if cols in (64, 1536, 3072, 5120):
            yield _rows("layer_norm", "rms_norm", rows, cols, False)


def _softmax_cases() -> Iterator[Case]:
    for rows, cols in product(
        (1 << 10, 1 << 14, 1 << 17, 1 << 20),
        (4, 8, 16, 25, 32, 64, 77, 128, 256, 512, 1024, 1025, 2304, 4096, 9216),
    ):
        if rows * cols <= 1 << 29:
            yield _rows("softmax", "softmax", rows, cols, cols in (77, 1024, 4096) and rows == 1 << 14)


def _cat_cases() -> Iterator[Case]:
    for n, h, w in UNET_LATENTS.values():
        for c, c2, level in ((1280, 1280, 3), (1280, 640, 1), (640, 320, 1), (640, 320, 0), (320, 320, 0)):
            numel = n * (c + c2) * (h >> level) * (w >> level)
            yield _case(
                "cat", "cat", "fp16", 0.0, 2 * numel, True, n=n, c=c, c2=c2, h=h >> level, w=w >> level
            )
    for n, c, size in product((1, 4, 16), (64, 256, 512, 1280), (8, 16, 32, 64, 128)):
        if n * c * size * size <= 1 << 27:
            yield _case(
                "cat", "cat", "fp16", 0.0, 4 * n * c * size * size, False, n=n, c=c, c2=c, h=size, w=size
            )


def _upsample_cases() -> Iterator[Case]:
    typical = {(2, 1280, 8), (2, 1280, 16), (2, 640, 32), (1, 512, 64), (1, 512, 128), (1, 256, 256)}
    sizes = ((1, 64), (2, 128), (2, 320), (2, 640), (2, 1280), (32, 640), (32, 1280), (1, 512), (1, 256))
    for (n, c), size in product(sizes, (8, 16, 32, 64, 128, 256, 512)):
        if n * c * size * size <= 1 << 26:
            yield _case("upsample", "upsample", "fp16", 0.0, 5 * n * c * size * size, (n, c, size) in typical, n=n, c=c,
                        h=size, w=size, scale=2)  # fmt: skip


def _embedding_cases() -> Iterator[Case]:
    for (entries, cols), rows in product(
        ((49408, 768), (49408, 1280), (32128, 4096), (8192, 1024), (77, 768)), (1, 77, 154, 512, 4096)
    ):
        yield _case("embedding", "embedding", "fp16", 0.0, entries * cols + rows * cols, rows == 77, rows=rows, cols=cols,
                    entries=entries)  # fmt: skip


def _copy_bandwidth_cases() -> Iterator[Case]:
    """From a cache line to 1 GB, three sizes an octave where the L2 ends: those that fit in it and those that do not."""
    exponents = [*range(9, 23), *(half / 3 for half in range(66, 82)), 27, 28, 29]
    for exponent in exponents:
        numel = round(2**exponent / 8) * 8
        for dtype in ("fp16", "fp32"):
            yield _case("copy_bandwidth", "copy", dtype, 0.0, 2 * numel, True, numel=numel)


# What the host and the launch cost, of calls whose kernels take next to no time. 'nothing' is the timing itself.
LAUNCHES = ("nothing", "view", "add_", "add", "add_in_graph", "linear", "conv2d", "group_norm", "layer_norm",
            "attention", "cat", "silu")  # fmt: skip
GRAPH_LAUNCHES = 100  # additions in the graph of add_in_graph


def _launch_cases() -> Iterator[Case]:
    for function in LAUNCHES:
        yield _case("launch", "launch", "fp16", 0.0, 1 << 16, True, function=function)


_ONE_DTYPE = ("copy_bandwidth", "launch")
_GENERATORS = {
    "conv2d": _conv2d_cases, "conv3d": _conv3d_cases, "temporal_attention": _temporal_attention_cases,
    "group_norm": _group_norm_cases, "layout": _layout_cases, "spatial_attention": _spatial_attention_cases,
    "gemm": _gemm_cases, "cross_attention": _cross_attention_cases, "attention_parts": _attention_parts_cases,
    "elementwise": _elementwise_cases, "activation": _activation_cases, "layer_norm": _layer_norm_cases,
    "softmax": _softmax_cases, "cat": _cat_cases, "upsample": _upsample_cases, "embedding": _embedding_cases,
    "copy_bandwidth": _copy_bandwidth_cases, "launch": _launch_cases,
}  # fmt: skip


def counter_cases() -> list[Case]:
    """The few cases to read hardware counters of: attention over space and over time on the same 16 frames of a UNet's
    level, so as many tokens each, fused and not; then what else a step spends its time on."""
    return [
        *(
            attention
            for backend in ("flash", "baseline")
            for attention in (
                _attention("spatial", 16, 8, 1024, 1024, 80, backend, "blhd", True),
                _attention("temporal", 1024, 8, 16, 16, 80, backend, "blhd", True),
                _attention("spatial", 16, 8, 4096, 4096, 40, backend, "blhd", True),
                _attention("temporal", 4096, 8, 16, 16, 40, backend, "blhd", True),
            )
        ),
        _attention("temporal", 1024, 8, 16, 16, 80, "flash", "strided", True),
        _conv2d(2, 320, 64, 64, 320, 3, 1, "nchw", True),
        _conv2d(2, 320, 64, 64, 320, 3, 1, "nhwc", True),
        _group_norm_case(2, 320, 64, 64, "nchw", True),
        next(case for case in family_cases("layout") if case.text("function") == "space_to_time" and case.typical),
    ]  # fmt: skip


COUNTER_FAMILY = "counters"
