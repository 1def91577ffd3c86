"""A folder of measurements already collected from public sources, a file a kind."""

from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simtti.files import read_table
from simtti.validation.measurements.sources.lambda_diffusers import lambda_run
from simtti.validation.measurements.sources.names import DTYPES, WORKLOADS, device
from simtti.validation.measurements.sources.public_runs import read_end_to_end, read_questions

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]
# huggingface/diffusion-fast (Apache-2.0), SDXL on an A100 step by step: what each step's attention and launch are here.
_DIFFUSION_FAST = {
    "fp32, no SDPA, eager": ("baseline", "eager"),
    "bf16": ("baseline", "eager"),
    "bf16+SDPA": ("flash", "eager"),
}


def read(root: Path, left_out: Counter[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    import pandas as pd

    for name, reader in _FILES.items():
        path = root / name
        if path.exists():
            rows = reader(read_table(path), root, left_out)
            yield str(path), rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))


def _folder_gemm(table: pd.DataFrame, root: Path, left_out: Counter[str]) -> pd.DataFrame:
    """hw, dtype, m, n, k, time_us, source; gemm_power.parquet beside it adds the power of the same shape."""
    rows = table.assign(op="gemm", batch=1, what_is_timed="back-to-back")
    beside = root / "gemm_power.parquet"
    if beside.exists():
        shape = ["hw", "dtype", "m", "n", "k"]
        power = read_table(beside).drop_duplicates(shape)[[*shape, "power_w"]]
        rows = rows.merge(power, on=shape, how="left", validate="many_to_one")
    return rows


def _folder_attention(table: pd.DataFrame, root: Path, left_out: Counter[str]) -> pd.DataFrame:
    """hw, dtype, kernel, batch, heads, seq_len, head_dim, time_us, source; no mask."""
    return table.rename(columns={"seq_len": "q_len"}).assign(
        op="attention", kv_len=table["seq_len"], causal=False, what_is_timed="back-to-back"
    )


def _folder_collectives(table: pd.DataFrame, root: Path, left_out: Counter[str]) -> pd.DataFrame:
    """hw, op, dtype, gpus, message_size, time_us, source; message_size in elements of the whole buffer, as nccl-tests counts."""
    return table.rename(columns={"message_size": "numel"}).assign(
        op=table["op"].replace({"alltoall": "all_to_all"}), dtype=table["dtype"].replace({"half": "fp16"}),
        what_is_timed="back-to-back",
    )  # fmt: skip


def _folder_convolution(table: pd.DataFrame, root: Path, left_out: Counter[str]) -> Iterator[Row]:
    """Sizes as '3x3' per axis; what `predict` cannot say (a stride that differs by axis, dilation) is left out."""
    for entry in table.to_dict("records"):
        sizes = {name: _sizes(entry[name]) for name in ("input", "kernel", "stride", "padding", "dilation")}
        even = all(len(set(sizes[name])) == 1 for name in ("stride", "padding")) and set(
            sizes["dilation"]
        ) == {1}
        hw, timed = device(str(entry["gpu"])), str(entry["what_is_timed"])
        alone = timed.startswith(("conv kernel only", "tuned kernel"))
        if hw is None:
            left_out[f"no device for {entry['gpu']}"] += 1
        elif not even:
            left_out["convolution whose stride or padding differs by axis"] += 1
        elif timed.startswith("tuned kernel"):
            left_out["convolution by a generated kernel, which no library runs"] += 1
        else:
            axes = "dhw"[-len(sizes["input"]) :]
            yield {
                "op": f"conv{len(axes)}d", "hw": hw, "dtype": DTYPES[str(entry["dtype"])], "n": entry["n"], "c": entry["c"],
                **dict(zip(axes, sizes["input"], strict=True)), "oc": entry["oc"],
                **{f"k{axis}": size for axis, size in zip(axes, sizes["kernel"], strict=True)},
                "stride": sizes["stride"][0], "padding": sizes["padding"][0], "groups": entry["groups"],
                "layout": "nhwc" if alone or entry["layout"].startswith(("channels_last", "NHWC")) else "nchw",
                "bias": "bias" in timed, "time_us": entry["time_us"], "source": entry["source"],
                "what_is_timed": "kernels" if alone or timed.startswith("whole aten op") else "wall",
            }  # fmt: skip


def _folder_normalization(table: pd.DataFrame, root: Path, left_out: Counter[str]) -> Iterator[Row]:
    """PyTorch's own kernels only; group norms do not say how many groups."""
    for entry in table.to_dict("records"):
        op = {"layernorm": "layer_norm", "softmax": "softmax", "gelu": "elementwise"}.get(str(entry["op"]))
        hw = device(str(entry["gpu"]))
        sizes = _sizes(entry["shape"])
        if hw is None:
            left_out[f"no device for {entry['gpu']}"] += 1
        elif op is None or not str(entry["impl"]).startswith("pytorch"):
            left_out[
                f"{entry['op']} by {entry['impl']}: groups not stated, several operators, or not PyTorch's"
            ] += 1
        else:
            numel = 1
            for size in sizes:
                numel *= size
            shape = (
                {"numel": numel, "inputs": 1}
                if op == "elementwise"
                else {"rows": numel // sizes[-1], "cols": sizes[-1]}
            )
            yield {
                "op": op, "hw": hw, "dtype": entry["dtype"], **shape, "time_us": entry["time_us"],
                "source": entry["source"], "what_is_timed": "wall",
            }  # fmt: skip


def _folder_operators(table: pd.DataFrame, root: Path, left_out: Counter[str]) -> Iterator[Row]:
    """Operators of profiled runs: those whose shape `predict` can say. Convolutions are in convolution.csv already."""
    for entry in table.to_dict("records"):
        hw = device(str(entry["gpu"]))
        dims, strides = ast.literal_eval(entry["input_dims"]), ast.literal_eval(entry["input_strides"])
        types = ast.literal_eval(entry["input_types"])
        dtype = next((DTYPES[name] for name in types if name in DTYPES), None)
        shape = _operator(str(entry["op"]), dims, strides, ast.literal_eval(entry["concrete_inputs"]), types)
        if hw is None or dtype is None or shape is None:
            left_out["operators of a profile that are no row of predict"] += 1
            continue
        if "HtoD" in entry["kernels"] or "DtoH" in entry["kernels"]:
            left_out["copies between host and device"] += 1
            continue
        yield shape | {
            "hw": hw, "dtype": dtype, "time_us": entry["kernel_us_mean"],
            "source": f"AMD-AGI/TraceLens {entry['model']}", "what_is_timed": "kernels",
        }  # fmt: skip


def _operator(op: str, dims: Any, strides: Any, values: Any, types: Any) -> Row | None:
    """The `predict` columns of an aten call, None if it has none: operands that are broadcast, strided or of mixed types."""
    name = op.removeprefix("aten::")
    if name in ("addmm", "mm", "bmm"):
        a, b = [shape for shape in dims if len(shape) == (3 if name == "bmm" else 2)][-2:]
        return {"op": "gemm", "batch": a[0] if name == "bmm" else 1, "m": a[-2], "n": b[-1], "k": a[-1]}
    if name == "_scaled_dot_product_flash_attention":
        query, key = dims[0], dims[1]
        if query[1] != key[1]:
            return None
        return {
            "op": "attention", "batch": query[0], "heads": query[1], "q_len": query[2], "kv_len": key[2],
            "head_dim": query[3], "causal": values[4] == "True", "kernel": "flash-attention-2",
        }  # fmt: skip
    tensors = [
        (shape, stride) for shape, stride in zip(dims, strides, strict=True) if shape and shape != ((),)
    ]
    dense = all(_dense(shape, stride) for shape, stride in tensors if isinstance(shape[0], int))
    if not dims or not dims[0] or not dense or not all(isinstance(size, int) for size in dims[0]):
        return None
    numel = 1
    for size in dims[0]:
        numel *= size
    if name == "layer_norm":
        columns = json.loads(values[1])
        affine = len(dims) > 2 and dims[2]
        return (
            {"op": "layer_norm", "rows": numel // columns[0], "cols": columns[0]}
            if len(columns) == 1 and affine
            else None
        )
    if name == "_softmax":
        return (
            {"op": "softmax", "rows": numel // dims[0][-1], "cols": dims[0][-1]}
            if values[1] in ("-1", str(len(dims[0]) - 1))
            else None
        )
    same = {tuple(shape) for shape, _ in tensors} == {tuple(dims[0])} and len(
        {each for each in types if each in DTYPES}
    ) == 1
    if name in ("add", "mul", "sub", "div", "gelu", "silu", "tanh", "sigmoid", "relu") and same:
        return {"op": "elementwise", "numel": numel, "inputs": len(tensors)}
    if name in ("copy_", "clone") and same:
        return {"op": "copy", "numel": numel}
    return None


def _dense(shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    expected = 1
    for size, step in zip(reversed(shape), reversed(stride), strict=True):
        if size != 1 and step != expected:
            return False
        expected *= size
    return True


def _folder_runs(table: pd.DataFrame, root: Path, left_out: Counter[str]) -> pd.DataFrame:
    """model_id, hw, gpus, ulysses, ring, batch, steps, frames, height, width, dtype, latency_s, energy_j, source."""
    workload = table["model_id"].map(WORKLOADS)
    for name, count in table.loc[workload.isna(), "model_id"].value_counts().items():
        left_out[f"no workload for {name}"] += int(count)
    rows = table.assign(workload=workload, what_is_timed="run").drop(
        columns=["model_id", "task"], errors="ignore"
    )
    return rows[workload.notna()]


def _folder_published_runs(table: pd.DataFrame, root: Path, left_out: Counter[str]) -> Iterator[Row]:
    """Whole inferences that others published: source, gpu, model, batch, dtype, attention_backend, config, value in
    seconds."""
    seen: set[tuple[Any, ...]] = set()
    for entry in table.to_dict("records"):
        source = str(entry["source"])
        dtype = DTYPES.get(str(entry["dtype"]).partition("(")[0])
        if source.startswith("LambdaLabsML/lambda-diffusers") and dtype:
            attention = "efficient" if entry["attention_backend"] == "xformers" else "baseline"
            board = str(entry["gpu"])
            name = board if board.startswith("Tesla") else f"NVIDIA {board}"
            yield from lambda_run(name, dtype, attention, int(entry["batch"]), entry["value"], seen, left_out)
        elif source.startswith("huggingface/diffusion-fast") and entry["config"] in _DIFFUSION_FAST:
            attention, launch = _DIFFUSION_FAST[entry["config"]]
            yield {
                "workload": "sdxl", "hw": device(str(entry["gpu"])), "dtype": dtype, "batch": entry["batch"],
                "height": 1024, "width": 1024, "steps": entry["steps"], "gpus": 1, "attention": attention,
                "launch": launch, "latency_s": entry["value"], "source": "diffusion-fast", "what_is_timed": "run",
            }  # fmt: skip
        else:
            left_out[f"runs that simtti has no options for: {entry['config']}"] += 1


def _sizes(text: object) -> tuple[int, ...]:
    return tuple(int(size) for size in str(text).split("x"))


_FILES: dict[str, Callable[[pd.DataFrame, Path, Counter[str]], pd.DataFrame | Iterator[Row]]] = {
    "gemm.parquet": _folder_gemm,
    "attention.parquet": _folder_attention,
    "nccl.parquet": _folder_collectives,
    "convolution.csv": _folder_convolution,
    "normalization.csv": _folder_normalization,
    "operators_h100.csv": _folder_operators,
    "end_to_end.csv": _folder_runs,
    "end_to_end_published.csv": _folder_published_runs,
    "end_to_end_2026.csv": lambda table, root, left_out: read_end_to_end(table, left_out),
    "questions_2026.csv": lambda table, root, left_out: read_questions(table, left_out),
}
