"""The shapes at which each family of the suite is measured: those of published models (`typical`), then a grid around them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from simtti.validation.measurements.case import (
    Case,
    attention_case,
    conv2d_case,
    conv3d_case,
    elementwise_case,
    gemm_case,
    group_norm_case,
    make_case,
    rows_case,
)

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
            yield conv2d_case(n, c, h >> level, w >> level, oc, taps, stride, layout, True)
    for (n, h, w), layout in product(VAE_LATENTS.values(), LAYOUTS):
        for c, oc, larger, taps in VAE_CONVOLUTIONS:
            yield conv2d_case(n, c, h * larger, w * larger, oc, taps, 1, layout, True)
    for c, oc, patch, size in ((4, 1152, 2, 128), (16, 1536, 2, 128), (3, 768, 16, 512), (3, 1280, 14, 224)):
        for layout in LAYOUTS:
            yield conv2d_case(2, c, size, size, oc, patch, patch, layout, True, padding=0)
    for c, taps, size in ((11200, 3, 32), (3072, 5, 32), (1536, 5, 128), (4096, 3, 128), (640, 7, 64)):
        for layout in LAYOUTS:
            yield conv2d_case(2, c, size, size, c, taps, 1, layout, False, groups=c)
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
                yield conv2d_case(n, c, size, size, oc, taps, stride, layout, False)
    for (c, oc), size, layout in product(
        ((128, 128), (64, 64), (256, 128), (3, 128)), (512, 768, 1024), LAYOUTS
    ):
        yield conv2d_case(1, c, size, size, oc, 3, 1, layout, False)
        yield conv2d_case(1, c, size, size, oc, 3, 1, layout, False, dtype="fp32")


def _conv3d_cases() -> Iterator[Case]:
    for (c, level), op in product(((320, 0), (640, 1), (1280, 2), (1280, 3)), ("temporal_conv", "conv3d")):
        for frames, h, w in ((16, 32, 32), (14, 72, 128), (25, 72, 128)):
            yield conv3d_case(op, 2, c, frames, h >> level, w >> level, c, (3, 1, 1), "ncdhw", True)
    for c, oc, h, w in (
        (16, 384, 60, 104), (384, 384, 60, 104), (192, 384, 120, 208), (384, 384, 120, 208), (192, 192, 240, 416),
        (96, 96, 480, 832), (96, 3, 480, 832), (512, 512, 60, 90), (512, 256, 120, 180), (256, 256, 240, 360),
        (128, 128, 480, 720), (128, 3, 480, 720),
    ):  # fmt: skip
        for frames in (1, 4):
            yield conv3d_case("conv3d", 1, c, frames, h, w, oc, (3, 3, 3), "ncdhw", True)
        yield conv3d_case("conv3d", 1, c, 4, h, w, oc, (3, 3, 3), "ndhwc", False)
    kinds = ((3, 1, 1), (1, 3, 3), (3, 3, 3), (1, 1, 1))
    for c, frames, size, taps in product(
        (64, 128, 256, 320, 512, 640, 1280), (1, 4, 8, 16, 32), (8, 16, 32, 64, 128), kinds
    ):
        if 1 << 10 <= frames * size * size <= 1 << 17:
            yield conv3d_case("conv3d", 1, c, frames, size, size, c, taps, "ncdhw", False)
    for c, size, frames in product((320, 640, 1280), (8, 16, 32, 64), (4, 8, 24, 64, 128)):
        yield conv3d_case("temporal_conv", 2, c, frames, size, size, c, (3, 1, 1), "ncdhw", False)


HEADS = ((8, 40), (8, 80), (8, 160), (5, 64), (10, 64), (20, 64), (16, 72), (12, 128), (24, 128))


def _temporal_attention_cases() -> Iterator[Case]:
    models = (
        *((1024 >> 2 * i, h, 64, 16, 2) for i, h in enumerate((5, 10, 20))),  # ModelScope: frames of 32 x 32
        *((9216 >> 2 * i, h, 64, f, 2) for i, h in enumerate((5, 10, 20)) for f in (14, 25)),  # SVD: 72 x 128
        *((4096 >> 2 * i, 8, d, 16, 2) for i, d in enumerate((40, 80, 160))),  # AnimateDiff: 64 x 64
    )
    for (pixels, heads, dim, frames, batch), backend in product(models, ("flash", "baseline", "efficient")):
        yield attention_case("temporal", batch * pixels, heads, frames, frames, dim, backend, "blhd", True)
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
                yield attention_case("temporal", n, heads, frames, frames, dim, backend, layout, False)
    for n, frames in product((1024, 18432), (14, 16)):
        yield attention_case("temporal", n, 10, frames, 1, 64, "flash", "blhd", False)
    for n in (60_000, 65_535, 65_536, 100_000):  # the launch limits of the fused kernels' grids lie here
        for backend in ("flash", "efficient", "baseline"):
            yield attention_case("temporal", n, 5, 8, 8, 64, backend, "blhd", False)


def _spatial_attention_cases() -> Iterator[Case]:
    models = (
        *((2, 8, 4096 >> 2 * i, d) for i, d in enumerate((40, 80, 160, 160))),
        *((2, h, 9216 >> 2 * i, 64) for i, h in enumerate((5, 10, 20, 20))),
        (2, 10, 4096, 64), (2, 20, 1024, 64), (28, 5, 9216, 64), (28, 10, 2304, 64), (28, 20, 576, 64),
        (32, 5, 1024, 64), (32, 10, 256, 64), (32, 8, 4096, 40), (1, 1, 4096, 512), (2, 16, 4096, 72), (2, 24, 4429, 64),
        (1, 24, 4608, 128), (1, 12, 7800, 128), (2, 30, 17776, 64),
    )  # fmt: skip
    for (batch, heads, length, dim), backend in product(models, ("flash", "baseline", "efficient", "cudnn")):
        yield attention_case("spatial", batch, heads, length, length, dim, backend, "blhd", True)
    lengths = (64, 144, 256, 576, 1024, 2304, 4096, 8192, 9216, 16384)
    backends = ("flash", "baseline", "efficient", "cudnn", "math")
    for batch, (heads, dim), length in product((1, 2, 8, 32), HEADS, lengths):
        for index, backend in enumerate(backends):
            if (lengths.index(length) + HEADS.index((heads, dim)) + index) % 2 == 0:
                yield attention_case("spatial", batch, heads, length, length, dim, backend, "blhd", False)
    for length, causal in product((77, 256, 1024, 2048), (True, False)):
        yield attention_case("spatial", 1, 32, length, length, 128, "flash", "blhd", False, causal)


def _cross_attention_cases() -> Iterator[Case]:
    for batch, (heads, dim), length, keys in product(
        (2, 32), HEADS, (64, 256, 1024, 4096, 9216, 16384), (77, 256, 512)
    ):
        typical = keys == 77 and batch == 2 and heads * dim <= 1280
        for index, backend in enumerate(("flash", "baseline", "efficient", "cudnn")):
            if (HEADS.index((heads, dim)) + keys + (batch > 2)) % 4 in (index, 3 - index):
                yield attention_case(
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
        yield gemm_case("attention_parts", sequences, length, length, dim, "nt", False, typical)
        yield gemm_case("attention_parts", sequences, length, dim, length, "nn", False, typical)
        yield rows_case("attention_parts", "softmax", sequences * length, length, typical)


def _gemm_cases() -> Iterator[Case]:
    unet = ((320, 320), (2560, 320), (320, 1280), (640, 640), (5120, 640), (640, 2560), (1280, 1280), (10240, 1280), (1280, 5120),
            (320, 768), (640, 1024), (1280, 2048))  # fmt: skip
    transformers = ((1152, 1152), (4608, 1152), (1536, 1536), (6144, 1536), (2240, 2240), (3072, 3072), (12288, 3072),
                    (3072, 12288), (9216, 3072), (5120, 5120), (13824, 5120), (4096, 4096))  # fmt: skip
    for (n, k), m in product(unet, (2, 128, 154, 512, 2048, 8192, 18432, 32768, 65536)):
        yield gemm_case("gemm", 1, m, n, k, "nt", True, m in (154, 512, 2048, 8192))
    for (n, k), m in product(transformers, (2, 77, 256, 512, 1024, 2048, 4096, 4608, 8192, 16384, 32768)):
        yield gemm_case("gemm", 1, m, n, k, "nt", True, m == 4096)
        if m in (512, 4096):
            yield gemm_case("gemm", 1, m, n, k, "nt", False, False)


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
            yield group_norm_case(n, c, h >> level, w >> level, layout, True)
    for c, size, n in product((128, 256, 512), (64, 128, 256, 512, 1024), (1, 4)):
        yield group_norm_case(n, c, size, size, "nchw", n == 1)
    for n, c, size, layout in product(
        (1, 2, 8, 64), (64, 128, 320, 512, 640, 1280, 2560), (4, 8, 16, 32, 64, 128, 256), LAYOUTS
    ):
        if 1 << 14 <= n * c * size * size <= 1 << 28 and (layout == "nchw" or n in (2, 64)):
            yield group_norm_case(n, c, size, size, layout, False)
    for c, size in product((128, 512), (64, 256, 512)):
        yield group_norm_case(1, c, size, size, "nchw", False, "fp32")


# A move: what is copied into contiguous memory, in terms of n videos or images, f frames, c channels, h x w.
MOVES = (
    "nchw_to_tokens", "tokens_to_nchw", "space_to_time", "time_to_space", "frames_to_channels", "split_heads",
    "merge_heads", "to_channels_last", "from_channels_last",
)  # fmt: skip


def _layout_cases() -> Iterator[Case]:
    def move(function: str, n: int, frames: int, c: int, h: int, w: int, typical: bool) -> Case:
        return make_case("layout", "move", "fp16", 0.0, 2 * n * frames * c * h * w, typical, function=function, n=n,
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


def _elementwise_cases() -> Iterator[Case]:
    for exponent in range(10, 30):
        for function, inputs in (("add", 2), ("mul", 2), ("mul_scalar", 1), ("fill", 0), ("cast", 1)):
            yield elementwise_case(function, inputs, 1 << exponent, False)
    for (n, h, w), (c, level) in product(UNET_LATENTS.values(), ((320, 0), (640, 1), (1280, 2), (1280, 3))):
        numel = n * c * (h >> level) * (w >> level)
        yield elementwise_case("add", 2, numel, True)
        yield elementwise_case("add_channel", 1, numel, True, n=n, c=c)
        yield elementwise_case("add_row", 1, numel, True, cols=c)


def _activation_cases() -> Iterator[Case]:
    for function, exponent in product(("gelu", "gelu_tanh", "silu"), range(12, 29, 1)):
        yield make_case("activation", "elementwise", "fp16", 8.0 * (1 << exponent), 2 << exponent, 18 <= exponent <= 24,
                    function=function, numel=1 << exponent, inputs=1)  # fmt: skip
    for rows, cols in product((128, 512, 2048, 8192, 32768, 131072, 258048), (1280, 2560, 5120, 8192)):
        yield rows_case("activation", "geglu", rows, cols, cols in (1280, 2560, 5120) and rows <= 8192)


def _layer_norm_cases() -> Iterator[Case]:
    columns = (64, 256, 320, 640, 768, 1152, 1280, 1536, 3072, 5120)
    for rows, cols in product((2, 77, 154, 512, 2048, 4096, 8192, 32768, 131072, 258048), columns):
        yield rows_case(
            "layer_norm", "layer_norm", rows, cols, cols in (320, 640, 1280) and 512 <= rows <= 8192
        )
        if cols in (64, 1536, 3072, 5120):
            yield rows_case("layer_norm", "rms_norm", rows, cols, False)


def _softmax_cases() -> Iterator[Case]:
    for rows, cols in product(
        (1 << 10, 1 << 14, 1 << 17, 1 << 20),
        (4, 8, 16, 25, 32, 64, 77, 128, 256, 512, 1024, 1025, 2304, 4096, 9216),
    ):
        if rows * cols <= 1 << 29:
            yield rows_case("softmax", "softmax", rows, cols, cols in (77, 1024, 4096) and rows == 1 << 14)


def _cat_cases() -> Iterator[Case]:
    for n, h, w in UNET_LATENTS.values():
        for c, c2, level in ((1280, 1280, 3), (1280, 640, 1), (640, 320, 1), (640, 320, 0), (320, 320, 0)):
            numel = n * (c + c2) * (h >> level) * (w >> level)
            yield make_case(
                "cat", "cat", "fp16", 0.0, 2 * numel, True, n=n, c=c, c2=c2, h=h >> level, w=w >> level
            )
    for n, c, size in product((1, 4, 16), (64, 256, 512, 1280), (8, 16, 32, 64, 128)):
        if n * c * size * size <= 1 << 27:
            yield make_case(
                "cat", "cat", "fp16", 0.0, 4 * n * c * size * size, False, n=n, c=c, c2=c, h=size, w=size
            )


def _upsample_cases() -> Iterator[Case]:
    typical = {(2, 1280, 8), (2, 1280, 16), (2, 640, 32), (1, 512, 64), (1, 512, 128), (1, 256, 256)}
    sizes = ((1, 64), (2, 128), (2, 320), (2, 640), (2, 1280), (32, 640), (32, 1280), (1, 512), (1, 256))
    for (n, c), size in product(sizes, (8, 16, 32, 64, 128, 256, 512)):
        if n * c * size * size <= 1 << 26:
            yield make_case("upsample", "upsample", "fp16", 0.0, 5 * n * c * size * size, (n, c, size) in typical, n=n, c=c,
                        h=size, w=size, scale=2)  # fmt: skip


def _embedding_cases() -> Iterator[Case]:
    for (entries, cols), rows in product(
        ((49408, 768), (49408, 1280), (32128, 4096), (8192, 1024), (77, 768)), (1, 77, 154, 512, 4096)
    ):
        yield make_case("embedding", "embedding", "fp16", 0.0, entries * cols + rows * cols, rows == 77, rows=rows, cols=cols,
                    entries=entries)  # fmt: skip


def _copy_bandwidth_cases() -> Iterator[Case]:
    """From a cache line to 1 GB, three sizes an octave where the L2 ends: those that fit in it and those that do not."""
    exponents = [*range(9, 23), *(half / 3 for half in range(66, 82)), 27, 28, 29]
    for exponent in exponents:
        numel = round(2**exponent / 8) * 8
        for dtype in ("fp16", "fp32"):
            yield make_case("copy_bandwidth", "copy", dtype, 0.0, 2 * numel, True, numel=numel)


# What the host and the launch cost, of calls whose kernels take next to no time. 'nothing' is the timing itself.
LAUNCHES = ("nothing", "view", "add_", "add", "add_in_graph", "linear", "conv2d", "group_norm", "layer_norm",
            "attention", "cat", "silu")  # fmt: skip
GRAPH_LAUNCHES = 100  # additions in the graph of add_in_graph


def _launch_cases() -> Iterator[Case]:
    for function in LAUNCHES:
        yield make_case("launch", "launch", "fp16", 0.0, 1 << 16, True, function=function)


FAMILY_CASES = {
    "conv2d": _conv2d_cases, "conv3d": _conv3d_cases, "temporal_attention": _temporal_attention_cases,
    "group_norm": _group_norm_cases, "layout": _layout_cases, "spatial_attention": _spatial_attention_cases,
    "gemm": _gemm_cases, "cross_attention": _cross_attention_cases, "attention_parts": _attention_parts_cases,
    "elementwise": _elementwise_cases, "activation": _activation_cases, "layer_norm": _layer_norm_cases,
    "softmax": _softmax_cases, "cat": _cat_cases, "upsample": _upsample_cases, "embedding": _embedding_cases,
    "copy_bandwidth": _copy_bandwidth_cases, "launch": _launch_cases,
}  # fmt: skip
