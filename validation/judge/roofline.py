"""The baseline everybody has: an operator takes as long as its FLOPs at the datasheet's peak or its bytes at the
datasheet's bandwidth, whichever is longer. From the shape alone: no tiles, no waves, no launch, nothing fitted."""

from __future__ import annotations

from simtti.errors import InputError
from simtti.hw_configs.hardware import Hardware
from simtti.simulator.predict import Cells
from simtti.workloads.trace import ITEM_BYTES


def roofline_s(cells: Cells, hardware: Hardware) -> float:
    """Seconds of a row of `simtti predict`.

    Raises:
        InputError: a cell of the shape is missing or unusable.
    """
    flops, elements = work(cells)
    nbytes = elements * ITEM_BYTES[cells.dtype]
    return max(flops / _peak(cells.dtype, hardware), nbytes / hardware.hbm_bytes_per_s)


def work(cells: Cells) -> tuple[float, float]:
    """FLOPs of the matrix products in a row, a multiply-add being two, and its unique elements, read and written."""
    op = str(cells.row["op"])
    if op == "gemm":
        batch, m, n, k = cells.whole("batch", 1), cells.whole("m"), cells.whole("n"), cells.whole("k")
        return 2.0 * batch * m * n * k, float(batch * (m * k + k * n + m * n))
    if op == "attention":
        heads = cells.whole("batch", 1) * cells.whole("heads")
        queries, keys, width = cells.whole("q_len"), cells.whole("kv_len"), cells.whole("head_dim")
        visible = 0.5 if cells.flag("causal") else 1.0
        return 4.0 * heads * queries * keys * width * visible, 2.0 * heads * width * (queries + keys)
    if op in ("conv2d", "conv3d"):
        return _convolution(cells, "hw" if op == "conv2d" else "dhw")
    if op == "group_norm":
        return 0.0, 2.0 * cells.whole("n") * cells.whole("c") * cells.whole("spatial")
    if op in ("layer_norm", "rms_norm", "softmax"):
        return 0.0, 2.0 * cells.whole("rows") * cells.whole("cols")
    if op == "elementwise":
        return 0.0, float(cells.whole("numel")) * (cells.whole("inputs", 1, 0) + 1)
    if op == "permute":
        return 0.0, 2.0 * cells.whole("batch", 1) * cells.whole("rows") * cells.whole("cols") * cells.whole(
            "inner", 1
        )
    if op == "cat":
        return 0.0, 2.0 * cells.whole("n") * (cells.whole("c") + cells.whole("c2")) * cells.whole("spatial")
    if op == "embedding":
        read = min(cells.whole("rows"), cells.whole("table_rows", 49408))
        return 0.0, float(cells.whole("cols") * (read + cells.whole("rows")))
    if op == "copy":
        return 0.0, 2.0 * cells.whole("numel")
    if op == "upsample":
        source = cells.whole("n") * cells.whole("c") * cells.whole("h") * cells.whole("w")
        return 0.0, source * (1.0 + cells.whole("scale", 2) ** 2)
    raise InputError(f"no roofline of op {op!r}")


def _convolution(cells: Cells, axes: str) -> tuple[float, float]:
    batch, channels, out = cells.whole("n"), cells.whole("c"), cells.whole("oc")
    stride, padding = cells.whole("stride", 1), cells.whole("padding", 0, 0)
    positions = results = taps = 1
    for axis in axes:
        size, tap = cells.whole(axis), cells.whole(f"k{axis}")
        positions *= size
        taps *= tap
        results *= (size + 2 * padding - tap) // stride + 1
    depth = channels // cells.whole("groups", 1) * taps
    flops = 2.0 * batch * results * out * depth
    return flops, float(batch * channels * positions + out * depth + batch * out * results)


def _peak(dtype: str, hardware: Hardware) -> float:
    """Datasheet FLOP/s: the tensor cores', or the CUDA cores' where the tensor cores do not take the type."""
    try:
        return hardware.peak_flops(dtype)
    except InputError:
        return hardware.fp32_flops_per_cycle_sm * hardware.clock_hz * hardware.sm_count
