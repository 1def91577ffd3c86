"""Odd inputs to what shapes an answer: changes of a device, hosts, prices, schedules, tables of runs, results, options of commands."""

from __future__ import annotations

import functools
import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pandas as pd
from click.testing import CliRunner
from odd import ODD, checked, damaged, mutated, write_yaml

# A trace that ships and is run in a fraction of a second.
WORKLOAD, STEPS = "stable-diffusion-1.5", 1
GEMM = {"op": "gemm", "dtype": "fp16", "m": 64, "n": 64, "k": 64}
# What a row of a sweep may hold, one that works first.
OPTIONS: dict[str, tuple[Any, ...]] = {
    "gpus": (1, 2), "pipefusion": (1, 2), "parallel_vae": (True,), "cfg_parallel": (1, 2), "ulysses": (1,), "ring": (1,), "tensor": (1, 2), "guidance": ("on",),
    "engine": ("diffusers", "sglang", "xdit"), "attention": ("flash", "baseline", "cudnn"), "cross_attention": ("math",),
    "mask": ("keep", "drop"), "quantization": ("fp8", "nvfp4", "svdq-int4"), "cache": ("fbcache:0.5", "magcache:0.3"), "lora": (16,),
    "offload": ("none", "model", "sequential", "group"), "pinned": (True, False), "pytorch": ("2.6", "2.11"),
    "launch": ("eager", "graph", "compiled", "compiled-graph"), "compile": ("denoiser", "all"), "layout": ("recorded", "channels-last"),
    "host": ("default", "desktop"), "fidelity": ("closed",), "tf32": (True,), "set": ("sm_count=0.5x", "hbm_bytes_per_s=3 TB/s"),
}  # fmt: skip


def word(chance: random.Random) -> str:
    """An odd value as a command line has it."""
    return _held(str(chance.choice(ODD)).replace("\0", ""))


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    """A table; what no file of UTF-8 holds is replaced."""
    plain = [
        {str(name): each if isinstance(each, int | float | type(None)) else _held(str(each)) for name, each in row.items()} for row in rows
    ]  # fmt: skip
    return pd.DataFrame(plain).to_csv(index=False).encode()


def _held(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def changes(chance: random.Random, folder: Path) -> None:
    """--set and a device's name with changes."""
    from simtti.hw_configs.changes import joined
    from simtti.hw_configs.devices import load
    from simtti.hw_configs.schema import DATASHEET, calibration
    from simtti.simulator.predict import predict_rows

    fields = [*DATASHEET, *calibration()]
    said = []
    for _ in range(chance.randint(1, 3)):
        number = f"{chance.choice(('', '-'))}{10 ** chance.uniform(-12, 18):.3g}"
        value = chance.choice([word(chance), number, number + chance.choice(["x", "GB", " TB/s", "W", "%"])])
        said.append(f"{chance.choice(fields) if chance.random() < 0.9 else word(chance)}={value}")
    name = joined("h100-sxm", said) if chance.random() < 0.7 else "+".join(["h100-sxm", *said])
    [row] = predict_rows([GEMM], load(name))
    assert not row.error.startswith("internal"), row.error
    assert row.error or (math.isfinite(row.time_us) and row.time_us > 0), (name, row)


def host(chance: random.Random, folder: Path) -> None:
    """A host's file, and a run on it now and then."""
    from simtti.hw_configs.hosts import COSTS, load_host
    from simtti.simulator.run import run

    content: dict[str, Any] = {name: 1e-5 for name in COSTS} | {"queue_depth": 64, "source": "measured"}
    if chance.random() < 0.5:
        content = {"base": "slow-vm", "speed": 1.5, "source": "measured", "name": "mine", "launch_s": 2e-6}
    path = folder / "host.yaml"
    write_yaml(path, content, chance)
    load_host(str(path))
    if chance.random() < 0.1:
        checked(run(WORKLOAD, "h100-sxm", steps=STEPS, host=str(path), fidelity="closed").to_dict())


def prices(chance: random.Random, folder: Path) -> None:
    """Prices of GPUs."""
    from simtti.hw_configs.prices import load_prices

    path = folder / "prices.yaml"
    content = {"h100-sxm": {"usd_per_gpu_hour": 2.99, "source": "s", "date": "2026-11-01"}, "t4": 0.35}
    write_yaml(path, content, chance)
    for name, price in load_prices(str(path)).items():
        assert isinstance(name, str), name
        assert 0 < price < math.inf, price


def schedule(chance: random.Random, folder: Path) -> None:
    """--cache, as words and as a file."""
    from simtti.workloads.cache_schedule import cache_of

    if chance.random() < 0.3:
        parts = [f"{chance.choice(['fn=', 'warmup=', 'bn=', 'share=', ''])}{word(chance)}" for _ in range(2)]
        kinds = cache_of(":".join([chance.choice(["fbcache", "dbcache", "magcache"]), "0.5", *parts])).kinds(
            10
        )
    else:
        path = folder / "schedule.yaml"
        listed = {
            "cache": "dbcache",
            "fn": 1,
            "bn": 0,
            "steps": ["full", "hit", {"do": "full", "times": 7}, {"run": "0-7,55"}],
        }
        by_rule = {
            "cache": "magcache",
            "ratios": [1.0, 0.99, 1.01],
            "threshold": 0.1,
            "max_skip": 2,
            "retention": 0.2,
        }
        write_yaml(path, chance.choice([listed, by_rule, {"cache": "teacache", "share": 0.5}]), chance)
        kinds = cache_of(str(path)).kinds(10)
    assert len(kinds) == 10
    assert not kinds[0].hit


def points(chance: random.Random, folder: Path) -> None:
    """A table of runs."""
    from simtti.simulator.sweep import sweep

    table = []
    for _ in range(chance.randint(1, 2)):
        chosen = chance.sample(list(OPTIONS), chance.randint(0, 3))
        row: dict[str, Any] = {
            "workload": WORKLOAD,
            "hw": chance.choice(["h100-sxm", "t4", "b200-sxm"]),
            "steps": STEPS,
        }
        row |= {name: chance.choice(OPTIONS[name]) for name in chosen}
        if chance.random() < 0.8:
            row = mutated(row, chance)
        if chance.random() < 0.97:
            row["steps"] = STEPS  # a million steps take as long as they take
        table.append(row)
    path = folder / "p.csv"
    text = as_csv(table)
    path.write_bytes(damaged(text, chance) if chance.random() < 0.1 else text)
    found = sweep(
        path, folder / chance.choice(["o.csv", "o.parquet"]), interval=chance.random() < 0.5, workers=1
    )
    for row in found.to_dict("records"):
        assert not str(row.get("error")).startswith("internal"), row
        answered = (
            isinstance(row["latency_s"], float) and math.isfinite(row["latency_s"]) and row["latency_s"] > 0
        )
        assert answered != isinstance(row.get("error"), str), row


def published(chance: random.Random, folder: Path) -> None:
    """A table of published runs or of measurements, as `scoreboard` and `validate` read it."""
    from simtti.validation.judge.scoreboard import read_collections
    from simtti.validation.measurements.table import points as points_of

    forms: list[dict[str, Any]] = [
        {
            "source": "s", "gpu": "H100", "n_gpus": 1, "model": "SDXL", "engine": "diffusers", "dtype": "bf16", "attention": "", "width": 1024,
            "height": 1024, "frames": 1, "steps": 50, "guidance": 5.0, "batch": 1, "parallelism": "", "compile": "", "quantisation": "",
            "cache": "", "offload": "", "scope": "e2e", "latency_s": 4.0, "peak_mem_gib": 11.0, "mem_metric": "allocated", "note": "",
        },
        {
            "source": "s", "gpu": "A100 x2", "model": "SDXL", "pipeline_or_engine": "diffusers", "dtype": "fp16", "width": 1024, "height": 1024,
            "steps": 50, "batch": 1, "compile": "", "quantisation": "", "latency_s": 4.0, "peak_memory_gib": 11.0, "note": "",
        },
        {
            "hw": "h100-sxm", "dtype": "fp16", "source": "s", "what_is_timed": "run", "workload": WORKLOAD, "latency_s": 1.0, "steps": 50,
            "energy_j": 100.0, "op": "",
        },
    ]  # fmt: skip
    form = chance.choice(forms)
    rows = [form, mutated(form, chance, chance.randint(1, 2)), mutated(form, chance)]
    path = folder / "published.csv"
    text = as_csv(rows)
    path.write_bytes(damaged(text, chance) if chance.random() < 0.1 else text)
    found = read_collections([path]).table
    assert ((found.latency_s > 0) & (found.latency_s < math.inf)).all(), found.latency_s.tolist()
    points_of(found)


@functools.cache
def scored() -> pd.DataFrame:
    """Three runs beside figures for them."""
    import tempfile

    from simtti.validation.judge.runs import evaluate_runs
    from simtti.validation.measurements.check import check

    rows = [
        {"hw": hw, "dtype": "fp16", "source": f"by {hw}", "what_is_timed": "run", "workload": WORKLOAD, "latency_s": 0.1, "steps": STEPS}
        for hw in ("h100-sxm", "a100-sxm", "t4")
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        return evaluate_runs(
            check(pd.DataFrame(rows), "rows"), Path(folder) / "s.parquet", traces=Path(folder), workers=1
        )


def predictions(chance: random.Random, folder: Path) -> None:
    """What another simulator says, `scoreboard --predictions`."""
    from simtti.validation.judge.scoreboard import with_predictions
    from simtti.validation.report import scoreboard

    board = scored()
    row = {"theirs": 0.1, "others": 0.2}
    table = [mutated({"source": source} | row, chance, chance.randint(0, 1)) for source in board.source]
    path = folder / "theirs.csv"
    text = as_csv(table)
    path.write_bytes(damaged(text, chance) if chance.random() < 0.2 else text)
    found, others = with_predictions(board, path)
    assert len(found) == len(board)
    for name in others:
        given = found[name].dropna()
        assert ((given > 0) & (given < math.inf)).all(), given.tolist()
    scoreboard.report(scoreboard.sided(found), ["here"], others)


@functools.cache
def answer() -> str:
    """What `simtti run --json` writes."""
    from simtti.simulator.run import run

    return json.dumps(run(WORKLOAD, "h100-sxm", steps=STEPS, fidelity="closed").to_dict())


def results(chance: random.Random, folder: Path) -> None:
    """Two results, as `simtti diff` reads them."""
    from simtti.simulator.difference import difference

    names = ("configuration", "latency_s", "breakdown", "breakdown_by_phase", "phases")
    good = {name: value for name, value in json.loads(answer()).items() if name in names}
    for name in ("a", "b"):
        data = json.dumps(mutated(good, chance, chance.randint(0, 2))).encode()
        (folder / f"{name}.json").write_bytes(damaged(data, chance) if chance.random() < 0.2 else data)
    table, titles = difference(folder / "a.json", folder / "b.json")
    assert all(isinstance(title, str) for title in titles)
    for column in ("a_s", "b_s"):
        assert ((table[column] >= 0) & (table[column] < math.inf)).all(), table[column].tolist()


# Commands of which any option may be odd: those that neither take long nor need a GPU.
COMMANDS = ("run", "compare", "costs", "profile", "predict", "sweep", "diff", "hw", "workloads")
_OUTPUTS = ("json_path", "timeline", "plot_path", "out")


def command(chance: random.Random, folder: Path) -> None:
    """A command with odd values for its options: it ends with 0, 1 or 2, and says JSON where it was asked for it."""
    from simtti.cli import main

    name = chance.choice(COMMANDS)
    given = [name, *_arguments(name, folder)]
    parameters = [each for each in main.commands[name].params if isinstance(each, click.Option)]
    for option in chance.sample(parameters, min(chance.randint(1, 3), len(parameters))):
        if option.name in (*_OUTPUTS, "hw", "steps", "workers", "trace") or option.name is None:
            continue
        good = OPTIONS.get(option.name, ("1",))
        given.append(option.opts[0])
        if not option.is_flag:
            given.append(str(chance.choice(good)) if chance.random() < 0.3 else word(chance))
    at = chance.randrange(1, len(given)) if len(given) > 1 else 0
    if (
        at and chance.random() < 0.05 and given[at - 1] not in ("--json", "--out")
    ):  # files of ours alone are written
        given[at] = word(chance)
    result = CliRunner().invoke(main, given)
    assert result.exception is None or isinstance(result.exception, SystemExit), (given, result.exc_info)
    assert result.exit_code in (0, 1, 2), (given, result.output)
    if result.exit_code == 0 and "--json" in given:
        found = json.loads(result.stdout, parse_constant=_no_constant)
        if name != "hw":  # a device's parameters: shares of a rate, which may be above 1
            checked(found)


def _no_constant(text: str) -> Any:
    raise AssertionError(f"{text} in JSON")


def _arguments(name: str, folder: Path) -> list[str]:
    """What each command needs, so that it works."""
    table, run = folder / "t.csv", ["--hw", "h100-sxm", "--steps", str(STEPS)]
    if name == "predict":
        pd.DataFrame([GEMM]).to_csv(table, index=False)
        return [str(table), "--hw", "h100-sxm", "--out", str(folder / "o.csv"), "--workers", "1"]
    if name == "sweep":
        pd.DataFrame([{"workload": WORKLOAD, "hw": "t4", "steps": STEPS}]).to_csv(table, index=False)
        return [str(table), "--out", str(folder / "o.csv"), "--workers", "1"]
    if name == "diff":
        (folder / "a.json").write_text(answer())
        return [str(folder / "a.json"), str(folder / "a.json"), "--json", "-"]
    if name in ("hw", "workloads"):
        return []
    more = {
        "run": [*run, "--fidelity", "closed", "--json", "-"], "compare": [*run, "--json", "-"], "profile": ["--steps", str(STEPS), "--json", "-"],
        "costs": [*run, "--out", str(folder / "o.json"), "--workers", "1"],
    }  # fmt: skip
    return [WORKLOAD, *more[name]]


READERS: tuple[Callable[[random.Random, Path], None], ...] = (
    changes, host, prices, schedule, points, published, predictions, results, command,
)  # fmt: skip
