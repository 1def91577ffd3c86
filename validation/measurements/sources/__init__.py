"""Public databases of measured GPU times, read from a clone of one's own into the project's table of measurements.

Readers:

    aiconfigurator    ai-dynamo/aiconfigurator (Apache-2.0): .../systems/data/SYSTEM/**/gemm_perf.* and
                      encoder_attention_perf.* (.parquet, formerly .txt, which is CSV), one row a shape: framework,
                      version, device, op_name, kernel_source, the shape, latency in milliseconds, from replays of a CUDA
                      graph; power and power_limit in watts where it was measured. Large files are in Git LFS:
                      `git lfs pull` first.
    ml-energy         ml-energy/leaderboard (Apache-2.0): public/data/models/*.json (diffusion tasks), and the older
                      data/diffusion/**/bs*.json of leaderboard-v2.
    lambda-diffusers  LambdaLabsML/lambda-diffusers (MIT): benchmarks/benchmark*.csv, Stable Diffusion 1.4 with xformers'
                      memory-efficient attention and with naive attention, on seven boards.
    folder            a folder of such measurements already collected: gemm.parquet, attention.parquet,
                      gemm_power.parquet, convolution.csv, normalization.csv, operators_h100.csv, end_to_end.csv,
                      end_to_end_published.csv, as far as they are there.

What a reader cannot express as a row of `simtti predict` or `simtti sweep` it leaves out, and counts by reason. Not read
from aiconfigurator: context and generation attention (paged caches and grouped heads, language models only), fp8 and fp4.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from simtti.errors import InputError, unknown
from simtti.validation.measurements.check import check
from simtti.validation.measurements.sources import aiconfigurator, folder, lambda_diffusers, ml_energy

if TYPE_CHECKING:
    import pandas as pd


class Imported(NamedTuple):
    """A table of measurements, and how many of the source's rows were left out, by reason."""

    table: pd.DataFrame
    left_out: Counter[str]


READERS: dict[str, Callable[[Path, Counter[str]], Iterator[tuple[str, pd.DataFrame]]]] = {
    "aiconfigurator": aiconfigurator.read,
    "ml-energy": ml_energy.read,
    "lambda-diffusers": lambda_diffusers.read,
    "folder": folder.read,
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
