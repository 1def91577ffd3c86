"""Whole runs and their stages as people publish them, by engine: what of them is an option of `simtti run`.

Two forms of table, known by their columns. *end_to_end_2026*: source, gpu, n_gpus, model, engine, dtype, attention, width, height,
frames, steps, guidance, batch, parallelism, compile, quantisation, cache, offload, scope, latency_s, peak_mem_gib, mem_metric,
modified_algo, note. *questions_2026*: the same of what people reported, with less. A row that no option says is left out, with the
reason; what changes the algorithm (modified_algo) is no measurement of the model that it names.

An engine is a set of options: which attention library it calls, and how it launches (hw_configs/engines.yaml).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from simtti.validation.measurements.sources.names import DTYPES, WORKLOADS, device
from simtti.workloads.catalogue import WORKLOADS as CATALOGUE

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]
GIB = 2**30
_MOST = 1_000_000  # of any count that a row states


class UnfitError(Exception):
    """A row that no option of `simtti run` says; its text is the reason."""


FLASH_2, FLASH_3 = "flash-attention-2", "flash-attention-3"
# simtti's engine (hw_configs/engines.yaml) by what a source's name of it begins with.
ENGINES = {
    "diffusers": "diffusers", "cache-dit (diffusers)": "diffusers", "PyTorch": "diffusers", "official": "official", "SGLang": "sglang",
    "sglang": "sglang", "vLLM-Omni": "vllm-omni", "xDiT": "xdit", "cosmos": "cosmos",
}  # fmt: skip
# What an engine's name, or the source, says of its software. PyTorch 2.0 and 2.1 have flash-attention 1 (2 came with 2.2); runs published in 2026
# are taken to have the kernels of its present release. Nightly builds tried cuDNN's attention first on H100 until pytorch/pytorch
# pull request 138522 (22 October 2024); on A100, where it has no wgmma, 'cudnn' is flash-attention 2 here.
RELEASES: tuple[tuple[str, Row], ...] = (
    (r"torch 2\.[01]\b|PyTorch 2\.[01]\b", {"attention": "flash-attention-1", "pytorch": "2.6"}),
    (r"torch nightly, late 2024|sayakpaul/diffusers-torchao", {"attention": "cudnn"}),
    (r"cache-dit|2026", {"pytorch": "2.11"}),
)
ATTENTION = {
    "torch SDPA": "flash", "SDPA": "flash", "FA3": FLASH_3, "cuDNN": "cudnn", "cuDNN attention": "cudnn", "flash-attn": FLASH_2,
    "xformers": "efficient", "no flash-attn": "flash", "SageAttention2": "sage",
}  # fmt: skip
LAUNCH: dict[str, Row] = {
    "": {}, "engine default (eager)": {}, "eager": {"launch": "eager"}, "no": {"launch": "eager"},
    "torch.compile": {"launch": "compiled"}, "yes": {"launch": "compiled"},
    "regional": {"launch": "compiled"}, "regional (default)": {"launch": "compiled"},
    "torch.compile NHWC": {"launch": "compiled", "layout": "channels-last"},
    "max-autotune": {"launch": "compiled-graph"}, "reduce-overhead": {"launch": "compiled-graph"},
    "CUDA graph": {"launch": "graph"},
}  # fmt: skip
QUANTIZATION = {
    "fp8dq": "fp8", "fp8": "fp8", "fp8 online": "fp8", "fp8dqrow": "fp8-row", "fp8 rowwise": "fp8-row", "fp8wo": "fp8-weight-only",
    "int8dq": "int8", "int8wo": "int8-weight-only", "int4wo": "int4-weight-only", "nvfp4": "nvfp4", "mxfp8": "mxfp8",
    "svdq_nvfp4_r32": "svdq-nvfp4", "svdq_int4": "svdq-int4", "W8A8": "int8",
}  # fmt: skip
# What of an inference was timed: the stage, '' for all of it.
SCOPES = {
    "e2e": "run", "denoise": "denoising", "stage: VAE decode": "decoder", "stage: text encoder": "text_encoder",
    "denoise step (median)": "step", "denoise step (from it/s)": "step", "denoise step (CFG)": "step",
}  # fmt: skip
# Tables whose whole runs have no decoder in them: two groups of GPUs for the halves of guidance take less than half of one GPU's time,
# which they could not if each decoded as well. What else is not denoising, a text encoder, is below 1 %.
WITHOUT_DECODER = ("xDiT docs/performance/sana.md",)
# Sources whose programs call pipelines as they come, which decodes a video whole (sayakpaul/diffusers-torchao, inference/benchmark_video.py);
# what most people run has it tiled.
AS_THEY_COME = ("sayakpaul/diffusers-torchao",)
# Sources whose H100s exchange no faster than the host's memory does, 27 GB/s each of two and less the more there are: so it is where NCCL's
# peer-to-peer is off, which xDiT's users run into (its issue 526: NCCL_P2P_DISABLE). Found because times did not fit.
THROUGH_THE_HOST = ("xdit-project/xDiT docs/performance/consisid.md",)
# Notes of weights on the device beside the model's: diffusers' fuse_qkv_projections keeps those that it has joined.
MORE_WEIGHTS = "fused qkv"
MEMORY = {"allocated": "allocated", "torch peak allocated": "allocated", "peak reserved": "reserved"}
# Sizes that an engine makes of what is asked of it: cosmos-predict2's "480p" (imaginaire's VIDEO_RES_SIZE_INFO, 16:9).
SIZES = {("cosmos", 480, 832): (432, 768)}
# A step's median says what the device takes only where the host has to wait for it: not in so few steps.
FEW_STEPS = 4
# Degrees as sources write them; a plain SP is taken as Ulysses.
DEGREES = (
    ("ulysses", r"(?:ulysses|usp|sp)-?(\d{1,4})"), ("ring", r"ring-?(\d{1,4})"), ("cfg_parallel", r"cfg-?(\d{1,4})"),
    ("tensor", r"\btp-?(\d{1,4})"), ("pipefusion", r"(?:pipefusion|\bpp)-?(\d{1,4})"),
)  # fmt: skip


def read_end_to_end(table: pd.DataFrame, left_out: Counter[str]) -> Iterator[Row]:
    """Rows of the form end_to_end_2026 that are options of `simtti run`."""
    for number, entry in enumerate(table.to_dict("records")):
        yield from _or_left_out(_end_to_end, _Cells(entry), f"end_to_end_2026 {number}", left_out)


def read_questions(table: pd.DataFrame, left_out: Counter[str]) -> Iterator[Row]:
    """Rows of the form questions_2026 that are options of `simtti run`."""
    for number, entry in enumerate(table.to_dict("records")):
        yield from _or_left_out(_question, _Cells(entry), f"questions_2026 {number}", left_out)


class _Cells:
    """A row's cells: text '' and numbers None where empty."""

    def __init__(self, entry: Mapping[Any, Any]) -> None:
        self._entry = entry

    def text(self, name: str) -> str:
        cell = self._entry.get(name)
        return "" if cell is None or cell != cell else str(cell).strip()

    def number(self, name: str) -> float | None:
        if not self.text(name):
            return None
        try:
            number = float(self._entry[name])
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise UnfitError(f"rows whose {name} is no number")
        return number

    def whole(self, name: str) -> int | None:
        number = self.number(name)
        if number is not None and not (number.is_integer() and 1 <= number <= _MOST):
            raise UnfitError(f"rows whose {name} is no whole number from 1 to {_MOST:,}")
        return None if number is None else int(number)


def _or_left_out(read: Any, cells: _Cells, number: str, left_out: Counter[str]) -> Iterator[Row]:
    try:
        yield read(cells) | {"source": f"{cells.text('source')} ({number})"}
    except UnfitError as reason:
        left_out[str(reason)] += 1


def _end_to_end(cells: _Cells) -> Row:
    if "sparsify" in cells.text("note"):
        raise UnfitError("runs of sparse weights")
    if cells.number("modified_algo"):
        raise UnfitError("runs of another algorithm than the model's (caches, sparse attention)")
    for name in ("cache", "offload"):
        if cells.text(name):
            raise UnfitError(f"runs with {name}: {cells.text(name)}")
    row = _common(cells, cells.text("engine"), cells.text("gpu"))
    attention = cells.text("attention")
    if attention in ATTENTION:
        row.setdefault("attention", ATTENTION[attention])
    elif attention and attention != "FA3 (Hopper), cuDNN (Blackwell)":
        raise UnfitError(f"runs with attention by {attention}")
    gpus = cells.whole("n_gpus") or 1
    parallelism = cells.text("parallelism")
    if row["engine"] == "sglang" and parallelism.startswith("engine default"):
        parallelism = _sglang_default(gpus, cells.text("guidance").startswith("CFG"))
    row |= _degrees(parallelism, gpus) | {"gpus": gpus}
    metric = MEMORY.get(cells.text("mem_metric"))
    own = "quantization" not in row and MORE_WEIGHTS not in cells.text("note")
    # Weights are quantised on the device: the most is allocated then, not in the run.
    if metric == "allocated" and own and cells.number("peak_mem_gib"):
        row["memory_bytes"] = float(cells.number("peak_mem_gib") or 0) * GIB
    scope = cells.text("scope")
    if scope == "e2e" and cells.text("source").endswith(WITHOUT_DECODER):
        scope = "denoise"
    return row | _timed(cells, scope, row)


def _question(cells: _Cells) -> Row:
    note, engine, gpu = cells.text("note"), cells.text("pipeline_or_engine"), cells.text("gpu")
    name, times, several = gpu.partition(" x")
    if times and not re.fullmatch(r"[1-9]\d{0,3}", several):
        raise UnfitError(f"no device for {gpu}")
    gpus = int(several) if times else 1
    if "implausible" in note:
        raise UnfitError("figures that are implausible")
    row = _common(cells, engine, name) | {"gpus": gpus}
    if gpus > 1:
        row["ring" if "Ring" in note else "ulysses"] = gpus
    if "naive" in engine:
        row["attention"] = "baseline"
    if "xformers" in engine:
        row["attention"] = "efficient"
    if "channels_last" in engine:
        row["layout"] = "channels-last"
    for mode in ("max-autotune", "reduce-overhead"):
        if mode in note and row.get("launch") == "compiled":
            row |= LAUNCH[mode]
    if cells.number("peak_memory_gib") and "reserved" not in note and "quantization" not in row:
        row["memory_bytes"] = float(cells.number("peak_memory_gib") or 0) * GIB
    return row | _timed(cells, "denoise" if "denoising loop only" in note else "e2e", row)


def _common(cells: _Cells, engine: str, gpu: str) -> Row:
    model = cells.text("model")
    if model not in WORKLOADS:
        raise UnfitError(f"no workload for {model}")
    hw = device(gpu)
    if hw is None:
        raise UnfitError(f"no device for {gpu}")
    known = next((each for start, each in ENGINES.items() if engine.startswith(start)), None)
    if known is None:
        raise UnfitError(f"no options for the engine {engine}")
    dtype = DTYPES.get(cells.text("dtype"))
    if dtype is None:
        raise UnfitError(f"runs in {cells.text('dtype') or 'a precision that is not stated'}")
    compiled = cells.text("compile")
    if compiled not in LAUNCH:
        raise UnfitError(f"no options for compilation by {compiled}")
    row: Row = {"workload": WORKLOADS[model], "hw": hw, "dtype": dtype, "engine": known} | LAUNCH[compiled]
    for pattern, more in RELEASES:
        if re.search(pattern, f"{engine}; {cells.text('source')}"):
            row |= more
    if cells.text("source") in THROUGH_THE_HOST:
        row["set"] = "interconnect=host"
    workload = CATALOGUE[row["workload"]]
    if cells.text("source").startswith(AS_THEY_COME) and workload.own_vae not in (None, "whole"):
        row["vae"] = "whole"
    quantization = cells.text("quantisation").partition(" (")[0]
    if quantization not in ("", "none"):
        if quantization not in QUANTIZATION:
            raise UnfitError(f"runs in {quantization}")
        row["quantization"] = QUANTIZATION[quantization]
    for name in ("batch", "steps", "height", "width", "frames"):
        value = cells.whole(name)
        if value is not None and not (name == "frames" and value == 1):
            row[name] = value
    shape = (known, row.get("height", 0), row.get("width", 0))
    if shape in SIZES:
        row["height"], row["width"] = SIZES[shape]
    if known == "sglang" and row.get("frames"):
        # Frames are made into latents of four, (frames - 1) // 4 + 1 of them, before anything runs.
        row["frames"] = (row["frames"] - 1) // 4 * 4 + 1
    return row


def _timed(cells: _Cells, scope: str, row: Row) -> Row:
    latency_s = cells.number("latency_s")
    if latency_s is None or latency_s <= 0:
        raise UnfitError("rows without a time")
    timed = SCOPES.get(scope)
    if timed is None:
        raise UnfitError(f"times of {scope}")
    if "height" not in row and "model default" not in cells.text("note"):
        raise UnfitError("runs of a size that is not stated")
    if "steps" not in row and timed in ("run", "denoising"):
        raise UnfitError("runs whose steps are not stated")
    if timed == "decoder" and row["engine"] == "sglang":
        # 10 ms for FLUX's 1024 x 1024 on H100 would be 1e15 FLOP/s of convolutions.
        raise UnfitError("decoders timed on the host, which does not wait for the device")
    if timed == "step" and row["engine"] == "sglang" and row.get("steps", 20) <= FEW_STEPS:
        raise UnfitError("steps timed on the host, which does not wait for the device")
    if timed != "step":
        return {"latency_s": latency_s, "what_is_timed": timed}
    # A step's time is held against that of a loop of as many steps.
    return {
        "steps": (steps := row.get("steps", 20)),
        "latency_s": latency_s * steps,
        "what_is_timed": "denoising",
    }


def _sglang_default(gpus: int, guided: bool) -> str:
    """What SGLang makes of several GPUs if nothing is said (multimodal_gen/runtime/server_args.py, 2026): the two passes of guidance on two
    halves of them, and their tokens shared by the rest. For two GPUs it gathers keys and values in place of Ulysses' exchange, as many
    bytes."""
    ways = 2 if guided and gpus % 2 == 0 else 1
    return f"cfg{ways} ulysses{gpus // ways}"


def _degrees(text: str, gpus: int) -> Row:
    if gpus == 1:
        return {}
    words = text.lower()
    found: Row = {}
    if match := re.search(r"\bvae-(?:patch|pp)-?(\d{1,4})", words):
        if int(match[1]) != gpus:
            raise UnfitError("runs whose VAE some of the GPUs share")
        found["parallel_vae"] = "true"
        words = words.replace(match[0], "")
    for name, pattern in DEGREES:
        if match := re.search(pattern, words):
            found[name] = int(match[1])
            words = words.replace(match[0], "")
    words = re.sub(r"pipefusion1\b|nvlink|[x\s,]+", "", words)
    if words or not any(name in found for name, _ in DEGREES):
        raise UnfitError(f"several GPUs by {text or 'means that are not stated'}")
    return found


# Forms of tables by the columns that tell them, and their readers.
FORMS = {
    "end_to_end_2026": (frozenset({"model", "engine", "n_gpus", "scope", "latency_s"}), read_end_to_end),
    "questions_2026": (frozenset({"model", "pipeline_or_engine", "latency_s"}), read_questions),
}
