"""Elementwise, data movement, normalisation, softmax and reductions together: counts and limits that hold for all."""

import dataclasses

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from streams import A100, H100, add, cold_s, moved, pointwise

from simtti.dtypes import ITEM_BYTES
from simtti.hw_configs.devices import load
from simtti.hw_configs.hardware import parameter, with_parameters
from simtti.hw_configs.schema import calibration
from simtti.simulator.kernels import layout
from simtti.simulator.kernels.concatenation import Cat, cat
from simtti.simulator.kernels.data_movement import Gather, copy, embedding, memset
from simtti.simulator.kernels.family import Target
from simtti.simulator.kernels.moves import MOVES
from simtti.simulator.kernels.normalization import GroupNorm, RowNorm, group_norm, layer_norm
from simtti.simulator.kernels.reductions import Reduction, reduce
from simtti.simulator.kernels.resampling import CHANNELS_LAST, ONE_OUTPUT, Upsample, upsample_nearest
from simtti.simulator.kernels.softmax import Softmax, softmax
from simtti.simulator.lowering.nodes import nodes_of
from simtti.simulator.lowering.registry import LOWERINGS, kernels_of
from simtti.simulator.lowering.triton import kernels_of as generated
from simtti.simulator.lowering.triton import readers_of
from simtti.simulator.policy import Policy
from simtti.simulator.predict import predict
from simtti.workloads.parallel.operands import ALL_TO_ALL
from simtti.workloads.trace import Operator, TensorUse

H200 = load("h200-sxm")
DEVICES = st.sampled_from([H100, A100, H200])
DTYPES = st.sampled_from(["fp16", "fp32"])

CASES = {
    "add": lambda rows, columns, dtype, hw: add((rows, columns), dtype, hw),
    "silu": lambda rows, columns, dtype, hw: pointwise(
        "silu",
        (rows, columns),
        [layout.dense(0, (rows, columns), dtype)],
        layout.dense(1, (rows, columns), dtype),
        hw,
    ),
    "transpose": lambda rows, columns, dtype, hw: copy(
        (rows, columns),
        layout.Operand(0, (1, rows), dtype),
        layout.dense(1, (rows, columns), dtype),
        hw,
    ),
    "layer_norm": lambda rows, columns, dtype, hw: layer_norm(
        RowNorm(rows, columns, dtype, parameters=(2, 3)), hw
    ),
    "softmax": lambda rows, columns, dtype, hw: softmax(Softmax(rows, columns, dtype), hw),
    "group_norm": lambda rows, columns, dtype, hw: group_norm(
        GroupNorm(2, 64, rows * columns, 32, dtype), hw
    ),
    "mean": lambda rows, columns, dtype, hw: reduce(Reduction(rows, columns, dtype), hw),
    "upsample": lambda rows, columns, dtype, hw: upsample_nearest(
        Upsample(rows * columns, 4 * rows * columns, dtype), hw
    ),
    "embedding": lambda rows, columns, dtype, hw: embedding(Gather(rows, columns, 1000, dtype), hw),
    "memset": lambda rows, columns, dtype, hw: [memset(0, rows * columns, hw)],
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


# Rows of tables whose sizes grow in steps that change no kernel: (columns that stay, columns that grow: their least).
GROWING = (
    ({"op": "elementwise", "function": "gelu"}, {"numel": 8}),
    ({"op": "cast"}, {"numel": 8}),
    ({"op": "broadcast", "function": "add_row"}, {"numel": 6400, "cols": 64}),
    ({"op": "geglu"}, {"rows": 8, "cols": 64}),
    ({"op": "copy"}, {"numel": 8}),
    *(
        ({"op": "move", "function": function}, {"n": 2, "frames": 2, "c": 64, "h": 8, "w": 8})
        for function in MOVES
    ),
    ({"op": "cat"}, {"n": 1, "c": 8, "c2": 8, "h": 8, "w": 8}),
    ({"op": "embedding"}, {"rows": 32, "cols": 64}),
    ({"op": "upsample"}, {"n": 1, "c": 8, "h": 8, "w": 8}),
    ({"op": "layer_norm"}, {"rows": 2, "cols": 64}),
    ({"op": "rms_norm"}, {"rows": 2, "cols": 64}),
    ({"op": "group_norm"}, {"n": 1, "c": 64, "spatial": 256}),
    ({"op": "softmax", "cols": 77}, {"rows": 16}),
    ({"op": "softmax", "cols": 4096}, {"rows": 16}),
)


@given(st.sampled_from(GROWING), st.data())
@settings(deadline=None, max_examples=150)
def test_larger_problems_take_longer_on_an_h200(case, data):
    kept, grows = case
    row = {"dtype": "fp16", **kept}
    row |= {name: least << data.draw(st.integers(0, 5)) for name, least in grows.items()}
    grown = data.draw(st.sampled_from(sorted(grows)))
    small, large = (cold_s(kernels_of(each, H200), H200) for each in (row, {**row, grown: 2 * row[grown]}))
    assert small <= large * 1.001


@given(st.sampled_from(GROWING), st.data())
@settings(deadline=None, max_examples=100)
def test_rows_are_never_slower_on_a_faster_h200(case, data):
    kept, grows = case
    row = {"dtype": "fp16", **kept}
    row |= {name: least << data.draw(st.integers(0, 5)) for name, least in grows.items()}
    field = data.draw(st.sampled_from(["hbm_bytes_per_s", "l2_bytes_per_s", "clock_hz"]))
    faster = dataclasses.replace(H200, **{field: getattr(H200, field) * 1.5})
    assert cold_s(kernels_of(row, faster), faster) <= cold_s(kernels_of(row, H200), H200) * 1.001


def test_what_lies_in_order_already_is_not_moved():
    row = {"op": "move", "dtype": "fp16", "n": 1, "frames": 1, "c": 128, "h": 8, "w": 8}
    assert kernels_of({**row, "function": "frames_to_channels"}, H200) == []
    assert len(kernels_of({**row, "function": "nchw_to_tokens"}, H200)) == 1
    assert len(kernels_of({**row, "function": "to_channels_last"}, H200)) == 1


def test_a_cold_row_takes_longer_than_what_a_model_just_made():
    """Small casts and moves of an H200 take 1.2 us more after its L2 was emptied."""
    shape = (64, 1024)
    source, target = layout.dense(0, shape, "fp16"), layout.Operand(1, (1, 64), "fp16")
    warm, cold = (copy(shape, source, target, H200, cold=cold) for cold in (False, True))
    assert 0.8e-6 < cold_s(cold, H200) - cold_s(warm, H200) < 1.5e-6


def test_predict_times_the_families_by_shape():
    rows = [
        {"op": "rms_norm", "rows": 4096, "cols": 3072},
        {"op": "permute", "rows": 4096, "cols": 320, "batch": 8},
        {"op": "cat", "n": 2, "c": 640, "c2": 320, "spatial": 1024},
        {"op": "embedding", "rows": 77, "cols": 768},
        {"op": "elementwise", "numel": 1 << 20, "function": "gelu"},
        {"op": "elementwise", "numel": 1 << 20},
        {"op": "copy", "numel": 8 * 4096 * 320},
    ]
    table = predict(pd.DataFrame([{**row, "dtype": "fp16"} for row in rows]), H100, workers=1)
    assert (table.error == "").all()
    times = table.time_us.to_list()
    assert all(2 < time < 100 for time in times)
    assert times[4] >= times[5]  # an exponential is hidden by memory, or costs more than an addition
    assert times[1] > times[6]  # and a transposed copy more than a dense one
    moved = {
        row["op"]: sum(kernel.unique_bytes for kernel in kernels_of({**row, "dtype": "fp16"}, H100))
        for row in rows
    }
    assert moved["permute"] == 2 * 8 * 2 * 4096 * 320
    assert moved["cat"] == 2 * 2 * 2 * 960 * 1024


def strided_cat(hardware):
    shape = (64, 64)
    inputs = tuple(layout.Operand(tensor, (1, 64), "fp16") for tensor in range(2))
    return cat(Cat((shape, shape), inputs, layout.dense(2, (64, 128), "fp16")), hardware)


def fused(hardware):
    """The kernel of a GroupNorm whose groups are longer than what a block keeps."""
    use = [
        TensorUse(tensor, (1, 32, 12288), (0, 12288, 1), "fp16", 786432, "activation") for tensor in (0, 1)
    ]
    operator = Operator("denoising", 0, 0, "", "aten::native_group_norm", "GroupNorm", (use[0],), (use[1],),
                        {"num_groups": 32}, False)  # fmt: skip
    nodes = nodes_of([operator], hardware)
    return generated(nodes, range(len(nodes)), readers_of(nodes), hardware)


def resampled(hardware):
    """Those with an output a thread, which tables do not name."""
    kinds = (*ONE_OUTPUT.values(), *CHANNELS_LAST.values())
    return [upsample_nearest(Upsample(1 << 20, 1 << 22, "fp16", by=by), hardware) for by in kinds]


def exchange(hardware):
    """All-to-all in an eager run."""
    use = [TensorUse(tensor, (1024,), (1,), "fp16", 2048, "activation") for tensor in (0, 1)]
    operator = Operator(
        "denoising", 0, 0, "", ALL_TO_ALL, "Communication", (use[0],), (use[1],), {"ranks": 2}, False
    )
    return LOWERINGS[ALL_TO_ALL](operator, Target(hardware, Policy()))


ROWS = (
    {"op": "group_norm", "n": 2, "c": 64, "spatial": 1024},
    *({"op": "layer_norm", "rows": 4096, "cols": 1024, "dtype": dtype} for dtype in ("fp16", "fp32")),
    *({"op": "rms_norm", "rows": 4096, "cols": 1024, "dtype": dtype} for dtype in ("fp16", "fp32")),
    *({"op": "softmax", "rows": 512, "cols": columns} for columns in (512, 2049, 8192, 8193)),
    *({"op": "reduction", "rows": 512, "cols": 512, "over": over} for over in ("cols", "rows")),
    {"op": "copy", "numel": 1 << 20},
    *({"op": "cat", "n": 2, "c": 64, "c2": 64, "spatial": 256, "dtype": dtype} for dtype in ("fp16", "fp32")),
    *({"op": "cat", "n": 2, "c": 63, "c2": 64, "spatial": 9, "dtype": dtype} for dtype in ("fp16", "fp32")),
    *({"op": "embedding", "rows": 77, "cols": columns} for columns in (768, 769)),
    {"op": "embedding", "rows": 1 << 16, "cols": 64},
    {"op": "upsample", "n": 2, "c": 64, "h": 32, "w": 32},
    *({"op": "all_to_all", "numel": 1 << power, "gpus": gpus} for power in (4, 28) for gpus in (2, 4)),
    *({"op": "all_reduce", "numel": 1 << power, "gpus": 4} for power in (4, 19, 28)),
)
GROUPS = (
    "group_norm",
    "layer_norm",
    "rms_norm",
    "softmax",
    "reduction",
    "memcpy",
    "cat",
    "upsample",
    "embedding",
    "fused",
)


@pytest.mark.parametrize(
    "name", [name for name in calibration() if name.split(".")[0] in (*GROUPS, "collectives")]
)
def test_a_calibration_can_move_every_number(name):
    """Each is read where a kernel is made, so that measurements of it have somewhere to go."""

    def made(hardware):
        rows = [kernels_of({"dtype": "fp16", **row}, hardware) for row in ROWS]
        return [*rows, strided_cat(hardware), resampled(hardware), fused(hardware), exchange(hardware)]

    device = with_parameters(H100, {"softmax.kept_columns": 6144.0})
    moved = with_parameters(device, {name: parameter(device, name) * 1.5 + 1e-9})
    assert made(moved) != made(device)
