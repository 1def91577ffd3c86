"""LambdaLabsML/lambda-diffusers: Stable Diffusion with memory-efficient and with naive attention."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simtti.validation.measurements.sources.names import device, need, read_csv_or_parquet

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]
# diffusers 0.11, torch 1.13 in NVIDIA's container 22.11, which lets fp32 products run as TF32; 512 x 512. DDIM with 30
# steps evaluates the network 30 times, as simtti's workload, whose sampler evaluates it once more than asked, does for 29.
_COMMON = {"workload": "stable-diffusion-1.5", "height": 512, "width": 512, "steps": 29, "gpus": 1, "launch": "eager",
           "what_is_timed": "run", "source": "lambda-diffusers (30 evaluations)"}  # fmt: skip
# Above it the decoder makes one image after another (VAE slicing: `simtti run --vae sliced`), for which tables of runs have no column.
_MOST_IMAGES = 16


def read(root: Path, left_out: Counter[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    """benchmarks/benchmark*.csv: device, precision (half, single), xformers, n_samples, latency in seconds, -1 where the
    memory did not suffice."""
    import pandas as pd

    seen: set[tuple[Any, ...]] = set()
    for path in sorted((root / "benchmarks").glob("benchmark*.csv")):
        table = read_csv_or_parquet(path)
        needed = ("device", "precision", "autocast", "xformers", "runtime", "n_samples", "latency")
        need(table, str(path), needed)
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
                rows += lambda_run(*found, seen, left_out)
        yield str(path), pd.DataFrame(rows)


def lambda_run(
    product: str,
    dtype: str,
    attention: str,
    images: int,
    latency_s: float,
    seen: set[tuple[Any, ...]],
    left_out: Counter[str],
) -> list[Row]:
    """The row of a run, none if it cannot be simulated or is in `seen`: one file repeats rows of another."""
    hw = device(product)
    run = (hw, dtype, attention, images, latency_s)
    if hw is None:
        left_out[f"no device for {product}"] += 1
    elif images > _MOST_IMAGES:
        left_out[f"more than {_MOST_IMAGES} images, decoded one after another"] += 1
    elif run in seen:
        left_out["runs that another file has as well"] += 1
    else:
        seen.add(run)
        return [
            _COMMON
            | {"hw": hw, "dtype": dtype, "attention": attention, "batch": images, "latency_s": latency_s}
        ]
    return []


def _true(cell: object) -> bool:
    return str(cell).lower() == "true"
