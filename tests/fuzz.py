"""Inputs that nobody meant: each reader gets them by the thousand, seeded, and answers or refuses, in time and memory.

    python tests/fuzz.py --inputs 1000 --seed 0        # make fuzz

An input is a good one with a few of its bytes, values, rows or fields changed for what breaks things: huge, negative, missing, of
another type, cut. An answer is right or wrong, which cannot be told here; what can: no exception but InputError, no NaN or negative
time, none over LONGEST_S.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import math
import random
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fuzz_answers
import pandas as pd
from odd import checked, damaged, mutated, refused_or, write_yaml

from simtti.errors import InputError

LONGEST_S = 20.0
# ---- readers: each makes an input from a random number generator and reads it


def _op(
    name: str, at: float, dims: list[Any], types: list[str], concrete: list[str], number: int
) -> list[dict[str, Any]]:
    common = {"ph": "X", "pid": 1, "tid": 100}
    args = {"External id": number, "Input Dims": dims, "Input type": types, "Concrete Inputs": concrete}
    return [
        {**common, "cat": "cpu_op", "name": name, "ts": at, "dur": 20, "args": args},
        {**common, "cat": "cuda_runtime", "name": "cudaLaunchKernel", "ts": at + 5, "dur": 4, "args": {"correlation": number}},
        {
            "ph": "X", "cat": "kernel", "name": f"kernel {number}", "pid": 0, "tid": 7, "ts": at + 30, "dur": 40,
            "args": {"device": 0, "stream": 7, "correlation": number, "grid": [8, 1, 1], "block": [128, 1, 1]},
        },
    ]  # fmt: skip


def profile() -> dict[str, Any]:
    """A good profile: products, a convolution, norms, attention of several libraries, Triton."""
    half = "c10::Half"
    rows: list[tuple[str, list[Any], list[str], list[str]]] = [
        ("aten::addmm", [[64], [32, 48], [48, 64], [], []], [half] * 3 + ["Scalar"] * 2, ["", "", "", "1", "1"]),
        (
            "aten::convolution", [[1, 8, 16, 16], [8, 8, 3, 3], [8], [], [], [], [], [], []], [half] * 3 + ["ScalarList"] * 3 + ["Scalar"] * 3,
            ["", "", "", "[1, 1]", "[1, 1]", "[1, 1]", "False", "[0, 0]", "1"],
        ),
        ("aten::native_layer_norm", [[4, 64], [], [64], [64], []], [half, "ScalarList", half, half, "Scalar"], ["", "[64]", "", "", "1e-05"]),
        (
            "aten::native_group_norm", [[1, 8, 16], [8], [8], [], [], [], [], []], [half] * 3 + ["Scalar"] * 5,
            ["", "", "", "1", "8", "16", "4", "1e-05"],
        ),
        ("aten::scaled_dot_product_attention", [[1, 4, 64, 32]] * 3 + [[], [], []], [half] * 3 + [""] * 3, ["", "", "", "", "0.", "False"]),
        ("flash_attn::_flash_attn_forward", [[1, 64, 4, 32]] * 3 + [[]], [half] * 3 + ["Scalar"], ["", "", "", "False"]),
        ("triton_poi_fused_add_0", [[64, 64], [64, 64], []], [half, half, ""], ["", "", "4096"]),
        ("aten::_softmax", [[4, 64], [], []], [half, "Scalar", "Scalar"], ["", "-1", "False"]),
        ("aten::cat", [[[4, 8], [4, 8]], []], ["TensorList", "Scalar"], ["", "1"]),
        ("aten::mul", [[4, 64], [4, 1]], [half, half], ["", ""]),
    ]  # fmt: skip
    events: list[dict[str, Any]] = [
        {
            "ph": "X",
            "cat": "user_annotation",
            "name": "ProfilerStep#3",
            "pid": 1,
            "tid": 100,
            "ts": 900,
            "dur": 9000,
        },
    ]
    for number, row in enumerate(rows, start=1):
        events += _op(row[0], 1000.0 + 100 * number, *row[1:], number)
    return {
        "schemaVersion": 1,
        "deviceProperties": [{"id": 0, "name": "NVIDIA H100 80GB HBM3", "numSms": 132}],
        "traceEvents": events,
    }


def kineto(chance: random.Random, folder: Path) -> None:
    """A profile: imported, saved, loaded, summarised, timed by the model and replayed."""
    from simtti.hw_configs.devices import load
    from simtti.simulator.engine.replay import replay
    from simtti.simulator.run import run
    from simtti.workloads.kineto import import_kineto, summary
    from simtti.workloads.profile import profile as profile_of
    from simtti.workloads.trace import Trace

    data = json.dumps(mutated(profile(), chance, chance.randint(1, 4))).encode()
    if chance.random() < 0.3:
        data = damaged(data, chance)
    path = folder / "a.json"
    path.write_bytes(gzip.compress(data) if chance.random() < 0.2 else data)
    trace = import_kineto(path)
    checked(summary(trace))
    trace.save(folder / "a.parquet")
    assert Trace.load(folder / "a.parquet").timing == trace.timing
    for answer in (
        lambda: profile_of(trace),
        lambda: replay(trace, load("h100-sxm"), "measured").to_dict(),
        lambda: replay(trace, load("h200-sxm"), "hybrid", load("h100-sxm"), partial=True).to_dict(),
        lambda: run(trace, "h100-sxm", fidelity="closed", partial=True).to_dict(),
    ):
        refused_or(answer)


def trace_file(chance: random.Random, folder: Path) -> None:
    """A trace file: bytes damaged, or its table changed and written anew."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from simtti.simulator.run import run
    from simtti.workloads.kineto import import_kineto
    from simtti.workloads.trace import Trace

    good, path = folder / "good.json", folder / "a.parquet"
    good.write_text(json.dumps(profile()))
    import_kineto(good).save(path)
    if chance.random() < 0.4:
        path.write_bytes(damaged(path.read_bytes(), chance))
    else:
        table = pq.read_table(path)
        metadata = json.loads(table.schema.metadata[b"simtti_trace"])
        rows = table.to_pylist()
        if chance.random() < 0.5:
            metadata = mutated(metadata, chance)
        else:
            rows = mutated(rows, chance, chance.randint(1, 3))
        try:
            changed = pa.Table.from_pylist(
                rows, table.schema.with_metadata({b"simtti_trace": json.dumps(metadata).encode()})
            )
        except (pa.ArrowException, TypeError, ValueError, OverflowError, AttributeError):
            return  # no table holds that
        pq.write_table(changed, path)
    trace = Trace.load(path)
    refused_or(lambda: run(trace, "h100-sxm", fidelity="closed", partial=True).to_dict())


def device(chance: random.Random, folder: Path) -> None:
    """A device file."""
    from simtti.hw_configs.devices import load, read
    from simtti.simulator.predict import predict_rows

    content: Any = {"base": "h100-sxm", "name": "mine", "datasheet": dict(read("h100-sxm")["datasheet"])}
    path = folder / f"{chance.randrange(2**60)}.yaml"
    write_yaml(path, content, chance)
    row = predict_rows([{"op": "gemm", "dtype": "fp16", "m": 64, "n": 64, "k": 64}], load(str(path)))[0]
    assert row.error or row.time_us > 0, row
    assert not row.error.startswith("internal"), row.error


def spec(chance: random.Random, folder: Path) -> None:
    """An exploration's spec."""
    from simtti.explore import search
    from simtti.explore.spec import read

    content = {
        "question": "q", "base": "h100-sxm",
        "parameters": {"sm_count": {"values": [66, 132]}, "clock_hz": {"low": 1e9, "high": 2e9, "steps": 3}, "gpus": {"formula": "sm_count / 66"}},
        "workloads": [{"workload": "phenaki", "steps": 2, "host": "default", "weight": 1.0}],
        "objectives": ["latency_s", "area_mm2"], "constraints": {"latency_s": {"max": 1}}, "search": {"method": "grid", "designs": 8, "seed": 1},
    }  # fmt: skip
    path = folder / "s.yaml"
    write_yaml(path, content, chance)
    search.check(read(path))


def rows(chance: random.Random, folder: Path) -> None:
    """A table of single operators."""
    from simtti.simulator.lowering.registry import FAMILIES
    from simtti.simulator.predict import predict

    table = []
    for _ in range(3):
        family = chance.choice(list(FAMILIES.values()))
        row: dict[str, Any] = {"op": family.op, "dtype": chance.choice(["fp16", "bf16", "fp32"])}
        for column in family.columns:
            if column.kind is int and chance.random() < 0.9:
                row[column.name] = chance.choice([1, 2, 3, 7, 8, 64, 77, 128, 1000, 4096])
            elif column.words and chance.random() < 0.5:
                row[column.name] = chance.choice(list(column.words))
        if chance.random() < 0.6:
            row = {
                key: cell for key, cell in mutated(row, chance).items() if cell != "\ud800"
            }  # no table holds it
        table.append(row)
    path = folder / "r.csv"
    text = pd.DataFrame(table).to_csv(index=False, errors="replace").encode("utf-8", "replace")
    path.write_bytes(damaged(text, chance) if chance.random() < 0.2 else text)
    found = predict(path, "h100-sxm", folder / chance.choice(["o.csv", "o.parquet"]), workers=1)
    for error, time_us in zip(found["error"], found["time_us"], strict=True):
        assert not str(error).startswith("internal"), error
        assert error or (math.isfinite(time_us) and time_us >= 0), time_us


READERS: dict[str, Callable[[random.Random, Path], None]] = {
    each.__name__: each for each in (kineto, trace_file, device, spec, rows, *fuzz_answers.READERS)
}


def fuzz(name: str, inputs: int, seed: int) -> list[str]:
    """What is wrong: of each input that a reader neither answered nor refused, its number and why."""
    wrong = []
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(inputs):
            began = time.perf_counter()
            try:
                READERS[name](random.Random(f"{name} {seed} {number}"), Path(scratch))
            except InputError:
                pass
            except Exception:
                text = io.StringIO()
                traceback.print_exc(file=text, limit=-3)
                wrong.append(f"{name}, seed {seed}, input {number}:\n{text.getvalue()}")
            took_s = time.perf_counter() - began
            if took_s > LONGEST_S:
                wrong.append(f"{name}, seed {seed}, input {number}: {took_s:.0f} s")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=1000, help="of each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reader", choices=READERS, action="append")
    given = parser.parse_args()
    wrong = []
    for name in given.reader or READERS:
        found = fuzz(name, given.inputs, given.seed)
        print(f"{name}: {given.inputs} inputs, {len(found)} wrong", flush=True)
        wrong += found
    print("\n".join(wrong))
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
