"""Elementwise, data movement, normalisation and softmax: counts, limits, kernels measured on an H100."""

import ast
import dataclasses
import json
import math

import numpy as np
import pandas as pd
import places
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtti.dtypes import ITEM_BYTES
from simtti.hw_configs.devices import load
from simtti.simulator.closed_form import lone_time_s
from simtti.simulator.kernels import data_movement as memory
from simtti.simulator.kernels import layout, normalization
from simtti.simulator.kernels.elementwise import Walk, walk
from simtti.simulator.lowering.registry import kernels_of
from simtti.simulator.predict import predict

MEASURED = places.MEASURED
H100, A100 = load("h100-sxm"), load("a100-sxm")
DEVICES = st.sampled_from([H100, A100])
DTYPES = st.sampled_from(["fp16", "fp32"])
SCATTERED_BYTES = H100.l2_costs.scattered_bytes


def seen(tensor, use, shape):
    """A use (shape, dtype, strides) under the shape of a walk, by NumPy's rules."""
    strides = tuple(0 if size == 1 else stride for size, stride in zip(use[0], use[2], strict=True))
    return layout.Operand(tensor, (0,) * (len(shape) - len(use[0])) + strides, use[1])


def pointwise(name, shape, inputs, output, hardware):
    return [walk(Walk(name, tuple(shape), tuple(inputs), output), hardware)]


def cold_s(kernels, hardware):
    return sum(lone_time_s(kernel, hardware) for kernel in kernels)


def warm_us(kernels, hardware):
    """Durations as a profiler gives them: without the gap between kernels, operands that fit found in L2."""
    return (
        sum(
            lone_time_s(kernel, hardware, 0.0 if kernel.unique_bytes <= hardware.l2_usable_bytes else None)
            - hardware.launch_s
            for kernel in kernels
        )
        * 1e6
    )


def moved(kernels, tensor):
    return [a.nbytes for kernel in kernels for a in (*kernel.reads, *kernel.writes) if a.tensor == tensor]


def add(shape, dtype, hardware):
    operands = [layout.dense(tensor, shape, dtype) for tensor in range(3)]
    return pointwise("add", shape, operands[:2], operands[2], hardware)


CASES = {
    "add": lambda rows, columns, dtype, hw: add((rows, columns), dtype, hw),
    "silu": lambda rows, columns, dtype, hw: pointwise(
        "silu",
        (rows, columns),
        [layout.dense(0, (rows, columns), dtype)],
        layout.dense(1, (rows, columns), dtype),
        hw,
    ),
    "transpose": lambda rows, columns, dtype, hw: memory.copy(
        (rows, columns),
        layout.Operand(0, (1, rows), dtype),
        layout.dense(1, (rows, columns), dtype),
        hw,
    ),
    "layer_norm": lambda rows, columns, dtype, hw: normalization.layer_norm(rows, columns, dtype, hw),
    "softmax": lambda rows, columns, dtype, hw: normalization.softmax(rows, columns, dtype, hw),
    "group_norm": lambda rows, columns, dtype, hw: normalization.group_norm(
        2, 64, rows * columns, 32, dtype, hw
    ),
    "mean": lambda rows, columns, dtype, hw: normalization.reduce(rows, columns, dtype, hw),
    "upsample": lambda rows, columns, dtype, hw: memory.upsample_nearest(
        rows * columns, 4 * rows * columns, dtype, hw
    ),
    "embedding": lambda rows, columns, dtype, hw: memory.embedding(rows, columns, 1000, dtype, hw),
    "memset": lambda rows, columns, dtype, hw: [memory.memset(0, rows * columns, hw)],
}
SIZES = st.integers(1, 4000)


@given(st.sampled_from(sorted(CASES)), SIZES, SIZES, DTYPES, DEVICES)
@settings(deadline=None, max_examples=100)
def test_a_faster_device_is_never_slower(case, rows, columns, dtype, hardware):
    slow = cold_s(CASES[case](rows, columns, dtype, hardware), hardware)
    for field in ("hbm_bytes_per_s", "l2_bytes_per_s", "clock_hz"):
        faster = dataclasses.replace(hardware, **{field: getattr(hardware, field) * 1.5})
        assert cold_s(CASES[case](rows, columns, dtype, faster), faster) <= slow * 1.001
    wider = dataclasses.replace(hardware, sm_count=hardware.sm_count * 2)
    assert cold_s(CASES[case](rows, columns, dtype, hardware), wider) <= slow * 1.001


@given(SIZES, SIZES, DTYPES, DEVICES)
@settings(deadline=None)
def test_unique_bytes_are_the_tensors(rows, columns, dtype, hardware):
    nbytes = rows * columns * ITEM_BYTES[dtype]
    for case in ("add", "silu", "transpose", "layer_norm", "softmax"):
        kernels = CASES[case](rows, columns, dtype, hardware)
        reads = 2 if case == "layer_norm" and columns % 4 else 1  # without vectors: moments, then application
        assert moved(kernels, 0) == [nbytes] * reads
        assert moved(kernels, 1) == [nbytes]
    group_norm = CASES["group_norm"](rows, columns, dtype, hardware)
    assert moved(group_norm, 0) == [nbytes * 128] * 2  # once for the moments, once to apply them
    assert moved(group_norm, 1) == [nbytes * 128]


def test_broadcast_counts_the_small_operand_once():
    shape = (8, 64, 1024)
    channel = layout.Operand(1, (0, 1, 0), "fp16")
    (kernel,) = pointwise(
        "mul",
        shape,
        [layout.dense(0, shape, "fp16"), channel],
        layout.dense(2, shape, "fp16"),
        H100,
    )
    assert moved([kernel], 1) == [128]
    assert kernel.name.startswith("elementwise_kernel")


@pytest.mark.parametrize("hardware", [H100, A100], ids=lambda hardware: hardware.name)
def test_long_streams_attain_hbm_bandwidth(hardware):
    shape = (64, 4096, 4096)
    kernels = add(shape, "fp32", hardware)
    nbytes = sum(kernel.unique_bytes for kernel in kernels)
    assert nbytes / cold_s(kernels, hardware) == pytest.approx(hardware.hbm_attained_bytes_per_s, rel=0.1)
    copy = memory.copy(shape, layout.dense(0, shape, "fp16"), layout.dense(1, shape, "fp16"), hardware)
    nbytes = sum(kernel.unique_bytes for kernel in copy)
    assert nbytes / cold_s(copy, hardware) == pytest.approx(hardware.hbm_attained_bytes_per_s, rel=0.1)


def test_predict_times_the_families_by_shape():
    rows = [
        {"op": "rms_norm", "rows": 4096, "cols": 3072},
        {"op": "permute", "rows": 4096, "cols": 320, "batch": 2},
        {"op": "cat", "n": 2, "c": 640, "c2": 320, "spatial": 1024},
        {"op": "embedding", "rows": 77, "cols": 768},
        {"op": "elementwise", "numel": 1 << 20, "function": "gelu"},
        {"op": "elementwise", "numel": 1 << 20},
        {"op": "copy", "numel": 2 * 4096 * 320},
    ]
    table = predict(pd.DataFrame([{**row, "dtype": "fp16"} for row in rows]), H100, workers=1)
    assert (table.error == "").all()
    times = table.time_us.to_list()
    assert all(2 < time < 100 for time in times)
    assert times[4] > times[5]  # an exponential costs more than an addition
    assert times[1] > times[6]  # and a transposed copy more than a dense one
    moved = {
        row["op"]: sum(kernel.unique_bytes for kernel in kernels_of({**row, "dtype": "fp16"}, H100))
        for row in rows
    }
    assert moved["permute"] == 2 * 2 * 2 * 4096 * 320
    assert moved["cat"] == 2 * 2 * 2 * 960 * 1024


def test_the_kernel_follows_from_layout_and_dtype():
    shape = (4, 64, 256)
    half, single = layout.dense(0, shape, "fp16"), layout.dense(1, shape, "fp32")
    transposed = layout.Operand(2, (16384, 1, 64), "fp16")

    def name(kernels):
        return kernels[0].name.split("<")[0]

    assert name(pointwise("add", shape, [half, half], half, H100)) == "vectorized_elementwise_kernel"
    assert name(pointwise("silu", shape, [transposed], transposed, H100)) == "vectorized_elementwise_kernel"
    assert name(pointwise("add", shape, [half, single], single, H100)) == "unrolled_elementwise_kernel"
    assert name(pointwise("add", shape, [half, transposed], half, H100)) == "elementwise_kernel"
    assert name(memory.copy(shape, single, half, H100)) == "vectorized_elementwise_kernel"
    assert name(memory.copy(shape, half, single, H100)) == "unrolled_elementwise_kernel"
    assert name(memory.copy(shape, half, half, H100)) == "Memcpy DtoD"
    assert name(memory.copy(shape, transposed, half, H100)) == "elementwise_kernel"


def test_a_transposed_read_costs_a_sector_an_element():
    steps_in, steps_out = (4096,), (1,)
    assert layout.l2_bytes_per_element((4096,), steps_in, 2, SCATTERED_BYTES) == SCATTERED_BYTES
    assert layout.l2_bytes_per_element((4096,), steps_out, 2, SCATTERED_BYTES) == 2
    assert (
        layout.l2_bytes_per_element((8, 64), (64, 1), 2, SCATTERED_BYTES) < SCATTERED_BYTES
    )  # four lanes share each of 8 sectors


@pytest.mark.parametrize(
    ("outputs", "reduced", "inner", "grid", "threads"),
    [
        (16 * 559, 1024, True, 559, 512),  # Qwen 1.5: a warp a row
        (5184, 768, True, 324, 512),  # OWLv2
        (1, 768, True, 1, 128),  # a row alone
        (4096, 512, False, 32, 128),  # VGG-13's gradient of a bias: its warps share an output
        (768, 8, False, 2, 128),  # TimeSformer's mean over 8 frames: too few for that
        (512, 512 * 28 * 28, True, 512 * 4, 512),  # and CTAs share one
    ],
)
def test_reductions_are_launched_as_pytorch_does(outputs, reduced, inner, grid, threads):
    """Grids and blocks of torch.profiler traces taken on H100s (TraceLens; sarchlab/triosim)."""
    (kernel,) = normalization.reduce(outputs, reduced, "fp32", H100, inner=inner)
    assert (kernel.grid, kernel.threads) == (grid, threads)


def test_short_rows_are_bound_by_the_instructions_around_one_load():
    """pytorch/kineto: the mean of 65,536 rows of 49 takes 35.3 us on a V100, 2.5 times as long as its bytes."""
    hardware = load("v100-sxm")
    (kernel,) = normalization.reduce(65536, 49, "fp32", hardware)
    assert lone_time_s(kernel, hardware) - hardware.launch_s == pytest.approx(35.3e-6, rel=0.15)
    assert lone_time_s(kernel, hardware, 0.0) == lone_time_s(kernel, hardware)


def test_sectors_that_l2_loses_before_their_other_elements_are_needed_come_again():
    """TraceLens: T5's position bias, heads fastest, added to scores of 64 heads of 512x512: 197 us, of which the bytes
    account for 33. Each element costs a sector of 32 bytes from HBM, since a head's sweep touches a line for each element."""

    def add(heads, tokens):
        shape = (heads, tokens * tokens)
        scores = layout.dense(0, shape, "bf16")
        bias = layout.Operand(1, (1, heads), "bf16")
        return pointwise("add", shape, [scores, bias], scores, H100)

    assert add(64, 256)[0].hbm_reread_bytes == 0
    (kernel,) = add(64, 512)
    assert kernel.hbm_reread_bytes == 64 * 512 * 512 * 30
    assert warm_us([kernel], H100) == pytest.approx(197, rel=0.05)
    more = dataclasses.replace(H100, l2_capacity_bytes=2 * H100.l2_capacity_bytes)
    assert layout.refetched_bytes((4096, 64), (64, 1), 2, 6.0, more.l2_usable_bytes) == 0


def test_group_norm_of_a_vae_is_bound_by_32_ctas():
    """sgl-project/sglang#26045: GroupNorm(32) and SiLU of 1x512x16x90x160 take 3,468 us on Hopper."""
    hardware = load("h200-sxm")
    shape = (1, 512, 16 * 90 * 160)
    silu = pointwise(
        "silu", shape, [layout.dense(1, shape, "bf16")], layout.dense(4, shape, "bf16"), hardware
    )
    kernels = normalization.group_norm(1, 512, shape[2], 32, "bf16", hardware)
    assert [kernel.grid for kernel in kernels][:2] == [32, 2]
    assert cold_s([*kernels, *silu], hardware) == pytest.approx(3468e-6, rel=0.15)


def test_instructions_wait_for_hbm_but_not_for_l2():
    """A cast that finds its source in L2 is not slowed down by the share of HBM's time it would wait."""

    def cast(numel):
        return memory.copy(
            (numel,), layout.dense(0, (numel,), "fp16"), layout.dense(1, (numel,), "fp32"), H100
        )[0]

    kernel = cast(1 << 18)
    assert kernel.hbm_stall > 0
    free = dataclasses.replace(kernel, hbm_stall=0.0)
    assert lone_time_s(kernel, H100, 0.0) == lone_time_s(free, H100, 0.0)
    assert lone_time_s(kernel, H100) >= lone_time_s(free, H100)
    kernel = cast(1 << 26)
    free = dataclasses.replace(kernel, hbm_stall=0.0)
    assert lone_time_s(kernel, H100) > lone_time_s(free, H100)


def test_rms_norm_of_short_rows():
    """sgl-project/sglang#20632: PyTorch's RMSNorm of 4608x48 and 27030x24 rows of 128 takes 144 and 403 us on Hopper."""
    for rows, microseconds in ((4608 * 48, 144), (27030 * 24, 403)):
        kernels = normalization.rms_norm(rows, 128, "bf16", load("h200-sxm"))
        assert cold_s(kernels, load("h200-sxm")) == pytest.approx(microseconds * 1e-6, rel=0.15)


def test_layer_norm_reads_twice_what_l2_does_not_hold():
    short = normalization.layer_norm(4096, 4096, "fp16", A100)[0]
    long = normalization.layer_norm(4096, 32768, "fp16", A100)[0]
    assert short.hbm_reread_bytes == 0
    assert 0 < long.hbm_reread_bytes < long.reads[0].nbytes


def test_group_norm_of_channels_last_copies_first():
    nchw = normalization.group_norm(2, 320, 4096, 32, "fp16", A100)
    nhwc = normalization.group_norm(2, 320, 4096, 32, "fp16", A100, channels_last=True)
    assert len(nhwc) == len(nchw) + 1
    assert cold_s(nhwc, A100) > cold_s(nchw, A100)


def test_cat_of_five_dimensions_is_a_copy_per_input():
    shapes = [(1, 96, 2, 64, 64), (1, 96, 4, 64, 64)]
    target = layout.dense(9, (1, 96, 6, 64, 64), "bf16")
    inputs = [layout.dense(index, shape, "bf16") for index, shape in enumerate(shapes)]
    assert len(memory.cat(shapes, inputs, target, H100)) == 2
    flat = [(96, 2, 4096), (96, 4, 4096)]
    inputs = [layout.dense(index, shape, "bf16") for index, shape in enumerate(flat)]
    (kernel,) = memory.cat(flat, inputs, layout.dense(9, (96, 6, 4096), "bf16"), H100)
    assert kernel.name == "CatArrayBatchedCopy_contig"


# What follows lowers the rows of operators_h100.csv.

TYPES = {
    "c10::BFloat16": "bf16",
    "float": "fp32",
    "double": "fp64",
    "long int": "int64",
    "bool": "bool",
    "int": "int32",
}
UNARY = ("silu", "gelu", "sigmoid", "tanh", "pow", "clamp", "clamp_min", "rsqrt")
UNARY += ("exp", "log", "sin", "cos", "neg", "abs", "elu")
BINARY = ("add", "mul", "div", "sub", "add_")
WIDTH = ["bool", "int32", "int64", "bf16", "fp32", "fp64"]


def result_of(shape, operands, dtype):
    """The result as TensorIterator allocates it: in the order of the first operand that is not broadcast."""
    for operand in operands:
        if all(stride or size == 1 for stride, size in zip(operand.strides, shape, strict=True)):
            order = sorted(range(len(shape)), key=lambda index: (-operand.strides[index], shape[index] == 1))
            strides, step = [0] * len(shape), 1
            for index in reversed(order):
                strides[index], step = step, step * shape[index]
            return layout.Operand(99, tuple(strides), dtype)
    return layout.dense(99, shape, dtype)


def lower(row):
    """The kernels of one row, or None for what is not modelled here (host copies and the like)."""
    op = row.op.removeprefix("aten::")
    dims, types, strides = (
        ast.literal_eval(each) for each in (row.input_dims, row.input_types, row.input_strides)
    )
    if "Pageable" in row.kernels or "Pinned" in row.kernels or (op == "pow" and "Fill" in row.kernels):
        return None
    if op == "cat":
        shapes = dims[0]
        dim = int([each for each in ast.literal_eval(row.concrete_inputs) if each][-1]) % len(shapes[0])
        dtype = "fp32" if "4u" in row.kernels else "bf16"
        out = list(shapes[0])
        out[dim] = sum(shape[dim] for shape in shapes)
        inputs = [layout.Operand(index, each, dtype) for index, each in enumerate(strides[0])]
        return memory.cat(shapes, inputs, layout.dense(99, out, dtype), H100)
    uses = [
        (shape, TYPES[dtype], stride)
        for shape, dtype, stride in zip(dims, types, strides, strict=True)
        if isinstance(dtype, str) and dtype in TYPES and shape != ()
    ]
    if not uses:
        return None
    shape, dtype, stride = uses[0]
    first = layout.Operand(0, stride, dtype)
    if op == "fill_":
        return memory.fill(shape, first, H100)
    if op == "copy_":
        return memory.copy(shape, seen(1, uses[1], shape), first, H100)
    if op in UNARY:
        return pointwise(op, shape, [first], result_of(shape, [first], dtype), H100)
    if op in BINARY:
        walk = np.broadcast_shapes(*(use[0] for use in uses))
        operands = [seen(index, use, walk) for index, use in enumerate(uses)]
        wide = max((use[1] for use in uses), key=WIDTH.index)
        name = "mul" if op == "div" and len(uses) == 1 else op
        result = first if op == "add_" else result_of(walk, operands, wide)
        return pointwise(name, walk, operands, result, H100)
    if "upsample_nearest_exact2d" in op:
        return memory.upsample_nearest(math.prod(shape), 4 * math.prod(shape), dtype, H100)
    if op == "index_select":
        rows = next(use[0][0] for use in uses if use[1] == "int64")
        return memory.embedding(rows, shape[1], shape[0], dtype, H100)
    if op == "layer_norm":
        copy = []
        if len(json.loads(row.kernels)) == 2:
            copy = memory.copy(shape, first, layout.dense(1, shape, dtype), H100)
        return [*copy, *normalization.layer_norm(math.prod(shape[:-1]), shape[-1], dtype, H100)]
    if op == "_softmax":
        return normalization.softmax(math.prod(shape[:-1]), shape[-1], dtype, H100)
    if op in ("mean", "linalg_vector_norm"):
        inner = "[-1]" in row.concrete_inputs
        size = shape[-1 if inner else 1]
        return normalization.reduce(math.prod(shape) // size, size, dtype, H100, inner=inner)
    return None


# Accepted mean error of a family, a little above what was found.
FAMILIES = {
    "vectorized_elementwise": 0.09,
    "unrolled_elementwise": 0.22,
    "elementwise": 0.055,
    "index": 0.20,
    "upsample": 0.09,
    "memory": 0.105,
    "layer_norm": 0.07,
    "softmax": 0.05,
    "reduction": 0.08,
}


def test_accuracy_on_h100_operators():
    path = MEASURED / "operators_h100.csv"
    if not path.exists():
        pytest.skip(f"{path} is not here: accuracy is checked only beside the shared measurements")
    rows = []
    for row in pd.read_csv(path).itertuples():
        kernels = lower(row) if "complex" not in row.input_types else None
        if not kernels:
            continue
        name = row.kernels
        family = next(
            label
            for key, label in (
                ("layer_norm", "layer_norm"),
                ("oftmax", "softmax"),
                ("oftMax", "softmax"),
                ("reduce_kernel", "reduction"),
                ("upsample", "upsample"),
                ("indexSelect", "index"),
                ("Memcpy", "memory"),
                ("CatArray", "memory"),
                ("unrolled_elementwise", "unrolled_elementwise"),
                ("vectorized_elementwise", "vectorized_elementwise"),
                ("elementwise", "elementwise"),
            )
            if key in name
        )
        rows.append(
            (family, warm_us(kernels, H100), row.kernel_us_mean, row.kernel_us_sum / row.kernel_us_mean)
        )
    table = pd.DataFrame(rows, columns=["family", "predicted", "measured", "calls"])
    assert len(table) > 500
    table["error"] = (table.predicted / table.measured - 1).abs()
    found = table.groupby("family").error.mean()
    assert {family: error for family, error in found.items() if error > FAMILIES[family]} == {}
    assert table.error.mean() < 0.08
    total = (table.predicted * table.calls).sum() / (table.measured * table.calls).sum()
    assert total == pytest.approx(1, abs=0.05)
