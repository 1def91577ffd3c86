"""Runs killed at any moment: what was finished is kept, nothing is lost, doubled or left running, and the end is the same.

    python tests/kill.py --kills 50        # make kill-test

A sweep, a table of operators, an exploration, a scheduler's table and a scoreboard are started, killed (SIGKILL, SIGTERM, SIGINT,
SIGHUP) after a random while, and started again, until the kills are used up; then they run to their end, which must be that of a run
that nobody killed. A run that ends before it is killed must have that end too; it is begun anew, and counts as no kill.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import yaml

import simtti
from simtti.hw_configs.devices import names

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
KINDS = ("sweep", "predict", "explore", "costs", "scoreboard")
_SETTLED_S = 10.0
_OURS = str(Path(simtti.__file__).parent)
_ROWS = 40
_OPERATORS = 6000


def command(kind: str, folder: Path, out: str) -> list[str]:
    output = str(folder / _output(kind, out))
    verbs = {
        "sweep": ["sweep", str(folder / "points.csv"), "--out", output],
        "predict": ["predict", str(folder / "kernels.csv"), "--hw", "h100-sxm", "--out", output],
        "explore": ["explore", str(folder / "spec.yaml"), "--out", output, "--no-report"],
        "costs": ["costs", "phenaki", "--hw", ",".join(names()), "--steps", "2", "--out", output],
        "scoreboard": ["scoreboard", str(folder / "runs.csv"), "--out", output],
    }
    return [sys.executable, "-m", "simtti.cli", *verbs[kind], "--workers", "2"]


def _output(kind: str, out: str) -> str:
    return out if kind in ("explore", "scoreboard") else f"{out}.csv"


def prepare(folder: Path) -> None:
    rows = [f"phenaki,h100-sxm,{steps},wave" for steps in range(1, _ROWS + 1)]
    (folder / "points.csv").write_text("\n".join(["workload,hw,steps,fidelity", *rows]) + "\n")
    kernels = [f"gemm,fp16,{m},320,640" for m in range(1, _OPERATORS + 1)]
    (folder / "kernels.csv").write_text("\n".join(["op,dtype,m,n,k", *kernels]) + "\n")
    runs = [f"h100-sxm,fp16,run {steps},run,phenaki,0.5,{steps}" for steps in range(1, _ROWS + 1)]
    (folder / "runs.csv").write_text(
        "\n".join(["hw,dtype,source,what_is_timed,workload,latency_s,steps", *runs]) + "\n"
    )
    spec = {
        "base": "h100-sxm",
        "parameters": {"sm_count": {"low": 60, "high": 140, "steps": 6}, "clock_hz": {"low": 1e9, "high": 2e9, "steps": 2}},
        "workloads": [{"workload": "phenaki", "steps": 2}],
        "objectives": ["latency_s", "area_mm2"],
    }  # fmt: skip
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec))


def result(kind: str, folder: Path, out: str) -> str:
    output = folder / _output(kind, out)
    if kind == "explore":
        return pd.read_parquet(output / "results.parquet").to_csv()
    return (output / "scoreboard.csv" if kind == "scoreboard" else output).read_text()


def journal(kind: str, folder: Path, out: str) -> Path:
    output = folder / _output(kind, out)
    if kind == "explore":
        return output / "study.jsonl"
    table = output / "scoreboard.parquet" if kind == "scoreboard" else output
    return table.with_name(f".{table.name}.partial.jsonl")


def clear(kind: str, folder: Path, out: str) -> None:
    """Nothing is left of a run, so that the next begins anew."""
    output = folder / _output(kind, out)
    if output.is_dir():
        shutil.rmtree(output)
    else:
        output.unlink(missing_ok=True)


def kept(path: Path) -> list[str]:
    """The keys in a journal, as often as they stand there."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and "key" in entry:
            found.append(entry["key"])
    return found


def family(number: int) -> set[int]:
    """The processes of the session that a command began."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == number and fields[0] != "Z":
            found.add(int(path.parent.name))
    return found


def kills(kind: str, count: int, seed: int, folder: Path) -> list[str]:
    """What is wrong after so many kills of a run."""
    chance, wrong = random.Random(f"{kind} {seed}"), []
    prepare(folder)
    began = time.monotonic()
    subprocess.run(command(kind, folder, "whole"), check=True, capture_output=True)
    whole_s, whole = time.monotonic() - began, result(kind, folder, "whole")
    number = 0
    while number < count:
        before = kept(journal(kind, folder, "cut"))
        process = subprocess.Popen(
            command(kind, folder, "cut"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
        )  # fmt: skip
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(0.0, whole_s))
        how = chance.choice(SIGNALS)
        place = f"{kind}, kill {number} by {how.name}"
        ended = process.poll() is not None
        process.send_signal(how)
        said = process.communicate()[1]
        after = kept(journal(kind, folder, "cut"))
        if "Traceback" in said and _OURS in said:  # a Ctrl-C before Python has begun with ours is Python's
            wrong.append(f"{place}: {said[-500:]}")
        if len(after) != len(set(after)):
            wrong.append(f"{place}: rows doubled in the journal")
        lost = set(before) - set(after)
        # A signal may come when all is written and the journal gone.
        finished = process.returncode == 0 or (lost and not journal(kind, folder, "cut").exists())
        if lost and not finished:
            wrong.append(f"{place}: {len(lost)} rows lost")
        deadline = time.monotonic() + _SETTLED_S
        while (left := family(process.pid)) and time.monotonic() < deadline:
            time.sleep(0.05)
        if left:
            wrong.append(f"{place}: {len(left)} processes left running")
            for each in left:
                os.kill(each, signal.SIGKILL)
        if finished:
            wrong += [f"{place}: {what}" for what in _differs(kind, folder, whole)]
            clear(kind, folder, "cut")
        number += not ended
    subprocess.run(command(kind, folder, "cut"), check=True, capture_output=True)
    wrong += _differs(kind, folder, whole)
    stray = [path.name for path in folder.rglob(".*.tmp")]
    if stray:
        wrong.append(f"{kind}: {len(stray)} unfinished files left: {stray[:3]}")
    return wrong


def _differs(kind: str, folder: Path, whole: str) -> list[str]:
    try:
        same = result(kind, folder, "cut") == whole
    except OSError as error:
        return [f"{kind}: no result: {error}"]
    return [] if same else [f"{kind}: the end differs from that of a run that nobody killed"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50, help="of each kind of run")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    wrong = []
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            found = kills(kind, given.kills, given.seed, Path(folder))
        print("\n".join([f"{kind}: {given.kills} kills, {len(found)} wrong", *found]), flush=True)
        wrong += found
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
