"""Low precision: a trace whose denoiser multiplies in fewer bits, as torchao's `quantize_(pipe.transformer, ...)` makes it.

What torchao's configurations do to a linear layer (torchao/quantization/quant_api.py and its float8, int8 and nvfp4 tensors):

    fp8              scales of a whole tensor: the input's largest magnitude, the input in fp8, `_scaled_mm`
    fp8-row          the same with a scale of each token and of each output
    fp8-block        a scale of each 1 x 128 of the input and 128 x 128 of the weight
    mxfp8            fp8 with a power of two for each 32 numbers
    nvfp4            fp4 with an fp8 scale of each 16 numbers, and one of the whole tensor
    int8             int8 by token and by output: `_int_mm`, whose int32 results are scaled afterwards
    fp8-weight-only, int8-weight-only   the weight is brought back to 16 bits before each product
    svdq-int4, svdq-nvfp4   SVDQuant as nunchaku runs it: four bits by four bits, beside them a branch of rank 32 in 16 bits
    int4-weight-only weights in four bits, scales of 128, unpacked inside the product

What stays as it is: text encoders and the VAE (nobody quantises them with these calls), what is no linear layer, and layers whose
sides the formats do not divide (torchao leaves those out: 16 for fp8, 128 for blocks and int4, 32 for mxfp8 and nvfp4, more than 16 inputs for int8).
All others are taken, small ones as well: torchao's default filter is "is it a Linear". Weights lie in memory in the format, with
their scales; biases, norms and embeddings stay.

In eager mode each layer quantises its own input, operator by operator. torch.compile finds the same expression once for layers
that read one tensor (queries, keys, values), takes magnitudes while it reduces, and fuses the rest, which is the lowering's matter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from simtti.errors import InputError, unknown
from simtti.workloads.offload import TO_DEVICE, TO_HOST
from simtti.workloads.parallel.degrees import WHOLE
from simtti.workloads.quantized_layers import RANK, Calls, Linear, Maker, Scheme
from simtti.workloads.trace import Operator, Phase, TensorUse, Trace

BLOCK = 128  # exact: numbers that share a scale in fp8-block and int4
NVFP4_GROUP = 16  # exact: the same in nvfp4
INT4_GROUP = 64  # exact: in nunchaku's int4
GEMV_ROWS = 8  # exact: rows of the input up to which nunchaku leaves activations as they are (gemv_awq)
HOST_ROWS = 16  # exact: rows up to which torchao multiplies integers on the host (safe_int_mm)
MXFP8_GROUP = 32  # exact: and in mxfp8 (OCP Microscaling Formats 1.0)


def quantized(trace: Trace, name: str, *, compiled: bool = False) -> Trace:
    """`trace` with the linear layers of its denoiser quantised.

    Args:
        name: one of SCHEMES.
        compiled: whether torch.compile sees the whole: then what layers do to the same input is done once.

    Raises:
        InputError: an unknown name, measured kernels, or a trace in which no linear layer can be quantised.
    """
    if name not in SCHEMES:
        raise unknown("quantization", name, SCHEMES)
    if trace.timing is not None:
        raise InputError(
            f"quantization {name!r} cannot be put into a measured trace of {trace.workload}; use timing model and a recorded one"
        )
    maker = Maker(trace, SCHEMES[name], compiled)
    phases = tuple(
        phase if phase.name in WHOLE else Phase(phase.name, tuple(map(maker.step, phase.steps)))
        for phase in trace.phases
    )
    if not maker.weights:
        raise InputError(
            f"quantization {name!r}: no linear layer of {trace.workload}'s denoiser has 16-bit inputs and sides that the format divides"
        )
    nbytes = dict(trace.parameter_bytes)
    for component, saved in maker.saved_bytes.items():
        if component in nbytes:
            nbytes[component] -= saved
    return replace(
        trace,
        phases=phases,
        parameter_bytes=nbytes,
        options={**trace.options, "quantization": name},
    )


# ---- what each configuration makes of a layer


def _flat(linear: Linear) -> TensorUse:
    """The input as rows."""
    x = linear.x
    return x if len(x.shape) == 2 else replace(x, shape=(linear.m, linear.k), strides=(linear.k, 1))


def _scaled_by_magnitude(
    maker: Maker, linear: Linear, target: str, dims: list[int]
) -> tuple[list[Operator], tuple[TensorUse, ...]]:
    """Quantise the input by its largest magnitude over `dims`: the numbers and the scales.

    torchao (_choose_scale_float8, _quantize_affine_float8): max(abs(x)), divided by the format's largest number and held
    above an epsilon; x in fp32 divided by it, clamped, and converted.
    """
    calls, x = Calls(maker, linear), _flat(linear)
    magnitudes = x if maker.compiled else calls.each("abs", x)
    shape = tuple(1 if dim in dims else size for dim, size in enumerate(x.shape))
    largest = calls.call("amax", (magnitudes,), maker.made(shape, x.dtype), dim=dims, keepdim=True)
    scale = calls.each("clamp", calls.each("div", calls.each("_to_copy", largest, "fp32")))
    scaled = calls.each("div", calls.each("_to_copy", x, "fp32"), "fp32", scale)
    if target == "int8":
        scaled = calls.each("round", scaled)
    numbers = calls.each("_to_copy", calls.each("clamp", scaled), target)
    return calls.operators, (numbers, scale)


def _scaled_product(maker: Maker, linear: Linear, numbers: TensorUse, scale: TensorUse) -> list[Operator]:
    calls = Calls(maker, linear)
    weight, bias = maker.weights[linear.weight.tensor], linear.bias
    inputs = (numbers, weight, scale, maker.scales[linear.weight.tensor], *([bias] if bias else []))
    calls.call("_scaled_mm", inputs, linear.out, use_fast_accum=True)
    return calls.operators


def _fp8(maker: Maker, linear: Linear) -> list[Operator]:
    before, found = maker.once(linear, lambda: _scaled_by_magnitude(maker, linear, "fp8_e4m3", [0, 1]))
    return [*before, *_scaled_product(maker, linear, *found)]


def _fp8_row(maker: Maker, linear: Linear) -> list[Operator]:
    before, found = maker.once(linear, lambda: _scaled_by_magnitude(maker, linear, "fp8_e4m3", [1]))
    return [*before, *_scaled_product(maker, linear, *found)]


def _fp8_block(maker: Maker, linear: Linear) -> list[Operator]:
    def make() -> tuple[list[Operator], tuple[TensorUse, ...]]:
        calls, x = Calls(maker, linear), _flat(linear)
        scales = maker.made((linear.m, linear.k // BLOCK), "fp32")
        numbers = maker.made(x.shape, "fp8_e4m3")
        calls.call("_C::per_token_group_fp8_quant", (x,), (numbers, scales))
        return calls.operators, (numbers, scales)

    before, found = maker.once(linear, make)
    return [*before, *_scaled_product(maker, linear, *found)]


def _mxfp8(maker: Maker, linear: Linear) -> list[Operator]:
    """Scales need no more than their own block, so that one kernel reads the input once (torchao, mx_formats/kernels.py)."""

    def make() -> tuple[list[Operator], tuple[TensorUse, ...]]:
        calls, x = Calls(maker, linear), _flat(linear)
        numbers = maker.made(x.shape, "fp8_e4m3")
        scales = maker.made((linear.m, linear.k // MXFP8_GROUP), "fp8_e8m0")
        calls.call("torchao::triton_to_mxfp8_dim0", (x,), (numbers, scales))
        return calls.operators, (numbers, scales)

    before, found = maker.once(linear, make)
    return [*before, *_scaled_product(maker, linear, *found)]


def _nvfp4(maker: Maker, linear: Linear) -> list[Operator]:
    def make() -> tuple[list[Operator], tuple[TensorUse, ...]]:
        calls, x = Calls(maker, linear), _flat(linear)
        magnitudes = x if maker.compiled else calls.each("abs", x)
        largest = calls.call("amax", (magnitudes,), maker.made((1, 1), x.dtype), dim=[0, 1], keepdim=True)
        scale = calls.each("div", largest)
        scales = maker.made((linear.m, linear.k // NVFP4_GROUP), "fp8_e4m3")
        numbers = maker.made((linear.m, linear.k // 2), "nvfp4")
        calls.call("_C::scaled_fp4_quant", (x, scale), (numbers, scales))
        return calls.operators, (numbers, scales)

    before, found = maker.once(linear, make)
    return [*before, *_scaled_product(maker, linear, *found)]


def _int8(maker: Maker, linear: Linear) -> list[Operator]:
    """`int_scaled_matmul`: the int32 results in fp, times the tokens' scales, times the outputs' (torchao).

    Compiled, the product is Inductor's own, which multiplies by the tokens' scales before results leave it: `quantize_` sets
    force_fuse_int_mm_with_mul (torchao/quantization/utils.py, recommended_inductor_config_setter). Else it is safe_int_mm's
    (torchao/kernel/intmm.py), which turns the weight round before each product, and takes weights of layers of few rows to the host.
    """
    before, (numbers, scale) = maker.once(linear, lambda: _scaled_by_magnitude(maker, linear, "int8", [1]))
    calls = Calls(maker, linear)
    shape, half, matrices = (
        (linear.m, linear.n),
        linear.x.dtype,
        (numbers, maker.weights[linear.weight.tensor]),
    )
    if maker.compiled:
        scaled = calls.call("_int_mm", (*matrices, scale), maker.made(shape, half))
    else:
        summed = _safe_int_mm(calls, linear, *matrices)
        scaled = calls.each("mul", calls.each("_to_copy", summed, half), half, scale)
    _finish(calls, "mul", scaled, maker.scales[linear.weight.tensor])
    return [*before, *calls.operators]


def _safe_int_mm(calls: Calls, linear: Linear, numbers: TensorUse, weight: TensorUse) -> TensorUse:
    """The int32 results."""
    result = calls.maker.made((linear.m, linear.n), "int32")
    if linear.m > HOST_ROWS:
        turned = calls.maker.made(weight.shape, weight.dtype)
        return calls.call("_int_mm", (numbers, calls.call("clone", (weight,), turned)), result)
    for moved in (numbers, weight):
        calls.call("_to_copy", (moved,), (), "Memory", transfer=TO_HOST, synchronizes=True)
    calls.call("_int_mm", (numbers, weight), (), on_host=True, device="cpu")
    return calls.call("_to_copy", (), result, "Memory", transfer=TO_DEVICE, synchronizes=True)


def _finish(calls: Calls, name: str, result: TensorUse, factor: TensorUse) -> None:
    """`result` by the outputs' factors, and the bias."""
    linear = calls.linear
    if linear.bias is None:
        calls.call(name, (result, factor), linear.out)
        return
    calls.call("add", (calls.each(name, result, "", factor), linear.bias), linear.out)


def _int8_weight_only(maker: Maker, linear: Linear) -> list[Operator]:
    """The weight in 16 bits, the product, times the outputs' scales (torchao)."""
    calls, half = Calls(maker, linear), linear.x.dtype
    weight = calls.each("_to_copy", maker.weights[linear.weight.tensor], half)
    product = calls.call("mm", (_flat(linear), weight), maker.made((linear.m, linear.n), half))
    _finish(calls, "mul", product, maker.scales[linear.weight.tensor])
    return calls.operators


def _fp8_weight_only(maker: Maker, linear: Linear) -> list[Operator]:
    """The weight in fp32 times its scale, in 16 bits, and the product (torchao: dequantize)."""
    calls, half = Calls(maker, linear), linear.x.dtype
    wide = calls.each("_to_copy", maker.weights[linear.weight.tensor], "fp32")
    scaled = calls.each("mul", wide, "fp32", maker.scales[linear.weight.tensor])
    weight = calls.each("_to_copy", scaled, half)
    bias = linear.bias
    name, inputs = ("addmm", (bias, _flat(linear), weight)) if bias else ("mm", (_flat(linear), weight))
    calls.call(name, inputs, linear.out)
    return calls.operators


def _int4_weight_only(maker: Maker, linear: Linear) -> list[Operator]:
    calls, half = Calls(maker, linear), linear.x.dtype
    inputs = (_flat(linear), maker.weights[linear.weight.tensor], maker.scales[linear.weight.tensor])
    if linear.bias is None:
        calls.call("_weight_int4pack_mm", inputs, linear.out)
        return calls.operators
    product = calls.call("_weight_int4pack_mm", inputs, maker.made((linear.m, linear.n), half))
    calls.call("add", (product, linear.bias), linear.out)
    return calls.operators


def _svdquant(dtype: str, group: int, scale_dtype: str) -> Callable[[Maker, Linear], list[Operator]]:
    """nunchaku's two kernels for a layer: the input in four bits with its product by the branch's first factor; the product, to
    which the second factor's is added. Layers of few rows (modulation) keep their input and have weights of four bits alone."""

    def makes(maker: Maker, linear: Linear) -> list[Operator]:
        if linear.m <= GEMV_ROWS:
            return _int4_weight_only(maker, linear)
        down, up = maker.low_rank(linear)

        def make() -> tuple[list[Operator], tuple[TensorUse, ...]]:
            calls, m, k = Calls(maker, linear), linear.m, linear.k
            found = (
                maker.made((m, k // 2), dtype),
                maker.made((m, k // group), scale_dtype),
                maker.made((m, RANK), "fp32"),
            )
            calls.call("nunchaku::quantize_w4a4_act_fuse_lora", (_flat(linear), down), found)
            return calls.operators, found

        # queries, keys and values are one layer there
        before, (numbers, scales, low) = maker.once(linear, make, always=True)
        calls, weight = Calls(maker, linear), linear.weight.tensor
        inputs = (numbers, maker.weights[weight], scales, maker.scales[weight], low, up)
        bias = (linear.bias,) if linear.bias else ()
        calls.call("nunchaku::gemm_w4a4", (*inputs, *bias), linear.out, category="Linear")
        return [*before, *calls.operators]

    return makes


def _one(n: int, k: int) -> int:
    return 1


def _outputs(n: int, k: int) -> int:
    return n


SCHEMES: dict[str, Scheme] = {
    "fp8": Scheme("fp8_e4m3", "fp8", 16, _one, "fp32", _fp8),
    "fp8-row": Scheme("fp8_e4m3", "fp8", 16, _outputs, "fp32", _fp8_row),
    "fp8-block": Scheme("fp8_e4m3", "fp8_block", BLOCK, lambda n, k: n * k // BLOCK**2, "fp32", _fp8_block),
    "mxfp8": Scheme("fp8_e4m3", "mxfp8", 32, lambda n, k: n * k // MXFP8_GROUP, "fp8_e8m0", _mxfp8),
    "nvfp4": Scheme("nvfp4", "nvfp4", 32, lambda n, k: n * k // NVFP4_GROUP, "fp8_e4m3", _nvfp4, numbers=2),
    "int8": Scheme("int8", "int8", 8, _outputs, "bf16", _int8, more_inputs_than=16),
    "int8-weight-only": Scheme("int8", "", 1, _outputs, "bf16", _int8_weight_only),
    "fp8-weight-only": Scheme("fp8_e4m3", "", 1, _outputs, "fp32", _fp8_weight_only),
    "svdq-int4": Scheme(
        "int4",
        "int4",
        INT4_GROUP,
        lambda n, k: n * k // INT4_GROUP,
        "bf16",
        _svdquant("int4", INT4_GROUP, "bf16"),
        numbers=2,
        in_blocks=True,
    ),
    "svdq-nvfp4": Scheme(
        "nvfp4",
        "nvfp4",
        INT4_GROUP,
        lambda n, k: n * k // NVFP4_GROUP,
        "fp8_e4m3",
        _svdquant("nvfp4", NVFP4_GROUP, "fp8_e4m3"),
        numbers=2,
        in_blocks=True,
    ),
    # a scale and a zero of each 128, in bf16; eight numbers in an int32, two in a byte
    "int4-weight-only": Scheme(
        "uint8", "", BLOCK, lambda n, k: 2 * n * k // BLOCK, "bf16", _int4_weight_only, numbers=2
    ),
}
