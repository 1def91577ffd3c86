"""ai-dynamo/aiconfigurator: GEMM and attention, device-timed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from simtti.validation.measurements.sources.names import DEVICES, DTYPES, need, read_csv_or_parquet

if TYPE_CHECKING:
    import pandas as pd

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


def read(root: Path, left_out: Counter[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    for path in sorted(root.rglob("*_perf.*")):
        reader = {"gemm_perf": _collected_gemm, "encoder_attention_perf": _collected_attention}.get(path.stem)
        if reader is None or path.suffix not in (".parquet", ".txt", ".csv"):
            continue
        parts = path.parent.parts
        inside = parts[len(parts) - parts[::-1].index("data") :] if "data" in parts else parts[-3:]
        table = reader(read_csv_or_parquet(path), str(path), left_out)
        system = DEVICES.get(inside[0], inside[0].replace("_", "-"))
        yield (
            str(path),
            table.assign(
                hw=system, source=f"aiconfigurator {'/'.join(inside)}", what_is_timed="back-to-back"
            ),
        )


def _collected_gemm(table: pd.DataFrame, origin: str, left_out: Counter[str]) -> pd.DataFrame:
    """gemm_perf: gemm_dtype, m, n, k, latency; each of several weights in turn, so that they come from HBM."""
    need(table, origin, ("gemm_dtype", "m", "n", "k", "latency"))
    dense = table["gemm_dtype"].isin(["bfloat16", "float16"])
    left_out["gemm in fp8, fp4 or int8"] += int((~dense).sum())
    table = table[dense]
    return _with_power(table, table[["m", "n", "k"]].assign(
        op="gemm", batch=1, dtype=table["gemm_dtype"].map(DTYPES), time_us=table["latency"] * 1e3
    ))  # fmt: skip


def _collected_attention(table: pd.DataFrame, origin: str, left_out: Counter[str]) -> pd.DataFrame:
    """encoder_attention_perf: batch_size, isl (seqlen in older files), num_heads, head_dim; no mask."""
    table = table.rename(columns={"seqlen": "isl"})
    need(
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
        dtype=table["attn_dtype"].map(DTYPES), time_us=table["latency"] * 1e3,
    )  # fmt: skip
    return _with_power(table, rows)


def _with_power(table: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Add power_w where the table has a measured power; 0 means that it was not."""
    if "power" in table.columns:
        rows["power_w"] = table["power"].where(table["power"] > 0)
    return rows
