"""Memory-bound kernels against profiles of an H100 (operators_h100.csv), row by row."""

import ast
import json
import math

import numpy as np
import pandas as pd
import places
import pytest
from streams import H100, pointwise, warm_us

from simtti.simulator.kernels import layout
from simtti.simulator.kernels.concatenation import Cat, cat
from simtti.simulator.kernels.data_movement import Gather, copy, embedding, fill
from simtti.simulator.kernels.normalization import RowNorm, layer_norm
from simtti.simulator.kernels.reductions import Reduction, reduce
from simtti.simulator.kernels.resampling import Upsample, upsample_nearest
from simtti.simulator.kernels.softmax import Softmax, softmax

MEASURED = places.MEASURED

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


def seen(tensor, use, shape):
    """A use (shape, dtype, strides) under the shape of a walk, by NumPy's rules."""
    strides = tuple(0 if size == 1 else stride for size, stride in zip(use[0], use[2], strict=True))
    return layout.Operand(tensor, (0,) * (len(shape) - len(use[0])) + strides, use[1])


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
        return cat(Cat(tuple(shapes), tuple(inputs), layout.dense(99, out, dtype), vectors=False), H100)
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
        return fill(shape, first, H100)
    if op == "copy_":
        return copy(shape, seen(1, uses[1], shape), first, H100)
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
        return upsample_nearest(Upsample(math.prod(shape), 4 * math.prod(shape), dtype), H100)
    if op == "index_select":
        rows = next(use[0][0] for use in uses if use[1] == "int64")
        return embedding(Gather(rows, shape[1], shape[0], dtype, vectors=False), H100)
    if op == "layer_norm":
        before = []
        if len(json.loads(row.kernels)) == 2:
            before = copy(shape, first, layout.dense(1, shape, dtype), H100)
        return [
            *before,
            *layer_norm(RowNorm(math.prod(shape[:-1]), shape[-1], dtype, parameters=(2, 3)), H100),
        ]
    if op == "_softmax":
        return softmax(Softmax(math.prod(shape[:-1]), shape[-1], dtype), H100)
    if op in ("mean", "linalg_vector_norm"):
        inner = "[-1]" in row.concrete_inputs
        size = shape[-1 if inner else 1]
        return reduce(Reduction(math.prod(shape) // size, size, dtype, inner), H100)
    return None


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
