"""Public databases of measured GPU times, read from a clone of one's own into the table of `measured`.

Readers:

    aiconfigurator  ai-dynamo/aiconfigurator (Apache-2.0): .../systems/data/SYSTEM/**/gemm_perf.* and
                    encoder_attention_perf.* (.parquet, formerly .txt, which is CSV), one row a shape: framework, version,
                    device, op_name, kernel_source, the shape, latency in milliseconds, from replays of a CUDA graph; power
                    and power_limit in watts where it was measured. Large files are in Git LFS: `git lfs pull` first.
    ml-energy       ml-energy/leaderboard (Apache-2.0): public/data/models/*.json (diffusion tasks), and the older
                    data/diffusion/**/bs*.json of leaderboard-v2.
    lambda-diffusers  LambdaLabsML/lambda-diffusers (MIT): benchmarks/benchmark*.csv, Stable Diffusion 1.4 with xformers'
                    memory-efficient attention and with naive attention, on seven boards.
    folder          a folder of such measurements already collected: gemm.parquet, attention.parquet, gemm_power.parquet,
                    convolution.csv, normalization.csv, operators_h100.csv, end_to_end.csv, end_to_end_published.csv, as far as
                    they are there.

What a reader cannot express as a row of `simtti predict` or `simtti sweep` it leaves out, and counts by reason. Not read
from aiconfigurator: context and generation attention (paged caches and grouped heads, language models only), fp8 and fp4.
"""

from __future__ import annotations

import ast
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from simtti.errors import InputError, unknown
from simtti.hw_configs.hardware import find_reported
from simtti.simulator.table import read_table
from simtti.validation.measured import check

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]


class Imported(NamedTuple):
    """A table of measurements, and how many of the source's rows were left out, by reason."""

    table: pd.DataFrame
    left_out: Counter[str]


# Model identifiers at the sources: simtti's workloads.
WORKLOADS = {
    "CompVis/stable-diffusion-v1-4": "stable-diffusion-1.5",  # the same network, other weights
    "prompthero/openjourney-v4": "stable-diffusion-1.5",
    "stabilityai/stable-diffusion-2-1": "stable-diffusion-2.1",
    "stabilityai/stable-diffusion-xl-base-1.0": "sdxl",
    "stabilityai/sdxl-turbo": "sdxl-turbo",
    "segmind/SSD-1B": "ssd-1b",
    "stabilityai/stable-diffusion-3-medium-diffusers": "sd3-medium",
    "stabilityai/stable-diffusion-3.5-medium": "sd3.5-medium",
    "stabilityai/stable-diffusion-3.5-large": "sd3.5-large",
    "kandinsky-community/kandinsky-2-2-decoder": "kandinsky-2.2",
    "kandinsky-community/kandinsky-3": "kandinsky-3",
    "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS": "pixart-sigma",
    "Efficient-Large-Model/SANA1.5_1.6B_1024px_diffusers": "sana-1.6b",
    "Efficient-Large-Model/SANA1.5_4.8B_1024px_diffusers": "sana-4.8b",
    "Tencent-Hunyuan/HunyuanDiT-v1.2-Diffusers": "hunyuan-dit",
    "black-forest-labs/FLUX.1-dev": "flux-dev",
    "ali-vilab/text-to-video-ms-1.7b": "modelscope-t2v",
    "guoyww/animatediff-motion-adapter-v1-5-3": "animatediff",
    "ali-vilab/i2vgen-xl": "i2vgen-xl",
    "stabilityai/stable-video-diffusion-img2vid": "svd",
    "stabilityai/stable-video-diffusion-img2vid-xt": "svd-xt",
    "zai-org/CogVideoX-2b": "cogvideox-2b",
    "zai-org/CogVideoX1.5-5B": "cogvideox1.5-5b",
    "tencent/HunyuanVideo": "hunyuan-video",
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": "wan2.1-1.3b",
    "Wan-AI/Wan2.1-T2V-14B-Diffusers": "wan2.1-14b",
}
# How sources call devices, where the driver's product name does not tell.
DEVICES = {
    "H100": "h100-sxm",
    "H200": "h200-sxm",
    "B200": "b200-sxm",
    "A100": "a100-sxm",
    "A100 80GB": "a100-sxm",
    "A100 (80GB SXM per paper)": "a100-sxm",
    "H100 SXM 80GB HBM3": "h100-sxm",
    "H100 80GB HBM3": "h100-sxm",
    "A100-SXM4-40GB": "a100-sxm-40gb",
    "A100 80GB SXM (400W)": "a100-sxm",
    "V100": "v100-sxm",
    "V100-SXM2-16GB": "v100-sxm",
    "V100 (DGX-1, SXM2)": "v100-sxm",
    "T4": "t4",
    "rtx_pro_6000_server": "rtx-pro-6000",
}
_DTYPES = {
    "bfloat16": "bf16", "float16": "fp16", "float32": "fp32", "fp16_tc_fp32acc": "fp16",
    "c10::BFloat16": "bf16", "c10::Half": "fp16", "float": "fp32", "bf16": "bf16", "fp16": "fp16", "fp32": "fp32",
}  # fmt: skip
# Attention kernels as aiconfigurator's collectors name them in kernel_source.
_ATTENTION = {
    "torch_flow": "trtllm-fmha",
    "flash_attention_v2": "flash-attention-2",
    "flash_attention_v3": "flash-attention-3",
    "flash_attention_v4": "flash-attention-4",
    "vllm_vit_flash_attn_fa2": "flash-attention-2",
    "vllm_vit_flash_attn_fa3": "flash-attention-3",
    "vllm_vit_flash_attn_fa4": "flash-attention-4",
}
# ml-energy's older files give neither size nor frames: the defaults of the pipelines of diffusers 0.29. (height, width,
# frames)
_DEFAULTS: dict[str, tuple[int, int, int | None]] = {
    "stable-diffusion-1.5": (512, 512, None),
    "stable-diffusion-2.1": (768, 768, None),
    "sdxl": (1024, 1024, None),
    "sdxl-turbo": (512, 512, None),
    "ssd-1b": (1024, 1024, None),
    "sd3-medium": (1024, 1024, None),
    "kandinsky-2.2": (512, 512, None),
    "kandinsky-3": (1024, 1024, None),
    "modelscope-t2v": (256, 256, 16),
    "animatediff": (512, 512, 16),
    "i2vgen-xl": (704, 1280, 16),
    "svd": (576, 1024, 14),
    "svd-xt": (576, 1024, 25),
}


def import_measurements(kind: str, directory: str | os.PathLike[str]) -> Imported:
    """Read the database of `kind` in `directory`.

    Raises:
        InputError: unknown kind; no such folder; nothing of that kind in it; a file that cannot be read.
    """
    if kind not in READERS:
        raise unknown("kind of measurements", kind, READERS)
    root = Path(directory)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder")
    left_out: Counter[str] = Counter()
    tables = [check(table, origin) for origin, table in READERS[kind](root, left_out) if len(table)]
    if not tables:
        raise InputError(f"{root}: no measurements of {kind} found in it" + _why(left_out))
    import pandas as pd

    return Imported(pd.concat(tables, ignore_index=True), left_out)


def _why(left_out: Counter[str]) -> str:
    return "".join(f"; {count} rows left out: {reason}" for reason, count in left_out.most_common())


def _device(name: str) -> str | None:
    """simtti's device for a source's name of it, None if there is none."""
    found = find_reported(name)
    return found.name if found else DEVICES.get(name)


# ---- ai-dynamo/aiconfigurator


def _aiconfigurator(root: Path, left_out: Counter[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    for path in sorted(root.rglob("*_perf.*")):
        reader = {"gemm_perf": _collected_gemm, "encoder_attention_perf": _collected_attention}.get(path.stem)
        if reader is None or path.suffix not in (".parquet", ".txt", ".csv"):
            continue
        parts = path.parent.parts
        inside = parts[len(parts) - parts[::-1].index("data") :] if "data" in parts else parts[-3:]
        table = reader(_read_collected(path), str(path), left_out)
        system = DEVICES.get(inside[0], inside[0].replace("_", "-"))
        yield (
            str(path),
            table.assign(
                hw=system, source=f"aiconfigurator {'/'.join(inside)}", what_is_timed="back-to-back"
            ),
        )


def _read_collected(path: Path) -> pd.DataFrame:
    """A file of the database: Parquet, or CSV under whatever name."""
    import pandas as pd

    with path.open("rb") as file:
        if file.read(40).startswith(b"version https://git-lfs"):
            raise InputError(f"{path}: a Git LFS pointer, not the data; run `git lfs pull` in the clone")
    if path.suffix == ".parquet":
        return read_table(path)
    try:
        return pd.read_csv(path)
    except (OSError, ValueError, UnicodeDecodeError, pd.errors.ParserError) as error:
        raise InputError(f"{path}: not readable as CSV: {str(error).splitlines()[0]}") from None


def _collected_gemm(table: pd.DataFrame, origin: str, left_out: Counter[str]) -> pd.DataFrame:
    """gemm_perf: gemm_dtype, m, n, k, latency; each of several weights in turn, so that they come from HBM."""
    _need(table, origin, ("gemm_dtype", "m", "n", "k", "latency"))
    dense = table["gemm_dtype"].isin(["bfloat16", "float16"])
    left_out["gemm in fp8, fp4 or int8"] += int((~dense).sum())
    table = table[dense]
    return _with_power(table, table[["m", "n", "k"]].assign(
        op="gemm", batch=1, dtype=table["gemm_dtype"].map(_DTYPES), time_us=table["latency"] * 1e3
    ))  # fmt: skip


def _collected_attention(table: pd.DataFrame, origin: str, left_out: Counter[str]) -> pd.DataFrame:
    """encoder_attention_perf: batch_size, isl (seqlen in older files), num_heads, head_dim; no mask."""
    table = table.rename(columns={"seqlen": "isl"})
    _need(
        table,
        origin,
        ("batch_size", "isl", "num_heads", "head_dim", "attn_dtype", "kernel_source", "latency"),
    )
    known = table["kernel_source"].isin(list(_ATTENTION)) & table["attn_dtype"].isin(["bfloat16", "float16"])
    for name, count in table.loc[~known, "kernel_source"].value_counts().items():
        left_out[f"attention by {name}, which simtti does not model"] += int(count)
    table = table[known]
    shape = {"batch_size": "batch", "isl": "q_len", "num_heads": "heads", "head_dim": "head_dim"}
    rows = table[list(shape)].rename(columns=shape).assign(
        op="attention", kv_len=table["isl"], causal=False, kernel=table["kernel_source"].map(_ATTENTION),
        dtype=table["attn_dtype"].map(_DTYPES), time_us=table["latency"] * 1e3,
    )  # fmt: skip
    return _with_power(table, rows)


def _with_power(table: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Add power_w where the table has a measured power; 0 means that it was not."""
    if "power" in table.columns:
        rows["power_w"] = table["power"].where(table["power"] > 0)
    return rows


def _need(table: pd.DataFrame, origin: str, columns: tuple[str, ...]) -> None:
    for name in columns:
        if name not in table.columns:
            raise InputError(
                f"{origin}: column {name!r} is missing; it has {', '.join(map(str, table.columns))}"
            )


# ---- ml-energy/leaderboard


def _ml_energy(root: Path, left_out: Counter[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    import pandas as pd

    for path in sorted(root.rglob("*.json")):
        if path.parent.name == "models" and ("__text-to-" in path.name or "__image-to-" in path.name):
            reader: Callable[[Row, Path, Counter[str]], Iterator[Row]] = _leaderboard_v3
        elif "diffusion" in path.parts and re.fullmatch(r"bs\d+\.json", path.name):
            reader = _leaderboard_v2
        else:
            continue
        try:
            content = json.loads(path.read_text())
            rows = list(reader(content, path, left_out))
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{path}: not a file of the leaderboard: {type(error).__name__}: {error}"
            ) from None
        yield str(path), pd.DataFrame(rows)


def _run(model: str, device: str, left_out: Counter[str]) -> Row | None:
    """The start of a row of a whole run, None where simtti lacks the model or the device."""
    hw = _device(device)
    if model not in WORKLOADS:
        left_out[f"no workload for {model}"] += 1
    elif hw is None:
        left_out[f"no device for {device}"] += 1
    else:
        return {"workload": WORKLOADS[model], "hw": hw, "what_is_timed": "run"}
    return None


def _leaderboard_v3(content: Row, path: Path, left_out: Counter[str]) -> Iterator[Row]:
    """public/data/models: one model and task, `configurations` with batch, steps, size, GPUs and their degrees."""
    dtype = _DTYPES.get(str(content["weight_precision"]))
    for entry in content["configurations"]:
        row = _run(content["model_id"], entry["gpu_model"], left_out)
        if row is None:
            continue
        kind = "video" if "video_height" in entry else "image"
        degrees = entry.get("parallelization") or entry
        yield row | {
            "dtype": dtype, "batch": entry["batch_size"], "steps": entry["inference_steps"],
            "height": entry[f"{kind}_height"], "width": entry[f"{kind}_width"], "frames": entry.get("num_frames"),
            "gpus": entry["num_gpus"], "ulysses": degrees["ulysses_degree"], "ring": degrees["ring_degree"],
            "latency_s": entry["batch_latency_s"],
            "energy_j": entry[f"energy_per_{kind}_joules"] * entry["batch_size"], "source": "ml-energy v3",
        }  # fmt: skip


def _leaderboard_v2(content: Row, path: Path, left_out: Counter[str]) -> Iterator[Row]:
    """data/diffusion/TASK/GPU/STEPS/MODEL/bsN.json: one run in fp16 on one GPU."""
    row = _run(content["Model"], content["GPU model"], left_out)
    if row is None:
        return
    if row["workload"] not in _DEFAULTS:
        left_out[f"no default size for {content['Model']}"] += 1
        return
    height, width, frames = _DEFAULTS[row["workload"]]
    batch = content["Batch size"]
    energy = content.get("Batch energy (J)")
    if energy is None:
        energy = next(content[name] for name in content if name.startswith("Energy per ")) * batch
    steps = content.get("Number of inference steps", content.get("Inference steps"))
    yield row | {
        "dtype": "fp16", "batch": batch, "steps": steps, "height": height, "width": width, "frames": frames,
        "gpus": 1, "ulysses": 1, "ring": 1, "latency_s": content["Batch latency (s)"], "energy_j": energy,
        "source": "ml-energy v2",
    }  # fmt: skip


# ---- LambdaLabsML/lambda-diffusers

# diffusers 0.11, torch 1.13 in NVIDIA's container 22.11, which lets fp32 products run as TF32; 512 x 512. DDIM with 30
# steps evaluates the network 30 times, as simtti's workload, whose sampler evaluates it once more than asked, does for 29.
_LAMBDA = {"workload": "stable-diffusion-1.5", "height": 512, "width": 512, "steps": 29, "gpus": 1, "launch": "eager",
           "what_is_timed": "run", "source": "lambda-diffusers (30 evaluations)"}  # fmt: skip
# Above it the decoder makes one image after another (VAE slicing), which no option of `simtti run` says.
_LAMBDA_MOST_IMAGES = 16


def _lambda_diffusers(root: Path, left_out: Counter[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    """benchmarks/benchmark*.csv: device, precision (half, single), xformers, n_samples, latency in seconds, -1 where the
    memory did not suffice."""
    import pandas as pd

    seen: set[tuple[Any, ...]] = set()
    for path in sorted((root / "benchmarks").glob("benchmark*.csv")):
        table = _read_collected(path)
        needed = ("device", "precision", "autocast", "xformers", "runtime", "n_samples", "latency")
        _need(table, str(path), needed)
        rows = []
        for entry in table.to_dict("records"):
            plain = entry["runtime"] == "pytorch" and not _true(entry["autocast"])
            dtype = {"half": "fp16", "single": "fp32"}.get(str(entry["precision"]))
            if not plain or dtype is None:
                left_out["runs with autocast or another runtime than PyTorch"] += 1
            elif entry["latency"] <= 0:
                left_out["runs that did not fit the memory"] += 1
            else:
                attention = "efficient" if _true(entry["xformers"]) else "baseline"
                found = (
                    str(entry["device"]),
                    dtype,
                    attention,
                    int(entry["n_samples"]),
                    float(entry["latency"]),
                )
                rows += _lambda_run(*found, seen, left_out)
        yield str(path), pd.DataFrame(rows)


def _lambda_run(
    device: str,
    dtype: str,
    attention: str,
    images: int,
    latency_s: float,
    seen: set[tuple[Any, ...]],
    left_out: Counter[str],
) -> list[Row]:
    """The row of a run, none if it cannot be simulated or is in `seen`: one file repeats rows of another."""
    hw = _device(device)
    run = (hw, dtype, attention, images, latency_s)
    if hw is None:
        left_out[f"no device for {device}"] += 1
    elif images > _LAMBDA_MOST_IMAGES:
        left_out[f"more than {_LAMBDA_MOST_IMAGES} images, decoded one after another"] += 1
    elif run in seen:
        left_out["runs that another file has as well"] += 1
    else:
        seen.add(run)
        return [
            _LAMBDA
            | {"hw": hw, "dtype": dtype, "attention": attention, "batch": images, "latency_s": latency_s}
        ]
    return []


def _true(cell: object) -> bool:
    return str(cell).lower() == "true"


# ---- a folder of collected measurements


def _folder(root: Path, left_out: Counter[str]) -> Iterator[tuple[str, pd.DataFrame]]:
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


def _folder_convolution(table: pd.DataFrame, root: Path, left_out: Counter[str]) -> Iterator[Row]:
    """Sizes as '3x3' per axis; what `predict` cannot say (a stride that differs by axis, dilation) is left out."""
    for entry in table.to_dict("records"):
        sizes = {name: _sizes(entry[name]) for name in ("input", "kernel", "stride", "padding", "dilation")}
        even = all(len(set(sizes[name])) == 1 for name in ("stride", "padding")) and set(
            sizes["dilation"]
        ) == {1}
        hw, timed = _device(str(entry["gpu"])), str(entry["what_is_timed"])
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
                "op": f"conv{len(axes)}d", "hw": hw, "dtype": _DTYPES[str(entry["dtype"])], "n": entry["n"], "c": entry["c"],
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
        hw = _device(str(entry["gpu"]))
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
        hw = _device(str(entry["gpu"]))
        dims, strides = ast.literal_eval(entry["input_dims"]), ast.literal_eval(entry["input_strides"])
        types = ast.literal_eval(entry["input_types"])
        dtype = next((_DTYPES[name] for name in types if name in _DTYPES), None)
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
        {each for each in types if each in _DTYPES}
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
        dtype = _DTYPES.get(str(entry["dtype"]).partition("(")[0])
        if source.startswith("LambdaLabsML/lambda-diffusers") and dtype:
            attention = "efficient" if entry["attention_backend"] == "xformers" else "baseline"
            device = str(entry["gpu"])
            name = device if device.startswith("Tesla") else f"NVIDIA {device}"
            yield from _lambda_run(
                name, dtype, attention, int(entry["batch"]), entry["value"], seen, left_out
            )
        elif source.startswith("huggingface/diffusion-fast") and entry["config"] in _DIFFUSION_FAST:
            attention, launch = _DIFFUSION_FAST[entry["config"]]
            yield {
                "workload": "sdxl", "hw": _device(str(entry["gpu"])), "dtype": dtype, "batch": entry["batch"],
                "height": 1024, "width": 1024, "steps": entry["steps"], "gpus": 1, "attention": attention,
                "launch": launch, "latency_s": entry["value"], "source": "diffusion-fast", "what_is_timed": "run",
            }  # fmt: skip
        else:
            left_out[f"runs that simtti has no options for: {entry['config']}"] += 1


# huggingface/diffusion-fast (Apache-2.0), SDXL on an A100 step by step: what each step's attention and launch are here.
_DIFFUSION_FAST = {
    "fp32, no SDPA, eager": ("baseline", "eager"),
    "bf16": ("baseline", "eager"),
    "bf16+SDPA": ("flash", "eager"),
}


def _sizes(text: object) -> tuple[int, ...]:
    return tuple(int(size) for size in str(text).split("x"))


_FILES: dict[str, Callable[[pd.DataFrame, Path, Counter[str]], pd.DataFrame | Iterator[Row]]] = {
    "gemm.parquet": _folder_gemm,
    "attention.parquet": _folder_attention,
    "convolution.csv": _folder_convolution,
    "normalization.csv": _folder_normalization,
    "operators_h100.csv": _folder_operators,
    "end_to_end.csv": _folder_runs,
    "end_to_end_published.csv": _folder_published_runs,
}
READERS: dict[str, Callable[[Path, Counter[str]], Iterator[tuple[str, pd.DataFrame]]]] = {
    "aiconfigurator": _aiconfigurator,
    "ml-energy": _ml_energy,
    "lambda-diffusers": _lambda_diffusers,
    "folder": _folder,
}
